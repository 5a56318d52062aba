//! The decisions listener from outside: who is answered, how far a batch goes, and how it ends.

use std::time::Duration;

use tokio_stream::StreamExt;
use tollgate::proto::v1::{CheckBatchRequest, CheckRequest, CheckResponse, EvaluationSemantic};
use tonic::Code;
use tonic::transport::Endpoint;

use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use super::gate::{Client, Gate, PATIENCE, Site, ask, codes, eventually, ids, is_allowed, now, records};

fn for_marketing(token: &str) -> CheckRequest {
    CheckRequest { purpose: "Marketing".into(), ..ask(token) }
}

async fn batch(
    client: &mut Client,
    requests: Vec<CheckRequest>,
    semantic: EvaluationSemantic,
) -> Result<Vec<CheckResponse>, tonic::Status> {
    let batch = CheckBatchRequest { requests, semantic: semantic.into() };
    client.check_batch(batch).await.map(|answer| answer.into_inner().responses)
}

#[tokio::test]
async fn answers_over_tcp_and_over_a_unix_socket() {
    let gate = Gate::start(&[("listeners.decisions.unix", "gate.sock")]);
    let token = gate.site().issuer.license("license-1");
    let socket = format!("unix:{}", gate.site().path("gate.sock").display());
    let over_unix = Client::new(Endpoint::from_shared(socket).unwrap().connect().await.unwrap());
    let mut answered = Vec::new();
    for mut client in [gate.client().await, over_unix] {
        let allowed = client.check(ask(&token)).await.unwrap().into_inner();
        assert!(is_allowed(&allowed), "{allowed:?}");
        let denied = client.check(for_marketing(&token)).await.unwrap().into_inner();
        assert_eq!(codes(&denied), ["PURPOSE_NOT_LICENSED"]);
        answered.extend([allowed.decision_id, denied.decision_id]);
    }
    let ended = gate.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let records = ended.site.records();
    assert_eq!(ids(&records), answered);
    assert_eq!(records[1]["purpose"], "Marketing");
    assert!(!ended.site.path("gate.sock").exists(), "the socket outlived its gate");
}

#[tokio::test]
async fn long_lists_get_short_answers_soon() {
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut claims = gate.site().issuer.claims("dutiful");
    let duty = |number: usize| serde_json::json!({"id": format!("d{number}"), "type": format!("t{number}")});
    claims["terms"]["duties"] = (0..200).map(duty).collect();
    let dutiful = gate.site().issuer.sign(&claims);
    let mut client = gate.client().await;
    let many = |item: &str, count: usize| vec![item.to_owned(); count];
    let questions = [
        ("combined_with", CheckRequest { combined_with: many("", 400_000), ..ask(&token) }),
        ("combined_with[0]", CheckRequest { combined_with: many("", 1_000), ..ask(&token) }),
        (
            "supported_obligations",
            CheckRequest { supported_obligations: many("a", 400_000), ..ask(&dutiful) },
        ),
    ];
    let begun = std::time::Instant::now();
    for (field, question) in questions {
        let denied = client.check(question).await.unwrap().into_inner();
        assert_eq!(codes(&denied), ["CONTEXT_INVALID"], "{field}");
        assert!(denied.reasons[0].reason_admin.starts_with(&format!("{field}: ")), "{denied:?}");
    }
    let mut question = ask(&token);
    question.subject.as_mut().unwrap().roles = many("r", 400_000);
    assert_eq!(codes(&client.check(question.clone()).await.unwrap().into_inner()), ["CONTEXT_INVALID"]);
    question.subject.as_mut().unwrap().roles.truncate(1_000);
    assert!(is_allowed(&client.check(question).await.unwrap().into_inner()));
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_license_that_is_remembered_ends_in_the_second_that_it_names() {
    let gate = Gate::start(&[]);
    let mut claims = gate.site().issuer.claims("short");
    let end = now() + 2;
    claims["exp"] = end.into();
    let token = gate.site().issuer.sign(&claims);
    let mut client = gate.client().await;
    let (mut allowed, mut denied) = (0, 0);
    while denied < 3 {
        let answer = client.check(ask(&token)).await.unwrap().into_inner();
        // A decision's id tells the millisecond in which it was made.
        let made = i64::from_str_radix(&answer.decision_id.replace('-', "")[..12], 16).unwrap();
        assert_eq!(is_allowed(&answer), made < end * 1000, "decided at {made}, ends at {end}");
        if is_allowed(&answer) {
            allowed += 1;
        } else {
            assert_eq!(codes(&answer), ["EXPIRED"]);
            denied += 1;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(allowed > 3, "{allowed}");
}

#[tokio::test]
async fn a_batch_goes_as_far_as_its_semantic_says() {
    use EvaluationSemantic::{DenyOnFirstDeny, ExecuteAll, PermitOnFirstPermit, Unspecified};
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut client = gate.client().await;
    let (yes, no) = (ask(&token), for_marketing(&token));
    for (semantic, questions, expected) in [
        (Unspecified, [&yes, &no, &yes], &[true, false, true][..]),
        (ExecuteAll, [&no, &yes, &no], &[false, true, false]),
        (DenyOnFirstDeny, [&yes, &no, &yes], &[true, false]),
        (DenyOnFirstDeny, [&yes, &yes, &yes], &[true, true, true]),
        (PermitOnFirstPermit, [&no, &yes, &no], &[false, true]),
        (PermitOnFirstPermit, [&no, &no, &no], &[false, false, false]),
    ] {
        let answers = batch(&mut client, questions.map(Clone::clone).to_vec(), semantic).await.unwrap();
        assert_eq!(answers.iter().map(is_allowed).collect::<Vec<_>>(), expected, "{semantic:?}");
    }
    for size in [0, 1001] {
        let refused = batch(&mut client, vec![yes.clone(); size], ExecuteAll).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{size}: {refused}");
        assert!(refused.message().contains("from 1 to 1,000"), "{refused}");
    }
    assert_eq!(batch(&mut client, vec![yes.clone()], ExecuteAll).await.unwrap().len(), 1);
    let many = batch(&mut client, vec![yes; 1000], ExecuteAll).await.unwrap();
    assert!(many.len() == 1000 && many.iter().all(is_allowed));
    // What was not decided leaves no record.
    assert_eq!(gate.stop().await.site.records().len(), 3 + 3 + 2 + 3 + 2 + 3 + 1 + 1000);
}

#[tokio::test]
async fn what_is_too_large_is_not_decided_and_is_counted() {
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut client = gate.client().await;
    let large = CheckRequest { purpose: "x".repeat(5 << 20), ..ask(&token) };
    let refused = client.check(large).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(gate.metric("tollgate_undecided_total", &[("kind", "resource_exhausted")]), 1.0);
    let answer = client.check(ask(&token)).await.unwrap().into_inner();
    assert!(is_allowed(&answer), "the connection is still good: {answer:?}");
}

#[tokio::test]
async fn a_batch_that_is_too_late_is_not_decided_to_its_end() {
    let gate = Gate::start(&[("listeners.limits.request_timeout", "30ms")]);
    let token = gate.site().issuer.license("license-1");
    // Different questions, so that none is answered from memory.
    let questions = (0..1000).map(|number| CheckRequest { project: format!("p{number}"), ..ask(&token) });
    let mut client = gate.client().await;
    let late = batch(&mut client, questions.collect(), EvaluationSemantic::ExecuteAll).await;
    assert_eq!(late.map(|answers| answers.len()).unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(gate.metric("tollgate_undecided_total", &[("kind", "deadline_exceeded")]), 1.0);
    assert!(gate.metric("tollgate_checks_total", &[]) < 1000.0, "it went on after the deadline");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let gate = Gate::start(&[]);
    let list = MessageRequest::ListServices(String::new());
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(gate.channel().await);
    let answers = client.server_reflection_info(tokio_stream::iter([question])).await.unwrap();
    let answer = format!("{:?}", answers.into_inner().next().await.unwrap().unwrap());
    for service in ["tollgate.v1.DecisionService", "grpc.health.v1.Health"] {
        assert!(answer.contains(service), "{answer}");
    }
}

/// Asks until the gate is gone; the ids of all answers.
fn keep_asking(mut client: Client, question: CheckRequest) -> tokio::task::JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut answered = Vec::new();
        loop {
            match client.check(question.clone()).await {
                Ok(answer) => answered.push(answer.into_inner().decision_id),
                Err(gone) => {
                    assert_eq!(gone.code(), Code::Unavailable, "{gone}");
                    return answered;
                }
            }
        }
    })
}

#[tokio::test]
async fn a_gate_that_is_told_to_stop_says_so_first_and_loses_no_record() {
    let gate = Gate::start(&[("shutdown.notice", "500ms")]);
    let question = ask(&gate.site().issuer.license("license-1"));
    let mut health = HealthClient::new(gate.channel().await);
    let about = HealthCheckRequest { service: "tollgate.v1.DecisionService".into() };
    let mut health = health.watch(about).await.unwrap().into_inner();
    let status = |told: Option<Result<HealthCheckResponse, tonic::Status>>| told.unwrap().unwrap().status();
    assert_eq!(status(health.next().await), ServingStatus::Serving);
    assert_eq!(gate.get("/readyz").0, 200);
    let asking: Vec<_> =
        [gate.client().await, gate.client().await].map(|client| keep_asking(client, question.clone())).into();
    eventually("checks are under way", async || gate.metric("tollgate_checks_total", &[]) > 20.0).await;

    gate.signal("TERM");
    let told = tokio::time::timeout(Duration::from_millis(400), health.next()).await;
    assert_eq!(status(told.expect("said before the listener closes")), ServingStatus::NotServing);
    let (code, page) = gate.get("/readyz");
    assert!(code == 503 && page.contains("stopping"), "{code} {page}");
    let late = gate.check(question).await;
    assert!(is_allowed(&late), "what arrives before the listener closes is answered");

    let address = gate.decisions;
    let ended = gate.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let records = ended.site.records();
    let recorded = ids(&records);
    let mut answered = vec![late.decision_id];
    for asking in asking {
        answered.extend(tokio::time::timeout(PATIENCE, asking).await.unwrap().unwrap());
    }
    let lost: Vec<_> = answered.iter().filter(|id| !recorded.contains(&id.as_str())).collect();
    assert!(lost.is_empty(), "{} answers have no record", lost.len());
    std::net::TcpStream::connect(address).expect_err("the listener is still open");
}

#[tokio::test]
async fn what_is_in_flight_when_the_gate_stops_is_answered() {
    let gate = Gate::start(&[("audit.mode", "durable")]);
    let question = ask(&gate.site().issuer.license("license-1"));
    let mut client = gate.client().await;
    let log = gate.site().path("decisions.jsonl");
    // Each waits for the disk, one after the other.
    let asked = tokio::spawn(async move {
        batch(&mut client, vec![question; 1000], EvaluationSemantic::ExecuteAll).await
    });
    eventually("the batch is under way", async || !records(&log).is_empty()).await;
    gate.signal("TERM");
    assert!(records(&log).len() < 1000, "the batch was not in flight any more");
    let answers = asked.await.unwrap().unwrap();
    assert!(answers.len() == 1000 && answers.iter().all(is_allowed));
    let ended = gate.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.site.records().len(), 1000);
}

#[tokio::test]
async fn an_open_address_needs_tls_or_a_word() {
    let site = Site::new();
    let refused = site.serve(&[("listeners.decisions.tcp", "0.0.0.0:0")]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    let words = String::from_utf8(refused.stderr).unwrap();
    for expected in ["listeners.decisions.tcp", "listeners.decisions.tls", "insecure: true"] {
        assert!(words.contains(expected), "{words}");
    }
    let overrides = [("listeners.decisions.tcp", "0.0.0.0:0"), ("listeners.decisions.insecure", "true")];
    let gate = site.start(&overrides);
    assert!(gate.decisions.ip().is_unspecified());
    assert!(is_allowed(&gate.check(ask(&gate.site().issuer.license("license-1"))).await));
}

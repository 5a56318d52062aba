//! The decision log from outside: what was answered is recorded, whatever happens to the gate or to
//! the file.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tollgate::proto::v1::{CheckRequest, CheckResponse};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::gate::{Client, Gate, PATIENCE, Site, ask, codes, eventually, ids, is_allowed, records};
use super::operators::{Admin, OVERRIDES};

fn question(gate: &Gate) -> CheckRequest {
    ask(&gate.site().issuer.license("license-1"))
}

async fn check(gate: &Gate) -> CheckResponse {
    gate.check(question(gate)).await
}

fn is_unrecorded(answer: &CheckResponse) -> bool {
    codes(answer) == ["AUDIT_UNAVAILABLE"]
}

/// What `answered` has and `recorded` lacks.
fn lost<'a>(answered: &'a [String], recorded: &[&str]) -> Vec<&'a String> {
    let recorded: std::collections::HashSet<_> = recorded.iter().collect();
    answered.iter().filter(|id| !recorded.contains(&id.as_str())).collect()
}

#[tokio::test]
async fn a_durable_answer_survives_a_kill() {
    let mut site = Site::new();
    let mut answered = Vec::new();
    for round in 0..3 {
        let gate = site.start(&[("audit.mode", "durable")]);
        let question = question(&gate);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (mut client, question) = (gate.client().await, question.clone());
            asking.spawn(async move {
                let mut ids = Vec::new();
                while let Ok(answer) = client.check(question.clone()).await {
                    assert!(is_allowed(answer.get_ref()), "{answer:?}");
                    ids.push(answer.into_inner().decision_id);
                }
                ids
            });
        }
        eventually("it is under load", async || gate.site().records().len() > 100 * (round + 1)).await;
        gate.signal("KILL");
        let killed: Vec<String> = asking.join_all().await.into_iter().flatten().collect();
        assert!(killed.len() > 50, "{}", killed.len());
        answered.extend(killed);
        let ended = gate.ended().await;
        assert_eq!(ended.code, None);
        site = ended.site;
        let records = site.records();
        let lost = lost(&answered, &ids(&records));
        assert!(lost.is_empty(), "{} of {} answers have no record", lost.len(), answered.len());
    }
}

#[tokio::test]
async fn a_line_that_a_kill_cut_short_does_not_spoil_the_next() {
    let site = Site::new();
    fs::write(site.path("decisions.jsonl"), "{\"decision_id\":\"cut sho").unwrap();
    let gate = site.start(&[]);
    let answer = check(&gate).await;
    let site = gate.stop().await.site;
    assert_eq!(ids(&site.records()), [answer.decision_id.as_str()]);
    let text = fs::read_to_string(site.path("decisions.jsonl")).unwrap();
    assert!(text.starts_with("{\"decision_id\":\"cut sho\n"), "it is evidence, and stays: {text}");
}

#[tokio::test]
async fn standard_output_has_records_and_nothing_else() {
    let gate =
        Gate::start(&[("audit.stdout", "true"), ("audit.file", "null"), ("telemetry.logs.level", "debug")]);
    let mut answered = Vec::new();
    for dry_run in [false, true] {
        let question = CheckRequest { dry_run, request_id: "one\ntwo".into(), ..question(&gate) };
        answered.push(gate.check(question).await.decision_id);
    }
    let ended = gate.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let records: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids(&records), answered);
    assert_eq!(records[0]["request_id"], "one\ntwo");
    assert_eq!((&records[0]["dry_run"], &records[1]["dry_run"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn a_reader_that_stalls_holds_checks_up_and_loses_no_record() {
    let gate = Gate::start(&[
        ("audit.stdout", "true"),
        ("audit.file", "null"),
        ("audit.queue", "16"),
        ("listeners.limits.request_timeout", "300ms"),
    ]);
    let mut client = gate.client().await;
    // Long enough records that a pipe is soon full.
    let question = CheckRequest { request_id: "x".repeat(100), ..question(&gate) };
    let mut answered = Vec::new();
    gate.stdout.stall(true);
    let held_up = loop {
        match client.check(question.clone()).await {
            Ok(answer) => answered.push(answer.into_inner().decision_id),
            Err(status) => break status,
        }
        assert!(answered.len() < 2000, "nothing held it up");
    };
    assert_eq!(held_up.code(), Code::DeadlineExceeded);
    assert!(gate.metric("tollgate_audit_queue_depth", &[]) >= 16.0);
    gate.stdout.stall(false);
    eventually("checks are answered again", async || {
        let answer = client.check(question.clone()).await;
        answer.is_ok_and(|answer| {
            answered.push(answer.into_inner().decision_id);
            true
        })
    })
    .await;
    let ended = gate.stop().await;
    let records: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let recorded = ids(&records);
    assert!(lost(&answered, &recorded).is_empty());
    assert!(recorded.len() <= answered.len() + 1, "only what was given up on may be there without an answer");
}

#[tokio::test]
async fn what_is_revoked_while_its_record_waits_is_not_allowed() {
    let overrides = [("audit.stdout", "true"), ("audit.file", "null"), ("audit.queue", "16")];
    let gate = Gate::start(&[&overrides[..], OVERRIDES].concat());
    let (mut client, mut admin) = (gate.client().await, Admin::of(&gate).await);
    gate.stdout.stall(true);
    let filler = CheckRequest { request_id: "x".repeat(100), ..question(&gate) };
    let is_answered = async |client: &mut Client| {
        tokio::time::timeout(Duration::from_millis(500), client.check(filler.clone())).await.is_ok()
    };
    while is_answered(&mut client).await {}
    let asked = ask(&gate.site().issuer.license("revoked"));
    let mut asking = client.clone();
    let waiting = tokio::spawn(async move { asking.check(asked).await.unwrap().into_inner() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let revoking = tokio::spawn(async move { admin.revoke("revoked").await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished() && !revoking.is_finished(), "their records wait");
    gate.stdout.stall(false);
    let answer = waiting.await.unwrap();
    assert_eq!(codes(&answer), ["REVOKED"]);
    revoking.await.unwrap();
    let ended = gate.stop().await;
    let records: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answered =
        records.iter().find(|record| record["decision_id"] == answer.decision_id.as_str()).unwrap();
    assert_eq!(answered["decision"], "deny", "what was answered is what is recorded: {answered}");
}

#[tokio::test]
async fn a_reader_that_stalls_for_ever_does_not_hold_up_the_end() {
    let slow = [("audit.stdout", "true"), ("audit.file", "null"), ("shutdown.grace", "1s")];
    let gate = Gate::start(&slow);
    gate.stdout.stall(true);
    let mut client = gate.client().await;
    // More than a pipe and its reader hold.
    for _ in 0..600 {
        client.check(question(&gate)).await.unwrap();
    }
    gate.signal("TERM");
    eventually("it says what it left", async || gate.stderr.find("were not written out").is_some()).await;
    gate.stdout.stall(false);
    let ended = gate.ended().await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[tokio::test]
async fn a_second_signal_cuts_the_end_short() {
    let gate = Gate::start(&[("shutdown.notice", "10m")]);
    gate.signal("TERM");
    eventually("it is shutting down", async || gate.stderr.find("shutting down").is_some()).await;
    gate.signal("TERM");
    let ended = gate.ended().await;
    assert!(ended.code == Some(2) && ended.stderr.contains("second signal"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_gate_that_cannot_record_denies_until_it_can() {
    let site = Site::new();
    fs::create_dir(site.path("log")).unwrap();
    let overrides = [("audit.file.path", "log/decisions.jsonl"), ("audit.mode", "durable")];
    let gate = site.start(&overrides);
    assert!(is_allowed(&check(&gate).await));
    fs::remove_dir_all(gate.site().path("log")).unwrap();
    for _ in 0..3 {
        let denied = check(&gate).await;
        assert!(is_unrecorded(&denied) && denied.obligations.is_empty(), "{denied:?}");
    }
    let mut health = HealthClient::new(gate.channel().await);
    let mut serves = async || {
        let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
        status == ServingStatus::Serving
    };
    eventually("readiness says so", async || gate.get("/readyz").0 == 503).await;
    assert!(gate.part("decision log").1.contains("log/decisions.jsonl"), "{:?}", gate.part("decision log"));
    eventually("health says so", async || !serves().await).await;
    assert_eq!(gate.get("/healthz").0, 200, "a restart would not help");
    assert!(gate.metric("tollgate_audit_failures_total", &[]) > 0.0);
    assert_eq!(gate.metric("tollgate_denials_total", &[("code", "AUDIT_UNAVAILABLE")]), 3.0);

    fs::create_dir(gate.site().path("log")).unwrap();
    eventually("it recovers", async || gate.get("/readyz").0 == 200).await;
    eventually("health recovers", async || serves().await).await;
    let answer = check(&gate).await;
    assert!(is_allowed(&answer), "{answer:?}");
    let ended = gate.stop().await;
    let records = records(&ended.site.path("log/decisions.jsonl"));
    assert_eq!(records.last().unwrap()["decision_id"], answer.decision_id.as_str());
}

#[tokio::test]
async fn a_full_disk_denies_and_a_log_that_is_moved_away_makes_room() {
    let site = Site::new();
    // A limit on the size of files stands for a disk that is full: a write may succeed in part. The state
    // file stays well below it.
    let serve = site.serve(&[("audit.mode", "durable")]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""]).arg(serve.get_program());
    limited.args(serve.get_args()).current_dir(site.path(""));
    let gate = Gate::run(site, limited);
    let mut client = gate.client().await;
    let question = question(&gate);
    let mut answered = Vec::new();
    loop {
        let answer = client.check(question.clone()).await.unwrap().into_inner();
        if is_unrecorded(&answer) {
            break;
        }
        assert!(is_allowed(&answer), "{answer:?}");
        answered.push(answer.decision_id);
        assert!(answered.len() < 1000, "the disk is never full");
    }
    eventually("readiness says so", async || gate.get("/readyz").0 == 503).await;
    let (log, older) = (gate.site().path("decisions.jsonl"), gate.site().path("older.jsonl"));
    fs::rename(&log, &older).unwrap();
    eventually("it recovers", async || gate.get("/readyz").0 == 200).await;
    let answer = client.check(question).await.unwrap().into_inner();
    assert!(is_allowed(&answer), "{answer:?}");
    answered.push(answer.decision_id);
    let ended = gate.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (older, newer) = (records(&older), records(&log));
    let recorded: Vec<_> = ids(&older).into_iter().chain(ids(&newer)).collect();
    assert!(lost(&answered, &recorded).is_empty(), "{answered:?} {recorded:?}");
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines}");
}

#[tokio::test]
async fn files_are_rotated_by_size_and_only_so_many_are_kept() {
    let gate = Gate::start(&[("audit.file.rotate_at", "64 KiB"), ("audit.file.keep", "2")]);
    let mut client = gate.client().await;
    let question = CheckRequest { request_id: "x".repeat(120), ..question(&gate) };
    let third = gate.site().path("decisions.jsonl.3");
    let (mut answered, begun) = (Vec::new(), std::time::Instant::now());
    while gate.metric("tollgate_audit_written_bytes_total", &[]) < 5.0 * 65536.0 {
        for _ in 0..20 {
            answered.push(client.check(question.clone()).await.unwrap().into_inner().decision_id);
        }
        assert!(begun.elapsed() < PATIENCE && !third.exists());
    }
    let site = gate.stop().await.site;
    let mut recorded = Vec::new();
    for name in ["decisions.jsonl.2", "decisions.jsonl.1", "decisions.jsonl"] {
        let size = fs::metadata(site.path(name)).unwrap().len();
        assert!(size > 0 && size <= 65536, "{name}: {size}");
        recorded.extend(records(&site.path(name)));
    }
    assert!(!third.exists());
    // The youngest are there, in order, none twice.
    assert_eq!(ids(&recorded), answered[answered.len() - recorded.len()..]);
}

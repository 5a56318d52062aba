//! What a gate tells about itself, at a real collector: traces joined to the caller's, metrics, and
//! logs that name the trace.

use std::time::Instant;

use serde_json::Value;
use tollgate::proto::v1::CheckRequest;
use tonic::Request;

use super::collector::Collector;
use super::gate::{Gate, PATIENCE, Site, ask, eventually, is_allowed};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A question that carries its caller's trace.
fn traced(question: CheckRequest, flags: &str) -> Request<CheckRequest> {
    let mut request = Request::new(question);
    let parent = format!("00-{TRACE}-{CALLER}-{flags}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_is_a_span_in_its_callers_trace() {
    let collector = Collector::default();
    let endpoint = collector.listen().await;
    let gate = Gate::start(&[
        ("telemetry.traces.otlp_endpoint", &endpoint),
        ("telemetry.traces.sample_ratio", "0"),
        ("telemetry.metrics.otlp_endpoint", &endpoint),
        ("telemetry.metrics.interval", "100ms"),
    ]);
    let question = ask(&gate.site().issuer.license("license-1"));
    let mut client = gate.client().await;
    for flags in ["01", "00"] {
        let answer = client.check(traced(question.clone(), flags)).await.unwrap().into_inner();
        assert!(is_allowed(&answer));
    }
    client.check(question).await.unwrap();
    let names = ["tollgate.checks", "tollgate.check.duration", "tollgate.policy.info"];
    let told = || collector.metric_names();
    eventually("metrics arrive", async || names.iter().all(|name| told().iter().any(|told| told == name)))
        .await;

    let ended = gate.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // What was not sent before is sent at the end.
    let [span] = <[_; 1]>::try_from(collector.spans()).unwrap();
    assert_eq!(span.name, "tollgate.v1.DecisionService/Check");
    assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert!(format!("{:?}", span.attributes).contains("allow"), "{span:?}");
    let records = ended.site.records();
    assert_eq!(records[0]["trace_id"], TRACE);
    assert_eq!(records[1]["trace_id"], TRACE, "a trace that is not sampled is a trace");
    assert_ne!(records[2]["trace_id"], TRACE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_line_names_the_trace_in_which_it_was_written() {
    let collector = Collector::default();
    let endpoint = collector.listen().await;
    let site = Site::new();
    std::fs::create_dir(site.path("log")).unwrap();
    let gate = site.start(&[
        ("telemetry.traces.otlp_endpoint", &endpoint),
        ("audit.file.path", "log/decisions.jsonl"),
        ("audit.mode", "durable"),
        ("audit.on_failure", "allow"),
    ]);
    let question = ask(&gate.site().issuer.license("license-1"));
    std::fs::remove_dir_all(gate.site().path("log")).unwrap();
    let answer = gate.client().await.check(traced(question, "01")).await.unwrap().into_inner();
    assert!(is_allowed(&answer), "the operator chose so: {answer:?}");
    assert_eq!(gate.metric("tollgate_audit_lost_total", &[]), 1.0);
    let mut line = None;
    eventually("it is logged", async || {
        line = gate.stderr.find("answered without a record");
        line.is_some()
    })
    .await;
    let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(line["decision"], answer.decision_id);
    // Nothing else happens in a trace.
    for other in gate.stderr.text().lines() {
        let other: Value = serde_json::from_str(other).unwrap();
        assert_eq!(other.get("trace_id").is_some(), other["message"] == line["message"], "{other}");
    }
}

#[tokio::test]
async fn a_collector_that_is_gone_or_silent_delays_nothing() {
    // A port on which nobody listens, and one on which nobody ever answers.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (gone, silent) = (format!("http://{gone}"), format!("http://{}", silent.local_addr().unwrap()));
    for endpoint in [silent, gone] {
        let gate = Gate::start(&[
            ("telemetry.traces.otlp_endpoint", &endpoint),
            ("telemetry.traces.sample_ratio", "1"),
            ("telemetry.metrics.otlp_endpoint", &endpoint),
            ("telemetry.metrics.interval", "50ms"),
        ]);
        let question = ask(&gate.site().issuer.license("license-1"));
        let mut client = gate.client().await;
        let begun = Instant::now();
        for _ in 0..50 {
            assert!(is_allowed(&client.check(question.clone()).await.unwrap().into_inner()));
        }
        assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
        assert_eq!(gate.get("/readyz").0, 200);
    }
}

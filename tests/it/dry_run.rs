//! A dry run of everything: what would be denied is found out, recorded and said, and nothing is denied.

use serde_json::json;
use tollgate::proto::v1::check_request::License;
use tollgate::proto::v1::{CheckBatchRequest, CheckRequest, EvaluationSemantic, GetUsageRequest};

use super::authzen::{EVALUATION, evaluation};
use super::envoy::Scene;
use super::envoy::download::Over;
use super::envoy::upstream::Course;
use super::gate::{Gate, Site, ask, codes, eventually, is_allowed};
use super::operators::{Admin, OVERRIDES};
use super::streams::Use;
use super::web::Web;

const DRY: (&str, &str) = ("gate.dry_run_all", "true");

/// A gate that was started as an operator does who wants to see first.
fn start() -> Gate {
    let site = Site::new();
    let mut command = site.serve(OVERRIDES);
    command.arg("--dry-run-all");
    Gate::run(site, command)
}

/// A license of one request and ten bytes.
fn limited(site: &Site) -> String {
    let quota = |metric: &str, limit: u32| json!({"id": metric, "metric": metric, "limit": limit, "per": "license", "window": "total"});
    let mut claims = site.issuer.claims("limited");
    claims["terms"]["quotas"] = json!([quota("requests", 1), quota("bytes", 10)]);
    site.issuer.sign(&claims)
}

#[tokio::test]
async fn everything_is_allowed_and_everybody_is_told_that_it_is_not_enforced() {
    let gate = start();
    assert!(gate.stderr.find("DRY RUN").is_some(), "{}", gate.stderr.text());
    let (state, detail) = gate.part("enforcement");
    assert!(state == "degraded" && detail.contains("DRY RUN") && gate.get("/readyz").0 == 200);
    assert_eq!(gate.metric("tollgate_dry_run_all", &[]), 1.0);

    let token = gate.site().issuer.license("l");
    let answer = gate.check(ask(&token)).await;
    assert!(is_allowed(&answer) && answer.not_enforced && answer.reasons.is_empty());
    let wrong = CheckRequest { purpose: "Marketing".into(), ..ask(&token) };
    let answer = gate.check(wrong.clone()).await;
    assert!(is_allowed(&answer) && answer.not_enforced && answer.obligations.is_empty());
    assert_eq!(codes(&answer), ["PURPOSE_NOT_LICENSED"]);
    for nothing in [ask("nonsense"), CheckRequest { license: None, ..ask("") }] {
        let answer = gate.check(nothing).await;
        assert!(is_allowed(&answer) && answer.reservation_id.is_empty(), "{answer:?}");
    }
    let semantic = EvaluationSemantic::DenyOnFirstDeny.into();
    let batch = CheckBatchRequest { requests: vec![wrong.clone(), wrong], semantic };
    let answers = gate.client().await.check_batch(batch).await.unwrap().into_inner().responses;
    assert!(answers.len() == 2 && answers.iter().all(is_allowed), "nothing is denied, so nothing ends it");

    let body = Web::to(&gate).post(EVALUATION, &[], &evaluation("read")).json();
    assert_eq!((&body["decision"], &body["context"]["enforced"]), (&json!(true), &json!(false)), "{body}");
    assert_eq!(body["context"]["codes"], json!(["LICENSE_MISSING"]));

    assert_eq!(gate.metric("tollgate_checks_total", &[("decision", "deny")]), 6.0);
    let records = gate.stop().await.site.records();
    let denied = records.iter().filter(|record| record["decision"] == "deny").count();
    assert_eq!(denied, 6, "the log tells what is true");
    assert!(records.iter().all(|record| record["enforced"] == false));
}

#[tokio::test]
async fn what_would_be_denied_takes_nothing_from_quotas_and_streams_go_on() {
    let gate = start();
    let token = limited(gate.site());
    let mut client = gate.client().await;
    let (mut stream, opened) = Use::open(&mut client, ask(&token)).await;
    assert!(is_allowed(&opened) && opened.not_enforced);
    stream.report("bytes", 6.0).await;
    assert_eq!(stream.taken().await.quotas[1].remaining, 4.0);
    for _ in 0..3 {
        stream.report("bytes", 6.0).await;
        assert_eq!(stream.taken().await.quotas[1].remaining, 4.0, "there is not so much left");
    }
    assert_eq!(codes(&gate.check(ask(&token)).await), ["QUOTA_EXCEEDED"]);
    // One that could not even be read goes on as well.
    let (mut unread, opened) = Use::open(&mut client, ask("nonsense")).await;
    assert_eq!((is_allowed(&opened), codes(&opened)), (true, vec!["LICENSE_MALFORMED"]));
    unread.report("bytes", 1.0).await;
    unread.taken().await;
    let mut admin = Admin::of(&gate).await;
    admin.revoke("limited").await;
    assert!(stream.is_quiet().await, "it is not ended");
    stream.report("bytes", 1.0).await;
    stream.taken().await;
    let request = GetUsageRequest { metric: "bytes".into(), ..GetUsageRequest::default() };
    eventually("usage is what was granted", async || {
        admin.usage(request.clone()).await.iter().map(|row| row.amount).sum::<f64>() == 7.0
    })
    .await;
    drop((stream, unread));
    let records = gate.stop().await.site.records();
    let ends =
        records.iter().filter(|record| record["license"]["id"] == "limited" && record["decision"] == "deny");
    assert_eq!(ends.count(), 2, "the stream's would-be end once, and the check");
}

#[tokio::test]
async fn behind_envoy_everything_passes_and_says_so() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[OVERRIDES, &[DRY]].concat()).await else { return };
    let answer = scene.read("sales/eu", &["authorization: License nonsense"]).await;
    assert_eq!(answer.passed("x-license-enforced"), ["false"]);
    let record = scene.record(&answer.passed("x-license-decision-id").concat()).await;
    assert_eq!((&record["decision"], &record["enforced"]), (&json!("deny"), &json!(false)));
    let token = limited(scene.gate.site());
    let course = Course { chunks: 200, bytes: 100, pause: 5 };
    let mut running = scene.download(Over::Http1, &token, course).await;
    running.next().await.unwrap();
    Admin::of(&scene.gate).await.revoke("limited").await;
    let ended = running.rest().await;
    assert_eq!((ended.whole, ended.received), (true, 20_000), "{ended:?}");
}

#[tokio::test]
async fn nothing_says_so_where_denials_hold() {
    let gate = Gate::start(&[]);
    let wrong = CheckRequest { license: Some(License::Token("nonsense".into())), ..ask("") };
    let answer = gate.check(wrong).await;
    assert!(!is_allowed(&answer) && !answer.not_enforced);
    assert_eq!(
        (gate.part("enforcement").0.as_str(), gate.metric("tollgate_dry_run_all", &[])),
        ("ready", 0.0)
    );
    assert!(gate.stop().await.site.records()[0].get("enforced").is_none());
}

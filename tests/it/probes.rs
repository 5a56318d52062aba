//! The HTTP listener from outside: life, readiness, metrics and keys.

use std::path::Path;

use serde_json::{Value, json};
use tollgate::keyring::jwks::KeyState;
use tollgate::proto::v1::CheckRequest;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::gate::{Gate, Issuer, Site, ask, eventually, program};

#[tokio::test]
async fn readiness_has_its_details_and_health_agrees() {
    let gate = Gate::start(&[]);
    assert_eq!(gate.get("/healthz"), (200, "ok\n".to_owned()));
    let (code, page) = gate.get("/readyz");
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, &page["ready"]), (200, &json!(true)));
    let names: Vec<_> = page["parts"].as_array().unwrap().iter().map(|part| part["name"].clone()).collect();
    assert_eq!(names, ["keys", "policies", "state", "decision log", "enforcement"]);
    assert_eq!(gate.part("keys"), ("ready".to_owned(), "keys: 1, issuers: 1".to_owned()));
    let revision = gate.check(CheckRequest::default()).await.policy_revision;
    assert_eq!(gate.part("policies"), ("ready".to_owned(), format!("revision {revision}")));
    let mut health = HealthClient::new(gate.channel().await);
    for service in ["", "tollgate.v1.DecisionService"] {
        let about = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(health.check(about).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    assert_eq!(gate.get("/nothing").0, 404);
}

/// What `tollgate health` says of a gate at this URL, and how it exits.
fn health(url: &str) -> (Option<i32>, String) {
    let output = program(Path::new("."), &["health", url]).output().unwrap();
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_command_line_tells_whether_a_gate_decides() {
    let gate = Gate::start(&[]);
    let url = format!("http://{}", gate.http);
    let (code, said) = health(&url);
    assert!(code == Some(0) && said.contains("keys: 1, issuers: 1"), "{code:?} {said}");
    let output = program(Path::new("."), &["health", "--json", &url, &url]).output().unwrap();
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&page[1]["gate"], &page[1]["health"]["ready"]), (&json!(format!("{url}/")), &json!(true)));

    std::fs::remove_file(gate.site().path("keys/issuer.json")).unwrap();
    eventually("it waits for keys", async || {
        let (code, said) = health(&url);
        code == Some(1) && said.contains("not ready") && said.contains("keys: 0")
    })
    .await;

    for (url, words) in [
        ("http://127.0.0.1:1", "http://127.0.0.1:1/: "),
        (&format!("http://{}", gate.decisions), "error"),
        ("https://127.0.0.1:9193", "is no URL such as"),
        ("127.0.0.1:9193", "is no URL such as"),
    ] {
        let (code, said) = health(url);
        assert!(code == Some(2) && said.contains(words), "{url}: {code:?} {said}");
    }
}

#[tokio::test]
async fn metrics_count_what_was_asked() {
    let gate = Gate::start(&[("audit.queue", "77")]);
    let question = ask(&gate.site().issuer.license("license-1"));
    let elsewhere = CheckRequest { purpose: "Marketing".into(), action: "export".into(), ..question.clone() };
    let mut client = gate.client().await;
    for _ in 0..3 {
        client.check(question.clone()).await.unwrap();
    }
    client.check(elsewhere).await.unwrap();
    client.check(CheckRequest { license: None, ..question }).await.unwrap();
    let expected = [
        ("tollgate_checks_total", &[("decision", "allow")][..], 3.0),
        ("tollgate_checks_total", &[("decision", "deny")], 2.0),
        ("tollgate_check_duration_seconds_count", &[("decision", "allow")], 3.0),
        ("tollgate_denials_total", &[("code", "PURPOSE_NOT_LICENSED")], 1.0),
        ("tollgate_denials_total", &[("code", "ACTION_NOT_LICENSED")], 1.0),
        ("tollgate_denials_total", &[("code", "LICENSE_MISSING")], 1.0),
        ("tollgate_denials_total", &[], 3.0),
        ("tollgate_undecided_total", &[], 0.0),
        ("tollgate_cache_lookups_total", &[("cache", "verified_licenses"), ("result", "miss")], 1.0),
        ("tollgate_cache_lookups_total", &[("cache", "verified_licenses"), ("result", "hit")], 3.0),
        ("tollgate_cache_lookups_total", &[("cache", "policy_answers"), ("result", "hit")], 2.0),
        ("tollgate_reloads_total", &[("what", "policies"), ("result", "success")], 1.0),
        ("tollgate_audit_queue_capacity", &[], 77.0),
        ("tollgate_audit_failures_total", &[], 0.0),
    ];
    for (name, labels, value) in expected {
        assert_eq!(gate.metric(name, labels), value, "{name}{labels:?}\n{}", gate.get("/metrics").1);
    }
    // Nobody's name is a label.
    let page = gate.get("/metrics").1;
    assert!(!page.contains("license-1") && !page.contains("ana") && !page.contains("sales"), "{page}");
}

#[tokio::test]
async fn the_keys_that_verify_are_published_and_nothing_of_the_others() {
    let site = Site::new();
    let retired = Issuer::new(&site.issuer.name, 2);
    let other = Issuer::new("https://other.example", 3);
    let own = vec![site.issuer.jwk(KeyState::Active), retired.jwk(KeyState::Retired)];
    site.write("keys/issuer.json", &site.issuer.key_set(own));
    site.write("keys/other.json", &other.key_set(vec![other.jwk(KeyState::Next)]));
    let gate = site.start(&[]);
    let (code, page) = gate.get("/.well-known/jwks.json");
    assert_eq!(code, 200);
    let page: Value = serde_json::from_str(&page).unwrap();
    let public = |issuer: &Issuer| {
        let jwk = issuer.jwk(KeyState::Active);
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": jwk.kid, "x": jwk.x})
    };
    assert_eq!(page, json!({ "keys": [public(&gate.site().issuer), public(&other)] }));
}

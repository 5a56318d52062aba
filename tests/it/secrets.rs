//! Canaries: no token and no key in anything that a gate writes, however wrong the request.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::json;
use tollgate::proto::v1::check_request::License;
use tollgate::proto::v1::{CheckBatchRequest, CheckRequest, HolderEvidence, Resource, Subject};
use tonic::Request;

use super::authzen::{EVALUATION, EVALUATIONS, bearing};
use super::collector::Collector;
use super::gate::{Gate, Issuer, Site, ask, eventually, is_allowed};
use super::web::Web;

/// What a log is fooled with.
const WEIRD: &str = "\u{1b}[31m\r\n{\"decision\":\"allow\"}\u{0}\u{202e}%s${jndi:x}";

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn members(text_of_all: &str) -> Struct {
    let list = ListValue { values: vec![text(text_of_all)] };
    let list = Value { kind: Some(Kind::ListValue(list)) };
    let fields = [("a".to_owned(), list), (text_of_all.to_owned(), text(text_of_all))];
    Struct { fields: fields.into() }
}

/// A question with `text` in every field but the license.
fn filled(license: Option<License>, text: &str) -> CheckRequest {
    let own = || text.to_owned();
    CheckRequest {
        request_id: own(),
        license,
        subject: Some(Subject { id: own(), organization: own(), roles: vec![own()] }),
        action: own(),
        resource: Some(Resource { id: own(), r#type: own(), properties: Some(members(text)) }),
        purpose: own(),
        region: own(),
        project: own(),
        environment: own(),
        combined_with: vec![own()],
        combined_with_external: true,
        holder: Some(HolderEvidence {
            spiffe_id: own(),
            certificate_thumbprint: own(),
            jwk_thumbprint: own(),
        }),
        usage: [(own(), -1.0)].into(),
        context: Some(members(text)),
        supported_obligations: vec![own()],
        explain: true,
        dry_run: false,
    }
}

/// AuthZEN's answers to questions that have the token where it belongs, and in every place where it does not.
fn ask_over_http(gate: &Gate, token: &str) -> String {
    let own = || json!(token);
    let everywhere = json!({
        "subject": {"type": own(), "id": own(), "properties": {"organization": own(), "roles": [own()]}},
        "action": {"name": own()},
        "resource": {"type": own(), "id": own(), "properties": {token: own()}},
        "context": {
            "license": own(), "purpose": own(), "region": own(), "project": own(), "environment": own(),
            "combined_with": [own()], "usage": {token: -1}, "request_id": own(), "attributes": {token: own()},
            "supported_obligations": [own()], "holder": {"spiffe_id": own()}, "weather": own(),
        },
    });
    let mut bodies = vec![everywhere.to_string()];
    for (pointer, value) in [
        ("/subject", own()),
        ("/context/usage", json!({token: {token: own()}})),
        ("/context", json!({token: 1, "attributes": {token: 2}})),
        ("/context/license_id", own()),
    ] {
        let mut body = everywhere.clone();
        let (holder, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(holder).unwrap()[name] = value;
        bodies.push(body.to_string());
    }
    // A member that is given twice, beside others and below one.
    let name = own().to_string();
    bodies.push(format!("{{{name}: 1, {name}: 2}}"));
    bodies.push(format!("{{{name}: {{{name}: 9007199254740993}}}}"));
    bodies.push(name);
    let mut answers = String::new();
    for body in bodies {
        for path in [EVALUATION, EVALUATIONS, "/access/v1/search/resource"] {
            let bearing = bearing(token);
            let headers = [("content-type", "application/json"), ("authorization", bearing.as_str())];
            answers.push_str(&Web::to(gate).send(&format!("POST {path}"), &headers, body.as_bytes()).body);
        }
    }
    answers + "\n"
}

/// Tokens that are good, forged, cut, dressed up and of strangers.
fn tokens(issuer: &Issuer) -> Vec<String> {
    let good = issuer.license("license-1");
    let stranger = Issuer::new(&issuer.name, 9).license("license-1");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    vec![
        good.clone(),
        stranger.clone(),
        format!("{signed}.{}", stranger.rsplit_once('.').unwrap().1),
        good[..good.len() - 7].to_owned(),
        format!("{good} "),
        format!("Bearer {good}"),
        format!("{signed}.{signature}{signature}"),
        format!("{payload}.{header}.{signature}"),
        format!("{header}.{}.{signature}", payload.to_lowercase()),
        format!("{good}.{good}"),
        format!("{good}{}", "A".repeat(20_000)),
    ]
}

/// The parts of tokens that must never be seen: signatures, and payloads.
fn canaries(issuer: &Issuer, tokens: &[String]) -> BTreeMap<String, &'static str> {
    let mut canaries = BTreeMap::new();
    for token in tokens {
        for (part, what) in token.split('.').skip(1).zip(["a payload", "a signature", "more", "more"]) {
            // The beginning suffices: what is cut off is still a leak.
            if part.len() > 24 && !part.starts_with("AAAA") {
                canaries.insert(part[..24].to_owned(), what);
            }
        }
    }
    canaries.insert(issuer.private().d[..20].to_owned(), "the private key");
    canaries
}

fn look(place: &str, text: &str, canaries: &BTreeMap<String, &'static str>) {
    for (canary, what) in canaries {
        if let Some(at) = text.find(canary.as_str()) {
            let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
            let shown: String = text[from..].chars().take(800).collect();
            panic!("{what} is in {place}: {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_canary_is_seen_in_anything_a_gate_writes() {
    let collector = Collector::default();
    let endpoint = collector.listen().await;
    let site = Site::new();
    site.write("policies/bad.cedar", "permit (principal, action, resource);");
    let gate = site.start(&[
        ("policies.directory", "policies"),
        ("audit.stdout", "true"),
        ("telemetry.traces.otlp_endpoint", &endpoint),
        ("telemetry.traces.sample_ratio", "1"),
        ("telemetry.metrics.otlp_endpoint", &endpoint),
        ("telemetry.metrics.interval", "100ms"),
        ("telemetry.logs.level", "trace"),
    ]);
    let issuer = &gate.site().issuer;
    let tokens = tokens(issuer);
    let canaries = canaries(issuer, &tokens);
    let mut client = gate.client().await;
    let mut answers = String::new();
    let mut allowed = 0;
    for token in &tokens {
        let license = || Some(License::Token(token.clone()));
        let mut questions = vec![ask(token), filled(license(), WEIRD), filled(None, WEIRD)];
        if token.len() < 10_000 {
            // The token where no token belongs, with and without one where it does.
            questions.push(filled(license(), token));
            questions.push(filled(None, token));
            questions.push(filled(Some(License::LicenseId(token.clone())), &format!("{WEIRD}{token}")));
        }
        for question in questions.clone() {
            let mut request = Request::new(question);
            if token.is_ascii() && token.len() < 4000 {
                for header in ["authorization", "traceparent", "tracestate", "grpc-trace", "baggage"] {
                    request.metadata_mut().insert(header, token.trim().parse().unwrap());
                }
            }
            match client.check(request).await {
                Ok(answer) => {
                    allowed += u32::from(is_allowed(answer.get_ref()));
                    answers.push_str(&format!("{answer:?}\n"));
                }
                Err(status) => answers.push_str(&format!("{status:?}\n")),
            }
        }
        answers.push_str(&ask_over_http(&gate, token));
        let batch = CheckBatchRequest { requests: questions, semantic: 0 };
        answers.push_str(&format!("{:?}\n", client.check_batch(batch).await));
    }
    assert!(allowed > 0, "the good license was good");
    // The private key comes where no private key belongs.
    let private = serde_json::to_string(&issuer.private()).unwrap();
    for file in ["keys/issuer.json", "policies/bad.cedar"] {
        gate.site().write(file, &private);
    }
    eventually("both are refused", async || {
        gate.part("keys").0 == "degraded" && gate.part("policies").0 == "degraded"
    })
    .await;
    let pages = ["/metrics", "/readyz", "/.well-known/jwks.json"].map(|path| gate.get(path).1).join("\n");
    let ended = gate.stop().await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("TRACE"), "there was something to look at");
    let log = std::fs::read_to_string(ended.site.path("decisions.jsonl")).unwrap();
    assert!(log.lines().count() > 2 * tokens.len() && !collector.spans().is_empty());
    look("an answer", &answers, &canaries);
    look("the decision log", &log, &canaries);
    look("standard output", &ended.stdout, &canaries);
    look("standard error", &ended.stderr, &canaries);
    look("a page", &pages, &canaries);
    look("what the collector got", &collector.text(), &canaries);
    // A record is one line of JSON, whatever it holds.
    for line in log.lines().chain(ended.stdout.lines()) {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["decision_id"].is_string() && !line.contains('\u{1b}'), "{line}");
    }
}

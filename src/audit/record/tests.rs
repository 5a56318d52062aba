//! What a line holds, and what it can never hold.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::audit::redact::REDACTED;
use crate::domain::request::{Resource, Subject};
use crate::domain::{Code, DecisionId, Effect};

const TOKEN: &str = "eyJhbGciOiJFZERTQSJ9.eyJqdGkiOiJjYW5hcnkifQ.Y2FuYXJ5LXNpZ25hdHVyZQ";

fn now() -> Timestamp {
    "2026-03-01T12:00:00.5Z".parse().unwrap()
}

fn request() -> CheckRequest {
    CheckRequest {
        request_id: "r-1".to_owned(),
        license: LicenseRef::Token(TOKEN.to_owned()),
        subject: Subject {
            id: "ana".to_owned(),
            organization: "acme".to_owned(),
            roles: vec!["analyst".to_owned()],
        },
        action: "read".to_owned(),
        resource: Resource { id: "sales/eu".to_owned(), ..Resource::default() },
        purpose: "ScientificResearch".to_owned(),
        region: "FR".to_owned(),
        project: "p1".to_owned(),
        environment: "enclave".to_owned(),
        combined_with: vec!["weather".to_owned()],
        usage: [("rows".to_owned(), 12.0)].into(),
        ..CheckRequest::default()
    }
}

fn decision() -> Decision {
    Decision {
        id: DecisionId::new(now()),
        effect: Effect::Deny,
        enforced: true,
        reasons: vec![Reason { policy_id: "base/expiry".to_owned(), ..Reason::new(Code::Expired, TOKEN) }],
        obligations: vec![Obligation {
            id: "o1".to_owned(),
            kind: "notify".to_owned(),
            properties: serde_json::Map::new(),
        }],
        valid_until: None,
        quotas: Vec::new(),
        reservation: None,
        status_as_of: None,
        policy_revision: Arc::from("rev-1"),
        granting_policies: Vec::new(),
    }
}

fn encode(record: &Record<'_>) -> String {
    let mut out = b"before\n".to_vec();
    record.encode(&mut out).unwrap();
    String::from_utf8(out).unwrap().strip_prefix("before\n").unwrap().to_owned()
}

fn parse(line: &str) -> Value {
    assert_eq!(line.find('\n'), Some(line.len() - 1), "one line, ended: {line:?}");
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_says_who_used_what_and_why() {
    let (request, decision) = (request(), decision());
    let license = LicenseFacts {
        id: Some("lic-1"),
        issuer: Some("https://owner.example"),
        assignee: Some("acme"),
        key_id: Some("k1"),
    };
    let record = Record::new(&request, &decision, now(), "gate-1", license)
        .trace_id(Some("4bf92f3577b34da6a3ce929d0e0e4736"))
        .duration(Duration::from_nanos(41_900));
    let expected = json!({
        "decision_id": decision.id.to_string(),
        "time": "2026-03-01T12:00:00.500000Z",
        "gate": "gate-1",
        "request_id": "r-1",
        "license": {"id": "lic-1", "issuer": "https://owner.example", "assignee": "acme", "kid": "k1"},
        "subject": {"id": "ana", "organization": "acme", "roles": ["analyst"]},
        "action": "read",
        "resource": "sales/eu",
        "purpose": "ScientificResearch",
        "region": "FR",
        "project": "p1",
        "environment": "enclave",
        "combined_with": ["weather"],
        "combined_with_external": false,
        "decision": "deny",
        "reasons": [{"code": "EXPIRED", "policy_id": "base/expiry"}],
        "obligations": [{"id": "o1", "type": "notify"}],
        "usage": {"rows": 12.0},
        "policy_revision": "rev-1",
        "dry_run": false,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "duration_us": 41,
    });
    assert_eq!(parse(&encode(&record)), expected);
}

#[test]
fn what_is_unknown_of_a_license_is_left_out() {
    let (mut request, decision) = (request(), decision());
    let line = encode(&Record::new(&request, &decision, now(), "g", LicenseFacts::default()));
    assert_eq!(parse(&line)["license"], json!({}));
    assert_eq!(parse(&line).get("trace_id"), None);
    request.license = LicenseRef::Id("lic-9".to_owned());
    let line = encode(&Record::new(&request, &decision, now(), "g", LicenseFacts::default()));
    assert_eq!(parse(&line)["license"], json!({"id": "lic-9"}));
}

/// A request and an answer with `text` in every text that could reach a line, and `count` items in
/// every list.
fn filled(text: &str, count: usize) -> (CheckRequest, Decision) {
    let text = || text.to_owned();
    let mut request = request();
    request.request_id = text();
    request.license = LicenseRef::Id(text());
    request.subject = Subject { id: text(), organization: text(), roles: vec![text(); count] };
    request.action = text();
    request.resource.id = text();
    request.purpose = text();
    request.region = text();
    request.project = text();
    request.environment = text();
    request.combined_with = vec![text(); count];
    request.usage = (0..count).map(|n| (format!("{n}/{}", text()), 1e300)).collect();
    let mut decision = decision();
    decision.policy_revision = Arc::from(text());
    decision.reasons =
        vec![Reason { policy_id: text(), ..Reason::new(Code::ReidentificationProhibited, text()) }; count];
    decision.obligations =
        vec![Obligation { id: text(), kind: text(), properties: serde_json::Map::new() }; count];
    (request, decision)
}

fn facts(text: &str) -> LicenseFacts<'_> {
    LicenseFacts { id: Some(text), issuer: Some(text), assignee: Some(text), key_id: Some(text) }
}

#[test]
fn no_field_lets_a_token_through() {
    let (request, decision) = filled(TOKEN, 3);
    let record = Record::new(&request, &decision, now(), TOKEN, facts(TOKEN)).trace_id(Some(TOKEN));
    let line = encode(&record);
    for part in TOKEN.split('.') {
        assert!(!line.contains(part), "{line}");
    }
    assert_eq!(line.matches(REDACTED).count(), 16 + 5 * 3 + 3, "{line}");
}

#[test]
fn a_request_of_any_size_makes_a_line_under_64_kib() {
    // A control character takes six bytes of JSON; the ellipsis and quotes come on top.
    for text in ["a", "\u{1}", "\"", "é"] {
        for (length, count) in [(1, 1), (900, 64), (5000, 3), (5000, 500), (0, 5000)] {
            let text = text.repeat(length);
            let (request, decision) = filled(&text, count);
            let record = Record::new(&request, &decision, now(), &text, facts(&text)).trace_id(Some(&text));
            let line = encode(&record);
            assert!(line.len() <= MAX_LINE, "{} bytes", line.len());
            let line = parse(&line);
            let omitted = line.get("omitted").map_or(0, |omitted| omitted.as_u64().unwrap());
            let kept = line["reasons"].as_array().unwrap().len();
            assert_eq!(omitted, 5 * (count - kept) as u64);
        }
    }
}

#[test]
fn a_long_text_is_cut_with_an_ellipsis() {
    let mut request = request();
    request.purpose = "p".repeat(2000);
    let line = encode(&Record::new(&request, &decision(), now(), "g", LicenseFacts::default()));
    assert_eq!(parse(&line)["purpose"], json!(format!("{}…", "p".repeat(1024))));
}

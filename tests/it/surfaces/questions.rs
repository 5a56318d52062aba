//! Questions of every kind: the samples of the laws, with licenses as they come from outside, and with
//! words that nobody knows.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use tollgate::domain::{CheckRequest, LicenseRef};
use tollgate::license::Claims;

use crate::gate::{Issuer, now};
use crate::samples;

/// What must be among the answers, or the questions are no good.
pub(super) const OUTCOMES: [&str; 30] = [
    "allowed",
    "CONTEXT_INVALID",
    "LICENSE_MISSING",
    "LICENSE_MALFORMED",
    "LICENSE_UNKNOWN",
    "KEY_UNKNOWN",
    "SIGNATURE_INVALID",
    "ISSUER_UNTRUSTED",
    "AUDIENCE_MISMATCH",
    "NOT_YET_VALID",
    "EXPIRED",
    "HOLDER_MISMATCH",
    "TERMS_NOT_ACCEPTED",
    "ASSIGNEE_MISMATCH",
    "USER_NOT_LICENSED",
    "ROLE_NOT_LICENSED",
    "PROJECT_NOT_LICENSED",
    "DATASET_NOT_LICENSED",
    "ACTION_NOT_LICENSED",
    "PURPOSE_NOT_LICENSED",
    "REGION_NOT_LICENSED",
    "ENVIRONMENT_NOT_LICENSED",
    "COMBINATION_PROHIBITED",
    "REIDENTIFICATION_PROHIBITED",
    "REDISTRIBUTION_PROHIBITED",
    "ANONYMIZATION_INSUFFICIENT",
    "OBLIGATION_UNSUPPORTED",
    "POLICY_FORBIDS",
    "QUOTA_EXCEEDED",
    "TERM_UNSUPPORTED",
];

/// What the gate knows of datasets.
pub(super) fn catalog() -> Value {
    let attributes = json!({"anonymization": {
        "k_anonymity": 10, "l_diversity": 3, "techniques": ["suppression"], "attested_by": "auditor",
    }});
    json!([{"uid": {"type": "Tollgate::Dataset", "id": "sales/eu"}, "attrs": attributes, "parents": []}])
}

/// A license that limits nothing but data, action and purpose, in force now.
pub(super) fn in_force(id: &str) -> Claims {
    valid_now(Claims { jti: id.to_owned(), ..samples::claims() })
}

/// A question that [`in_force`] allows.
pub(super) fn allowed() -> CheckRequest {
    samples::request()
}

fn valid_now(claims: Claims) -> Claims {
    let at = |second: i64| tollgate::domain::time::Timestamp::from_second(second).unwrap();
    Claims { iat: at(now() - 60), nbf: at(now() - 60), exp: at(now() + 3600), ..claims }
}

/// Licenses, as tokens, ids, and nothing.
fn licenses(issuer: &Issuer) -> impl Strategy<Value = LicenseRef> + use<> {
    let (own, stranger) = (Issuer::new(&issuer.name, 1), Issuer::new(&issuer.name, 9));
    let other = Issuer::new("https://other.example", 1);
    let token = |claims: &Value, signer: &Issuer| LicenseRef::Token(signer.sign(claims));
    let fates = prop_oneof![20 => Just("good"), 2 => select(vec![
        "expired", "early", "stranger", "other", "flipped", "cut", "garbage", "empty", "missing", "registered",
        "unknown", "retention", "unaccepted", "exhausted", "exhausted", "plenty", "elsewhere",
    ]), 1 => Just("registered")];
    let licenses = prop_oneof![2 => samples::license(), 1 => Just(samples::claims())];
    (licenses, fates).prop_map(move |(claims, fate)| {
        let mut claims = json!(valid_now(claims));
        let quota = |limit: u32| json!([{"id": "q", "metric": "requests", "limit": limit, "per": "license", "window": "day"}]);
        match fate {
            "expired" => claims["exp"] = (now() - 30).into(),
            "early" => claims["nbf"] = (now() + 1800).into(),
            "retention" => claims["terms"]["retention"] = json!({"duration": "P30D", "then": "delete"}),
            "unaccepted" => claims["terms"]["acceptance"] = json!({"terms_hash": "h".repeat(43)}),
            "exhausted" => claims["terms"]["quotas"] = quota(0),
            "plenty" => claims["terms"]["quotas"] = quota(1_000_000),
            "elsewhere" => claims["aud"] = "gate-2".into(),
            "other" => claims["iss"] = other.name.as_str().into(),
            _ => {}
        }
        match (fate, token(&claims, &own)) {
            ("stranger", _) => token(&claims, &stranger),
            ("flipped", LicenseRef::Token(token)) => {
                let (signed, _) = token.rsplit_once('.').unwrap();
                LicenseRef::Token(format!("{signed}.{}", "A".repeat(86)))
            }
            ("cut", LicenseRef::Token(token)) => LicenseRef::Token(token[..token.len() - 9].to_owned()),
            ("garbage", _) => LicenseRef::Token("a.b.c".to_owned()),
            ("empty", _) => LicenseRef::Token(String::new()),
            ("missing", _) => LicenseRef::Missing,
            ("registered", _) => LicenseRef::Id("registered".to_owned()),
            ("unknown", _) => LicenseRef::Id("nobody".to_owned()),
            (_, license) => license,
        }
    })
}

/// One thing that is not as samples have it.
fn oddities() -> impl Strategy<Value = fn(&mut CheckRequest)> {
    let oddities: Vec<fn(&mut CheckRequest)> = vec![
        |question| question.purpose = "WorldDomination".to_owned(),
        |question| question.region = "Atlantis".to_owned(),
        |question| question.action = "can_read".to_owned(),
        |question| question.resource.kind = "record".to_owned(),
        |question| question.resource.id = "sales//eu".to_owned(),
        |question| question.resource.id = "../etc".to_owned(),
        |question| question.subject.id = "ä\u{1F600}\u{0}\n".to_owned(),
        |question| question.subject.id = "x".repeat(300),
        |question| question.subject.roles = vec!["r".to_owned(); 1_001],
        |question| question.request_id = "r".repeat(200),
        |question| question.combined_with = vec!["/".to_owned()],
        |question| question.usage.extend([("rows".to_owned(), -1.0)]),
        |question| question.usage.extend([(String::new(), 1.0)]),
        |question| question.usage.extend([("rows".to_owned(), 1e300)]),
        |question| question.context = members(json!({"weather": "mild"})),
        |question| question.context = members(json!({"risk": "high"})),
        |question| question.context = members(json!({"risk": 1.5})),
        |question| question.context = members(json!({"risk": null})),
        |question| question.context = members(json!({"time": {"__entity": {"type": "User", "id": "a"}}})),
        |question| question.context = members(json!({"risk": 6, "time": "noon", "ip": "::1"})),
        |question| question.context = members(json!({"risk": 5.0, "ip": "::1"})),
        |question| question.resource.properties = members(json!({"status": "archived"})),
        |question| question.resource.properties = members(json!({"status": "active", "owner": "bo"})),
        |question| question.resource.properties = members(json!({"status": ["active"]})),
    ];
    select(oddities)
}

fn members(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// Any question. Quotas are looked at, and never used up.
pub(super) fn any(issuer: &Issuer) -> impl Strategy<Value = CheckRequest> + use<> {
    let plain = prop_oneof![2 => samples::any_request(), 1 => Just(samples::request())];
    let odd = prop::option::weighted(0.2, oddities());
    (plain, licenses(issuer), odd, prop::bool::ANY).prop_map(|(plain, license, odd, explain)| {
        let kind = "dataset".to_owned();
        let mut question = CheckRequest { license, explain, dry_run: true, ..plain };
        question.resource.kind = kind;
        if let Some(odd) = odd {
            odd(&mut question);
        }
        question
    })
}

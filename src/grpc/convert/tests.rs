//! What goes over the wire comes back the same, and what cannot is refused by name.

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::{Amount, Code, DecisionId};

fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn refused(context: Struct) -> String {
    let message = wire::CheckRequest { context: Some(context), ..Default::default() };
    let refusal = question(message).unwrap_err();
    format!("{} {}", refusal.field, refusal.problem)
}

#[test]
fn moves_every_field_of_a_question() {
    let message = wire::CheckRequest {
        request_id: "r1".into(),
        license: Some(wire::check_request::License::Token("a.b.c".into())),
        subject: Some(wire::Subject {
            id: "ada".into(),
            organization: "acme".into(),
            roles: vec!["lead".into()],
        }),
        action: "read".into(),
        resource: Some(wire::Resource {
            id: "sales/eu".into(),
            r#type: "dataset".into(),
            properties: Some(object([("rows", number(10.0))])),
        }),
        purpose: "Research".into(),
        region: "FR".into(),
        project: "apollo".into(),
        environment: "enclave".into(),
        combined_with: vec!["hr".into()],
        combined_with_external: true,
        holder: Some(wire::HolderEvidence {
            spiffe_id: "spiffe://a/b".into(),
            certificate_thumbprint: "x5t".into(),
            jwk_thumbprint: "jkt".into(),
        }),
        usage: [("rows".to_owned(), f64::NAN)].into(),
        context: Some(object([("ip", Value { kind: Some(Kind::StringValue("::1".into())) })])),
        supported_obligations: vec!["notify".into()],
        explain: true,
        dry_run: true,
    };
    let asked = question(message).unwrap();
    assert!(asked.usage["rows"].is_nan(), "amounts are judged by the decision");
    let expected = CheckRequest {
        request_id: "r1".into(),
        license: LicenseRef::Token("a.b.c".into()),
        subject: Subject { id: "ada".into(), organization: "acme".into(), roles: vec!["lead".into()] },
        action: "read".into(),
        resource: Resource {
            id: "sales/eu".into(),
            kind: "dataset".into(),
            properties: json!({ "rows": 10 }).as_object().unwrap().clone(),
        },
        purpose: "Research".into(),
        region: "FR".into(),
        project: "apollo".into(),
        environment: "enclave".into(),
        combined_with: vec!["hr".into()],
        combined_with_external: true,
        holder: Holder {
            spiffe_id: "spiffe://a/b".into(),
            certificate_thumbprint: "x5t".into(),
            jwk_thumbprint: "jkt".into(),
        },
        usage: asked.usage.clone(),
        context: json!({ "ip": "::1" }).as_object().unwrap().clone(),
        supported_obligations: vec!["notify".into()],
        explain: true,
        dry_run: true,
        problems: Vec::new(),
    };
    assert_eq!(
        CheckRequest { usage: Default::default(), ..asked },
        CheckRequest { usage: Default::default(), ..expected }
    );
}

#[test]
fn what_is_absent_is_empty() {
    assert_eq!(question(wire::CheckRequest::default()), Ok(CheckRequest::default()));
    let id = wire::check_request::License::LicenseId("l1".into());
    let message = wire::CheckRequest { license: Some(id), ..Default::default() };
    assert_eq!(question(message).unwrap().license, LicenseRef::Id("l1".into()));
}

#[test]
fn refuses_what_json_cannot_say_and_names_it() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let nested =
            Value { kind: Some(Kind::StructValue(object([("c", list(vec![number(1.0), number(bad)]))]))) };
        assert_eq!(refused(object([("a", nested)])), "context.a.c[1] must be finite");
    }
    assert_eq!(refused(object([("a", Value { kind: None })])), "context.a has a value without a kind");
    let resource =
        wire::Resource { properties: Some(object([("x", number(f64::NAN))])), ..Default::default() };
    let message = wire::CheckRequest { resource: Some(resource), ..Default::default() };
    assert_eq!(question(message).unwrap_err().field, "resource.properties.x");
}

#[test]
fn refuses_nesting_beyond_the_limit() {
    let nest = |levels: usize| (1..levels).fold(number(1.0), |inner, _| list(vec![inner]));
    let message = |value| wire::CheckRequest { context: Some(object([("a", value)])), ..Default::default() };
    question(message(nest(MAX_DEPTH))).unwrap();
    let refusal = question(message(nest(MAX_DEPTH + 1))).unwrap_err();
    assert_eq!(refusal.problem, "is nested deeper than 32 levels");
}

#[test]
fn an_error_repeats_little_of_what_it_was_sent() {
    let mut context = Struct::default();
    context.fields.insert("x".repeat(100_000), number(f64::NAN));
    assert!(refused(context).len() < 200);
}

#[test]
fn moves_every_field_of_an_answer() {
    let decision = Decision {
        id: DecisionId::new("2026-01-02T03:04:05.5Z".parse().unwrap()),
        effect: Effect::Deny,
        enforced: true,
        reasons: vec![Reason { policy_id: "p".into(), ..Reason::new(Code::Expired, "at noon") }],
        obligations: vec![Obligation {
            id: "o1".into(),
            kind: "notify".into(),
            properties: json!({ "to": ["a", 1, null, true] }).as_object().unwrap().clone(),
        }],
        valid_until: Some("1969-12-31T23:59:59.25Z".parse().unwrap()),
        quotas: vec![QuotaState {
            id: "q".into(),
            metric: "rows".into(),
            limit: Amount::whole(10),
            remaining: Amount::used(2.5).unwrap(),
            began_at: "2026-01-02T00:00:00Z".parse().unwrap(),
            resets_at: Some("2026-01-03T00:00:00Z".parse().unwrap()),
        }],
        reservation: Some(Uuid::nil()),
        status_as_of: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        policy_revision: "rev".into(),
        granting_policies: vec!["g".into()],
    };
    let id = decision.id.to_string();
    let message = answer(decision);
    assert_eq!(message.decision(), wire::Decision::Deny);
    assert_eq!(message.decision_id, id);
    assert_eq!(message.reasons[0].code, "EXPIRED");
    assert_eq!(message.reasons[0].policy_id, "p");
    assert_eq!(message.reasons[0].reason_user, Code::Expired.meaning());
    assert_eq!(message.reasons[0].reason_admin, "at noon");
    assert_eq!(message.reasons[0].would_pass_if, Code::Expired.remedy());
    assert_eq!(
        (message.obligations[0].id.as_str(), message.obligations[0].r#type.as_str()),
        ("o1", "notify")
    );
    assert_eq!(message.valid_until, Some(prost_types::Timestamp { seconds: -1, nanos: 250_000_000 }));
    assert_eq!(message.cache_max_age, None);
    assert_eq!(message.policy_revision, "rev");
    assert_eq!(message.granting_policies, ["g"]);
    let quota = &message.quotas[0];
    assert_eq!((quota.id.as_str(), quota.metric.as_str()), ("q", "rows"));
    assert_eq!((quota.limit, quota.remaining), (10.0, 2.5));
    assert_eq!(quota.resets_at, Some(prost_types::Timestamp { seconds: 1_767_398_400, nanos: 0 }));
    assert_eq!(message.reservation_id, Uuid::nil().to_string());
    assert_eq!(message.status_as_of, Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 0 }));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-9_007_199_254_740_992_i64..=9_007_199_254_740_992).prop_map(Into::into),
        (-1e6..1e6_f64).prop_filter("whole ones are integers", |n| n.fract() != 0.0).prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map(".{0,8}", inner, 0..5)
                .prop_map(|object| serde_json::Value::Object(object.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_survives_the_wire(value in any_json()) {
        prop_assert_eq!(to_json(from_json(value.clone()), 1), Ok(value));
    }

    #[test]
    fn times_keep_their_order(a in -377_705_023_201_i64..=253_402_207_200, b in -377_705_023_201_i64..=253_402_207_200, nanos in 0..1_000_000_000_i32) {
        let at = |seconds, nanos| {
            let time = timestamp(Timestamp::new(seconds, nanos).unwrap()).unwrap();
            (time.seconds, time.nanos)
        };
        prop_assert_eq!(a.cmp(&b), at(a, 0).cmp(&at(b, 0)));
        prop_assert!(at(a, nanos) >= at(a, 0));
    }
}

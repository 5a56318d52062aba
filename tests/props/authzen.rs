//! AuthZEN's questions: what is read is what the OpenAPI document describes, and what is written is what
//! is read.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tollgate::http::authzen::question::question;
use tollgate::http::json;
use tollgate::http::openapi;

/// An evaluation with every member that there is.
fn whole() -> Value {
    json!({
        "subject": {"type": "user", "id": "ana", "properties": {"organization": "acme", "roles": ["r1", "r2"]}},
        "action": {"name": "read", "properties": {"soft": true}},
        "resource": {"type": "dataset", "id": "sales/eu", "properties": {"state": "raw"}},
        "context": {
            "license_id": "license-1", "purpose": "ScientificResearch", "region": "FR", "project": "p1",
            "environment": "enclave", "combined_with": ["hr"], "combined_with_external": true,
            "usage": {"rows": 2, "epsilon": 0.5}, "supported_obligations": ["notify"], "request_id": "r-1",
            "holder": {"spiffe_id": "spiffe://a/b", "certificate_thumbprint": "c", "jwk_thumbprint": "j"},
            "dry_run": true, "explain": true, "attributes": {"ip": "::1"}, "time": "noon",
        },
    })
}

fn described() -> jsonschema::Validator {
    let document = openapi::document();
    let evaluation = json!({"$ref": "#/components/schemas/Evaluation", "components": document["components"]});
    jsonschema::validator_for(&evaluation).unwrap()
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// The path of every value within.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, below)| (name.clone(), below)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, below)| (at.to_string(), below)).collect(),
        _ => Vec::new(),
    };
    for (name, below) in below {
        found.push(format!("{path}/{name}"));
        paths(below, &format!("{path}/{name}"), found);
    }
}

fn everywhere() -> Vec<String> {
    let mut found = Vec::new();
    paths(&whole(), "", &mut found);
    found
}

#[test]
fn a_value_of_a_wrong_type_is_named_and_is_not_as_described() {
    let wrong =
        [json!(null), json!(1.5), json!("text"), json!([1]), json!([["a"]]), json!({"a": {}}), json!(true)];
    let described = described();
    assert!(described.is_valid(&whole()));
    let mut refused = 0;
    for path in everywhere() {
        for value in &wrong {
            let mut body = whole();
            *body.pointer_mut(&path).unwrap() = value.clone();
            let read = question(members(&body), None);
            assert_eq!(read.is_ok(), described.is_valid(&body), "{path} = {value}: {read:?}");
            if let Err(malformed) = read {
                refused += 1;
                let named = malformed.field().replace(['.', '['], "/").replace(']', "");
                assert!(format!("/{named}").starts_with(&path), "{path} = {value}: {malformed}");
            }
        }
    }
    assert!(refused > 150, "{refused}");
}

#[test]
fn a_member_that_is_missing_is_named_and_is_missed() {
    let described = described();
    let mut missed = Vec::new();
    for path in everywhere() {
        let (holder, name) = path.rsplit_once('/').unwrap();
        let mut body = whole();
        let Some(Value::Object(members_of)) = body.pointer_mut(holder) else { continue };
        members_of.remove(name);
        let read = question(members(&body), None);
        assert_eq!(read.is_ok(), described.is_valid(&body), "{path}");
        missed.extend(read.err().map(|malformed| malformed.to_string()));
    }
    missed.sort();
    let entities = ["action", "action.name", "resource", "resource.id", "resource.type"];
    let required = entities.into_iter().chain(["subject", "subject.id", "subject.type"]);
    let mut expected: Vec<String> = required.map(|name| format!("`{name}` is missing")).collect();
    expected.sort();
    assert_eq!(missed, expected);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Whole numbers as integers, where a double holds them.
fn settled(value: Value) -> Value {
    let bound = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) => match number.as_f64() {
            #[allow(clippy::cast_possible_truncation, reason = "whole and at most 2^53 in size")]
            Some(float) if float.fract() == 0.0 && float.abs() <= bound => json!(float as i64),
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(settled).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, settled(value))).collect())
        }
        other => other,
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    let config = Config { failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&any_json(), |value| {
        let whole = json!({"a": value});
        let read = json::parse(whole.to_string().as_bytes()).unwrap();
        prop_assert_eq!(Value::Object(read), settled(whole));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

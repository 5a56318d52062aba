//! The mapping, member by member.

use serde_json::json;

use super::*;

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

fn read_body(body: Value) -> Result<CheckRequest, Malformed> {
    let Value::Object(body) = body else { panic!("{body}") };
    question(body, None)
}

fn context(context: Value) -> Result<CheckRequest, Malformed> {
    let mut body = whole();
    body["context"] = context;
    read_body(body)
}

#[test]
fn every_member_has_its_place() {
    let object = |value: Value| value.as_object().cloned().unwrap();
    let expected = CheckRequest {
        request_id: "r-1".to_owned(),
        license: LicenseRef::Id("license-1".to_owned()),
        subject: Subject {
            id: "ana".to_owned(),
            organization: "acme".to_owned(),
            roles: vec!["r1".to_owned(), "r2".to_owned()],
        },
        action: "read".to_owned(),
        resource: Resource {
            id: "sales/eu".to_owned(),
            kind: "dataset".to_owned(),
            properties: object(json!({"state": "raw"})),
        },
        purpose: "ScientificResearch".to_owned(),
        region: "FR".to_owned(),
        project: "p1".to_owned(),
        environment: "enclave".to_owned(),
        combined_with: vec!["hr".to_owned()],
        combined_with_external: true,
        holder: Holder {
            spiffe_id: "spiffe://a/b".to_owned(),
            certificate_thumbprint: "c".to_owned(),
            jwk_thumbprint: "j".to_owned(),
        },
        usage: [("epsilon".to_owned(), 0.5), ("rows".to_owned(), 2.0)].into(),
        context: object(json!({"ip": "::1", "time": "noon"})),
        supported_obligations: vec!["notify".to_owned()],
        explain: true,
        dry_run: true,
        problems: Vec::new(),
    };
    assert_eq!(read_body(whole()).unwrap(), expected);
}

#[test]
fn the_license_is_that_of_the_body_else_that_of_the_head() {
    let of = |context: Value, head| {
        let Value::Object(mut body) = whole() else { panic!("no object") };
        body.insert("context".to_owned(), context);
        question(body, head).map(|question| question.license)
    };
    let token = |text: &str| Ok(LicenseRef::Token(text.to_owned()));
    assert_eq!(of(json!({}), None), Ok(LicenseRef::Missing));
    assert_eq!(of(json!({}), Some("h")), token("h"));
    assert_eq!(of(json!({"license": "b"}), Some("h")), token("b"));
    assert_eq!(of(json!({"license_id": "i"}), Some("h")), Ok(LicenseRef::Id("i".to_owned())));
    let both = of(json!({"license": "b", "license_id": "i"}), None).unwrap_err();
    assert_eq!(both.to_string(), "`context.license_id` is given beside `license`; give one");
}

#[test]
fn what_is_unknown_is_ignored_but_in_the_context() {
    let mut body = whole();
    for holder in ["/subject", "/subject/properties", "/action", "/resource", "/context/holder", ""] {
        body.pointer_mut(holder).unwrap()["foo"] = json!({"nested": [true, null]});
    }
    assert_eq!(read_body(body), read_body(whole()));
    let attributes = context(json!({"z": 1, "attributes": {"m": 2}, "a": null})).unwrap().context;
    assert_eq!(json!(attributes).to_string(), r#"{"a":null,"m":2,"z":1}"#);
    let twice = context(json!({"a": 1, "attributes": {"a": 1}})).unwrap_err();
    assert_eq!(twice.to_string(), "`context.a` is given in `attributes` too; give it once");
}

#[test]
fn a_subject_of_another_type_is_a_question_that_is_denied() {
    let mut body = whole();
    body["subject"]["type"] = json!("spaceship");
    let question = read_body(body).unwrap();
    assert_eq!(question.problems[0].code, Code::ContextInvalid);
    assert_eq!(question.problems[0].reason_admin, "subject.type: `spaceship` is not a type of subject");
}

//! AuthZEN Authorization API 1.0 from outside: a real gate, asked as the specification says, and as it
//! does not. Every answer is held against the gate's own OpenAPI document.

mod malformed;
mod metadata;
mod search;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::gate::{Gate, PATIENCE, Site, eventually, ids};
use super::web::{Reply, Web};

pub(crate) const EVALUATION: &str = "/access/v1/evaluation";
pub(crate) const EVALUATIONS: &str = "/access/v1/evaluations";

/// What the operator declares that callers may send.
pub(crate) const ATTRIBUTES: &str = "namespace Tollgate {
  type Attributes = { time?: String, ip?: String, risk?: Long };
  type Properties = { status?: String, owner?: String };
}";

/// What the operator forbids, in one policy of each kind.
pub(crate) const HOUSE: &str = r#"
@id("house/risk")
@reason("The risk is too high.")
forbid (principal, action, resource)
when { context.attributes has risk && context.attributes.risk > 5 };

@id("house/archived")
@reason("What is archived is not touched.")
forbid (principal, action, resource)
when { context.properties has status && context.properties.status == "archived" };

@id("house/notify")
@obligation("notify")
permit (principal, action == Tollgate::Action::"export", resource);
"#;

/// A site with the operator's own attributes and policies.
pub(crate) fn site() -> Site {
    let site = Site::new();
    site.write("policies/attributes.cedarschema", ATTRIBUTES);
    site.write("policies/house.cedar", HOUSE);
    site
}

pub(crate) const WITH_POLICIES: (&str, &str) = ("policies.directory", "policies");

/// A client that holds every answer against what the OpenAPI document says of it.
pub(crate) struct Described {
    web: Web,
    document: Value,
}

impl Described {
    pub(crate) fn of(gate: &Gate) -> Self {
        let mut web = Web::to(gate);
        let document = web.get("/openapi.json", &[]).json();
        Self { web, document }
    }

    pub(crate) fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let reply = self.web.post(path, headers, body);
        self.check("post", path, &reply);
        reply
    }

    pub(crate) fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let reply = self.web.send(line, headers, body);
        let (method, path) = line.split_once(' ').unwrap();
        self.check(&method.to_lowercase(), path, &reply);
        reply
    }

    /// An answer that is described, in a form that is described.
    fn check(&self, method: &str, path: &str, reply: &Reply) {
        let mut described = &self.document["paths"][path][method]["responses"][reply.status.to_string()];
        if let Some(reference) = described["$ref"].as_str() {
            described = self.document.pointer(reference.trim_start_matches('#')).unwrap();
        }
        let schema = &described["content"][reply.media()]["schema"];
        assert!(schema.is_object(), "{method} {path} {} {} is not described", reply.status, reply.media());
        let root = json!({ "allOf": [schema], "components": self.document["components"] });
        let body =
            if reply.media().ends_with("json") { reply.json() } else { Value::from(reply.body.as_str()) };
        let validator = jsonschema::validator_for(&root).unwrap();
        let problems: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{method} {path} is not as described: {problems:?}\n{body}");
    }
}

/// An evaluation that the site's license allows, for `action`.
pub(crate) fn evaluation(action: &str) -> Value {
    json!({
        "subject": {"type": "user", "id": "ana", "properties": {"organization": "acme"}},
        "action": {"name": action},
        "resource": {"type": "dataset", "id": "sales/eu/orders"},
        "context": {"purpose": "ScientificResearch"},
    })
}

/// The header that carries a license.
pub(crate) fn bearing(token: &str) -> String {
    format!("License {token}")
}

fn decisions(reply: &Reply) -> Vec<bool> {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let page = reply.json();
    let all = page["evaluations"].as_array().unwrap();
    all.iter().map(|one| one["decision"].as_bool().unwrap()).collect()
}

#[tokio::test]
async fn an_evaluation_is_a_decision_and_leaves_its_record() {
    let gate = site().start(&[WITH_POLICIES]);
    let mut claims = gate.site().issuer.claims("license-1");
    claims["terms"]["actions"] = json!(["read", "export"]);
    claims["terms"]["quotas"] =
        json!([{"id": "daily", "metric": "requests", "limit": 10, "per": "license", "window": "total"}]);
    let header = bearing(&gate.site().issuer.sign(&claims));
    let license = [("authorization", header.as_str()), ("x-request-id", "Bfe9/ eb=29")];
    let mut web = Described::of(&gate);

    let mut question = evaluation("export");
    question["context"]["supported_obligations"] = json!(["notify"]);
    question["context"]["explain"] = true.into();
    question["context"]["request_id"] = "mine".into();
    let allowed = web.post(EVALUATION, &license, &question);
    assert_eq!((allowed.status, allowed.media()), (200, "application/json"));
    assert_eq!(allowed.header("x-request-id"), Some("Bfe9/ eb=29"));
    let answer = allowed.json();
    let context = &answer["context"];
    assert_eq!((&answer["decision"], &context["codes"]), (&json!(true), &json!([])));
    assert_eq!(context["obligations"], json!([{"id": "house/notify", "type": "notify"}]));
    assert_eq!(
        context["quotas"],
        json!([{"id": "daily", "metric": "requests", "limit": 10, "remaining": 9}])
    );
    assert!(context["granting_policies"].as_array().unwrap().contains(&json!("house/notify")));
    for time in ["valid_until", "status_as_of"] {
        assert!(context[time].as_str().unwrap().ends_with('Z'), "{context}");
    }
    assert!(context["reservation_id"].is_string() && context["policy_revision"].is_string());

    question["context"]["purpose"] = "Marketing".into();
    question["context"]["risk"] = 9.into();
    let denied = web.post(EVALUATION, &license, &question);
    let answer = denied.json();
    let denial = &answer["context"];
    assert_eq!((denied.status, &answer["decision"]), (200, &json!(false)));
    assert_eq!(denial["codes"], json!(["PURPOSE_NOT_LICENSED", "POLICY_FORBIDS"]));
    assert_eq!(denial["reason_user"]["POLICY_FORBIDS"], "The risk is too high.");
    assert!(denial["reason_admin"]["PURPOSE_NOT_LICENSED"].as_str().unwrap().contains("`Marketing`"));
    assert_eq!(denial["reasons"][1]["policy_id"], "house/risk");
    assert!(denial["obligations"].is_null() && denial["quotas"].is_null());

    let answered = [context["id"].as_str().unwrap().to_owned(), denial["id"].as_str().unwrap().to_owned()];
    let records = gate.stop().await.site.records();
    assert_eq!(ids(&records), answered);
    assert_eq!(
        (&records[0]["request_id"], &records[0]["purpose"]),
        (&json!("mine"), &json!("ScientificResearch"))
    );
}

#[tokio::test]
async fn what_a_question_may_have_beside_what_it_must_changes_nothing() {
    let gate = site().start(&[WITH_POLICIES]);
    let token = gate.site().issuer.license("license-1");
    let header = bearing(&token);
    let mut web = Described::of(&gate);
    let mut change = |change: &dyn Fn(&mut Value)| {
        let mut question = evaluation("read");
        change(&mut question);
        web.post(EVALUATION, &[("authorization", &header)], &question).json()
    };
    let plain: &dyn Fn(&mut Value) = &|_| {};
    let changes: [&dyn Fn(&mut Value); 5] = [
        plain,
        plain,
        &|question| question["context"]["time"] = "2025-06-27T18:03-07:00".into(),
        &|question| {
            question["subject"]["properties"]["department"] = "Sales".into();
            question["action"]["properties"] = json!({"method": "GET"});
            question["resource"]["properties"] = json!({"status": "active", "owner": "bob"});
        },
        &|question| {
            question["foo"] = "bar".into();
            question["subject"]["future"] = json!({"nested": true});
        },
    ];
    for (index, one) in changes.iter().enumerate() {
        assert_eq!(change(one)["decision"], true, "{index}");
    }
    let archived = change(&|question| question["resource"]["properties"] = json!({"status": "archived"}));
    assert_eq!(archived["context"]["codes"], json!(["POLICY_FORBIDS"]));
    let undeclared = change(&|question| question["context"]["weather"] = "mild".into());
    assert_eq!(undeclared["context"]["codes"], json!(["CONTEXT_INVALID"]));
    for (field, value) in [("subject", "spaceship"), ("resource", "record")] {
        let denied = change(&|question| question[field]["type"] = value.into());
        assert_eq!(denied["context"]["codes"], json!(["CONTEXT_INVALID"]), "{field}");
        let words = denied["context"]["reason_admin"]["CONTEXT_INVALID"].as_str().unwrap();
        assert!(words.contains(value) && words.starts_with(&format!("{field}.type: ")), "{words}");
    }
    let named = change(&|question| question["context"]["license_id"] = "nobody".into());
    assert_eq!(named["context"]["codes"], json!(["LICENSE_UNKNOWN"]), "the body's license counts");
}

#[tokio::test]
async fn several_evaluations_go_as_far_as_their_semantic_says() {
    let gate = site().start(&[WITH_POLICIES]);
    let header = bearing(&gate.site().issuer.license("license-1"));
    let license = [("authorization", header.as_str())];
    let mut web = Described::of(&gate);
    let mut ask = |semantic: Option<&str>, evaluations: Value| {
        let mut body = evaluation("read");
        body["evaluations"] = evaluations;
        if let Some(semantic) = semantic {
            body["options"] = json!({"evaluations_semantic": semantic, "another_option": "value"});
        }
        web.post(EVALUATIONS, &license, &body)
    };
    let (yes, no) = (json!({}), json!({"action": {"name": "share"}}));
    // What overrides a default replaces all of it.
    let bad = json!({"resource": {"id": "sales/eu/orders"}});
    for (semantic, evaluations, expected) in [
        (None, [&yes, &no, &yes], &[true, false, true][..]),
        (Some("execute_all"), [&no, &bad, &yes], &[false, false, true]),
        (Some("deny_on_first_deny"), [&yes, &no, &yes], &[true, false]),
        (Some("deny_on_first_deny"), [&yes, &bad, &yes], &[true, false]),
        (Some("deny_on_first_deny"), [&yes, &yes, &yes], &[true, true, true]),
        (Some("permit_on_first_permit"), [&no, &yes, &no], &[false, true]),
        (Some("permit_on_first_permit"), [&bad, &yes, &bad], &[false, true]),
        (Some("permit_on_first_permit"), [&no, &bad, &no], &[false, false, false]),
    ] {
        let reply = ask(semantic, json!(evaluations));
        assert_eq!(decisions(&reply), expected, "{semantic:?} {evaluations:?}");
        assert!(reply.json().get("decision").is_none());
    }
    let reply = ask(None, json!([{}, 5, {"resource": {"type": "dataset", "id": 1}}])).json();
    let error = |at: usize| reply["evaluations"][at]["context"]["error"].clone();
    assert_eq!(
        error(1),
        json!({"status": 400, "field": "evaluations[1]", "message": "`evaluations[1]` must be an object"})
    );
    assert_eq!(error(2)["field"], "evaluations[2].resource.id");

    let one = ask(None, json!([])).json();
    assert_eq!((&one["decision"], one.get("evaluations")), (&json!(true), None));
    for (reply, field) in [
        (ask(Some("vote"), json!([{}])), "options.evaluations_semantic"),
        (ask(None, json!({})), "evaluations"),
        (ask(None, json!(vec![json!({}); 1_001])), "evaluations"),
    ] {
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!(field)));
    }
    assert_eq!(decisions(&ask(None, json!(vec![json!({}); 1_000]))), [true; 1_000]);
}

#[tokio::test]
async fn what_is_under_way_when_the_gate_stops_is_answered() {
    let gate = Gate::start(&[]);
    let header = bearing(&gate.site().issuer.license("license-1"));
    let body = evaluation("read").to_string();
    let (begun, rest) = body.split_at(20);
    let head = format!(
        "host: gate\r\ncontent-type: application/json\r\nauthorization: {header}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(gate.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "POST {EVALUATION} HTTP/1.1\r\n{head}{begun}").unwrap();
    // The gate has begun to read it when it has answered somebody who came later.
    assert_eq!(gate.get("/healthz").0, 200);
    gate.signal("TERM");
    eventually("it takes nobody in any more", async || TcpStream::connect(gate.http).is_err()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    write!(stream, "{rest}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"decision\":true"), "{answer}");
    let ended = gate.ended().await;
    assert_eq!((ended.code, ended.site.records().len()), (Some(0), 1));
}

#[tokio::test]
async fn defaults_do_not_make_a_short_request_a_long_one() {
    let gate = Gate::start(&[("listeners.limits.message", "64 KiB")]);
    let header = bearing(&gate.site().issuer.license("license-1"));
    let mut web = Described::of(&gate);
    let mut body = evaluation("read");
    body["context"]["project"] = "p".repeat(250).into();
    body["evaluations"] = vec![json!({}); 40].into();
    let license = [("authorization", header.as_str())];
    assert_eq!(decisions(&web.post(EVALUATIONS, &license, &body)).len(), 40);
    body["context"]["time"] = "t".repeat(2_000).into();
    assert_eq!(web.post(EVALUATIONS, &license, &body).status, 413);
    // What nobody leaves out takes no room.
    body["evaluations"] = vec![json!({"context": {}}); 40].into();
    assert_eq!(decisions(&web.post(EVALUATIONS, &license, &body)), [false; 40]);
}

//! What is no question: each is refused with its status, and says where it is wrong. None gets a decision.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Described, EVALUATION, EVALUATIONS, bearing, evaluation};
use crate::gate::{Gate, PATIENCE};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_malformed_question_is_refused_where_it_is_wrong() {
    let gate = Gate::start(&[]);
    let mut web = Described::of(&gate);
    let mut count = 0.0;
    let mut refused = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        count += 1.0;
        let reply = web.send(&format!("POST {path}"), &[headers, &[("x-request-id", "r")]].concat(), body);
        assert_eq!((reply.status, reply.header("x-request-id")), (400, Some("r")), "{}", reply.body);
        assert_eq!(reply.media(), "application/problem+json");
        let problem = reply.json();
        (
            problem["field"].as_str().unwrap_or_default().to_owned(),
            problem["detail"].as_str().unwrap().to_owned(),
        )
    };
    let whole = evaluation("read");
    for pointer in [
        "/subject",
        "/subject/type",
        "/subject/id",
        "/action",
        "/action/name",
        "/resource/type",
        "/resource/id",
    ] {
        let (holder, name) = pointer.rsplit_once('/').unwrap();
        let mut body = whole.clone();
        body.pointer_mut(holder).unwrap().as_object_mut().unwrap().remove(name);
        let field = pointer[1..].replace('/', ".");
        let said = refused(EVALUATION, &[JSON], body.to_string().as_bytes());
        assert_eq!(said, (field.clone(), format!("`{field}` is missing")));
    }
    for (pointer, value) in [
        ("/subject", json!("alice")),
        ("/action/name", json!(123)),
        ("/context", json!(null)),
        ("/context", json!([])),
        ("/context/license", json!({"token": "x"})),
        ("/context/usage", json!({"rows": "1"})),
        ("/context/combined_with", json!(["a", 1])),
        ("/subject/properties/roles", json!("admin")),
    ] {
        let mut body = whole.clone();
        let (holder, name) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(holder).unwrap()[name] = value;
        for path in [EVALUATION, EVALUATIONS] {
            let (field, _) = refused(path, &[JSON], body.to_string().as_bytes());
            assert!(field.starts_with(&pointer[1..].replace('/', ".")), "{field}");
        }
    }
    for (text, words) in [
        (&b""[..], "the body is not JSON: "),
        (b"{", "the body is not JSON: "),
        (b"not json", "the body is not JSON: "),
        (b"[]", "the body must be a JSON object"),
        (b"{\"subject\": NaN}", "the body is not JSON: "),
        (b"{\"a\": 1e999}", "the body is not JSON: "),
        (b"{\"a\": \"\\ud800\"}", "the body is not JSON: "),
        (b"{\"a\": \"\xff\"}", "the body is not JSON: "),
        (b"{\"context\": {\"usage\": {\"rows\": 9007199254740993}}}", "`context.usage.rows` is an integer"),
        (
            b"{\"context\": {\"license\": \"a\", \"license\": \"b\"}}",
            "`context` has the member `license` twice",
        ),
    ] {
        let (_, detail) = refused(EVALUATION, &[JSON], text);
        assert!(detail.starts_with(words), "{detail}");
    }
    let deep = format!("{{\"a\":{}", "[".repeat(1_000_000));
    assert!(refused(EVALUATION, &[JSON], deep.as_bytes()).1.contains("nested deeper than 32 levels"));
    let body = whole.to_string();
    for headers in
        [&[][..], &[("content-type", "text/plain")], &[("content-type", "application/jsonx")], &[JSON, JSON]]
    {
        assert_eq!(refused(EVALUATION, headers, body.as_bytes()).0, "content-type");
    }
    let two = [JSON, ("authorization", "License a"), ("authorization", "license b")];
    assert_eq!(refused(EVALUATION, &two, body.as_bytes()).0, "authorization");
    assert_eq!(gate.metric("tollgate_undecided_total", &[("kind", "invalid_argument")]), count);
    assert_eq!(gate.metric("tollgate_checks_total", &[]), 0.0);
    assert!(gate.stop().await.site.records().is_empty());
}

#[tokio::test]
async fn a_token_in_a_wrong_place_does_not_come_back() {
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut web = Described::of(&gate);
    for (holder, name) in
        [("/context", "combined_with"), ("/context", "usage"), ("", "subject"), ("/context/usage", &token)]
    {
        let mut body = evaluation("read");
        body["context"]["usage"] = json!({});
        body.pointer_mut(holder).unwrap()[name] = token.as_str().into();
        let reply = web.post(EVALUATION, &[], &body);
        assert_eq!(reply.status, 400);
        assert!(!reply.body.contains(&token) && !reply.body.contains(&token[80..]), "{}", reply.body);
    }
}

#[tokio::test]
async fn other_methods_media_types_and_sizes_are_refused() {
    let gate = Gate::start(&[("listeners.limits.message", "64 KiB")]);
    let header = bearing(&gate.site().issuer.license("license-1"));
    let mut web = super::Web::to(&gate);
    for path in ["/access/v1", "/access/v1/evaluation/", "/access/v2/evaluation", "/access/v1/search"] {
        let reply = web.post(path, &[("x-request-id", "r")], &json!({}));
        assert_eq!((reply.status, reply.header("x-request-id")), (404, Some("r")), "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        let reply = web.send(&format!("{method} {EVALUATION}"), &[], b"");
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    }
    let mut large = evaluation("read");
    large["context"]["time"] = "t".repeat(64 << 10).into();
    let reply = Described::of(&gate).post(EVALUATION, &[], &large);
    assert_eq!(reply.status, 413);
    assert_eq!(gate.metric("tollgate_undecided_total", &[("kind", "resource_exhausted")]), 1.0);
    for media in ["application/json; charset=utf-8", "Application/JSON"] {
        let headers = [("content-type", media), ("authorization", header.as_str())];
        let reply = Described::of(&gate).send(
            &format!("POST {EVALUATION}"),
            &headers,
            evaluation("read").to_string().as_bytes(),
        );
        assert_eq!(reply.json()["decision"], true, "{media}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let gate = Gate::start(&[("listeners.limits.request_timeout", "300ms")]);
    let begun = Instant::now();
    let mut stream = TcpStream::connect(gate.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "host: gate\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    write!(stream, "POST {EVALUATION} HTTP/1.1\r\n{head}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let problem: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(problem["detail"], "the deadline passed before the request was decided");
    assert!(begun.elapsed().as_millis() >= 300 && begun.elapsed() < PATIENCE);
    assert_eq!(gate.metric("tollgate_undecided_total", &[("kind", "deadline_exceeded")]), 1.0);
}

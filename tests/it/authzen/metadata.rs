//! What tells clients about the API: where its parts are, what it looks like, and when it is not there.

use serde_json::{Value, json};

use super::{Described, EVALUATION, evaluation};
use crate::gate::Gate;
use crate::web::Web;

const METADATA: &str = "/.well-known/authzen-configuration";

fn expected(base: &str) -> Value {
    json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{base}/access/v1/evaluations"),
        "search_subject_endpoint": format!("{base}/access/v1/search/subject"),
        "search_resource_endpoint": format!("{base}/access/v1/search/resource"),
        "search_action_endpoint": format!("{base}/access/v1/search/action"),
    })
}

#[tokio::test]
async fn the_metadata_names_the_host_that_was_asked_or_the_one_configured() {
    let gate = Gate::start(&[]);
    let mut web = Described::of(&gate);
    let line = format!("GET {METADATA}");
    for host in ["127.0.0.1:9193", "tollgate.example", "[::1]:80"] {
        let reply = web.send(&line, &[("host", host)], b"");
        assert_eq!((reply.status, reply.media()), (200, "application/json"));
        assert_eq!(reply.json(), expected(&format!("http://{host}")));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    for host in ["a b", "user@a", "a/b", "", "a\"b", "a:b:c", &"a".repeat(300)] {
        let reply = web.send(&line, &[("host", host)], b"");
        assert_eq!((reply.status, &reply.json()["field"]), (400, &json!("host")), "{host}");
    }
    let twice = web.send(&line, &[("host", "a"), ("host", "b")], b"");
    assert_eq!(twice.status, 400);

    let gate = Gate::start(&[("listeners.authzen.public_url", "https://tollgate.example:8443")]);
    let reply = Described::of(&gate).send(&line, &[("host", "elsewhere")], b"");
    assert_eq!(reply.json(), expected("https://tollgate.example:8443"));
    assert_eq!(reply.header("cache-control"), Some("max-age=300"));
}

#[tokio::test]
async fn every_page_is_as_it_is_described() {
    let gate = Gate::start(&[]);
    let mut web = Described::of(&gate);
    let document = Web::to(&gate).get("/openapi.json", &[]).json();
    assert_eq!(document, tollgate::http::openapi::document());
    let paths = document["paths"].as_object().unwrap();
    let pages: Vec<_> = paths.iter().filter(|(_, methods)| methods.get("get").is_some()).collect();
    assert_eq!(pages.len(), 6);
    for (path, _) in pages {
        assert_eq!(web.send(&format!("GET {path}"), &[], b"").status, 200, "{path}");
    }
}

#[tokio::test]
async fn nothing_is_decided_where_it_is_off() {
    let open = [("listeners.http.insecure", "true")];
    let off = [("listeners.authzen.enabled", "false")];
    for overrides in [&open[..], &off] {
        let gate = Gate::start(overrides);
        let mut web = Web::to(&gate);
        assert_eq!(web.post(EVALUATION, &[], &evaluation("read")).status, 404);
        assert_eq!(web.get(METADATA, &[]).status, 404);
        assert_eq!(web.get("/readyz", &[]).status, 200);
    }
    let gate = Gate::start(&[open[0], ("listeners.authzen.enabled", "true")]);
    assert_eq!(Web::to(&gate).post(EVALUATION, &[], &evaluation("read")).status, 200);
}

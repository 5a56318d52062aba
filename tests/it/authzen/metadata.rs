//! What tells clients about the API: where its parts are, what it looks like, and when it is not there.

use std::process::Command;

use serde_json::{Value, json};

use super::{Described, EVALUATION, bearing, evaluation};
use crate::gate::{Gate, Site};
use crate::tls::Authority;
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

/// What curl prints, run in the gate's folder; nothing where it is not let in.
fn curl(gate: &Gate, arguments: &[&str]) -> Option<Value> {
    let mut command = Command::new("curl");
    command
        .current_dir(gate.site().path(""))
        .args(["--silent", "--fail", "--max-time", "10"])
        .args(arguments);
    let output = command.output().expect("curl is there");
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test]
async fn over_tls_it_is_guarded_and_named_as_the_decisions_listener_is() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let site = Site::new();
    site.write("ca.crt", &authority.pem);
    for (name, (pem, key)) in [
        ("tls", authority.sign_for("localhost")),
        ("own", authority.sign_for("pep")),
        ("odd", strangers.sign_for("pep")),
    ] {
        site.write(&format!("{name}.crt"), &pem);
        site.write(&format!("{name}.key"), &key);
    }
    let gate = site.start(&[
        ("listeners.http.tls.certificate", "tls.crt"),
        ("listeners.http.tls.key", "tls.key"),
        ("listeners.http.tls.client_ca", "ca.crt"),
        ("listeners.http.unix", "http.sock"),
    ]);
    let port = gate.http.port();
    let (base, resolve) = (format!("https://localhost:{port}"), format!("localhost:{port}:127.0.0.1"));
    let ask = |path: &str, who: &[&str]| {
        let url = format!("{base}{path}");
        curl(&gate, &[&["--cacert", "ca.crt", "--resolve", &resolve, &url], who].concat())
    };
    let known = ["--cert", "own.crt", "--key", "own.key"];
    for version in ["--http1.1", "--http2"] {
        assert_eq!(ask(METADATA, &[&known[..], &[version]].concat()), Some(expected(&base)), "{version}");
    }
    let license = format!("authorization: {}", bearing(&gate.site().issuer.license("license-1")));
    let question = evaluation("read").to_string();
    let asking = ["--json", &question, "--header", &license];
    let answer = ask(EVALUATION, &[&known[..], &asking].concat()).expect("a known caller is answered");
    assert_eq!(answer["decision"], true);
    for who in [&[][..], &["--cert", "odd.crt", "--key", "odd.key"]] {
        assert_eq!(ask(EVALUATION, &[who, &asking].concat()), None);
    }
    let over_unix = curl(&gate, &["--unix-socket", "http.sock", &format!("http://localhost{METADATA}")]);
    assert_eq!(over_unix, Some(expected("http://localhost")));
    assert_eq!(gate.stop().await.site.records().len(), 1);
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

//! What is denied never reaches the upstream, and its client learns why, unlike what could not be decided.

use serde_json::json;

use super::{Scene, client};

#[tokio::test]
async fn each_kind_of_denial_has_its_status() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[("state.max_staleness", "1s")]).await else {
        return;
    };
    let license = format!("authorization: License {}", scene.license());
    let research = "x-purpose: ScientificResearch";
    let other = crate::gate::Issuer::new("https://data.example", 9).license("license-1");
    let forged = format!("authorization: License {other}");
    let mut expired = scene.gate.site().issuer.claims("old");
    expired["exp"] = json!(crate::gate::now() - 1);
    expired["nbf"] = json!(crate::gate::now() - 10);
    let expired = format!("authorization: License {}", scene.gate.site().issuer.sign(&expired));
    let bearer = format!("authorization: Bearer {}", scene.license());
    let cases: [(&[&str], u16, &str); 8] = [
        (&[research], 401, "LICENSE_MISSING"),
        (&[research, &bearer], 401, "LICENSE_MISSING"),
        (&[research, "authorization: License nonsense"], 401, "LICENSE_MALFORMED"),
        (&[research, &forged], 401, "KEY_UNKNOWN"),
        (&[research, &expired], 401, "EXPIRED"),
        (&["x-purpose: Marketing", &license], 403, "PURPOSE_NOT_LICENSED"),
        (&["x-purpose: Research\u{e9}", &license], 400, "CONTEXT_INVALID"),
        (&[research, "x-purpose: Marketing", &license], 400, "CONTEXT_INVALID"),
    ];
    for (lines, status, code) in cases {
        let answer = scene.read("sales/eu", lines).await;
        assert_eq!(answer.status, status, "{lines:?}: {answer:?}");
        assert!(answer.codes().iter().any(|found| found == code), "{lines:?}: {answer:?}");
        let challenge = if status == 401 { "License" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge);
        let body = answer.json();
        assert_eq!(
            (&body["status"], body["decision_id"].as_str().unwrap()),
            (&json!(status), answer.header("x-license-decision-id"))
        );
        let record = scene.record(answer.header("x-license-decision-id")).await;
        assert_eq!(record["decision"], "deny");
    }
    let answer = scene.read("hr/salaries", &[research, &license]).await;
    assert_eq!((answer.status, answer.codes()), (403, vec!["DATASET_NOT_LICENSED".to_owned()]));
    assert!(
        answer.json()["reasons"][0]["would_pass_if"].as_str().unwrap().contains("sales/eu"),
        "{answer:?}"
    );
    assert_eq!(scene.upstream.asked(), 0);
    assert_eq!(scene.envoy.results("denied").await, 9);
    assert_eq!(scene.envoy.results("error").await, 0);
}

#[tokio::test]
async fn where_nothing_but_a_law_forbids_it_the_client_is_told_so() {
    let Some(program) = super::program() else { return };
    let site = super::site();
    let policy = "@id(\"law/special\") @reason(\"Special categories stay here.\") @cite(\"GDPR Art. 9(1)\")
        forbid (principal, action, resource) when { context has region && context.region == Tollgate::Region::\"FR\" };";
    site.write("policies/law.cedar", policy);
    let overrides = [("listeners.decisions.unix", "gate.sock"), ("policies.directory", "policies")];
    let scene = Scene::around(program, super::start_gate(site, &overrides), "sidecar.yaml", &[], &[]).await;
    let license = format!("authorization: License {}", scene.license());
    let answer = scene.read("sales/eu", &[&license, "x-purpose: ScientificResearch"]).await;
    assert_eq!((answer.status, answer.codes()), (451, vec!["POLICY_FORBIDS".to_owned()]));
    assert_eq!(
        (&answer.json()["status"], &answer.json()["reasons"][0]["cite"]),
        (&json!(451), &json!("GDPR Art. 9(1)"))
    );
    // With another reason beside it, it is a denial like any other.
    let answer = scene.read("sales/eu", &[&license, "x-purpose: Marketing"]).await;
    assert_eq!((answer.status, answer.codes().len()), (403, 2));
}

#[tokio::test]
async fn a_header_said_twice_is_read_alike_however_envoy_tells_of_it() {
    for raw in ["true", "false"] {
        let changes = [("encode_raw_headers: true", format!("encode_raw_headers: {raw}"))];
        let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
        let Some(scene) = Scene::start("sidecar.yaml", &changes, &[]).await else { return };
        let license = format!("authorization: License {}", scene.license());
        let other = format!("authorization: License {}", scene.gate.site().issuer.license("license-2"));
        let research = "x-purpose: ScientificResearch";
        for (lines, status) in [
            (vec![license.as_str(), research], 200),
            (vec![&license, &license, research, research], 200),
            (vec!["authorization: Bearer b", &license, research], 200),
            (vec![&license, &other, research], 400),
            (vec![&license, research, "x-purpose: Marketing"], 400),
            (vec![&license, "x-purpose: ScientificResearch, Marketing"], 400),
        ] {
            let answer = scene.read("sales/eu", &lines).await;
            assert_eq!(answer.status, status, "raw {raw}: {lines:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_denied_and_break_nothing() {
    for raw in ["true", "false"] {
        let changes = [("encode_raw_headers: true", format!("encode_raw_headers: {raw}"))];
        let changes = changes.each_ref().map(|(from, to)| (*from, to.as_str()));
        let Some(scene) = Scene::start("sidecar.yaml", &changes, &[]).await else { return };
        let license = format!("authorization: License {}", scene.license());
        // No text in Rust has a byte that is no text.
        let send = async |path: &str, purpose: &str| {
            let mut request = client::request("GET", path, &[&license, purpose]);
            request.iter_mut().filter(|byte| **byte == b'~').for_each(|byte| *byte = 0xff);
            client::send(scene.envoy.data, &request).await
        };
        let answer = send("/v1/datasets/sales/eu", "x-purpose: Re~earch").await;
        assert_eq!((answer.status, answer.codes()[0].as_str()), (400, "CONTEXT_INVALID"), "raw {raw}");
        let answer = send("/v1/datasets/sales/~eu", "x-purpose: ScientificResearch").await;
        assert!((400..600).contains(&answer.status), "raw {raw}: {answer:?}");
        assert_eq!(scene.upstream.asked(), 0);
    }
}

#[tokio::test]
async fn an_outage_is_no_denial_and_lets_nothing_through() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let license = format!("authorization: License {}", scene.license());
    let lines = [license.as_str(), "x-purpose: ScientificResearch"];
    assert_eq!(scene.read("sales/eu", &lines).await.status, 200);
    let Scene { gate, envoy, upstream } = scene;
    gate.stop().await;
    let request = client::request("GET", "/v1/datasets/sales/eu", &lines);
    let answer = client::send(envoy.data, &request).await;
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    assert_eq!((upstream.asked(), envoy.results("error").await), (1, 1));
}

#[tokio::test]
async fn a_tunnel_is_denied() {
    let tunnels = [
        ("              - match: {prefix: /}", "              - match: {connect_matcher: {}}"),
        ("timeout: 0s}", "timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT}]}"),
    ];
    let Some(scene) = Scene::start("sidecar.yaml", &tunnels, &[]).await else { return };
    let license = format!("authorization: License {}", scene.license());
    let answer =
        scene.send("CONNECT", "data.example:443", &[&license, "x-purpose: ScientificResearch"]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.json()["reasons"].to_string().contains("`method`"), "{answer:?}");
    assert_eq!(scene.upstream.asked(), 0);
}

//! What is allowed reaches the upstream with what the gate says, and with nothing that somebody else made up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};
use tollgate::proto::v1::CheckRequest;
use tollgate::proto::v1::check_request::License;

use super::Scene;
use crate::gate::{eventually, is_allowed};

/// A license with a tier, a duty and a quota.
fn rich(scene: &Scene) -> String {
    let issuer = &scene.gate.site().issuer;
    let mut claims = issuer.claims("license-1");
    claims["terms"]["tier"] = json!("gold");
    claims["terms"]["duties"] =
        json!([{ "id": "cite", "type": "attribute", "properties": { "text": "Quelle: é" } }]);
    let quota = json!({ "id": "daily", "metric": "requests", "limit": 3, "per": "license", "window": "day" });
    claims["terms"]["quotas"] = json!([quota]);
    issuer.sign(&claims)
}

#[tokio::test]
async fn an_allow_carries_the_license_s_words_and_not_its_token() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let authorization = format!("authorization: License {}", rich(&scene));
    let lines = [
        authorization.as_str(),
        "x-purpose: ScientificResearch",
        "x-license-id: forged",
        "X-License-Extra: 1",
    ];
    let answer = scene.read("sales/eu/orders?page=2", &lines).await;
    assert_eq!(answer.status, 200, "{answer:?} {}", scene.gate.stderr.text());
    assert_eq!(answer.json()["path"], "/v1/datasets/sales/eu/orders?page=2");
    assert_eq!(answer.passed("x-license-id"), ["license-1"]);
    assert_eq!(answer.passed("x-license-tier"), ["gold"]);
    let duties: Value = serde_json::from_str(&answer.passed("x-license-obligations")[0]).unwrap();
    assert_eq!(duties[0]["properties"]["text"], "Quelle: é");
    assert!(answer.passed("authorization").is_empty() && answer.passed("x-license-extra").is_empty());
    assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=3;w=86400");
    assert!(answer.header("ratelimit").starts_with("\"daily\";r=2;t="), "{answer:?}");

    let record = scene.record(&answer.passed("x-license-decision-id").concat()).await;
    assert_eq!(
        (&record["subject"]["id"], &record["purpose"]),
        (&json!("orders-service"), &json!("ScientificResearch"))
    );
    assert_eq!((&record["resource"], &record["region"]), (&json!("sales/eu/orders"), &json!("FR")));
    // The access log knows the decision, and nothing of the token.
    let logged = || scene.envoy.stdout.find("decision_id").unwrap_or_default();
    eventually("the request is logged", async || !logged().is_empty()).await;
    let logged: Value = serde_json::from_str(&logged()).unwrap();
    assert_eq!((&logged["decision_id"], &logged["codes"]), (&record["decision_id"], &json!([])));
}

#[tokio::test]
async fn an_allow_leaves_the_question_for_whoever_asks_again() {
    let log = [("ext_authz:codes", "ext_authz:question")];
    let Some(scene) = Scene::start("sidecar.yaml", &log, &[]).await else { return };
    let token = rich(&scene);
    let authorization = format!("authorization: License {token}");
    let lines = [authorization.as_str(), "x-purpose: ScientificResearch"];
    let answer = scene.read("sales/eu", &lines).await;
    let id = answer.passed("x-license-decision-id").concat();
    eventually("the request is logged", async || scene.envoy.stdout.find(&id).is_some()).await;
    let logged: Value = serde_json::from_str(&scene.envoy.stdout.find(&id).unwrap()).unwrap();
    let question = STANDARD.decode(logged["codes"].as_str().unwrap()).unwrap();
    let question = CheckRequest::decode(question.as_slice()).unwrap();
    assert_eq!(question.license, Some(License::Token(token)));
    let record = scene.record(&id).await;
    assert_eq!(record["request_id"], question.request_id);
    // Asked again, it is allowed again, and is not counted again: it is the same use.
    let again = scene.gate.check(question).await;
    assert_eq!((is_allowed(&again), again.quotas[0].remaining), (true, 2.0), "{again:?}");
}

#[tokio::test]
async fn each_request_counts_once_and_the_last_is_told_when_to_come_back() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let authorization = format!("authorization: License {}", rich(&scene));
    let lines = [authorization.as_str(), "x-purpose: ScientificResearch"];
    for left in [2, 1, 0] {
        let answer = scene.read("sales/eu", &lines).await;
        assert!(answer.header("ratelimit").starts_with(&format!("\"daily\";r={left};")), "{answer:?}");
    }
    let answer = scene.read("sales/eu", &lines).await;
    assert_eq!((answer.status, answer.codes()), (429, vec!["QUOTA_EXCEEDED".to_owned()]));
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&seconds), "{answer:?}");
    assert!(answer.header("ratelimit").starts_with("\"daily\";r=0;t="), "{answer:?}");
    assert_eq!(answer.json()["violated-policies"], json!(["daily"]));
    assert_eq!(scene.upstream.asked(), 3);
}

#[tokio::test]
async fn a_forged_word_goes_nowhere_even_where_envoy_lets_it_in() {
    let careless = [("prefix: x-license-", "prefix: x-other-")];
    let Some(scene) = Scene::start("sidecar.yaml", &careless, &[("envoy.keep_license", "true")]).await else {
        return;
    };
    let authorization = format!("authorization: License {}", scene.license());
    let forged = ["x-license-id: a", "x-license-id: b", "x-license-tier: gold", "x-license-obligations: []"];
    let lines = [&[authorization.as_str(), "x-purpose: ScientificResearch"][..], &forged].concat();
    let answer = scene.read("sales/eu", &lines).await;
    assert_eq!(answer.passed("x-license-id"), ["license-1"]);
    assert_eq!(answer.passed("x-license-decision-id").len(), 1);
    assert!(answer.passed("x-license-tier").is_empty() && answer.passed("x-license-obligations").is_empty());
    assert_eq!(answer.passed("authorization"), [authorization.trim_start_matches("authorization: ")]);
}

#[tokio::test]
async fn large_headers_and_large_duties_pass_or_fail_closed() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let issuer = &scene.gate.site().issuer;
    let with_duty = |bytes: usize, filler: &str| {
        let mut claims = issuer.claims("license-1");
        let text = filler.repeat(bytes);
        claims["terms"]["duties"] =
            json!([{ "id": "cite", "type": "attribute", "properties": { "text": text } }]);
        format!("authorization: License {}", issuer.sign(&claims))
    };
    let noise = format!("x-noise: {}", "n".repeat(20_000));
    let license = with_duty(8_000, "x");
    let lines = [license.as_str(), noise.as_str(), "x-purpose: ScientificResearch"];
    let answer = scene.read("sales/eu", &lines).await;
    assert!(answer.passed("x-license-obligations")[0].len() > 8_000);
    // As escapes they are six times as long, and no header holds them: no duty is dropped to let data pass.
    let license = with_duty(2_800, "é\u{e8}");
    let answer = scene.read("sales/eu", &[license.as_str(), "x-purpose: ScientificResearch"]).await;
    assert_eq!((answer.status, scene.upstream.asked()), (503, 1), "{answer:?}");
}

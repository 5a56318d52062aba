//! Paths with two readings are denied, whether or not Envoy makes one of them first.

use super::Scene;

/// Paths that some server reads as `/v1/datasets/sales/eu` or as something beside it.
const TRICKS: [&str; 14] = [
    "/v1/datasets/hr/../sales/eu",
    "/v1/datasets/./sales/eu",
    "//v1/datasets/sales/eu",
    "/v1//datasets/sales/eu",
    "/v1/datasets/sales/eu/",
    "/v1/datasets/sales%2feu",
    "/v1/datasets/sales%5Ceu",
    "/v1/datasets/hr/%2e%2e/sales/eu",
    "/v1/datasets/sales/eu;x=1",
    "/v1/datasets/sales;/eu",
    "/v1/datasets/sales/eu%3bx",
    "/v1/datasets/sales/eu%0a",
    "/v1/datasets/sales/eu%",
    "/v1/datasets/sales/eu%ff",
];

#[tokio::test]
async fn the_gate_alone_refuses_every_trick() {
    let as_sent = [
        ("normalize_path: true", "normalize_path: false"),
        ("merge_slashes: true", "merge_slashes: false"),
        (
            "path_with_escaped_slashes_action: REJECT_REQUEST",
            "path_with_escaped_slashes_action: KEEP_UNCHANGED",
        ),
    ];
    let Some(scene) = Scene::start("sidecar.yaml", &as_sent, &[]).await else { return };
    let license = format!("authorization: License {}", scene.license());
    let lines = [license.as_str(), "x-purpose: ScientificResearch"];
    for path in TRICKS {
        let answer = scene.send("GET", path, &lines).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.json()["reasons"].to_string().contains("`path`"), "{path}: {answer:?}");
    }
    for (method, path) in
        [("GET", "/"), ("GET", "/v1/datasets"), ("DELETE", "/v1/datasets/sales/eu"), ("GET", "/v2")]
    {
        assert_eq!(scene.send(method, path, &lines).await.status, 400, "{method} {path}");
    }
    assert_eq!(scene.upstream.asked(), 0);
    for path in ["/v1/datasets/sales/eu?x=/../../hr", "/v1/datasets/%73ales/eu"] {
        assert_eq!(scene.send("GET", path, &lines).await.status, 200, "{path}");
    }
    assert_eq!(scene.send("GET", "/v1/datasets/%68r", &lines).await.codes(), ["DATASET_NOT_LICENSED"]);
}

#[tokio::test]
async fn what_envoy_normalizes_is_decided_and_served_as_the_same() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let license = format!("authorization: License {}", scene.license());
    let lines = [license.as_str(), "x-purpose: ScientificResearch"];
    for path in TRICKS {
        let answer = scene.send("GET", path, &lines).await;
        match answer.status {
            200 => assert_eq!(answer.json()["path"], "/v1/datasets/sales/eu", "{path}"),
            status => assert_eq!(status, 400, "{path}: {answer:?}"),
        }
    }
    let answer = scene.send("GET", "/v1/datasets/sales/eu/../../hr", &lines).await;
    assert_eq!(answer.codes(), ["DATASET_NOT_LICENSED"]);
}

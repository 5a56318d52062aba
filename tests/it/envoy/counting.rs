//! What a license limits is counted while it passes, to the byte, and what is not limited passes untouched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::proto::v1::GetUsageRequest;

use super::Scene;
use super::download::{Download, Over};
use super::upstream::Course;
use crate::gate::eventually;
use crate::operators::{Admin, OVERRIDES};

/// More than any quota here.
const LONG: Course = Course { chunks: 300, bytes: 65_536, pause: 0 };

fn quota(metric: &str, limit: u64) -> Value {
    json!({ "id": metric, "metric": metric, "limit": limit, "per": "license", "window": "total" })
}

/// A license with these quotas.
fn limited(scene: &Scene, id: &str, quotas: &[Value]) -> String {
    let mut claims = scene.gate.site().issuer.claims(id);
    claims["terms"]["quotas"] = json!(quotas);
    claims["terms"]["actions"] = json!(["read", "query"]);
    scene.gate.site().issuer.sign(&claims)
}

/// What was used of a metric under a license, once it is this much.
async fn used(scene: &Scene, id: &str, metric: &str, amount: f64) {
    let mut admin = Admin::of(&scene.gate).await;
    let request =
        GetUsageRequest { license_id: id.into(), metric: metric.into(), ..GetUsageRequest::default() };
    let what = format!("{amount} {metric} of {id} are used");
    eventually(&what, async || {
        let rows = admin.usage(request.clone()).await;
        rows.iter().map(|row| row.amount).sum::<f64>() == amount
    })
    .await;
}

#[tokio::test]
async fn a_quota_of_bytes_is_delivered_to_the_byte_and_not_one_more() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    for (over, limit) in [(Over::Http1, 1_000_003), (Over::Http2, 700_001)] {
        let id = format!("{over:?}");
        // The one request that it allows is taken when it begins, and has no say in what follows.
        let token = limited(&scene, &id, &[quota("bytes", limit), quota("requests", 1)]);
        let ended = scene.download(over, &token, LONG).await.rest().await;
        assert_eq!((ended.whole, ended.received as u64), (false, limit), "{ended:?}");
        used(&scene, &id, "bytes", limit as f64).await;
        let denied = scene.download(over, &token, LONG).await;
        assert_eq!(denied.response.status(), 429, "{:?}", denied.response);
    }
    scene.envoy.logged("tollgate_quota_exceeded").await;
    // What fits passes whole.
    let token = limited(&scene, "fits", &[quota("bytes", 100)]);
    let ended =
        scene.download(Over::Http1, &token, Course { chunks: 4, bytes: 25, pause: 1 }).await.rest().await;
    assert_eq!((ended.whole, ended.received), (true, 100), "{ended:?}");
}

#[tokio::test]
async fn many_at_once_share_a_quota_and_get_all_of_it() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let token = limited(&scene, "shared", &[quota("bytes", 5_000_011)]);
    let scene = &Arc::new(scene);
    let mut downloads = JoinSet::new();
    for _ in 0..8 {
        let (scene, token) = (Arc::clone(scene), token.clone());
        downloads.spawn(async move { scene.download(Over::Http2, &token, LONG).await.rest().await });
    }
    let ended = downloads.join_all().await;
    assert!(ended.iter().all(|ended| !ended.whole));
    let received: usize = ended.iter().map(|ended| ended.received).sum();
    assert!(received <= 5_000_011, "{received}");
    // Some may have been on its way to a client whose stream was reset; what was taken is exact.
    assert!(received > 4_900_000, "{received}");
    used(scene, "shared", "bytes", 5_000_011.0).await;
}

#[tokio::test]
async fn messages_of_grpc_are_counted() {
    let Some(scene) = Scene::start("grpc.yaml", &[], OVERRIDES).await else { return };
    let token = limited(&scene, "messages", &[quota("messages", 7)]);
    let authorization = format!("License {token}");
    let headers =
        [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", authorization.as_str())];
    let path = format!("/prices.v1.Prices/Watch?{}", Course { chunks: 50, bytes: 100, pause: 2 }.query());
    let ended = Download::begin(scene.envoy.data, Over::Http2, &path, &headers).await.rest().await;
    assert_eq!((ended.whole, ended.received), (false, 7 * 105), "{ended:?}");
    used(&scene, "messages", "messages", 7.0).await;
    used(&scene, "messages", "bytes", 735.0).await;
}

#[tokio::test]
async fn what_a_client_does_not_wait_for_is_not_used() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let token = limited(&scene, "leaves", &[quota("bytes", 100_000_000)]);
    let course = Course { chunks: 10_000, bytes: 1_000, pause: 5 };
    let mut download = scene.download(Over::Http2, &token, course).await;
    for _ in 0..10 {
        download.next().await.unwrap();
    }
    let received = download.received;
    drop(download);
    scene.watched(0).await;
    let mut admin = Admin::of(&scene.gate).await;
    let request =
        GetUsageRequest { license_id: "leaves".into(), metric: "bytes".into(), ..GetUsageRequest::default() };
    let mut amount = async || {
        let rows = admin.usage(request.clone()).await;
        rows.iter().map(|row| row.amount).sum::<f64>()
    };
    eventually("what it read is used", async || amount().await >= received as f64).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let used = amount().await;
    assert!(used < received as f64 + 100_000.0, "{used} for {received}");
}

#[tokio::test]
async fn of_a_counted_response_not_a_byte_passes_that_was_not_taken_before_it_was_cut() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let token = limited(&scene, "cut", &[quota("bytes", 100_000_000)]);
    let mut download =
        scene.download(Over::Http1, &token, Course { chunks: 100_000, bytes: 333, pause: 1 }).await;
    for _ in 0..20 {
        download.next().await.unwrap();
    }
    admin.revoke("cut").await;
    let ended = download.rest().await;
    assert!(!ended.whole, "{ended:?}");
    used(&scene, "cut", "bytes", ended.received as f64).await;
}

#[tokio::test]
async fn a_slow_reader_is_counted_and_cut_like_any_other() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let token = limited(&scene, "slow", &[quota("bytes", 3_000_000)]);
    let mut download = scene.download(Over::Http1, &token, LONG).await;
    download.next().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ended = download.rest().await;
    assert_eq!((ended.whole, ended.received), (false, 3_000_000), "{ended:?}");
    used(&scene, "slow", "bytes", 3_000_000.0).await;
}

#[tokio::test]
async fn what_is_not_limited_passes_as_it_is() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let course = Course { chunks: 1_600, bytes: 65_536, pause: 0 };
    let token = scene.license();
    let download = scene.download(Over::Http1, &token, course).await;
    let ended = download.rest().await;
    assert_eq!((ended.whole, ended.received), (true, 1_600 * 65_536), "{ended:?}");
    scene.watched(0).await;
    // Nor is it handed over where nobody is to count.
    let authorization = format!("authorization: License {token}");
    let text = scene.read("sales/eu", &[&authorization, "x-purpose: ScientificResearch"]).await;
    assert_eq!(text.header("transfer-encoding"), "", "its length is told");
}

#[tokio::test]
async fn what_envoy_only_shows_is_counted_without_delay_and_cut_a_little_late() {
    let shown = [
        (
            "              processing_mode:\n",
            "              observability_mode: true\n              deferred_close_timeout: 0.2s\n              processing_mode:\n",
        ),
        ("                response_body_mode: NONE\n", "                response_body_mode: STREAMED\n"),
        ("              allow_mode_override: true\n", "              allow_mode_override: false\n"),
    ];
    let Some(scene) = Scene::start("sidecar.yaml", &shown, OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let token = limited(&scene, "shown", &[quota("bytes", 1_000_000)]);
    let ended = scene
        .download(Over::Http1, &token, Course { chunks: 400, bytes: 10_000, pause: 5 })
        .await
        .rest()
        .await;
    let log = scene.envoy.stdout.text();
    assert!(!ended.whole && ended.received >= 1_000_000 && ended.received < 3_000_000, "{ended:?} {log}");
    used(&scene, "shown", "bytes", 1_000_000.0).await;
    // Usage is counted where nothing is limited too.
    let token = scene.license();
    let ended = scene
        .download(Over::Http2, &token, Course { chunks: 10, bytes: 10_000, pause: 5 })
        .await
        .rest()
        .await;
    assert!(ended.whole, "{ended:?}");
    used(&scene, "license-1", "bytes", 100_000.0).await;
    let mut revoked =
        scene.download(Over::Http2, &token, Course { chunks: 10_000, bytes: 100, pause: 5 }).await;
    revoked.next().await.unwrap();
    let since = Instant::now();
    admin.revoke("license-1").await;
    let ended = revoked.rest().await;
    assert!(!ended.whole && ended.at - since < Duration::from_secs(2), "{ended:?}");
}

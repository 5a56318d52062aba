//! What becomes of responses when their gate leaves, when it was never told of them, and when there are many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Scene;
use super::download::{Download, Over};
use super::upstream::Course;
use crate::gate::within;
use crate::operators::{Admin, OVERRIDES};

const ENDLESS: Course = Course { chunks: 100_000, bytes: 100, pause: 20 };

/// How long a gate waits here for what is under way.
const GRACE: &str = "2s";

async fn reads(download: &mut Download, chunks: usize) {
    for _ in 0..chunks {
        assert!(download.next().await.is_some(), "it ended");
    }
}

#[tokio::test]
async fn a_gate_that_dies_takes_its_responses_with_it() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], &[]).await else { return };
    let token = scene.license();
    let (mut one, mut two) = (
        scene.download(Over::Http1, &token, ENDLESS).await,
        scene.download(Over::Http2, &token, ENDLESS).await,
    );
    reads(&mut one, 3).await;
    reads(&mut two, 3).await;
    scene.gate.signal("KILL");
    assert!(!one.rest().await.whole && !two.rest().await.whole);
    let refused = scene.download(Over::Http1, &token, ENDLESS).await;
    assert_eq!(refused.response.status(), 503);
}

#[tokio::test]
async fn a_gate_that_leaves_waits_for_its_responses_and_then_does_as_it_is_told() {
    for (unfinished, goes_on) in [("cut", false), ("release", true)] {
        let overrides = [("envoy.unfinished", unfinished), ("shutdown.grace", GRACE)];
        let Some(scene) = Scene::start("sidecar.yaml", &[], &overrides).await else { return };
        let mut download = scene.download(Over::Http2, &scene.license(), ENDLESS).await;
        reads(&mut download, 3).await;
        let short = scene.download(Over::Http2, &scene.license(), Course { chunks: 40, ..ENDLESS }).await;
        scene.gate.signal("TERM");
        assert!(short.rest().await.whole, "what ends within the grace ends by itself");
        let Scene { gate, envoy: _envoy, upstream: _upstream } = scene;
        let ended = gate.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        if goes_on {
            reads(&mut download, 30).await;
        } else {
            assert!(!download.rest().await.whole);
        }
    }
}

#[tokio::test]
async fn without_a_question_nothing_passes() {
    for (changes, overrides) in [
        (&[][..], &[("envoy.kill_switch", "false")][..]),
        (&[("untyped: [envoy.filters.http.ext_authz]", "untyped: [other]")][..], &[][..]),
    ] {
        let Some(scene) = Scene::start("sidecar.yaml", changes, overrides).await else { return };
        let download = scene.download(Over::Http1, &scene.license(), ENDLESS).await;
        assert_eq!(download.response.status(), 500);
        assert_eq!(scene.upstream.asked(), 0);
    }
}

#[tokio::test]
async fn a_denial_passes_where_envoy_hands_over_what_it_made_up_itself() {
    let shows = [(
        "response_header_mode: SKIP\n                request_body_mode: NONE\n                response_body_mode: NONE",
        "response_header_mode: SEND\n                request_body_mode: NONE\n                response_body_mode: NONE",
    )];
    let Some(scene) = Scene::start("sidecar.yaml", &shows, &[]).await else { return };
    let denied = scene.download(Over::Http1, "nonsense", ENDLESS).await;
    assert_eq!(denied.response.status(), 401, "{:?}", denied.response);
    assert!(denied.text().await.contains("LICENSE_MALFORMED"));
    let short = Course { chunks: 3, ..ENDLESS };
    assert!(scene.download(Over::Http2, &scene.license(), short).await.rest().await.whole);
}

#[tokio::test]
async fn more_than_a_thousand_responses_at_once_are_watched_over_and_cut() {
    const RESPONSES: usize = 1_100;
    // Envoy lets no more than 1,024 through to the app either, unless it is told otherwise.
    let many = [(
        "  - name: app\n",
        "  - name: app\n    circuit_breakers: {thresholds: [{max_connections: 2000, max_requests: 2000, max_pending_requests: 2000}]}\n",
    )];
    let Some(scene) = Scene::start("sidecar.yaml", &many, OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let scene = Arc::new(scene);
    let slow = Course { chunks: 10_000, bytes: 10, pause: 500 };
    let begun = Arc::<AtomicUsize>::default();
    let mut downloads = JoinSet::new();
    for _ in 0..RESPONSES {
        let (scene, begun) = (Arc::clone(&scene), Arc::clone(&begun));
        downloads.spawn(async move {
            let mut download = scene.download(Over::Http1, &scene.license(), slow).await;
            assert_eq!(download.response.status(), 200);
            reads(&mut download, 1).await;
            begun.fetch_add(1, Ordering::Relaxed);
            download.rest().await
        });
    }
    let all = async || begun.load(Ordering::Relaxed) == RESPONSES;
    within(Duration::from_secs(60), "all have begun", all).await;
    assert_eq!(scene.gate.metric("tollgate_streams", &[]), RESPONSES as f64);
    let since = Instant::now();
    admin.revoke("license-1").await;
    let ended = downloads.join_all().await;
    let last = ended.iter().map(|ended| ended.at).max().unwrap() - since;
    assert!(ended.iter().all(|ended| !ended.whole));
    assert!(last < Duration::from_secs(10), "the last ended after {last:?}");
}

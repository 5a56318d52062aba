//! A response that is under way is cut the moment it may not go on, over whatever it runs.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;

use super::download::{Download, Ended, Over};
use super::upstream::{Course, LATE};
use super::{Envoy, Scene};
use crate::gate::{eventually, now};
use crate::operators::{Admin, OVERRIDES};

/// A response that has no end of its own here.
const ENDLESS: Course = Course { chunks: 100_000, bytes: 100, pause: 5 };

/// From the revocation to the last byte, in a debug build beside others. The bench has the true figure.
const AT_ONCE: Duration = Duration::from_secs(2);

impl Scene {
    /// The headers of a request under a license.
    pub(crate) fn headers(token: &str) -> [(String, String); 2] {
        [
            ("authorization".to_owned(), format!("License {token}")),
            ("x-purpose".to_owned(), "ScientificResearch".to_owned()),
        ]
    }

    /// A response that runs.
    pub(crate) async fn download(&self, over: Over, token: &str, course: Course) -> Download {
        self.download_with(over, token, course, &[]).await
    }

    pub(crate) async fn download_with(
        &self,
        over: Over,
        token: &str,
        course: Course,
        headers: &[(&str, &str)],
    ) -> Download {
        let own = Self::headers(token);
        let own = own.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        let path = format!("/v1/datasets/sales/eu?{}", course.query());
        Download::begin(self.envoy.data, over, &path, &[&own[..], headers].concat()).await
    }

    /// Waits until this many responses are watched over.
    pub(crate) async fn watched(&self, responses: usize) {
        let count = responses as f64;
        let watched = async || self.gate.metric("tollgate_streams", &[]) == count;
        eventually("the gate watches over the responses", watched).await;
    }
}

impl Envoy {
    /// Waits for the line of the access log whose details say this.
    pub(crate) async fn logged(&self, details: &str) {
        let words = format!("\"details\":\"{details}\"");
        eventually(&words, async || self.stdout.find(&words).is_some()).await;
    }
}

/// Reads some of a response, so that it is known to be under way.
async fn under_way(download: &mut Download) {
    assert_eq!(download.response.status(), 200, "{:?}", download.response);
    for _ in 0..3 {
        assert!(download.next().await.is_some(), "it ended");
    }
}

fn cut(ended: &Ended, since: Instant) {
    assert!(!ended.whole, "{ended:?}");
    assert!(ended.at - since < AT_ONCE, "{:?}", ended.at - since);
}

#[tokio::test]
async fn a_revocation_cuts_the_responses_that_it_concerns_and_no_other() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let token = |id: &str| scene.gate.site().issuer.license(id);
    for over in [Over::Http1, Over::Http2] {
        let (one, other) = (format!("{over:?}-1"), format!("{over:?}-2"));
        let mut revoked = scene.download(over, &token(&one), ENDLESS).await;
        let mut lives = scene.download(over, &token(&other), ENDLESS).await;
        under_way(&mut revoked).await;
        under_way(&mut lives).await;
        let since = Instant::now();
        admin.revoke(&one).await;
        cut(&revoked.rest().await, since);
        scene.envoy.logged("tollgate_revoked").await;
        under_way(&mut lives).await;
        let since = Instant::now();
        admin.suspend(&other).await;
        cut(&lives.rest().await, since);
        scene.envoy.logged("tollgate_suspended").await;
    }
    scene.watched(0).await;
    let records = scene.gate.site().records();
    let denials: Vec<_> = records.iter().filter(|record| record["decision"] == "deny").collect();
    assert_eq!(denials.len(), 4, "what ended each left a record, and nothing else did");
    for denial in denials {
        let allowed = records
            .iter()
            .find(|record| record["decision"] == "allow" && record["request_id"] == denial["request_id"]);
        assert!(allowed.is_some(), "the end belongs to its beginning: {denial}");
    }
}

#[tokio::test]
async fn whatever_denies_it_now_ends_it() {
    let overrides = [OVERRIDES, &[("policies.directory", "policies")]].concat();
    let Some(program) = super::program() else { return };
    let site = super::site();
    site.write("policies/none.cedar", "// None yet.\n");
    let gate =
        super::start_gate(site, &[&[("listeners.decisions.unix", "gate.sock")], &overrides[..]].concat());
    let scene = Scene::around(program, gate, "sidecar.yaml", &[], &[]).await;
    let mut claims = scene.gate.site().issuer.claims("short");
    claims["exp"] = json!(now() + 3);
    let mut expires = scene.download(Over::Http2, &scene.gate.site().issuer.sign(&claims), ENDLESS).await;
    under_way(&mut expires).await;
    cut(&expires.rest().await, Instant::now());
    scene.envoy.logged("tollgate_expired").await;
    let mut forbidden = scene.download(Over::Http2, &scene.license(), ENDLESS).await;
    under_way(&mut forbidden).await;
    let words = "@reason(\"Closed.\") @admin(\"closed\") @passes(\"it opens\")";
    let policy = format!("@id(\"house/closed\") {words} forbid (principal, action, resource);");
    scene.gate.site().write("policies/none.cedar", &policy);
    assert!(!forbidden.rest().await.whole);
    scene.envoy.logged("tollgate_policy_forbids").await;
}

#[tokio::test]
async fn a_response_that_has_not_begun_is_a_denial() {
    let Some(scene) = Scene::start("sidecar.yaml", &[], OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let token = scene.license();
    let waiting = async {
        let download = scene.download_with(Over::Http1, &token, ENDLESS, &[(LATE, "1")]).await;
        (download.response.status().as_u16(), download.response.headers().clone(), download.text().await)
    };
    let (answer, ()) = tokio::join!(waiting, async {
        scene.watched(1).await;
        admin.revoke("license-1").await;
    });
    let (status, headers, body) = answer;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    assert_eq!((status, &body["codes"]), (401, &json!(["REVOKED"])), "{headers:?}");
    assert_eq!(headers["content-type"], "application/problem+json", "{headers:?}");
    assert_eq!(headers["x-license-decision-id"], body["decision_id"].as_str().unwrap());
}

#[tokio::test]
async fn a_stream_of_grpc_is_cut_and_one_that_may_go_on_ends_with_its_own_status() {
    let Some(scene) = Scene::start("grpc.yaml", &[], OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    let authorization = [("authorization", format!("License {}", query_license(&scene)))];
    let authorization = authorization.each_ref().map(|(name, value)| (*name, value.as_str()));
    let headers = [&headers[..], &authorization].concat();
    let path = |course: Course| format!("/prices.v1.Prices/Watch?{}", course.query());
    let short = path(Course { chunks: 3, bytes: 10, pause: 5 });
    let whole = Download::begin(scene.envoy.data, Over::Http2, &short, &headers).await.rest().await;
    assert_eq!((whole.received, whole.trailers["grpc-status"].to_str().unwrap()), (45, "0"), "{whole:?}");
    let mut stream = Download::begin(scene.envoy.data, Over::Http2, &path(ENDLESS), &headers).await;
    under_way(&mut stream).await;
    let since = Instant::now();
    admin.revoke("license-1").await;
    let ended = stream.rest().await;
    cut(&ended, since);
    assert!(ended.trailers.is_empty(), "{ended:?}");
    let refused = Download::begin(scene.envoy.data, Over::Http2, &short, &headers).await;
    assert_eq!(refused.response.headers()["grpc-status"], "16", "{:?}", refused.response);
}

/// A license to query.
fn query_license(scene: &Scene) -> String {
    let mut claims = scene.gate.site().issuer.claims("license-1");
    claims["terms"]["actions"] = json!(["query"]);
    scene.gate.site().issuer.sign(&claims)
}

#[tokio::test]
async fn a_websocket_is_cut() {
    let upgrade = [(
        "          stat_prefix: data\n",
        "          stat_prefix: data\n          upgrade_configs: [{upgrade_type: websocket}]\n",
    )];
    let Some(scene) = Scene::start("sidecar.yaml", &upgrade, OVERRIDES).await else { return };
    let mut admin = Admin::of(&scene.gate).await;
    let headers = [("connection", "upgrade"), ("upgrade", "websocket")];
    let mut download = scene.download_with(Over::Http1, &scene.license(), ENDLESS, &headers).await;
    assert_eq!(download.response.status(), 101);
    let mut socket = hyper_util::rt::TokioIo::new(hyper::upgrade::on(&mut download.response).await.unwrap());
    let mut bytes = [0; 300];
    socket.read_exact(&mut bytes).await.unwrap();
    let since = Instant::now();
    admin.revoke("license-1").await;
    let mut rest = Vec::new();
    // The end may come as a reset.
    let _ = socket.read_to_end(&mut rest).await;
    assert!(since.elapsed() < AT_ONCE && rest.len() < 100_000, "{:?}, {}", since.elapsed(), rest.len());
}

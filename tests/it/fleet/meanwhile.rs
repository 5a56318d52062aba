//! What is revoked while a question waits for the database is not allowed when that answers.

use std::process::Child;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tollgate::domain::Clock;
use tollgate::domain::time::Timestamp;
use tollgate::proto::v1::check_request::License;
use tollgate::proto::v1::{CheckRequest, GetUsageRequest};

use super::{admin, gates, is_denied_with, metered};
use crate::gate::{Site, ask, is_allowed};
use crate::postgres::Server;
use crate::streams::Use;

/// Keeps everybody from a table for a while.
async fn lock(server: &Server, database: &str, table: &str) -> Child {
    let statements =
        format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1.5); COMMIT");
    let held = server.hold(database, &statements);
    sleep(Duration::from_millis(500)).await;
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_quota_or_an_acceptance_is_asked_about_again() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let gates = gates(&server, &database, 1, &[]);
    let (mut admin, mut client) = (admin(&gates[0]).await, gates[0].client().await);
    let site = Site::new();
    let mut accepted = site.issuer.claims("accepted");
    accepted["terms"]["acceptance"] = json!({"terms_hash": "sha256:abc"});
    admin.accept("accepted", "sha256:abc").await;
    let quotas = json!([{"id": "q", "metric": "rows", "limit": 1000, "per": "license", "window": "day"}]);
    for (id, token, table) in [
        ("accepted", site.issuer.sign(&accepted), "tollgate_acceptance"),
        ("metered", metered("metered", quotas.clone()), "tollgate_quota"),
    ] {
        let mut held = lock(&server, &database, table).await;
        let (gate, question) = (gates[0].client().await, ask(&token));
        let waiting = tokio::spawn(async move { gate.clone().check(question).await.unwrap().into_inner() });
        sleep(Duration::from_millis(200)).await;
        admin.revoke(id).await;
        assert!(!waiting.is_finished(), "it waits for {table}");
        assert!(is_denied_with(&waiting.await.unwrap(), "REVOKED"), "{id}");
        held.wait().unwrap();
    }

    let (mut stream, opened) = Use::open(&mut client, ask(&metered("stream", quotas))).await;
    assert!(is_allowed(&opened));
    let mut held = lock(&server, &database, "tollgate_quota").await;
    stream.report("rows", 500.0).await;
    sleep(Duration::from_millis(200)).await;
    admin.revoke("stream").await;
    let ended = stream.ended().await;
    assert_eq!(ended.reasons[0].code, "REVOKED", "{ended:?}");
    held.wait().unwrap();
    // What nobody was told to use is not used.
    sleep(Duration::from_millis(600)).await;
    let rows = admin.usage(GetUsageRequest { metric: "rows".to_owned(), ..Default::default() }).await;
    assert!(rows.iter().all(|row| row.license_id != "stream"), "{rows:?}");
}

/// Claims of a license that ends in two or three seconds, and the moment a second before.
fn short(site: &Site, id: &str) -> (Value, Instant) {
    let mut claims = site.issuer.claims(id);
    let now = Clock::system().now();
    let end = now.as_second() + 3;
    claims["exp"] = json!(end);
    let left = Timestamp::from_second(end - 1).unwrap().duration_since(now);
    (claims, Instant::now() + Duration::try_from(left).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_beyond_the_end_of_its_license_is_not_allowed() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let gates = gates(&server, &database, 2, &[]);
    let site = Site::new();
    let mut client = gates[0].client().await;

    let (mut claims, before) = short(&site, "reported");
    claims["terms"]["quotas"] =
        json!([{"id": "q", "metric": "rows", "limit": 1000, "per": "license", "window": "day"}]);
    let (mut stream, opened) = Use::open(&mut client, ask(&site.issuer.sign(&claims))).await;
    assert!(is_allowed(&opened), "{opened:?}");
    sleep_until(before).await;
    let mut held = lock(&server, &database, "tollgate_quota").await;
    // Half a second before its end, and answered half a second after it.
    stream.report("rows", 500.0).await;
    let ended = stream.ended().await;
    assert_eq!(ended.reasons[0].code, "EXPIRED", "{ended:?}");
    held.wait().unwrap();

    let (claims, before) = short(&site, "registered");
    admin(&gates[1]).await.register(&site.issuer.sign(&claims)).await.unwrap();
    sleep_until(before).await;
    let mut held = lock(&server, &database, "tollgate_license").await;
    let by_id = CheckRequest { license: Some(License::LicenseId("registered".into())), ..ask("") };
    let answer = client.check(by_id).await.unwrap().into_inner();
    assert!(is_denied_with(&answer, "EXPIRED"), "{answer:?}");
    held.wait().unwrap();
}

//! The laws of the state, in a hub: a gate of its own process over an embedded store, asked over gRPC.
//! What is swept is swept by the hub; those laws are tried on one over PostgreSQL, where the test can do it.

use std::sync::Arc;
use std::time::Duration;

use tollgate::config::Hubs;
use tollgate::domain::standing::Status;
use tollgate::store::hub::HubStore;
use tollgate::store::{LicenseFilter, StateStore, StoreError};

use super::conformance::{Fresh, at, change, license, take, target};
use super::postgres;
use crate::gate::{Gate, Site, eventually};
use crate::postgres::server;

/// A hub that serves everybody.
const OPEN: [(&str, &str); 2] = [("listeners.hub.tcp", "127.0.0.1:0"), ("listeners.hub.insecure", "true")];

pub(crate) fn hubs(addresses: Vec<String>) -> Hubs {
    let timeout = "3s".parse().unwrap();
    Hubs { addresses, ca: None, certificate: None, key: None, timeout, insecure: false }
}

async fn fresh() -> Fresh {
    let hub = Gate::start(&OPEN);
    let store = HubStore::open(&hubs(vec![format!("http://{}", hub.hub)])).unwrap();
    Fresh::new(Arc::new(store), hub)
}

async fn over_postgres() -> Option<Fresh> {
    let server = server()?;
    let database = server.database();
    let keeper = postgres::open(server, &database).await;
    let url = server.config(&database).url;
    let hub = Gate::start(&[OPEN[0], OPEN[1], ("state.store", "postgres"), ("state.postgres.url", &url)]);
    let store = HubStore::open(&hubs(vec![format!("http://{}", hub.hub)])).unwrap();
    Some(Fresh { store: Arc::new(store), keeper, beside: Box::new(hub) })
}

conformance!(fresh, over_postgres);

#[tokio::test]
async fn a_hub_that_is_not_there_is_said_to_be_so_at_once() {
    let nowhere = hubs(vec!["http://127.0.0.1:1".to_owned(), "unix:/nowhere/hub.sock".to_owned()]);
    let store = HubStore::open(&nowhere).unwrap();
    let error = store.license("one").await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(words) if words.contains("127.0.0.1:1")), "{error}");
    let begun = std::time::Instant::now();
    assert!(store.take(&take(1)).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(1), "it was known before");
    let unreadable =
        Hubs { ca: Some("/nowhere/ca.pem".into()), ..hubs(vec!["https://localhost".to_owned()]) };
    let error = HubStore::open(&unreadable).unwrap_err();
    assert!(matches!(&error, StoreError::Unusable(words) if words.contains("/nowhere/ca.pem")), "{error}");
}

#[tokio::test]
async fn whoever_opens_the_socket_is_a_gate_and_changes_nothing() {
    let hub = Gate::start(&[("listeners.hub.unix", "hub.sock")]);
    let socket = format!("unix:{}", hub.site().path("hub.sock").display());
    let store = HubStore::open(&hubs(vec![socket])).unwrap();
    assert_eq!(store.license("one").await, Ok(None));
    assert_eq!(store.take(&take(1)).await.map(|taken| taken.granted), Ok(take(1).want));
    let refused = |error| matches!(&error, StoreError::Forbidden(words) if words.contains("operate"));
    assert!(refused(store.change(&change(target("one"), Status::Revoked)).await.unwrap_err()));
    assert!(refused(store.register(&license("one")).await.unwrap_err()));
    assert!(refused(store.licenses(&LicenseFilter::default(), "", 1).await.unwrap_err()));
    assert_eq!(store.feed(0, 1, at(0)).await.unwrap().revision, 0);
}

#[tokio::test]
async fn a_hub_is_found_again_after_it_was_away() {
    let site = Site::new();
    let socket = format!("unix:{}", site.path("hub.sock").display());
    let store = HubStore::open(&hubs(vec![socket])).unwrap();
    assert!(store.license("one").await.is_err());
    let hub = site.start(&[("listeners.hub.unix", "hub.sock")]);
    eventually("it is found", async || store.license("one").await.is_ok()).await;
    let epoch = store.feed(0, 1, at(0)).await.unwrap().epoch;
    let site = hub.stop().await.site;
    eventually("it is missed", async || store.license("one").await.is_err()).await;
    let _hub = site.start(&[("listeners.hub.unix", "hub.sock")]);
    tokio::time::timeout(Duration::from_secs(10), async {
        while store.license("one").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it is found again");
    assert_eq!(store.feed(0, 1, at(0)).await.unwrap().epoch, epoch);
}

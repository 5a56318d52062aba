//! Gates that are cut off from their database, and a database that is not what it was.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use tollgate::proto::v1::WatchLicensesRequest;
use tonic::Code;

use super::{admin, gates, is_denied_with};
use crate::gate::{PATIENCE, Site, ask, eventually, is_allowed, within};
use crate::postgres::Server;
use crate::streams::Use;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_cut_off_from_its_state_denies_in_time() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let gates = gates(&server, &database, 2, &[("state.max_staleness", "2s")]);
    let token = Site::new().issuer.license("license-1");
    let (mut streams, mut watches) = (Vec::new(), Vec::new());
    for gate in &gates {
        let watch = admin(gate).await.0.watch_licenses(WatchLicensesRequest::default()).await;
        watches.push(watch.unwrap().into_inner());
        let (stream, opened) = Use::open(&mut gate.client().await, ask(&token)).await;
        assert!(is_allowed(&opened));
        streams.push(stream);
    }
    server.freeze();
    let frozen = Instant::now();
    for gate in &gates {
        within(Duration::from_secs(5), "it denies", async || {
            is_denied_with(&gate.check(ask(&token)).await, "STATE_STALE")
        })
        .await;
        eventually("it says so", async || gate.get("/readyz").0 == 503).await;
    }
    assert!(frozen.elapsed() < Duration::from_secs(5));
    for stream in &mut streams {
        let ended = stream.ended().await;
        assert!(ended.reasons.iter().any(|reason| reason.code == "STATE_STALE"), "{ended:?}");
    }
    for watch in &mut watches {
        let ended = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it ends").unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
        assert!(ended.message().starts_with("STATE_STALE"), "{ended:?}");
    }
    server.thaw();
    for gate in &gates {
        eventually("it allows again", async || is_allowed(&gate.check(ask(&token)).await)).await;
        eventually("it is ready again", async || gate.get("/readyz").0 == 200).await;
    }
}

/// Copies a folder, as a backup does.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_restored_takes_no_revocation_back() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let gates = gates(&server, &database, 1, &[]);
    let (gate, issuer) = (&gates[0], Site::new().issuer);
    let mut admin = admin(gate).await;
    admin.revoke("before").await;
    let (data, backup) = (server.folder.join("data"), server.folder.join("backup"));
    server.kill();
    copy(&data, &backup);
    server.restart();
    eventually("it can be revoked again", async || admin.try_revoke("after").await.is_ok()).await;
    assert!(is_denied_with(&gate.check(ask(&issuer.license("after"))).await, "REVOKED"));
    server.kill();
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    server.restart();
    eventually("it is noticed", async || gate.metric("tollgate_state_restores_total", &[]) == 1.0).await;
    for id in ["before", "after"] {
        assert!(is_denied_with(&gate.check(ask(&issuer.license(id))).await, "REVOKED"), "{id}");
    }
    assert!(is_allowed(&gate.check(ask(&issuer.license("another"))).await));
    assert!(gate.stderr.find("the state went back from revision 2 to 1").is_some(), "{}", gate.stderr.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_hears_of_changes_whose_revisions_it_knew_for_others() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let gates = gates(&server, &database, 1, &[]);
    let mut admin = admin(&gates[0]).await;
    let mut watch = admin.0.watch_licenses(WatchLicensesRequest::default()).await.unwrap().into_inner();
    let mut heard = async || {
        let standing = watch.message().await.unwrap().unwrap().standing.unwrap();
        (standing.reason, standing.revision)
    };
    for (id, revision) in [("before", 1), ("after", 2)] {
        admin.revoke(id).await;
        assert_eq!(heard().await, ("a test".to_owned(), revision));
    }
    // As if it was put back to a backup, and another gate had revoked something since.
    let swap = "UPDATE tollgate_standing SET id = 'another', reason = 'other' WHERE id = 'after'";
    server.sql(&database, swap);
    let again = tokio::time::timeout(Duration::from_secs(10), async { [heard().await, heard().await] });
    assert_eq!(again.await.expect("it is told"), [("a test".to_owned(), 1), ("other".to_owned(), 2)]);
}

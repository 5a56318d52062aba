//! A database that dies, and a standby that takes its place.

use serde_json::json;
use tollgate::domain::amount::Amount;

use super::{admin, clients, gates, is_denied_with, metered, stop_all};
use crate::gate::{ask, eventually, is_allowed};
use crate::postgres::Server;

/// How much may be used.
const LIMIT: u64 = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_the_place_of_a_database_that_dies() {
    let Some(primary) = Server::start(|_| {}) else { return };
    let standby = primary.standby();
    let database = primary.database();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{database}?target_session_attrs=read-write",
        standby.port, primary.port
    );
    // The standby is named first: it does not write, so the other is taken until it does.
    let gates = gates(&primary, &database, 2, &[("state.postgres.url", &url), ("state.max_staleness", "2s")]);
    let mut admins = [admin(&gates[0]).await, admin(&gates[1]).await];
    admins[0].revoke("before").await;
    let token = metered(
        "counted",
        json!([{"id": "q", "metric": "requests", "limit": LIMIT, "per": "license", "window": "total"}]),
    );
    let mut used = 0;
    let mut clients = clients(&gates).await;
    for client in &mut clients {
        for _ in 0..50 {
            used += u64::from(is_allowed(&client.check(ask(&token)).await.unwrap().into_inner()));
        }
    }
    assert_eq!(used, 100);
    primary.kill();
    let issuer = &gates[0].site().issuer;
    eventually("without a database it is denied", async || {
        is_denied_with(&gates[0].check(ask(&issuer.license("other"))).await, "STATE_STALE")
    })
    .await;
    standby.sql("postgres", "SELECT pg_promote()");
    for (gate, admin) in gates.iter().zip(&mut admins) {
        eventually("it allows again", async || is_allowed(&gate.check(ask(&issuer.license("other"))).await))
            .await;
        eventually("it can be revoked at", async || admin.try_revoke("after").await.is_ok()).await;
    }
    for gate in &gates {
        for id in ["before", "after"] {
            let known = async || is_denied_with(&gate.check(ask(&issuer.license(id))).await, "REVOKED");
            eventually("it is revoked", known).await;
        }
        assert_eq!(
            gate.metric("tollgate_state_restores_total", &[]),
            0.0,
            "nothing that was acknowledged is missing"
        );
    }
    // All of the quota can be used, and no more.
    for _ in 0..LIMIT {
        for client in &mut clients {
            used += u64::from(is_allowed(&client.check(ask(&token)).await.unwrap().into_inner()));
        }
    }
    assert_eq!(used, LIMIT);
    stop_all(gates).await;
    let granted = standby.sql(&database, "SELECT granted FROM tollgate_quota");
    assert_eq!(granted, Amount::whole(LIMIT).millionths().to_string());
}

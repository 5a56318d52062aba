//! From an acknowledged revocation to the last allow at twenty sidecars of two hubs, one of which is killed.

use std::time::Duration;

use super::Fleet;
use crate::fleet::latency::{last_allow, told};
use crate::gate::Gate;
use crate::operators::Admin;
use crate::postgres::server;

const SIDECARS: usize = 20;
const REVOCATIONS: usize = 20;

/// A sidecar whose hub was killed learns at once that it is gone, and goes on to the other; far above that.
const BOUND: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_twenty_sidecars_while_a_hub_is_killed() {
    let Some(server) = server() else { return };
    let url = server.config(&server.database()).url;
    let fleet = Fleet::new(2);
    let over = [("state.store", "postgres"), ("state.postgres.url", url.as_str())];
    let hubs = [fleet.hub(0, &over), fleet.hub(1, &over)];
    let sidecars: [Gate; SIDECARS] = fleet.sidecars(&[]).await;
    let mut clients = Vec::new();
    for sidecar in &sidecars {
        clients.push(sidecar.client().await);
    }
    let issuer = &hubs[0].site().issuer;
    let mut admin = Admin::of(&hubs[0]).await;
    let mut latencies = Vec::new();
    for number in 0..REVOCATIONS {
        let id = format!("license-{number}");
        let revoke = async {
            if number == REVOCATIONS / 2 {
                hubs[1].signal("KILL");
            }
            admin.revoke(&id).await;
        };
        latencies.push(last_allow(&clients, &issuer.license(&id), revoke, BOUND).await);
    }
    let killed = latencies[REVOCATIONS / 2];
    eprintln!(
        "from the acknowledged revocation to the last allow at {SIDECARS} sidecars of 2 hubs: {}; while a hub was \
         killed {killed:?}",
        told(latencies)
    );
}

//! From an acknowledged revocation to the last allow anywhere.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{admin, clients, gates};
use crate::gate::{Client, PATIENCE, Site, ask, is_allowed};
use crate::postgres::server;

const GATES: usize = 5;
const REVOCATIONS: usize = 20;

/// Beyond this after the acknowledgement nothing may be sent and allowed: far above what is seen, far
/// below the half second after which a gate reads its state unasked twice.
const BOUND: Duration = Duration::from_secs(1);

/// Asks until it is denied; when the last allow came, and when the last one that was allowed was sent. Tells
/// `begun` of the first.
async fn watch(mut client: Client, token: String, begun: mpsc::Sender<()>) -> Option<(Instant, Instant)> {
    let mut last = None;
    loop {
        let sent = Instant::now();
        let answer = client.check(ask(&token)).await.unwrap().into_inner();
        if !is_allowed(&answer) {
            // It stays denied.
            for _ in 0..3 {
                assert!(!is_allowed(&client.check(ask(&token)).await.unwrap().into_inner()));
            }
            return last;
        }
        if last.is_none() {
            begun.send(()).await.unwrap();
        }
        last = Some((Instant::now(), sent));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Has a license revoked that all these clients ask for, and tells how long after the acknowledgement the last
/// allow came. Nothing that is sent later than `bound` after it may be allowed.
pub(crate) async fn last_allow(
    clients: &[Client],
    token: &str,
    revoke: impl Future<Output = ()>,
    bound: Duration,
) -> Duration {
    let (begun, mut began) = mpsc::channel(clients.len());
    let watching =
        clients.iter().map(|client| tokio::spawn(watch(client.clone(), token.to_owned(), begun.clone())));
    let watchers: Vec<_> = watching.collect();
    for _ in clients {
        tokio::time::timeout(PATIENCE, began.recv()).await.expect("it is allowed before").unwrap();
    }
    revoke.await;
    let acknowledged = Instant::now();
    let mut latest = Duration::ZERO;
    for watcher in watchers {
        let (came, sent) = watcher.await.unwrap().expect("it was allowed before");
        latest = latest.max(came.saturating_duration_since(acknowledged));
        assert!(sent.saturating_duration_since(acknowledged) < bound, "allowed long after");
    }
    latest
}

/// The median, the 99th percentile and the longest.
pub(crate) fn told(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_gate_at_once() {
    let Some(server) = server() else { return };
    let database = server.database();
    let gates = gates(server, &database, GATES, &[]);
    let clients = clients(&gates).await;
    let issuer = Site::new().issuer;
    let mut latencies = Vec::new();
    for number in 0..REVOCATIONS {
        let id = format!("license-{number}");
        let revoke = async { admin(&gates[number % GATES]).await.revoke(&id).await };
        latencies.push(last_allow(&clients, &issuer.license(&id), revoke, BOUND).await);
    }
    eprintln!("from the acknowledged revocation to the last allow at {GATES} gates: {}", told(latencies));
}

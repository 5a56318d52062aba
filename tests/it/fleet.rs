//! Several gates over one database, under fire: what one of them knows all of them keep, and nothing that
//! was acknowledged is lost.

mod cut_off;
mod failover;
mod killed;
pub(crate) mod latency;
mod meanwhile;
mod quotas;

use std::time::Duration;

use serde_json::Value;
use tollgate::proto::v1::CheckResponse;

use super::gate::{Client, Gate, Site};
use super::operators::Admin;
use super::postgres::Server;

/// How often something is killed, where the environment does not say.
fn rounds(default: usize) -> usize {
    let given = std::env::var("TOLLGATE_KILL_ROUNDS").ok();
    given.and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}

/// A number below `end`, another each time.
fn random(end: usize) -> usize {
    let bits = uuid::Uuid::new_v4().as_u128() >> 70;
    usize::try_from(bits % u128::try_from(end).unwrap()).unwrap()
}

/// How a gate finds the database, and is told from others.
fn overrides(server: &Server, database: &str, name: &str) -> Vec<(String, String)> {
    let pairs = [
        ("gate.name", name),
        ("state.store", "postgres"),
        ("state.postgres.url", &server.config(database).url),
        ("state.postgres.connections", "4"),
        ("listeners.administration.unix", "admin.sock"),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// So many gates over one database.
fn gates(server: &Server, database: &str, count: usize, more: &[(&str, &str)]) -> Vec<Gate> {
    let names = (0..count).map(|number| format!("gate-{number}"));
    names
        .map(|name| {
            let mut overrides = overrides(server, database, &name);
            overrides.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            Site::new().start_with(&overrides)
        })
        .collect()
}

/// A token of the license of this id with these quotas, which every gate here honours.
fn metered(id: &str, quotas: Value) -> String {
    let site = Site::new();
    let mut claims = site.issuer.claims(id);
    claims["terms"]["quotas"] = quotas;
    site.issuer.sign(&claims)
}

/// Ends every gate as an orchestrator does.
async fn stop_all(gates: Vec<Gate>) {
    for gate in gates {
        let ended = gate.stop().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

async fn clients(gates: &[Gate]) -> Vec<Client> {
    let mut clients = Vec::new();
    for gate in gates {
        clients.push(gate.client().await);
    }
    clients
}

async fn admin(gate: &Gate) -> Admin {
    Admin::of(gate).await
}

fn is_denied_with(answer: &CheckResponse, code: &str) -> bool {
    answer.reasons.iter().any(|reason| reason.code == code)
}

/// A while in which something may go wrong.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(u64::try_from(random(400)).unwrap())).await;
}

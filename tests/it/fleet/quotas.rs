//! Quotas over several gates: never one unit over, whatever dies, and all of it used where nothing does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::domain::Amount;
use tollgate::proto::v1::{CheckRequest, CheckResponse, GetUsageRequest, Subject};

use super::{clients, gates, metered, overrides, random, rounds, stop_all};
use crate::gate::{Client, Gate, ask, codes, eventually, is_allowed};
use crate::postgres::{Server, server};

const CALLERS: usize = 64;
const GATES: usize = 3;

/// The licenses, with ten quotas together.
fn licenses() -> Vec<(String, Value)> {
    let quota = |id: &str, metric: &str, limit: u32, per: &str, window: &str| json!({"id": id, "metric": metric, "limit": limit, "per": per, "window": window});
    let lists = vec![
        json!([quota("a", "requests", 300, "license", "total"), quota("b", "rows", 200, "user", "minute")]),
        json!([
            quota("c", "rows", 500, "license", "total"),
            quota("d", "bytes", 10_000, "user", "total"),
            quota("e", "requests", 400, "organization", "minute"),
        ]),
        json!([
            quota("f", "rows", 1_000, "organization", "total"),
            quota("g", "epsilon", 5, "license", "total"),
            quota("h", "requests", 150, "project", "total"),
        ]),
        json!([
            quota("i", "requests", 100, "user", "total"),
            quota("j", "bytes", 5_000, "project", "minute")
        ]),
    ];
    lists.into_iter().enumerate().map(|(number, list)| (format!("license-{number}"), list)).collect()
}

/// What callers saw allowed, in millionths, by quota, by whom it counts and by window.
type Seen = BTreeMap<(String, String, i64), i128>;

/// A question with amounts, from one of three users for one of two projects.
fn question(token: &str) -> CheckRequest {
    let amounts = [("rows", 1 + random(5)), ("bytes", 1 + random(90))];
    let mut usage: std::collections::HashMap<String, f64> =
        amounts.map(|(metric, amount)| (metric.to_owned(), amount as f64)).into();
    usage.insert("epsilon".to_owned(), 0.05);
    let user = format!("user-{}", random(3));
    CheckRequest {
        subject: Some(Subject { id: user, organization: "acme".into(), roles: Vec::new() }),
        project: format!("project-{}", random(2)),
        usage,
        ..ask(token)
    }
}

/// Adds an allow to what was seen.
fn see(seen: &Mutex<Seen>, quotas: &Value, question: &CheckRequest, answer: &CheckResponse) {
    let mut seen = seen.lock().unwrap();
    for (quota, state) in quotas.as_array().unwrap().iter().zip(&answer.quotas) {
        let user = question.subject.as_ref().unwrap().id.clone();
        let scope = match quota["per"].as_str().unwrap() {
            "user" => user,
            "project" => question.project.clone(),
            _ => String::new(),
        };
        let window = state.resets_at.map_or(0, |end| end.seconds);
        let amount = question.usage.get(&state.metric).copied().unwrap_or(1.0);
        *seen.entry((state.id.clone(), scope, window)).or_default() +=
            Amount::used(amount).unwrap().millionths();
    }
}

fn limit(quotas: &[(String, Value)], id: &str) -> i128 {
    let found = quotas.iter().flat_map(|(_, list)| list.as_array().unwrap()).find(|quota| quota["id"] == id);
    Amount::whole(found.unwrap()["limit"].as_u64().unwrap()).millionths()
}

/// Callers that ask until they are told to stop.
fn callers(
    clients: &Arc<RwLock<Vec<Client>>>,
    licenses: &Arc<Vec<(String, Value)>>,
    seen: &Arc<Mutex<Seen>>,
    stop: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let tokens: Arc<Vec<String>> =
        Arc::new(licenses.iter().map(|(id, quotas)| metered(id, quotas.clone())).collect());
    let caller = |_| {
        let (clients, licenses, seen) = (clients.clone(), licenses.clone(), seen.clone());
        let (stop, tokens) = (stop.clone(), tokens.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let (license, gate) = (random(tokens.len()), random(GATES));
                let question = question(&tokens[license]);
                let mut client = clients.read().unwrap()[gate].clone();
                match client.check(question.clone()).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        if is_allowed(&answer) {
                            see(&seen, &licenses[license].1, &question, &answer);
                        } else {
                            tokio::time::sleep(Duration::from_millis(3)).await;
                        }
                    }
                    // The gate was killed: whether it allowed is not known.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
    };
    (0..CALLERS).map(caller).collect()
}

/// What was set aside, by quota id, in millionths.
fn granted(server: &Server, database: &str) -> Vec<(String, i128)> {
    let rows = server.sql(database, "SELECT counter || '|' || granted FROM tollgate_quota");
    let row = |line: &str| {
        let (counter, granted) = line.rsplit_once('|')?;
        Some((counter.to_owned(), granted.trim().parse().ok()?))
    };
    rows.lines().filter_map(row).collect()
}

/// What is told as used under a license, in millionths.
fn used(server: &Server, database: &str, license: &str, metric: &str) -> i128 {
    let sum = format!(
        "SELECT COALESCE(SUM(amount), 0) FROM tollgate_usage WHERE license = '{license}' AND metric = '{metric}'"
    );
    server.sql(database, &sum).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_over() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let mut running: Vec<Option<Gate>> =
        gates(&server, &database, GATES, &[]).into_iter().map(Some).collect();
    let living: Vec<Client> = {
        let mut found = Vec::new();
        for gate in running.iter().flatten() {
            found.push(gate.client().await);
        }
        found
    };
    let clients = Arc::new(RwLock::new(living));
    let (licenses, seen, stop) = (Arc::new(licenses()), Arc::default(), Arc::default());
    let callers = callers(&clients, &licenses, &seen, &stop);
    for round in 0..rounds(6) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        if round % 3 == 2 {
            server.kill();
            super::a_moment().await;
            server.restart();
        } else {
            let (victim, name) = (random(GATES), format!("gate-again-{round}"));
            let gate = running[victim].take().unwrap();
            gate.signal("KILL");
            let site = gate.ended().await.site;
            let gate = site.start_with(&overrides(&server, &database, &name));
            clients.write().unwrap()[victim] = gate.client().await;
            running[victim] = Some(gate);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.values().sum::<i128>() > 1_000_000_000, "callers were served: {seen:?}");
    for ((id, scope, window), seen) in &seen {
        assert!(*seen <= limit(&licenses, id), "quota {id} of `{scope}` until {window}: {seen}");
    }
    stop_all(running.into_iter().flatten().collect()).await;
    let granted = granted(&server, &database);
    assert!(!granted.is_empty());
    for (id, license, metric) in
        [("a", "license-0", "requests"), ("c", "license-1", "rows"), ("g", "license-2", "epsilon")]
    {
        // Quotas of whole licenses, in one window: what was seen was set aside, and what is told as used too.
        let counter = granted.iter().find(|(counter, _)| counter.ends_with(&format!(",\"{id}\"]"))).unwrap();
        let seen: i128 = seen.iter().filter(|((quota, ..), _)| quota == id).map(|(_, seen)| seen).sum();
        assert!(seen <= counter.1 && counter.1 <= limit(&licenses, id), "{id}: {seen} of {counter:?}");
        let used = used(&server, &database, license, metric);
        assert!(used > 0 && used <= counter.1, "{id}: {used} used, {counter:?} set aside");
        eprintln!(
            "{id}: {seen} seen, {used} told as used, {} set aside: what is missing, crashes lost",
            counter.1
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_can_be_used_and_is_accounted_for() {
    let Some(server) = server() else { return };
    let database = server.database();
    let gates = gates(server, &database, GATES, &[]);
    let limit = 3_000.0;
    let quota = json!([{"id": "q", "metric": "rows", "limit": limit, "per": "license", "window": "total"}]);
    let token = metered("all", quota);
    let clients = clients(&gates).await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (mut client, token) = (clients[caller % GATES].clone(), token.clone());
            tokio::spawn(async move {
                let (mut allowed, mut denied) = (0.0, 0);
                while denied < 3 {
                    let rows = 1.0 + random(3) as f64;
                    let usage = [("rows".to_owned(), rows)].into();
                    let answer =
                        client.check(CheckRequest { usage, ..ask(&token) }).await.unwrap().into_inner();
                    if is_allowed(&answer) {
                        allowed += rows;
                    } else {
                        assert_eq!(codes(&answer), ["QUOTA_EXCEEDED"]);
                        denied += 1;
                        tokio::time::sleep(Duration::from_millis(30)).await;
                    }
                }
                allowed
            })
        })
        .collect();
    let mut allowed = 0.0;
    for caller in callers {
        allowed += caller.await.unwrap();
    }
    assert!(allowed <= limit && allowed >= limit * 0.99, "{allowed} of {limit}");
    eprintln!("used by {CALLERS} callers at {GATES} gates: {allowed} of {limit}");
    stop_all(gates).await;
    let one = super::gates(server, &database, 1, &[]);
    let request = GetUsageRequest { metric: "rows".to_owned(), ..GetUsageRequest::default() };
    let rows = super::admin(&one[0]).await.usage(request).await;
    assert_eq!(rows.iter().map(|row| row.amount).sum::<f64>(), allowed);
}

#[tokio::test]
async fn a_request_counts_once_at_whatever_gate_it_comes_again() {
    let Some(server) = server() else { return };
    let database = server.database();
    let mut gates = gates(server, &database, GATES, &[]);
    let asked = 12;
    // Repeats that come at the same moment need room of their own until they are told apart.
    let limit = asked * GATES;
    let quota =
        json!([{"id": "q", "metric": "requests", "limit": limit, "per": "license", "window": "total"}]);
    let token = metered("once", quota);
    let clients = clients(&gates).await;
    let mut waiting = Vec::new();
    for number in 0..asked {
        for client in &clients {
            let mut client = client.clone();
            let question = CheckRequest { request_id: format!("r-{number}"), ..ask(&token) };
            waiting.push(tokio::spawn(async move { client.check(question).await.unwrap().into_inner() }));
        }
    }
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(is_allowed(&answer), "{answer:?}");
    }
    let used = async |gate: &Gate| {
        let rows = super::admin(gate).await.usage(GetUsageRequest::default()).await;
        rows.iter().map(|row| row.amount).sum::<f64>()
    };
    eventually("each counts once", async || used(&gates[1]).await == asked as f64).await;
    let killed = gates.remove(0);
    killed.signal("KILL");
    drop(killed.ended().await);
    for (number, gate) in gates.iter().enumerate() {
        let again = CheckRequest { request_id: format!("r-{number}"), ..ask(&token) };
        assert!(is_allowed(&gate.check(again).await), "it was paid at the gate that was killed");
        let other = CheckRequest {
            request_id: "r-0".into(),
            action: "read".into(),
            project: "p".into(),
            ..ask(&token)
        };
        assert_eq!(codes(&gate.check(other).await), ["CONTEXT_INVALID"]);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(used(&gates[0]).await, asked as f64, "the repeats counted nothing");
}

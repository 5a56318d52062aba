//! Hubs that are killed, freeze, and come back with less than they knew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate::config::{Hubs, State};
use tollgate::domain::Clock;
use tollgate::revocation::Revocations;
use tollgate::store::hub::HubStore;

use super::{Fleet, metered, ready};
use crate::gate::{Gate, ask, codes, eventually, is_allowed, within};
use crate::operators::Admin;
use crate::postgres::{Server, server};

/// Which hub a sidecar uses, by its number.
fn linked_to(sidecar: &Gate, fleet: &Fleet) -> usize {
    let log = sidecar.stderr.text();
    let last = log.lines().rfind(|line| line.contains("linked to a hub")).unwrap().to_owned();
    fleet.ports.iter().position(|port| last.contains(&port.to_string())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_hubs_is_killed_and_no_check_fails() {
    one_of_two_is_lost("KILL").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_hubs_freezes_and_no_check_fails() {
    one_of_two_is_lost("STOP").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_hubs_stops_in_order_and_no_check_fails() {
    one_of_two_is_lost("TERM").await;
}

/// Checks go on at four sidecars while one hub gets a signal that ends it.
async fn one_of_two_is_lost(signal: &str) {
    let Some(server) = server() else { return };
    let url = server.config(&server.database()).url;
    let fleet = Fleet::new(2);
    let over = [("state.store", "postgres"), ("state.postgres.url", url.as_str())];
    let hubs = [fleet.hub(0, &over), fleet.hub(1, &over)];
    let sidecars = fleet.sidecars::<4>(&[]).await;
    let token = metered(hubs[0].site(), "steady", 1_000_000);
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for sidecar in &sidecars {
        let (mut client, token, stop) = (sidecar.client().await, token.clone(), Arc::clone(&stop));
        asking.push(tokio::spawn(async move {
            let (mut asked, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = client.check(ask(&token)).await.unwrap().into_inner();
                assert!(is_allowed(&answer), "check {asked}: {answer:?}");
                (asked, slowest) = (asked + 1, slowest.max(begun.elapsed()));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (asked, slowest)
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let members = |hub: &Gate| hub.metric("tollgate_hub_members", &[]);
    assert_eq!(hubs.iter().map(members).sum::<f64>(), 4.0);
    let killed = linked_to(&sidecars[0], &fleet);
    let orphans: Vec<&Gate> =
        sidecars.iter().filter(|sidecar| linked_to(sidecar, &fleet) == killed).collect();
    hubs[killed].signal(signal);
    let begun = Instant::now();
    let other = 1 - killed;
    for sidecar in &orphans {
        within(Duration::from_secs(5), "it moves", async || linked_to(sidecar, &fleet) == other).await;
    }
    let moved = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    for one in asking {
        let (count, longest) = one.await.unwrap();
        (asked, slowest) = (asked + count, slowest.max(longest));
    }
    let orphans = orphans.len();
    eprintln!(
        "a hub got {signal}: {orphans} of 4 sidecars moved within {moved:?}; {asked} checks, 0 failed, slowest {slowest:?}"
    );

    Admin::of(&hubs[other]).await.revoke("steady").await;
    let acknowledged = Instant::now();
    for sidecar in &sidecars {
        let revoked = async || codes(&sidecar.check(ask(&token)).await) == ["REVOKED"];
        within(Duration::from_secs(1), "the revocation counts", revoked).await;
    }
    eprintln!("a revocation at the other hub counts everywhere after {:?}", acknowledged.elapsed());
    for sidecar in &sidecars {
        assert!(!is_allowed(&sidecar.check(ask(&token)).await));
    }
    assert_eq!(members(&hubs[other]), 4.0);
    let restores: f64 =
        sidecars.iter().map(|sidecar| sidecar.metric("tollgate_state_restores_total", &[])).sum();
    assert_eq!(restores, 0.0, "both hubs know the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_hub_makes_sidecars_deny_in_time_and_they_recover() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let sidecars = fleet.sidecars::<3>(&[("state.max_staleness", "2s")]).await;
    let question = ask(&hub.site().issuer.license("one"));
    hub.signal("STOP");
    let begun = Instant::now();
    for sidecar in &sidecars {
        let stale = async || codes(&sidecar.check(question.clone()).await) == ["STATE_STALE"];
        within(Duration::from_secs(4), "it denies", stale).await;
    }
    let denied = begun.elapsed();
    assert!(denied < Duration::from_millis(2_500), "it took {denied:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for sidecar in &sidecars {
        assert_eq!(codes(&sidecar.check(question.clone()).await), ["STATE_STALE"]);
        assert_eq!(sidecar.get("/readyz").0, 503);
    }
    hub.signal("CONT");
    let begun = Instant::now();
    for sidecar in &sidecars {
        eventually("it recovers", async || is_allowed(&sidecar.check(question.clone()).await)).await;
        ready(sidecar).await;
    }
    eprintln!(
        "a frozen hub: all 3 sidecars deny after {denied:?} of 2 s, and recover {:?} after it",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_hub_that_comes_back_with_older_state_is_noticed() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let [sidecar] = fleet.sidecars::<1>(&[]).await;
    let issuer = &sidecar.site().issuer;
    Admin::of(&hub).await.revoke("before").await;
    let site = hub.stop().await.site;
    std::fs::copy(site.path("state.redb"), site.path("backup.redb")).unwrap();
    let hub = site.start_with(&fleet.of_hub(0, &[]));
    Admin::of(&hub).await.revoke("after").await;
    let question = ask(&issuer.license("after"));
    let revoked = async || codes(&sidecar.check(question.clone()).await) == ["REVOKED"];
    eventually("the sidecar knows it", revoked).await;
    assert_eq!(sidecar.metric("tollgate_state_restores_total", &[]), 0.0);

    // Back to the backup.
    let site = hub.stop().await.site;
    std::fs::rename(site.path("backup.redb"), site.path("state.redb")).unwrap();
    let hub = site.start_with(&fleet.of_hub(0, &[]));
    let restores = async || sidecar.metric("tollgate_state_restores_total", &[]);
    eventually("the alarm", async || restores().await == 1.0).await;
    assert!(sidecar.stderr.find("the state went back from revision 2 to 1").is_some());
    ready(&sidecar).await;
    assert!(revoked().await);
    assert!(is_allowed(&hub.check(question.clone()).await), "the hub forgot it");

    // And to a state that was made anew.
    let site = hub.stop().await.site;
    std::fs::remove_file(site.path("state.redb")).unwrap();
    let _hub = site.start_with(&fleet.of_hub(0, &[]));
    eventually("the alarm", async || restores().await == 2.0).await;
    assert!(sidecar.stderr.find("the state is another than before").is_some());
    ready(&sidecar).await;
    assert!(revoked().await);
    assert_eq!(codes(&sidecar.check(ask(&issuer.license("before"))).await), ["REVOKED"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_whose_state_is_slow_is_no_hub_that_is_lost() {
    let Some(server) = server() else { return };
    let database = server.database();
    let url = server.config(&database).url;
    let fleet = Fleet::new(2);
    let over = [("state.store", "postgres"), ("state.postgres.url", url.as_str())];
    let _hubs = [fleet.hub(0, &over), fleet.hub(1, &over)];
    let [sidecar] = fleet.sidecars::<1>(&[]).await;
    let mut held = server.hold(&database, "BEGIN; LOCK TABLE tollgate_quota; SELECT pg_sleep(8); COMMIT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        let id = format!("metered-{:?}", begun.elapsed());
        let answer = sidecar.check(ask(&metered(sidecar.site(), &id, 1_000))).await;
        assert_eq!(codes(&answer), ["STATE_UNAVAILABLE"], "{answer:?}");
    }
    let log = sidecar.stderr.text();
    let links = log.lines().filter(|line| line.contains("linked to a hub")).count();
    assert!(links <= 2, "{links} links: {log}");
    held.wait().unwrap();
    let token = metered(sidecar.site(), "metered", 1_000);
    eventually("it counts again", async || is_allowed(&sidecar.check(ask(&token)).await)).await;
}

/// How many statements the server has logged. Its statistics come late.
fn statements(server: &Server) -> usize {
    let log = std::fs::read_to_string(server.folder.join("log")).unwrap();
    log.lines().filter(|line| line.contains("LOG:  execute") || line.contains("LOG:  statement")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sidecars_cost_the_database_nothing() {
    const SIDECARS: usize = 100;
    const LOOK: Duration = Duration::from_secs(4);
    let Some(server) = server() else { return };
    let database = server.database();
    let url = server.config(&database).url;
    // Of this database alone.
    server.sql("postgres", &format!("ALTER DATABASE {database} SET log_statement = 'all'"));
    let hub = Gate::start(&[
        ("state.store", "postgres"),
        ("state.postgres.url", &url),
        ("listeners.hub.tcp", "127.0.0.1:0"),
        ("listeners.hub.insecure", "true"),
    ]);
    let cost = async || {
        // What comes once, at the start, is over then.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = statements(server);
        tokio::time::sleep(LOOK).await;
        statements(server) - before
    };
    let alone = cost().await;
    let hubs = Hubs {
        addresses: vec![format!("http://{}", hub.hub)],
        ca: None,
        certificate: None,
        key: None,
        timeout: "3s".parse().unwrap(),
        insecure: false,
    };
    let fed = Arc::new(AtomicU64::new(0));
    for _ in 0..SIDECARS {
        let (store, fed) = (HubStore::open(&hubs).unwrap(), Arc::clone(&fed));
        let revocations = Revocations::new(Arc::new(store), &State::default());
        tokio::spawn(async move {
            let count = |read: &Result<_, _>| {
                fed.fetch_add(u64::from(read.is_ok()), Ordering::Relaxed);
            };
            revocations.follow(&Clock::system(), count).await;
        });
    }
    let asked = fed.load(Ordering::Relaxed);
    let with_sidecars = cost().await;
    let asked = fed.load(Ordering::Relaxed) - asked;
    eprintln!(
        "{LOOK:?} of a hub: {alone} statements alone, {with_sidecars} with {SIDECARS} sidecars that read {asked} times"
    );
    assert!(asked > 8 * SIDECARS as u64, "{asked}");
    assert!(alone > 0 && with_sidecars <= alone + alone / 2 + 2, "{with_sidecars} instead of {alone}");
}

//! The server is killed, frozen and overrun: what was acknowledged stays, calls end in time, and work
//! goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tollgate::config::{HumanDuration, Postgres};
use tollgate::domain::amount::Amount;
use tollgate::domain::standing::Status;
use tollgate::store::postgres::PostgresStore;
use tollgate::store::{Changed, Claim, LicenseFilter, StateStore, StoreError, Take, UsageBatch, UsageFilter};
use uuid::Uuid;

use super::open;
use crate::postgres::{Server, server};
use crate::store::conformance::{at, at_once, batch, change, key, license, take, target, used, whole};

/// The limit of the one quota.
const LIMIT: u64 = 100_000;

fn patient(server: &Server, database: &str, seconds: u64, connections: u32) -> Postgres {
    let statement_timeout = HumanDuration::seconds(seconds);
    Postgres { statement_timeout, connections, ..server.config(database) }
}

/// What one worker was told.
#[derive(Default)]
struct Told {
    /// Revisions of its changes, by target.
    changes: BTreeMap<String, u64>,
    /// What it was granted, less what it gave back.
    held: Amount,
    /// Its usage: each unit was sent until it was acknowledged.
    used: u64,
}

/// Asks until it is answered; says whether it was answered at the first try.
async fn until_answered<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> (T, bool) {
    let mut first = true;
    loop {
        match ask().await {
            Ok(answer) => return (answer, first),
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
        first = false;
    }
}

async fn work(store: Arc<dyn StateStore>, worker: String, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let boot = Uuid::new_v4();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{worker}/{number}");
        let license = license(&id);
        until_answered(|| store.register(&license)).await;
        let revoke = change(target(&id), Status::Revoked);
        match until_answered(|| store.change(&revoke)).await {
            (Changed::Applied(revision), _) => drop(told.changes.insert(id, revision)),
            // The answer to the first try was lost.
            (Changed::Refused(standing), false) => drop(told.changes.insert(id, standing.revision)),
            (other, _) => panic!("{other:?}"),
        }
        let take = Take { limit: whole(LIMIT), ..take(3) };
        let granted = until_answered(|| store.take(&take)).await.0.granted;
        told.held += granted;
        if number % 3 == 0 {
            // Whether it was the first or the second try that gave back, it is given back once.
            until_answered(|| store.give_back(take.lease, whole(1))).await;
            // In a long run nothing is left in the end: what was not granted cannot go back.
            told.held -= whole(1).min(granted);
        }
        let batch = UsageBatch { boot, ..batch(number, vec![used(key(&worker, 1), 1)]) };
        until_answered(|| store.add_usage(&batch)).await;
        told.used = number;
    }
    told
}

/// The ids of all licenses that are registered.
async fn registered(store: &dyn StateStore) -> BTreeSet<String> {
    let (mut all, mut after) = (BTreeSet::new(), String::new());
    loop {
        let page = store.licenses(&LicenseFilter::default(), &after, 1_000).await.unwrap();
        let Some(last) = page.last() else { return all };
        after.clone_from(&last.id);
        all.extend(page.into_iter().map(|license| license.id));
    }
}

async fn check(store: &dyn StateStore, told: &BTreeMap<String, Told>) {
    let registered = registered(store).await;
    let mut stand = BTreeMap::new();
    let (mut seen, mut last) = (0, 1);
    while seen < last {
        let after = seen;
        let feed = store.feed(after, 1_000, at(0)).await.unwrap();
        for standing in feed.standings {
            assert_eq!(standing.revision, seen + 1, "each revision is there once");
            seen = standing.revision;
            stand.insert(standing.target.which.id().to_owned(), standing.revision);
        }
        last = feed.revision;
        assert!(seen > after || seen == last, "the last revision is there too");
    }
    let usage = store.usage(&UsageFilter::default(), None, 10_000).await.unwrap();
    let usage: BTreeMap<&str, Amount> = usage.iter().map(|row| (row.key.user.as_str(), row.amount)).collect();
    let mut held = Amount::ZERO;
    for (worker, told) in told {
        for (id, revision) in &told.changes {
            assert_eq!(stand.get(id), Some(revision), "{id} was acknowledged");
            assert!(registered.contains(id), "{id} was acknowledged");
        }
        assert_eq!(usage.get(worker.as_str()).copied().unwrap_or_default(), whole(told.used), "{worker}");
        held += told.held;
    }
    let look = Take { limit: whole(LIMIT), ..take(0) };
    let counted = whole(LIMIT) - store.take(&look).await.unwrap().remaining;
    assert_eq!(counted, held, "the lease tells a repeated take, so nothing leaks while the caller lives");
}

/// The server dies while 16 tasks on two gates work, and all they were told is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let config = patient(&server, &database, 2, 8);
    let mut stores: Vec<Arc<dyn StateStore>> = Vec::new();
    for _ in 0..2 {
        stores.push(Arc::new(PostgresStore::open(&config).await.unwrap()));
    }
    let rounds =
        std::env::var("TOLLGATE_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50);
    let mut all = BTreeMap::new();
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..16)
            .map(|number| {
                let (name, store) = (format!("{round}-{number:02}"), Arc::clone(&stores[number % 2]));
                let work = work(store, name.clone(), Arc::clone(&stop));
                (name, tokio::spawn(work))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(u64::from(Uuid::new_v4().as_bytes()[0]) * 2)).await;
        tokio::task::block_in_place(|| {
            server.kill();
            server.restart();
        });
        // Both gates get over it by themselves.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.store(true, Ordering::Relaxed);
        for (name, worker) in workers {
            let told = tokio::time::timeout(Duration::from_secs(30), worker).await.expect("it ends").unwrap();
            assert!(told.used > 0);
            all.insert(name, told);
        }
        check(&*stores[round % 2], &all).await;
    }
    let heard = tokio::time::timeout(Duration::from_secs(20), async {
        // What was missed is told first.
        while tokio::time::timeout(Duration::from_millis(200), stores[0].news()).await.is_ok() {}
        loop {
            stores[1].change(&change(target(&Uuid::new_v4().to_string()), Status::Revoked)).await.unwrap();
            if tokio::time::timeout(Duration::from_secs(1), stores[0].news()).await.is_ok() {
                return;
            }
        }
    });
    heard.await.expect("the news come again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_ends_calls_in_time() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let store: Arc<dyn StateStore> =
        Arc::new(PostgresStore::open(&patient(&server, &database, 1, 5)).await.unwrap());
    store.register(&license("one")).await.unwrap();
    tokio::task::block_in_place(|| server.freeze());
    let start = Instant::now();
    let outcomes = at_once(16, |number| {
        let store = Arc::clone(&store);
        async move {
            match number % 3 {
                0 => store.license("one").await.map(drop),
                1 => store.take(&take(1)).await.map(drop),
                _ => store.change(&change(target("one"), Status::Revoked)).await.map(drop),
            }
        }
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    tokio::task::block_in_place(|| server.thaw());
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.license("one").await.is_err() {
        assert!(Instant::now() < deadline, "it works again");
    }
    let closed = tokio::time::timeout(Duration::from_secs(3), store.close()).await;
    closed.expect("it closes in time");
}

/// Connections that the server ends are replaced, and calls that may be repeated do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_are_replaced() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store = open(server, &database).await;
    store.register(&license("one")).await.unwrap();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    for _ in 0..5 {
        tokio::task::block_in_place(|| server.sql("postgres", &end));
        store.license("one").await.unwrap().unwrap();
        store.feed(0, 9, at(0)).await.unwrap();
    }
}

/// All connections wait for a lock: calls end in time, for those who hold one and those who do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_ends_calls_in_time() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store: Arc<dyn StateStore> =
        Arc::new(PostgresStore::open(&patient(server, &database, 1, 3)).await.unwrap());
    store.take(&take(1)).await.unwrap();
    let mut holder = server.hold(&database, "BEGIN; LOCK TABLE tollgate_quota; SELECT pg_sleep(60)");
    while store.take(&take(0)).await.is_ok() {}
    let start = Instant::now();
    let outcomes = at_once(30, |_| {
        let store = Arc::clone(&store);
        async move { store.take(&take(1)).await }
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let words: Vec<String> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Err(StoreError::Unavailable(words)) => words,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(words.iter().any(|words| words.contains("no connection")), "{words:?}");
    // The server gives up too, up to as much later as it was asked later.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()"
    );
    server.sql("postgres", &end);
    let taken = store.take(&take(0)).await.unwrap();
    assert_eq!(taken.remaining, whole(99), "what ended in time took nothing");
}

/// A caller that stops listening leaves no answer behind for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_do_no_harm() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store: Arc<dyn StateStore> =
        Arc::new(PostgresStore::open(&patient(server, &database, 5, 3)).await.unwrap());
    for id in 0..200 {
        let id = id.to_string();
        let patience = Duration::from_micros(200 * (Uuid::new_v4().as_u128() % 20) as u64);
        let _ = tokio::time::timeout(patience, store.register(&license(&id))).await;
        let _ = tokio::time::timeout(patience, store.change(&change(target(&id), Status::Revoked))).await;
        if let Some(found) = store.license(&id).await.unwrap() {
            assert_eq!(found.id, id);
        }
    }
    let feed = store.feed(0, 1_000, at(0)).await.unwrap();
    assert_eq!(feed.standings.len(), usize::try_from(feed.revision).unwrap());
    assert_eq!(server.sql(&database, "SELECT count(*) FROM tollgate_license"), feed.records.to_string());
}

/// The processes that serve the store.
fn backends(server: &Server, database: &str) -> BTreeSet<String> {
    let ask = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'tollgate'"
    );
    server.sql("postgres", &ask).split_whitespace().map(str::to_owned).collect()
}

/// Nor does it cost a connection, which would have to be made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_give_up_cost_no_connections() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store: Arc<dyn StateStore> =
        Arc::new(PostgresStore::open(&patient(server, &database, 3, 5)).await.unwrap());
    at_once(5, |_| {
        let store = Arc::clone(&store);
        async move { store.license("one").await.map(drop) }
    })
    .await;
    let before = backends(server, &database);
    let statements =
        "BEGIN; LOCK TABLE tollgate_license IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1); COMMIT";
    let mut held = server.hold(&database, statements);
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..20 {
        assert!(tokio::time::timeout(Duration::from_millis(20), store.license("one")).await.is_err());
    }
    held.wait().unwrap();
    store.license("one").await.unwrap();
    assert_eq!(backends(server, &database), before);
}

/// Commits wait for a standby that is away, longer than any statement may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_away_takes_no_connections_and_the_feed_goes_on() {
    let Some(server) = Server::start(|_| {}) else { return };
    let standby = server.standby();
    let database = server.database();
    let store: Arc<dyn StateStore> =
        Arc::new(PostgresStore::open(&patient(&server, &database, 1, 5)).await.unwrap());
    store.register(&license("one")).await.unwrap();
    tokio::task::block_in_place(|| standby.kill());
    for round in 0..3 {
        let outcomes = at_once(10, |number| {
            let store = Arc::clone(&store);
            let request = format!("{round}-{number}");
            async move { store.claim(&Claim { request, question: [1; 32], expires: at(9) }).await }
        })
        .await;
        assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
        store.feed(0, 9, at(0)).await.unwrap();
    }
    let backends = backends(&server, &database);
    assert!(backends.len() <= 5, "{backends:?}");
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''");
    server.sql("postgres", "SELECT pg_reload_conf()");
    let deadline = Instant::now() + Duration::from_secs(10);
    while store.register(&license("two")).await.is_err() {
        assert!(Instant::now() < deadline, "it works again");
    }
}

/// A primary becomes a standby without ending its connections, as some services do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_any_more_is_not_believed() {
    let Some(server) = Server::start(|_| {}) else { return };
    let database = server.database();
    let store = open(&server, &database).await;
    store.register(&license("one")).await.unwrap();
    let only_reads = |on: &str| {
        server.sql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        std::thread::sleep(Duration::from_millis(300));
    };
    tokio::task::block_in_place(|| only_reads("on"));
    for _ in 0..3 {
        let changed = store.change(&change(target("one"), Status::Revoked)).await;
        assert!(matches!(changed, Err(StoreError::Unavailable(_))), "{changed:?}");
        let Err(StoreError::Unavailable(words)) = store.feed(0, 9, at(0)).await else { panic!("it is fed") };
        assert!(words.contains("writes"), "{words}");
    }
    tokio::task::block_in_place(|| only_reads("off"));
    store.feed(0, 9, at(0)).await.unwrap();
    assert_eq!(store.change(&change(target("one"), Status::Revoked)).await, Ok(Changed::Applied(1)));
}

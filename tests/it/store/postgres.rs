//! The laws of the state, on PostgreSQL; and what is only true of many gates over one database.

mod crashes;
mod opening;

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tollgate::domain::amount::Amount;
use tollgate::domain::standing::{Status, Target, Which};
use tollgate::domain::time::Timestamp;
use tollgate::store::postgres::PostgresStore;
use tollgate::store::{
    Acceptance, Change, Changed, Claim, LicenseFilter, Registered, Registration, StateStore, StoreError,
    Take, UsageBatch, UsageFilter, UsageRow,
};
use uuid::Uuid;

use super::conformance::{
    Fresh, acceptance, at, at_once, batch, change, key, license, take, target, used, whole,
};
use crate::postgres::{Server, server};

async fn fresh() -> Option<Fresh> {
    let server = server()?;
    let store = open(server, &server.database()).await;
    Some(Fresh::new(store, ()))
}

pub(super) async fn open(server: &Server, database: &str) -> Arc<dyn StateStore> {
    Arc::new(PostgresStore::open(&server.config(database)).await.unwrap())
}

conformance!(fresh);

/// Stores over one fresh database, if PostgreSQL is there.
async fn stores<const N: usize>() -> Option<[Arc<dyn StateStore>; N]> {
    let server = server()?;
    let database = server.database();
    let mut stores = Vec::new();
    for _ in 0..N {
        stores.push(open(server, &database).await);
    }
    Some(stores.try_into().map_err(drop).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_hear_of_each_others_changes_in_order() {
    let Some([one, two]) = stores::<2>().await else { return };
    let mut seen = 0;
    for number in 0..10 {
        let revoke = change(target(&number.to_string()), Status::Revoked);
        let news = tokio::time::timeout(Duration::from_secs(1), two.news());
        let (news, changed) = tokio::join!(news, one.change(&revoke));
        news.expect("two hears of it within a second");
        let feed = two.feed(seen, 9, at(0)).await.unwrap();
        assert_eq!(changed, Ok(Changed::Applied(feed.revision)));
        assert_eq!(feed.standings.len(), 1);
        assert_eq!(feed.standings[0].target.which.id(), number.to_string());
        seen = feed.revision;
    }
    let license = license("one");
    let news = tokio::time::timeout(Duration::from_secs(1), two.news());
    let (news, registered) = tokio::join!(news, one.register(&license));
    assert_eq!(registered, Ok(Registration::Created));
    news.expect("two hears of a registration");
    assert_eq!(two.feed(seen, 9, at(0)).await.unwrap().records, 1);
    assert_eq!(one.feed(0, 0, at(0)).await.unwrap().epoch, two.feed(0, 0, at(0)).await.unwrap().epoch);
}

/// Two readers on two gates, while both gates change: neither ever sees a revision before a lower one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gate_sees_a_revision_before_a_lower_one() {
    let Some(stores) = stores::<2>().await else { return };
    let readers = stores.clone().map(|store| {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 200 {
                let after = seen.last().copied().unwrap_or_default();
                let feed = store.feed(after, 1000, at(0)).await.unwrap();
                seen.extend(feed.standings.iter().map(|standing| standing.revision));
                assert_eq!(feed.revision, seen.last().copied().unwrap_or_default(), "one snapshot");
            }
            seen
        })
    });
    at_once(20, |task| {
        let stores = stores.clone();
        async move {
            for number in 0..10 {
                let change = change(target(&format!("{task}/{number}")), Status::Revoked);
                stores[number % 2].change(&change).await.unwrap();
            }
        }
    })
    .await;
    for reader in readers {
        assert_eq!(reader.await.unwrap(), (1..=200).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takers_on_three_gates_never_exceed_the_limit() {
    let Some(stores) = stores::<3>().await else { return };
    let held = at_once(64, |task| {
        let store = Arc::clone(&stores[usize::try_from(task).unwrap() % 3]);
        async move {
            let mut held = Amount::ZERO;
            for round in 0..8 {
                let take = Take { limit: whole(1_000), ..take(7) };
                let granted = store.take(&take).await.unwrap().granted;
                held += granted;
                if round % 2 == 0 && granted.is_positive() {
                    store.give_back(take.lease, whole(3)).await.unwrap();
                    held -= granted.min(whole(3));
                }
            }
            held
        }
    })
    .await;
    let held: Amount = held.into_iter().sum();
    let look = stores[0].take(&Take { limit: whole(1_000), ..take(0) }).await.unwrap();
    assert!(held <= whole(1_000));
    assert_eq!(look.remaining, whole(1_000) - held, "what is counted is what is held");
}

/// A take that timed out is repeated while the server still works on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_that_is_repeated_while_it_runs_takes_once() {
    let Some(stores) = stores::<3>().await else { return };
    for _ in 0..10 {
        let same = Take { limit: whole(1_000_000), ..take(7) };
        let before = stores[0].take(&Take { want: Amount::ZERO, ..same.clone() }).await.unwrap().remaining;
        let grants = at_once(6, |task| {
            let store = Arc::clone(&stores[usize::try_from(task).unwrap() % 3]);
            let same = same.clone();
            async move { store.take(&same).await.unwrap().granted }
        })
        .await;
        assert_eq!(grants, [whole(7); 6]);
        let after = stores[0].take(&Take { want: Amount::ZERO, ..same }).await.unwrap().remaining;
        assert_eq!(before - after, whole(7));
    }
}

/// Also where it took so much that the repeat finds too little.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_take_finds_what_the_first_left_too_little_for() {
    let Some(server) = server() else { return };
    let database = server.database();
    let config = server.config(&database);
    let stores = [PostgresStore::open(&config).await.unwrap(), PostgresStore::open(&config).await.unwrap()];
    let most = |amount: u64| Take { least: whole(amount), ..take(amount) };
    // A row is there, so that takes wait for each other.
    stores[0].take(&most(1)).await.unwrap();
    let same = most(60);
    let held = "BEGIN; SELECT 1 FROM tollgate_quota FOR UPDATE; SELECT pg_sleep(1); COMMIT";
    let mut holder = server.hold(&database, held);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let (first, second) = tokio::join!(stores[0].take(&same), stores[1].take(&same));
    assert_eq!((first.unwrap().granted, second.unwrap().granted), (whole(60), whole(60)));
    assert_eq!(stores[0].take(&most(40)).await.unwrap().granted, Amount::ZERO, "39 are left");
    holder.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_many_gates_add_up_and_never_block_each_other() {
    let Some(stores) = stores::<2>().await else { return };
    at_once(16, |task| {
        let store = Arc::clone(&stores[usize::try_from(task).unwrap() % 2]);
        async move {
            let mut rows: Vec<UsageRow> =
                (0..50).map(|user| used(key(&format!("u{user:02}"), 1), 1)).collect();
            // Twice the same key in one batch, and every second batch the other way round.
            rows.push(used(key("u00", 1), 1));
            if task % 4 < 2 {
                rows.reverse();
            }
            let boot = Uuid::from_u128(task.into());
            for sequence in [1, 2, 2, 1, 3] {
                store.add_usage(&UsageBatch { boot, ..batch(sequence, rows.clone()) }).await.unwrap();
            }
        }
    })
    .await;
    let rows = stores[0].usage(&UsageFilter::default(), None, 99).await.unwrap();
    let amounts: Vec<Amount> = rows.into_iter().map(|row| row.amount).collect();
    let mut expected = vec![whole(48); 50];
    expected[0] = whole(96);
    assert_eq!(amounts, expected);
}

/// A backup that is older: the caller sees the revision go back.
#[tokio::test]
async fn a_restored_database_tells_its_lower_revision() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store = open(server, &database).await;
    for id in ["one", "two"] {
        store.change(&change(target(id), Status::Revoked)).await.unwrap();
    }
    server.sql(
        &database,
        "DELETE FROM tollgate_standing WHERE revision > 1; UPDATE tollgate_meta SET revision = 1",
    );
    let feed = store.feed(2, 9, at(0)).await.unwrap();
    assert_eq!((feed.revision, feed.standings.len()), (1, 0));
}

#[tokio::test]
async fn damage_is_told() {
    let Some(server) = server() else { return };
    let database = server.database();
    let store = open(server, &database).await;
    store.change(&change(target("one"), Status::Revoked)).await.unwrap();
    server.sql(&database, "UPDATE tollgate_standing SET status = 'LOST'");
    assert!(
        matches!(store.feed(0, 9, at(0)).await, Err(StoreError::Damaged(words)) if words.contains("LOST"))
    );
    server.sql(&database, "DROP TABLE tollgate_meta");
    assert!(matches!(store.feed(0, 9, at(0)).await, Err(StoreError::Damaged(_))));
}

/// Text with any character, in the order of its bytes; times from the first to the last.
#[tokio::test]
async fn any_text_and_any_time_is_kept() {
    let Some([store]) = stores::<1>().await else { return };
    let mut ids: Vec<String> = ["a", "B", "_", "é", "ä", "a\0b", "\u{1}", "a b", "A", "z'; --", "\u{10FFFF}"]
        .map(str::to_owned)
        .into();
    for id in &ids {
        let license = Registered { not_before: Timestamp::MIN, expires: Timestamp::MAX, ..license(id) };
        store.register(&license).await.unwrap();
        store.accept(&Acceptance { accepted_by: id.clone(), ..acceptance(id) }).await.unwrap();
        let which = Which::Assignee(id.clone());
        let Change { mut standing, from } = change(Target { issuer: id.clone(), which }, Status::Suspended);
        standing.reason = id.clone();
        store.change(&Change { standing: standing.clone(), from }).await.unwrap();
        let stands = store.feed(0, 99, at(0)).await.unwrap().standings.pop().unwrap();
        assert_eq!((stands.target, stands.reason), (standing.target, standing.reason));
        store
            .add_usage(&UsageBatch { gate: id.clone(), ..batch(1, vec![used(key(id, 1), 1)]) })
            .await
            .unwrap();
        let found = store.acceptance("issuer", id, "sha-256:terms").await.unwrap().unwrap();
        assert_eq!(&found.accepted_by, id);
    }
    ids.sort();
    let licenses = store.licenses(&LicenseFilter::default(), "", 99).await.unwrap();
    assert_eq!(
        licenses.iter().map(|license| &license.id).collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
    for license in &licenses {
        assert_eq!(license.not_before.as_microsecond(), Timestamp::MIN.as_microsecond());
        assert_eq!(license.expires.as_microsecond(), Timestamp::MAX.as_microsecond());
    }
    let usage = store.usage(&UsageFilter::default(), None, 99).await.unwrap();
    assert_eq!(usage.iter().map(|row| &row.key.user).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    let middle = usage[4].key.clone();
    assert_eq!(store.usage(&UsageFilter::default(), Some(&middle), 99).await.unwrap(), usage[5..]);
}

#[tokio::test]
async fn amounts_too_large_to_add_become_the_largest() {
    let Some([store]) = stores::<1>().await else { return };
    let most = Amount::of_millionths(i128::MAX);
    for sequence in 1..=8 {
        store.add_usage(&batch(sequence, vec![UsageRow { key: key("u", 1), amount: most }])).await.unwrap();
    }
    assert_eq!(store.usage(&UsageFilter::default(), None, 9).await.unwrap()[0].amount, most);
    let all = Take { want: most, limit: most, ..take(0) };
    assert_eq!(store.take(&all).await.unwrap().granted, most);
    let more = Take { lease: Uuid::new_v4(), ..all.clone() };
    assert_eq!(store.take(&more).await.unwrap().granted, Amount::ZERO);
    store.give_back(all.lease, most).await.unwrap();
    assert_eq!(store.take(&more).await.unwrap().granted, most);
}

/// What is counted in a window is there until the window is over for everybody.
#[tokio::test]
async fn a_gate_whose_clock_is_ahead_ends_no_window_of_others() {
    let Some([store]) = stores::<1>().await else { return };
    let now = Timestamp::from_second(crate::gate::now()).unwrap();
    let hours = SignedDuration::from_hours;
    let ending = |ends: Timestamp, counter: &str| Take {
        counter: counter.to_owned(),
        window: ends - hours(1),
        ends,
        ..take(60)
    };
    let (running, kept, over) =
        (ending(now + hours(1), "running"), ending(now, "kept"), ending(now - hours(2), "over"));
    for take in [&running, &kept, &over] {
        store.take(take).await.unwrap();
    }
    let claim = Claim { request: "r".to_owned(), question: [1; 32], expires: now + hours(1) };
    store.claim(&claim).await.unwrap();
    store.sweep(now + hours(24)).await.unwrap();
    for (take, left) in [(&running, 40), (&kept, 40), (&over, 100)] {
        let look = Take { want: Amount::ZERO, ..take.clone() };
        assert_eq!(store.take(&look).await.unwrap().remaining, whole(left), "{}", take.counter);
    }
    assert_eq!(store.claimed("r").await, Ok(Some([1; 32])));
}

//! Standings change one by one, and every reader learns of every change in its order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tollgate::domain::standing::{Standing, Status, Target, Which};
use tollgate::store::{Change, Changed, StateStore};

use super::{at, at_once, change, target};

/// The revision under which a change was made.
fn applied(changed: Changed) -> u64 {
    let Changed::Applied(revision) = changed else { panic!("it was not made: {changed:?}") };
    revision
}

async fn make(store: &Arc<dyn StateStore>, id: &str, status: Status) -> Changed {
    store.change(&change(target(id), status)).await.unwrap()
}

pub(crate) async fn a_change_is_made_from_where_it_may(store: Arc<dyn StateStore>) {
    let suspended = applied(make(&store, "one", Status::Suspended).await);
    let stands = Standing { revision: suspended, ..change(target("one"), Status::Suspended).standing };
    assert_eq!(make(&store, "one", Status::Suspended).await, Changed::Refused(stands));
    assert!(applied(make(&store, "one", Status::Valid).await) > suspended);
    let revoked = applied(make(&store, "one", Status::Revoked).await);
    let stands = Standing { revision: revoked, ..change(target("one"), Status::Revoked).standing };
    for status in [Status::Valid, Status::Suspended, Status::Revoked] {
        assert_eq!(make(&store, "one", status).await, Changed::Refused(stands.clone()));
    }
    assert_eq!(store.feed(0, 9, at(0)).await.unwrap().standings, [stands]);
}

pub(crate) async fn an_unknown_target_is_valid(store: Arc<dyn StateStore>) {
    let from_suspended = change(target("one"), Status::Valid);
    assert_eq!(store.change(&from_suspended).await, Ok(Changed::Unknown));
    assert_eq!(store.change(&Change { from: &[], ..from_suspended }).await, Ok(Changed::Unknown));
    let feed = store.feed(0, 9, at(0)).await.unwrap();
    assert_eq!((feed.revision, feed.standings), (0, vec![]));
    applied(make(&store, "one", Status::Revoked).await);
}

pub(crate) async fn targets_are_told_apart(store: Arc<dyn StateStore>) {
    let id = || "one".to_owned();
    let mut targets: Vec<Target> = [
        Which::All,
        Which::License(id()),
        Which::Key(id()),
        Which::Assignee(id()),
        Which::License(String::new()),
    ]
    .map(|which| Target { issuer: "issuer".to_owned(), which })
    .into();
    targets.push(Target { issuer: "other".to_owned(), which: Which::All });
    for target in &targets {
        applied(store.change(&change(target.clone(), Status::Suspended)).await.unwrap());
    }
    let feed = store.feed(0, 99, at(0)).await.unwrap();
    assert_eq!(feed.standings.into_iter().map(|standing| standing.target).collect::<Vec<_>>(), targets);
}

pub(crate) async fn revisions_follow_each_other(store: Arc<dyn StateStore>) {
    let before = store.feed(0, 0, at(0)).await.unwrap();
    assert_eq!(before.revision, 0);
    let mut last = 0;
    for number in 0..10 {
        last += 1;
        assert_eq!(applied(make(&store, &number.to_string(), Status::Suspended).await), last);
        // What is refused takes no revision.
        make(&store, &number.to_string(), Status::Suspended).await;
    }
    let after = store.feed(0, 0, at(0)).await.unwrap();
    assert_eq!((after.revision, after.epoch), (last, before.epoch));
}

pub(crate) async fn a_target_is_fed_once(store: Arc<dyn StateStore>) {
    make(&store, "one", Status::Suspended).await;
    let seen = applied(make(&store, "two", Status::Suspended).await);
    make(&store, "one", Status::Valid).await;
    let last = applied(make(&store, "one", Status::Revoked).await);
    let feed = async |after| {
        let feed = store.feed(after, 9, at(0)).await.unwrap();
        assert_eq!(feed.revision, last);
        let rows = feed.standings.into_iter().map(|standing| (standing.revision, standing.status));
        rows.collect::<Vec<_>>()
    };
    assert_eq!(feed(0).await, [(seen, Status::Suspended), (last, Status::Revoked)]);
    assert_eq!(feed(seen).await, [(last, Status::Revoked)]);
    assert_eq!(feed(last).await, []);
    assert_eq!(feed(last + 100).await, []);
}

pub(crate) async fn the_feed_comes_in_pages(store: Arc<dyn StateStore>) {
    for number in 0..7 {
        make(&store, &number.to_string(), Status::Revoked).await;
    }
    let (mut after, mut pages, mut ids) = (0, Vec::new(), Vec::new());
    loop {
        let feed = store.feed(after, 3, at(0)).await.unwrap();
        assert_eq!(feed.revision, 7, "a page tells how far there is to go");
        let Some(last) = feed.standings.last() else { break };
        assert!(pages.len() < 7, "it does not come to an end");
        after = last.revision;
        pages.push(feed.standings.len());
        ids.extend(feed.standings.into_iter().map(|standing| standing.target.which.id().to_owned()));
    }
    assert_eq!(pages, [3, 3, 1]);
    assert_eq!(ids, ["0", "1", "2", "3", "4", "5", "6"]);
}

pub(crate) async fn many_changes_at_once_get_a_revision_each(store: Arc<dyn StateStore>) {
    let revisions = at_once(64, |number| {
        let store = Arc::clone(&store);
        async move { applied(make(&store, &number.to_string(), Status::Revoked).await) }
    })
    .await;
    assert_eq!(revisions.into_iter().collect::<BTreeSet<_>>(), (1..=64).collect());
}

pub(crate) async fn of_many_who_revoke_one_succeeds(store: Arc<dyn StateStore>) {
    let outcomes = at_once(64, |_| {
        let store = Arc::clone(&store);
        async move { make(&store, "one", Status::Revoked).await }
    })
    .await;
    let successes = outcomes.iter().filter(|changed| matches!(changed, Changed::Applied(_))).count();
    assert_eq!(successes, 1);
    let stands = Standing { revision: 1, ..change(target("one"), Status::Revoked).standing };
    let refused = outcomes.into_iter().filter(|changed| *changed == Changed::Refused(stands.clone()));
    assert_eq!(refused.count(), 63);
}

/// Who reads on from the last revision that was seen misses none, while many are made.
pub(crate) async fn no_reader_misses_a_revision(store: Arc<dyn StateStore>) {
    let reader = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 64 {
                let after = seen.last().copied().unwrap_or_default();
                let feed = store.feed(after, 10, at(0)).await.unwrap();
                seen.extend(feed.standings.into_iter().map(|standing| standing.revision));
            }
            seen
        })
    };
    at_once(64, |number| {
        let store = Arc::clone(&store);
        async move { make(&store, &number.to_string(), Status::Revoked).await }
    })
    .await;
    let seen = tokio::time::timeout(Duration::from_secs(30), reader).await.expect("all come").unwrap();
    assert_eq!(seen, (1..=64).collect::<Vec<_>>());
}

pub(crate) async fn time_never_goes_back(store: Arc<dyn StateStore>) {
    let mut last = at(0);
    for now in [at(1_000), at(500), at(1_001), at(0)] {
        let time = store.feed(0, 9, now).await.unwrap().time;
        assert!(time >= now && time >= last, "{time} after {last}, told {now}");
        last = time;
    }
}

pub(crate) async fn news_comes_with_a_change(store: Arc<dyn StateStore>) {
    store.feed(0, 9, at(0)).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(100), store.news()).await;
    assert!(quiet.is_err(), "there is nothing new");
    let news = store.news();
    let made = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        make(&store, "one", Status::Revoked).await
    };
    let both = async { tokio::join!(news, made) };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("the news come");
}

//! Licenses and acceptances are recorded once, and found again.

use std::sync::Arc;

use tollgate::store::{LicenseFilter, Registered, Registration, StateStore, StoreError};

use super::{acceptance, at, at_once, batch, change, key, license, take, target, used, whole};
use tollgate::domain::standing::Status;
use tollgate::store::{Claim, UsageFilter};

pub(crate) async fn a_license_is_registered_once(store: Arc<dyn StateStore>) {
    let first = license("one");
    assert_eq!(store.register(&first).await, Ok(Registration::Created));
    assert_eq!(store.register(&first).await, Ok(Registration::Present(first.clone())));
    // Another license of the same id does not take its place, whoever issued it.
    let other = Registered { token: "other".to_owned(), issuer: "other".to_owned(), ..license("one") };
    assert_eq!(store.register(&other).await, Ok(Registration::Present(first.clone())));
    assert_eq!(store.license("one").await, Ok(Some(first)));
    assert_eq!(store.license("two").await, Ok(None));
}

pub(crate) async fn of_many_who_register_one_is_first(store: Arc<dyn StateStore>) {
    let outcomes = at_once(64, |number| {
        let store = Arc::clone(&store);
        let mine = Registered { token: number.to_string(), ..license("one") };
        async move { (mine.clone(), store.register(&mine).await.unwrap()) }
    })
    .await;
    let (created, present): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|(_, outcome)| *outcome == Registration::Created);
    let [(winner, _)] = created.as_slice() else { panic!("{} were created", created.len()) };
    assert!(present.iter().all(|(_, outcome)| *outcome == Registration::Present(winner.clone())));
}

pub(crate) async fn licenses_are_listed_by_id(store: Arc<dyn StateStore>) {
    // By their bytes: no language's order.
    let ids = ["A", "B", "a", "a-1", "a1", "b", "é"];
    for id in ["b", "A", "é", "a1", "B", "a-1", "a"] {
        store.register(&license(id)).await.unwrap();
    }
    let all = LicenseFilter::default();
    let list = async |after: &str, limit| -> Vec<String> {
        let found = store.licenses(&all, after, limit).await.unwrap();
        found.into_iter().map(|license| license.id).collect()
    };
    assert_eq!(list("", 100).await, ids);
    assert_eq!(list("", 3).await, ids[..3]);
    assert_eq!(list("a", 3).await, ids[3..6]);
    // What one goes on after need not be there.
    assert_eq!(list("a0", 100).await, ids[4..]);
    assert_eq!(list("é", 100).await, [""; 0]);
    assert_eq!(store.licenses(&all, "", 1).await.unwrap(), [license("A")]);
}

pub(crate) async fn licenses_are_filtered(store: Arc<dyn StateStore>) {
    let of = |id: &str, issuer: &str, assignee: &str, expires| Registered {
        issuer: issuer.to_owned(),
        assignee: assignee.to_owned(),
        expires: at(expires),
        ..license(id)
    };
    for license in [of("1", "a", "x", 2_000), of("2", "a", "y", 3_000), of("3", "b", "x", 4_000)] {
        store.register(&license).await.unwrap();
    }
    let find = async |issuer: Option<&str>, assignee: Option<&str>, before: Option<i64>, limit| -> String {
        let filter = LicenseFilter {
            issuer: issuer.map(str::to_owned),
            assignee: assignee.map(str::to_owned),
            expiring_before: before.map(at),
        };
        let found = store.licenses(&filter, "", limit).await.unwrap();
        found.into_iter().map(|license| license.id).collect()
    };
    assert_eq!(find(None, None, None, 9).await, "123");
    assert_eq!(find(Some("a"), None, None, 9).await, "12");
    assert_eq!(find(None, Some("x"), None, 9).await, "13");
    assert_eq!(find(Some("b"), Some("x"), None, 9).await, "3");
    assert_eq!(find(Some("b"), Some("y"), None, 9).await, "");
    assert_eq!(find(None, None, Some(3_000), 9).await, "1", "what ends at the moment does not end before");
    assert_eq!(find(None, None, Some(3_001), 9).await, "12");
    // The limit counts what passes the filter.
    assert_eq!(find(Some("b"), None, None, 1).await, "3");
}

pub(crate) async fn terms_are_accepted_once(store: Arc<dyn StateStore>) {
    let first = acceptance("one");
    assert_eq!(store.acceptance("issuer", "one", "sha-256:terms").await, Ok(None));
    assert_eq!(store.accept(&first).await, Ok(true));
    let again = tollgate::store::Acceptance { accepted_by: "another".to_owned(), ..first.clone() };
    assert_eq!(store.accept(&again).await, Ok(false));
    assert_eq!(store.acceptance("issuer", "one", "sha-256:terms").await, Ok(Some(first)));
    for (issuer, license, terms) in [
        ("other", "one", "sha-256:terms"),
        ("issuer", "two", "sha-256:terms"),
        ("issuer", "one", "sha-256:new"),
    ] {
        assert_eq!(store.acceptance(issuer, license, terms).await, Ok(None));
    }
}

pub(crate) async fn records_are_counted(store: Arc<dyn StateStore>) {
    let records = async || store.feed(0, 10, at(0)).await.unwrap().records;
    assert_eq!(records().await, 0);
    for _ in 0..2 {
        store.register(&license("one")).await.unwrap();
        store.accept(&acceptance("one")).await.unwrap();
    }
    store.register(&license("two")).await.unwrap();
    store.change(&change(target("one"), Status::Revoked)).await.unwrap();
    assert_eq!(records().await, 3);
}

pub(crate) async fn a_closed_store_says_so(store: Arc<dyn StateStore>) {
    store.register(&license("one")).await.unwrap();
    store.close().await;
    store.close().await;
    let claim = Claim { request: "r".to_owned(), question: [1; 32], expires: at(9) };
    assert_eq!(store.register(&license("two")).await, Err(StoreError::Closed));
    assert_eq!(store.license("one").await, Err(StoreError::Closed));
    assert_eq!(store.licenses(&LicenseFilter::default(), "", 9).await, Err(StoreError::Closed));
    assert_eq!(store.change(&change(target("one"), Status::Revoked)).await, Err(StoreError::Closed));
    assert_eq!(store.feed(0, 9, at(0)).await, Err(StoreError::Closed));
    assert_eq!(store.accept(&acceptance("one")).await, Err(StoreError::Closed));
    assert_eq!(store.acceptance("issuer", "one", "t").await, Err(StoreError::Closed));
    assert_eq!(store.take(&take(1)).await, Err(StoreError::Closed));
    assert_eq!(store.take(&take(0)).await, Err(StoreError::Closed));
    assert_eq!(store.give_back(uuid::Uuid::nil(), whole(1)).await, Err(StoreError::Closed));
    assert_eq!(store.claimed("r").await, Err(StoreError::Closed));
    assert_eq!(store.claim(&claim).await, Err(StoreError::Closed));
    assert_eq!(store.add_usage(&batch(1, vec![used(key("u", 1), 1)])).await, Err(StoreError::Closed));
    assert_eq!(store.usage(&UsageFilter::default(), None, 9).await, Err(StoreError::Closed));
    assert_eq!(store.sweep(at(0)).await, Err(StoreError::Closed));
}

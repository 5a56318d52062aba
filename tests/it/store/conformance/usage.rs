//! Usage is counted once however often it is sent, and read in parts that lose nothing.

use std::sync::Arc;

use tollgate::domain::amount::Amount;
use tollgate::store::{StateStore, UsageBatch, UsageFilter, UsageKey, UsageRow};
use uuid::Uuid;

use super::{at, at_once, batch, key, used, whole};

async fn all(store: &Arc<dyn StateStore>) -> Vec<UsageRow> {
    store.usage(&UsageFilter::default(), None, 1_000).await.unwrap()
}

pub(crate) async fn a_batch_counts_once(store: Arc<dyn StateStore>) {
    let first = batch(1, vec![used(key("ann", 1), 5)]);
    for _ in 0..3 {
        assert_eq!(store.add_usage(&first).await, Ok(()));
        assert_eq!(all(&store).await, first.rows);
    }
    // What it holds does not matter: it is known by its number.
    store.add_usage(&batch(1, vec![used(key("bob", 1), 5)])).await.unwrap();
    assert_eq!(all(&store).await, first.rows);
}

pub(crate) async fn of_many_who_send_a_batch_one_is_counted(store: Arc<dyn StateStore>) {
    at_once(64, |_| {
        let store = Arc::clone(&store);
        async move { store.add_usage(&batch(1, vec![used(key("ann", 1), 5)])).await.unwrap() }
    })
    .await;
    assert_eq!(all(&store).await, [used(key("ann", 1), 5)]);
}

pub(crate) async fn an_earlier_batch_is_passed_over(store: Arc<dyn StateStore>) {
    store.add_usage(&batch(7, vec![used(key("ann", 1), 5)])).await.unwrap();
    for earlier in [1, 6, 7] {
        assert_eq!(store.add_usage(&batch(earlier, vec![used(key("ann", 1), 1)])).await, Ok(()));
    }
    store.add_usage(&batch(9, vec![used(key("ann", 1), 2)])).await.unwrap();
    assert_eq!(all(&store).await, [used(key("ann", 1), 7)]);
}

pub(crate) async fn gates_and_boots_count_apart(store: Arc<dyn StateStore>) {
    let rows = vec![used(key("ann", 1), 1)];
    let first = batch(1, rows);
    let other_boot = UsageBatch { boot: Uuid::from_u128(2), ..first.clone() };
    let other_gate = UsageBatch { gate: "other".to_owned(), ..first.clone() };
    for batch in [&first, &other_boot, &other_gate, &first, &other_boot, &other_gate] {
        store.add_usage(batch).await.unwrap();
    }
    assert_eq!(all(&store).await, [used(key("ann", 1), 3)]);
}

pub(crate) async fn usage_adds_up(store: Arc<dyn StateStore>) {
    let tenth = UsageRow { key: key("ann", 1), amount: Amount::of_millionths(100_000) };
    let huge = UsageRow { key: key("bob", 1), amount: whole(u64::MAX) };
    for sequence in 1..=5 {
        // A batch may have a key twice.
        store.add_usage(&batch(sequence, vec![tenth.clone(), huge.clone(), tenth.clone()])).await.unwrap();
    }
    let sum = (0..5).map(|_| whole(u64::MAX)).sum();
    let expected = [used(key("ann", 1), 1), UsageRow { key: key("bob", 1), amount: sum }];
    assert_eq!(all(&store).await, expected);
    store.add_usage(&batch(6, vec![])).await.unwrap();
    assert_eq!(all(&store).await, expected);
}

pub(crate) async fn corrections_take_away(store: Arc<dyn StateStore>) {
    let less = |amount| UsageRow { key: key("ann", 1), amount: -whole(amount) };
    store.add_usage(&batch(1, vec![used(key("ann", 1), 5)])).await.unwrap();
    store.add_usage(&batch(2, vec![less(2)])).await.unwrap();
    assert_eq!(all(&store).await, [used(key("ann", 1), 3)]);
    store.add_usage(&batch(3, vec![less(7)])).await.unwrap();
    assert_eq!(all(&store).await, [less(4)]);
}

pub(crate) async fn usage_is_filtered(store: Arc<dyn StateStore>) {
    let base = || key("", 1);
    let word = || "other".to_owned();
    let others = [
        UsageKey { issuer: word(), ..base() },
        UsageKey { license: word(), ..base() },
        UsageKey { assignee: word(), ..base() },
        UsageKey { user: word(), ..base() },
        UsageKey { project: word(), ..base() },
        UsageKey { metric: word(), ..base() },
    ];
    let rows = others.iter().cloned().chain([base()]).map(|key| used(key, 1)).collect();
    store.add_usage(&batch(1, rows)).await.unwrap();
    assert_eq!(all(&store).await.len(), 7);
    let none = UsageFilter::default;
    let filters = [
        UsageFilter { issuer: Some(word()), ..none() },
        UsageFilter { license: Some(word()), ..none() },
        UsageFilter { assignee: Some(word()), ..none() },
        UsageFilter { user: Some(word()), ..none() },
        UsageFilter { project: Some(word()), ..none() },
        UsageFilter { metric: Some(word()), ..none() },
    ];
    for (filter, key) in filters.iter().zip(others) {
        assert_eq!(store.usage(filter, None, 9).await.unwrap(), [used(key, 1)]);
    }
    // Absent is not empty.
    let no_project = UsageFilter { project: Some(String::new()), ..none() };
    assert_eq!(store.usage(&no_project, None, 9).await.unwrap().len(), 6);
    let both = UsageFilter { issuer: Some(word()), user: Some(word()), ..none() };
    assert_eq!(store.usage(&both, None, 9).await.unwrap(), []);
}

pub(crate) async fn hours_are_half_open(store: Arc<dyn StateStore>) {
    let rows = (1..=4).map(|hour| used(key("ann", hour), 1)).collect();
    store.add_usage(&batch(1, rows)).await.unwrap();
    let hours = async |from: Option<i64>, until: Option<i64>| -> Vec<i64> {
        let filter = UsageFilter { from: from.map(at), until: until.map(at), ..UsageFilter::default() };
        let rows = store.usage(&filter, None, 9).await.unwrap();
        rows.into_iter().map(|row| row.key.hour.as_second() / 3_600).collect()
    };
    assert_eq!(hours(Some(2 * 3_600), Some(4 * 3_600)).await, [2, 3]);
    assert_eq!(hours(Some(2 * 3_600 + 1), None).await, [3, 4]);
    assert_eq!(hours(None, Some(2 * 3_600 + 1)).await, [1, 2]);
    assert_eq!(hours(Some(3 * 3_600), Some(3 * 3_600)).await, [0; 0]);
}

pub(crate) async fn usage_comes_in_pages(store: Arc<dyn StateStore>) {
    let users = ["Ann", "Bob", "ann", "bob", "é"];
    let mut rows: Vec<UsageRow> =
        users.iter().flat_map(|user| [3, 1, 2].map(|hour| used(key(user, hour), 1))).collect();
    rows.push(used(UsageKey { issuer: "a".to_owned(), ..key("zoe", 9) }, 1));
    store.add_usage(&batch(1, rows.clone())).await.unwrap();
    rows.sort();
    let pages = async |filter: UsageFilter| -> Vec<UsageRow> {
        let mut found: Vec<UsageRow> = Vec::new();
        loop {
            let after = found.last().map(|row| row.key.clone());
            let page = store.usage(&filter, after.as_ref(), 4).await.unwrap();
            assert!(page.len() <= 4);
            if page.is_empty() {
                return found;
            }
            found.extend(page);
            assert!(found.len() <= 16, "it does not come to an end");
        }
    };
    assert_eq!(pages(UsageFilter::default()).await, rows);
    rows.retain(|row| row.key.hour < at(7_200));
    assert_eq!(pages(UsageFilter { until: Some(at(7_200)), ..UsageFilter::default() }).await, rows);
    // A key that is not there is a place between those that are.
    let between = UsageKey { user: "b".to_owned(), ..key("", 5) };
    let rest = store.usage(&UsageFilter::default(), Some(&between), 100).await.unwrap();
    assert!(rest.iter().all(|row| row.key > between) && rest.len() == 6);
}

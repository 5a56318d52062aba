//! What is told of what is left is so, or is not told.

use super::*;

fn remaining(states: &[QuotaState]) -> Vec<Amount> {
    states.iter().map(|state| state.remaining).collect()
}

#[tokio::test]
async fn a_gate_that_holds_nothing_looks_before_it_tells() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let (list, four) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 4.0)]));
    let of = of(&list, &four);
    let once = Once { request_id: "r", question: [1; 32] };
    assert!(first.reserve(&of, Some(&once), NOW).await.unwrap().commit(&of, NOW).is_some());
    first.tend(NOW + SignedDuration::from_secs(10)).await.unwrap();
    for quotas in [&second, &first] {
        assert_eq!(remaining(&quotas.rehearse(&of, NOW).await.unwrap()), [Amount::whole(6)]);
        let repeat = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
        assert_eq!(remaining(repeat.states()), [Amount::whole(6)]);
    }
    let seven = usage(&[("rows", 7.0)]);
    let denied = second.rehearse(&Use { usage: &seven, ..of }, NOW).await.unwrap_err();
    assert_eq!(remaining(&denied.states), [Amount::whole(6)]);
}

#[tokio::test]
async fn a_denial_does_not_count_what_goes_back() {
    let store = store();
    let quotas = gate(&store, "g");
    let list =
        vec![quota("many", "rows", 100.0, QuotaScope::License), quota("few", "rows", 10.0, QuotaScope::User)];
    let eleven = usage(&[("rows", 11.0)]);
    let denied = quotas.reserve(&of(&list, &eleven), None, NOW).await.unwrap_err();
    assert_eq!(remaining(&denied.states), [Amount::whole(100), Amount::whole(10)]);
}

#[tokio::test]
async fn what_a_report_does_not_ask_about_is_told_as_it_was_last_known_or_not_at_all() {
    let store = store();
    let quotas = gate(&store, "g");
    let list = vec![
        quota("requests", REQUESTS, 1.0, QuotaScope::License),
        quota("rows", "rows", 10.0, QuotaScope::License),
    ];
    let (nothing, four) = (usage(&[]), usage(&[("rows", 4.0)]));
    assert!(uses(&quotas, &of(&list, &nothing), NOW).await);
    let later = NOW + SignedDuration::from_secs(10);
    quotas.tend(later).await.unwrap();
    let report = Use { is_request: false, ..of(&list, &four) };
    let held = quotas.reserve(&report, None, later).await.unwrap();
    assert_eq!(remaining(held.states()), [Amount::ZERO, Amount::whole(6)]);
    // A gate that never asked knows nothing of it.
    let held = gate(&store, "h").reserve(&report, None, later).await.unwrap();
    assert_eq!(held.states().len(), 1);
    assert_eq!(held.states()[0].id, "rows");
}

#[tokio::test]
async fn a_settlement_that_comes_late_tells_what_is_left_after_it() {
    let store = store();
    let quotas = gate(&store, "g");
    let (list, eight) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 8.0)]));
    let held = quotas.reserve(&of(&list, &eight), None, NOW).await.unwrap();
    let id = held.commit(&of(&list, &eight), NOW).unwrap();
    quotas.tend(NOW + SignedDuration::from_secs(10)).await.unwrap();
    let states = quotas.settle(id, &usage(&[("rows", 3.0)])).await.unwrap();
    assert_eq!(remaining(&states), [Amount::whole(7)]);
}

/// Whether it is told, in a moment, that nothing is left.
async fn is_emptied(source: &Source) -> bool {
    tokio::time::timeout(Duration::from_millis(50), source.emptied()).await.is_ok()
}

#[tokio::test]
async fn who_watches_hears_of_the_end_and_of_nothing_that_comes_back() {
    let store = store();
    let (quotas, other) = (gate(&store, "g"), gate(&store, "h"));
    let list = vec![quota("q", "rows", 10.0, QuotaScope::License)];
    let (one, four) = (usage(&[("rows", 1.0)]), usage(&[("rows", 4.0)]));
    let (five, nine) = (usage(&[("rows", 5.0)]), usage(&[("rows", 9.0)]));
    // Another gate holds four, for a while.
    let elsewhere = other.reserve(&of(&list, &four), None, NOW).await.unwrap();
    let held = quotas.reserve(&Use { is_request: false, ..of(&list, &one) }, None, NOW).await.unwrap();
    let source = held.sources().remove(0);
    held.consume(&of(&list, &one), NOW);
    let rest = quotas.reserve(&of(&list, &five), None, NOW).await.unwrap();
    assert!(!is_emptied(&source).await, "it may yet come back");
    drop(rest);
    assert!(!is_emptied(&source).await);
    let rest = quotas.reserve(&of(&list, &five), None, NOW).await.unwrap();
    drop(elsewhere);
    other.stop(NOW).await.unwrap();
    assert!(rest.commit(&of(&list, &five), NOW).is_some());
    assert!(!is_emptied(&source).await, "four went back elsewhere");
    assert!(quotas.reserve(&of(&list, &nine), None, NOW).await.is_err());
    assert!(uses(&quotas, &of(&list, &four), NOW).await);
    assert!(is_emptied(&source).await);
    // Who watches keeps what is watched.
    let later = NOW + SignedDuration::from_hours(1);
    quotas.tend(later).await.unwrap();
    quotas.tend(later + SignedDuration::from_mins(30)).await.unwrap();
    assert_eq!(quotas.0.buckets.read().unwrap().len(), 1);
    drop(source);
    quotas.tend(later + SignedDuration::from_mins(30)).await.unwrap();
    assert_eq!(quotas.0.buckets.read().unwrap().len(), 0);
}

//! What goes back does, whatever becomes of who took it.

use std::task::{Context, Waker};

use super::*;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// So many rows for ever, and no more.
fn rows(limit: f64) -> Vec<Quota> {
    vec![Quota { window: QuotaWindow::Total, ..quota("q", "rows", limit, QuotaScope::License) }]
}

/// A store that fails as it is told.
fn flaky() -> (Arc<Flaky>, Arc<dyn StateStore>) {
    let flaky = Flaky::over(store());
    (Arc::clone(&flaky), flaky)
}

fn once(question: u8) -> Once<'static> {
    Once { request_id: "r", question: [question; 32] }
}

/// Lets a future go on as far as it gets without waiting.
fn begin(future: std::pin::Pin<&mut impl Future>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[tokio::test]
async fn settlements_that_come_late_go_back_one_after_the_other() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = rows(1_000.0);
    let eighty = usage(&[("rows", 80.0)]);
    let mut now = NOW;
    let mut reservations = Vec::new();
    for _ in 0..10 {
        now += SignedDuration::from_millis(100);
        let held = first.reserve(&of(&list, &eighty), None, now).await.unwrap();
        reservations.push(held.commit(&of(&list, &eighty), now).unwrap());
        first.tend(now).await.unwrap();
    }
    now += SECOND * 10;
    for (number, reservation) in (1_i64..).zip(reservations) {
        first.tend(now).await.unwrap();
        let states = first.settle(reservation, &usage(&[("rows", 10.0)])).await.unwrap();
        let left = Amount::of_millionths(i128::from(200 + 70 * number) * 1_000_000);
        assert_eq!(states[0].remaining, left, "after settlement {number}");
        now += SignedDuration::from_millis(250);
    }
    first.tend(now).await.unwrap();
    // All but what was used can be used at another gate, by then and when the first is gone.
    assert!(uses(&second, &of(&list, &usage(&[("rows", 800.0)])), now).await);
    first.stop(now).await.unwrap();
    assert!(uses(&second, &of(&list, &usage(&[("rows", 100.0)])), now).await);
    assert!(!uses(&second, &of(&list, &usage(&[("rows", 1e-6)])), now).await);
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_what_was_spent_of_it_may_come_back() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = rows(100.0);
    let (one, rest) = (usage(&[("rows", 1.0)]), usage(&[("rows", 40.0)]));
    // Something is used all the time, so that a chunk is held, and its last part is spent late.
    let mut now = NOW;
    for _ in 0..60 {
        now += SECOND;
        assert!(uses(&first, &of(&list, &one), now).await);
        first.tend(now).await.unwrap();
    }
    let held = first.reserve(&of(&list, &rest), None, now).await.unwrap();
    let late = held.commit(&of(&list, &rest), now).unwrap();
    for _ in 0..19 {
        now += SECOND * 30;
        first.tend(now).await.unwrap();
    }
    first.settle(late, &usage(&[("rows", 0.0)])).await.unwrap();
    first.tend(now).await.unwrap();
    assert!(uses(&second, &of(&list, &rest), now).await, "what was settled went back");
}

#[tokio::test]
async fn what_goes_back_of_another_lease_leaves_one_that_lasts() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = rows(200.0);
    let (hundred, nothing) = (usage(&[("rows", 100.0)]), usage(&[("rows", 0.0)]));
    let of = of(&list, &hundred);
    let minute = |minutes: i64| NOW + SECOND * i32::try_from(minutes * 60).unwrap();
    let early = first.reserve(&of, None, NOW).await.unwrap().commit(&of, NOW).unwrap();
    first.tend(minute(1)).await.unwrap();
    let late = first.reserve(&of, None, minute(9)).await.unwrap().commit(&of, minute(9)).unwrap();
    first.settle(early, &nothing).await.unwrap();
    for later in 10..28 {
        first.tend(minute(later)).await.unwrap();
    }
    first.settle(late, &nothing).await.unwrap();
    first.tend(minute(28)).await.unwrap();
    assert!(uses(&second, &Use { usage: &usage(&[("rows", 200.0)]), ..of }, minute(28)).await);
}

#[tokio::test]
async fn a_settlement_that_comes_after_many_others_still_goes_back() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = rows(1_000.0);
    let (hundred, one) = (usage(&[("rows", 100.0)]), usage(&[("rows", 1.0)]));
    let mut now = NOW;
    let mut open = std::collections::VecDeque::new();
    // What is reserved is mostly given back, again and again, so that hardly anything is ever spent for good.
    for _ in 0..200 {
        now += SECOND * 20;
        if let Ok(held) = first.reserve(&of(&list, &hundred), None, now).await {
            open.push_back(held.commit(&of(&list, &hundred), now).unwrap());
        }
        if open.len() > 4 {
            first.settle(open.pop_front().unwrap(), &one).await.unwrap();
        }
        first.tend(now).await.unwrap();
    }
    let used = 200 - i32::try_from(open.len()).unwrap();
    for last in open.drain(..) {
        first.settle(last, &usage(&[])).await.unwrap();
    }
    first.tend(now + SECOND * 10).await.unwrap();
    let rest = usage(&[("rows", f64::from(1_000 - used))]);
    assert!(uses(&second, &of(&list, &rest), now).await, "all but {used} went back");
    // And leases are not kept for ever.
    first.tend(now + SECOND * 3_600).await.unwrap();
    assert!(first.0.buckets.read().unwrap().is_empty());
}

#[tokio::test]
async fn a_twin_that_is_given_up_goes_back_where_the_other_is_the_use() {
    for is_under_way in [true, false] {
        let (flaky, store) = flaky();
        let quotas = gate(&store, "g");
        let (list, four) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 4.0)]));
        let of = of(&list, &four);
        let once = once(1);
        flaky.fail(Fault::StuckClaim);
        let mut given_up = Box::pin(quotas.reserve(&of, Some(&once), NOW));
        // Until it has its units, and waits for its claim.
        for _ in 0..20 {
            begin(given_up.as_mut());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        flaky.fail(Fault::None);
        let used = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
        let given_up = Some(given_up).filter(|_| !is_under_way);
        assert!(used.commit(&of, NOW).is_some());
        drop(given_up);
        let again = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
        assert!(again.commit(&of, NOW).is_none(), "it is counted once");
        quotas.stop(NOW).await.unwrap();
        assert_eq!(total(&store, "rows").await, Amount::whole(4));
        let left = gate(&store, "h").rehearse(&of, NOW).await.unwrap()[0].remaining;
        assert_eq!(left, Amount::whole(6));
    }
}

#[tokio::test]
async fn what_was_paid_and_not_claimed_goes_back_when_it_is_paid_again() {
    let (flaky, store) = flaky();
    let quotas = gate(&store, "g");
    let (list, four) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 4.0)]));
    let of = of(&list, &four);
    for other in [1, 2] {
        flaky.fail(Fault::NoClaim);
        assert!(quotas.reserve(&of, Some(&once(other)), NOW).await.is_err());
        assert!(quotas.reserve(&of, Some(&once(other)), NOW).await.is_err(), "and is not paid a third time");
    }
    flaky.fail(Fault::None);
    assert!(quotas.reserve(&of, Some(&once(2)), NOW).await.is_err(), "8 are paid, of 10");
    // With room for one more.
    let quotas = gate(&store, "h");
    let more = vec![quota("r", "rows", 20.0, QuotaScope::License)];
    let of = Use { quotas: &more, ..of };
    flaky.fail(Fault::NoClaim);
    assert!(quotas.reserve(&of, Some(&once(2)), NOW).await.is_err());
    flaky.fail(Fault::None);
    let held = quotas.reserve(&of, Some(&once(2)), NOW).await.unwrap();
    assert!(held.commit(&of, NOW).is_some());
    assert!(quotas.reserve(&of, Some(&once(2)), NOW).await.unwrap().commit(&of, NOW).is_none());
    quotas.tend(NOW).await.unwrap();
    assert_eq!(total(&store, "rows").await, Amount::whole(4));
    assert_eq!(quotas.rehearse(&of, NOW).await.unwrap()[0].remaining, Amount::whole(16));
}

#[tokio::test]
async fn a_claim_without_an_answer_is_used_by_the_next_who_asks() {
    let (flaky, store) = flaky();
    let quotas = gate(&store, "g");
    let (list, four) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 4.0)]));
    let of = of(&list, &four);
    let once = once(1);
    flaky.fail(Fault::LostClaim);
    let paid = NOW + SECOND * 3_500;
    assert!(quotas.reserve(&of, Some(&once), paid).await.is_err());
    flaky.fail(Fault::None);
    let later = NOW + SECOND * 3_700;
    assert!(quotas.reserve(&of, Some(&once), later).await.unwrap().commit(&of, later).is_some());
    assert!(quotas.reserve(&of, Some(&once), later).await.unwrap().commit(&of, later).is_none());
    quotas.tend(later).await.unwrap();
    let rows = store.usage(&UsageFilter::default(), None, 10).await.unwrap();
    assert!(rows.iter().all(|row| row.key.hour == NOW), "it counts when it was paid: {rows:?}");
    assert_eq!(total(&store, "rows").await, Amount::whole(4));
}

#[tokio::test]
async fn what_is_set_aside_for_who_went_away_is_known() {
    let store = store();
    let list = rows(100.0);
    let all = usage(&[("rows", 100.0)]);
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let of = of(&list, &all);
    let mut asked = Box::pin(first.reserve(&of, None, NOW));
    begin(asked.as_mut());
    drop(asked);
    // The bucket's next turn is after what was asked for it.
    first.tend(NOW).await.unwrap();
    assert!(second.reserve(&of, None, NOW).await.is_err(), "the first gate holds it");
    first.tend(NOW + SECOND * 10).await.unwrap();
    assert!(uses(&second, &of, NOW).await);
}

#[tokio::test]
async fn what_is_set_aside_without_an_answer_is_asked_for_again() {
    let (flaky, store) = flaky();
    let list = rows(100.0);
    let (some, all) = (usage(&[("rows", 60.0)]), usage(&[("rows", 100.0)]));
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    flaky.fail(Fault::After);
    for _ in 0..3 {
        let denied = first.reserve(&of(&list, &some), None, NOW).await.unwrap_err();
        assert_eq!(denied.reasons[0].code, Code::StateUnavailable);
    }
    flaky.fail(Fault::None);
    drop(first.reserve(&of(&list, &all), None, NOW).await.unwrap());
    // Nor is it lost where nobody asks any more.
    flaky.fail(Fault::After);
    assert!(second.reserve(&of(&list, &usage(&[("rows", 1.0)])), None, NOW).await.is_err());
    flaky.fail(Fault::None);
    first.tend(NOW + SECOND * 10).await.unwrap();
    second.stop(NOW).await.unwrap();
    assert!(uses(&first, &of(&list, &all), NOW + SECOND * 10).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_in_ends_although_more_is_used_all_the_time() {
    let (flaky, store) = flaky();
    flaky.fail(Fault::Slow);
    let quotas = gate(&store, "g");
    let busy = quotas.clone();
    let load = tokio::spawn(async move {
        let nothing = usage(&[]);
        loop {
            assert!(uses(&busy, &of(&[], &nothing), NOW).await);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..10 {
        while quotas.unreported() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let tended = tokio::time::timeout(Duration::from_secs(5), quotas.tend(NOW)).await;
        tended.expect("it ends").unwrap();
    }
    load.abort();
}

#[tokio::test]
async fn usage_of_which_handing_in_was_broken_off_is_handed_in_later() {
    let store = store();
    let quotas = gate(&store, "g");
    let (users, nothing) = ((0..3_500).map(|user| format!("user-{user}")).collect::<Vec<_>>(), usage(&[]));
    for user in &users {
        assert!(uses(&quotas, &Use { user, ..of(&[], &nothing) }, NOW).await);
    }
    for _ in 0..3 {
        let mut tended = Box::pin(quotas.tend(NOW));
        for _ in 0..3 {
            begin(tended.as_mut());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(tended);
        assert!(quotas.unreported() > 0);
    }
    quotas.tend(NOW).await.unwrap();
    assert_eq!(total(&store, REQUESTS).await, Amount::whole(3_500));
    assert_eq!(quotas.unreported(), 0);
}

#[tokio::test]
async fn one_that_fails_keeps_no_other_from_going_back() {
    let (flaky, store) = flaky();
    let (quotas, other) = (gate(&store, "g"), gate(&store, "h"));
    let list: Vec<Quota> = ["a", "b", "c"]
        .map(|id| Quota { window: QuotaWindow::Total, ..quota(id, "rows", 100.0, QuotaScope::License) })
        .into();
    let ten = usage(&[("rows", 10.0)]);
    let of = of(&list, &ten);
    // It was not used after all, and is held.
    drop(quotas.reserve(&of, None, NOW).await.unwrap());
    let back = async || {
        let states = other.rehearse(&of, NOW).await.unwrap();
        states.iter().filter(|state| state.remaining == Amount::whole(100)).count()
    };
    assert_eq!(back().await, 0);
    flaky.fail(Fault::OneReturn);
    assert!(quotas.stop(NOW).await.is_err());
    assert_eq!(back().await, 2);
    quotas.stop(NOW).await.unwrap();
    assert_eq!(back().await, 3);
}

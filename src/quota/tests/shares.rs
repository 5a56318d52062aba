//! How what is left is shared: between gates, and between licenses with other limits.

use super::*;

#[tokio::test]
async fn gates_leave_nothing_that_is_of_use_to_none() {
    let store = store();
    let gates = ["g", "h", "i"].map(|name| gate(&store, name));
    let list =
        vec![quota("rows", "rows", 50.0, QuotaScope::User), quota("r", REQUESTS, 1e9, QuotaScope::User)];
    let (one, nothing) = (usage(&[("rows", 1.0)]), usage(&[]));
    let (mut used, mut denied, mut now) = (0, 0, NOW);
    for quotas in gates.iter().cycle() {
        now += SignedDuration::from_millis(10);
        // Who uses no rows only wants some to be left.
        uses(quotas, &of(&list, &nothing), now).await;
        match uses(quotas, &of(&list, &one), now).await {
            true => (used, denied) = (used + 1, 0),
            false => denied += 1,
        }
        if denied == 6 {
            break;
        }
    }
    assert_eq!(used, 50, "parts of one are left at several gates");
}

/// What the gate holds after so many uses, one every `every`.
async fn held_after(
    quotas: &Quotas,
    of: &Use<'_>,
    number: u32,
    every: SignedDuration,
    now: &mut Timestamp,
) -> Amount {
    for _ in 0..number {
        *now += every;
        assert!(uses(quotas, of, *now).await);
        // The next chunk arrives where it was sent for.
        tokio::task::yield_now().await;
        quotas.tend(*now).await.unwrap();
    }
    held(quotas)
}

fn held(quotas: &Quotas) -> Amount {
    quotas.0.buckets.read().unwrap().values().map(|bucket| bucket.held()).sum()
}

#[tokio::test]
async fn who_asks_for_more_than_is_left_keeps_nothing_from_others() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = vec![quota("q", REQUESTS, 1_000.0, QuotaScope::License)];
    let (one, all, more) = (usage(&[]), usage(&[(REQUESTS, 850.0)]), usage(&[(REQUESTS, 851.0)]));
    let (one, all, more) = (of(&list, &one), of(&list, &all), of(&list, &more));
    let mut now = NOW;
    let before = held_after(&first, &one, 150, SignedDuration::from_millis(20), &mut now).await;
    assert!(before.is_positive(), "some are held for the next");
    // Who is denied again and again does not keep what is held from going back.
    for _ in 0..5 {
        let denied = first.reserve(&more, None, now).await.unwrap_err();
        assert_eq!(denied.states[0].remaining, Amount::whole(850), "what is left is told");
        assert!(held(&first) <= before, "and none of it set aside");
        now += SignedDuration::from_secs(1);
        first.tend(now).await.unwrap();
        let known: Vec<_> =
            first.0.buckets.read().unwrap().values().map(|bucket| bucket.remaining()).collect();
        assert_eq!(known, [Some(Amount::whole(850))], "who was denied may still have to be told");
    }
    assert!(uses(&second, &all, now).await, "another gate can use all of it");
}

#[tokio::test]
async fn what_is_held_is_what_the_demand_of_some_seconds_needs() {
    let (list, nothing) = (vec![quota("q", REQUESTS, 1e9, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    let (quotas, mut now) = (gate(&store(), "g"), NOW);
    // Ten in a second: a chunk has 150, and the next is fetched when half of it is left.
    let held = held_after(&quotas, &of, 600, SignedDuration::from_millis(100), &mut now).await;
    assert!((70..=225).contains(&(held.millionths() / 1_000_000)), "{held} at a steady load");
    // Then a thousand at once: 210 in each of the last five seconds, which need 3,150 in fifteen.
    let held = held_after(&quotas, &of, 1_000, SignedDuration::from_micros(10), &mut now).await;
    assert!((1_000..=4_725).contains(&(held.millionths() / 1_000_000)), "{held} after a burst");
    // One in seven seconds needs two.
    let (quotas, mut now) = (gate(&store(), "g"), NOW);
    let held = held_after(&quotas, &of, 60, SignedDuration::from_secs(7), &mut now).await;
    assert!(held <= Amount::whole(3), "{held} at a slow load");
}

#[tokio::test]
async fn what_could_not_go_back_goes_back_later() {
    let inner = store();
    let flaky = Flaky::over(Arc::clone(&inner));
    let store: Arc<dyn StateStore> = Arc::<Flaky>::clone(&flaky);
    let quotas = gate(&store, "g");
    let (list, nothing) = (vec![quota("q", REQUESTS, 100.0, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    for second in 0..3 {
        for _ in 0..5 {
            assert!(uses(&quotas, &of, NOW + SignedDuration::from_secs(second)).await);
        }
    }
    let later = |minutes| NOW + SignedDuration::from_mins(minutes);
    quotas.tend(NOW + SignedDuration::from_secs(3)).await.unwrap();
    flaky.fail(Fault::Before);
    quotas.tend(later(20)).await.unwrap_err();
    flaky.fail(Fault::None);
    // Somebody comes between the failure and the next try.
    assert!(uses(&quotas, &of, later(30)).await);
    quotas.tend(later(60)).await.unwrap();
    quotas.stop(later(60)).await.unwrap();
    let all = usage(&[(REQUESTS, 84.0)]);
    assert!(uses(&gate(&inner, "h"), &Use { usage: &all, ..of }, later(60)).await);
}

#[tokio::test]
async fn the_limit_of_one_license_is_not_stretched_by_that_of_another() {
    let store = store();
    let quotas = gate(&store, "g");
    let nothing = usage(&[]);
    let (large, small) = (
        vec![quota("o", REQUESTS, 1_000.0, QuotaScope::Organization)],
        vec![quota("o", REQUESTS, 10.0, QuotaScope::Organization)],
    );
    let under_another = Use { license: "m", ..of(&small, &nothing) };
    assert!(uses(&quotas, &under_another, NOW).await);
    for number in 0..50 {
        assert!(uses(&quotas, &of(&large, &nothing), NOW + SignedDuration::from_millis(number)).await);
    }
    assert!(!uses(&quotas, &under_another, NOW + SignedDuration::from_secs(1)).await);
    // The same license, issued again with less.
    let less = vec![quota("q", REQUESTS, 10.0, QuotaScope::License)];
    let more = vec![quota("q", REQUESTS, 1_000.0, QuotaScope::License)];
    for number in 0..50 {
        assert!(uses(&quotas, &of(&more, &nothing), NOW + SignedDuration::from_millis(number)).await);
    }
    assert!(!uses(&quotas, &of(&less, &nothing), NOW + SignedDuration::from_secs(1)).await);
}

#[tokio::test]
async fn what_was_denied_is_not_what_the_next_needs() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let list = vec![quota("q", "rows", 1_000.0, QuotaScope::License)];
    let (too_much, nothing, most) = (usage(&[("rows", 2_000.0)]), usage(&[]), usage(&[("rows", 800.0)]));
    assert!(first.reserve(&of(&list, &too_much), None, NOW).await.is_err());
    assert!(uses(&first, &of(&list, &nothing), NOW).await);
    assert!(uses(&second, &of(&list, &most), NOW).await, "the first gate took hardly anything");
}

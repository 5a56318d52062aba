//! Tests of quotas over a store in memory.

mod flaky;
mod returned;
mod shares;
mod told;

use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::domain::terms::{QuotaScope, QuotaWindow};
use crate::store::UsageFilter;
use crate::store::redb::RedbStore;
use flaky::{Fault, Flaky};

const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);

fn quota(id: &str, metric: &str, limit: f64, per: QuotaScope) -> Quota {
    Quota { id: id.into(), metric: metric.into(), limit, per, window: QuotaWindow::Day, time_zone: None }
}

fn usage(amounts: &[(&str, f64)]) -> BTreeMap<String, f64> {
    amounts.iter().map(|(metric, amount)| ((*metric).to_owned(), *amount)).collect()
}

fn of<'a>(quotas: &'a [Quota], usage: &'a BTreeMap<String, f64>) -> Use<'a> {
    Use { issuer: "i", license: "l", assignee: "a", quotas, user: "u", project: "", usage, is_request: true }
}

fn store() -> Arc<dyn StateStore> {
    Arc::new(RedbStore::in_memory().unwrap())
}

fn gate(store: &Arc<dyn StateStore>, name: &str) -> Quotas {
    Quotas::new(Arc::clone(store), name, Uuid::new_v4())
}

/// Takes and commits; whether it was allowed.
async fn uses(quotas: &Quotas, of: &Use<'_>, now: Timestamp) -> bool {
    match quotas.reserve(of, None, now).await {
        Ok(held) => {
            held.commit(of, now);
            true
        }
        Err(_) => false,
    }
}

async fn total(store: &Arc<dyn StateStore>, metric: &str) -> Amount {
    let filter = UsageFilter { metric: Some(metric.to_owned()), ..UsageFilter::default() };
    store.usage(&filter, None, 10_000).await.unwrap().into_iter().map(|row| row.amount).sum()
}

#[tokio::test]
async fn what_is_dropped_goes_back_and_what_is_committed_does_not() {
    let store = store();
    let quotas = gate(&store, "g");
    let (list, nothing) = (vec![quota("q", REQUESTS, 2.0, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    for _ in 0..5 {
        drop(quotas.reserve(&of, None, NOW).await.unwrap());
    }
    assert!(uses(&quotas, &of, NOW).await && uses(&quotas, &of, NOW).await);
    let denied = quotas.reserve(&of, None, NOW).await.unwrap_err();
    assert_eq!(denied.reasons[0].code, Code::QuotaExceeded);
    assert_eq!(denied.states[0].remaining, Amount::ZERO);
    // The next day is another window.
    assert!(uses(&quotas, &of, NOW + SignedDuration::from_hours(24)).await);
}

#[tokio::test]
async fn several_quotas_are_taken_together_or_not_at_all() {
    let store = store();
    let quotas = gate(&store, "g");
    let list =
        vec![quota("many", "rows", 100.0, QuotaScope::License), quota("few", "rows", 10.0, QuotaScope::User)];
    let (eleven, ten) = (usage(&[("rows", 11.0)]), usage(&[("rows", 10.0)]));
    let denied = quotas.reserve(&of(&list, &eleven), None, NOW).await.unwrap_err();
    assert_eq!(denied.reasons.len(), 1);
    let states = quotas.rehearse(&of(&list, &ten), NOW).await.unwrap();
    assert_eq!(states[0].remaining, Amount::whole(100));
    assert!(uses(&quotas, &of(&list, &ten), NOW).await);
    let other = Use { user: "v", ..of(&list, &ten) };
    assert!(uses(&quotas, &other, NOW).await, "each user has a quota of their own");
    let states = quotas.rehearse(&Use { user: "w", ..of(&list, &ten) }, NOW).await.unwrap();
    assert_eq!((states[0].remaining, states[1].remaining), (Amount::whole(80), Amount::whole(10)));
}

#[tokio::test]
async fn organizations_share_over_licenses_and_nothing_else_does() {
    let store = store();
    let quotas = gate(&store, "g");
    let five = usage(&[("rows", 5.0)]);
    let shared = vec![quota("o", "rows", 8.0, QuotaScope::Organization)];
    assert!(uses(&quotas, &of(&shared, &five), NOW).await);
    let under_another = Use { license: "m", ..of(&shared, &five) };
    assert!(!uses(&quotas, &under_another, NOW).await);
    assert!(uses(&quotas, &Use { issuer: "j", ..under_another }, NOW).await);
    assert!(uses(&quotas, &Use { assignee: "b", ..under_another }, NOW).await);
}

#[tokio::test]
async fn a_settlement_gives_the_rest_back_once() {
    let store = store();
    let quotas = gate(&store, "g");
    let (list, ten) = (vec![quota("q", "rows", 10.0, QuotaScope::License)], usage(&[("rows", 10.0)]));
    let held = quotas.reserve(&of(&list, &ten), None, NOW).await.unwrap();
    let id = held.commit(&of(&list, &ten), NOW).unwrap();
    let too_much = quotas.settle(id, &usage(&[("rows", 11.0)])).await.unwrap_err();
    assert!(matches!(too_much, SettleError::TooMuch { .. }));
    assert!(matches!(quotas.settle(id, &usage(&[("bytes", 1.0)])).await, Err(SettleError::TooMuch { .. })));
    // Whoever lost the answer asks again, and is answered as before.
    for _ in 0..2 {
        let states = quotas.settle(id, &usage(&[("rows", 4.0)])).await.unwrap();
        assert_eq!(states[0].remaining, Amount::whole(6));
    }
    assert_eq!(quotas.settle(id, &usage(&[])).await, Err(SettleError::Otherwise));
    assert_eq!(quotas.settle(Uuid::new_v4(), &usage(&[])).await, Err(SettleError::Unknown));
    quotas.stop(NOW).await.unwrap();
    assert_eq!((total(&store, "rows").await, total(&store, REQUESTS).await), (Amount::whole(4), Amount::ONE));
    // What went back can be used at another gate.
    let six = usage(&[("rows", 6.0)]);
    let other = gate(&store, "h");
    assert!(uses(&other, &of(&list, &six), NOW).await);
    assert!(!uses(&other, &of(&list, &usage(&[("rows", 1e-6)])), NOW).await);
}

#[tokio::test]
async fn a_repeat_takes_nothing_at_any_gate_and_another_question_is_refused() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let (list, nothing) = (vec![quota("q", REQUESTS, 1.0, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    let once = Once { request_id: "r", question: [1; 32] };
    let held = first.reserve(&of, Some(&once), NOW).await.unwrap();
    assert!(held.commit(&of, NOW).is_some());
    for quotas in [&first, &second] {
        let held = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
        assert_eq!(held.commit(&of, NOW), None);
        let other = Once { question: [2; 32], ..once.clone() };
        let denied = quotas.reserve(&of, Some(&other), NOW).await.unwrap_err();
        assert_eq!(denied.reasons[0].code, Code::ContextInvalid);
    }
    first.stop(NOW).await.unwrap();
    second.stop(NOW).await.unwrap();
    assert_eq!(total(&store, REQUESTS).await, Amount::ONE);
}

#[tokio::test]
async fn a_repeat_is_known_as_long_as_the_windows_that_it_took_from() {
    let once = Once { request_id: "r", question: [1; 32] };
    let nothing = usage(&[]);
    let (hour, day) = (1, 24);
    for (window, forgotten) in [
        (QuotaWindow::Minute, day),
        (QuotaWindow::Day, day),
        (QuotaWindow::Month, 30 * day),
        (QuotaWindow::Total, 32 * day),
    ] {
        let store = store();
        let quotas = gate(&store, "g");
        let list = vec![
            Quota { window, ..quota("q", REQUESTS, 10.0, QuotaScope::License) },
            // Nothing is taken from this one.
            Quota { window: QuotaWindow::Total, ..quota("rows", "rows", 10.0, QuotaScope::License) },
        ];
        let of = of(&list, &nothing);
        assert!(quotas.reserve(&of, Some(&once), NOW).await.unwrap().commit(&of, NOW).is_some());
        for (after, is_known) in [(forgotten - hour, true), (forgotten + hour, false)] {
            let then = NOW + SignedDuration::from_hours(after);
            store.sweep(then).await.unwrap();
            let held = quotas.reserve(&of, Some(&once), then).await.unwrap();
            assert_eq!(held.commit(&of, then).is_none(), is_known, "{window:?}, {after} h later");
        }
    }
}

#[tokio::test]
async fn a_claimed_request_stays_paid_whatever_becomes_of_it() {
    let store = store();
    let quotas = gate(&store, "g");
    let (list, nothing) = (vec![quota("q", REQUESTS, 1.0, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    let once = Once { request_id: "r", question: [1; 32] };
    let denied = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
    // While the first is not answered yet, its twin is allowed, and takes nothing.
    let twin = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
    drop(denied);
    assert!(twin.commit(&of, NOW).is_none());
    let other = Once { request_id: "s", question: [1; 32] };
    assert!(quotas.reserve(&of, Some(&other), NOW).await.is_err(), "one was used, and one is all there is");
    // The repeat uses what was paid: it is counted, and may be settled.
    let repeat = quotas.reserve(&of, Some(&once), NOW).await.unwrap();
    let reservation = repeat.commit(&of, NOW).unwrap();
    assert!(quotas.reserve(&of, Some(&once), NOW).await.unwrap().commit(&of, NOW).is_none(), "once");
    quotas.tend(NOW).await.unwrap();
    assert_eq!(total(&store, REQUESTS).await, Amount::ONE);
    let states = quotas.settle(reservation, &usage(&[(REQUESTS, 0.0)])).await.unwrap();
    assert_eq!(states[0].remaining, Amount::ONE);
    // Without an id nobody can come for it again.
    let quotas = gate(&self::store(), "g");
    drop(quotas.reserve(&of, None, NOW).await.unwrap());
    assert!(quotas.reserve(&of, None, NOW).await.is_ok());
}

#[tokio::test]
async fn without_demand_nothing_is_held_for_long() {
    let store = store();
    let (first, second) = (gate(&store, "g"), gate(&store, "h"));
    let (list, nothing) = (vec![quota("q", REQUESTS, 1_000.0, QuotaScope::License)], usage(&[]));
    let of = of(&list, &nothing);
    for second in 0..3 {
        for _ in 0..50 {
            assert!(uses(&first, &of, NOW + SignedDuration::from_secs(second)).await);
        }
    }
    let later = NOW + SignedDuration::from_secs(10);
    first.tend(later).await.unwrap();
    let rest = usage(&[(REQUESTS, 850.0)]);
    assert!(uses(&second, &Use { usage: &rest, ..of }, later).await, "the other gate can use all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_three_gates_use_all_and_never_more() {
    let store = store();
    let gates: Vec<Quotas> = ["g", "h", "i"].iter().map(|name| gate(&store, name)).collect();
    let limit = 2_000_u64;
    let mut tasks = Vec::new();
    for caller in 0..64 {
        let quotas = gates[caller % 3].clone();
        tasks.push(tokio::spawn(async move {
            let list = vec![quota("q", "rows", limit as f64, QuotaScope::License)];
            let (mut allowed, mut denied) = (0, 0);
            while denied < 3 {
                let rows = 1 + (caller as u64 + allowed) % 3;
                let usage = usage(&[("rows", rows as f64)]);
                if uses(&quotas, &of(&list, &usage), NOW).await {
                    allowed += rows;
                } else {
                    denied += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            allowed
        }));
    }
    let mut allowed = 0;
    for task in tasks {
        allowed += task.await.unwrap();
    }
    assert!(allowed <= limit && allowed * 100 >= limit * 99, "{allowed} of {limit}");
    for quotas in &gates {
        quotas.stop(NOW).await.unwrap();
    }
    assert_eq!(total(&store, "rows").await, Amount::whole(allowed));
}

/// What may happen at one of three gates, in simulated time.
#[derive(Clone, Debug)]
enum Event {
    Use { gate: usize, rows: u64, id: Option<u8> },
    Abandon { gate: usize, rows: u64 },
    SettleLast { gate: usize, used: u64 },
    Tend { gate: usize },
    Crash { gate: usize },
    Stop { gate: usize },
    Pass { seconds: i64 },
    Fail { fault: Fault },
}

fn event() -> impl Strategy<Value = Event> {
    let gate = 0..3_usize;
    prop_oneof![
        8 => (gate.clone(), 0..6_u64, prop::option::weighted(0.3, 0..6_u8))
            .prop_map(|(gate, rows, id)| Event::Use { gate, rows, id }),
        2 => (gate.clone(), 1..6_u64).prop_map(|(gate, rows)| Event::Abandon { gate, rows }),
        2 => (gate.clone(), 0..6_u64).prop_map(|(gate, used)| Event::SettleLast { gate, used }),
        2 => gate.clone().prop_map(|gate| Event::Tend { gate }),
        1 => gate.clone().prop_map(|gate| Event::Crash { gate }),
        1 => gate.prop_map(|gate| Event::Stop { gate }),
        3 => (0..40_i64).prop_map(|seconds| Event::Pass { seconds }),
        2 => prop::sample::select(vec![Fault::None, Fault::None, Fault::Before, Fault::After])
            .prop_map(|fault| Event::Fail { fault }),
    ]
}

/// One gate of the simulation.
struct Simulated {
    quotas: Quotas,
    last: Option<(Uuid, u64, Timestamp)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, no window is ever used beyond its limit, and what the store has as used is
    /// never more than what was allowed.
    #[test]
    fn never_over(events in prop::collection::vec(event(), 1..120), limit in 1..60_u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let list = vec![Quota { window: QuotaWindow::Minute, ..quota("q", "rows", limit as f64, QuotaScope::License) }];
        let outcome: Result<(), TestCaseError> = runtime.block_on(async {
            let flaky = Flaky::over(store());
            let store: Arc<dyn StateStore> = flaky.clone();
            let fresh = || Simulated { quotas: gate(&store, "g"), last: None };
            let mut gates = [fresh(), fresh(), fresh()];
            let (mut now, mut used, mut all) = (NOW, HashMap::<i64, u64>::new(), 0);
            // Requests that were allowed under an id, with what they asked for.
            let mut paid = HashMap::<u8, u64>::new();
            for event in events {
                let minute = now.as_second().div_euclid(60);
                match event {
                    Event::Use { gate, rows, id } => {
                        let usage = usage(&[("rows", rows as f64)]);
                        let of = of(&list, &usage);
                        let name = id.map(|id| format!("r-{id}"));
                        let once = name.as_ref().map(|name| Once { request_id: name, question: [u8::try_from(rows).unwrap(); 32] });
                        if let Ok(held) = gates[gate].quotas.reserve(&of, once.as_ref(), now).await {
                            // A repeat of what was paid is free, and nothing else is.
                            let repeat = id.is_some_and(|id| rows > 0 && paid.get(&id) == Some(&rows));
                            let settled = held.commit(&of, now);
                            if !repeat {
                                *used.entry(minute).or_default() += rows;
                                all += rows;
                                gates[gate].last = settled.map(|id| (id, rows, now));
                            }
                            if let Some(id) = id.filter(|_| rows > 0) {
                                paid.insert(id, rows);
                            }
                        }
                    }
                    Event::Abandon { gate, rows } => {
                        let usage = usage(&[("rows", rows as f64)]);
                        drop(gates[gate].quotas.reserve(&of(&list, &usage), None, now).await);
                    }
                    Event::SettleLast { gate, used: less } => {
                        let Some((id, rows, then)) = gates[gate].last.take().filter(|last| less <= last.1) else {
                            continue;
                        };
                        let settled = gates[gate].quotas.settle(id, &usage(&[("rows", less as f64)])).await;
                        if matches!(settled, Ok(_) | Err(SettleError::NotHandedIn(_))) {
                            *used.entry(then.as_second().div_euclid(60)).or_default() -= rows - less;
                        }
                        // What was not handed in may be lost, and then counts as used.
                        all -= if settled.is_ok() { rows - less } else { 0 };
                    }
                    // The store may not be reached: it is tried again at the next time.
                    Event::Tend { gate } => drop(gates[gate].quotas.tend(now).await),
                    Event::Crash { gate } => gates[gate] = fresh(),
                    Event::Stop { gate } => {
                        drop(gates[gate].quotas.stop(now).await);
                        gates[gate] = fresh();
                    }
                    Event::Fail { fault } => flaky.fail(fault),
                    Event::Pass { seconds } => now += SignedDuration::from_secs(seconds),
                }
                prop_assert!(used.values().all(|used| *used <= limit), "{used:?} of {limit}");
            }
            flaky.fail(Fault::None);
            for gate in &gates {
                gate.quotas.stop(now).await.unwrap();
            }
            prop_assert!(total(&store, "rows").await <= Amount::whole(all));
            Ok(())
        });
        outcome?;
    }
}

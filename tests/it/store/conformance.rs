//! The laws of `StateStore`, as cases that run on every store.
//!
//! A store is put to the test with a function that opens a fresh one, and one line:
//! `conformance!(fresh);` where `async fn fresh() -> Fresh`; a function that gives `Option<Fresh>` may
//! pass, where the store cannot be had. Where another sweeps than who is asked, two functions are named. Cases
//! refuse to know which store they run on.

pub(crate) mod licenses;
pub(crate) mod quotas;
pub(crate) mod standings;
pub(crate) mod usage;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use tollgate::domain::amount::Amount;
use tollgate::domain::standing::{Standing, Status, Target, Which};
use tollgate::domain::time::Timestamp;
use tollgate::store::{Acceptance, Change, Registered, StateStore, Take, UsageBatch, UsageKey, UsageRow};
use uuid::Uuid;

/// A store that knows nothing yet, and what must live as long as it.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn StateStore>,
    /// What sweeps it: itself, but for a hub, which sweeps a store of its own.
    pub(crate) keeper: Arc<dyn StateStore>,
    pub(crate) beside: Box<dyn Any + Send>,
}

impl Fresh {
    /// A store that sweeps itself.
    pub(crate) fn new(store: Arc<dyn StateStore>, beside: impl Any + Send) -> Self {
        Self { keeper: Arc::clone(&store), store, beside: Box::new(beside) }
    }
}

/// Runs a case on a fresh store, if there is one, and closes it.
pub(crate) async fn run<F: Future<Output = ()>>(
    fresh: impl Into<Option<Fresh>>,
    case: impl FnOnce(Arc<dyn StateStore>) -> F,
) {
    run_swept(fresh, |store, _| case(store)).await;
}

/// The same, for a case that sweeps.
pub(crate) async fn run_swept<F: Future<Output = ()>>(
    fresh: impl Into<Option<Fresh>>,
    case: impl FnOnce(Arc<dyn StateStore>, Arc<dyn StateStore>) -> F,
) {
    let Some(Fresh { store, keeper, beside }) = fresh.into() else { return };
    case(Arc::clone(&store), keeper).await;
    store.close().await;
    drop(beside);
}

/// Makes one test of each case, on the stores that this function opens.
macro_rules! conformance {
    ($fresh:path) => {
        conformance!($fresh, $fresh);
    };
    ($fresh:path, $swept:path) => {
        conformance!($swept; run_swept quotas:
            a_sweep_forgets_only_what_ended,
            a_lease_of_a_window_that_ended_is_nothing,
        );
        conformance!($fresh; run licenses:
            a_license_is_registered_once,
            of_many_who_register_one_is_first,
            licenses_are_listed_by_id,
            licenses_are_filtered,
            terms_are_accepted_once,
            records_are_counted,
            a_closed_store_says_so,
        );
        conformance!($fresh; run standings:
            a_change_is_made_from_where_it_may,
            an_unknown_target_is_valid,
            targets_are_told_apart,
            revisions_follow_each_other,
            a_target_is_fed_once,
            the_feed_comes_in_pages,
            many_changes_at_once_get_a_revision_each,
            of_many_who_revoke_one_succeeds,
            no_reader_misses_a_revision,
            time_never_goes_back,
            news_comes_with_a_change,
        );
        conformance!($fresh; run quotas:
            what_is_left_is_granted,
            less_than_is_of_use_is_not_granted,
            a_look_takes_nothing,
            a_lease_is_taken_once,
            a_lowered_limit_takes_nothing_away,
            many_takers_never_get_more_than_the_limit,
            a_lease_is_given_back_once,
            a_lease_goes_on_with_what_is_kept,
            no_more_is_given_back_than_was_taken,
            windows_and_counters_are_apart,
            a_request_is_claimed_once,
            of_many_who_claim_one_is_first,
        );
        conformance!($fresh; run usage:
            a_batch_counts_once,
            of_many_who_send_a_batch_one_is_counted,
            an_earlier_batch_is_passed_over,
            gates_and_boots_count_apart,
            usage_adds_up,
            corrections_take_away,
            usage_is_filtered,
            hours_are_half_open,
            usage_comes_in_pages,
        );
    };
    ($fresh:path; $run:ident $module:ident: $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fresh = $fresh().await;
                $crate::store::conformance::$run(fresh, $crate::store::conformance::$module::$case).await;
            }
        )*
    };
}

/// So many seconds after the beginning of time.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn whole(number: u64) -> Amount {
    Amount::whole(number)
}

pub(crate) fn license(id: &str) -> Registered {
    Registered {
        id: id.to_owned(),
        issuer: "issuer".to_owned(),
        assignee: "assignee".to_owned(),
        kid: "key-1".to_owned(),
        not_before: at(1_000),
        expires: at(2_000),
        token: format!("header.{id}.signature"),
        registered_at: at(1_500),
        registered_by: "ops".to_owned(),
    }
}

pub(crate) fn target(id: &str) -> Target {
    Target { issuer: "issuer".to_owned(), which: Which::License(id.to_owned()) }
}

/// The change of a target to a status, from where that can be reached.
pub(crate) fn change(target: Target, status: Status) -> Change {
    let reason = format!("{status} for a test");
    let standing =
        Standing { target, status, reason, actor: "ops".to_owned(), since: at(1_600), revision: 0 };
    Change { standing, from: status.reached_from() }
}

pub(crate) fn acceptance(license: &str) -> Acceptance {
    Acceptance {
        issuer: "issuer".to_owned(),
        license: license.to_owned(),
        terms_hash: "sha-256:terms".to_owned(),
        accepted_by: "person".to_owned(),
        at: at(1_700),
    }
}

/// To take from a window of 100 that ends at 2000, under a lease of its own.
pub(crate) fn take(want: u64) -> Take {
    Take {
        counter: "license/metric".to_owned(),
        window: at(1_000),
        ends: at(2_000),
        lease: Uuid::new_v4(),
        gate: "gate".to_owned(),
        want: whole(want),
        least: Amount::ZERO,
        limit: whole(100),
    }
}

/// The key of a user's reads in an hour.
pub(crate) fn key(user: &str, hour: i64) -> UsageKey {
    UsageKey {
        issuer: "issuer".to_owned(),
        license: "license".to_owned(),
        assignee: "assignee".to_owned(),
        user: user.to_owned(),
        project: String::new(),
        metric: "reads".to_owned(),
        hour: at(hour * 3_600),
    }
}

pub(crate) fn used(key: UsageKey, amount: u64) -> UsageRow {
    UsageRow { key, amount: whole(amount) }
}

/// A batch of the one gate's one boot.
pub(crate) fn batch(sequence: u64, rows: Vec<UsageRow>) -> UsageBatch {
    UsageBatch { gate: "gate".to_owned(), boot: Uuid::from_u128(1), sequence, rows }
}

/// Does something in many tasks at once, and gives what came of it.
pub(crate) async fn at_once<T, F>(tasks: u64, work: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..tasks).map(|number| tokio::spawn(work(number))).collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

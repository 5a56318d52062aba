//! Quotas are set aside and never twice; requests are claimed once; only what ended is forgotten.

use std::sync::Arc;

use tollgate::domain::amount::Amount;
use tollgate::store::{Claim, Claimed, StateStore, Take, Taken};
use uuid::Uuid;

use super::{at, at_once, take, whole};

fn taken(granted: u64, remaining: u64) -> Taken {
    Taken { granted: whole(granted), remaining: whole(remaining) }
}

async fn remaining(store: &Arc<dyn StateStore>, of: &Take) -> Amount {
    let look = Take { want: Amount::ZERO, lease: Uuid::new_v4(), ..of.clone() };
    let looked = store.take(&look).await.unwrap();
    assert_eq!(looked.granted, Amount::ZERO);
    looked.remaining
}

pub(crate) async fn what_is_left_is_granted(store: Arc<dyn StateStore>) {
    assert_eq!(store.take(&take(60)).await, Ok(taken(60, 40)));
    assert_eq!(store.take(&take(60)).await, Ok(taken(40, 0)), "a part, where there is no more");
    assert_eq!(store.take(&take(60)).await, Ok(taken(0, 0)));
    // Exactly: no millionth more.
    let millionth = Take { want: Amount::of_millionths(1), ..take(0) };
    assert_eq!(store.take(&millionth).await, Ok(taken(0, 0)));
}

pub(crate) async fn less_than_is_of_use_is_not_granted(store: Arc<dyn StateStore>) {
    let at_least = |least: u64| Take { least: whole(least), ..take(200) };
    let too_much = at_least(101);
    assert_eq!(store.take(&too_much).await, Ok(taken(0, 100)), "of a window that nobody took from");
    assert_eq!(store.take(&take(60)).await, Ok(taken(60, 40)));
    assert_eq!(store.take(&at_least(41)).await, Ok(taken(0, 40)));
    assert_eq!(store.give_back(too_much.lease, whole(60)).await, Ok(()), "nothing was leased");
    assert_eq!(remaining(&store, &take(0)).await, whole(40));
    assert_eq!(store.take(&at_least(40)).await, Ok(taken(40, 0)), "a part of what is wanted, and enough");
    assert_eq!(store.take(&Take { least: whole(1), ..take(1) }).await, Ok(taken(0, 0)));
}

pub(crate) async fn a_look_takes_nothing(store: Arc<dyn StateStore>) {
    for _ in 0..3 {
        assert_eq!(store.take(&take(0)).await, Ok(taken(0, 100)));
    }
    store.take(&take(30)).await.unwrap();
    assert_eq!(store.take(&take(0)).await, Ok(taken(0, 70)));
}

pub(crate) async fn a_lease_is_taken_once(store: Arc<dyn StateStore>) {
    let first = take(30);
    assert_eq!(store.take(&first).await, Ok(taken(30, 70)));
    assert_eq!(store.take(&first).await, Ok(taken(30, 70)), "the same lease has what it has");
    assert_eq!(remaining(&store, &first).await, whole(70));
}

pub(crate) async fn a_lowered_limit_takes_nothing_away(store: Arc<dyn StateStore>) {
    store.take(&take(60)).await.unwrap();
    assert_eq!(store.take(&Take { limit: whole(50), ..take(1) }).await, Ok(taken(0, 0)));
    assert_eq!(store.take(&Take { limit: whole(70), ..take(60) }).await, Ok(taken(10, 0)));
}

pub(crate) async fn many_takers_never_get_more_than_the_limit(store: Arc<dyn StateStore>) {
    let grants = at_once(64, |_| {
        let store = Arc::clone(&store);
        async move { store.take(&take(3)).await.unwrap().granted }
    })
    .await;
    assert_eq!(grants.iter().copied().sum::<Amount>(), whole(100));
    assert_eq!(grants.iter().filter(|granted| **granted == whole(3)).count(), 33);
    assert_eq!(grants.iter().filter(|granted| **granted == whole(1)).count(), 1);
    assert_eq!(remaining(&store, &take(0)).await, Amount::ZERO);
}

pub(crate) async fn a_lease_is_given_back_once(store: Arc<dyn StateStore>) {
    let (first, second) = (take(30), take(40));
    store.take(&first).await.unwrap();
    store.take(&second).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.give_back(first.lease, whole(10)).await, Ok(()));
        assert_eq!(remaining(&store, &first).await, whole(40));
    }
    assert_eq!(store.give_back(Uuid::new_v4(), whole(10)).await, Ok(()), "nobody's lease");
    assert_eq!(store.give_back(second.lease, Amount::ZERO).await, Ok(()), "all of it was used");
    assert_eq!(store.give_back(second.lease, whole(40)).await, Ok(()), "it ended with that");
    assert_eq!(remaining(&store, &first).await, whole(40));
}

pub(crate) async fn no_more_is_given_back_than_was_taken(store: Arc<dyn StateStore>) {
    let (first, second) = (take(80), take(80));
    store.take(&first).await.unwrap();
    store.take(&second).await.unwrap();
    store.give_back(second.lease, whole(1_000)).await.unwrap();
    assert_eq!(remaining(&store, &first).await, whole(20), "the second had no more than 20");
    store.give_back(first.lease, whole(1_000)).await.unwrap();
    assert_eq!(remaining(&store, &first).await, whole(100));
}

pub(crate) async fn a_lease_goes_on_with_what_is_kept(store: Arc<dyn StateStore>) {
    let (first, second) = (take(60), take(40));
    store.take(&first).await.unwrap();
    store.take(&second).await.unwrap();
    for (kept, left) in [(45, 15), (45, 15), (50, 15), (1_000, 15), (30, 30)] {
        assert_eq!(store.keep(first.lease, whole(kept)).await, Ok(()));
        assert_eq!(remaining(&store, &first).await, whole(left), "{kept} kept");
    }
    assert_eq!(store.keep(Uuid::new_v4(), whole(1)).await, Ok(()), "nobody's lease");
    assert_eq!(store.give_back(first.lease, whole(60)).await, Ok(()), "it has no more than 30");
    assert_eq!(remaining(&store, &first).await, whole(60));
    assert_eq!(store.keep(first.lease, Amount::ZERO).await, Ok(()), "it ended");
    assert_eq!(store.keep(second.lease, Amount::ZERO).await, Ok(()));
    assert_eq!(remaining(&store, &first).await, whole(100));
    assert_eq!(store.give_back(second.lease, whole(40)).await, Ok(()), "it has nothing");
    assert_eq!(remaining(&store, &first).await, whole(100));
}

pub(crate) async fn windows_and_counters_are_apart(store: Arc<dyn StateStore>) {
    store.take(&take(100)).await.unwrap();
    let later = Take { window: at(2_000), ends: at(3_000), ..take(70) };
    let other = Take { counter: "license/other".to_owned(), ..take(50) };
    assert_eq!(store.take(&later).await, Ok(taken(70, 30)));
    assert_eq!(store.take(&other).await, Ok(taken(50, 50)));
    store.give_back(other.lease, whole(50)).await.unwrap();
    assert_eq!(remaining(&store, &take(0)).await, Amount::ZERO);
    assert_eq!(remaining(&store, &later).await, whole(30));
    assert_eq!(remaining(&store, &other).await, whole(100));
}

fn claim(request: &str, hash: u8, expires: i64) -> Claim {
    Claim { request: request.to_owned(), question: [hash; 32], expires: at(expires) }
}

pub(crate) async fn a_request_is_claimed_once(store: Arc<dyn StateStore>) {
    assert_eq!(store.claimed("one").await, Ok(None));
    assert_eq!(store.claim(&claim("one", 1, 100)).await, Ok(Claimed::First));
    assert_eq!(store.claim(&claim("one", 2, 100)).await, Ok(Claimed::Before([1; 32])));
    assert_eq!(store.claimed("one").await, Ok(Some([1; 32])));
    assert_eq!(store.claim(&claim("two", 2, 100)).await, Ok(Claimed::First));
}

pub(crate) async fn of_many_who_claim_one_is_first(store: Arc<dyn StateStore>) {
    let outcomes = at_once(64, |_| {
        let store = Arc::clone(&store);
        async move { store.claim(&claim("one", 1, 100)).await.unwrap() }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|claimed| **claimed == Claimed::First).count(), 1);
    assert_eq!(outcomes.iter().filter(|claimed| **claimed == Claimed::Before([1; 32])).count(), 63);
}

pub(crate) async fn a_sweep_forgets_only_what_ended(store: Arc<dyn StateStore>, keeper: Arc<dyn StateStore>) {
    let ended = take(60);
    let lasting = Take { window: at(2_000), ends: at(3_000), ..take(60) };
    store.take(&ended).await.unwrap();
    store.take(&lasting).await.unwrap();
    store.claim(&claim("ended", 1, 2_000)).await.unwrap();
    store.claim(&claim("lasting", 1, 3_000)).await.unwrap();
    keeper.sweep(at(1_999)).await.unwrap();
    assert_eq!(remaining(&store, &ended).await, whole(40));
    assert_eq!(store.claimed("ended").await, Ok(Some([1; 32])));
    keeper.sweep(at(2_001)).await.unwrap();
    assert_eq!(remaining(&store, &ended).await, whole(100));
    assert_eq!(remaining(&store, &lasting).await, whole(40));
    assert_eq!(store.claimed("ended").await, Ok(None));
    assert_eq!(store.claimed("lasting").await, Ok(Some([1; 32])));
    store.give_back(lasting.lease, whole(60)).await.unwrap();
    assert_eq!(remaining(&store, &lasting).await, whole(100), "its lease lasted too");
}

pub(crate) async fn a_lease_of_a_window_that_ended_is_nothing(
    store: Arc<dyn StateStore>,
    keeper: Arc<dyn StateStore>,
) {
    let ended = take(60);
    store.take(&ended).await.unwrap();
    keeper.sweep(at(2_001)).await.unwrap();
    store.take(&take(50)).await.unwrap();
    assert_eq!(store.give_back(ended.lease, whole(60)).await, Ok(()));
    assert_eq!(remaining(&store, &ended).await, whole(50));
}

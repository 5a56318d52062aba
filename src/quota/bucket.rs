//! One counter in one window, as one gate holds it: chunks set aside in the store, spent from memory.
//!
//! The law: what is spent here and held here was set aside in the store, and the store sets aside no
//! more than the limit. Refuses to spend what it does not hold, and to hold much of what is left.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

use super::window::Window;
use crate::domain::Amount;
use crate::domain::time::Timestamp;
use crate::store::{StateStore, StoreError, Take};

/// For how long a chunk is to last, by the demand of late: long enough to ride out a failover.
const LASTS: i64 = 15;

/// The time that demand is averaged over, in milliseconds.
const AVERAGED: i128 = 5_000;

/// The share of what is left that one chunk may take, so that other gates find something.
const SHARE: u32 = 8;

/// After this time in which nothing is used, what is held goes back.
const IDLE: SignedDuration = SignedDuration::from_secs(3);

/// For how long a spent lease is kept, since a reservation may still be settled for less.
pub(super) const SETTLED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// A counter, the beginning of a window, and the limit in it.
pub(super) type Key = (String, Timestamp, Amount);

/// The chunks of one counter in one window, set aside under one limit.
#[derive(Debug)]
pub(super) struct Bucket {
    name: String,
    window: Window,
    /// The most that may be set aside in the window, by all together. Who has another limit for the same
    /// counter has another bucket: what was set aside under a higher limit may be above a lower one.
    limit: Amount,
    purse: Mutex<Purse>,
    /// One at a time asks the store.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The turn to ask the store.
type Turn = OwnedMutexGuard<()>;

#[derive(Debug, Default)]
struct Purse {
    /// What can be spent.
    left: Amount,
    /// What was set aside under each lease, the latest last.
    leases: Vec<Lease>,
    /// What the store had left when it was last asked.
    remaining: Option<Amount>,
    /// Spent since the last refill.
    spent: Amount,
    refilled_at: Option<Timestamp>,
    /// When something was last set aside or spent: a denial keeps nothing from others.
    used_at: Option<Timestamp>,
    /// When somebody last wanted something, and may have to be told what is left.
    asked_at: Option<Timestamp>,
    /// Spent in a second, of late.
    demand: Amount,
    /// What was needed last.
    grain: Option<Amount>,
    /// What the last chunk was.
    chunk: Amount,
    /// What was asked of the store without an answer. It may have set that aside, so it is asked for again, under
    /// the same lease, before anything else.
    unanswered: Option<Take>,
    /// What is on its way back to the store, the first first.
    returned: VecDeque<Return>,
    /// It went back to the store; whoever still holds the bucket must look for another.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: Uuid,
    /// What the store has under it, once it knows all that is on its way back.
    amount: Amount,
    /// Since when all of it is spent: from then on it is needed for what may still be settled for less.
    spent_at: Option<Timestamp>,
}

/// What goes back to the store.
#[derive(Clone, Copy, Debug)]
enum Return {
    /// All but so much of a lease, of which the rest is spent, and may come back.
    Part(Uuid, Amount),
    /// So much of a lease, which ends.
    Rest(Uuid, Amount),
}

/// Why nothing was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unspent {
    /// There is not so much: this is what is left.
    Exceeded(Amount),
    /// The store would have to say, and cannot.
    Unreachable(StoreError),
    /// The bucket was given back: look for another.
    Closed,
}

/// How an attempt to spend from memory went.
enum Attempt {
    Spent,
    /// There is enough, and the next chunk should be fetched.
    SpentAndLow,
    Short,
    Closed,
}

impl Bucket {
    pub(super) fn new(name: String, window: Window, limit: Amount) -> Self {
        Self { name, window, limit, purse: Mutex::default(), turn: Arc::default() }
    }

    /// Spends `need`, from memory where it can. With nothing needed, only wants something to be left.
    pub(super) async fn spend(
        self: &Arc<Self>,
        store: &Arc<dyn StateStore>,
        gate: &str,
        need: Amount,
        now: Timestamp,
    ) -> Result<(), Unspent> {
        loop {
            match self.attempt(need, now) {
                Attempt::Spent => return Ok(()),
                Attempt::SpentAndLow => {
                    self.prefetch(store, gate, need, now);
                    return Ok(());
                }
                Attempt::Closed => return Err(Unspent::Closed),
                Attempt::Short => {}
            }
            let turn = Arc::clone(&self.turn).lock_owned().await;
            // Another may have refilled meanwhile.
            match self.attempt(need, now) {
                Attempt::Spent | Attempt::SpentAndLow => return Ok(()),
                Attempt::Closed => return Err(Unspent::Closed),
                Attempt::Short => {}
            }
            let refilled = self.refill(store, gate, need, now, turn).await;
            let (suffices, _turn) = refilled.map_err(Unspent::Unreachable)?;
            // Before the turn ends: what was set aside must not go back until it was spent from. What there is
            // may also suffice because somebody gave back in the meantime.
            match self.attempt(need, now) {
                Attempt::Spent | Attempt::SpentAndLow => return Ok(()),
                Attempt::Closed => return Err(Unspent::Closed),
                // It sufficed, and others were faster.
                Attempt::Short if suffices => {}
                Attempt::Short => return Err(Unspent::Exceeded(self.remaining().unwrap_or_default())),
            }
        }
    }

    fn attempt(&self, need: Amount, now: Timestamp) -> Attempt {
        let mut purse = self.lock();
        purse.asked_at = Some(now);
        if purse.closed {
            return Attempt::Closed;
        }
        if purse.left < need.max(Amount::of_millionths(1)) {
            return Attempt::Short;
        }
        if need.is_positive() {
            purse.used_at = Some(now);
        }
        purse.left -= need;
        purse.spent += need;
        let low = purse.left < purse.chunk.divided_by(2) && purse.chunk > need;
        if low && purse.remaining.is_some_and(Amount::is_positive) {
            Attempt::SpentAndLow
        } else {
            Attempt::Spent
        }
    }

    /// Fetches the next chunk beside the check that noticed, unless somebody asks the store already.
    fn prefetch(self: &Arc<Self>, store: &Arc<dyn StateStore>, gate: &str, need: Amount, now: Timestamp) {
        let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() else { return };
        let (bucket, store, gate) = (Arc::clone(self), Arc::clone(store), gate.to_owned());
        tokio::spawn(async move {
            let _turn = turn;
            if bucket.find_out(&store, now).await.is_err() {
                // Whoever finds the chunk spent asks again, and hears what is wrong.
                return;
            }
            let want = bucket.chunk(need, Amount::ZERO, now);
            let _ = bucket.fetch(&store, &gate, want, Amount::ZERO, now).await;
        });
    }

    /// Sets aside what is lacking, and more where there is demand; says whether it was enough when it came. On a task
    /// of its own: who wanted it may go away, and what was set aside must be known here all the same.
    async fn refill(
        self: &Arc<Self>,
        store: &Arc<dyn StateStore>,
        gate: &str,
        need: Amount,
        now: Timestamp,
        turn: Turn,
    ) -> Result<(bool, Turn), StoreError> {
        let (bucket, store, gate) = (Arc::clone(self), Arc::clone(store), gate.to_owned());
        let refilled = tokio::spawn(async move {
            bucket.find_out(&store, now).await?;
            let lacking = need.max(Amount::of_millionths(1)) - bucket.lock().left;
            if !lacking.is_positive() {
                return Ok((true, turn));
            }
            let want = bucket.chunk(need, lacking, now);
            let granted = bucket.fetch(&store, &gate, want, lacking, now).await?;
            Ok((granted >= lacking, turn))
        });
        refilled.await.unwrap_or_else(|stopped| Err(StoreError::Unavailable(stopped.to_string())))
    }

    /// Sets a chunk aside: `want` if there is so much, and nothing if there is less than `least`, which is of
    /// use to others. In turn only.
    async fn fetch(
        &self,
        store: &Arc<dyn StateStore>,
        gate: &str,
        want: Amount,
        least: Amount,
        now: Timestamp,
    ) -> Result<Amount, StoreError> {
        if !want.is_positive() {
            return Ok(Amount::ZERO);
        }
        self.lock().unanswered = Some(Take {
            counter: self.name.clone(),
            window: self.window.start,
            ends: self.window.end.unwrap_or(Timestamp::MAX),
            lease: Uuid::new_v4(),
            gate: gate.to_owned(),
            want,
            least,
            limit: self.limit,
        });
        self.find_out(store, now).await
    }

    /// Asks what was asked without an answer, if anything was. In turn only.
    async fn find_out(&self, store: &Arc<dyn StateStore>, now: Timestamp) -> Result<Amount, StoreError> {
        let Some(take) = self.lock().unanswered.clone() else { return Ok(Amount::ZERO) };
        let taken = store.take(&take).await?;
        let mut purse = self.lock();
        purse.unanswered = None;
        purse.remaining = Some(taken.remaining);
        if taken.granted.is_positive() {
            purse.used_at = Some(now);
            purse.left += taken.granted;
            purse.chunk = taken.granted;
            purse.leases.push(Lease { id: take.lease, amount: taken.granted, spent_at: None });
        }
        Ok(taken.granted)
    }

    /// How much to set aside next: what the demand of some seconds needs, but no more than a share of
    /// what is left; near the end, just what is lacking. Always as often as a whole what is needed at
    /// once: parts of it that are left at several gates are of use to none.
    fn chunk(&self, need: Amount, lacking: Amount, now: Timestamp) -> Amount {
        let mut purse = self.lock();
        purse.average(now);
        let share = purse.remaining.unwrap_or(self.limit).divided_by(SHARE);
        let demand = Amount::of_millionths(purse.demand.millionths().saturating_mul(i128::from(LASTS)));
        if need.is_positive() {
            purse.grain = Some(need);
        }
        let grain = purse.grain.unwrap_or(Amount::ONE);
        // Who needs nothing looks whether anything is left, and finds what the next one needs.
        let least = if need.is_positive() || !lacking.is_positive() { lacking } else { grain };
        demand.min(share).in_portions_of(grain).max(least)
    }

    /// Puts back what was spent and not used.
    pub(super) fn put_back(&self, amount: Amount) {
        let mut purse = self.lock();
        purse.left += amount;
        purse.spent -= amount;
    }

    /// What is left for this gate, as far as it knows; `None` before the store was asked.
    pub(super) fn remaining(&self) -> Option<Amount> {
        let purse = self.lock();
        purse.remaining.map(|remaining| remaining + purse.left)
    }

    /// What is held and not spent.
    pub(super) fn held(&self) -> Amount {
        self.lock().left
    }

    /// What tells it from others.
    pub(super) fn key(&self) -> Key {
        (self.name.clone(), self.window.start, self.limit)
    }

    /// Ends the leases that are no longer needed, and gives back what is held without demand, or all of
    /// it where the gate stops. Says whether the bucket can be forgotten.
    pub(super) async fn settle(
        &self,
        store: &Arc<dyn StateStore>,
        now: Timestamp,
        all: bool,
    ) -> Result<bool, StoreError> {
        let over = self.window.end.is_some_and(|end| now >= end);
        if over && !all {
            // What is left dies with the window; the store forgets it by itself.
            self.lock().closed = true;
            return Ok(true);
        }
        let _turn = self.turn.lock().await;
        self.find_out(store, now).await?;
        self.lock().collect(now, all);
        // Peeked at, and taken out once it went back: a return may be repeated, and must not be forgotten.
        while let Some(back) = self.next_returned() {
            match back {
                Return::Part(lease, kept) => store.keep(lease, kept).await?,
                Return::Rest(lease, rest) => store.give_back(lease, rest).await?,
            }
            self.lock().returned.pop_front();
        }
        // Not before: who finds it closed forgets it, and what is still on its way back.
        let mut purse = self.lock();
        let empty =
            (is_idle(purse.asked_at, now) || all) && purse.leases.is_empty() && !purse.left.is_positive();
        purse.closed |= empty;
        Ok(empty)
    }

    fn next_returned(&self) -> Option<Return> {
        self.lock().returned.front().copied()
    }

    fn lock(&self) -> MutexGuard<'_, Purse> {
        self.purse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purse {
    /// Takes what was spent since the last refill into the demand: a mean that fades with time, as of an
    /// exponential decay in its implicit form, which needs whole numbers only. However close refills are
    /// to each other, a burst counts as what it is over the time that is averaged over, and not more.
    fn average(&mut self, now: Timestamp) {
        if let Some(since) = self.refilled_at {
            let millis = now.duration_since(since).as_millis().max(0);
            let before = self.demand.millionths().saturating_mul(AVERAGED);
            let spent = self.spent.millionths().saturating_mul(1000);
            self.demand = Amount::of_millionths(before.saturating_add(spent) / (AVERAGED + millis));
        }
        self.refilled_at = Some(now);
        self.spent = Amount::ZERO;
    }

    /// Takes out what is to go back, the latest lease first: they cover what is left, and those before are spent. What
    /// was spent of a lease stays with it as long as it may come back.
    fn collect(&mut self, now: Timestamp, all: bool) {
        let goes_back = is_idle(self.used_at, now) || all;
        if goes_back {
            self.chunk = Amount::ZERO;
        }
        let (mut covered, mut kept) = (Amount::ZERO, Vec::new());
        for mut lease in std::mem::take(&mut self.leases).into_iter().rev() {
            let back = if goes_back { self.left.min(lease.amount) } else { Amount::ZERO };
            self.left -= back;
            self.remaining = self.remaining.map(|remaining| remaining + back);
            lease.amount -= back;
            lease.spent_at = (covered >= self.left).then(|| lease.spent_at.unwrap_or(now));
            covered += lease.amount;
            let settled = lease.spent_at.is_some_and(|since| now.duration_since(since) > SETTLED_WITHIN);
            if all || settled || !lease.amount.is_positive() {
                self.returned.push_back(Return::Rest(lease.id, back));
            } else {
                if back.is_positive() {
                    self.returned.push_back(Return::Part(lease.id, lease.amount));
                }
                kept.push(lease);
            }
        }
        kept.reverse();
        self.leases = kept;
    }
}

/// Whether it is long ago.
fn is_idle(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last) > IDLE)
}

//! One counter in one window, as one gate holds it: chunks set aside in the store, spent from memory.
//!
//! The law: what is spent here and held here was set aside in the store, and the store sets aside no
//! more than the limit. Refuses to spend what it does not hold, and to hold much of what is left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
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
    /// One refill at a time.
    refill: tokio::sync::Mutex<()>,
}

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
    /// Leases on their way back, with what is left of each.
    returned: Vec<(Uuid, Amount)>,
    /// It went back to the store; whoever still holds the bucket must look for another.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: Uuid,
    amount: Amount,
    taken_at: Timestamp,
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
        Self { name, window, limit, purse: Mutex::default(), refill: tokio::sync::Mutex::default() }
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
            let _alone = self.refill.lock().await;
            // Another may have refilled meanwhile.
            match self.attempt(need, now) {
                Attempt::Spent | Attempt::SpentAndLow => return Ok(()),
                Attempt::Closed => return Err(Unspent::Closed),
                Attempt::Short => {}
            }
            let lacking = need.max(Amount::of_millionths(1)) - self.lock().left;
            let want = self.chunk(need, lacking, now);
            let granted = self.fetch(store, gate, want, lacking, now).await.map_err(Unspent::Unreachable)?;
            // Before it is let go: what was set aside must not go back until it was spent from. What there is
            // may also suffice because somebody gave back in the meantime.
            match self.attempt(need, now) {
                Attempt::Spent | Attempt::SpentAndLow => return Ok(()),
                Attempt::Closed => return Err(Unspent::Closed),
                // It sufficed, and others were faster.
                Attempt::Short if granted >= lacking => {}
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

    /// Fetches the next chunk beside the check that noticed, unless one is being fetched.
    fn prefetch(self: &Arc<Self>, store: &Arc<dyn StateStore>, gate: &str, need: Amount, now: Timestamp) {
        if self.refill.try_lock().is_err() {
            return;
        }
        let (bucket, store, gate) = (Arc::clone(self), Arc::clone(store), gate.to_owned());
        tokio::spawn(async move {
            let Ok(_alone) = bucket.refill.try_lock() else { return };
            // Whoever finds the chunk spent asks again, and hears what is wrong.
            let want = bucket.chunk(need, Amount::ZERO, now);
            let _ = bucket.fetch(&store, &gate, want, Amount::ZERO, now).await;
        });
    }

    /// Sets a chunk aside: `want` if there is so much, and nothing if there is less than `least`, which is of
    /// use to others. To be called by one at a time.
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
        let lease = Uuid::new_v4();
        let take = Take {
            counter: self.name.clone(),
            window: self.window.start,
            ends: self.window.end.unwrap_or(Timestamp::MAX),
            lease,
            gate: gate.to_owned(),
            want,
            least,
            limit: self.limit,
        };
        let taken = store.take(&take).await?;
        let mut purse = self.lock();
        purse.remaining = Some(taken.remaining);
        if taken.granted.is_positive() {
            purse.used_at = Some(now);
            purse.left += taken.granted;
            purse.chunk = taken.granted;
            purse.leases.push(Lease { id: lease, amount: taken.granted, taken_at: now });
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
        let _alone = self.refill.lock().await;
        self.lock().collect(now, all);
        // Peeked at, and taken out once it went back: a return may be repeated, and must not be forgotten.
        while let Some((lease, amount)) = self.next_returned() {
            store.give_back(lease, amount).await?;
            self.lock().returned.pop();
        }
        // Not before: who finds it closed forgets it, and what is still on its way back.
        let mut purse = self.lock();
        let empty =
            (is_idle(purse.asked_at, now) || all) && purse.leases.is_empty() && !purse.left.is_positive();
        purse.closed |= empty;
        Ok(empty)
    }

    fn next_returned(&self) -> Option<(Uuid, Amount)> {
        self.lock().returned.last().copied()
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

    /// Takes out what is to go back, lease by lease.
    fn collect(&mut self, now: Timestamp, all: bool) {
        if is_idle(self.used_at, now) || all {
            while self.left.is_positive() {
                let Some(lease) = self.leases.pop() else { break };
                let amount = self.left.min(lease.amount);
                self.left -= amount;
                self.remaining = self.remaining.map(|remaining| remaining + amount);
                self.returned.push((lease.id, amount));
            }
            self.chunk = Amount::ZERO;
        }
        if is_idle(self.asked_at, now) || all {
            // What others use meanwhile is not known here.
            self.remaining = None;
        }
        let spent = |lease: &Lease| all || now.duration_since(lease.taken_at) > SETTLED_WITHIN;
        // What is held is covered by the latest leases; those before may be spent.
        let mut covered = Amount::ZERO;
        let mut kept = Vec::new();
        for lease in self.leases.drain(..).rev() {
            if covered >= self.left && spent(&lease) {
                self.returned.push((lease.id, Amount::ZERO));
            } else {
                covered += lease.amount;
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

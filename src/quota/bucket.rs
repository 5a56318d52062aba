//! One counter in one window, as one gate holds it: chunks set aside in the store, spent from memory.
//!
//! The law: what is spent here and held here was set aside in the store, and the store sets aside no
//! more than the limit. Refuses to spend what it does not hold, and to hold much of what is left.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

use super::purse::{Lease, Purse, Return, is_idle};
use super::window::Window;
use crate::domain::Amount;
use crate::domain::time::Timestamp;
use crate::store::{StateStore, StoreError, Take};

/// For how long a chunk is to last, by the demand of late: long enough to ride out a failover.
const LASTS: i64 = 15;

/// The share of what is left that one chunk may take, so that other gates find something.
const SHARE: u32 = 8;

/// A counter, the beginning of a window, and the limit in it.
pub(super) type Key = (String, Timestamp, Amount);

/// The chunks of one counter in one window, set aside under one limit.
#[derive(Debug)]
pub(super) struct Bucket {
    name: String,
    /// Who sets aside.
    gate: Arc<str>,
    window: Window,
    /// The most that may be set aside in the window, by all together. Who has another limit for the same
    /// counter has another bucket: what was set aside under a higher limit may be above a lower one.
    limit: Amount,
    purse: Mutex<Purse>,
    /// One at a time asks the store.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Wakes those who wait for the end.
    emptied: Notify,
    /// How many those are.
    watchers: AtomicUsize,
}

/// What only asks how much is left.
pub(super) fn look(counter: &str, window: Window, limit: Amount, gate: &str) -> Take {
    Take {
        counter: counter.to_owned(),
        window: window.start,
        ends: window.end.unwrap_or(Timestamp::MAX),
        lease: Uuid::nil(),
        gate: gate.to_owned(),
        want: Amount::ZERO,
        least: Amount::ZERO,
        limit,
    }
}

/// The turn to ask the store.
type Turn = OwnedMutexGuard<()>;

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
    pub(super) fn new(name: String, gate: Arc<str>, window: Window, limit: Amount) -> Self {
        Self {
            name,
            gate,
            window,
            limit,
            purse: Mutex::default(),
            turn: Arc::default(),
            emptied: Notify::new(),
            watchers: AtomicUsize::new(0),
        }
    }

    /// Spends `need`, from memory where it can. With nothing needed, only wants something to be left.
    pub(super) async fn spend(
        self: &Arc<Self>,
        store: &Arc<dyn StateStore>,
        need: Amount,
        now: Timestamp,
    ) -> Result<(), Unspent> {
        loop {
            match self.attempt(need, now) {
                Attempt::Spent => return Ok(()),
                Attempt::SpentAndLow => {
                    self.prefetch(store, need, now);
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
            let refilled = self.refill(store, need, now, turn).await;
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
        purse.spend(need, now);
        let low = purse.left < purse.chunk.divided_by(2) && purse.chunk > need;
        if low && purse.remaining.is_some_and(Amount::is_positive) {
            Attempt::SpentAndLow
        } else {
            Attempt::Spent
        }
    }

    /// Fetches the next chunk beside the check that noticed, unless somebody asks the store already.
    fn prefetch(self: &Arc<Self>, store: &Arc<dyn StateStore>, need: Amount, now: Timestamp) {
        let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() else { return };
        let (bucket, store) = (Arc::clone(self), Arc::clone(store));
        tokio::spawn(async move {
            let _turn = turn;
            if bucket.find_out(&store, now).await.is_err() {
                // Whoever finds the chunk spent asks again, and hears what is wrong.
                return;
            }
            let want = bucket.chunk(need, Amount::ZERO, now);
            let _ = bucket.fetch(&store, want, Amount::ZERO, now).await;
        });
    }

    /// Sets aside what is lacking, and more where there is demand; says whether it was enough when it came. On a task
    /// of its own: who wanted it may go away, and what was set aside must be known here all the same.
    async fn refill(
        self: &Arc<Self>,
        store: &Arc<dyn StateStore>,
        need: Amount,
        now: Timestamp,
        turn: Turn,
    ) -> Result<(bool, Turn), StoreError> {
        let (bucket, store) = (Arc::clone(self), Arc::clone(store));
        let refilled = tokio::spawn(async move {
            bucket.find_out(&store, now).await?;
            let lacking = need.max(Amount::of_millionths(1)) - bucket.lock().left;
            if !lacking.is_positive() {
                return Ok((true, turn));
            }
            let want = bucket.chunk(need, lacking, now);
            let granted = bucket.fetch(&store, want, lacking, now).await?;
            Ok((granted >= lacking, turn))
        });
        refilled.await.unwrap_or_else(|stopped| Err(StoreError::Unavailable(stopped.to_string())))
    }

    /// Sets a chunk aside: `want` if there is so much, and nothing if there is less than `least`, which is of
    /// use to others. In turn only.
    async fn fetch(
        &self,
        store: &Arc<dyn StateStore>,
        want: Amount,
        least: Amount,
        now: Timestamp,
    ) -> Result<Amount, StoreError> {
        if !want.is_positive() {
            return Ok(Amount::ZERO);
        }
        let look = look(&self.name, self.window, self.limit, &self.gate);
        self.lock().unanswered = Some(Take { lease: Uuid::new_v4(), want, least, ..look });
        self.find_out(store, now).await
    }

    /// Asks what is left, and takes nothing. In turn only.
    async fn look(&self, store: &Arc<dyn StateStore>) -> Result<(), StoreError> {
        let looked = store.take(&look(&self.name, self.window, self.limit, &self.gate)).await?;
        self.hear(&mut self.lock(), looked.remaining);
        Ok(())
    }

    /// Asks what was asked without an answer, if anything was. In turn only.
    async fn find_out(&self, store: &Arc<dyn StateStore>, now: Timestamp) -> Result<Amount, StoreError> {
        let Some(take) = self.lock().unanswered.clone() else { return Ok(Amount::ZERO) };
        let taken = store.take(&take).await?;
        let mut purse = self.lock();
        purse.unanswered = None;
        if taken.granted.is_positive() {
            purse.used_at = Some(now);
            purse.left += taken.granted;
            purse.chunk = taken.granted;
            purse.leases.push(Lease { id: take.lease, amount: taken.granted });
        }
        self.hear(&mut purse, taken.remaining);
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
        // What was denied is not what the next one needs.
        let grain = if need.is_positive() { need } else { purse.grain.unwrap_or(Amount::ONE) };
        // Who needs nothing looks whether anything is left, and finds what the next one needs.
        let least = if need.is_positive() || !lacking.is_positive() { lacking } else { grain };
        demand.min(share).in_portions_of(grain).max(least)
    }

    /// What was spent is used.
    pub(super) fn confirm(self: &Arc<Self>, store: &Arc<dyn StateStore>, amount: Amount) {
        let mut purse = self.lock();
        purse.pending -= amount;
        if self.is_unsure(&purse) {
            drop(purse);
            self.look_beside(store);
        }
    }

    /// What was spent is not used after all.
    pub(super) fn release(&self, amount: Amount) {
        let mut purse = self.lock();
        purse.pending -= amount;
        purse.put_back(amount);
    }

    /// What was used turned out to be more than was needed.
    pub(super) fn put_back(&self, amount: Amount) {
        self.lock().put_back(amount);
    }

    /// Whether somebody waits for the end, and it seems to be there: others may have given back.
    fn is_unsure(&self, purse: &Purse) -> bool {
        self.is_watched() && purse.is_empty() && !purse.dry
    }

    /// Asks what is left beside the check that noticed, unless somebody asks the store already.
    fn look_beside(self: &Arc<Self>, store: &Arc<dyn StateStore>) {
        let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() else { return };
        let (bucket, store) = (Arc::clone(self), Arc::clone(store));
        tokio::spawn(async move {
            let _turn = turn;
            // Where it cannot be asked, it is when the bucket is settled.
            let _ = bucket.look(&store).await;
        });
    }

    /// The store says what it has left.
    fn hear(&self, purse: &mut Purse, remaining: Amount) {
        purse.remaining = Some(remaining);
        purse.dry = purse.is_empty();
        if purse.dry {
            self.emptied.notify_waiters();
        }
    }

    /// What is left for this gate, as far as it knows; `None` before the store was asked.
    pub(super) fn remaining(&self) -> Option<Amount> {
        let purse = self.lock();
        purse.remaining.map(|remaining| remaining + purse.left)
    }

    /// Resolves when nothing is left, as far as this gate knows.
    pub(super) async fn emptied(&self) {
        loop {
            let mut told = pin!(self.emptied.notified());
            // Before looking, so that nothing is missed in between.
            told.as_mut().enable();
            if self.lock().dry {
                return;
            }
            told.await;
        }
    }

    /// Keeps it, and has its end found out, until it is not [watched](Self::unwatch) any more.
    pub(super) fn watch(&self) {
        self.watchers.fetch_add(1, Relaxed);
    }

    pub(super) fn unwatch(&self) {
        self.watchers.fetch_sub(1, Relaxed);
    }

    fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
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
        let is_unsure = self.is_unsure(&self.lock());
        if is_unsure {
            self.look(store).await?;
        }
        // Not before: who finds it closed forgets it, and what is still on its way back.
        let mut purse = self.lock();
        let idle = is_idle(purse.asked_at, now) && !self.is_watched();
        let empty = (idle || all) && purse.leases.is_empty() && !purse.left.is_positive();
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

//! What a gate holds of one counter in one window, and what of it goes back.
//!
//! The law: there are leases for all that is left, and for all that was spent and may come back. Knows no store: see
//! `bucket`.

use std::collections::VecDeque;

use jiff::SignedDuration;
use uuid::Uuid;

use crate::domain::Amount;
use crate::domain::time::Timestamp;
use crate::store::Take;

/// The time that demand is averaged over, in milliseconds.
const AVERAGED: i128 = 5_000;

/// After this time in which nothing is used, what is held goes back.
const IDLE: SignedDuration = SignedDuration::from_secs(3);

/// For how long a reservation may be settled for less, and what was paid under a `request_id` waits for its use.
pub(super) const SETTLED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// For how long what was spent may come back: one may come after the other.
const COMES_BACK_WITHIN: SignedDuration = SignedDuration::from_mins(20);

/// What is spent in this time is remembered in one sum.
const TOGETHER: SignedDuration = SignedDuration::from_mins(1);

/// What a gate holds of one counter in one window.
#[derive(Debug, Default)]
pub(super) struct Purse {
    /// What can be spent.
    pub(super) left: Amount,
    /// What was set aside under each lease, the latest last.
    pub(super) leases: Vec<Lease>,
    /// What the store had left when it was last asked.
    pub(super) remaining: Option<Amount>,
    /// Spent by checks of which it is not decided yet whether they use it.
    pub(super) pending: Amount,
    /// The store was asked, and nothing is left anywhere, as far as it knew.
    pub(super) dry: bool,
    /// Spent since the last refill.
    pub(super) spent: Amount,
    /// What was spent lately and may come back, the latest last, each since when.
    recent: VecDeque<(Timestamp, Amount)>,
    pub(super) refilled_at: Option<Timestamp>,
    /// When something was last set aside or spent: a denial keeps nothing from others.
    pub(super) used_at: Option<Timestamp>,
    /// When somebody last wanted something, and may have to be told what is left.
    pub(super) asked_at: Option<Timestamp>,
    /// Spent in a second, of late.
    pub(super) demand: Amount,
    /// What was needed last.
    pub(super) grain: Option<Amount>,
    /// What the last chunk was.
    pub(super) chunk: Amount,
    /// What was asked of the store without an answer. It may have set that aside, so it is asked for again, under
    /// the same lease, before anything else.
    pub(super) unanswered: Option<Take>,
    /// What is on its way back to the store, the first first.
    pub(super) returned: VecDeque<Return>,
    /// It went back to the store; whoever still holds the bucket must look for another.
    pub(super) closed: bool,
}

/// A chunk that was set aside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) id: Uuid,
    /// What the store has under it, once it knows all that is on its way back.
    pub(super) amount: Amount,
}

/// What goes back to the store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Return {
    /// All but so much of a lease, of which the rest is spent, and may come back.
    Part(Uuid, Amount),
    /// So much of a lease, which ends.
    Rest(Uuid, Amount),
}

impl Purse {
    /// Whether the store had nothing left when it was last asked, and nothing is held or may come back at once.
    pub(super) fn is_empty(&self) -> bool {
        let nothing_held = !self.left.is_positive() && !self.pending.is_positive();
        nothing_held && self.remaining.is_some_and(|remaining| !remaining.is_positive())
    }

    /// Spends what is left.
    pub(super) fn spend(&mut self, need: Amount, now: Timestamp) {
        self.left -= need;
        self.spent += need;
        self.pending += need;
        if need.is_positive() {
            (self.used_at, self.grain) = (Some(now), Some(need));
            match self.recent.back_mut().filter(|(since, _)| now.duration_since(*since) < TOGETHER) {
                Some((_, sum)) => *sum += need,
                None => self.recent.push_back((now, need)),
            }
        }
    }

    /// What was spent so lately that it may come back.
    fn recent(&mut self, now: Timestamp) -> Amount {
        let is_over = |since: Timestamp| now.duration_since(since) > COMES_BACK_WITHIN + TOGETHER;
        while self.recent.front().is_some_and(|(since, _)| is_over(*since)) {
            self.recent.pop_front();
        }
        self.recent.iter().map(|(_, sum)| *sum).sum()
    }

    /// Puts back what was spent and not used.
    pub(super) fn put_back(&mut self, amount: Amount) {
        self.left += amount;
        self.spent -= amount;
        self.dry &= !amount.is_positive();
    }

    /// Takes what was spent since the last refill into the demand: a mean that fades with time, as of an
    /// exponential decay in its implicit form, which needs whole numbers only. However close refills are
    /// to each other, a burst counts as what it is over the time that is averaged over, and not more.
    pub(super) fn average(&mut self, now: Timestamp) {
        if let Some(since) = self.refilled_at {
            let millis = now.duration_since(since).as_millis().max(0);
            let before = self.demand.millionths().saturating_mul(AVERAGED);
            let spent = self.spent.millionths().saturating_mul(1000);
            self.demand = Amount::of_millionths(before.saturating_add(spent) / (AVERAGED + millis));
        }
        self.refilled_at = Some(now);
        self.spent = Amount::ZERO;
    }

    /// Takes out what is to go back, the latest lease first. Leases are kept for what is left and for what may come
    /// back, of the latest ones.
    pub(super) fn collect(&mut self, now: Timestamp, all: bool) {
        let goes_back = is_idle(self.used_at, now) || all;
        if goes_back {
            self.chunk = Amount::ZERO;
        }
        let mut back = if goes_back { self.left } else { Amount::ZERO };
        let needed = self.recent(now) + self.left - back;
        let (mut covered, mut kept) = (Amount::ZERO, Vec::new());
        for mut lease in std::mem::take(&mut self.leases).into_iter().rev() {
            let part = back.min(lease.amount);
            back -= part;
            lease.amount -= part;
            self.left -= part;
            self.remaining = self.remaining.map(|remaining| remaining + part);
            if all || covered >= needed || !lease.amount.is_positive() {
                self.returned.push_back(Return::Rest(lease.id, part));
            } else {
                if part.is_positive() {
                    self.returned.push_back(Return::Part(lease.id, lease.amount));
                }
                covered += lease.amount;
                kept.push(lease);
            }
        }
        kept.reverse();
        self.leases = kept;
    }
}

/// Whether it is long ago.
pub(super) fn is_idle(last: Option<Timestamp>, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last) > IDLE)
}

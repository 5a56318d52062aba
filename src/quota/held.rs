//! What was taken from quotas: held until it is committed, and settled for less where less was used.
//!
//! Refuses to leak: what is neither committed nor claimed goes back when it is dropped, as it is when a
//! caller goes away in the middle of a check.

use std::sync::{Arc, PoisonError};

use jiff::SignedDuration;
use uuid::Uuid;

use super::bucket::Bucket;
use super::purse::SETTLED_WITHIN;
use super::reservation::Reservation;
use super::{Once, Quotas, REQUESTS, Use, Wanted, unreachable};
use crate::domain::outcome::QuotaState;
use crate::domain::time::Timestamp;
use crate::domain::{Amount, Code, Reason};
use crate::store::{self, Claim, UsageKey};

/// How long a request is known as the same when it comes again, at least: callers repeat after an outage.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// And at most, where a window never ends; longer than any month.
const NEVER_LONGER: SignedDuration = SignedDuration::from_hours(32 * 24);

/// What was taken from one quota.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub(super) bucket: Arc<Bucket>,
    id: String,
    pub(super) metric: String,
    pub(super) amount: Amount,
}

impl Charge {
    pub(super) fn of(wanted: &Wanted<'_>, bucket: Arc<Bucket>) -> Self {
        Self { bucket, id: wanted.quota.id.clone(), metric: wanted.quota.metric.clone(), amount: wanted.need }
    }

    /// Whether it is this quota, in this window, that it was taken from.
    fn is_of(&self, state: &QuotaState) -> bool {
        self.id == state.id && self.bucket.key().1 == state.began_at
    }
}

/// A quota that a use which goes on has taken from.
#[derive(Debug)]
pub struct Source {
    bucket: Arc<Bucket>,
    /// What was taken.
    pub metric: String,
}

impl Source {
    fn of(charge: &Charge) -> Self {
        charge.bucket.watch();
        Self { bucket: Arc::clone(&charge.bucket), metric: charge.metric.clone() }
    }

    /// Resolves when nothing is left in the window that was taken from, whoever used it, as far as this gate knows.
    pub fn emptied(&self) -> impl Future<Output = ()> + Send + use<> {
        let bucket = Arc::clone(&self.bucket);
        async move { bucket.emptied().await }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.bucket.unwatch();
    }
}

/// What a claim is made for: a request, and the question that comes with it.
pub(super) type Claimable = (String, [u8; 32]);

/// What was paid for a request that may be claimed, and not used yet.
#[derive(Debug)]
pub(super) struct Paid {
    charges: Vec<Charge>,
    usage: Vec<(String, Amount)>,
    at: Timestamp,
}

impl Paid {
    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + (self.charges.len() + self.usage.len()) * 160
    }
}

/// What a use took, until it is committed.
pub struct Held {
    quotas: Quotas,
    charges: Vec<Charge>,
    states: Vec<QuotaState>,
    /// How much is used, by metric.
    usage: Vec<(String, Amount)>,
    /// What may be claimed for it: then a repeat takes nothing, so this one stays paid whatever becomes of it, and
    /// the repeat may use it.
    claimed: Option<Claimed>,
    /// Whether what it took stays taken, and is known to.
    confirmed: bool,
    repeat: bool,
}

/// What may be claimed for a use.
#[derive(Debug)]
struct Claimed {
    once: Claimable,
    /// When it was paid.
    at: Timestamp,
    /// Whether the claim is known to be that of this use, and of no twin.
    is_own: bool,
}

impl Held {
    pub(super) fn new(quotas: &Quotas, of: &Use<'_>) -> Self {
        let named =
            of.usage.iter().filter_map(|(metric, amount)| Some((metric.clone(), Amount::used(*amount)?)));
        let request =
            (of.is_request && !of.usage.contains_key(REQUESTS)).then(|| (REQUESTS.to_owned(), Amount::ONE));
        Self {
            quotas: quotas.clone(),
            charges: Vec::new(),
            states: Vec::new(),
            usage: named.chain(request).collect(),
            claimed: None,
            confirmed: false,
            repeat: false,
        }
    }

    pub(super) fn charge(&mut self, charge: Charge) {
        self.charges.push(charge);
    }

    pub(super) fn stand(&mut self, states: Vec<QuotaState>) {
        self.states = states;
    }

    /// Repeats a request that was claimed: takes nothing, but may use what was paid for it and not used.
    pub(super) fn repeats(&mut self, claim: &Claim, now: Timestamp) {
        let once = (claim.request.clone(), claim.question);
        match self.own(&once).filter(|paid| now.duration_since(paid.at) <= SETTLED_WITHIN) {
            Some(paid) => {
                self.charges.clone_from(&paid.charges);
                self.usage.clone_from(&paid.usage);
                self.claimed = Some(Claimed { once, at: paid.at, is_own: true });
                self.confirmed = true;
            }
            None => self.repeat = true,
        }
    }

    /// Takes the payment of an earlier try out, if there is one. What twins pay from now on goes back.
    fn own(&self, once: &Claimable) -> Option<Arc<Paid>> {
        let quotas = &self.quotas.0;
        let _alone = quotas.alone.lock().unwrap_or_else(PoisonError::into_inner);
        quotas.owned.put(once.clone(), Arc::default());
        quotas.unused.take(once)
    }

    /// Makes it count once under the caller's id; a repeat gives everything back.
    pub(super) async fn claim(
        mut self,
        claim: &Claim,
        once: &Once<'_>,
        now: Timestamp,
    ) -> Result<Self, Reason> {
        // From here on it may be claimed: dropping it in the middle must not give anything back, or the
        // repeat would use what nobody paid for.
        let once_here = (claim.request.clone(), claim.question);
        self.claimed = Some(Claimed { once: once_here.clone(), at: now, is_own: false });
        let claimed = self.quotas.0.store.claim(claim).await.map_err(|error| unreachable(&error))?;
        match claimed {
            store::Claimed::First => {
                // An earlier try was paid too, and will not be claimed any more.
                if let Some(paid) = self.own(&once_here) {
                    paid.charges.iter().for_each(|charge| charge.bucket.put_back(charge.amount));
                }
                self.claimed = Some(Claimed { once: once_here, at: now, is_own: true });
            }
            store::Claimed::Before(question) => {
                self.claimed = None;
                self.put_back();
                if question != once.question {
                    return Err(conflict(once));
                }
                self.repeats(claim, now);
            }
        }
        Ok(self)
    }

    /// How the quotas stand.
    pub fn states(&self) -> &[QuotaState] {
        &self.states
    }

    /// What it takes from, to be watched by a use that goes on.
    pub fn sources(&self) -> Vec<Source> {
        let taken_from = self.charges.iter().filter(|charge| charge.amount.is_positive());
        taken_from.map(Source::of).collect()
    }

    /// The use takes place: counts it, and returns the id under which it can be settled for less, where
    /// anything was taken.
    pub fn commit(mut self, of: &Use<'_>, now: Timestamp) -> Option<Uuid> {
        if self.repeat {
            return None;
        }
        let now = self.claimed.as_ref().map_or(now, |claimed| claimed.at);
        let (charges, usage) = self.count(of, now);
        if charges.iter().all(|charge| !charge.amount.is_positive()) {
            return None;
        }
        let states = std::mem::take(&mut self.states);
        let placed =
            |state: QuotaState| Some((charges.iter().position(|charge| charge.is_of(&state))?, state));
        let states = states.into_iter().filter_map(placed).collect();
        let (id, key) = (Uuid::new_v4(), key(of, "", now));
        self.quotas.0.reservations.put(id, Arc::new(Reservation { charges, usage, key, states }));
        Some(id)
    }

    /// The same for good: there is nothing to settle. Returns how the quotas stand.
    pub fn consume(mut self, of: &Use<'_>, now: Timestamp) -> Vec<QuotaState> {
        if !self.repeat {
            self.count(of, now);
        }
        std::mem::take(&mut self.states)
    }

    fn count(&mut self, of: &Use<'_>, now: Timestamp) -> (Vec<Charge>, Vec<(String, Amount)>) {
        self.claimed = None;
        self.confirm();
        let usage = std::mem::take(&mut self.usage);
        for (metric, amount) in usage.iter().filter(|(_, amount)| amount.is_positive()) {
            self.quotas.0.meter.add(key(of, metric, now), *amount);
        }
        (std::mem::take(&mut self.charges), usage)
    }

    /// What was taken stays taken.
    fn confirm(&mut self) {
        if !std::mem::replace(&mut self.confirmed, true) {
            for charge in &self.charges {
                charge.bucket.confirm(&self.quotas.0.store, charge.amount);
            }
        }
    }

    fn put_back(&mut self) {
        for charge in self.charges.drain(..) {
            match self.confirmed {
                true => charge.bucket.put_back(charge.amount),
                false => charge.bucket.release(charge.amount),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(Claimed { once, at, is_own }) = self.claimed.take() else { return self.put_back() };
        let quotas = self.quotas.clone();
        let _alone = quotas.0.alone.lock().unwrap_or_else(PoisonError::into_inner);
        // It is claimed once: for a twin, or a twin has paid before.
        let is_surplus = quotas.0.owned.get(&once).is_some() || quotas.0.unused.get(&once).is_some();
        if !is_own && is_surplus {
            return self.put_back();
        }
        self.confirm();
        let (charges, usage) = (std::mem::take(&mut self.charges), std::mem::take(&mut self.usage));
        quotas.0.unused.put(once, Arc::new(Paid { charges, usage, at }));
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("charges", &self.charges).finish_non_exhaustive()
    }
}

/// The claim of a request under a license. It lasts as long as the windows that it takes from: in the same
/// window a repeat must not take twice.
pub(super) fn claim(of: &Use<'_>, once: &Once<'_>, wanted: &[Wanted<'_>], now: Timestamp) -> Claim {
    let parts = [of.issuer, of.license, once.request_id];
    let after = |lasts| now.saturating_add(lasts).unwrap_or(Timestamp::MAX);
    let taken_from = wanted.iter().filter(|wanted| wanted.need.is_positive());
    let ends = taken_from.map(|wanted| wanted.window.end.unwrap_or(Timestamp::MAX));
    let expires = ends.fold(after(REMEMBERED), Timestamp::max).min(after(NEVER_LONGER));
    Claim {
        // A list of texts is always JSON.
        request: serde_json::to_string(&parts).unwrap_or_default(),
        question: once.question,
        expires,
    }
}

pub(super) fn conflict(once: &Once<'_>) -> Reason {
    let admin = format!("request_id: `{}` was used for another question", once.request_id);
    Reason::new(Code::ContextInvalid, admin)
        .would_pass_if("each question has a `request_id` of its own, and only its repeats have the same")
}

/// What usage is counted under.
fn key(of: &Use<'_>, metric: &str, now: Timestamp) -> UsageKey {
    UsageKey {
        issuer: of.issuer.to_owned(),
        license: of.license.to_owned(),
        assignee: of.assignee.to_owned(),
        user: of.user.to_owned(),
        project: of.project.to_owned(),
        metric: metric.to_owned(),
        hour: hour(now),
    }
}

/// The beginning of the hour, in UTC.
fn hour(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second().div_euclid(3_600) * 3_600).unwrap_or(Timestamp::UNIX_EPOCH)
}

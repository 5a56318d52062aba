//! Quotas: how much may still be used, and how much was.
//!
//! Exact, and fast: chunks are set aside in the store and spent from memory (the private `bucket`), so the sum of
//! what gates allow never exceeds a limit. Several quotas are taken together or not at all; a denied or
//! abandoned check takes nothing. Refuses to guess: what the store would have to say, and cannot, denies.

mod bucket;
mod held;
mod purse;
mod reservation;
mod usage;
mod wanted;
pub mod window;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures_util::{FutureExt, StreamExt, stream};
use uuid::Uuid;

use crate::cache::Cache;
use crate::domain::outcome::QuotaState;
use crate::domain::terms::Quota;
use crate::domain::time::Timestamp;
use crate::domain::{Amount, Code, Reason};
use crate::store::{Claim, StateStore, StoreError};

use bucket::{Bucket, Key, Unspent};
use held::{Charge, Claimable, Paid};
pub use held::{Held, Source};
use purse::SETTLED_WITHIN;
pub use reservation::SettleError;
use reservation::{Reservation, Settlement};
use usage::Meter;
use wanted::Wanted;

/// The memory for reservations that may still be settled; the oldest are forgotten, and count in full.
const RESERVATIONS: u64 = 64 << 20;

/// The memory for settlements that may be asked for again.
const SETTLEMENTS: u64 = 16 << 20;

/// The memory for what was paid under a `request_id` and not used yet; the oldest is forgotten, and then used
/// without being counted.
const UNUSED: u64 = 4 << 20;

/// How many buckets go back to the store at once.
const SETTLED_AT_ONCE: usize = 16;

/// The metric that every check uses one of.
pub const REQUESTS: &str = "requests";

/// Who uses how much under which license.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// The license's `iss`.
    pub issuer: &'a str,
    /// The license's `jti`.
    pub license: &'a str,
    /// The license's `sub`.
    pub assignee: &'a str,
    /// The license's quotas.
    pub quotas: &'a [Quota],
    /// The user.
    pub user: &'a str,
    /// The project; empty for none.
    pub project: &'a str,
    /// How much, by metric.
    pub usage: &'a BTreeMap<String, f64>,
    /// Whether it is a request of its own, which counts as one.
    pub is_request: bool,
}

/// A request that consumes once, however often it comes.
#[derive(Clone, Debug)]
pub struct Once<'a> {
    /// The caller's id of it.
    pub request_id: &'a str,
    /// A hash of what is asked.
    pub question: [u8; 32],
}

/// Why a use is denied, and how the quotas stand.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Every quota that does not leave enough.
    pub reasons: Vec<Reason>,
    /// How they stand.
    pub states: Vec<QuotaState>,
}

/// The quotas of one gate. Clones share them.
#[derive(Clone)]
pub struct Quotas(Arc<Shared>);

struct Shared {
    store: Arc<dyn StateStore>,
    gate: Arc<str>,
    buckets: RwLock<HashMap<Key, Arc<Bucket>>>,
    reservations: Cache<Uuid, Reservation>,
    settlements: Cache<Uuid, Settlement>,
    /// One at a time looks into these memories and changes them.
    alone: Mutex<()>,
    unused: Cache<Claimable, Paid>,
    /// What was claimed here, by a use that is under way or was counted.
    owned: Cache<Claimable, ()>,
    meter: Meter,
}

impl Quotas {
    /// Quotas in `store`, for the gate of this name. `boot` tells this run of it from others.
    pub fn new(store: Arc<dyn StateStore>, gate: &str, boot: Uuid) -> Self {
        let meter = Meter::new(Arc::clone(&store), gate.to_owned(), boot);
        let within = SETTLED_WITHIN.unsigned_abs();
        Self(Arc::new(Shared {
            store,
            gate: gate.into(),
            buckets: RwLock::default(),
            reservations: Cache::bounded_for(RESERVATIONS, within, |_, reservation: &Reservation| {
                reservation.bytes()
            }),
            settlements: Cache::bounded_for(SETTLEMENTS, within, |_, settlement: &Settlement| {
                settlement.bytes()
            }),
            alone: Mutex::new(()),
            unused: Cache::bounded_for(UNUSED, within, |once: &Claimable, paid: &Paid| {
                once.0.len() + paid.bytes()
            }),
            owned: Cache::bounded_for(UNUSED, within, |once: &Claimable, ()| once.0.len()),
            meter,
        }))
    }

    /// Takes what a use needs from every quota, or nothing from any. What is returned goes back when it
    /// is dropped, unless it is [committed](Held::commit).
    ///
    /// # Errors
    /// A reason for each quota that does not leave enough.
    pub async fn reserve(
        &self,
        of: &Use<'_>,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Held, Denied> {
        let mut held = Held::new(self, of);
        let wanted = self.wanted(of, now)?;
        let claim = once.filter(|_| wanted.iter().any(|wanted| wanted.need.is_positive()));
        let claim = claim.map(|once| (once, held::claim(of, once, &wanted, now)));
        if let Some((once, claim)) = &claim
            && self.was_claimed(&claim.request, once).await?
        {
            return Ok(self.repeat(held, claim, of, now).await);
        }
        let mut reasons = Vec::new();
        for wanted in wanted.iter().filter(|wanted| wanted.is_asked) {
            match self.spend(wanted, now).await {
                Ok(bucket) => held.charge(Charge::of(wanted, bucket)),
                Err(reason) => reasons.push(reason),
            }
        }
        if !reasons.is_empty() {
            // What was taken of others goes back.
            drop(held);
            // A twin that was asked at the same time may have taken the last.
            if let Some((once, claim)) = &claim
                && self.was_claimed(&claim.request, once).await?
            {
                return Ok(self.repeat(Held::new(self, of), claim, of, now).await);
            }
            return Err(Denied { reasons, states: self.states(&wanted) });
        }
        held.stand(self.states(&wanted));
        match claim {
            Some((once, claim)) => held.claim(&claim, once, now).await.map_err(Denied::from),
            None => Ok(held),
        }
    }

    /// What [`Quotas::reserve`] would say, without taking anything.
    ///
    /// # Errors
    /// As [`Quotas::reserve`].
    pub async fn rehearse(&self, of: &Use<'_>, now: Timestamp) -> Result<Vec<QuotaState>, Denied> {
        let (mut reasons, mut states) = (Vec::new(), Vec::new());
        for wanted in self.wanted(of, now)? {
            if !wanted.is_asked {
                states.extend(self.state(&wanted));
                continue;
            }
            match self.look(&wanted).await {
                Ok(remaining) => {
                    states.push(wanted.state(remaining));
                    reasons.extend((remaining < wanted.least()).then(|| wanted.exceeded(remaining)));
                }
                Err(error) => reasons.push(unreachable(&error)),
            }
        }
        if reasons.is_empty() { Ok(states) } else { Err(Denied { reasons, states }) }
    }

    /// How the quotas stand, those of which that is known without asking the store.
    pub fn known(&self, of: &Use<'_>, now: Timestamp) -> Vec<QuotaState> {
        self.wanted(of, now).map(|wanted| self.states(&wanted)).unwrap_or_default()
    }

    /// Hands usage to the store, and gives back what is held without demand.
    ///
    /// # Errors
    /// When the store cannot be reached; it is tried again at the next call.
    pub async fn tend(&self, now: Timestamp) -> Result<(), StoreError> {
        self.0.meter.flush().await?;
        self.settle_buckets(now, false).await
    }

    /// Gives everything back and hands in all usage: the gate stops.
    ///
    /// # Errors
    /// When the store cannot be reached; what was held is lost until its window ends.
    pub async fn stop(&self, now: Timestamp) -> Result<(), StoreError> {
        // Not without usage: what is taken back of it may be used by others at once.
        self.0.meter.flush().await?;
        self.settle_buckets(now, true).await
    }

    /// Rows of usage that the store does not have yet.
    pub fn unreported(&self) -> usize {
        self.0.meter.waiting()
    }

    async fn settle_buckets(&self, now: Timestamp, all: bool) -> Result<(), StoreError> {
        let mut buckets: Vec<_> = {
            let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
            buckets.values().cloned().collect()
        };
        if all {
            // Those that hold most first: there may be no time for more.
            buckets.sort_by_cached_key(|bucket| Reverse(bucket.held()));
        }
        let settled = buckets.into_iter().map(|bucket| self.settle_bucket(bucket, now, all).boxed());
        // One that fails keeps no other from going back.
        let outcomes: Vec<Result<(), StoreError>> =
            stream::iter(settled).buffered(SETTLED_AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }

    async fn settle_bucket(&self, bucket: Arc<Bucket>, now: Timestamp, all: bool) -> Result<(), StoreError> {
        if bucket.settle(&self.0.store, now, all).await? {
            self.forget(&bucket);
        }
        Ok(())
    }

    /// Whether the same question was allowed under this id before.
    async fn was_claimed(&self, request: &str, once: &Once<'_>) -> Result<bool, Denied> {
        match self.0.store.claimed(request).await {
            Ok(None) => Ok(false),
            Ok(Some(question)) if question == once.question => Ok(true),
            Ok(Some(_)) => Err(Denied::from(held::conflict(once))),
            Err(error) => Err(Denied::from(unreachable(&error))),
        }
    }

    /// A repeat takes nothing; how the quotas stand is told all the same. Where the first was paid and never
    /// used, this is its use.
    async fn repeat(&self, mut held: Held, claim: &Claim, of: &Use<'_>, now: Timestamp) -> Held {
        let states = match self.rehearse(of, now).await {
            Ok(states) | Err(Denied { states, .. }) => states,
        };
        held.stand(states);
        held.repeats(claim, now);
        held
    }

    /// What each quota is asked for.
    fn wanted<'a>(&self, of: &Use<'a>, now: Timestamp) -> Result<Vec<Wanted<'a>>, Denied> {
        let wanted = of.quotas.iter().map(|quota| Wanted::of(of, quota, now));
        wanted.collect::<Result<_, _>>().map_err(|error| {
            let admin = format!("terms.quotas: {error}");
            Denied::from(Reason::new(Code::TermUnsupported, admin))
        })
    }

    async fn spend(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Arc<Bucket>, Reason> {
        loop {
            let bucket = self.bucket(wanted);
            let spent = bucket.spend(&self.0.store, wanted.need, now).await;
            match spent {
                Ok(()) => return Ok(bucket),
                Err(Unspent::Closed) => self.forget(&bucket),
                Err(Unspent::Exceeded(remaining)) => return Err(wanted.exceeded(remaining)),
                Err(Unspent::Unreachable(error)) => return Err(unreachable(&error)),
            }
        }
    }

    /// What is left, as the store and this gate know it.
    async fn look(&self, wanted: &Wanted<'_>) -> Result<Amount, StoreError> {
        let held = self.find(wanted).map(|bucket| bucket.held()).unwrap_or_default();
        let take = bucket::look(&wanted.counter, wanted.window, wanted.limit, &self.0.gate);
        Ok(self.0.store.take(&take).await?.remaining + held)
    }

    /// How quotas stand, those of which that is known here.
    fn states(&self, wanted: &[Wanted<'_>]) -> Vec<QuotaState> {
        wanted.iter().filter_map(|wanted| self.state(wanted)).collect()
    }

    fn state(&self, wanted: &Wanted<'_>) -> Option<QuotaState> {
        Some(wanted.state(self.find(wanted)?.remaining()?))
    }

    fn find(&self, wanted: &Wanted<'_>) -> Option<Arc<Bucket>> {
        let buckets = self.0.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.get(&wanted.key()).cloned()
    }

    fn bucket(&self, wanted: &Wanted<'_>) -> Arc<Bucket> {
        if let Some(bucket) = self.find(wanted) {
            return bucket;
        }
        let mut buckets = self.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let gate = Arc::clone(&self.0.gate);
            Arc::new(Bucket::new(wanted.counter.clone(), gate, wanted.window, wanted.limit))
        };
        Arc::clone(buckets.entry(wanted.key()).or_insert_with(fresh))
    }

    /// Lets go of a bucket that was closed, unless another is in its place.
    fn forget(&self, bucket: &Arc<Bucket>) {
        let mut buckets = self.0.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let key = bucket.key();
        if buckets.get(&key).is_some_and(|known| Arc::ptr_eq(known, bucket)) {
            buckets.remove(&key);
        }
    }
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Quotas")
    }
}

impl Denied {
    /// Whether nothing but quotas is in the way.
    pub fn is_exceeded(&self) -> bool {
        self.reasons.iter().all(|reason| reason.code == Code::QuotaExceeded)
    }
}

impl From<Reason> for Denied {
    fn from(reason: Reason) -> Self {
        Self::from(vec![reason])
    }
}

impl From<Vec<Reason>> for Denied {
    fn from(reasons: Vec<Reason>) -> Self {
        Self { reasons, states: Vec::new() }
    }
}

fn unreachable(error: &StoreError) -> Reason {
    Reason::new(Code::StateUnavailable, error.to_string())
}

#[cfg(test)]
mod tests;

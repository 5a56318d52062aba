//! What was taken from quotas: held until it is committed, and settled for less where less was used.
//!
//! Refuses to leak: what is neither committed nor claimed goes back when it is dropped, as it is when a
//! caller goes away in the middle of a check.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use uuid::Uuid;

use super::bucket::Bucket;
use super::usage::Meter;
use super::{Once, Quotas, REQUESTS, Use, Wanted, unreachable};
use crate::domain::outcome::QuotaState;
use crate::domain::time::Timestamp;
use crate::domain::{Amount, Code, Reason};
use crate::store::{Claim, Claimed, StoreError, UsageKey};

/// How long a request is known as the same when it comes again, at least: callers repeat after an outage.
pub(super) const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// And at most, where a window never ends; longer than any month.
const NEVER_LONGER: SignedDuration = SignedDuration::from_hours(32 * 24);

/// What was taken from one quota.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    bucket: Arc<Bucket>,
    metric: String,
    amount: Amount,
}

impl Charge {
    pub(super) fn of(wanted: &Wanted<'_>, bucket: Arc<Bucket>) -> Self {
        Self { bucket, metric: wanted.quota.metric.clone(), amount: wanted.need }
    }
}

/// A quota that a use which goes on has taken from.
#[derive(Clone, Debug)]
pub struct Source {
    bucket: Arc<Bucket>,
    /// What was taken.
    pub metric: String,
}

impl Source {
    /// Resolves when nothing is left in the window that was taken from, whoever used it, as far as this gate knows.
    pub fn emptied(&self) -> impl Future<Output = ()> + Send + use<> {
        let bucket = Arc::clone(&self.bucket);
        async move { bucket.emptied().await }
    }
}

/// What a use took, until it is committed.
pub struct Held {
    quotas: Quotas,
    charges: Vec<Charge>,
    states: Vec<QuotaState>,
    /// How much is used, by metric.
    usage: Vec<(String, Amount)>,
    /// The request that may be claimed for it: then a repeat takes nothing, so this one stays paid whatever becomes
    /// of it, and the repeat may use it.
    claimed: Option<String>,
    repeat: bool,
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
            repeat: false,
        }
    }

    pub(super) fn charge(&mut self, charge: Charge) {
        self.charges.push(charge);
    }

    pub(super) fn stand(&mut self, states: Vec<QuotaState>) {
        self.states = states;
    }

    /// Repeats a request that was claimed: takes nothing, but may use what was paid for it and never used.
    pub(super) fn repeats(&mut self, request: &String) {
        match self.quotas.0.unused.take(request) {
            Some(paid) => {
                self.charges.clone_from(&paid.charges);
                self.usage.clone_from(&paid.usage);
                self.claimed = Some(request.clone());
            }
            None => self.repeat = true,
        }
    }

    /// Makes it count once under the caller's id; a repeat gives everything back.
    pub(super) async fn claim(mut self, claim: &Claim, once: &Once<'_>) -> Result<Self, Reason> {
        // From here on it may be claimed: dropping it in the middle must not give anything back, or the
        // repeat would use what nobody paid for.
        self.claimed = Some(claim.request.clone());
        let claimed = self.quotas.0.store.claim(claim).await.map_err(|error| unreachable(&error))?;
        match claimed {
            Claimed::First => return Ok(self),
            Claimed::Before(question) => {
                self.claimed = None;
                self.put_back();
                if question != once.question {
                    return Err(conflict(once));
                }
            }
        }
        self.repeat = true;
        Ok(self)
    }

    /// How the quotas stand.
    pub fn states(&self) -> &[QuotaState] {
        &self.states
    }

    /// What it takes from, to be watched by a use that goes on.
    pub fn sources(&self) -> Vec<Source> {
        let taken_from = self.charges.iter().filter(|charge| charge.amount.is_positive());
        let source =
            |charge: &Charge| Source { bucket: Arc::clone(&charge.bucket), metric: charge.metric.clone() };
        taken_from.map(source).collect()
    }

    /// The use takes place: counts it, and returns the id under which it can be settled for less, where
    /// anything was taken.
    pub fn commit(mut self, of: &Use<'_>, now: Timestamp) -> Option<Uuid> {
        if self.repeat {
            return None;
        }
        let (charges, usage) = self.count(of, now);
        if charges.iter().all(|charge| !charge.amount.is_positive()) {
            return None;
        }
        let id = Uuid::new_v4();
        let (key, states) = (key(of, "", now), std::mem::take(&mut self.states));
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
        let usage = std::mem::take(&mut self.usage);
        for (metric, amount) in usage.iter().filter(|(_, amount)| amount.is_positive()) {
            self.quotas.0.meter.add(key(of, metric, now), *amount);
        }
        (std::mem::take(&mut self.charges), usage)
    }

    fn put_back(&mut self) {
        for charge in self.charges.drain(..) {
            charge.bucket.put_back(charge.amount);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.claimed.take() {
            Some(request) => {
                let (charges, usage) = (std::mem::take(&mut self.charges), std::mem::take(&mut self.usage));
                self.quotas.0.unused.put(request, Arc::new(Paid { charges, usage }));
            }
            None => self.put_back(),
        }
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

/// What was paid for a request that may be claimed, and never used.
#[derive(Debug)]
pub(super) struct Paid {
    charges: Vec<Charge>,
    usage: Vec<(String, Amount)>,
}

impl Paid {
    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        // With the request.
        size_of::<Self>() + 256 + (self.charges.len() + self.usage.len()) * 160
    }
}

/// How a reservation was settled.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) usage: BTreeMap<String, f64>,
    pub(super) states: Vec<QuotaState>,
}

impl Settlement {
    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + (self.usage.len() + self.states.len()) * 160
    }
}

/// What was taken and may be settled for less.
#[derive(Debug)]
pub(super) struct Reservation {
    charges: Vec<Charge>,
    usage: Vec<(String, Amount)>,
    key: UsageKey,
    states: Vec<QuotaState>,
}

/// Why a reservation was not settled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// It is too old, or it is another gate's.
    #[error("this gate has no such reservation: its time is over, or another gate made it")]
    Unknown,
    /// It was settled, and for something else.
    #[error("this reservation was settled already, for other amounts")]
    Otherwise,
    /// More was used than was reserved.
    #[error("`{metric}`: {used} is more than the {reserved} that were reserved")]
    TooMuch {
        /// Of what.
        metric: String,
        /// What was said to be used.
        used: Amount,
        /// What was reserved.
        reserved: Amount,
    },
    /// It is settled, and the store does not know it yet.
    #[error("it is settled, and will be handed in when that is possible: {0}")]
    NotHandedIn(#[from] StoreError),
    /// The amount is not one.
    #[error("`{0}` must be a finite amount of at least 0")]
    NotAnAmount(String),
}

impl Reservation {
    /// What it takes in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let key = &self.key;
        let texts = [&key.issuer, &key.license, &key.assignee, &key.user, &key.project];
        size_of::<Self>()
            + texts.into_iter().map(String::len).sum::<usize>()
            + (self.charges.len() + self.usage.len() + self.states.len()) * 160
    }

    /// What was used of each metric.
    pub(super) fn check(&self, usage: &BTreeMap<String, f64>) -> Result<Vec<(String, Amount)>, SettleError> {
        let reserved = |metric: &str| {
            let found = self.usage.iter().find(|(name, _)| name == metric);
            found.map_or(Amount::ZERO, |(_, amount)| *amount)
        };
        for (metric, amount) in usage {
            let used = Amount::used(*amount).ok_or_else(|| SettleError::NotAnAmount(metric.clone()))?;
            let reserved = reserved(metric);
            if used > reserved {
                return Err(SettleError::TooMuch { metric: metric.clone(), used, reserved });
            }
        }
        let used = self.usage.iter().map(|(metric, reserved)| {
            let used = match usage.get(metric) {
                Some(amount) => Amount::used(*amount).unwrap_or(*reserved),
                None if metric == REQUESTS => *reserved,
                None => Amount::ZERO,
            };
            (metric.clone(), used)
        });
        Ok(used.collect())
    }

    /// Gives the rest back, and takes it off what was counted.
    pub(super) fn settle(&self, meter: &Meter, used: &[(String, Amount)]) -> Vec<QuotaState> {
        let unused = |metric: &str, reserved: Amount| {
            let used = used.iter().find(|(name, _)| name == metric).map_or(Amount::ZERO, |(_, used)| *used);
            (reserved - used).max(Amount::ZERO)
        };
        for (metric, reserved) in &self.usage {
            let unused = unused(metric, *reserved);
            if unused.is_positive() {
                meter.add(UsageKey { metric: metric.clone(), ..self.key.clone() }, -unused);
            }
        }
        for charge in &self.charges {
            charge.bucket.put_back(unused(&charge.metric, charge.amount));
        }
        let now = self.states.iter().zip(&self.charges).map(|(state, charge)| QuotaState {
            remaining: charge.bucket.remaining().unwrap_or(state.remaining).min(state.limit),
            ..state.clone()
        });
        now.collect()
    }
}

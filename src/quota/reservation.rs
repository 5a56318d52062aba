//! What was used and may be settled for less.
//!
//! Refuses to give back more than was reserved, and to give back twice: whoever asks again is answered as
//! before.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use uuid::Uuid;

use super::held::Charge;
use super::usage::Meter;
use super::{Quotas, REQUESTS};
use crate::domain::Amount;
use crate::domain::outcome::QuotaState;
use crate::store::{StoreError, UsageKey};

impl Quotas {
    /// Says how much of a reservation was used; the rest goes back. What is answered is durable. The same
    /// settlement again is answered as before.
    ///
    /// # Errors
    /// When there is no such reservation, more was used than it has, or the store cannot be reached; then it
    /// is settled here, and handed in later.
    pub async fn settle(
        &self,
        id: Uuid,
        usage: &BTreeMap<String, f64>,
    ) -> Result<Vec<QuotaState>, SettleError> {
        let states = self.settle_once(id, usage)?;
        self.0.meter.flush().await?;
        Ok(states)
    }

    fn settle_once(&self, id: Uuid, usage: &BTreeMap<String, f64>) -> Result<Vec<QuotaState>, SettleError> {
        // Of two at once, the second finds what the first did.
        let _alone = self.0.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reservation) = self.0.reservations.get(&id) {
            let used = reservation.check(usage)?;
            self.0.reservations.take(&id);
            let states = reservation.settle(&self.0.meter, &used);
            let settlement = Settlement { usage: usage.clone(), states: states.clone() };
            self.0.settlements.put(id, Arc::new(settlement));
            return Ok(states);
        }
        let before = self.0.settlements.get(&id).ok_or(SettleError::Unknown)?;
        if before.usage == *usage { Ok(before.states.clone()) } else { Err(SettleError::Otherwise) }
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
        let names: usize = self.usage.keys().map(String::len).sum();
        size_of::<Self>() + names + (self.usage.len() + self.states.len()) * 160
    }
}

/// What was taken and may be settled for less.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) charges: Vec<Charge>,
    pub(super) usage: Vec<(String, Amount)>,
    pub(super) key: UsageKey,
    /// How the quotas stood, each with the place of its charge.
    pub(super) states: Vec<(usize, QuotaState)>,
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
        let now = self.states.iter().map(|(place, state)| {
            let left = self.charges.get(*place).and_then(|charge| charge.bucket.remaining());
            QuotaState { remaining: left.unwrap_or(state.remaining).min(state.limit), ..state.clone() }
        });
        now.collect()
    }
}

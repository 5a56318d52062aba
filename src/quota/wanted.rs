//! What a use asks of one quota: which counter, in which window, how much of it.
//!
//! Refuses to let two quotas count together that are not one, or one count as two.

use super::bucket::Key;
use super::window::{self, Window, WindowError};
use super::{REQUESTS, Use};
use crate::domain::outcome::QuotaState;
use crate::domain::terms::{Quota, QuotaScope};
use crate::domain::time::Timestamp;
use crate::domain::{Amount, Code, Reason};

/// What one quota is asked for.
pub(super) struct Wanted<'a> {
    pub(super) quota: &'a Quota,
    pub(super) counter: String,
    pub(super) window: Window,
    pub(super) limit: Amount,
    pub(super) need: Amount,
    /// Whether it has a say. A use that goes on and uses nothing of the metric hangs on nothing of it: what it
    /// needed was taken when it began.
    pub(super) is_asked: bool,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(of: &Use<'a>, quota: &'a Quota, now: Timestamp) -> Result<Self, WindowError> {
        let zone = window::time_zone(quota.time_zone.as_deref().unwrap_or("UTC"))?;
        let window = window::window(quota.window, &zone, now)?;
        // Claims and requests are not accepted with other numbers; what cannot be, leaves nothing.
        let limit = Amount::limit(quota.limit).unwrap_or_default();
        let need = match of.usage.get(&quota.metric) {
            Some(amount) => Amount::used(*amount).unwrap_or(Amount::of_millionths(i128::MAX)),
            None if of.is_request && quota.metric == REQUESTS => Amount::ONE,
            None => Amount::ZERO,
        };
        let is_asked = of.is_request || of.usage.contains_key(&quota.metric);
        Ok(Self { quota, counter: counter(of, quota), window, limit, need, is_asked })
    }

    pub(super) fn key(&self) -> Key {
        (self.counter.clone(), self.window.start, self.limit)
    }

    /// The least that must be left: where nothing is needed, something all the same.
    pub(super) fn least(&self) -> Amount {
        self.need.max(Amount::of_millionths(1))
    }

    pub(super) fn state(&self, remaining: Amount) -> QuotaState {
        QuotaState {
            id: self.quota.id.clone(),
            metric: self.quota.metric.clone(),
            limit: self.limit,
            remaining: remaining.max(Amount::ZERO).min(self.limit),
            began_at: self.window.start,
            resets_at: self.window.end,
        }
    }

    pub(super) fn exceeded(&self, remaining: Amount) -> Reason {
        let Quota { id, metric, .. } = self.quota;
        let (need, limit) = (self.need, self.limit);
        let admin = format!("quota `{id}`: {need} {metric} asked for, {remaining} of {limit} left");
        let remedy = match self.window.end {
            Some(end) => format!("at most {remaining} {metric} are used, or it is {end} or later"),
            None => format!("at most {remaining} {metric} are used"),
        };
        Reason::new(Code::QuotaExceeded, admin).would_pass_if(remedy)
    }
}

/// What a quota counts, in one text that reads one way.
fn counter(of: &Use<'_>, quota: &Quota) -> String {
    let zone = quota.time_zone.as_deref().unwrap_or("UTC");
    let window = quota.window.as_str();
    let parts: &[&str] = match quota.per {
        QuotaScope::License => &["license", of.issuer, of.license, &quota.id],
        QuotaScope::User => &["user", of.issuer, of.license, &quota.id, of.user],
        QuotaScope::Project => &["project", of.issuer, of.license, &quota.id, of.project],
        // Shared by licenses, so it is told by what is counted and not by an id.
        QuotaScope::Organization => &["organization", of.issuer, of.assignee, &quota.metric, window, zone],
    };
    // A list of texts is always JSON.
    serde_json::to_string(parts).unwrap_or_default()
}

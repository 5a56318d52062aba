//! What a gate answers: allow or deny, with every reason and every obligation.
//!
//! Refuses a third answer: "could not decide" is an error, not a decision.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::amount::Amount;
use super::ids::DecisionId;
use super::obligation::Obligation;
use super::reason::Reason;
use super::time::Timestamp;

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The use is licensed.
    Allow,
    /// The use is not licensed.
    Deny,
}

impl Effect {
    /// The word for it in records, metrics and test cases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How one quota stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaState {
    /// Its id in the license.
    pub id: String,
    /// What is counted.
    pub metric: String,
    /// The most that may be used in one window.
    pub limit: Amount,
    /// What is left, as far as the gate knows.
    pub remaining: Amount,
    /// When the window began.
    pub began_at: Timestamp,
    /// When the window ends; `None` where it ends with the license.
    pub resets_at: Option<Timestamp>,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The id of this decision and of its record.
    pub id: DecisionId,
    /// Allow or deny.
    pub effect: Effect,
    /// Whether it holds. The gate of a dry run finds out everything, and denies nothing.
    pub enforced: bool,
    /// Everything that was wrong; empty exactly when `effect` is allow, unless nothing is enforced.
    pub reasons: Vec<Reason>,
    /// What must be done; empty on a denial.
    pub obligations: Vec<Obligation>,
    /// The end of the license's validity, where the license could be read.
    pub valid_until: Option<Timestamp>,
    /// How the quotas of the license stand, where they were looked at.
    pub quotas: Vec<QuotaState>,
    /// The id under which what was taken from quotas can be settled for less.
    pub reservation: Option<Uuid>,
    /// Until when revocations are known, where they are known well enough.
    pub status_as_of: Option<Timestamp>,
    /// The revision of policies and catalog that decided.
    pub policy_revision: Arc<str>,
    /// The policies that granted; filled only when the request asked to explain.
    pub granting_policies: Vec<String>,
}

impl Decision {
    /// As enforcement points are told it: what is not enforced is allowed.
    pub fn told(mut self) -> Self {
        if !self.enforced {
            self.effect = Effect::Allow;
        }
        self
    }

    /// Whether it would be a denial if it was enforced.
    pub fn objects(&self) -> bool {
        !self.reasons.is_empty()
    }
}

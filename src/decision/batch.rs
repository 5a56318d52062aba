//! Several questions at once, with the three semantics of AuthZEN 1.0.

use super::{DecideError, Pdp};
use crate::domain::{CheckRequest, Clock, Decision, Effect};

/// How far a batch is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantic {
    /// To the end.
    ExecuteAll,
    /// Up to and including the first denial.
    DenyOnFirstDeny,
    /// Up to and including the first allow.
    PermitOnFirstPermit,
}

impl Semantic {
    /// Whether a batch goes no further than an answer of this effect.
    pub fn ends_with(self, effect: Effect) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => effect == Effect::Deny,
            Self::PermitOnFirstPermit => effect == Effect::Allow,
        }
    }
}

impl Pdp {
    /// Decides the requests in order; the answers are fewer where the semantic stops early.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn check_batch(
        &self,
        requests: &[CheckRequest],
        semantic: Semantic,
        trace_id: Option<&str>,
        clock: &Clock,
    ) -> Result<Vec<Decision>, DecideError> {
        let mut decisions = Vec::with_capacity(requests.len());
        for request in requests {
            let decision = self.check(request, trace_id, clock.now()).await?;
            let effect = decision.effect;
            decisions.push(decision);
            if semantic.ends_with(effect) {
                break;
            }
            // Nothing in a check waits: without this a batch would let no other task of its thread
            // run, and not notice that its deadline has passed.
            tokio::task::coop::consume_budget().await;
        }
        Ok(decisions)
    }
}

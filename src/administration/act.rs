//! The record of an act: who did what to which licenses, why, and what became of it.

use super::{AdminError, Administration, Operator};
use crate::audit::ActRecord;
use crate::domain::DecisionId;
use crate::domain::standing::Target;

impl Administration {
    /// Records an act that was done, or was refused. What changed nothing because its input is wrong
    /// leaves no record.
    pub(super) async fn record<T>(
        &self,
        by: &Operator,
        act: &'static str,
        target: &Target,
        reason: &str,
        done: &Result<T, AdminError>,
    ) -> Result<(), AdminError> {
        let (outcome, error) = match done {
            Ok(_) => ("done", None),
            Err(AdminError::Forbidden(words)) => ("forbidden", Some(words.clone())),
            Err(error @ AdminError::Store(_)) => ("unknown", Some(error.to_string())),
            Err(error) => ("refused", Some(error.to_string())),
        };
        let now = self.clock.now();
        let record = ActRecord {
            id: DecisionId::new(now),
            time: now,
            gate: &self.gate,
            operator: &by.name,
            act,
            target,
            reason,
            outcome,
            error: error.as_deref(),
        };
        let mut line = Vec::with_capacity(512);
        let written = match record.encode(&mut line) {
            Ok(()) => self.audit.append(line).await,
            Err(error) => Err(error.into()),
        };
        tracing::info!(operator = by.name, act, %target, outcome, "administration");
        written.map_err(|error| AdminError::Unrecorded(error.to_string()))
    }
}

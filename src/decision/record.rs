//! Step 9: every decision leaves a record, and a decision without one is a denial.

use std::time::Instant;

use super::{DecideError, Known, Pdp, deny};
use crate::audit::{LicenseFacts, Record};
use crate::config::AuditFailure;
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Code, Decision, Reason};

impl Pdp {
    /// Hands the record to the writer. Where that fails, the decision becomes a denial, unless the
    /// operator chose otherwise.
    pub(super) async fn record(
        &self,
        request: &CheckRequest,
        license: Option<&Known>,
        decision: &mut Decision,
        trace_id: Option<&str>,
        now: Timestamp,
        started: Instant,
    ) -> Result<(), DecideError> {
        let facts = license.map(|known| LicenseFacts {
            id: Some(&known.license.claims.jti),
            issuer: Some(&known.license.claims.iss),
            assignee: Some(&known.license.claims.sub),
            key_id: Some(&known.license.key.kid),
        });
        let mut line = Vec::with_capacity(1024);
        let encoded = Record::new(request, decision, now, &self.gate, facts.unwrap_or_default())
            .trace_id(trace_id)
            .duration(started.elapsed())
            .encode(&mut line);
        let written = match encoded {
            Ok(()) => self.audit.append(line).await,
            Err(error) => Err(error.into()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(crate::audit::AuditError::Closed) => Err(DecideError::Closing),
            Err(error) => {
                if self.on_audit_failure == AuditFailure::Deny {
                    deny(decision, Reason::new(Code::AuditUnavailable, error.to_string()));
                } else {
                    self.instruments.audit_lost();
                    tracing::warn!(decision = %decision.id, trace_id, %error, "answered without a record");
                }
                Ok(())
            }
        }
    }
}

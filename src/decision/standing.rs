//! Step 4: how the license stands, how fresh that knowledge is, and what somebody had to accept.

use super::{Known, Pdp, deny};
use crate::domain::time::Timestamp;
use crate::domain::{Code, Decision, Effect, Reason};
use crate::revocation::Subject;

/// Whom standings may concern.
pub(super) fn subject(license: &Known) -> Subject<'_> {
    let claims = &license.license.claims;
    Subject {
        issuer: &claims.iss,
        license: &claims.jti,
        kid: &license.license.key.kid,
        assignee: &claims.sub,
    }
}

impl Pdp {
    /// Everything that stands against the license, and that it is not known well enough.
    pub(super) fn check_standing(&self, license: &Known, now: Timestamp) -> Vec<Reason> {
        let mut reasons = self.state.revocations.reasons(subject(license));
        reasons.extend(self.state.revocations.as_of(now).err());
        reasons
    }

    /// A license that asks for the acceptance of terms wants it recorded. Waits only where this gate has
    /// not seen it.
    pub(super) async fn check_acceptance(&self, license: Option<&Known>, decision: &mut Decision) {
        let Some(claims) = license.map(|license| &license.license.claims) else { return };
        let Some(acceptance) = &claims.terms.acceptance else { return };
        let records = self.state.revocations.records();
        let registry = &self.state.registry;
        match registry.acceptance(&claims.iss, &claims.jti, &acceptance.terms_hash, records).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                let hash = &acceptance.terms_hash;
                let admin = format!("terms.acceptance: nobody accepted the terms of hash `{hash}`");
                deny(decision, Reason::new(Code::TermsNotAccepted, admin));
            }
            Err(error) if decision.effect == Effect::Allow => {
                deny(decision, Reason::new(Code::StateUnavailable, error.to_string()));
            }
            Err(_) => {}
        }
    }
}

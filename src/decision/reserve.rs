//! Step 7: what the use needs of the license's quotas is taken, and given back where it is denied after
//! all.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Known, Pdp, deny};
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Decision, Effect};
use crate::policy::{self, Licensed};
use crate::quota::{Denied, Held, Once, Use};

/// Who uses how much.
pub(super) fn of<'a>(
    license: &'a Known,
    request: &'a CheckRequest,
    usage: &'a BTreeMap<String, f64>,
) -> Use<'a> {
    let claims = &license.license.claims;
    Use {
        issuer: &claims.iss,
        license: &claims.jti,
        assignee: &claims.sub,
        quotas: &claims.terms.quotas,
        user: &request.subject.id,
        project: &request.project,
        usage,
        is_request: true,
    }
}

impl Pdp {
    /// Takes from quotas what an allowed use needs; where they do not leave it, denies.
    pub(super) async fn reserve(
        &self,
        request: &CheckRequest,
        license: Option<&Known>,
        decision: &mut Decision,
        now: Timestamp,
    ) -> Option<Held> {
        let license = license.filter(|_| decision.effect == Effect::Allow)?;
        let of = of(license, request, &request.usage);
        let taken = if request.dry_run {
            self.state.quotas.rehearse(&of, now).await.map(|states| {
                decision.quotas = states;
                None
            })
        } else {
            let once = once(license, request);
            self.state.quotas.reserve(&of, once.as_ref(), now).await.map(|held| {
                decision.quotas = held.states().to_vec();
                Some(held)
            })
        };
        taken.unwrap_or_else(|Denied { reasons, states }| {
            decision.quotas = states;
            for reason in reasons {
                deny(decision, reason);
            }
            None
        })
    }

    /// Counts what was taken for an allow that is recorded; for any other it goes back, unless a repeat may
    /// have been allowed on it.
    pub(super) fn conclude(
        &self,
        request: &CheckRequest,
        license: Option<&Known>,
        held: Option<Held>,
        decision: &mut Decision,
        now: Timestamp,
    ) {
        if let (Some(held), Some(license), Effect::Allow) = (held, license, decision.effect) {
            decision.reservation = held.commit(&of(license, request, &request.usage), now);
        }
    }
}

/// The question as one that counts once, where the caller gave it an id.
fn once<'a>(license: &Known, request: &'a CheckRequest) -> Option<Once<'a>> {
    if request.request_id.is_empty() {
        return None;
    }
    let claims = &license.license.claims;
    let licensed = Licensed { license: &license.prepared, assignee: &claims.sub, terms: &claims.terms };
    let mut hash = Sha256::new();
    hash.update(policy::question(licensed, request));
    for (metric, amount) in &request.usage {
        hash.update((metric.len() as u64).to_be_bytes());
        hash.update(metric);
        hash.update(amount.to_be_bytes());
    }
    Some(Once { request_id: &request.request_id, question: hash.finalize().into() })
}

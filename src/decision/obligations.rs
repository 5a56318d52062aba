//! Step 8: the duties of the license and of the policies that granted.
//!
//! Refuses an allow whose duties the enforcement point did not say it can fulfil.

use super::Known;
use crate::domain::{CheckRequest, Code, Obligation, Reason};
use crate::policy::Answer;

/// Every duty that comes with the use, the license's first.
pub(super) fn collect(license: Option<&Known>, answer: &Answer) -> Vec<Obligation> {
    let duties = license.into_iter().flat_map(|known| &known.license.claims.terms.duties);
    duties.chain(&answer.obligations).cloned().collect()
}

/// A reason for each duty that cannot be fulfilled.
pub(super) fn check_supported(obligations: &[Obligation], request: &CheckRequest) -> Vec<Reason> {
    let unsupported = obligations.iter().filter(|duty| !request.supported_obligations.contains(&duty.kind));
    let reason = |duty: &Obligation| {
        let admin = format!(
            "obligation `{}` is of type `{}`, which is not among those supported",
            duty.id, duty.kind
        );
        let remedy = format!(
            "the enforcement point can fulfil `{}` and names it in `supported_obligations`",
            duty.kind
        );
        Reason::new(Code::ObligationUnsupported, admin).would_pass_if(remedy)
    };
    unsupported.map(reason).collect()
}

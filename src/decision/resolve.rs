//! Steps 1 and 2: from what the request carries to a verified license.
//!
//! Refuses ids: this gate has no registry of licenses.

use std::sync::Arc;

use super::{Known, Pdp};
use crate::domain::{CheckRequest, Code, LicenseRef, Reason};
use crate::license::cache::Found;
use crate::license::{Refusal, VerifiedLicense};
use crate::policy::{LicenseFacts, Snapshot};
use crate::telemetry::instruments::CacheName;

impl Pdp {
    pub(super) fn resolve_license(
        &self,
        request: &CheckRequest,
        policies: &Snapshot,
    ) -> Result<Arc<Known>, Reason> {
        match &request.license {
            LicenseRef::Missing => {
                Err(Reason::new(Code::LicenseMissing, "the request has neither `token` nor `license_id`"))
            }
            LicenseRef::Token(token) if token.is_empty() => {
                Err(Reason::new(Code::LicenseMissing, "the request's `token` is empty"))
            }
            LicenseRef::Id(id) => Err(Reason::new(
                Code::LicenseUnknown,
                format!("no license `{id}` is registered at this gate"),
            )),
            LicenseRef::Token(token) => self.verify_token(token, policies),
        }
    }

    fn verify_token(&self, token: &str, policies: &Snapshot) -> Result<Arc<Known>, Reason> {
        let keys = self.keyring.current();
        let prepare = |license: &VerifiedLicense| {
            let prepared = policies.license(license_facts(license));
            prepared.map_err(|error| Refusal::new(Code::PolicyError, error.to_string()))
        };
        let (known, found) = self.licenses.resolve(token, &keys, prepare);
        self.instruments.cache_lookup(CacheName::VerifiedLicenses, found == Found::Verified);
        if found != Found::Verified {
            self.instruments.cache_lookup(CacheName::RejectedTokens, found == Found::Refused);
        }
        known.map_err(|refusal| refusal.reason())
    }
}

/// What policies are to know of a license.
pub fn license_facts(license: &VerifiedLicense) -> LicenseFacts<'_> {
    let VerifiedLicense { claims, digest, .. } = license;
    LicenseFacts {
        digest: *digest,
        id: &claims.jti,
        issuer: &claims.iss,
        assignee: &claims.sub,
        terms: &claims.terms,
    }
}

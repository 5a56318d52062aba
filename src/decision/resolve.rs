//! Steps 1 and 2: from what the request carries to a verified license.
//!
//! A license that is named by its id is verified as one whose token was sent: the registry is not
//! believed. Refuses ids that nobody registered.

use std::sync::Arc;

use super::{Known, Pdp};
use crate::domain::{CheckRequest, Code, LicenseRef, Reason};
use crate::license::cache::Found;
use crate::license::{Refusal, VerifiedLicense};
use crate::policy::{LicenseFacts, Snapshot};
use crate::store::Registered;
use crate::telemetry::instruments::CacheName;

/// Where the token of a request comes from.
pub(super) enum Presented<'a> {
    /// It was sent.
    Token(&'a str),
    /// It is that of a registered license.
    Registered(Arc<Registered>),
}

impl Presented<'_> {
    pub(super) fn token(&self) -> &str {
        match self {
            Self::Token(token) => token,
            Self::Registered(license) => &license.token,
        }
    }
}

impl Pdp {
    /// Finds the token. Waits only where a registered license is asked for that this gate has not seen.
    pub(super) async fn look_up<'a>(&self, request: &'a CheckRequest) -> Result<Presented<'a>, Reason> {
        match &request.license {
            LicenseRef::Missing => {
                Err(Reason::new(Code::LicenseMissing, "the request has neither `token` nor `license_id`"))
            }
            LicenseRef::Token(token) if token.is_empty() => {
                Err(Reason::new(Code::LicenseMissing, "the request's `token` is empty"))
            }
            LicenseRef::Token(token) => Ok(Presented::Token(token)),
            LicenseRef::Id(id) => {
                let records = self.state.revocations.records();
                match self.state.registry.license(id, records).await {
                    Ok(Some(license)) => Ok(Presented::Registered(license)),
                    Ok(None) => {
                        let admin = format!("no license `{id}` is registered at this gate");
                        Err(Reason::new(Code::LicenseUnknown, admin))
                    }
                    Err(error) => Err(Reason::new(Code::StateUnavailable, error.to_string())),
                }
            }
        }
    }

    pub(super) fn verify_token(&self, token: &str, policies: &Snapshot) -> Result<Arc<Known>, Reason> {
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

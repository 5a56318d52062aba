//! Registered licenses and accepted terms, as messages and back.

use super::{MAX_ROWS, Malformed, malformed, moment, moment_if_any, name, required, text, timestamp};
use crate::proto::v1 as wire;
use crate::store::{Acceptance, LicenseFilter, Registered};

/// The longest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// A license, as a message.
pub fn registered(license: &Registered) -> wire::RegisteredLicense {
    wire::RegisteredLicense {
        id: license.id.clone(),
        issuer: license.issuer.clone(),
        assignee: license.assignee.clone(),
        key_id: license.kid.clone(),
        not_before: timestamp(license.not_before),
        expires: timestamp(license.expires),
        token: license.token.clone(),
        registered_at: timestamp(license.registered_at),
        registered_by: license.registered_by.clone(),
    }
}

/// A license.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_registered(message: Option<wire::RegisteredLicense>) -> Result<Registered, Malformed> {
    let license = required("license", message)?;
    if license.token.len() > MAX_TOKEN {
        return Err(malformed("license.token", "is longer than 16 KiB"));
    }
    Ok(Registered {
        id: name("license.id", license.id)?,
        issuer: name("license.issuer", license.issuer)?,
        assignee: name("license.assignee", license.assignee)?,
        kid: name("license.key_id", license.key_id)?,
        not_before: moment("license.not_before", license.not_before)?,
        expires: moment("license.expires", license.expires)?,
        token: license.token,
        registered_at: moment("license.registered_at", license.registered_at)?,
        registered_by: text("license.registered_by", license.registered_by)?,
    })
}

/// The question for a page of licenses.
pub fn licenses(filter: &LicenseFilter, after: &str, limit: u32) -> wire::LicensesRequest {
    wire::LicensesRequest {
        issuer: filter.issuer.clone(),
        assignee: filter.assignee.clone(),
        expiring_before: filter.expiring_before.and_then(timestamp),
        after: after.to_owned(),
        limit,
    }
}

/// Which licenses, after which, and how many.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_licenses(message: wire::LicensesRequest) -> Result<(LicenseFilter, String, u32), Malformed> {
    let filter = LicenseFilter {
        issuer: message.issuer.map(|issuer| name("issuer", issuer)).transpose()?,
        assignee: message.assignee.map(|assignee| name("assignee", assignee)).transpose()?,
        expiring_before: moment_if_any("expiring_before", message.expiring_before)?,
    };
    Ok((filter, name("after", message.after)?, message.limit.min(MAX_ROWS)))
}

/// An acceptance, as a message.
pub fn acceptance(acceptance: &Acceptance) -> wire::AcceptedTerms {
    wire::AcceptedTerms {
        issuer: acceptance.issuer.clone(),
        license_id: acceptance.license.clone(),
        terms_hash: acceptance.terms_hash.clone(),
        accepted_by: acceptance.accepted_by.clone(),
        accepted_at: timestamp(acceptance.at),
    }
}

/// An acceptance.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_acceptance(message: Option<wire::AcceptedTerms>) -> Result<Acceptance, Malformed> {
    let acceptance = required("acceptance", message)?;
    Ok(Acceptance {
        issuer: name("acceptance.issuer", acceptance.issuer)?,
        license: name("acceptance.license_id", acceptance.license_id)?,
        terms_hash: name("acceptance.terms_hash", acceptance.terms_hash)?,
        accepted_by: name("acceptance.accepted_by", acceptance.accepted_by)?,
        at: moment("acceptance.accepted_at", acceptance.accepted_at)?,
    })
}

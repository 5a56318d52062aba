//! Rows that are records: JSON, which says what its fields are and survives new ones.
//!
//! Refuses what it cannot read as damage, naming the table and the row.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::domain::standing::{Standing, Status, Target, Which};
use crate::domain::time::Timestamp;
use crate::store::{Acceptance, Registered};

/// A license, without its id, which is the key.
#[derive(Serialize, Deserialize)]
pub(super) struct LicenseRow {
    issuer: String,
    assignee: String,
    kid: String,
    not_before: Timestamp,
    expires: Timestamp,
    token: String,
    registered_at: Timestamp,
    registered_by: String,
}

impl LicenseRow {
    pub(super) fn of(license: Registered) -> Self {
        Self {
            issuer: license.issuer,
            assignee: license.assignee,
            kid: license.kid,
            not_before: license.not_before,
            expires: license.expires,
            token: license.token,
            registered_at: license.registered_at,
            registered_by: license.registered_by,
        }
    }

    pub(super) fn license(self, id: &str) -> Registered {
        Registered {
            id: id.to_owned(),
            issuer: self.issuer,
            assignee: self.assignee,
            kid: self.kid,
            not_before: self.not_before,
            expires: self.expires,
            token: self.token,
            registered_at: self.registered_at,
            registered_by: self.registered_by,
        }
    }
}

/// A standing, without its target, which is the key.
#[derive(Serialize, Deserialize)]
pub(super) struct StandingRow {
    status: Status,
    reason: String,
    actor: String,
    since: Timestamp,
    revision: u64,
}

impl StandingRow {
    pub(super) fn of(standing: &Standing, revision: u64) -> Self {
        Self {
            status: standing.status,
            reason: standing.reason.clone(),
            actor: standing.actor.clone(),
            since: standing.since,
            revision,
        }
    }

    pub(super) fn standing(self, key: (&str, &str, &str)) -> Result<Standing, Fault> {
        let (issuer, kind, id) = key;
        let which =
            Which::of(kind, id).ok_or_else(|| Fault::row("standings", key, "is of an unknown kind"))?;
        Ok(Standing {
            target: Target { issuer: issuer.to_owned(), which },
            status: self.status,
            reason: self.reason,
            actor: self.actor,
            since: self.since,
            revision: self.revision,
        })
    }
}

/// An acceptance, without what it is about, which is the key.
#[derive(Serialize, Deserialize)]
pub(super) struct AcceptanceRow {
    accepted_by: String,
    at: Timestamp,
}

impl AcceptanceRow {
    pub(super) fn of(acceptance: &Acceptance) -> Self {
        Self { accepted_by: acceptance.accepted_by.clone(), at: acceptance.at }
    }

    pub(super) fn acceptance(self, (issuer, license, terms_hash): (&str, &str, &str)) -> Acceptance {
        Acceptance {
            issuer: issuer.to_owned(),
            license: license.to_owned(),
            terms_hash: terms_hash.to_owned(),
            accepted_by: self.accepted_by,
            at: self.at,
        }
    }
}

/// The bytes of a row.
pub(super) fn encode(table: &str, key: impl fmt::Debug, row: &impl Serialize) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(row).map_err(|error| Fault::row(table, key, format!("cannot be written: {error}")))
}

/// A row from its bytes. The words of the error name the row, and nothing of its content.
pub(super) fn decode<T: DeserializeOwned>(
    table: &str,
    key: impl fmt::Debug,
    bytes: &[u8],
) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("cannot be read (line {}, column {})", error.line(), error.column());
        Fault::row(table, key, place)
    })
}

/// A time from its nanoseconds.
pub(super) fn time(table: &str, key: impl fmt::Debug, nanoseconds: i128) -> Result<Timestamp, Fault> {
    Timestamp::from_nanosecond(nanoseconds).map_err(|_| Fault::row(table, key, "has no possible time"))
}

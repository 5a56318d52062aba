//! What hubs and sidecars say to each other, as messages and back: one place for both sides.
//!
//! Refuses what is missing or malformed, and what is larger than a gate ever asks for: a hub serves
//! others, and keeps what it is told.

mod amounts;
mod licenses;

use jiff::SignedDuration;
use uuid::Uuid;

use super::super::Feed;
use crate::domain::standing::{Standing, Status, Target, Which};
use crate::domain::time::Timestamp;
use crate::proto::v1 as wire;
use wire::target;

pub use amounts::{
    add_usage, claim, give_back, keep, lease, read_add_usage, read_amount, read_claim, read_keep,
    read_question, read_take, read_taken, read_usage, read_usage_rows, take, taken, usage, usage_rows,
};
pub use licenses::{acceptance, licenses, read_acceptance, read_licenses, read_registered, registered};

/// The longest name, in bytes; gates allow no longer ones in what they count and keep.
const MAX_NAME: usize = 256;

/// The longest text that joins several names, or is written by people.
const MAX_TEXT: usize = 8 << 10;

/// The most rows that are asked for, or handed in, at once.
pub const MAX_ROWS: u32 = 1_000;

/// The largest message that a hub takes.
pub const MAX_REQUEST: usize = 4 << 20;

/// The largest message that a sidecar takes: a page of the largest licenses.
pub const MAX_ANSWER: usize = 32 << 20;

/// The most bytes of lines that are handed in at once, unless one line is larger.
pub const MAX_LINES: usize = 1 << 20;

/// A field that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct Malformed {
    /// Its name.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

fn malformed(field: &'static str, problem: &'static str) -> Malformed {
    Malformed { field, problem }
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| malformed(field, "is missing"))
}

/// A name, or no longer than one.
pub fn name(field: &'static str, text: String) -> Result<String, Malformed> {
    if text.len() > MAX_NAME { Err(malformed(field, "is longer than 256 bytes")) } else { Ok(text) }
}

/// A text, or no longer than one.
pub fn text(field: &'static str, text: String) -> Result<String, Malformed> {
    if text.len() > MAX_TEXT { Err(malformed(field, "is longer than 8 KiB")) } else { Ok(text) }
}

/// A UUID.
pub fn uuid(field: &'static str, text: &str) -> Result<Uuid, Malformed> {
    text.parse().map_err(|_| malformed(field, "is not a UUID"))
}

/// A time as a message.
pub fn timestamp(time: Timestamp) -> Option<prost_types::Timestamp> {
    // The wire counts nanoseconds forward from the second, also before 1970.
    let nanoseconds = time.as_nanosecond();
    Some(prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000).try_into().ok()?,
        nanos: nanoseconds.rem_euclid(1_000_000_000).try_into().ok()?,
    })
}

fn moment(field: &'static str, time: Option<prost_types::Timestamp>) -> Result<Timestamp, Malformed> {
    let time = required(field, time)?;
    Timestamp::new(time.seconds, time.nanos).map_err(|_| malformed(field, "is not a time"))
}

fn moment_if_any(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<Timestamp>, Malformed> {
    time.map(|time| moment(field, Some(time))).transpose()
}

/// A status as a message has it.
pub fn status(status: Status) -> wire::LicenseStatus {
    match status {
        Status::Valid => wire::LicenseStatus::Valid,
        Status::Suspended => wire::LicenseStatus::Suspended,
        Status::Revoked => wire::LicenseStatus::Revoked,
    }
}

/// How a target stands, as a message.
pub fn standing(standing: &Standing) -> wire::Standing {
    let Target { issuer, which } = &standing.target;
    let which = match which {
        Which::All => target::Which::All(true),
        Which::License(id) => target::Which::LicenseId(id.clone()),
        Which::Key(kid) => target::Which::KeyId(kid.clone()),
        Which::Assignee(assignee) => target::Which::Assignee(assignee.clone()),
    };
    wire::Standing {
        target: Some(wire::Target { issuer: issuer.clone(), which: Some(which) }),
        status: status(standing.status).into(),
        reason: standing.reason.clone(),
        actor: standing.actor.clone(),
        since: timestamp(standing.since),
        revision: standing.revision,
    }
}

/// How a target stands.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_standing(message: Option<wire::Standing>) -> Result<Standing, Malformed> {
    let message = required("standing", message)?;
    let status = match message.status() {
        wire::LicenseStatus::Unspecified => return Err(malformed("standing.status", "is missing")),
        wire::LicenseStatus::Valid => Status::Valid,
        wire::LicenseStatus::Suspended => Status::Suspended,
        wire::LicenseStatus::Revoked => Status::Revoked,
    };
    let target = required("standing.target", message.target)?;
    let id = |id| name("standing.target.which", id);
    let which = match required("standing.target.which", target.which)? {
        target::Which::All(true) => Which::All,
        target::Which::All(false) => return Err(malformed("standing.target.all", "must be true")),
        target::Which::LicenseId(license) => Which::License(id(license)?),
        target::Which::KeyId(kid) => Which::Key(id(kid)?),
        target::Which::Assignee(assignee) => Which::Assignee(id(assignee)?),
    };
    Ok(Standing {
        target: Target { issuer: text("standing.target.issuer", target.issuer)?, which },
        status,
        reason: text("standing.reason", message.reason)?,
        actor: text("standing.actor", message.actor)?,
        since: moment("standing.since", message.since)?,
        revision: message.revision,
    })
}

/// What changed, as a message.
pub fn feed(feed: &Feed) -> wire::FeedResponse {
    let age = feed.age.abs();
    wire::FeedResponse {
        epoch: feed.epoch.to_string(),
        revision: feed.revision,
        records: feed.records,
        time: timestamp(feed.time),
        age: Some(prost_types::Duration { seconds: age.as_secs(), nanos: age.subsec_nanos() }),
        standings: feed.standings.iter().map(standing).collect(),
    }
}

/// What changed.
///
/// # Errors
/// Names the field that is not well-formed.
pub fn read_feed(message: wire::FeedResponse) -> Result<Feed, Malformed> {
    // Without an age, nothing says that it is fresh.
    let age = required("age", message.age)?;
    if age.seconds < 0 || !(0..1_000_000_000).contains(&age.nanos) {
        return Err(malformed("age", "is not an age"));
    }
    let standings = message.standings.into_iter().map(|standing| read_standing(Some(standing)));
    Ok(Feed {
        epoch: uuid("epoch", &message.epoch)?,
        revision: message.revision,
        records: message.records,
        time: moment("time", message.time)?,
        age: SignedDuration::new(age.seconds, age.nanos),
        standings: standings.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests;

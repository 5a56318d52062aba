//! Licenses and standings as gates tell them, in words and in JSON.
//!
//! Refuses to take for VALID what it does not know: a status of a later version is UNKNOWN.

use serde_json::{Value, json};

use crate::domain::standing::{Target, Which};
use crate::domain::time::Timestamp;
use crate::proto::v1::{self as wire, LicenseStatus, target};

/// The name of a status.
pub(in crate::cli) fn word(status: LicenseStatus) -> &'static str {
    match status {
        LicenseStatus::Valid => "VALID",
        LicenseStatus::Suspended => "SUSPENDED",
        LicenseStatus::Revoked => "REVOKED",
        LicenseStatus::Unspecified => "UNKNOWN",
    }
}

/// A time as text.
pub(in crate::cli) fn time(time: Option<prost_types::Timestamp>) -> Option<String> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok().map(|time| time.to_string())
}

/// What a standing is about.
pub(in crate::cli) fn target(standing: &wire::Standing) -> Option<Target> {
    let target = standing.target.as_ref()?;
    let which = match target.which.as_ref()? {
        target::Which::LicenseId(id) => Which::License(id.clone()),
        target::Which::KeyId(kid) => Which::Key(kid.clone()),
        target::Which::Assignee(assignee) => Which::Assignee(assignee.clone()),
        target::Which::All(_) => Which::All,
    };
    Some(Target { issuer: target.issuer.clone(), which })
}

/// How something stands, in one sentence.
pub(in crate::cli) fn sentence(standing: &wire::Standing) -> String {
    let target = target(standing).map(|target| target.to_string()).unwrap_or_default();
    let (status, since) = (word(standing.status()), time(standing.since).unwrap_or_default());
    format!("{status}: {target}, by {} at {since}: {}", standing.actor, standing.reason)
}

/// A license, for programs.
pub(in crate::cli) fn license(license: &wire::License) -> Value {
    json!({
        "id": license.id,
        "issuer": license.issuer,
        "assignee": license.assignee,
        "key_id": license.key_id,
        "not_before": time(license.not_before),
        "expires": time(license.expires),
        "registered_at": time(license.registered_at),
        "registered_by": license.registered_by,
        "status": word(license.status()),
        "standings": license.standings.iter().map(standing).collect::<Vec<_>>(),
    })
}

/// A standing, for programs; its target has the members that it has in the decision log.
pub(in crate::cli) fn standing(standing: &wire::Standing) -> Value {
    let target = target(standing).map(
        |target| json!({ "kind": target.which.kind(), "issuer": target.issuer, "id": target.which.id() }),
    );
    json!({
        "target": target,
        "status": word(standing.status()),
        "reason": standing.reason,
        "actor": standing.actor,
        "since": time(standing.since),
        "revision": standing.revision,
    })
}

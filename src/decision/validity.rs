//! Step 3: what is looked at on every check, because time passes and gates differ.
//!
//! Refuses leeway for `exp`: a license ends at the second that it names.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::{CheckRequest, Code, Reason};
use crate::license::Claims;

/// The window of validity; `nbf` and `iat` may lie `leeway` in the future.
pub(super) fn check_window(claims: &Claims, leeway: Duration, now: Timestamp) -> Option<Reason> {
    let leeway = SignedDuration::try_from(leeway).unwrap_or_default();
    let latest = now.saturating_add(leeway).unwrap_or(now);
    let begins = claims.nbf.max(claims.iat);
    if now >= claims.exp {
        let admin = format!("the license's validity ended at {}; it is {now:.0}", claims.exp);
        Some(Reason::new(Code::Expired, admin))
    } else if latest < begins {
        let admin = format!("the license's validity begins at {begins}; it is {now:.0}");
        Some(Reason::new(Code::NotYetValid, admin).would_pass_if(format!("it is {begins} or later")))
    } else {
        None
    }
}

/// The gates for which the license is meant.
pub(super) fn check_audience(claims: &Claims, ours: &[String]) -> Option<Reason> {
    let theirs = claims.aud.as_ref()?.names();
    if theirs.iter().any(|name| ours.iter().any(|own| own == name)) {
        return None;
    }
    let admin = format!("the license is for {theirs:?}; this gate's audiences are {ours:?}");
    Some(Reason::new(Code::AudienceMismatch, admin))
}

/// A term that no gate of this version enforces.
pub(super) fn check_terms_are_enforced(claims: &Claims) -> Option<Reason> {
    let term = claims.terms.unenforced()?;
    Some(Reason::new(Code::TermUnsupported, format!("terms.{term}: this gate cannot enforce it")))
}

/// The most items of any list of a request.
const MAX_ITEMS: usize = 1_000;

/// Lists that are too long to look into: a short request must not ask for a long day's work.
pub(super) fn check_lists(request: &CheckRequest) -> Vec<Reason> {
    let lists = [
        ("subject.roles", request.subject.roles.len()),
        ("combined_with", request.combined_with.len()),
        ("supported_obligations", request.supported_obligations.len()),
        ("usage", request.usage.len()),
    ];
    let long = lists.into_iter().filter(|(_, length)| *length > MAX_ITEMS);
    let reason = |(field, length)| {
        let admin = format!("{field}: it has {length} items");
        Reason::new(Code::ContextInvalid, admin)
            .would_pass_if(format!("`{field}` has at most {MAX_ITEMS} items"))
    };
    long.map(reason).collect()
}

/// The longest idempotency key, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The longest name that is counted by, in bytes: stores keep them in their keys.
const MAX_NAME: usize = 256;

/// What can be wrong with a request whatever the license says: all of it could be read, amounts of use are
/// numbers that can be added up, and the idempotency key is short enough to keep.
pub(super) fn check_request(request: &CheckRequest) -> Vec<Reason> {
    let mut reasons = request.problems.clone();
    if request.request_id.len() > MAX_REQUEST_ID {
        let admin = format!("request_id: it has {} bytes", request.request_id.len());
        let remedy = format!("`request_id` has at most {MAX_REQUEST_ID} bytes");
        reasons.push(Reason::new(Code::ContextInvalid, admin).would_pass_if(remedy));
    }
    let names = [("subject.id", &request.subject.id), ("project", &request.project)];
    reasons.extend(names.into_iter().filter(|(_, name)| name.len() > MAX_NAME).map(|(field, name)| {
        let admin = format!("{field}: it has {} bytes", name.len());
        Reason::new(Code::ContextInvalid, admin)
            .would_pass_if(format!("`{field}` has at most {MAX_NAME} bytes"))
    }));
    reasons.extend(check_usage(&request.usage));
    reasons
}

/// Amounts are numbers that can be added up, and have a name.
pub(super) fn check_usage(usage: &BTreeMap<String, f64>) -> Option<Reason> {
    let wrong =
        usage.iter().find(|(metric, amount)| !is_name(metric) || !amount.is_finite() || **amount < 0.0);
    wrong.map(|(metric, amount)| {
        let admin = format!("usage: `{metric}` is {amount}");
        Reason::new(Code::ContextInvalid, admin)
            .would_pass_if("`usage` maps names of 1 to 256 bytes to finite amounts of at least 0")
    })
}

fn is_name(metric: &str) -> bool {
    (1..=MAX_NAME).contains(&metric.len())
}

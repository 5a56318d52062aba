//! The record of one decision: who wanted to use what, for which purpose, and what was answered.
//!
//! Copies only named fields, so that a token cannot come in; refuses tokens in the wrong field
//! too, and lines over 64 KiB.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::redact::Text;
use crate::domain::request::LicenseRef;
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Decision, Obligation, Reason};

/// The longest line of a record, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// What one decision leaves behind. Borrows from the request and the answer: it is encoded
/// once and dropped.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The question.
    request: &'a CheckRequest,
    /// The answer.
    decision: &'a Decision,
    /// When it was decided.
    time: Timestamp,
    /// The name of the gate that decided.
    gate: &'a str,
    /// What is known of the license.
    license: LicenseFacts<'a>,
    /// The W3C trace that the check belongs to.
    trace_id: Option<&'a str>,
    /// How long deciding took.
    duration: Duration,
}

/// What is known of the license of a decision; nothing, where its token was refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct LicenseFacts<'a> {
    /// The license's `jti`.
    pub id: Option<&'a str>,
    /// Its `iss`.
    pub issuer: Option<&'a str>,
    /// Its `sub`.
    pub assignee: Option<&'a str>,
    /// The `kid` of the key that signed it.
    pub key_id: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// The record of `decision` about `request`, made by the gate called `gate` at `time`.
    pub fn new(
        request: &'a CheckRequest,
        decision: &'a Decision,
        time: Timestamp,
        gate: &'a str,
        license: LicenseFacts<'a>,
    ) -> Self {
        Self { request, decision, time, gate, license, trace_id: None, duration: Duration::ZERO }
    }

    /// The same, in a trace.
    #[must_use]
    pub fn trace_id(self, trace_id: Option<&'a str>) -> Self {
        Self { trace_id, ..self }
    }

    /// The same, with the time that deciding took; kept in whole microseconds.
    #[must_use]
    pub fn duration(self, duration: Duration) -> Self {
        Self { duration, ..self }
    }

    /// Appends the record to `out` as one line of JSON, newline included, at most [`MAX_LINE`] long.
    ///
    /// # Errors
    /// Only when JSON cannot be made of it, in which case `out` is as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let start = out.len();
        for limits in [ROOMY, TIGHT] {
            out.truncate(start);
            if let Err(error) = serde_json::to_writer(&mut *out, &self.line(limits)) {
                out.truncate(start);
                return Err(error);
            }
            if out.len() - start < MAX_LINE {
                break;
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// The members of the line, in the order in which they are written.
    fn line(&self, limits: Limits) -> Line<'a> {
        let Self { request, decision, license, .. } = *self;
        let text = |text| limits.text(text);
        Line {
            decision_id: Shown(decision.id),
            time: Micros(self.time),
            gate: text(self.gate),
            request_id: text(&request.request_id),
            license: LicenseLine {
                id: license.id.or(registered_id(&request.license)).map(text),
                issuer: license.issuer.map(text),
                assignee: license.assignee.map(text),
                kid: license.key_id.map(text),
            },
            subject: SubjectLine {
                id: text(&request.subject.id),
                organization: text(&request.subject.organization),
                roles: List { items: &request.subject.roles, limits },
            },
            action: text(&request.action),
            resource: text(&request.resource.id),
            purpose: text(&request.purpose),
            region: text(&request.region),
            project: text(&request.project),
            environment: text(&request.environment),
            combined_with: List { items: &request.combined_with, limits },
            combined_with_external: request.combined_with_external,
            decision: decision.effect.as_str(),
            enforced: decision.enforced,
            reasons: List { items: &decision.reasons, limits },
            obligations: List { items: &decision.obligations, limits },
            usage: Usage { amounts: &request.usage, limits },
            policy_revision: text(&decision.policy_revision),
            dry_run: request.dry_run,
            trace_id: self.trace_id.map(text),
            duration_us: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            omitted: self.omitted(limits),
        }
    }

    /// How many items of lists are over the limit.
    fn omitted(&self, limits: Limits) -> usize {
        let Self { request, decision, .. } = self;
        let lengths = [
            request.subject.roles.len(),
            request.combined_with.len(),
            request.usage.len(),
            decision.reasons.len(),
            decision.obligations.len(),
        ];
        lengths.into_iter().map(|length| length.saturating_sub(limits.items)).sum()
    }
}

/// The id that the request itself gives, where it gives no token.
fn registered_id(license: &LicenseRef) -> Option<&str> {
    match license {
        LicenseRef::Id(id) => Some(id),
        LicenseRef::Missing | LicenseRef::Token(_) => None,
    }
}

/// How much of each text and list a line holds.
#[derive(Clone, Copy)]
struct Limits {
    text: usize,
    items: usize,
}

/// What every record gets that keeps its line under [`MAX_LINE`].
const ROOMY: Limits = Limits { text: 1024, items: 64 };

/// What the others get: 16 texts and 5 lists of 8 items, each byte of whose texts JSON may write
/// as six, stay under [`MAX_LINE`] together.
const TIGHT: Limits = Limits { text: 100, items: 8 };

impl Limits {
    fn text(self, text: &str) -> Text<'_> {
        Text { text, max_bytes: self.text }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    decision_id: Shown<crate::domain::DecisionId>,
    time: Micros,
    gate: Text<'a>,
    request_id: Text<'a>,
    license: LicenseLine<'a>,
    subject: SubjectLine<'a>,
    action: Text<'a>,
    resource: Text<'a>,
    purpose: Text<'a>,
    region: Text<'a>,
    project: Text<'a>,
    environment: Text<'a>,
    combined_with: List<'a, String>,
    combined_with_external: bool,
    decision: &'static str,
    /// Said only where it is not.
    #[serde(skip_serializing_if = "is_true")]
    enforced: bool,
    reasons: List<'a, Reason>,
    obligations: List<'a, Obligation>,
    usage: Usage<'a>,
    policy_revision: Text<'a>,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Text<'a>>,
    duration_us: u64,
    /// Items of lists that were over the limit and are not in the line.
    #[serde(skip_serializing_if = "is_zero")]
    omitted: usize,
}

#[derive(Serialize)]
struct LicenseLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assignee: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<Text<'a>>,
}

#[derive(Serialize)]
struct SubjectLine<'a> {
    id: Text<'a>,
    organization: Text<'a>,
    roles: List<'a, String>,
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A value in the form in which it is displayed, written without an allocation.
pub(super) struct Shown<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A time in RFC 3339, always with six digits behind the second, so that lines sort as text.
pub(super) struct Micros(pub(super) Timestamp);

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.6}", self.0))
    }
}

/// What an item of a list leaves in a line.
trait Item {
    fn entry(&self, limits: Limits) -> impl Serialize;
}

impl Item for String {
    fn entry(&self, limits: Limits) -> impl Serialize {
        limits.text(self)
    }
}

impl Item for Reason {
    fn entry(&self, limits: Limits) -> impl Serialize {
        #[derive(Serialize)]
        struct Entry<'a> {
            code: &'static str,
            policy_id: Text<'a>,
        }
        Entry { code: self.code.as_str(), policy_id: limits.text(&self.policy_id) }
    }
}

impl Item for Obligation {
    fn entry(&self, limits: Limits) -> impl Serialize {
        #[derive(Serialize)]
        struct Entry<'a> {
            id: Text<'a>,
            r#type: Text<'a>,
        }
        Entry { id: limits.text(&self.id), r#type: limits.text(&self.kind) }
    }
}

/// The first items of a list.
struct List<'a, T> {
    items: &'a [T],
    limits: Limits,
}

impl<T: Item> Serialize for List<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.items.iter().take(self.limits.items).map(|item| item.entry(self.limits)))
    }
}

/// The first amounts, by metric.
struct Usage<'a> {
    amounts: &'a BTreeMap<String, f64>,
    limits: Limits,
}

impl Serialize for Usage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let amounts = self.amounts.iter().take(self.limits.items);
        serializer.collect_map(amounts.map(|(metric, amount)| (self.limits.text(metric), amount)))
    }
}

#[cfg(test)]
mod tests;

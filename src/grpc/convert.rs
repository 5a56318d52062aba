//! Wire to domain and back. Strings are moved, not copied.
//!
//! Refuses what has no meaning in JSON: numbers that are not finite, values without a kind, and
//! nesting without end. Everything else is for the decision to judge.

use std::fmt;

use prost_types::value::Kind;
use prost_types::{ListValue, NullValue, Struct, Value};
use serde_json::{Map, Number};
use tonic::Status;

use crate::domain::outcome::QuotaState;
use crate::domain::request::{Holder, Resource, Subject};
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Decision, Effect, LicenseRef, Obligation, Reason};
use crate::proto::v1 as wire;

use super::status;

/// The deepest nesting of objects and lists.
const MAX_DEPTH: usize = 32;
/// Up to here every integer is a double; beyond, a double may stand for several.
const MAX_INTEGER: f64 = 9_007_199_254_740_992.0;
/// The longest member name repeated in an error.
const MAX_NAME: usize = 64;

/// A field whose value is not well-formed.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    field: String,
    problem: &'static str,
}

impl Refusal {
    fn new(problem: &'static str) -> Self {
        Self { field: String::new(), problem }
    }

    /// The same, seen from the message or member that holds the field.
    pub(super) fn within(self, holder: &str) -> Self {
        let holder: String = holder.chars().take(MAX_NAME).collect();
        let joint = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        Self { field: format!("{holder}{joint}{}", self.field), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joint = if self.field.is_empty() { "" } else { " " };
        write!(f, "{}{joint}{}", self.field, self.problem)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        status::invalid(&refusal.field, refusal.problem)
    }
}

/// The question that a message asks.
///
/// # Errors
/// Names the first value that has no meaning in JSON.
pub fn question(message: wire::CheckRequest) -> Result<CheckRequest, Refusal> {
    let subject = message.subject.unwrap_or_default();
    let holder = message.holder.unwrap_or_default();
    Ok(CheckRequest {
        request_id: message.request_id,
        license: match message.license {
            None => LicenseRef::Missing,
            Some(wire::check_request::License::Token(token)) => LicenseRef::Token(token),
            Some(wire::check_request::License::LicenseId(id)) => LicenseRef::Id(id),
        },
        subject: Subject { id: subject.id, organization: subject.organization, roles: subject.roles },
        action: message.action,
        resource: resource(message.resource.unwrap_or_default())
            .map_err(|refusal| refusal.within("resource"))?,
        purpose: message.purpose,
        region: message.region,
        project: message.project,
        environment: message.environment,
        combined_with: message.combined_with,
        combined_with_external: message.combined_with_external,
        holder: Holder {
            spiffe_id: holder.spiffe_id,
            certificate_thumbprint: holder.certificate_thumbprint,
            jwk_thumbprint: holder.jwk_thumbprint,
        },
        usage: message.usage.into_iter().collect(),
        context: members(message.context).map_err(|refusal| refusal.within("context"))?,
        supported_obligations: message.supported_obligations,
        explain: message.explain,
        dry_run: message.dry_run,
        problems: Vec::new(),
    })
}

fn resource(resource: wire::Resource) -> Result<Resource, Refusal> {
    let properties = members(resource.properties).map_err(|refusal| refusal.within("properties"))?;
    Ok(Resource { id: resource.id, kind: resource.r#type, properties })
}

/// An object as JSON.
///
/// # Errors
/// Names the first value that has no meaning in JSON.
pub fn members(object: Option<Struct>) -> Result<Map<String, serde_json::Value>, Refusal> {
    object.map_or_else(|| Ok(Map::new()), |object| to_object(object, 0))
}

/// A value as JSON.
pub(super) fn value(value: Value) -> Result<serde_json::Value, Refusal> {
    to_json(value, 1)
}

fn to_object(object: Struct, depth: usize) -> Result<Map<String, serde_json::Value>, Refusal> {
    let members = object.fields.into_iter().map(|(name, value)| match to_json(value, depth + 1) {
        Ok(value) => Ok((name, value)),
        Err(refusal) => Err(refusal.within(&name)),
    });
    members.collect()
}

fn to_json(value: Value, depth: usize) -> Result<serde_json::Value, Refusal> {
    if depth > MAX_DEPTH {
        return Err(Refusal::new("is nested deeper than 32 levels"));
    }
    Ok(match value.kind.ok_or(Refusal::new("has a value without a kind"))? {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(value) => value.into(),
        Kind::StringValue(value) => value.into(),
        Kind::NumberValue(value) => to_number(value)?.into(),
        Kind::StructValue(object) => to_object(object, depth)?.into(),
        Kind::ListValue(list) => {
            let items = list.values.into_iter().enumerate().map(|(index, item)| {
                to_json(item, depth + 1).map_err(|refusal| refusal.within(&format!("[{index}]")))
            });
            serde_json::Value::Array(items.collect::<Result<_, _>>()?)
        }
    })
}

/// The wire has only doubles; a whole one is an integer, as whoever sent it meant.
#[allow(clippy::cast_possible_truncation, reason = "whole and at most 2^53 in size")]
fn to_number(value: f64) -> Result<Number, Refusal> {
    if value.fract() == 0.0 && value.abs() <= MAX_INTEGER {
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value).ok_or(Refusal::new("must be finite"))
}

/// The message that asks a question: what a client sends.
pub fn ask(request: CheckRequest) -> wire::CheckRequest {
    let license = match request.license {
        LicenseRef::Missing => None,
        LicenseRef::Token(token) => Some(wire::check_request::License::Token(token)),
        LicenseRef::Id(id) => Some(wire::check_request::License::LicenseId(id)),
    };
    let (subject, resource, holder) = (request.subject, request.resource, request.holder);
    wire::CheckRequest {
        request_id: request.request_id,
        license,
        subject: Some(wire::Subject {
            id: subject.id,
            organization: subject.organization,
            roles: subject.roles,
        }),
        action: request.action,
        resource: Some(wire::Resource {
            id: resource.id,
            r#type: resource.kind,
            properties: Some(from_object(resource.properties)),
        }),
        purpose: request.purpose,
        region: request.region,
        project: request.project,
        environment: request.environment,
        combined_with: request.combined_with,
        combined_with_external: request.combined_with_external,
        holder: Some(wire::HolderEvidence {
            spiffe_id: holder.spiffe_id,
            certificate_thumbprint: holder.certificate_thumbprint,
            jwk_thumbprint: holder.jwk_thumbprint,
        }),
        usage: request.usage.into_iter().collect(),
        context: Some(from_object(request.context)),
        supported_obligations: request.supported_obligations,
        explain: request.explain,
        dry_run: request.dry_run,
    }
}

/// The message that answers with a decision.
pub(super) fn answer(decision: Decision) -> wire::CheckResponse {
    let effect = match decision.effect {
        Effect::Allow => wire::Decision::Allow,
        Effect::Deny => wire::Decision::Deny,
    };
    wire::CheckResponse {
        decision: effect.into(),
        decision_id: decision.id.to_string(),
        reasons: decision.reasons.into_iter().map(reason).collect(),
        obligations: decision.obligations.into_iter().map(obligation).collect(),
        valid_until: decision.valid_until.and_then(timestamp),
        quotas: decision.quotas.into_iter().map(quota).collect(),
        reservation_id: decision.reservation.map(|id| id.to_string()).unwrap_or_default(),
        status_as_of: decision.status_as_of.and_then(timestamp),
        // A reused answer is a use without a record: none may be.
        cache_max_age: None,
        policy_revision: decision.policy_revision.as_ref().to_owned(),
        granting_policies: decision.granting_policies,
        not_enforced: !decision.enforced,
    }
}

/// How a quota stands.
pub(super) fn quota(state: QuotaState) -> wire::QuotaState {
    wire::QuotaState {
        id: state.id,
        metric: state.metric,
        limit: state.limit.to_f64(),
        remaining: state.remaining.to_f64(),
        resets_at: state.resets_at.and_then(timestamp),
    }
}

/// What ended a use.
pub(super) fn ended(decision: Decision) -> wire::StreamEnded {
    wire::StreamEnded {
        decision_id: decision.id.to_string(),
        reasons: decision.reasons.into_iter().map(reason).collect(),
        quotas: decision.quotas.into_iter().map(quota).collect(),
    }
}

fn reason(reason: Reason) -> wire::Reason {
    wire::Reason {
        code: reason.code.as_str().to_owned(),
        policy_id: reason.policy_id,
        reason_user: reason.reason_user,
        reason_admin: reason.reason_admin,
        would_pass_if: reason.would_pass_if,
        cite: reason.cite.as_deref().unwrap_or_default().to_owned(),
    }
}

fn obligation(obligation: Obligation) -> wire::Obligation {
    wire::Obligation {
        id: obligation.id,
        r#type: obligation.kind,
        properties: Some(from_object(obligation.properties)),
    }
}

pub(super) fn timestamp(time: Timestamp) -> Option<prost_types::Timestamp> {
    // The wire counts nanoseconds forward from the second, also before 1970.
    let nanoseconds = time.as_nanosecond();
    Some(prost_types::Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000).try_into().ok()?,
        nanos: nanoseconds.rem_euclid(1_000_000_000).try_into().ok()?,
    })
}

fn from_object(object: Map<String, serde_json::Value>) -> Struct {
    Struct { fields: object.into_iter().map(|(name, value)| (name, from_json(value))).collect() }
}

fn from_json(value: serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::String(value) => Kind::StringValue(value),
        serde_json::Value::Number(number) => {
            // Every number of a license or policy was read as one that has a double.
            Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN))
        }
        serde_json::Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(from_json).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(from_object(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests;

//! A denial as the client gets it, over HTTP or gRPC.
//!
//! Refuses words for the administrator, which the client is not to read.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use http::StatusCode;

use super::denial::Denial;
use super::{DECISION_ID, header, problem, ratelimit};
use crate::domain::Decision;
use crate::domain::time::Timestamp;

/// A denial for the client.
pub(in crate::grpc) struct Refusal {
    /// Its kind, which has a status.
    pub(in crate::grpc) denial: Denial,
    /// Its status over HTTP.
    pub(in crate::grpc) status: StatusCode,
    /// Its headers, without a status of gRPC.
    pub(in crate::grpc) headers: Vec<HeaderValueOption>,
    /// Problem details, or a sentence for a client that speaks gRPC.
    pub(in crate::grpc) body: String,
}

/// Where nothing forbids it but laws, that is what the client is told (RFC 7725).
fn status(denial: Denial, decision: &Decision) -> StatusCode {
    let mut told = decision.reasons.iter().filter(|reason| Denial::of(reason.code) == denial).peekable();
    let is_law = told.peek().is_some() && told.all(|reason| reason.cite.is_some());
    if denial == Denial::Forbidden && is_law {
        return StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS;
    }
    denial.http()
}

impl Refusal {
    /// What the client of a denied request is told.
    pub(in crate::grpc) fn of(decision: &Decision, is_grpc: bool, now: Timestamp) -> Self {
        let denial = Denial::of_all(decision.reasons.iter().map(|reason| reason.code));
        let status = status(denial, decision);
        let mut headers = ratelimit::fields(&decision.quotas, now);
        headers.push(header(DECISION_ID, decision.id.to_string()));
        if denial == Denial::Exhausted
            && let Some(seconds) = ratelimit::retry_after(&decision.quotas, now)
        {
            headers.push(header("retry-after", seconds.to_string()));
        }
        if is_grpc {
            return Self { denial, status, headers, body: problem::sentence(denial, decision) };
        }
        if denial == Denial::Unlicensed {
            headers.push(header("www-authenticate", "License".to_owned()));
        }
        headers.push(header("content-type", problem::CONTENT_TYPE.to_owned()));
        Self { denial, status, headers, body: problem::body(denial, status, decision) }
    }
}

//! A denial as the client gets it, over HTTP or gRPC.
//!
//! Refuses words for the administrator, which the client is not to read.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;

use super::denial::Denial;
use super::{DECISION_ID, header, problem, ratelimit};
use crate::domain::Decision;
use crate::domain::time::Timestamp;

/// A denial for the client.
pub(in crate::grpc) struct Refusal {
    /// Its kind, which has a status.
    pub(in crate::grpc) denial: Denial,
    /// Its headers, without a status of gRPC.
    pub(in crate::grpc) headers: Vec<HeaderValueOption>,
    /// Problem details, or a sentence for a client that speaks gRPC.
    pub(in crate::grpc) body: String,
}

impl Refusal {
    /// What the client of a denied request is told.
    pub(in crate::grpc) fn of(decision: &Decision, is_grpc: bool, now: Timestamp) -> Self {
        let denial = Denial::of_all(decision.reasons.iter().map(|reason| reason.code));
        let mut headers = ratelimit::fields(&decision.quotas, now);
        headers.push(header(DECISION_ID, decision.id.to_string()));
        if denial == Denial::Exhausted
            && let Some(seconds) = ratelimit::retry_after(&decision.quotas, now)
        {
            headers.push(header("retry-after", seconds.to_string()));
        }
        if is_grpc {
            return Self { denial, headers, body: problem::sentence(denial, decision) };
        }
        if denial == Denial::Unlicensed {
            headers.push(header("www-authenticate", "License".to_owned()));
        }
        headers.push(header("content-type", problem::CONTENT_TYPE.to_owned()));
        Self { denial, headers, body: problem::body(denial, decision) }
    }
}

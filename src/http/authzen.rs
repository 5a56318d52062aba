//! The Authorization API 1.0 of OpenID AuthZEN: the same decisions as over gRPC, as JSON over HTTP.
//!
//! Reads, asks, answers. Refuses to pass a fault off as a denial, or a denial off as a fault: a denial
//! has the status 200.

pub mod answer;
mod evaluations;
mod members;
mod page;
pub mod question;
pub mod search;

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::rejection::FailedToBufferBody::LengthLimitError;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use tracing::{Instrument, Span};

use super::json;
use super::malformed::Malformed;
use super::problem::Problem;
use crate::config::Limits;
use crate::decision::{DecideError, Pdp, Sought};
use crate::domain::Clock;
use crate::telemetry::instruments::Instruments;
use crate::telemetry::traces::{current_trace_id, http_span, trace_id_of};

use answer::{Evaluated, EvaluatedAll};
use evaluations::Asked;

/// What AuthZEN is answered with.
pub struct Authzen {
    pdp: Arc<Pdp>,
    clock: Clock,
    limits: Limits,
    instruments: Instruments,
}

impl Authzen {
    /// Answers from `pdp`, within these limits.
    pub fn new(pdp: Arc<Pdp>, clock: Clock, limits: Limits, instruments: Instruments) -> Self {
        Self { pdp, clock, limits, instruments }
    }
}

/// The parts of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Evaluation,
    Evaluations,
    Search(Sought),
}

impl Endpoint {
    pub(super) const ALL: [Self; 5] = [
        Self::Evaluation,
        Self::Evaluations,
        Self::Search(Sought::Subject),
        Self::Search(Sought::Resource),
        Self::Search(Sought::Action),
    ];

    /// Where it is served.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Evaluation => "/access/v1/evaluation",
            Self::Evaluations => "/access/v1/evaluations",
            Self::Search(Sought::Subject) => "/access/v1/search/subject",
            Self::Search(Sought::Resource) => "/access/v1/search/resource",
            Self::Search(Sought::Action) => "/access/v1/search/action",
        }
    }

    /// How the metadata calls its URL.
    pub(super) fn parameter(self) -> &'static str {
        match self {
            Self::Evaluation => "access_evaluation_endpoint",
            Self::Evaluations => "access_evaluations_endpoint",
            Self::Search(Sought::Subject) => "search_subject_endpoint",
            Self::Search(Sought::Resource) => "search_resource_endpoint",
            Self::Search(Sought::Action) => "search_action_endpoint",
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Malformed(Malformed),
    #[error("the body is larger than the gate's limit, or would be with its defaults written out")]
    TooLarge,
    #[error("the answer is larger than {0} bytes; ask for less at once")]
    AnswerTooLarge(usize),
    #[error("the body did not come whole")]
    Cut,
    #[error("the deadline passed before the request was decided")]
    Late,
    #[error(transparent)]
    Undecided(#[from] DecideError),
    #[error("the answer cannot be written as JSON")]
    Unwritable(#[from] serde_json::Error),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Failure {
    /// The word under which it is counted: that of the same failure over gRPC.
    fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::Cut => "invalid_argument",
            Self::TooLarge | Self::AnswerTooLarge(_) => "resource_exhausted",
            Self::Late => "deadline_exceeded",
            Self::Undecided(DecideError::Closing) => "unavailable",
            Self::Unwritable(_) => "internal",
        }
    }
}

/// Answers a request to an endpoint.
pub(super) async fn answer(endpoint: Endpoint, authzen: Arc<Authzen>, request: Request) -> Response {
    let span = http_span(endpoint.path(), request.headers());
    let answered = authzen.answer(endpoint, request).instrument(span);
    let answered = tokio::time::timeout(authzen.limits.request_timeout.get(), answered).await;
    answered.unwrap_or(Err(Failure::Late)).unwrap_or_else(|failure| {
        authzen.instruments.undecided(failure.kind());
        Problem::from(failure).into_response()
    })
}

impl Authzen {
    async fn answer(&self, endpoint: Endpoint, request: Request) -> Result<Response, Failure> {
        let trace_id = trace_id_of(request.headers()).or_else(current_trace_id);
        let trace_id = trace_id.as_deref();
        is_json(request.headers())?;
        let token = license(request.headers())?;
        let token = token.as_deref();
        let limit = self.body_limit(endpoint);
        let body = json::parse(&read(request).await?)?;
        let asked = match endpoint {
            Endpoint::Evaluation => Asked::One(Box::new(question::question(body, token)?)),
            Endpoint::Evaluations => evaluations::open(body, token, limit)?,
            Endpoint::Search(sought) => {
                return written(&search::search(body, token, sought, &self.pdp, &self.clock).await?);
            }
        };
        match asked {
            Asked::One(question) => {
                let decision = self.pdp.check(&question, trace_id, self.clock.now()).await?;
                Span::current().record("decision", decision.effect.as_str());
                written(&Evaluated::from(decision))
            }
            Asked::Many(batch) => {
                batch.malformed().for_each(|_| self.instruments.undecided("invalid_argument"));
                let evaluations = batch.decide(&self.pdp, trace_id, &self.clock).await?;
                let answer = serde_json::to_vec(&EvaluatedAll { evaluations })?;
                if answer.len() > limit { Err(Failure::AnswerTooLarge(limit)) } else { Ok(as_json(answer)) }
            }
        }
    }

    /// The largest body, in bytes.
    pub(super) fn body_limit(&self, endpoint: Endpoint) -> usize {
        let configured = usize::try_from(self.limits.message.bytes()).unwrap_or(usize::MAX);
        match endpoint {
            Endpoint::Search(_) => configured.min(search::MAX_BODY),
            Endpoint::Evaluation | Endpoint::Evaluations => configured,
        }
    }
}

/// AuthZEN has no other form of a body, and no other status for one.
fn is_json(headers: &HeaderMap) -> Result<(), Malformed> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let essence = |value: &HeaderValue| {
        let essence = value.to_str().ok()?.split(';').next()?.trim();
        Some(essence.eq_ignore_ascii_case("application/json"))
    };
    match (types.next().and_then(essence), types.next()) {
        (Some(true), None) => Ok(()),
        _ => Err(Malformed::at("content-type", "must be `application/json`")),
    }
}

/// The token of `Authorization: License TOKEN`. Other schemes are for whoever stands before the gate.
fn license(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let mut tokens = headers.get_all(AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("license").then(|| token.trim().to_owned())
    });
    match (tokens.next(), tokens.next()) {
        (_, Some(_)) => Err(Malformed::at("authorization", "has more than one license")),
        (token, None) => Ok(token),
    }
}

/// The body, where it is no larger than the limit that its route has.
async fn read(request: Request) -> Result<Bytes, Failure> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(LengthLimitError(_)) => Failure::TooLarge,
        _ => Failure::Cut,
    })
}

fn written(answer: &impl Serialize) -> Result<Response, Failure> {
    Ok(as_json(serde_json::to_vec(answer)?))
}

fn as_json(text: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

//! A denial in words for the client of Envoy: problem details (RFC 9457).
//!
//! Refuses words for the administrator, which hold what was compared, and more of any than a client reads.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::json;

use super::denial::Denial;
use super::ratelimit;
use crate::audit::redact::fit;
use crate::domain::{Code, Decision};

/// The media type of [`body`].
pub(super) const CONTENT_TYPE: &str = "application/problem+json";

/// The most reasons told, and the most bytes of each text.
const MAX_REASONS: usize = 16;
const MAX_TEXT: usize = 512;

/// The type and title that `draft-ietf-httpapi-ratelimit-headers` registers for what is used up.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const QUOTA_EXCEEDED_TITLE: &str = "Request cannot be satisfied as assigned quota has been exceeded";

/// The codes of a denial, each once.
pub(in crate::grpc) fn codes(decision: &Decision) -> BTreeSet<Code> {
    decision.reasons.iter().map(|reason| reason.code).collect()
}

/// The words about what is told first.
pub(super) fn sentence(denial: Denial, decision: &Decision) -> String {
    let told = decision.reasons.iter().find(|reason| Denial::of(reason.code) == denial);
    let words = told.map_or("The use is denied.", |reason| reason.reason_user.as_str());
    fit(words, MAX_TEXT).into_owned()
}

/// The body of a denial.
pub(super) fn body(denial: Denial, status: StatusCode, decision: &Decision) -> String {
    let reasons = decision.reasons.iter().take(MAX_REASONS).map(|reason| {
        let (words, remedy) = (fit(&reason.reason_user, MAX_TEXT), fit(&reason.would_pass_if, MAX_TEXT));
        let mut told = json!({ "code": reason.code.as_str(), "reason": words, "would_pass_if": remedy });
        if let (Some(cite), Some(members)) = (&reason.cite, told.as_object_mut()) {
            members.insert("cite".to_owned(), json!(fit(cite, MAX_TEXT)));
        }
        told
    });
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": sentence(denial, decision),
        "codes": codes(decision).into_iter().map(Code::as_str).collect::<Vec<_>>(),
        "decision_id": decision.id.to_string(),
        "reasons": reasons.collect::<Vec<_>>(),
    });
    if let (Denial::Exhausted, Some(members)) = (denial, body.as_object_mut()) {
        let violated = ratelimit::exceeded(&decision.quotas).into_iter().take(MAX_REASONS);
        let violated: Vec<_> = violated.map(|quota| fit(&quota.id, MAX_TEXT)).collect();
        members.insert("type".to_owned(), QUOTA_EXCEEDED.into());
        members.insert("title".to_owned(), QUOTA_EXCEEDED_TITLE.into());
        members.insert("violated-policies".to_owned(), json!(violated));
    }
    body.to_string()
}

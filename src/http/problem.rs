//! Errors as problem details (RFC 9457): the one place where failures become statuses. Refuses to tell
//! the inside of a fault.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode, Uri};
use schemars::JsonSchema;
use serde::Serialize;

use super::authzen::Failure;
use super::malformed::Malformed;

/// An HTTP error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    field: Option<String>,
}

/// How it is sent.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ProblemDetails {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The status.
    status: u16,
    /// What was wrong, in words.
    detail: String,
    /// The part of the request that was wrong, such as `subject.id`; absent where it was the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Problem {
    pub(super) async fn not_found(uri: Uri) -> Self {
        let path: String = uri.path().chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, format!("nothing is served at `{path}`"))
    }

    pub(super) async fn method_not_allowed(method: Method) -> Self {
        let detail = format!("`{method}` is not served here; the header `allow` names what is");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    pub(super) fn internal(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None }
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let field = (!malformed.field().is_empty()).then(|| malformed.field().to_owned());
        Self { field, ..Self::new(StatusCode::BAD_REQUEST, malformed.to_string()) }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let words = failure.to_string();
        let status = match failure {
            Failure::Malformed(malformed) => return malformed.into(),
            Failure::Cut => StatusCode::BAD_REQUEST,
            Failure::TooLarge | Failure::AnswerTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Late | Failure::Undecided(_) => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Unwritable(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, words)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemDetails {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.field,
        };
        // Strings and numbers are always written.
        let body = serde_json::to_string(&body).unwrap_or_default();
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

//! Errors as problem details (RFC 9457). Refuses to tell the inside of a fault.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode, Uri};
use serde_json::json;

/// An HTTP error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    pub(super) async fn not_found(uri: Uri) -> Self {
        let path: String = uri.path().chars().take(200).collect();
        Self { status: StatusCode::NOT_FOUND, detail: format!("nothing is served at `{path}`") }
    }

    pub(super) async fn method_not_allowed(method: Method) -> Self {
        let detail = format!("`{method}` is not served here; use `GET`");
        Self { status: StatusCode::METHOD_NOT_ALLOWED, detail }
    }

    pub(super) fn internal(detail: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: detail.to_owned() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        (self.status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

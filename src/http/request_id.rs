//! `X-Request-ID`: whoever gives a request a name finds it on the answer.
//!
//! Refuses to be more than a name: the key that makes a repeated question count once is
//! `context.request_id`, since one request may hold many questions.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderName;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the request's name on its answer.
pub(super) async fn echo(request: Request, next: Next) -> Response {
    let name = request.headers().get(X_REQUEST_ID).cloned();
    let mut answer = next.run(request).await;
    if let Some(name) = name {
        answer.headers_mut().insert(X_REQUEST_ID, name);
    }
    answer
}

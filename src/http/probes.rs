//! Liveness and readiness, for orchestrators and people. Refuses to call a gate dead that is
//! only not ready: restarting it would not help.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::Server;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 when the gate decides, else 503; in any case what it waits for.
pub(super) async fn readyz(State(server): State<Server>) -> Response {
    let ready = server.readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "parts": server.readiness.snapshot() }))).into_response()
}

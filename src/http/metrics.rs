//! Metrics, for Prometheus. Refuses to name them: `telemetry/instruments.rs` does.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

use super::Server;
use super::problem::Problem;

/// `GET /metrics`: the text format of Prometheus.
pub(super) async fn metrics(State(server): State<Server>) -> Response {
    match server.instruments.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            Problem::internal("the metrics cannot be rendered; the gate's log says why").into_response()
        }
    }
}

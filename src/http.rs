//! The small HTTP listener: whether the gate lives, whether it is ready, how it fares, and the
//! keys it trusts.
//!
//! Refuses to decide anything, and to read a body: everything here is a GET.

mod metrics;
mod probes;
mod problem;
mod well_known;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

use crate::keyring::Keyring;
use crate::listener::{Listener, sessions};
use crate::telemetry::instruments::Instruments;
use crate::telemetry::readiness::Readiness;

use problem::Problem;

/// A request's head must be complete by then.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A request's head is at most this large, in bytes.
const HEAD_SIZE: u32 = 16 * 1024;
/// An HTTP/2 connection that does not answer a ping within this time is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The HTTP server of a gate.
#[derive(Clone)]
pub struct Server {
    readiness: Readiness,
    instruments: Instruments,
    keyring: Arc<Keyring>,
}

impl Server {
    /// A server that tells what these know.
    pub fn new(readiness: Readiness, instruments: Instruments, keyring: Arc<Keyring>) -> Self {
        Self { readiness, instruments, keyring }
    }

    /// Serves until `shutdown` resolves, then answers what is under way and resolves.
    pub async fn serve(self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let service = TowerToHyperService::new(self.routes());
        sessions::serve(listener, builder(), |_| service.clone(), shutdown).await;
    }

    fn routes(self) -> Router {
        Router::new()
            .route("/healthz", get(probes::healthz))
            .route("/readyz", get(probes::readyz))
            .route("/metrics", get(metrics::metrics))
            .route("/.well-known/jwks.json", get(well_known::jwks))
            .fallback(Problem::not_found)
            .method_not_allowed_fallback(Problem::method_not_allowed)
            .with_state(self)
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(usize::try_from(HEAD_SIZE).unwrap_or(usize::MAX));
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_SIZE)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    http
}

#[cfg(test)]
mod tests;

//! The HTTP listener: whether the gate lives, whether it is ready, how it fares, the keys it trusts, and
//! decisions for those who speak AuthZEN.
//!
//! Refuses to decide anything itself, and to read a body anywhere but there.

pub mod authzen;
pub mod json;
pub mod malformed;
mod metrics;
pub mod openapi;
mod probes;
mod problem;
mod request_id;
mod well_known;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

use crate::config;
use crate::keyring::Keyring;
use crate::listener::{Listener, Peer, sessions};
use crate::telemetry::instruments::Instruments;
use crate::telemetry::readiness::Readiness;

use authzen::{Authzen, Endpoint};
use problem::Problem;

/// A request's head must be complete by then.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A request's head is at most this large, in bytes: it may carry the largest license, which has 16 KiB.
const HEAD_SIZE: u32 = 32 * 1024;
/// An HTTP/2 connection that does not answer a ping within this time is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The HTTP server of a gate.
#[derive(Clone)]
pub struct Server {
    readiness: Readiness,
    instruments: Instruments,
    keyring: Arc<Keyring>,
    /// Where AuthZEN is served.
    authzen: Option<Arc<Authzen>>,
    /// Where clients reach it.
    origin: Origin,
}

/// Where clients reach the server, for addresses in its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At this URL.
    Known(String),
    /// At the host that they name, by this scheme.
    AsAsked(&'static str),
}

impl Server {
    /// A server that tells what these know.
    pub fn new(
        readiness: Readiness,
        instruments: Instruments,
        keyring: Arc<Keyring>,
        authzen: Option<Authzen>,
        listeners: &config::Listeners,
    ) -> Self {
        let scheme = if listeners.http.tls.is_some() { "https" } else { "http" };
        let known = listeners.authzen.public_url.clone().map(Origin::Known);
        let origin = known.unwrap_or(Origin::AsAsked(scheme));
        Self { readiness, instruments, keyring, authzen: authzen.map(Arc::new), origin }
    }

    /// Serves until `shutdown` resolves, then answers what is under way and resolves.
    pub async fn serve(self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let over_unix = TowerToHyperService::new(self.clone().without_tls().routes());
        let over_tcp = TowerToHyperService::new(self.routes());
        let service = |peer: &Peer| match peer {
            Peer::User(_) => over_unix.clone(),
            Peer::Unknown | Peer::Certificate(_) => over_tcp.clone(),
        };
        sessions::serve(listener, builder(), service, shutdown).await;
    }

    /// As over a Unix socket, which never has TLS.
    fn without_tls(self) -> Self {
        match self.origin {
            Origin::AsAsked(_) => Self { origin: Origin::AsAsked("http"), ..self },
            Origin::Known(_) => self,
        }
    }

    fn routes(self) -> Router {
        let mut router = Router::new();
        if let Some(authzen) = &self.authzen {
            for endpoint in Endpoint::ALL {
                let (path, limit) = (endpoint.path(), authzen.body_limit(endpoint));
                let authzen = Arc::clone(authzen);
                let answer = post(move |request| authzen::answer(endpoint, authzen, request));
                router = router.route(path, answer.layer(DefaultBodyLimit::max(limit)));
            }
            router = router.route("/.well-known/authzen-configuration", get(well_known::authzen));
        }
        router
            .route("/healthz", get(probes::healthz))
            .route("/readyz", get(probes::readyz))
            .route("/metrics", get(metrics::metrics))
            .route("/.well-known/jwks.json", get(well_known::jwks))
            .route("/openapi.json", get(openapi::openapi))
            .fallback(Problem::not_found)
            .method_not_allowed_fallback(Problem::method_not_allowed)
            .layer(middleware::from_fn(request_id::echo))
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

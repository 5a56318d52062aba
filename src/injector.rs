//! The injector: a webhook of Kubernetes that puts a gate into pods, as a native sidecar, before they are made.
//!
//! Refuses a pod that cannot have the gate that it should have, and says why: without one, nothing would be asked. Refuses
//! to know what a gate looks like: the template does. Decides nothing about data.

pub mod certificate;
mod patch;
mod review;
mod template;
mod wishes;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

use crate::document::Problems;
use crate::listener::{Listener, sessions};
use crate::watch::{Watch, WatchError};

use template::Templates;

/// Where the API server asks.
const PATH: &str = "/inject";
/// The largest review, in bytes: the API server takes no larger request, and the review has more around it.
const REVIEW: usize = 4 << 20;
/// A request's head must be complete by then.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// An HTTP/2 connection that does not answer a ping within this time is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why a pod cannot have its gate: at least one thing.
#[derive(Debug)]
struct Refusal(Vec<String>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Why there is no injector.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The template is wrong.
    #[error(transparent)]
    Template(#[from] Problems),
    /// The template cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Puts gates into pods.
#[derive(Debug)]
pub struct Injector {
    templates: Arc<Templates>,
    /// Follows the template; ends with the injector.
    _watch: Watch,
}

impl Injector {
    /// An injector by the template in this file, which is read again when it changes.
    ///
    /// # Errors
    ///
    /// When the template is wrong, or cannot be watched.
    pub fn open(template: &Path) -> Result<Self, InjectorError> {
        let templates = Arc::new(Templates::load(template)?);
        let followed = Arc::clone(&templates);
        let watch = Watch::start(&[template.to_owned()], move || match followed.reload() {
            Ok(false) => {}
            Ok(true) => tracing::info!("a new template is in force"),
            Err(problems) => tracing::error!("a new template is refused, the one in force stays: {problems}"),
        })?;
        Ok(Self { templates, _watch: watch })
    }

    /// Serves until `shutdown` resolves, then answers what is under way and resolves.
    pub async fn serve(self, listener: Listener, shutdown: impl Future<Output = ()>) {
        let routes = Router::new()
            .route(PATH, post(inject).layer(DefaultBodyLimit::max(REVIEW)))
            .route("/healthz", get(async || "ok\n"))
            .with_state(Arc::clone(&self.templates));
        let service = TowerToHyperService::new(routes);
        sessions::serve(listener, builder(), |_| service.clone(), shutdown).await;
    }
}

async fn inject(State(templates): State<Arc<Templates>>, body: Bytes) -> Response {
    match review::answer(&body, &templates.in_force()) {
        Ok(review) => Json(review).into_response(),
        Err(error) => {
            tracing::warn!(%error, "a review is refused");
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    http.http2().timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE);
    http
}

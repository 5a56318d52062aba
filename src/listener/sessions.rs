//! HTTP on every connection of a listener, until told to stop; then what is under way is finished.
//!
//! Refuses to know what is served, and to wait for ever: how long the end may take is up to the
//! caller, who drops the future when it has waited enough.

use std::convert::Infallible;
use std::pin::pin;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::task::JoinSet;

use super::{Listener, Peer};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Serves until `shutdown` resolves; then closes the listener, tells clients to go elsewhere, and
/// resolves when every request under way is answered. Dropping the future cuts connections off. Each
/// connection has a service of its own, for whoever is at its other end.
pub async fn serve<S, B>(
    mut listener: Listener,
    http: auto::Builder<TokioExecutor>,
    service: impl Fn(&Peer) -> S,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    let drain = GracefulShutdown::new();
    // Owned, so that the connections end with this future and not with the process.
    let mut sessions = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = sessions.join_next() => {}
            connection = listener.accept() => {
                let service = service(connection.peer());
                let session = http.serve_connection(TokioIo::new(connection), service);
                let session = drain.watch(session.into_owned());
                sessions.spawn(async move {
                    if let Err(error) = session.await {
                        tracing::debug!(error, "a connection ended early");
                    }
                });
            }
        }
    }
    drop(listener);
    drain.shutdown().await;
}

//! How a gate stops: it says so first, answers what is under way, then writes out what it knows.
//!
//! Refuses to wait without end: what has not finished within the grace is cut.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::App;

/// The least time given to the last records, however short the grace: a disk that is tried again needs it.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// How long after a failure what is to be handed back is handed back again.
const AGAIN: Duration = Duration::from_millis(200);

/// The part of the grace after which what is still under way is told to end by itself.
const WAITED: f64 = 0.9;

/// What went wrong while stopping.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Signals cannot be waited for.
    #[error("signals cannot be waited for: {0}")]
    Signals(#[from] std::io::Error),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] crate::grpc::GrpcError),
    /// Records could not be written out.
    #[error("records could not be written out: {0}")]
    Audit(#[from] crate::audit::AuditError),
    /// It was told to stop a second time.
    #[error("cut short by a second signal; requests and records may be lost")]
    Cut,
    /// The places of the decision log did not take them in time.
    #[error("{0} records were not written out in time: the disk, or whoever reads the log, is too slow")]
    Late(u64),
}

impl App {
    /// Runs until SIGTERM or SIGINT, then stops in order; a second signal cuts that short.
    ///
    /// # Errors
    /// When signals cannot be waited for, or as [`App::shutdown`].
    pub async fn run_until_signal(self) -> Result<(), StopError> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::select! {
            stopped = self.shutdown() => stopped,
            _ = terminate.recv() => Err(StopError::Cut),
            _ = interrupt.recv() => Err(StopError::Cut),
        }
    }

    /// Gives back what was set aside of quotas, and hands in usage.
    async fn release_state(&self) {
        let mut last = None;
        // What failed may work a moment later, while another hub or database takes over.
        let stopped = tokio::time::timeout(LAST_RECORDS, async {
            while let Err(error) = self.state.quotas.stop(self.clock.now()).await {
                last = Some(error);
                tokio::time::sleep(AGAIN).await;
            }
        });
        if stopped.await.is_err() {
            let error = last.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(error, "quotas and usage were not handed back in time");
        }
    }

    /// Stops in order: health says NOT_SERVING; after the notice listeners close and streams end; requests
    /// in flight are answered within the grace; quotas and usage are handed back; records are written out within as much again, or five seconds;
    /// telemetry is sent.
    ///
    /// # Errors
    /// When the server failed or records could not be written out.
    pub async fn shutdown(mut self) -> Result<(), StopError> {
        tracing::info!("the gate is shutting down");
        self.readiness.drain();
        tokio::time::sleep(self.shutdown.notice.get()).await;
        self.closing.send_replace(true);
        let servers = async {
            // Members have another hub to go to; what they handed in is answered all the same.
            let members = async {
                if let Some(server) = &mut self.hub_server {
                    drop(server.await);
                }
            };
            // What administrators asked for is done and answered, and who watches is told.
            // Whoever asked over HTTP is answered too.
            let (served, administered, _, ()) =
                tokio::join!(&mut self.grpc_server, &mut self.admin_server, &mut self.http_server, members);
            served.unwrap_or(Ok(())).and(administered.unwrap_or(Ok(())))
        };
        let grace = self.shutdown.grace.get();
        let leaving = async {
            tokio::time::sleep(grace.mul_f64(WAITED)).await;
            self.leaving.send_replace(true);
            std::future::pending().await
        };
        let served = tokio::time::timeout(grace, async {
            tokio::select! {
                served = servers => served,
                served = leaving => served,
            }
        })
        .await;
        if served.is_err() {
            tracing::warn!("requests were cut: they did not finish within the grace");
        }
        self.grpc_server.abort();
        self.http_server.abort();
        self.admin_server.abort();
        self.hub_server.iter().for_each(JoinHandle::abort);
        self.tasks.iter().for_each(JoinHandle::abort);
        self.followers.clear();
        self.release_state().await;
        let closed =
            tokio::time::timeout(self.shutdown.grace.get().max(LAST_RECORDS), self.audit.close()).await;
        // Last: the state may be where the records go.
        if tokio::time::timeout(LAST_RECORDS, self.store.close()).await.is_err() {
            tracing::warn!("the state was not closed in time");
        }
        self.telemetry.shutdown().await;
        served.unwrap_or(Ok(()))?;
        match closed {
            Ok(closed) => Ok(closed?),
            Err(_) => Err(StopError::Late(self.audit.counters().queued.load(Relaxed))),
        }
    }
}

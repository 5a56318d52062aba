//! `grpc.health.v1`, tied to readiness. Refuses to say SERVING of a service it does not know.

use std::pin::Pin;

use envoy_types::pb::envoy::service::auth::v3::authorization_server;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::proto::v1::decision_service_server;
use crate::telemetry::readiness::Readiness;

/// Answers whether the gate serves: the whole (``) and its decisions alike.
pub(super) struct Health(watch::Receiver<ServingStatus>);

/// Tells [`Health`] what to answer.
pub(super) struct Reporter {
    ready: watch::Receiver<bool>,
    status: watch::Sender<ServingStatus>,
}

impl Health {
    pub(super) fn of(readiness: &Readiness) -> (Self, Reporter) {
        let ready = readiness.subscribe();
        let status = watch::Sender::new(serving(*ready.borrow()));
        (Self(status.subscribe()), Reporter { ready, status })
    }
}

impl Reporter {
    /// Follows readiness until `shutdown` resolves; then says NOT_SERVING for good, and ends the
    /// streams of those who watch, so that they do not hold up the end.
    pub(super) async fn report_until(mut self, shutdown: impl Future<Output = ()>) {
        let follow = async {
            while self.ready.changed().await.is_ok() {
                let now = serving(*self.ready.borrow_and_update());
                self.status.send_if_modified(|status| std::mem::replace(status, now) != now);
            }
            // Readiness is gone without a word: the gate is ending.
            self.status.send_replace(ServingStatus::NotServing);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown => {}
            () = follow => {}
        }
        self.status.send_replace(ServingStatus::NotServing);
    }
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn known(service: &str) -> bool {
    ["", decision_service_server::SERVICE_NAME, authorization_server::SERVICE_NAME].contains(&service)
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if known(&request.get_ref().service) {
            Ok(Response::new(answer(*self.0.borrow())))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = known(&request.get_ref().service);
        let statuses = WatchStream::new(self.0.clone()).map(move |status| {
            // The protocol asks for a status here, where `check` answers with an error.
            Ok(answer(if known { status } else { ServingStatus::ServiceUnknown }))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

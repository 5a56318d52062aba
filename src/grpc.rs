//! The gRPC side of the gate: decisions, health and reflection on one listener.
//!
//! Parses, asks, converts; refuses to decide anything. Three layers are left out on purpose
//! (a router, a boxed service stack and a per-request semaphore), because they cost as much as
//! a cached decision: services are told apart by name, and HTTP/2 itself limits the requests
//! that are under way on a connection.

mod admin;
pub mod convert;
mod deadline;
mod decision;
pub mod envoy;
pub mod ext_authz;
mod ext_proc;
mod health;
mod hub;
mod status;
mod stream;

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    self, Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessor;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic_health::pb::health_server::{self, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::config::{Envoy, Limits};
use crate::decision::Pdp;
use crate::domain::Clock;
use crate::listener::{Listener, Peer, sessions};
use crate::proto::v1::decision_service_server::{self, DecisionService, DecisionServiceServer};
use crate::telemetry::instruments::Instruments;
use crate::telemetry::readiness::Readiness;

use decision::Decisions;
use ext_authz::ExtAuthz;
use ext_proc::ExtProc;
use health::Health;
use stream::Streams;

pub use admin::AdminServer;
pub use hub::HubServer;

/// What a connection may have sent before it is asked to wait: enough that no caller does.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The name of the reflection service, which its crate keeps to itself.
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";

/// The gRPC server of a gate.
pub struct Server {
    pdp: Arc<Pdp>,
    readiness: Readiness,
    clock: Clock,
    limits: Limits,
    instruments: Instruments,
    envoy: Envoy,
    ends: Ends,
}

/// When what goes on is to end; each turns true then.
pub struct Ends {
    /// Streams of those who ask for a use that lasts: they can ask another gate.
    pub streams: watch::Receiver<bool>,
    /// Responses that are under way: nobody can hand them over to another gate.
    pub responses: watch::Receiver<bool>,
}

/// The gRPC server cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The descriptors compiled into the binary are not usable.
    #[error("the protocol descriptors are unusable: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

impl Server {
    /// A server that asks `pdp`, and ends what goes on as `ends` says. What Envoy asks is read as `envoy` says.
    pub fn new(
        pdp: Arc<Pdp>,
        readiness: Readiness,
        clock: Clock,
        limits: Limits,
        instruments: Instruments,
        envoy: Envoy,
        ends: Ends,
    ) -> Self {
        Self { pdp, readiness, clock, limits, instruments, envoy, ends }
    }

    /// Serves until `shutdown` resolves, then answers what is under way and resolves. Health
    /// follows readiness, and is NOT_SERVING from `shutdown` on.
    ///
    /// # Errors
    ///
    /// When the descriptors for reflection are unusable.
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), GrpcError> {
        let (pdp, clock) = (self.pdp, self.clock);
        let streams = Streams { pdp: Arc::clone(&pdp), clock: clock.clone(), closing: self.ends.streams };
        let responses = ExtProc::new(Arc::clone(&pdp), clock.clone(), &self.envoy, self.ends.responses);
        let authorization = ExtAuthz::new(Arc::clone(&pdp), clock.clone(), self.envoy);
        let decisions = Decisions { pdp, clock, message_limit: bytes(&self.limits), streams };
        let deciding = Deciding { decisions, authorization, responses };
        serve(deciding, &self.readiness, &self.limits, self.instruments, listener, shutdown).await
    }
}

/// What decides.
struct Deciding<D, A, P> {
    decisions: D,
    authorization: A,
    responses: P,
}

async fn serve<D: DecisionService, A: Authorization, P: ExternalProcessor>(
    deciding: Deciding<D, A, P>,
    readiness: &Readiness,
    limits: &Limits,
    instruments: Instruments,
    listener: Listener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), GrpcError> {
    let (health, reporter) = Health::of(readiness);
    let services = Arc::new(Services {
        decisions: DecisionServiceServer::new(deciding.decisions).max_decoding_message_size(bytes(limits)),
        authorization: AuthorizationServer::new(deciding.authorization)
            .max_decoding_message_size(bytes(limits)),
        responses: ext_proc::server::Server::new(deciding.responses),
        health: HealthServer::new(health),
        reflection: reflection(&[decision_service_server::SERVICE_NAME, health_server::SERVICE_NAME])?,
        longest: limits.request_timeout.get(),
        instruments,
    });
    let service = |_: &Peer| {
        let services = Arc::clone(&services);
        service_fn(move |request| {
            let services = Arc::clone(&services);
            services.answer(request).map(Ok::<_, Infallible>)
        })
    };
    sessions::serve(listener, http2(limits), service, reporter.report_until(shutdown)).await;
    Ok(())
}

fn bytes(limits: &Limits) -> usize {
    usize::try_from(limits.message.bytes()).unwrap_or(usize::MAX)
}

fn http2(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new()).http2_only();
    http.http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.concurrent_requests_per_connection)
        .keep_alive_interval(limits.keepalive_interval.get())
        .keep_alive_timeout(limits.keepalive_timeout.get());
    http
}

/// Reflection that lists these services, and itself.
fn reflection(
    services: &[&'static str],
) -> Result<ServerReflectionServer<impl ServerReflection + use<>>, GrpcError> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let listed = services.iter().chain([&REFLECTION]);
    Ok(listed.fold(builder, |builder, name| builder.with_service_name(*name)).build_v1()?)
}

struct Services<D, A, P, R> {
    decisions: DecisionServiceServer<D>,
    authorization: AuthorizationServer<A>,
    responses: ext_proc::server::Server<P>,
    health: HealthServer<Health>,
    reflection: ServerReflectionServer<R>,
    /// The most time given to a request, whatever deadline its caller set.
    longest: Duration,
    instruments: Instruments,
}

impl<D: DecisionService, A: Authorization, P: ExternalProcessor, R: ServerReflection> Services<D, A, P, R> {
    /// The request is handed over at once, so that the future does not hold it: that one lives as long as a stream.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<D, A, P, R> {
        let begun = Instant::now();
        let allowed = deadline::of_caller(request.headers()).unwrap_or(self.longest).min(self.longest);
        let (decides, call) = self.call(request);
        async move {
            let mut answer = within(begun, allowed, call).await;
            // What could not be decided is counted.
            if decides && let Some(kind) = status::keep_contract(answer.headers_mut()) {
                self.instruments.undecided(kind);
            }
            answer
        }
    }

    /// The call of the service that is asked, and whether that decides.
    fn call(&self, request: Request<Incoming>) -> (bool, BoxFuture<Response<Body>, Infallible>) {
        let path = request.uri().path();
        if path == ext_proc::server::PROCESS {
            return (true, self.responses.call(request));
        }
        let service = path.get(1..).and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        match service {
            decision_service_server::SERVICE_NAME => (true, self.decisions.clone().call(request)),
            authorization_server::SERVICE_NAME => (true, self.authorization.clone().call(request)),
            health_server::SERVICE_NAME => (false, self.health.clone().call(request)),
            REFLECTION => (false, self.reflection.clone().call(request)),
            _ => (false, Box::pin(ready(Ok(status::no_such_service(path).into_http())))),
        }
    }
}

async fn within(
    begun: Instant,
    allowed: Duration,
    call: BoxFuture<Response<Body>, Infallible>,
) -> Response<Body> {
    match deadline::within(begun, allowed, call).await {
        Some(Ok(answer)) => answer,
        None => status::deadline_exceeded().into_http(),
    }
}

#[cfg(test)]
mod tests;

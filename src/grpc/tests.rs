//! The server over real sockets, with decisions that are as slow, large or wrong as a test needs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;
use crate::config;
use crate::proto::v1::decision_service_client::DecisionServiceClient;
use crate::proto::v1::{
    CheckBatchRequest, CheckBatchResponse, CheckRequest, CheckResponse, CheckStreamRequest,
    CheckStreamResponse, SettleRequest, SettleResponse,
};

const PATIENCE: Duration = Duration::from_secs(5);

/// Answers `action` at once, or when it is let go.
#[derive(Clone, Default)]
struct Scripted {
    begun: Arc<Notify>,
    under_way: Arc<AtomicU32>,
    let_go: Arc<Notify>,
}

#[tonic::async_trait]
impl DecisionService for Scripted {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        self.begun.notify_one();
        if request.get_ref().action == "wait" {
            self.under_way.fetch_add(1, Ordering::Relaxed);
            self.let_go.notified().await;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(tonic::Response::new(CheckResponse { decision_id: "d1".to_owned(), ..Default::default() }))
    }

    async fn check_batch(
        &self,
        _: tonic::Request<CheckBatchRequest>,
    ) -> Result<tonic::Response<CheckBatchResponse>, Status> {
        Err(status::undecided(crate::decision::DecideError::Closing))
    }

    type CheckStreamStream = tokio_stream::Pending<Result<CheckStreamResponse, Status>>;

    async fn check_stream(
        &self,
        _: tonic::Request<tonic::Streaming<CheckStreamRequest>>,
    ) -> Result<tonic::Response<Self::CheckStreamStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }

    async fn settle(
        &self,
        _: tonic::Request<SettleRequest>,
    ) -> Result<tonic::Response<SettleResponse>, Status> {
        Err(status::unsettled(crate::quota::SettleError::Unknown))
    }
}

#[tonic::async_trait]
impl Authorization for Scripted {
    async fn check(
        &self,
        _: tonic::Request<auth::CheckRequest>,
    ) -> Result<tonic::Response<auth::CheckResponse>, Status> {
        self.let_go.notified().await;
        Ok(tonic::Response::new(auth::CheckResponse::default()))
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Scripted {
    type ProcessStream = tokio_stream::Pending<Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        _: tonic::Request<tonic::Streaming<ProcessingRequest>>,
    ) -> Result<tonic::Response<Self::ProcessStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }
}

impl Scripted {
    fn deciding(self) -> Deciding<Self, Self, Self> {
        Deciding { decisions: self.clone(), authorization: self.clone(), responses: self }
    }
}

struct Running {
    address: SocketAddr,
    channel: Channel,
    scripted: Scripted,
    readiness: Readiness,
    instruments: Instruments,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), GrpcError>>,
}

async fn run(limits: Limits) -> Running {
    let config = config::Listener { tcp: Some(([127, 0, 0, 1], 0).into()), ..Default::default() };
    let listener = Listener::bind(&config, 10, |_| {}).await.unwrap();
    let address = listener.local_addr().unwrap();
    let scripted = Scripted::default();
    let readiness = Readiness::new(&["keys"]);
    let instruments = Instruments::detached();
    let (stop, stopped) = oneshot::channel();
    let done = {
        let (scripted, readiness, instruments) = (scripted.clone(), readiness.clone(), instruments.clone());
        tokio::spawn(async move {
            let shutdown = async { stopped.await.unwrap() };
            serve(scripted.deciding(), &readiness, &limits, instruments, listener, shutdown).await
        })
    };
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    Running { address, channel, scripted, readiness, instruments, stop, done }
}

impl Running {
    fn decisions(&self) -> DecisionServiceClient<Channel> {
        DecisionServiceClient::new(self.channel.clone())
    }

    fn count(&self, kind: &str) -> bool {
        let metrics = self.instruments.render().unwrap();
        metrics.lines().any(|line| line.contains("undecided") && line.contains(kind))
    }
}

fn wait() -> tonic::Request<CheckRequest> {
    tonic::Request::new(CheckRequest { action: "wait".to_owned(), ..Default::default() })
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn answers_and_counts_only_what_it_could_not_decide() {
    let gate = run(Limits::default()).await;
    let answer = gate.decisions().check(CheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.decision_id, "d1");
    assert!(!gate.count("undecided"));

    let status = gate.decisions().check_batch(CheckBatchRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(gate.count("unavailable"));
}

/// A client that leaves the deadline to the server; tonic's own gives up by itself.
async fn patient(
    address: SocketAddr,
) -> DecisionServiceClient<
    impl tonic::client::GrpcService<Body, ResponseBody = Incoming, Error = hyper::Error, Future: Send>,
> {
    let stream = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let send = tower::service_fn(move |request: Request<Body>| sender.clone().send_request(request));
    DecisionServiceClient::with_origin(send, format!("http://{address}").parse().unwrap())
}

#[tokio::test]
async fn a_passed_deadline_is_deadline_exceeded() {
    let gate = run(Limits::default()).await;
    let mut client = patient(gate.address).await;
    let mut request = wait();
    request.metadata_mut().insert("grpc-timeout", "80m".parse().unwrap());
    let status = client.check(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(gate.count("deadline_exceeded"));

    let mut late = tonic::Request::new(CheckRequest::default());
    late.metadata_mut().insert("grpc-timeout", "0m".parse().unwrap());
    gate.scripted.begun.notified().await;
    let status = client.check(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let begun = tokio::time::timeout(Duration::from_millis(100), gate.scripted.begun.notified()).await;
    begun.expect_err("what was too late was begun");
}

#[tokio::test]
async fn the_gate_s_own_limit_holds_without_a_deadline() {
    let limits = Limits { request_timeout: "80ms".parse().unwrap(), ..Limits::default() };
    let gate = run(limits).await;
    let status = gate.decisions().check(wait()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn what_envoy_asks_ends_at_its_deadline_and_is_counted() {
    let limits = Limits { request_timeout: "80ms".parse().unwrap(), ..Limits::default() };
    let gate = run(limits).await;
    let mut client = auth::authorization_client::AuthorizationClient::new(gate.channel.clone());
    let status = client.check(auth::CheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(gate.count("deadline_exceeded"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_resource_exhausted() {
    let gate = run(Limits { message: "1 KiB".parse().unwrap(), ..Limits::default() }).await;
    let large = CheckRequest { purpose: "x".repeat(2000), ..Default::default() };
    let status = gate.decisions().check(large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(gate.count("resource_exhausted"));
}

#[tokio::test]
async fn a_message_that_is_none_is_an_invalid_argument() {
    /// Sends a message of another type: its first field is a message, not a string.
    async fn send(channel: &Channel) -> Status {
        let message = CheckBatchRequest {
            requests: vec![CheckRequest { license: None, action: "\u{7f}".repeat(3), ..Default::default() }],
            semantic: 1,
        };
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let path = "/tollgate.v1.DecisionService/Check".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<CheckBatchRequest, CheckResponse>::default();
        client.unary(tonic::Request::new(message), path, codec).await.unwrap_err()
    }
    let gate = run(Limits::default()).await;
    let status = send(&gate.channel).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(gate.count("invalid_argument"));
}

#[tokio::test]
async fn more_requests_than_allowed_on_a_connection_wait() {
    let gate = run(Limits { concurrent_requests_per_connection: 2, ..Limits::default() }).await;
    // A client learns the limit with the first answer; what it sent before may be refused.
    gate.decisions().check(CheckRequest::default()).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let mut client = gate.decisions();
        asked.spawn(async move { client.check(wait()).await });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(gate.scripted.under_way.load(Ordering::Relaxed), 2);
    for _ in 0..5 {
        gate.scripted.let_go.notify_one();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while let Some(answer) = tokio::time::timeout(PATIENCE, asked.join_next()).await.unwrap() {
        answer.unwrap().unwrap();
    }
}

#[tokio::test]
async fn health_follows_readiness() {
    let gate = run(Limits::default()).await;
    let mut client = HealthClient::new(gate.channel.clone());
    for ready in [false, true, false, true] {
        if ready {
            gate.readiness.ready("keys", "");
        } else {
            gate.readiness.not_ready("keys", "");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for service in ["", "tollgate.v1.DecisionService", "envoy.service.auth.v3.Authorization"] {
            let status = client.check(about(service)).await.unwrap().into_inner().status();
            assert_eq!(status, serving(ready), "{service}");
        }
    }
    let unknown = client.check(about("grpc.health.v1.Wealth")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut unknown = client.watch(about("no.Such")).await.unwrap().into_inner();
    assert_eq!(unknown.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

#[tokio::test]
async fn watchers_of_health_are_told_and_do_not_hold_up_the_end() {
    let gate = run(Limits::default()).await;
    let mut client = HealthClient::new(gate.channel.clone());
    let mut watched = client.watch(about("")).await.unwrap().into_inner();
    let mut told = async || watched.next().await.map(|status| status.unwrap().status());
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    gate.readiness.ready("keys", "");
    assert_eq!(told().await, Some(ServingStatus::Serving));

    gate.stop.send(()).unwrap();
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    assert_eq!(told().await, None);
    tokio::time::timeout(PATIENCE, gate.done).await.expect("the watcher held it up").unwrap().unwrap();
}

#[tokio::test]
async fn the_end_waits_for_what_is_under_way_and_lets_nothing_new_in() {
    let gate = run(Limits::default()).await;
    let mut client = gate.decisions();
    let asked = tokio::spawn(async move { client.check(wait()).await });
    gate.scripted.begun.notified().await;

    gate.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!gate.done.is_finished(), "a request was under way");
    gate.scripted.let_go.notify_one();
    assert_eq!(asked.await.unwrap().unwrap().into_inner().decision_id, "d1");
    tokio::time::timeout(PATIENCE, gate.done).await.expect("it did not end").unwrap().unwrap();
    let refused = HealthClient::new(gate.channel.clone()).check(about("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let gate = run(Limits::default()).await;
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let questions = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("tollgate.v1.CheckRequest".to_owned())),
    ]);
    let mut client = ServerReflectionClient::new(gate.channel.clone());
    let answers = client.server_reflection_info(questions).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await;
    let MessageResponse::ListServicesResponse(list) = &answers[0] else { panic!("{answers:?}") };
    let mut names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, [health_server::SERVICE_NAME, REFLECTION, decision_service_server::SERVICE_NAME]);
    assert!(matches!(answers[1], MessageResponse::FileDescriptorResponse(_)), "{answers:?}");
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented() {
    let gate = run(Limits::default()).await;
    for path in ["/no.Such/Method", "/tollgate.v1.DecisionService/Chuck", "/"] {
        let mut client = tonic::client::Grpc::new(gate.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
        let request = tonic::Request::new(CheckRequest::default());
        let status = client.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status}");
    }
}

async fn over_unix(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
    });
    Endpoint::from_static("http://gate").connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn serves_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let config = config::Listener { unix: Some(path.clone()), ..Default::default() };
    let listener = Listener::bind(&config, 10, |_| {}).await.unwrap();
    let served = tokio::spawn(async move {
        let readiness = Readiness::new(&["keys"]);
        let (limits, instruments) = (Limits::default(), Instruments::detached());
        serve(
            Scripted::default().deciding(),
            &readiness,
            &limits,
            instruments,
            listener,
            std::future::pending(),
        )
        .await
    });

    let mut client = DecisionServiceClient::new(over_unix(&path).await);
    let answer = client.check(CheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.decision_id, "d1");
    served.abort();
}

//! `HubService`: tells which member calls, parses, has it done, converts.
//!
//! Refuses callers that are no members before it looks at what they ask.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status};

use super::{GrpcError, deadline, http2, reflection, status, within};
use crate::config::{Limits, MemberScope};
use crate::decision::DecideError;
use crate::hub::{Hub, Mark, Members};
use crate::listener::{Listener, Peer, sessions, turned};
use crate::proto::v1 as wire;
use crate::proto::v1::hub_service_server::{self, HubService, HubServiceServer};
use crate::store::hub::messages::{self, MAX_REQUEST, Malformed};
use crate::store::{Change, Changed, Registration};

/// How often a member hears that the hub lives.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Messages that may wait for a member who reads slowly.
const WAITING: usize = 4;

/// Messages of up to [`MAX_REQUEST`] that are in memory at once. More stay unread, and with their senders.
const LARGE: usize = 32;

/// The bytes of each message that are taken in before it is read: members send many and large ones at once.
const UNREAD: u32 = 64 << 10;

/// The gRPC server for gates that keep their state in this one.
pub struct HubServer {
    hub: Arc<Hub>,
    members: Members,
    limits: Limits,
    closing: watch::Receiver<bool>,
}

impl HubServer {
    /// A server for `members`, which ends its streams when `closing` turns true.
    pub fn new(hub: Arc<Hub>, members: Members, limits: Limits, closing: watch::Receiver<bool>) -> Self {
        Self { hub, members, limits, closing }
    }

    /// Serves until `shutdown` resolves, then answers what is under way and resolves.
    ///
    /// # Errors
    /// When the descriptors for reflection are unusable.
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), GrpcError> {
        let service = Hubs { hub: self.hub, closing: self.closing };
        let hubs = HubServiceServer::new(service).max_decoding_message_size(MAX_REQUEST);
        let longest = self.limits.request_timeout.get();
        let reflection = reflection(&[hub_service_server::SERVICE_NAME])?;
        let rooms = Arc::new(Semaphore::new(LARGE));
        let service = |peer: &Peer| {
            let (hubs, reflection, rooms) = (hubs.clone(), reflection.clone(), Arc::clone(&rooms));
            let scope = recognise(&self.members, peer);
            service_fn(move |mut request: HttpRequest<Incoming>| {
                let (mut hubs, mut reflection, rooms) =
                    (hubs.clone(), reflection.clone(), Arc::clone(&rooms));
                async move {
                    let begun = Instant::now();
                    let Some(scope) = scope else {
                        return Ok::<HttpResponse<Body>, Infallible>(status::no_member().into_http());
                    };
                    let allowed = deadline::of_caller(request.headers()).unwrap_or(longest).min(longest);
                    request.extensions_mut().insert(scope);
                    let path = request.uri().path();
                    let named = path.get(1..).and_then(|path| path.split_once('/'));
                    let call = match named.unwrap_or_default() {
                        (hub_service_server::SERVICE_NAME, "HandIn" | "AddUsage") => Box::pin(async move {
                            let _room = rooms.acquire().await;
                            hubs.call(request).await
                        }),
                        (hub_service_server::SERVICE_NAME, _) => hubs.call(request),
                        (super::REFLECTION, _) => reflection.call(request),
                        _ => return Ok(status::no_such_service(path).into_http()),
                    };
                    Ok(within(begun, allowed, call).await)
                }
            })
        };
        let mut http = http2(&self.limits);
        http.http2().initial_stream_window_size(UNREAD);
        sessions::serve(listener, http, service, shutdown).await;
        Ok(())
    }
}

/// What the caller may do, if it is a member.
fn recognise(members: &Members, peer: &Peer) -> Option<MemberScope> {
    match peer {
        Peer::Unknown => members.unnamed(),
        Peer::Certificate(names) => members.with_certificate(names),
        Peer::User(_) => Some(members.over_unix()),
    }
}

#[derive(Clone)]
struct Hubs {
    hub: Arc<Hub>,
    closing: watch::Receiver<bool>,
}

/// The message of a member whose scope has this.
fn allowed<T>(request: Request<T>, least: MemberScope) -> Result<T, Status> {
    match request.extensions().get::<MemberScope>() {
        None => Err(status::no_member()),
        Some(scope) if *scope < least => Err(status::beyond_scope()),
        Some(_) => Ok(request.into_inner()),
    }
}

fn malformed(problem: Malformed) -> Status {
    status::invalid(problem.field, problem.problem)
}

type News = Pin<Box<dyn Stream<Item = Result<wire::NewsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl HubService for Hubs {
    async fn feed(
        &self,
        request: Request<wire::FeedRequest>,
    ) -> Result<Response<wire::FeedResponse>, Status> {
        let wire::FeedRequest { after, limit } = allowed(request, MemberScope::Gate)?;
        let feed = self.hub.feed(after, limit).await.map_err(status::of_store)?;
        Ok(Response::new(messages::feed(&feed)))
    }

    type NewsStream = News;

    async fn news(&self, request: Request<wire::NewsRequest>) -> Result<Response<News>, Status> {
        allowed(request, MemberScope::Gate)?;
        let (news, received) = mpsc::channel(WAITING);
        let (marks, closing) = (self.hub.news(), self.closing.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = send_news(marks, &news) => {}
                () = news.closed() => {}
                () = turned(closing) => {
                    // So that the member goes to another hub at once.
                    let _ = news.try_send(Err(status::undecided(DecideError::Closing)));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }

    async fn license(
        &self,
        request: Request<wire::LicenseRequest>,
    ) -> Result<Response<wire::LicenseResponse>, Status> {
        let id = allowed(request, MemberScope::Gate)?.license_id;
        let id = messages::name("license_id", id).map_err(malformed)?;
        let license = self.hub.license(&id).await.map_err(status::of_store)?;
        let license = license.map(|license| messages::registered(&license));
        Ok(Response::new(wire::LicenseResponse { license }))
    }

    async fn licenses(
        &self,
        request: Request<wire::LicensesRequest>,
    ) -> Result<Response<wire::LicensesResponse>, Status> {
        let question = allowed(request, MemberScope::Operate)?;
        let (filter, after, limit) = messages::read_licenses(question).map_err(malformed)?;
        let found = self.hub.store().licenses(&filter, &after, limit).await.map_err(status::of_store)?;
        let licenses = found.iter().map(messages::registered).collect();
        Ok(Response::new(wire::LicensesResponse { licenses }))
    }

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let license = allowed(request, MemberScope::Operate)?.license;
        let license = messages::read_registered(license).map_err(malformed)?;
        let present = match self.hub.register(&license).await.map_err(status::of_store)? {
            Registration::Created => None,
            Registration::Present(present) => Some(messages::registered(&present)),
        };
        Ok(Response::new(wire::RegisterResponse { present }))
    }

    async fn change(
        &self,
        request: Request<wire::ChangeRequest>,
    ) -> Result<Response<wire::ChangeResponse>, Status> {
        use wire::change_response::Outcome;
        let standing = allowed(request, MemberScope::Operate)?.standing;
        let standing = messages::read_standing(standing).map_err(malformed)?;
        // A member does not say what leads where: nothing leads out of REVOKED.
        let change = Change { from: standing.status.reached_from(), standing };
        let outcome = match self.hub.change(&change).await.map_err(status::of_store)? {
            Changed::Applied(revision) => Outcome::Applied(revision),
            Changed::Refused(standing) => Outcome::Refused(messages::standing(&standing)),
            Changed::Unknown => Outcome::Unknown(true),
        };
        Ok(Response::new(wire::ChangeResponse { outcome: Some(outcome) }))
    }

    async fn accept(
        &self,
        request: Request<wire::AcceptRequest>,
    ) -> Result<Response<wire::AcceptResponse>, Status> {
        let acceptance = allowed(request, MemberScope::Operate)?.acceptance;
        let acceptance = messages::read_acceptance(acceptance).map_err(malformed)?;
        let created = self.hub.accept(&acceptance).await.map_err(status::of_store)?;
        Ok(Response::new(wire::AcceptResponse { created }))
    }

    async fn acceptance(
        &self,
        request: Request<wire::AcceptanceRequest>,
    ) -> Result<Response<wire::AcceptanceResponse>, Status> {
        let question = allowed(request, MemberScope::Gate)?;
        let issuer = messages::name("issuer", question.issuer).map_err(malformed)?;
        let license = messages::name("license_id", question.license_id).map_err(malformed)?;
        let hash = messages::name("terms_hash", question.terms_hash).map_err(malformed)?;
        let found = self.hub.acceptance(&issuer, &license, &hash).await.map_err(status::of_store)?;
        let acceptance = found.map(|acceptance| messages::acceptance(&acceptance));
        Ok(Response::new(wire::AcceptanceResponse { acceptance }))
    }

    async fn take(
        &self,
        request: Request<wire::TakeRequest>,
    ) -> Result<Response<wire::TakeResponse>, Status> {
        let take = messages::read_take(allowed(request, MemberScope::Gate)?).map_err(malformed)?;
        let taken = self.hub.store().take(&take).await.map_err(status::of_store)?;
        Ok(Response::new(messages::taken(taken)))
    }

    async fn keep(
        &self,
        request: Request<wire::KeepRequest>,
    ) -> Result<Response<wire::KeepResponse>, Status> {
        let message = allowed(request, MemberScope::Gate)?;
        let (lease, kept) = messages::read_keep(&message).map_err(malformed)?;
        self.hub.store().keep(lease, kept).await.map_err(status::of_store)?;
        Ok(Response::new(wire::KeepResponse {}))
    }

    async fn give_back(
        &self,
        request: Request<wire::GiveBackRequest>,
    ) -> Result<Response<wire::GiveBackResponse>, Status> {
        let message = allowed(request, MemberScope::Gate)?;
        let (lease, amount) = messages::lease(&message).map_err(malformed)?;
        self.hub.store().give_back(lease, amount).await.map_err(status::of_store)?;
        Ok(Response::new(wire::GiveBackResponse {}))
    }

    async fn claimed(
        &self,
        request: Request<wire::ClaimedRequest>,
    ) -> Result<Response<wire::ClaimedResponse>, Status> {
        let request = allowed(request, MemberScope::Gate)?.request;
        let request = messages::text("request", request).map_err(malformed)?;
        let question = self.hub.store().claimed(&request).await.map_err(status::of_store)?;
        Ok(Response::new(wire::ClaimedResponse { question: question.map(Vec::from) }))
    }

    async fn claim(
        &self,
        request: Request<wire::ClaimRequest>,
    ) -> Result<Response<wire::ClaimResponse>, Status> {
        use crate::store::Claimed;
        let claim = messages::read_claim(allowed(request, MemberScope::Gate)?).map_err(malformed)?;
        let before = match self.hub.store().claim(&claim).await.map_err(status::of_store)? {
            Claimed::First => None,
            Claimed::Before(question) => Some(question.to_vec()),
        };
        Ok(Response::new(wire::ClaimResponse { before }))
    }

    async fn add_usage(
        &self,
        request: Request<wire::AddUsageRequest>,
    ) -> Result<Response<wire::AddUsageResponse>, Status> {
        let batch = messages::read_add_usage(allowed(request, MemberScope::Gate)?).map_err(malformed)?;
        self.hub.store().add_usage(&batch).await.map_err(status::of_store)?;
        Ok(Response::new(wire::AddUsageResponse {}))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        let question = allowed(request, MemberScope::Operate)?;
        let (filter, after, limit) = messages::read_usage(question).map_err(malformed)?;
        let rows = self.hub.store().usage(&filter, after.as_ref(), limit).await.map_err(status::of_store)?;
        Ok(Response::new(wire::UsageResponse { rows: messages::usage_rows(&rows) }))
    }

    async fn hand_in(
        &self,
        request: Request<wire::HandInRequest>,
    ) -> Result<Response<wire::HandInResponse>, Status> {
        let lines = allowed(request, MemberScope::Gate)?.lines;
        self.hub.hand_in(lines).await.map_err(status::not_taken)?;
        Ok(Response::new(wire::HandInResponse {}))
    }
}

/// Tells how far the feed goes: at once, when it grew, and every second.
async fn send_news(
    mut marks: watch::Receiver<Mark>,
    news: &mpsc::Sender<Result<wire::NewsResponse, Status>>,
) {
    loop {
        let Mark { epoch, revision, records } = *marks.borrow_and_update();
        let message = wire::NewsResponse { epoch: epoch.to_string(), revision, records };
        if news.send(Ok(message)).await.is_err() {
            return;
        }
        if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, marks.changed()).await {
            return;
        }
    }
}

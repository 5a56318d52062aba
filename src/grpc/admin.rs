//! `LicenseService`: tells who calls, parses, has it done, converts.
//!
//! Refuses callers that are not known before it looks at what they ask.

mod streams;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Request, Response, Status};

use super::{GrpcError, bytes, convert, http2, reflection, status, within};
use crate::administration::{AdminError, Administration, Listing, Operator, Operators, UsageWindow};
use crate::config::Limits;
use crate::decision::DecideError;
use crate::domain::standing::{Status as Standing, Which};
use crate::domain::time::Timestamp;
use crate::listener::{Listener, Peer, sessions, turned};
use crate::proto::v1::license_service_server::{self, LicenseService, LicenseServiceServer};
use crate::proto::v1::{self as wire, target};
use crate::store::hub::messages::{standing as convert_standing, status as convert_status};
use crate::store::{LicenseFilter, StoreError, UsageFilter};

use convert::timestamp;
use streams::{send_changes, send_usage};

/// The licenses of a page where the caller does not say.
const PAGE: usize = 100;

/// The most of them.
const LARGEST_PAGE: u32 = 1_000;

/// Rows and changes that may wait for a caller who reads slowly.
const WAITING: usize = 256;

/// The gRPC server for those who administer.
pub struct AdminServer {
    administration: Arc<Administration>,
    operators: Arc<Operators>,
    limits: Limits,
    closing: watch::Receiver<bool>,
}

impl AdminServer {
    /// A server for `operators`, which ends its streams when `closing` turns true.
    pub fn new(
        administration: Arc<Administration>,
        operators: Arc<Operators>,
        limits: Limits,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self { administration, operators, limits, closing }
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
        let licenses = Licenses { administration: self.administration, closing: self.closing };
        let licenses = LicenseServiceServer::new(licenses).max_decoding_message_size(bytes(&self.limits));
        let (longest, operators) = (self.limits.request_timeout.get(), self.operators);
        let reflection = reflection(&[license_service_server::SERVICE_NAME])?;
        let service = |peer: &Peer| {
            let (licenses, reflection, operators) = (licenses.clone(), reflection.clone(), operators.clone());
            let peer = peer.clone();
            service_fn(move |mut request: HttpRequest<Incoming>| {
                let (mut licenses, mut reflection) = (licenses.clone(), reflection.clone());
                let known = recognise(&operators, &peer, request.headers());
                async move {
                    let begun = Instant::now();
                    let Some(operator) = known else {
                        return Ok::<HttpResponse<Body>, Infallible>(status::unauthenticated().into_http());
                    };
                    request.extensions_mut().insert(operator);
                    let path = request.uri().path();
                    let named = path.get(1..).and_then(|path| path.split_once('/'));
                    let call = match named.map_or("", |(service, _)| service) {
                        license_service_server::SERVICE_NAME => licenses.call(request),
                        super::REFLECTION => reflection.call(request),
                        _ => return Ok(status::no_such_service(path).into_http()),
                    };
                    Ok(within(begun, longest, call).await)
                }
            })
        };
        sessions::serve(listener, http2(&self.limits), service, shutdown).await;
        Ok(())
    }
}

/// Who calls. A token that is shown counts alone, so that nobody acts under a name they did not mean.
fn recognise(operators: &Operators, peer: &Peer, headers: &HeaderMap) -> Option<Operator> {
    if let Some(shown) = headers.get(AUTHORIZATION) {
        let (scheme, token) = shown.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| operators.with_token(token.trim())).flatten();
    }
    match peer {
        Peer::Unknown => None,
        Peer::Certificate(names) => operators.with_certificate(names),
        Peer::User(uid) => Some(operators.over_unix(*uid)),
    }
}

#[derive(Clone)]
struct Licenses {
    administration: Arc<Administration>,
    closing: watch::Receiver<bool>,
}

fn operator<T>(request: &Request<T>) -> Result<Operator, Status> {
    request.extensions().get::<Operator>().cloned().ok_or_else(status::unauthenticated)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LicenseService for Licenses {
    async fn register_license(
        &self,
        request: Request<wire::RegisterLicenseRequest>,
    ) -> Result<Response<wire::RegisterLicenseResponse>, Status> {
        let by = operator(&request)?;
        let (administration, token) = (Arc::clone(&self.administration), request.into_inner().token);
        let (listed, created) = done(async move { administration.register(&by, token.trim()).await }).await?;
        Ok(Response::new(wire::RegisterLicenseResponse { license: Some(license(listed)), created }))
    }

    async fn get_license(
        &self,
        request: Request<wire::GetLicenseRequest>,
    ) -> Result<Response<wire::GetLicenseResponse>, Status> {
        let by = operator(&request)?;
        let found = self.administration.get(&by, &request.into_inner().license_id).await;
        let found = found.map_err(status::not_done)?;
        Ok(Response::new(wire::GetLicenseResponse { license: Some(license(found)) }))
    }

    async fn list_licenses(
        &self,
        request: Request<wire::ListLicensesRequest>,
    ) -> Result<Response<wire::ListLicensesResponse>, Status> {
        let by = operator(&request)?;
        let listing = listing(request.into_inner())?;
        let (licenses, next) = self.administration.list(&by, &listing).await.map_err(status::not_done)?;
        Ok(Response::new(wire::ListLicensesResponse {
            licenses: licenses.into_iter().map(license).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn revoke_license(
        &self,
        request: Request<wire::RevokeLicenseRequest>,
    ) -> Result<Response<wire::RevokeLicenseResponse>, Status> {
        let by = operator(&request)?;
        let wire::RevokeLicenseRequest { target, reason } = request.into_inner();
        let standing = self.change(by, target, Standing::Revoked, reason).await?;
        Ok(Response::new(wire::RevokeLicenseResponse { standing: Some(standing) }))
    }

    async fn suspend_license(
        &self,
        request: Request<wire::SuspendLicenseRequest>,
    ) -> Result<Response<wire::SuspendLicenseResponse>, Status> {
        let by = operator(&request)?;
        let wire::SuspendLicenseRequest { target, reason } = request.into_inner();
        let standing = self.change(by, target, Standing::Suspended, reason).await?;
        Ok(Response::new(wire::SuspendLicenseResponse { standing: Some(standing) }))
    }

    async fn reinstate_license(
        &self,
        request: Request<wire::ReinstateLicenseRequest>,
    ) -> Result<Response<wire::ReinstateLicenseResponse>, Status> {
        let by = operator(&request)?;
        let wire::ReinstateLicenseRequest { target, reason } = request.into_inner();
        let standing = self.change(by, target, Standing::Valid, reason).await?;
        Ok(Response::new(wire::ReinstateLicenseResponse { standing: Some(standing) }))
    }

    async fn accept_terms(
        &self,
        request: Request<wire::AcceptTermsRequest>,
    ) -> Result<Response<wire::AcceptTermsResponse>, Status> {
        let by = operator(&request)?;
        let wire::AcceptTermsRequest { issuer, license_id, terms_hash, accepted_by } = request.into_inner();
        if license_id.is_empty() {
            return Err(status::invalid("license_id", "is missing"));
        }
        let target = self.administration.target(&issuer, Which::License(license_id)).await;
        let target = target.map_err(status::not_done)?;
        let administration = Arc::clone(&self.administration);
        let accept = async move { administration.accept(&by, &target, &terms_hash, &accepted_by).await };
        Ok(Response::new(wire::AcceptTermsResponse { created: done(accept).await? }))
    }

    type GetUsageStream = Answers<wire::GetUsageResponse>;

    async fn get_usage(
        &self,
        request: Request<wire::GetUsageRequest>,
    ) -> Result<Response<Self::GetUsageStream>, Status> {
        let by = operator(&request)?;
        let (filter, window) = usage(request.into_inner())?;
        let reader = self.administration.usage(&by, filter, window).map_err(status::not_done)?;
        let (rows, received) = mpsc::channel(WAITING);
        tokio::spawn(send_usage(reader, rows));
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }

    type WatchLicensesStream = Answers<wire::WatchLicensesResponse>;

    async fn watch_licenses(
        &self,
        request: Request<wire::WatchLicensesRequest>,
    ) -> Result<Response<Self::WatchLicensesStream>, Status> {
        let by = operator(&request)?;
        let issuer = some(request.into_inner().issuer);
        let mut watch = self.administration.watch(&by, issuer.as_deref()).map_err(status::not_done)?;
        let (changes, received) = mpsc::channel(WAITING);
        let closing = self.closing.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = send_changes(&mut watch, &changes) => {}
                () = changes.closed() => {}
                () = turned(closing) => {
                    let _ = changes.send(Err(status::undecided(DecideError::Closing))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(received))))
    }
}

impl Licenses {
    async fn change(
        &self,
        by: Operator,
        target: Option<wire::Target>,
        to: Standing,
        reason: String,
    ) -> Result<wire::Standing, Status> {
        let target = target.ok_or_else(|| status::invalid("target", "is missing"))?;
        let which = match target.which {
            None => return Err(status::invalid("target.which", "is missing")),
            Some(target::Which::All(false)) => return Err(status::invalid("target.all", "must be true")),
            Some(target::Which::All(true)) => Which::All,
            Some(target::Which::LicenseId(id)) => Which::License(id),
            Some(target::Which::KeyId(kid)) => Which::Key(kid),
            Some(target::Which::Assignee(assignee)) => Which::Assignee(assignee),
        };
        let target = self.administration.target(&target.issuer, which).await.map_err(status::not_done)?;
        let administration = Arc::clone(&self.administration);
        let standing = done(async move { administration.change(&by, &target, to, &reason).await }).await?;
        Ok(convert_standing(&standing))
    }
}

/// Does an act on a task of its own, for it is done to its end and recorded also when the caller goes away or
/// has no more patience.
async fn done<T: Send + 'static>(
    act: impl Future<Output = Result<T, AdminError>> + Send + 'static,
) -> Result<T, Status> {
    // What does not end was stopped with the gate.
    let ended = tokio::spawn(act).await.unwrap_or(Err(AdminError::Store(StoreError::Closed)));
    ended.map_err(status::not_done)
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn time(field: &str, time: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let read = |time: prost_types::Timestamp| {
        Timestamp::new(time.seconds, time.nanos).map_err(|_| status::invalid(field, "is not a time"))
    };
    time.map(read).transpose()
}

fn listing(request: wire::ListLicensesRequest) -> Result<Listing, Status> {
    let status = match wire::LicenseStatus::try_from(request.status) {
        Ok(wire::LicenseStatus::Unspecified) => None,
        Ok(wire::LicenseStatus::Valid) => Some(Standing::Valid),
        Ok(wire::LicenseStatus::Suspended) => Some(Standing::Suspended),
        Ok(wire::LicenseStatus::Revoked) => Some(Standing::Revoked),
        Err(_) => return Err(status::invalid("status", "must be one of LicenseStatus")),
    };
    let size = match request.page_size {
        0 => PAGE,
        size @ 1..=LARGEST_PAGE => usize::try_from(size).unwrap_or(PAGE),
        _ => return Err(status::invalid("page_size", "must be from 1 to 1,000, or 0 for 100")),
    };
    Ok(Listing {
        filter: LicenseFilter {
            issuer: some(request.issuer),
            assignee: some(request.assignee),
            expiring_before: time("expiring_before", request.expiring_before)?,
        },
        status,
        after: request.page_token,
        size,
    })
}

fn usage(request: wire::GetUsageRequest) -> Result<(UsageFilter, UsageWindow), Status> {
    let window = match wire::UsageWindow::try_from(request.window) {
        Ok(wire::UsageWindow::Unspecified | wire::UsageWindow::Total) => UsageWindow::Total,
        Ok(wire::UsageWindow::Hour) => UsageWindow::Hour,
        Ok(wire::UsageWindow::Day) => UsageWindow::Day,
        Ok(wire::UsageWindow::Month) => UsageWindow::Month,
        Err(_) => return Err(status::invalid("window", "must be one of UsageWindow")),
    };
    let filter = UsageFilter {
        issuer: some(request.issuer),
        license: some(request.license_id),
        assignee: some(request.assignee),
        user: some(request.user),
        project: some(request.project),
        metric: some(request.metric),
        from: time("from", request.from)?,
        until: time("until", request.until)?,
    };
    Ok((filter, window))
}

fn license(listed: crate::administration::Listed) -> wire::License {
    let status = convert_status(listed.status());
    let standings = listed.standings.iter().map(|standing| convert_standing(standing)).collect();
    let license = listed.license;
    wire::License {
        id: license.id,
        issuer: license.issuer,
        assignee: license.assignee,
        key_id: license.kid,
        not_before: timestamp(license.not_before),
        expires: timestamp(license.expires),
        registered_at: timestamp(license.registered_at),
        registered_by: license.registered_by,
        status: status.into(),
        standings,
    }
}

//! Somebody who administers a gate, over its Unix socket.

use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tollgate::proto::v1::license_service_client::LicenseServiceClient;
use tollgate::proto::v1::target::Which;
use tollgate::proto::v1::{
    AcceptTermsRequest, GetUsageRequest, GetUsageResponse, RegisterLicenseRequest, ReinstateLicenseRequest,
    RevokeLicenseRequest, Standing, SuspendLicenseRequest, Target,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::gate::Gate;

/// What a gate needs to be administered by [`Admin`].
pub(crate) const OVERRIDES: &[(&str, &str)] = &[("listeners.administration.unix", "admin.sock")];

/// Somebody who administers.
#[derive(Clone)]
pub(crate) struct Admin(pub(crate) LicenseServiceClient<Channel>);

pub(crate) fn license(id: &str) -> Option<Target> {
    Some(Target { issuer: String::new(), which: Some(Which::LicenseId(id.to_owned())) })
}

impl Admin {
    pub(crate) async fn of(gate: &Gate) -> Self {
        Self::at(gate.site().path("admin.sock")).await
    }

    pub(crate) async fn at(socket: PathBuf) -> Self {
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::from_static("http://admin");
        Self(LicenseServiceClient::new(endpoint.connect_with_connector(connector).await.unwrap()))
    }

    pub(crate) async fn try_revoke(&mut self, id: &str) -> Result<Standing, Status> {
        let request = RevokeLicenseRequest { target: license(id), reason: "a test".into() };
        Ok(self.0.revoke_license(request).await?.into_inner().standing.unwrap())
    }

    pub(crate) async fn revoke(&mut self, id: &str) {
        self.try_revoke(id).await.unwrap();
    }

    pub(crate) async fn suspend(&mut self, id: &str) {
        let request = SuspendLicenseRequest { target: license(id), reason: "a test".into() };
        self.0.suspend_license(request).await.unwrap();
    }

    pub(crate) async fn reinstate(&mut self, id: &str) {
        let request = ReinstateLicenseRequest { target: license(id), reason: "a test".into() };
        self.0.reinstate_license(request).await.unwrap();
    }

    pub(crate) async fn accept(&mut self, id: &str, hash: &str) -> bool {
        let request = AcceptTermsRequest {
            issuer: String::new(),
            license_id: id.to_owned(),
            terms_hash: hash.to_owned(),
            accepted_by: "ana".to_owned(),
        };
        self.0.accept_terms(request).await.unwrap().into_inner().created
    }

    pub(crate) async fn register(&mut self, token: &str) -> Result<bool, Status> {
        let request = RegisterLicenseRequest { token: token.to_owned() };
        Ok(self.0.register_license(request).await?.into_inner().created)
    }

    pub(crate) async fn usage(&mut self, request: GetUsageRequest) -> Vec<GetUsageResponse> {
        let mut answers = self.0.get_usage(request).await.unwrap().into_inner();
        let mut rows = Vec::new();
        while let Some(row) = answers.message().await.unwrap() {
            rows.push(row);
        }
        rows
    }
}

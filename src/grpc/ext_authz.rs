//! `envoy.service.auth.v3.Authorization`: reads what Envoy says of a request, asks the PDP, says what Envoy does.
//!
//! Refuses to deny by a gRPC status, which Envoy takes for an outage: that is only for what could not be decided.

mod answer;
mod evidence;
mod headers;
mod metadata;
mod path;
mod request;

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::decision::traced;
use super::status;
use crate::config::Envoy;
use crate::decision::Pdp;
use crate::domain::Clock;

use answer::Licensed;

/// The decisions of a PDP, for Envoy.
pub struct ExtAuthz {
    pdp: Arc<Pdp>,
    clock: Clock,
    envoy: Envoy,
}

impl ExtAuthz {
    /// A service that reads what Envoy says as `envoy` has it.
    pub fn new(pdp: Arc<Pdp>, clock: Clock, envoy: Envoy) -> Self {
        Self { pdp, clock, envoy }
    }
}

#[tonic::async_trait]
impl Authorization for ExtAuthz {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let asked = request::read(&message.attributes.unwrap_or_default(), &self.envoy);
        let (span, trace_id) = traced("envoy.service.auth.v3.Authorization/Check", metadata.as_ref());
        let now = self.clock.now();
        let (decision, license) = self
            .pdp
            .check_known(&asked.question, trace_id.as_deref(), now)
            .instrument(span.clone())
            .await
            .map_err(status::undecided)?;
        span.record("decision", decision.effect.as_str());
        let claims = license.as_deref().map(|known| &known.license.claims);
        let license = claims.map(|claims| Licensed { id: &claims.jti, tier: claims.terms.tier.as_deref() });
        answer::answer(&decision, license, &asked, &self.envoy, now).map(Response::new)
    }
}

//! From a decision to what Envoy is told: a pure function.
//!
//! Envoy reads an answer without a status as an allow, and an allow with a denial in it too. Refuses to leave anything
//! to that: an allow says OK and what to do, a denial says why and has an HTTP status of its own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::pb::google::rpc;
use http::StatusCode;
use prost::Message;
use tonic::{Code as GrpcCode, Status};

use super::metadata::{list, object, text};
use super::request::Asked;
use crate::audit::redact::fit;
use crate::config::Envoy;
use crate::domain::time::Timestamp;
use crate::domain::{Decision, Effect};
use crate::grpc::envoy::refusal::Refusal;
use crate::grpc::envoy::{DECISION_ID, codes, fields, header, visible};
use crate::grpc::{convert, status};

/// The headers that say what was allowed. One that is not set is taken away: the client may have sent it.
const ID: &str = "x-license-id";
const TIER: &str = "x-license-tier";
const ENFORCED: &str = "x-license-enforced";
const OBLIGATIONS: &str = "x-license-obligations";

/// The most bytes of a name in a header: a longer one is left out.
const MAX_NAME: usize = 1 << 10;
/// The most bytes of obligations: Envoy takes requests with 60 KiB of headers, unless told otherwise.
const MAX_OBLIGATIONS: usize = 32 << 10;

/// What is known of the license of a decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Licensed<'a> {
    pub(super) id: &'a str,
    pub(super) tier: Option<&'a str>,
}

/// What Envoy is told.
///
/// # Errors
/// Where an allow has more duties than headers can carry.
pub(super) fn answer(
    decision: &Decision,
    license: Option<Licensed<'_>>,
    asked: &Asked,
    envoy: &Envoy,
    now: Timestamp,
) -> Result<CheckResponse, Status> {
    let (code, response) = match decision.effect {
        Effect::Allow => {
            (GrpcCode::Ok, HttpResponse::OkResponse(allow(decision, license, asked, envoy, now)?))
        }
        Effect::Deny => {
            (GrpcCode::PermissionDenied, HttpResponse::DeniedResponse(deny(decision, asked, now)))
        }
    };
    let status = rpc::Status { code: code.into(), ..rpc::Status::default() };
    let dynamic_metadata = Some(told(decision, license, asked, envoy));
    Ok(CheckResponse { status: Some(status), dynamic_metadata, http_response: Some(response) })
}

fn allow(
    decision: &Decision,
    license: Option<Licensed<'_>>,
    asked: &Asked,
    envoy: &Envoy,
    now: Timestamp,
) -> Result<OkHttpResponse, Status> {
    let name = |text: &str| Some(visible::text(text)).filter(|name| name.len() <= MAX_NAME);
    let obligations = match decision.obligations.as_slice() {
        [] => None,
        duties => {
            let duties = visible::json(&duties).filter(|duties| duties.len() <= MAX_OBLIGATIONS);
            Some(duties.ok_or_else(|| status::answer_too_large(MAX_OBLIGATIONS))?)
        }
    };
    let said = [
        (ID, license.and_then(|license| name(license.id))),
        (TIER, license.and_then(|license| name(license.tier?))),
        (DECISION_ID, Some(decision.id.to_string())),
        (OBLIGATIONS, obligations),
        (ENFORCED, (!decision.enforced).then(|| "false".to_owned())),
    ];
    let mut headers_to_remove: Vec<String> =
        said.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| (*name).to_owned()).collect();
    if !envoy.keep_license {
        headers_to_remove.extend(asked.license_headers.iter().cloned());
    }
    let headers = said.into_iter().filter_map(|(name, value)| Some(header(name, value?))).collect();
    let response_headers_to_add = fields(&decision.quotas, now);
    Ok(OkHttpResponse { headers, headers_to_remove, response_headers_to_add, ..OkHttpResponse::default() })
}

fn deny(decision: &Decision, asked: &Asked, now: Timestamp) -> DeniedHttpResponse {
    let Refusal { denial, status, mut headers, body } = Refusal::of(decision, asked.is_grpc, now);
    if asked.is_grpc {
        // Envoy makes a gRPC status of an HTTP status, and a coarse one: these say it finely.
        headers.push(header("grpc-status", i32::from(denial.grpc()).to_string()));
        headers.push(header("grpc-message", visible::grpc_message(&body)));
        return denied(StatusCode::FORBIDDEN, headers, String::new());
    }
    denied(status, headers, body)
}

fn denied(status: StatusCode, headers: Vec<HeaderValueOption>, body: String) -> DeniedHttpResponse {
    let status = Some(HttpStatus { code: i32::from(status.as_u16()) });
    DeniedHttpResponse { status, headers, body }
}

/// What other filters and access logs may know, under the name of this filter.
fn told(decision: &Decision, license: Option<Licensed<'_>>, asked: &Asked, envoy: &Envoy) -> Struct {
    let codes = codes(decision).into_iter().map(|code| text(code.as_str())).collect();
    // As text: numbers are doubles here.
    let left =
        |quota: &crate::domain::outcome::QuotaState| (quota.id.clone(), text(quota.remaining.to_string()));
    let mut fields: Vec<(&str, Value)> = vec![
        ("decision_id", text(decision.id.to_string())),
        ("decision", text(decision.effect.as_str())),
        ("subject", text(fit(&asked.question.subject.id, MAX_NAME))),
        ("codes", list(codes)),
        ("quotas", object(decision.quotas.iter().map(left).collect())),
    ];
    fields.extend(license.map(|license| ("license_id", text(license.id))));
    fields.extend((!decision.enforced).then(|| ("enforced", text("false"))));
    if envoy.kill_switch && decision.effect == Effect::Allow {
        let question = convert::ask(asked.question.clone()).encode_to_vec();
        fields.push(("question", text(STANDARD.encode(question))));
    }
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

#[cfg(test)]
mod tests;

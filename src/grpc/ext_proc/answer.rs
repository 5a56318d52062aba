//! What Envoy is told about a response that is under way.
//!
//! Refuses to say nothing where Envoy waits: it would withhold the response, and then give up.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{
    BodySendMode, HeaderSendMode,
};
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Said;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, GrpcStatus, HeaderMutation, HeadersResponse,
    ImmediateResponse, ProcessingRequest, ProcessingResponse, TrailersResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use tonic::Status;

use super::opening::Manner;
use crate::domain::Decision;
use crate::domain::time::Timestamp;
use crate::grpc::envoy::denial::Denial;
use crate::grpc::envoy::refusal::Refusal;
use crate::grpc::status;

/// What passes, passes as it is.
pub(super) fn go_on(said: &ProcessingRequest) -> ProcessingResponse {
    let answer = said.request.as_ref().map(|said| match said {
        Said::RequestHeaders(_) => Answer::RequestHeaders(HeadersResponse::default()),
        Said::ResponseHeaders(_) => Answer::ResponseHeaders(HeadersResponse::default()),
        Said::RequestBody(_) => Answer::RequestBody(BodyResponse::default()),
        Said::ResponseBody(_) => Answer::ResponseBody(BodyResponse::default()),
        Said::RequestTrailers(_) => Answer::RequestTrailers(TrailersResponse::default()),
        Said::ResponseTrailers(_) => Answer::ResponseTrailers(TrailersResponse::default()),
    });
    ProcessingResponse { response: answer, ..ProcessingResponse::default() }
}

/// The same, and the body of the response is to be handed over. Envoy compares the whole of this with what
/// `allowed_override_modes` allows.
pub(super) fn hand_over(answer: ProcessingResponse, manner: &Manner) -> ProcessingResponse {
    let mode = ProcessingMode {
        response_header_mode: HeaderSendMode::Skip.into(),
        request_body_mode: manner.request_body.into(),
        response_body_mode: BodySendMode::Streamed.into(),
        request_trailer_mode: HeaderSendMode::Skip.into(),
        response_trailer_mode: HeaderSendMode::Send.into(),
        ..ProcessingMode::default()
    };
    ProcessingResponse { mode_override: Some(mode), ..answer }
}

/// Of a chunk, only these bytes pass.
pub(super) fn only(bytes: &[u8]) -> ProcessingResponse {
    let body = BodyMutation { mutation: Some(Mutation::Body(bytes.to_vec())) };
    let common = CommonResponse { body_mutation: Some(body), ..CommonResponse::default() };
    let answer = Answer::ResponseBody(BodyResponse { response: Some(common) });
    ProcessingResponse { response: Some(answer), ..ProcessingResponse::default() }
}

/// The response ends here. If nothing of it has passed, the client is told why. Envoy logs why as the details of the
/// response.
///
/// # Errors
/// Where Envoy hears nothing but errors.
pub(super) fn cut(
    decision: &Decision,
    manner: &Manner,
    now: Timestamp,
) -> Result<ProcessingResponse, Status> {
    let Refusal { denial, status: http, headers, body } = Refusal::of(decision, manner.is_grpc, now);
    let details = details(denial, decision);
    if manner.is_observed {
        return Err(status::cut(denial.grpc(), details));
    }
    let grpc_status = manner.is_grpc.then(|| GrpcStatus { status: i32::from(denial.grpc()).unsigned_abs() });
    let response = ImmediateResponse {
        status: Some(HttpStatus { code: i32::from(http.as_u16()) }),
        headers: Some(HeaderMutation {
            set_headers: headers.into_iter().map(raw).collect(),
            ..HeaderMutation::default()
        }),
        body: body.into_bytes(),
        grpc_status,
        details,
    };
    let answer = Answer::ImmediateResponse(response);
    Ok(ProcessingResponse { response: Some(answer), ..ProcessingResponse::default() })
}

/// The same with its value where Envoy looks for it here: the other field is read as nothing.
fn raw(mut option: HeaderValueOption) -> HeaderValueOption {
    if let Some(header) = &mut option.header {
        header.raw_value = std::mem::take(&mut header.value).into_bytes();
    }
    option
}

/// The code that is told, for the access log.
fn details(denial: Denial, decision: &Decision) -> String {
    let mut codes = decision.reasons.iter().map(|reason| reason.code);
    let told = codes.find(|code| Denial::of(*code) == denial);
    format!("tollgate_{}", told.map_or("denied", |code| code.as_str()).to_ascii_lowercase())
}

//! What the first message of a stream says: what was asked about the request, and how Envoy hands over the response.
//!
//! Refuses a stream of which nobody knows what was asked, unless it is an error that Envoy itself made up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::ProcessingRequest;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Said;
use envoy_types::pb::google::protobuf::value::Kind;
use prost::Message;
use tonic::Status;

use crate::domain::CheckRequest;
use crate::grpc::{convert, status};
use crate::proto::v1 as wire;

/// Where `ext_authz` leaves what it was told.
const EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The question, in it.
const QUESTION: &str = "question";

/// What a stream begins with.
pub(super) enum First {
    /// The response to a request that was asked about.
    Asked(Box<Opening>),
    /// An answer of Envoy's own to a request that was denied, or could not be asked about.
    LocalReply,
}

/// A response that is handed over.
pub(super) struct Opening {
    /// What was asked about its request.
    pub(super) question: CheckRequest,
    pub(super) manner: Manner,
}

/// How Envoy hands over a response, and what its client understands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Whether the client speaks gRPC.
    pub(super) is_grpc: bool,
    /// Whether Envoy only shows what passes, and waits for no answer.
    pub(super) is_observed: bool,
    /// Whether the stream begins with the request, so that the mode of the rest can be chosen.
    pub(super) begins_with_request: bool,
    /// How bodies of requests and responses come.
    pub(super) request_body: BodySendMode,
    pub(super) response_body: BodySendMode,
}

impl Manner {
    pub(super) fn is_streamed(&self) -> bool {
        self.response_body == BodySendMode::Streamed
    }

    /// Whether the response is handed over, or can be. Of what it only shows, Envoy does not say how it comes.
    pub(super) fn can_count(&self) -> bool {
        self.is_observed || self.is_streamed() || self.begins_with_request
    }
}

/// Reads the first message.
///
/// # Errors
/// Where it does not say what was asked, or hands over the response in a way that loses bytes.
pub(super) fn read(first: &ProcessingRequest) -> Result<First, Status> {
    let manner = manner(first)?;
    let metadata = first.metadata_context.as_ref();
    let told = metadata.and_then(|metadata| metadata.filter_metadata.get(EXT_AUTHZ));
    let question = told.and_then(|told| told.fields.get(QUESTION)).and_then(|value| value.kind.as_ref());
    let Some(Kind::StringValue(question)) = question else {
        return match &first.request {
            Some(Said::ResponseHeaders(headers)) if is_error(headers.headers.as_ref()) => {
                Ok(First::LocalReply)
            }
            _ => Err(status::unusable(
                "Envoy does not say what was asked: `ext_proc` comes after `ext_authz`, which asks this gate or one like \
                 it with `envoy.kill_switch: true`, and has `metadata_options.forwarding_namespaces.untyped: \
                 [envoy.filters.http.ext_authz]`",
            )),
        };
    };
    let decoded =
        STANDARD.decode(question).ok().and_then(|bytes| wire::CheckRequest::decode(bytes.as_slice()).ok());
    let unreadable = || status::unusable("what Envoy says was asked is no question");
    let question = convert::question(decoded.ok_or_else(unreadable)?)?;
    Ok(First::Asked(Box::new(Opening { question, manner })))
}

fn manner(first: &ProcessingRequest) -> Result<Manner, Status> {
    let config = first.protocol_config.unwrap_or_default();
    let (request_body, response_body) = (config.request_body_mode(), config.response_body_mode());
    let streams = |mode| matches!(mode, BodySendMode::None | BodySendMode::Streamed);
    if !streams(request_body) || !streams(response_body) {
        return Err(status::unusable("`processing_mode`: bodies come `STREAMED` or not at all"));
    }
    let request = match &first.request {
        Some(Said::RequestHeaders(headers)) => headers.headers.as_ref(),
        _ => None,
    };
    Ok(Manner {
        is_grpc: value(request, "content-type").starts_with(b"application/grpc"),
        is_observed: first.observability_mode,
        begins_with_request: matches!(first.request, Some(Said::RequestHeaders(_))),
        request_body,
        response_body,
    })
}

/// Whether the response is an error.
fn is_error(headers: Option<&HeaderMap>) -> bool {
    matches!(value(headers, ":status"), [b'4' | b'5', _, _])
}

/// The value of a header; Envoy puts it into one field or the other.
fn value<'a>(headers: Option<&'a HeaderMap>, name: &str) -> &'a [u8] {
    let found = headers.and_then(|headers| headers.headers.iter().find(|header| header.key == name));
    found.map_or(b"", |header| match header.raw_value.as_slice() {
        [] => header.value.as_bytes(),
        raw => raw,
    })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{HeaderValue, Metadata};
    use envoy_types::pb::envoy::service::ext_proc::v3::{HttpHeaders, HttpTrailers, ProtocolConfiguration};
    use envoy_types::pb::google::protobuf::{Struct, Value};
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;
    use crate::domain::LicenseRef;

    fn headers(lines: &[(&str, &str)]) -> HttpHeaders {
        let headers = lines.iter().map(|(key, value)| HeaderValue {
            key: (*key).to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        });
        HttpHeaders { headers: Some(HeaderMap { headers: headers.collect() }), ..HttpHeaders::default() }
    }

    fn begun(said: Said, question: Option<&str>) -> ProcessingRequest {
        let question = question.map(|text| {
            let value = Value { kind: Some(Kind::StringValue(text.to_owned())) };
            (EXT_AUTHZ.to_owned(), Struct { fields: [(QUESTION.to_owned(), value)].into() })
        });
        let metadata = Metadata { filter_metadata: question.into_iter().collect(), ..Metadata::default() };
        ProcessingRequest {
            request: Some(said),
            metadata_context: Some(metadata),
            ..ProcessingRequest::default()
        }
    }

    fn question() -> String {
        let request = CheckRequest { license: LicenseRef::Id("l".to_owned()), ..CheckRequest::default() };
        STANDARD.encode(convert::ask(request).encode_to_vec())
    }

    fn refused(first: &ProcessingRequest) -> String {
        match read(first) {
            Err(status) => {
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                status.message().to_owned()
            }
            Ok(_) => panic!("it was taken: {first:?}"),
        }
    }

    #[test]
    fn tells_what_was_asked_and_how_the_response_comes() {
        let lines = [("content-type", "application/grpc+proto")];
        let mut first = begun(Said::RequestHeaders(headers(&lines)), Some(&question()));
        let Ok(First::Asked(opening)) = read(&first) else { panic!("{first:?}") };
        assert_eq!(opening.question.license, LicenseRef::Id("l".to_owned()));
        assert!(opening.manner.is_grpc && opening.manner.can_count() && !opening.manner.is_streamed());
        let mode = BodySendMode::FullDuplexStreamed.into();
        first.protocol_config =
            Some(ProtocolConfiguration { response_body_mode: mode, ..Default::default() });
        assert!(refused(&first).contains("STREAMED"));
        // Without its request, the mode of a response can no longer be chosen.
        let late = begun(Said::ResponseTrailers(HttpTrailers::default()), Some(&question()));
        let Ok(First::Asked(opening)) = read(&late) else { panic!("{late:?}") };
        assert!(!opening.manner.can_count());
    }

    #[test]
    fn without_a_question_only_an_error_of_envoy_s_own_passes() {
        for (status, passes) in
            [("200", false), ("302", false), ("403", true), ("503", true), ("", false), ("4", false)]
        {
            let first = begun(Said::ResponseHeaders(headers(&[(":status", status)])), None);
            assert_eq!(matches!(read(&first), Ok(First::LocalReply)), passes, "{status}");
        }
        assert!(
            refused(&begun(Said::RequestHeaders(headers(&[(":status", "403")])), None))
                .contains("forwarding_namespaces")
        );
        assert!(refused(&begun(Said::RequestHeaders(headers(&[])), Some("%"))).contains("no question"));
        assert!(refused(&ProcessingRequest::default()).contains("ext_authz"));
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_is_made_up(bytes in prop::collection::vec(any::<u8>(), 0..200), told in ".{0,40}") {
            if let Ok(first) = ProcessingRequest::decode(bytes.as_slice()) {
                prop_assert!(!matches!(read(&first), Ok(First::Asked(_))));
            }
            let decoded = STANDARD.decode(&told).ok().and_then(|bytes| wire::CheckRequest::decode(bytes.as_slice()).ok());
            let taken = read(&begun(Said::RequestHeaders(headers(&[])), Some(&told))).is_ok();
            prop_assert_eq!(taken, decoded.is_some_and(|question| convert::question(question).is_ok()));
        }
    }
}

//! What cannot be decided, as gRPC statuses with `google.rpc` details: the codes that
//! `decision.proto` promises, and the words under which they are counted.
//!
//! Refuses to pass a denial off as one: a denial is an answer.

use std::collections::HashMap;

use http::{HeaderMap, HeaderValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::administration::AdminError;
use crate::decision::DecideError;
use crate::hub::HandInError;
use crate::quota::SettleError;
use crate::store::StoreError;

/// The `domain` of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tollgate";
const GRPC_STATUS: &str = "grpc-status";
const GRPC_STATUS_DETAILS: &str = "grpc-status-details-bin";

/// The request is not well-formed, at `field`.
pub(super) fn invalid(field: &str, problem: &str) -> Status {
    let mut details = ErrorDetails::with_bad_request_violation(field, problem);
    details.set_error_info("REQUEST_INVALID", DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(Code::InvalidArgument, format!("`{field}` {problem}"), details)
}

/// The gate could not decide.
pub(super) fn undecided(error: DecideError) -> Status {
    match error {
        DecideError::Closing => with_info(Code::Unavailable, "CLOSING", error.to_string()),
    }
}

/// Envoy hands over a response in a way that nothing can be decided about.
pub(super) fn unusable(problem: &str) -> Status {
    with_info(Code::FailedPrecondition, "STREAM_UNUSABLE", problem)
}

/// A response that Envoy only shows is cut.
pub(super) fn cut(code: Code, details: String) -> Status {
    with_info(code, "CUT", details)
}

/// A reservation was not settled.
pub(super) fn unsettled(error: SettleError) -> Status {
    match &error {
        SettleError::Unknown => with_info(Code::NotFound, "RESERVATION_UNKNOWN", error.to_string()),
        SettleError::Otherwise => {
            with_info(Code::FailedPrecondition, "RESERVATION_SETTLED", error.to_string())
        }
        SettleError::NotHandedIn(_) => with_info(Code::Unavailable, "STATE_UNAVAILABLE", error.to_string()),
        SettleError::TooMuch { .. } | SettleError::NotAnAmount(_) => invalid("usage", &error.to_string()),
    }
}

/// An act of administration was not done, or is not known to be.
pub(super) fn not_done(error: AdminError) -> Status {
    let words = error.to_string();
    match error {
        AdminError::Forbidden(_) => with_info(Code::PermissionDenied, "FORBIDDEN", words),
        AdminError::Invalid { field, problem } => invalid(field, &problem),
        AdminError::Refused(reason) => {
            let mut details = ErrorDetails::with_bad_request_violation("token", reason.reason_admin.as_str());
            details.set_error_info(reason.code.as_str(), DOMAIN, HashMap::<String, String>::new());
            Status::with_error_details(Code::InvalidArgument, words, details)
        }
        AdminError::Unknown(_) => with_info(Code::NotFound, "LICENSE_UNKNOWN", words),
        AdminError::Taken(_) => with_info(Code::AlreadyExists, "LICENSE_ID_TAKEN", words),
        AdminError::Stands(_) => with_info(Code::FailedPrecondition, "STANDING", words),
        AdminError::Store(StoreError::Forbidden(_)) => with_info(Code::PermissionDenied, "FORBIDDEN", words),
        AdminError::Store(_) => with_info(Code::Unavailable, "STATE_UNAVAILABLE", words),
        AdminError::Stale(reason) => with_info(Code::Unavailable, reason.code.as_str(), words),
        AdminError::Unrecorded(_) => with_info(Code::Unavailable, "AUDIT_UNAVAILABLE", words),
    }
}

/// The store of a hub did not do what a member asked.
pub(super) fn of_store(error: StoreError) -> Status {
    let words = error.to_string();
    match error {
        StoreError::Forbidden(_) => with_info(Code::PermissionDenied, "FORBIDDEN", words),
        StoreError::Damaged(_) => with_info(Code::DataLoss, "STATE_DAMAGED", words),
        StoreError::Unusable(_) | StoreError::Unavailable(_) | StoreError::Closed => {
            with_info(Code::Unavailable, "STATE_UNAVAILABLE", words)
        }
    }
}

/// A hub did not take the lines of a member.
pub(super) fn not_taken(error: HandInError) -> Status {
    match error {
        HandInError::Malformed(problem) => invalid("lines", problem),
        HandInError::Unrecorded(_) => with_info(Code::Unavailable, "AUDIT_UNAVAILABLE", error.to_string()),
    }
}

/// The caller is no member of this hub.
pub(super) fn no_member() -> Status {
    let words = "the caller is no member of this hub; a member shows a certificate that `listeners.hub.members` names";
    with_info(Code::PermissionDenied, "NOT_A_MEMBER", words)
}

/// The caller's scope does not have this.
pub(super) fn beyond_scope() -> Status {
    let words = "this needs the scope `operate` in `listeners.hub.members`";
    with_info(Code::PermissionDenied, "FORBIDDEN", words)
}

/// The caller is not known.
pub(super) fn unauthenticated() -> Status {
    let words = "the caller is not known; show a token of `listeners.administration.tokens` as \
                 `authorization: Bearer TOKEN`, or a certificate of `listeners.administration.operators`";
    with_info(Code::Unauthenticated, "UNAUTHENTICATED", words)
}

/// The caller's deadline, or the longest time the gate gives, has passed.
pub(super) fn deadline_exceeded() -> Status {
    let words = "the deadline passed before the request was decided";
    with_info(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", words)
}

/// The answer is larger than the listener's limit.
pub(super) fn answer_too_large(limit: usize) -> Status {
    let words = format!("the answer is larger than the limit of {limit} bytes; ask fewer questions at once");
    with_info(Code::ResourceExhausted, "ANSWER_TOO_LARGE", words)
}

/// Nothing is served under this path.
pub(super) fn no_such_service(path: &str) -> Status {
    let path: String = path.chars().take(200).collect();
    Status::unimplemented(format!("nothing is served at `{path}`; reflection lists what is"))
}

fn with_info(code: Code, reason: &str, words: impl Into<String>) -> Status {
    let info = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(code, words, info)
}

/// Puts right the codes that the transport chooses on its own, and names the kind of error, if
/// the answer is one.
pub(super) fn keep_contract(headers: &mut HeaderMap) -> Option<&'static str> {
    // A success has its status in the trailers.
    let sent = Code::from_bytes(headers.get(GRPC_STATUS)?.as_bytes());
    let code = match sent {
        // Only said of a message over the size limit.
        Code::OutOfRange => Code::ResourceExhausted,
        // Ours has details; the transport's is said of a message that it cannot read.
        Code::Internal if !headers.contains_key(GRPC_STATUS_DETAILS) => Code::InvalidArgument,
        code => code,
    };
    if code != sent {
        headers.insert(GRPC_STATUS, HeaderValue::from(code as i32));
    }
    kind(code)
}

fn kind(code: Code) -> Option<&'static str> {
    match code {
        Code::Ok => None,
        Code::Unavailable => Some("unavailable"),
        Code::DeadlineExceeded => Some("deadline_exceeded"),
        Code::ResourceExhausted => Some("resource_exhausted"),
        Code::InvalidArgument => Some("invalid_argument"),
        Code::Internal => Some("internal"),
        _ => Some("other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(status: Status) -> HeaderMap {
        status.into_http::<tonic::body::Body>().into_parts().0.headers
    }

    fn kept(status: Status) -> (String, Option<&'static str>) {
        let mut headers = headers(status);
        let kind = keep_contract(&mut headers);
        (headers[GRPC_STATUS].to_str().unwrap().to_owned(), kind)
    }

    #[test]
    fn keeps_the_codes_that_are_promised() {
        assert_eq!(kept(Status::out_of_range("too large")), ("8".to_owned(), Some("resource_exhausted")));
        assert_eq!(kept(Status::internal("cannot decode")), ("3".to_owned(), Some("invalid_argument")));
        assert_eq!(kept(undecided(DecideError::Closing)), ("14".to_owned(), Some("unavailable")));
        assert_eq!(kept(deadline_exceeded()), ("4".to_owned(), Some("deadline_exceeded")));
        assert_eq!(keep_contract(&mut HeaderMap::new()), None);
    }

    #[test]
    fn details_name_the_field_and_the_reason() {
        let details = invalid("context.age", "must be finite").get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "context.age");
        assert_eq!(details.error_info().unwrap().domain, "tollgate");
    }
}

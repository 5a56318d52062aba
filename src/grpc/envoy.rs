//! What both of Envoy's services say of a denial, in the words of HTTP and of Envoy.
//!
//! Refuses to know which of them asks: what only one has is with that one.

pub mod denial;
mod problem;
mod ratelimit;
pub(super) mod refusal;
pub(super) mod visible;

pub(super) use problem::codes;
pub(super) use ratelimit::fields;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};

/// The header with the id of a decision.
pub(super) const DECISION_ID: &str = "x-license-decision-id";

/// A header in place of any of that name.
pub(super) fn header(name: &str, value: String) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value, ..HeaderValue::default() };
    let append_action = HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    HeaderValueOption { header: Some(header), append_action, ..HeaderValueOption::default() }
}

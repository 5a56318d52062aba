//! Obligations: what must be done with an allow (XACML). Refuses to fulfil any:
//! that is the enforcement point's part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A duty that travels with an allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// Unique within the license or policy that imposes it.
    #[schemars(length(min = 1))]
    pub id: String,
    /// The kind of duty, such as `notify`; the enforcement point says which kinds it can fulfil.
    #[serde(rename = "type")]
    #[schemars(length(min = 1))]
    pub kind: String,
    /// What the duty needs to know.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub properties: serde_json::Map<String, serde_json::Value>,
}

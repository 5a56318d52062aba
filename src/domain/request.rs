//! The question put to a gate. Refuses nothing itself: what is missing or malformed is
//! found, and named, by the decision.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reason::Reason;

/// May this subject do this with this resource, under this license, now?
///
/// People write it too, in cases and on the command line; there the license stands apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckRequest {
    /// Idempotency key and correlation id of the caller.
    pub request_id: String,
    /// The license under which the data is to be used.
    #[serde(skip)]
    pub license: LicenseRef,
    /// Who.
    pub subject: Subject,
    /// What is done: the name of an [`Action`].
    pub action: String,
    /// To which data.
    pub resource: Resource,
    /// Why: a DPV purpose by its local name.
    pub purpose: String,
    /// Where: an ISO 3166-1 alpha-2 code.
    pub region: String,
    /// On whose behalf.
    pub project: String,
    /// In what kind of environment.
    pub environment: String,
    /// Paths of other datasets that the data will be combined with.
    pub combined_with: Vec<String>,
    /// Whether data from outside the catalog will be combined with it.
    pub combined_with_external: bool,
    /// What the enforcement point verified about the presenter of the license.
    pub holder: Holder,
    /// How much will be used, by metric.
    pub usage: BTreeMap<String, f64>,
    /// The operator's own attributes.
    pub context: serde_json::Map<String, serde_json::Value>,
    /// The types of obligation that the caller can fulfil.
    pub supported_obligations: Vec<String>,
    /// Whether an allow names the policies that granted it.
    pub explain: bool,
    /// Whether this is a rehearsal.
    pub dry_run: bool,
    /// What could not be read of what the enforcement point sent; each denies.
    #[serde(skip)]
    pub problems: Vec<Reason>,
}

/// The license of a request. Its `Debug` form shows no token.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum LicenseRef {
    /// None was sent.
    #[default]
    Missing,
    /// A compact JWS.
    Token(String),
    /// The `jti` of a registered license.
    Id(String),
}

impl fmt::Debug for LicenseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("Missing"),
            Self::Token(token) => write!(f, "Token({} bytes)", token.len()),
            Self::Id(id) => write!(f, "Id({id:?})"),
        }
    }
}

/// The user, person or workload, that uses the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Subject {
    /// Unique within the organization.
    pub id: String,
    /// The organization that the subject acts for.
    pub organization: String,
    /// Roles, as verified by the caller.
    pub roles: Vec<String>,
}

/// The data to be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resource {
    /// The dataset's path.
    pub id: String,
    /// `dataset`, or empty for the same.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the caller says of the dataset; never overrides the catalog.
    pub properties: serde_json::Map<String, serde_json::Value>,
}

/// Evidence about the presenter of a license (RFC 7800); empty where nothing was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Holder {
    /// The SPIFFE id of the presenter's X.509-SVID.
    pub spiffe_id: String,
    /// Base64url SHA-256 of the presenter's certificate (RFC 8705, section 3.1).
    pub certificate_thumbprint: String,
    /// JWK thumbprint of the presenter's key (RFC 7638).
    pub jwk_thumbprint: String,
}

/// What may be done with data: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// See records as they are.
    Read,
    /// Ask questions that return records.
    Query,
    /// Ask questions that return only aggregates.
    Aggregate,
    /// Study the data with tools of one's own.
    Analyse,
    /// Train a model.
    Train,
    /// Make new data from it.
    Derive,
    /// Link it with other data.
    Combine,
    /// Take a copy out of the environment.
    Export,
    /// Pass it on to another party.
    Share,
    /// Receive it as it comes in.
    Stream,
    /// Erase it.
    Delete,
}

impl Action {
    /// Every action, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Read,
        Self::Query,
        Self::Aggregate,
        Self::Analyse,
        Self::Train,
        Self::Derive,
        Self::Combine,
        Self::Export,
        Self::Share,
        Self::Stream,
        Self::Delete,
    ];

    /// The action's name on the wire and in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Query => "query",
            Self::Aggregate => "aggregate",
            Self::Analyse => "analyse",
            Self::Train => "train",
            Self::Derive => "derive",
            Self::Combine => "combine",
            Self::Export => "export",
            Self::Share => "share",
            Self::Stream => "stream",
            Self::Delete => "delete",
        }
    }
}

/// The name is not that of an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown action")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|action| action.as_str() == name).ok_or(UnknownAction)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

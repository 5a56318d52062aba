//! What enforcement points send, as they are to know it. `authzen/question.rs` reads it by hand, so that
//! it can say where it differs; a test holds the two together.
//!
//! Refuses nothing: members that are not named here may be sent, as AuthZEN wants it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// One question.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Evaluation {
    /// Who.
    pub subject: Subject,
    /// What is done.
    pub action: Action,
    /// To which data.
    pub resource: Resource,
    /// Everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
}

/// Several questions. Members beside `evaluations` stand for what an evaluation leaves out; one that an
/// evaluation has replaces the whole of them, `context` too.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Evaluations {
    /// The questions; at most 1,000. Each is an evaluation that may leave out what stands beside the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub evaluations: Option<Vec<Map<String, Value>>>,
    /// How far to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Map<String, Value>>,
    /// What is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Map<String, Value>>,
    /// To which data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<Map<String, Value>>,
    /// Everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Map<String, Value>>,
}

/// How several evaluations are gone through.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Options {
    /// How far to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluations_semantic: Option<Semantic>,
}

/// How far to go.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Semantic {
    /// To the end.
    ExecuteAll,
    /// Up to and including the first denial.
    DenyOnFirstDeny,
    /// Up to and including the first allow.
    PermitOnFirstPermit,
}

/// Which users may?
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubjectSearch {
    /// `type` and what all of them have in common; an `id` is ignored.
    pub subject: OpenSubject,
    /// What is done.
    pub action: Action,
    /// To which data.
    pub resource: Resource,
    /// Everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Which page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
}

/// With which datasets?
#[derive(Debug, Serialize, JsonSchema)]
pub struct ResourceSearch {
    /// Who.
    pub subject: Subject,
    /// What is done.
    pub action: Action,
    /// `type` and what all of them have in common; an `id` is ignored.
    pub resource: OpenResource,
    /// Everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Which page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
}

/// What may be done?
#[derive(Debug, Serialize, JsonSchema)]
pub struct ActionSearch {
    /// Who.
    pub subject: Subject,
    /// To which data.
    pub resource: Resource,
    /// Everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Which page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<Page>,
}

/// The user, person or workload, that uses the data.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Subject {
    /// `user`; any other is denied.
    #[serde(rename = "type")]
    pub kind: String,
    /// Unique within the organization.
    pub id: String,
    /// What is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<SubjectProperties>,
}

/// A user that is looked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OpenSubject {
    /// `user`; of any other none is found.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<SubjectProperties>,
}

/// What is known of a user. Other members are ignored.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SubjectProperties {
    /// The organization that the subject acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Roles, as verified by the caller; at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
}

/// What is done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Action {
    /// One of `read`, `query`, `aggregate`, `analyse`, `train`, `derive`, `combine`, `export`, `share`,
    /// `stream`, `delete`.
    pub name: String,
    /// Ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

/// The data to be used.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Resource {
    /// `dataset`; any other is denied.
    #[serde(rename = "type")]
    pub kind: String,
    /// The dataset's path, such as `sales/eu/orders`.
    pub id: String,
    /// What the caller says of the dataset; declared in `attributes.cedarschema`, never overrides the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

/// Data that is looked for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OpenResource {
    /// `dataset`; of any other none is found.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the caller says of the datasets; declared in `attributes.cedarschema`, never overrides the catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

/// The license, and what is said of the use. Members that are not listed are attributes of the
/// operator's own, as those in `attributes`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Context {
    /// The license: a token, a compact JWS of type `license+jwt`. Without this and `license_id` it is that
    /// of the header `Authorization: License TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Instead of `license`: the `jti` of a license that is registered with the gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_id: Option<String>,
    /// Why: a DPV purpose by its local name, such as `ScientificResearch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Where the data will be processed: an ISO 3166-1 alpha-2 code, such as `FR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The project on whose behalf the data is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The kind of environment the data will be processed in, such as `enclave`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Other datasets, by path, that the data will be combined with; at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combined_with: Option<Vec<String>>,
    /// Whether the data will be combined with data from outside the gate's catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub combined_with_external: Option<bool>,
    /// How much will be used, by metric; finite and not negative; at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<BTreeMap<String, f64>>,
    /// What the enforcement point verified about the presenter of the license (RFC 7800).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The types of obligation that the caller can fulfil; at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supported_obligations: Option<Vec<String>>,
    /// The caller's own id of this question, at most 128 bytes: asked again within a day, or within the
    /// windows of the quotas that it consumed from (at most 32 days), it consumes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Decides and answers, takes nothing of a quota, and marks the record as a rehearsal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// Asks for the policies that granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<bool>,
    /// Attributes of the operator's own; declared in `attributes.cedarschema`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, Value>>,
}

/// What the enforcement point verified about the presenter of the license.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Holder {
    /// The SPIFFE id of the presenter's X.509-SVID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// The base64url SHA-256 thumbprint of the presenter's certificate (RFC 8705, section 3.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_thumbprint: Option<String>,
    /// The JWK thumbprint (RFC 7638) of the key for which the presenter proved possession.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwk_thumbprint: Option<String>,
}

/// Which page of a search.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Page {
    /// The `next_token` of the page before; everything else must be as it was then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The most results of a page: 100 where nobody says, and never more than 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<Map<String, Value>>,
}

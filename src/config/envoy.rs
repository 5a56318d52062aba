//! How a request that Envoy asks about becomes a check: the section `envoy`.

pub mod route;
pub mod source;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use route::{Field, PathTemplate, Route, Segment};
pub use source::{MetadataPath, Principal, Source, SourceKeys};

/// How a request that Envoy asks about becomes a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Envoy {
    /// The license's token. It is looked for before `license_id`.
    pub license: Vec<Source>,
    /// The id of a registered license.
    pub license_id: Vec<Source>,
    /// Who uses the data. Not from a `header` that the client chooses.
    pub subject: Vec<Source>,
    /// The organization that the subject acts for. Not from a `header`.
    pub organization: Vec<Source>,
    /// The subject's roles: a list, or text with commas. Not from a `header`.
    pub roles: Vec<Source>,
    /// What is done.
    pub action: Vec<Source>,
    /// Which data is used: the path of a dataset.
    pub dataset: Vec<Source>,
    /// Why.
    pub purpose: Vec<Source>,
    /// Where the data will be processed.
    pub region: Vec<Source>,
    /// On whose behalf.
    pub project: Vec<Source>,
    /// In what kind of environment the data will be processed.
    pub environment: Vec<Source>,
    /// The operator's own attributes, each with its sources.
    pub context: BTreeMap<String, Vec<Source>>,
    /// What paths say. The first route that matches is taken, and what it says of a field is not asked of sources.
    /// Where there are routes, a request that matches none is denied, and so is a path that can be read two ways.
    pub routes: Vec<Route>,
    /// The types of obligation that what stands behind Envoy can fulfil.
    pub supported_obligations: Vec<String>,
    /// The SPIFFE trust domains whose certificates tell who a caller is, such as `example.org`.
    pub trust_domains: Vec<String>,
    /// Under which key `jwt_authn` puts the payload of a token (`payload_in_metadata`); absent: the only key there is.
    pub jwt_payload_key: Option<String>,
    /// Leaves the license in the request that goes on to the upstream.
    pub keep_license: bool,
    /// Puts the question into Envoy's dynamic metadata with an allow, so that a stream can be asked about again and be
    /// cut. It holds the license's token: it is not to be logged.
    pub kill_switch: bool,
    /// Counts the `bytes` of responses, and the `messages` of those of gRPC. A response that its license limits is handed
    /// over chunk by chunk, and no byte passes that a quota does not leave.
    pub metering: bool,
    /// What becomes of responses that are still under way when `shutdown.grace` is nearly over.
    pub unfinished: Unfinished,
}

/// What becomes of a response when its gate leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unfinished {
    /// It is cut.
    Cut,
    /// It goes on, and nobody watches over it. One that must be counted is cut all the same.
    Release,
}

impl Default for Envoy {
    fn default() -> Self {
        let extension = |name: &str| vec![Source::Extension(name.to_owned())];
        let claim = |name: &str| Source::Claim(name.to_owned());
        let scheme = Some("License".to_owned());
        Self {
            license: vec![Source::Header { name: "authorization".to_owned(), scheme }],
            license_id: extension("license_id"),
            subject: vec![claim("sub"), Source::Principal(Principal::Spiffe)],
            organization: extension("organization"),
            roles: vec![claim("roles")],
            action: extension("action"),
            dataset: extension("dataset"),
            purpose: extension("purpose"),
            region: extension("region"),
            project: extension("project"),
            environment: extension("environment"),
            context: BTreeMap::new(),
            routes: Vec::new(),
            supported_obligations: Vec::new(),
            trust_domains: Vec::new(),
            jwt_payload_key: None,
            keep_license: false,
            kill_switch: true,
            metering: true,
            unfinished: Unfinished::Cut,
        }
    }
}

//! The terms of a license, typed: what it grants, to whom, for what, under which duties.
//!
//! Refuses members it does not know, at every level: a term that is not understood
//! must not be dropped.

use std::collections::BTreeSet;

use jiff::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::DatasetPath;
use super::object;
use super::obligation::Obligation;
use super::request::Action;

/// What a license grants, and its limits. A limit that is absent does not limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The subscription tier, for policies and reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// The datasets covered, each with everything below it; `*` covers all.
    #[schemars(length(min = 1))]
    pub datasets: BTreeSet<DatasetPath>,
    /// The actions allowed.
    #[schemars(length(min = 1))]
    pub actions: BTreeSet<Action>,
    /// The purposes covered, each with its narrower ones: DPV purposes by local name.
    #[schemars(length(min = 1))]
    pub purposes: BTreeSet<String>,
    /// Only these users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub users: Option<BTreeSet<String>>,
    /// Only users with one of these roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub roles: Option<BTreeSet<String>>,
    /// Only on behalf of one of these projects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub projects: Option<BTreeSet<String>>,
    /// Only processed in these regions: ISO 3166-1 codes, and groups such as `EU` and `EEA`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub regions: Option<BTreeSet<String>>,
    /// Only processed in these kinds of environment, such as `enclave`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub environments: Option<BTreeSet<String>>,
    /// What must not be done, whatever the actions say.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub prohibitions: BTreeSet<Prohibition>,
    /// The least standard that the dataset's release must meet.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub anonymization: Option<Anonymization>,
    /// How much may be used.
    #[serde(default, deserialize_with = "object::list", skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<Quota>,
    /// How long data may be kept.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// The legal basis of the processing, such as `eu-gdpr:A6-1-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legal_basis: Option<String>,
    /// The regulations that the data is under.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub regulations: BTreeSet<Regulation>,
    /// Terms that a person of the assignee must have accepted.
    #[serde(default, deserialize_with = "object::optional", skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Acceptance>,
    /// Obligations that travel with every allow.
    #[serde(default, deserialize_with = "object::list", skip_serializing_if = "Vec::is_empty")]
    pub duties: Vec<Obligation>,
}

impl Terms {
    /// The name of the term, if there is one, that no gate of this version enforces: when data was
    /// first accessed is not known.
    pub fn unenforced(&self) -> Option<&'static str> {
        self.retention.is_some().then_some("retention")
    }
}

/// What a license forbids outright.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prohibition {
    /// Combining with any other data.
    Combine,
    /// Combining with data from outside the gate's catalog.
    CombineExternal,
    /// Linking that could identify persons: combining with data from outside.
    Reidentify,
    /// Passing the data on: `share` and `export`.
    Redistribute,
}

impl Prohibition {
    /// The name in licenses and policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Combine => "combine",
            Self::CombineExternal => "combine-external",
            Self::Reidentify => "reidentify",
            Self::Redistribute => "redistribute",
        }
    }
}

/// A regulation that data may be under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Regulation {
    /// Regulation (EU) 2016/679.
    Gdpr,
    /// 45 CFR Parts 160, 162 and 164.
    Hipaa,
    /// California Civil Code, title 1.81.5.
    Ccpa,
}

impl Regulation {
    /// The name in licenses and policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gdpr => "gdpr",
            Self::Hipaa => "hipaa",
            Self::Ccpa => "ccpa",
        }
    }
}

/// The least standard of anonymization that a release must meet (ISO/IEC 20889 models and techniques).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Anonymization {
    /// Every record shares its quasi-identifiers with at least this many, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000_000))]
    pub k_anonymity: Option<u32>,
    /// Every group has at least this many distinct sensitive values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1_000_000_000))]
    pub l_diversity: Option<u32>,
    /// The distribution in every group is at most this far from the whole; up to four decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub t_closeness: Option<f64>,
    /// The privacy loss is at most this; up to four decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub epsilon: Option<f64>,
    /// Techniques that must all have been applied, by their ISO/IEC 20889 names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub techniques: BTreeSet<String>,
    /// Who may have attested the release; empty: anyone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub attested_by: BTreeSet<String>,
}

/// How much may be used in one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Unique within the license.
    #[schemars(length(min = 1))]
    pub id: String,
    /// What is counted: `requests`, `rows`, `bytes`, `epsilon` or any name.
    #[schemars(length(min = 1))]
    pub metric: String,
    /// The most that may be used in one window.
    #[schemars(range(min = 0.0))]
    pub limit: f64,
    /// Whose use is added up.
    pub per: QuotaScope,
    /// The window.
    pub window: QuotaWindow,
    /// The IANA time zone of calendar windows; `UTC` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
}

/// Whose use a quota adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QuotaScope {
    /// All use under the license.
    License,
    /// All use by the assignee under licenses of this issuer.
    Organization,
    /// Each user.
    User,
    /// Each project.
    Project,
}

/// A calendar window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QuotaWindow {
    /// From second 0 to second 59.
    Minute,
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of the month.
    Month,
    /// The license's whole life.
    Total,
}

impl QuotaWindow {
    /// The name in licenses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }
}

/// How long data may be kept after first access, and what happens then.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// An ISO 8601 duration, such as `P90D`.
    pub duration: Iso8601Duration,
    /// What must happen when it has elapsed.
    pub then: RetentionEnd,
}

/// An ISO 8601 duration, such as `P90D` or `P1Y`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Iso8601Duration(#[schemars(with = "String")] pub Span);

impl PartialEq for Iso8601Duration {
    fn eq(&self, other: &Self) -> bool {
        self.0.fieldwise() == other.0.fieldwise()
    }
}

/// What must happen to data when its retention has elapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RetentionEnd {
    /// It is erased.
    Delete,
    /// It is given back and erased.
    Return,
    /// It is anonymized.
    Anonymize,
}

/// Terms that a person of the assignee must have accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The SHA-256 of the terms' text, base64url without padding.
    #[schemars(length(equal = 43))]
    pub terms_hash: String,
}

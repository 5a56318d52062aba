//! Golden cases: given a license, a catalog and a request, expect a decision.
//!
//! The format of `tests/cases/` and of `tollgate policy test`. A case runs through the whole
//! decision: its license is really signed and really verified. Refuses to pass a case that
//! expects nothing.

mod given;
mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use crate::document::{Document, Problem, Problems};
use crate::domain::{CheckRequest, Effect, Status};

pub use run::{Outcome, Report, run};

/// One case, as written in a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// When the request is made.
    #[serde(default = "Case::default_now")]
    #[schemars(with = "String")]
    pub now: Timestamp,
    /// What is particular about the gate.
    #[serde(default)]
    pub gate: GateCase,
    /// The catalog, in Cedar's entity JSON.
    #[serde(default)]
    pub catalog: Vec<serde_json::Value>,
    /// Cedar policies beside those that are tested.
    #[serde(default)]
    pub policies: String,
    /// Whether `policies` stand alone instead.
    #[serde(default)]
    pub policies_alone: bool,
    /// What is presented as a license.
    #[serde(default)]
    pub license: LicenseCase,
    /// The request.
    pub request: CheckRequest,
    /// What is expected.
    pub expect: Expectation,
}

/// What is particular about the gate of a case.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GateCase {
    /// Its audiences.
    pub audiences: Vec<String>,
    /// The folder of its decision log is taken away before the request.
    pub log_removed: bool,
    /// The license is registered.
    pub registered: bool,
    /// What was suspended or revoked before the request: of the license, its key, its assignee or its issuer.
    pub standings: Vec<StandingCase>,
    /// The hashes of terms that were accepted for the license.
    pub accepted: Vec<String>,
    /// How often the same question was asked before.
    pub asked_before: u32,
    /// When the state was last read; absent: at the time of the request.
    #[schemars(with = "Option<String>")]
    pub state_read_at: Option<Timestamp>,
    /// A time that the state was told before; absent: none.
    #[schemars(with = "Option<String>")]
    pub state_time: Option<Timestamp>,
    /// The state cannot be reached any more when the request comes.
    pub state_lost: bool,
}

/// A change that was made before the request of a case.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingCase {
    /// What it is about: `license`, `key`, `assignee` or `issuer`, as the license of the case names it.
    pub which: WhichCase,
    /// How it stands then.
    pub status: Status,
}

/// What a change is about.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhichCase {
    /// The license itself.
    License,
    /// The key that signed it.
    Key,
    /// Its assignee.
    Assignee,
    /// Its issuer.
    Issuer,
}

/// What is presented as a license: claims that are signed for the case, or something else.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LicenseCase {
    /// Claims that replace those of the sample license: valid in 2026, of `https://data.example`, for `acme`.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Members that replace those of the header.
    pub header: serde_json::Map<String, serde_json::Value>,
    /// Whose key signs.
    pub signed_by: Signer,
    /// Text that is put behind the token.
    pub trailing: String,
    /// A token as it stands, instead of a signed one.
    pub token: Option<String>,
    /// The id of a registered license, instead of a token.
    pub id: Option<String>,
    /// Presents no license.
    pub none: bool,
}

/// Whose key signs the license of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Signer {
    /// An active key of the issuer.
    #[default]
    Issuer,
    /// A key of the issuer that is retired.
    RetiredKey,
    /// A key of another trusted issuer.
    OtherIssuer,
    /// A key that nobody trusts.
    Stranger,
    /// A stranger who claims the name of the issuer's key.
    Forger,
}

/// What is expected of a case.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The decision.
    pub decision: Effect,
    /// The codes of a denial: exactly these, in any order.
    #[serde(default)]
    pub codes: BTreeSet<String>,
    /// The types of the obligations of an allow: exactly these.
    #[serde(default)]
    pub obligations: BTreeSet<String>,
}

impl Case {
    fn default_now() -> Timestamp {
        // 2026-06-01T00:00:00Z, in the validity of the sample license.
        Timestamp::constant(1_780_272_000, 0)
    }

    /// Reads a case.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(origin, text)?;
        let case: Self = document.decode()?;
        let expect = &case.expect;
        if (expect.decision == Effect::Deny) == expect.codes.is_empty() {
            let message = "a denial is expected with its codes, and an allow without";
            return Err(document.problem("/expect", message).into());
        }
        for (position, code) in expect.codes.iter().enumerate() {
            code.parse::<crate::domain::Code>().map_err(|error| {
                Problems::from(document.problem(&format!("/expect/codes/{position}"), error.to_string()))
            })?;
        }
        Ok(case)
    }
}

/// Reads every case (`*.yaml`) of a folder, by path.
///
/// # Errors
/// Everything that is wrong with any of them, and a folder without a case.
pub fn read(folder: &Path) -> Result<Vec<(PathBuf, Case)>, Problems> {
    let mut cases = Vec::new();
    let mut problems = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|error| Problem::new(folder.display().to_string(), error.to_string()))?;
        if entry.path().extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let origin = entry.path().display().to_string();
        let text = std::fs::read_to_string(entry.path());
        let text = text.map_err(|error| Problem::new(&origin, error.to_string()))?;
        match Case::parse(&origin, &text) {
            Ok(case) => cases.push((entry.into_path(), case)),
            Err(more) => problems.extend(more),
        }
    }
    if cases.is_empty() && problems.is_empty() {
        problems.push(Problem::new(folder.display().to_string(), "the folder has no case (`*.yaml`)"));
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems.into()) }
}

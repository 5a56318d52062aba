//! Runs cases against a real decision point: real keys, real signatures, real policies.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Map, Value, json};

use super::given::Given;
use super::{Case, LicenseCase, Signer};
use crate::audit::Writer;
use crate::config::{Audit, AuditFile, AuditMode, ByteSize, Config, Gate};
use crate::decision::Pdp;
use crate::document::Problems;
use crate::domain::{CheckRequest, Code, Decision, Effect, LicenseRef};
use crate::keyring::Keyring;
use crate::keyring::jwks::{KeySet, KeyState, PublicJwk};
use crate::license::jws;
use crate::policy::{Policies, Sources, load::Text};
use crate::telemetry::instruments::Instruments;

/// The issuer of the sample license.
pub(super) const ISSUER: &str = "https://data.example";

/// What became of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case's file.
    pub path: PathBuf,
    /// How it differed from what was expected; empty when it did not.
    pub differences: Vec<String>,
}

/// What became of all cases.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each case.
    pub outcomes: Vec<Outcome>,
    /// Every policy.
    pub policies: BTreeSet<String>,
    /// The policies that made a difference in some case: a `forbid` objected, a `permit` granted.
    pub satisfied: BTreeSet<String>,
}

impl Report {
    /// The policies that no case ever satisfied.
    pub fn never_satisfied(&self) -> impl Iterator<Item = &String> {
        self.policies.difference(&self.satisfied)
    }

    /// Whether every case went as expected.
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.differences.is_empty())
    }
}

/// Why cases could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policies that are tested are wrong.
    #[error(transparent)]
    Policies(#[from] Problems),
    /// A place to work in could not be made.
    #[error("a folder for the keys of the cases could not be made: {0}")]
    Folder(#[from] std::io::Error),
    /// A case's decision log could not be opened.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Audit(PathBuf, crate::audit::AuditError),
    /// A case's state could not be made.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    State(PathBuf, crate::store::StoreError),
    /// A sample key set could not be written as JSON.
    #[error("a key set could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs `cases` against the policies of `directory`, or the built-in ones.
///
/// # Errors
/// When the policies are wrong; a case that fails is an [`Outcome`].
pub async fn run(directory: Option<&Path>, cases: &[(PathBuf, Case)]) -> Result<Report, RunError> {
    let sources = Sources::read(directory, None)?;
    let keys = tempfile::tempdir()?;
    write_keys(keys.path())?;
    let keyring = Arc::new(Keyring::open(keys.path())?);
    let all = Policies::of(&sources, ByteSize::mib(1))?;
    let policies = all.current().ids().collect();
    let mut report = Report { outcomes: Vec::new(), policies, satisfied: BTreeSet::new() };
    let mut compiled = HashMap::new();
    for (path, case) in cases {
        let differences = match case_policies(path, &sources, case, &mut compiled) {
            Ok(policies) => {
                let decision = decide(path, case, keyring.clone(), policies).await?;
                // A policy that errs was not satisfied: nobody knows what it would have said.
                let objecting = decision.reasons.iter().filter(|reason| reason.code != Code::PolicyError);
                let named = objecting.map(|reason| reason.policy_id.clone());
                report.satisfied.extend(named.chain(decision.granting_policies.clone()));
                differences(case, &decision)
            }
            Err(problems) => problems.into_iter().map(|problem| problem.to_string()).collect(),
        };
        report.outcomes.push(Outcome { path: path.clone(), differences });
    }
    Ok(report)
}

/// The policies and catalog of a case, compiled once for all cases that have the same.
fn case_policies(
    path: &Path,
    sources: &Sources,
    case: &Case,
    compiled: &mut HashMap<String, Arc<Policies>>,
) -> Result<Arc<Policies>, Problems> {
    let mut sources = sources.clone();
    let origin = path.display().to_string();
    if case.policies_alone {
        sources.policies.clear();
    }
    if !case.policies.is_empty() {
        sources.policies.push(Text { origin: origin.clone(), content: case.policies.clone() });
    }
    sources.catalog = Text { origin, content: Value::from(case.catalog.clone()).to_string() };
    let revision = sources.revision();
    if let Some(policies) = compiled.get(&revision) {
        return Ok(policies.clone());
    }
    let policies = Arc::new(Policies::of(&sources, ByteSize::mib(1))?);
    compiled.insert(revision, policies.clone());
    Ok(policies)
}

async fn decide(
    path: &Path,
    case: &Case,
    keyring: Arc<Keyring>,
    policies: Arc<Policies>,
) -> Result<Decision, RunError> {
    let folder = tempfile::tempdir()?;
    let file =
        AuditFile { path: folder.path().join("decisions.jsonl"), rotate_at: ByteSize::mib(1), keep: 1 };
    let config = Config {
        gate: Gate { audiences: case.gate.audiences.clone(), ..Gate::default() },
        audit: Audit { mode: AuditMode::Durable, stdout: false, file: Some(file), ..Audit::default() },
        ..Config::default()
    };
    let audit = Writer::open(&config.audit).map_err(|error| RunError::Audit(path.to_owned(), error))?;
    if case.gate.log_removed {
        folder.close()?;
    }
    let given = Given::of(case, &config).await.map_err(|error| RunError::State(path.to_owned(), error))?;
    let pdp = Pdp::new(&config, keyring, policies, given.state, audit.clone(), Instruments::detached());
    let request = CheckRequest { license: license(&case.license), explain: true, ..case.request.clone() };
    for _ in 0..case.gate.asked_before {
        pdp.check(&request, None, case.now)
            .await
            .map_err(|error| RunError::Folder(std::io::Error::other(error)))?;
    }
    if case.gate.state_lost {
        given.store.close().await;
    }
    let decision = pdp.check(&request, None, case.now).await;
    // The log of a case that is about an unwritable log does not close well.
    let _ = audit.close().await;
    decision.map_err(|error| RunError::Folder(std::io::Error::other(error)))
}

fn differences(case: &Case, decision: &Decision) -> Vec<String> {
    let expect = &case.expect;
    let mut differences = Vec::new();
    let mut compare = |what: &str, expected: String, actual: String| {
        if expected != actual {
            differences.push(format!("{what}: expected {expected}, got {actual}"));
        }
    };
    compare("decision", expect.decision.as_str().into(), decision.effect.as_str().into());
    let codes: BTreeSet<String> = decision.reasons.iter().map(|reason| reason.code.to_string()).collect();
    compare("codes", format!("{:?}", expect.codes), format!("{codes:?}"));
    if expect.decision == Effect::Allow {
        let duties: BTreeSet<String> = decision.obligations.iter().map(|duty| duty.kind.clone()).collect();
        compare("obligations", format!("{:?}", expect.obligations), format!("{duties:?}"));
    }
    if !differences.is_empty() {
        let words = decision.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.reason_admin));
        differences.extend(words);
    }
    differences
}

pub(super) fn key(signer: Signer) -> SigningKey {
    let seed = match signer {
        Signer::Issuer => 1,
        Signer::RetiredKey => 2,
        Signer::OtherIssuer => 3,
        Signer::Stranger | Signer::Forger => 4,
    };
    SigningKey::from_bytes(&[seed; 32])
}

fn write_keys(folder: &Path) -> Result<(), RunError> {
    let jwk = |signer, state| PublicJwk { state, ..PublicJwk::of(&key(signer).verifying_key()) };
    let sets = [
        (ISSUER, vec![jwk(Signer::Issuer, KeyState::Active), jwk(Signer::RetiredKey, KeyState::Retired)]),
        ("https://other.example", vec![jwk(Signer::OtherIssuer, KeyState::Active)]),
    ];
    for (position, (issuer, keys)) in sets.into_iter().enumerate() {
        let set = KeySet { issuer: issuer.to_owned(), keys };
        std::fs::write(folder.join(format!("{position}.json")), serde_json::to_vec(&set)?)?;
    }
    Ok(())
}

/// What the case presents. Nothing is checked here: wrong licenses are what cases are about.
fn license(case: &LicenseCase) -> LicenseRef {
    match case {
        LicenseCase { none: true, .. } => LicenseRef::Missing,
        LicenseCase { id: Some(id), .. } => LicenseRef::Id(id.clone()),
        LicenseCase { token: Some(token), .. } => LicenseRef::Token(token.clone()),
        _ => LicenseRef::Token(signed(case) + &case.trailing),
    }
}

pub(super) fn signed(case: &LicenseCase) -> String {
    let signing = key(case.signed_by);
    let named = if case.signed_by == Signer::Forger { key(Signer::Issuer) } else { signing.clone() };
    let kid = PublicJwk::of(&named.verifying_key()).kid;
    let header = overlay(json!({ "alg": "EdDSA", "typ": jws::TYPE, "kid": kid }), &case.header);
    let claims = overlay(sample(), &case.claims);
    jws::compose(header.to_string().as_bytes(), claims.to_string().as_bytes(), |signed| {
        signing.sign(signed).to_bytes()
    })
}

/// A license to read `sales/eu` for research, valid in 2026.
pub(super) fn sample() -> Value {
    json!({
        "iss": ISSUER,
        "sub": "acme",
        "jti": "license-1",
        "iat": 1_767_225_600,
        "nbf": 1_767_225_600,
        "exp": 1_798_761_600,
        "terms": {
            "datasets": ["sales/eu"],
            "actions": ["read"],
            "purposes": ["ResearchAndDevelopment"],
        },
    })
}

/// Replaces members, at any depth; `null` removes one.
pub(super) fn overlay(mut value: Value, changes: &Map<String, Value>) -> Value {
    let Value::Object(members) = &mut value else { return value };
    for (name, change) in changes {
        match (members.remove(name), change) {
            (_, Value::Null) => {}
            (Some(Value::Object(before)), Value::Object(changes)) => {
                members.insert(name.clone(), overlay(Value::Object(before), changes));
            }
            _ => {
                members.insert(name.clone(), change.clone());
            }
        }
    }
    value
}

//! What the quickstart makes and asks: the files of a small data owner, and seven questions.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::super::{CliError, issue, keygen, write_new};
use crate::document::Document;
use crate::domain::request::{Resource, Subject};
use crate::domain::{CheckRequest, Clock};
use crate::license::{Claims, sign};

/// The files that are made, with words for the reader.
pub(super) const FILES: [(&str, &str); 8] = [
    ("issuer.jwk", "the data owner's private key: signs licenses"),
    ("keys/issuer.json", "its public keys: what the gate trusts"),
    ("catalog.json", "the datasets, and what is attested of them"),
    ("terms/*.yaml", "what each license says"),
    ("licenses/*.license", "the same, signed"),
    ("tollgate.yaml", "the gate's configuration"),
    ("state.redb", "what the gate must not forget: revocations, quotas, usage"),
    ("admin.sock", "where the gate is administered"),
];

const CATALOG: &str = r#"[
  {
    "uid": {"type": "Tollgate::Dataset", "id": "sales/eu"},
    "attrs": {"classification": "confidential", "data_state": "PersonalData", "regulations": ["gdpr"]},
    "parents": []
  },
  {
    "uid": {"type": "Tollgate::Dataset", "id": "health/admissions"},
    "attrs": {
      "classification": "restricted",
      "data_state": "AnonymisedData",
      "anonymization": {
        "k_anonymity": 11,
        "techniques": ["generalization", "record suppression"],
        "attested_by": "disclosure-review-board"
      }
    },
    "parents": []
  }
]
"#;

/// The licenses: name and terms.
const TERMS: [(&str, &str); 5] = [
    (
        "raw",
        "# Raw sales data of the EU, for research, by analysts.
assignee: acme
id: license-raw
valid_for: P1Y
terms:
  datasets: [sales/eu]
  actions: [read, query, aggregate]
  purposes: [ResearchAndDevelopment]
",
    ),
    (
        "anonymized",
        "# Anonymized hospital admissions: at least 10 alike, attested, never linked with data from outside.
assignee: acme
id: license-anonymized
valid_for: P1Y
terms:
  datasets: [health]
  actions: [aggregate, analyse]
  purposes: [ScientificResearch, PublicBenefit]
  prohibitions: [combine-external]
  anonymization:
    k_anonymity: 10
    attested_by: [disclosure-review-board]
",
    ),
    (
        "expired",
        "# The raw data again, under a license that has run out.
assignee: acme
id: license-expired
not_before: 2020-01-01T00:00:00Z
expires: 2021-01-01T00:00:00Z
terms:
  datasets: [sales/eu]
  actions: [read]
  purposes: [ResearchAndDevelopment]
",
    ),
    (
        "metered",
        "# The raw data once more, three reads a day.
assignee: acme
id: license-metered
valid_for: P1Y
terms:
  datasets: [sales/eu]
  actions: [read]
  purposes: [ResearchAndDevelopment]
  quotas:
  - {id: reads, metric: requests, limit: 3, per: license, window: day}
",
    ),
    (
        "streamed",
        "# The raw data as it comes in.
assignee: acme
id: license-streamed
valid_for: P1Y
terms:
  datasets: [sales/eu]
  actions: [stream]
  purposes: [ResearchAndDevelopment]
",
    ),
];

/// What was made.
pub(super) struct Scene {
    /// The gate's configuration.
    pub(super) config: PathBuf,
    /// What will be asked.
    pub(super) questions: Vec<Question>,
    /// Under a license with a small quota.
    pub(super) metered: Question,
    /// Under a license for a stream.
    pub(super) streamed: Question,
}

/// A request under a license, in words.
pub(super) struct Question {
    pub(super) words: &'static str,
    pub(super) token: String,
    pub(super) request: CheckRequest,
}

impl Scene {
    /// Makes everything in `folder`.
    pub(super) fn build(folder: &Path, decisions: u16, http: u16) -> Result<Self, CliError> {
        for name in ["keys", "terms", "licenses"] {
            let path = folder.join(name);
            std::fs::create_dir(&path).map_err(|error| CliError::file(&path, &error))?;
        }
        let key = folder.join("issuer.jwk");
        let kid = keygen::generate("https://data.example", &key, &folder.join("keys/issuer.json"))?;
        write_new(&folder.join("catalog.json"), CATALOG, false)?;
        let config = folder.join("tollgate.yaml");
        write_new(&config, &configuration(decisions, http), false)?;
        let mut licenses = Vec::new();
        for (name, terms) in TERMS {
            let file = folder.join(format!("terms/{name}.yaml"));
            write_new(&file, terms, false)?;
            let draft = Document::parse(&file.display().to_string(), terms)?;
            let license = issue::issue(&key, &draft, Clock::system().now())?;
            write_new(&folder.join(format!("licenses/{name}.license")), &format!("{}\n", license.0), false)?;
            licenses.push(license);
        }
        let [(raw, claims), (anonymized, _), (expired, _), (metered, _), (streamed, _)] = licenses.as_slice()
        else {
            return Err(CliError::Failed("five licenses were to be made".to_owned()));
        };
        let forged = forge(claims, &kid)?;
        let orders = |token, action| ask("", token, action, "sales/eu/orders", "AcademicResearch");
        Ok(Self {
            config,
            questions: questions(raw, anonymized, expired, &forged),
            metered: orders(metered, "read"),
            streamed: orders(streamed, "stream"),
        })
    }
}

fn configuration(decisions: u16, http: u16) -> String {
    format!(
        "# Paths are relative to this file. docs/configuration.md explains every key.
listeners:
  decisions: {{tcp: \"127.0.0.1:{decisions}\"}}
  administration: {{unix: admin.sock}}
  http: {{tcp: \"127.0.0.1:{http}\"}}
licenses:
  keys: keys
policies:
  catalog: catalog.json
audit:
  stdout: false
  file: {{path: decisions.jsonl}}
telemetry:
  logs: {{format: text, level: warn}}
shutdown: {{notice: 0s}}
"
    )
}

/// A question of `ana`, an analyst of `acme`.
fn ask(words: &'static str, token: &str, action: &str, dataset: &str, purpose: &str) -> Question {
    Question {
        words,
        token: token.to_owned(),
        request: CheckRequest {
            subject: Subject { id: "ana".into(), organization: "acme".into(), roles: vec!["analyst".into()] },
            action: action.to_owned(),
            resource: Resource { id: dataset.to_owned(), ..Resource::default() },
            purpose: purpose.to_owned(),
            ..CheckRequest::default()
        },
    }
}

fn questions(raw: &str, anonymized: &str, expired: &str, forged: &str) -> Vec<Question> {
    let mut linked = ask(
        "combine anonymized admissions with outside data",
        anonymized,
        "analyse",
        "health/admissions",
        "ScientificResearch",
    );
    linked.request.combined_with_external = true;
    vec![
        ask("read EU orders for academic research", raw, "read", "sales/eu/orders", "AcademicResearch"),
        ask(
            "aggregate anonymized admissions",
            anonymized,
            "aggregate",
            "health/admissions",
            "ScientificResearch",
        ),
        ask("read EU orders for marketing", raw, "read", "sales/eu/orders", "Marketing"),
        ask("read sales/europe with a license for sales/eu", raw, "read", "sales/europe", "AcademicResearch"),
        ask("read EU orders with a forged license", forged, "read", "sales/eu/orders", "AcademicResearch"),
        ask("read EU orders with an expired license", expired, "read", "sales/eu/orders", "AcademicResearch"),
        linked,
    ]
}

/// The same license, signed by somebody who claims to be the issuer.
fn forge(claims: &Claims, kid: &str) -> Result<String, CliError> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(CliError::failed)?;
    sign::sign(claims, kid, &SigningKey::from_bytes(&seed)).map_err(CliError::failed)
}

//! A gate without a network, a license with the terms that are usual, and the question that
//! everything here asks: the same as in `bench/run.py`.

use std::fmt::Write;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use serde_json::json;
use tempfile::TempDir;
use tollgate::audit::Writer;
use tollgate::config::{AuditFile, Config};
use tollgate::decision::{Pdp, State};
use tollgate::domain::request::{Resource, Subject};
use tollgate::domain::time::Timestamp;
use tollgate::domain::{CheckRequest, Clock, Effect, LicenseRef};
use tollgate::keyring::jwks::{KeySet, PublicJwk};
use tollgate::keyring::{Keyring, TrustedKey};
use tollgate::license::{Claims, sign};
use tollgate::policy::Policies;
use tollgate::policy::load::{Sources, Text};
use tollgate::store::StateStore;
use tollgate::store::redb::RedbStore;
use tollgate::telemetry::instruments::Instruments;

pub(crate) const ISSUER: &str = "https://data.example";

/// What the catalog knows: the area that the question is about, not the very table.
const CATALOG: &str = r#"[
  {
    "uid": {"type": "Tollgate::Dataset", "id": "sales/eu"},
    "attrs": {"classification": "confidential", "data_state": "PersonalData", "regulations": ["gdpr"]},
    "parents": []
  }
]"#;

/// A gate in memory, whose records go to a file as they do by default: queued.
pub(crate) struct Scene {
    pub(crate) config: Config,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) audit: Writer,
    pub(crate) key: SigningKey,
    pub(crate) now: Timestamp,
    pdp: Pdp,
    runtime: tokio::runtime::Runtime,
    _folder: TempDir,
}

impl Scene {
    /// A gate with so many policies of its operator, and so much memory for remembered answers.
    pub(crate) fn new(operator_policies: usize, answer_cache: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let set = KeySet { issuer: ISSUER.to_owned(), keys: vec![PublicJwk::of(&key.verifying_key())] };
        std::fs::write(folder.path().join("issuer.json"), serde_json::to_string(&set).unwrap()).unwrap();
        let mut config = Config::default();
        config.policies.answer_cache = answer_cache.parse().unwrap();
        // The state is read once.
        config.state.max_staleness = "24h".parse().unwrap();
        config.audit.stdout = false;
        config.audit.file = Some(AuditFile {
            path: folder.path().join("decisions.jsonl"),
            rotate_at: "100 MiB".parse().unwrap(),
            keep: 1,
        });
        let keyring = Arc::new(Keyring::open(folder.path()).unwrap());
        let policies = Policies::of(&sources(operator_policies), config.policies.answer_cache).unwrap();
        let policies = Arc::new(policies);
        let audit = Writer::open(&config.audit).unwrap();
        let instruments = Instruments::detached();
        let store: Arc<dyn StateStore> =
            Arc::new(RedbStore::open(&folder.path().join("state.redb")).unwrap());
        let state = State::over(&store, &config);
        let pdp = Pdp::new(&config, keyring.clone(), policies.clone(), state, audit.clone(), instruments);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let now = Clock::system().now();
        // The time stands still here, so the state does not grow stale.
        runtime.block_on(pdp.state().revocations.read(&Clock::of(move || now))).unwrap();
        Self { config, keyring, policies, audit, key, now, pdp, runtime, _folder: folder }
    }

    /// The token of a license of this number, over `sales/eu` and these datasets.
    pub(crate) fn token(&self, number: usize, more_datasets: &[String]) -> String {
        let mut datasets = more_datasets.to_vec();
        datasets.push("sales/eu".to_owned());
        let seconds = self.now.as_second();
        let claims: Claims = serde_json::from_value(json!({
            "iss": ISSUER, "sub": "acme", "jti": format!("license-{number:08}"),
            "iat": seconds, "nbf": seconds, "exp": seconds + 86_400,
            "terms": {
                "tier": "gold",
                "datasets": datasets,
                "actions": ["read", "query", "aggregate"],
                "purposes": ["ResearchAndDevelopment"],
                "roles": ["analyst", "steward"],
                "regions": ["EU"],
                "prohibitions": ["combine-external", "reidentify"],
                "regulations": ["gdpr"],
            },
        }))
        .unwrap();
        sign::sign(&claims, &PublicJwk::of(&self.key.verifying_key()).kid, &self.key).unwrap()
    }

    /// The key that signs, as the gate trusts it.
    pub(crate) fn trusted(&self) -> TrustedKey {
        let kid = PublicJwk::of(&self.key.verifying_key()).kid;
        self.keyring.current().named(&kid).first().unwrap().clone()
    }

    /// The question, under license 0.
    pub(crate) fn request(&self) -> CheckRequest {
        request(self.token(0, &[]))
    }

    /// Asks the whole gate; it must allow.
    pub(crate) fn check(&self, request: &CheckRequest) {
        let decision = self.runtime.block_on(self.pdp.check(request, None, self.now)).unwrap();
        assert!(decision.effect == Effect::Allow, "{:?}", decision.reasons);
    }

    /// Records a line as it is.
    pub(crate) fn append(&self, line: Vec<u8>) {
        self.runtime.block_on(self.audit.append(line)).unwrap();
    }

    /// The bytes that the gate reckons its remembered licenses at.
    pub(crate) fn license_bytes(&self) -> u64 {
        self.pdp.license_bytes().0
    }
}

/// The question, under this token: allowed by every license here.
pub(crate) fn request(token: String) -> CheckRequest {
    CheckRequest {
        license: LicenseRef::Token(token),
        subject: Subject { id: "ana".into(), organization: "acme".into(), roles: vec!["analyst".into()] },
        action: "read".into(),
        resource: Resource { id: "sales/eu/orders".into(), ..Resource::default() },
        purpose: "AcademicResearch".into(),
        region: "FR".into(),
        ..CheckRequest::default()
    }
}

/// The built-in policies, the catalog, and so many policies of an operator.
fn sources(operator_policies: usize) -> Sources {
    let mut sources = Sources::built_in();
    sources.catalog = Text { origin: "catalog.json".into(), content: CATALOG.into() };
    let own = Text { origin: "operator.cedar".into(), content: policies(operator_policies) };
    sources.policies.push(own);
    sources
}

/// The policies of an operator that apply to the question: as many in a small set as in a large one.
const APPLYING: usize = 5;

/// Policies such as an operator has: a few that apply to the question and do not forbid it, and
/// for users, roles and datasets drawn at random, always the same.
pub(crate) fn policies(count: usize) -> String {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        // Knuth's MMIX constants; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = String::new();
    for number in 0..count {
        let (user, role, area, set) = (random(1000), random(50), random(100), random(50));
        let action = ["read", "query", "export", "share"].get(usize::try_from(random(4)).unwrap()).unwrap();
        let _ = match random(4) {
            _ if number < APPLYING => writeln!(
                text,
                r#"@id("own/{number}")
forbid (principal in Tollgate::Role::"analyst", action, resource in Tollgate::Dataset::"sales")
unless {{ context has region && context.region in Tollgate::Region::"EU" }};"#
            ),
            0 => writeln!(
                text,
                r#"@id("own/{number}")
permit (principal == Tollgate::User::"user-{user}", action == Tollgate::Action::"{action}", resource in Tollgate::Dataset::"area-{area}/set-{set}");"#
            ),
            1 => writeln!(
                text,
                r#"@id("own/{number}")
forbid (principal in Tollgate::Role::"role-{role}", action, resource in Tollgate::Dataset::"area-{area}/set-{set}")
unless {{ context has region && context.region in Tollgate::Region::"EU" }};"#
            ),
            2 => writeln!(
                text,
                r#"@id("own/{number}")
forbid (principal == Tollgate::User::"user-{user}", action == Tollgate::Action::"{action}", resource)
when {{ context.combined_with_external }};"#
            ),
            _ => writeln!(
                text,
                r#"@id("own/{number}")
forbid (principal, action in [Tollgate::Action::"{action}", Tollgate::Action::"delete"], resource in Tollgate::Dataset::"area-{area}")
unless {{ context.license.datasets.contains(resource) }};"#
            ),
        };
    }
    text
}

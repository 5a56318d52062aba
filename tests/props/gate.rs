//! A gate to ask: one trusted key, the built-in policies, a small catalog.
//!
//! Refuses to keep anything: its folder is removed with it.

use std::sync::{Arc, OnceLock};

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tollgate::audit::Writer;
use tollgate::config::{
    self, Audit, AuditFile, ByteSize, Config, Gate as GateConfig, HumanDuration, Licenses,
};
use tollgate::decision::{Pdp, State};
use tollgate::domain::{CheckRequest, Clock, Code, Decision, Effect, LicenseRef};
use tollgate::keyring::Keyring;
use tollgate::keyring::jwks::{KeySet, PublicJwk};
use tollgate::license::{Claims, sign};
use tollgate::policy::{Policies, Sources, load::Text};
use tollgate::store::StateStore;
use tollgate::store::redb::RedbStore;
use tollgate::telemetry::instruments::Instruments;

/// Whose licenses the gate honours.
pub(crate) const ISSUER: &str = "https://data.example";

/// The audience that the gate answers to.
pub(crate) const AUDIENCE: &str = "gate-1";

/// 2026-06-01T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);

/// Longer than any time here is away from [`NOW`].
const AGES: HumanDuration = HumanDuration::seconds(100 * 365 * 86_400);

/// A gate.
pub(crate) struct Gate {
    /// Where its log is.
    _folder: TempDir,
    pdp: Pdp,
    runtime: Runtime,
}

/// The key that the gate trusts.
pub(crate) fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

/// Its name.
pub(crate) fn kid() -> String {
    PublicJwk::of(&key().verifying_key()).kid
}

/// Signs claims as they are.
pub(crate) fn signed(claims: &Claims) -> String {
    sign::sign(claims, &kid(), &key()).unwrap()
}

/// The keys of every gate here.
pub(crate) fn keyring() -> &'static Arc<Keyring> {
    static KEYRING: OnceLock<Arc<Keyring>> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let jwk = PublicJwk::of(&key().verifying_key());
        let set = KeySet { issuer: ISSUER.to_owned(), keys: vec![jwk] };
        std::fs::write(folder.path().join("issuer.json"), serde_json::to_vec(&set).unwrap()).unwrap();
        Arc::new(Keyring::open(folder.path()).unwrap())
    })
}

/// The policies and the catalog of every gate here.
pub(crate) fn policies() -> &'static Arc<Policies> {
    static POLICIES: OnceLock<Arc<Policies>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let catalog = Text { origin: "catalog.json".to_owned(), content: catalog().to_string() };
        let sources = Sources { catalog, ..Sources::built_in() };
        Arc::new(Policies::of(&sources, ByteSize::mib(8)).unwrap())
    })
}

impl Gate {
    /// A gate with the default leeway.
    pub(crate) fn new() -> Self {
        Self::with_leeway("5s")
    }

    /// A gate with a leeway, such as `5s`.
    pub(crate) fn with_leeway(leeway: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let file = AuditFile { path, rotate_at: ByteSize::mib(1), keep: 1 };
        let config = Config {
            gate: GateConfig { audiences: vec![AUDIENCE.to_owned()], ..GateConfig::default() },
            licenses: Licenses { leeway: leeway.parse::<HumanDuration>().unwrap(), ..Licenses::default() },
            audit: Audit { stdout: false, file: Some(file), ..Audit::default() },
            // Questions come from all times; how fresh the state is, other tests look at.
            state: config::State { max_staleness: AGES, max_clock_skew: AGES, ..config::State::default() },
            ..Config::default()
        };
        let audit = Writer::open(&config.audit).unwrap();
        let store: Arc<dyn StateStore> = Arc::new(RedbStore::in_memory().unwrap());
        let state = State::over(&store, &config);
        let pdp =
            Pdp::new(&config, keyring().clone(), policies().clone(), state, audit, Instruments::detached());
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(pdp.state().revocations.read(&Clock::of(|| NOW))).unwrap();
        Self { _folder: folder, pdp, runtime }
    }

    /// Decides; the law of every decision is looked at in passing.
    pub(crate) fn decide(&self, token: &str, request: &CheckRequest, now: Timestamp) -> Decision {
        let request = CheckRequest { license: LicenseRef::Token(token.to_owned()), ..request.clone() };
        let decision = self.runtime.block_on(self.pdp.check(&request, None, now)).unwrap();
        assert_eq!(decision.effect == Effect::Allow, decision.reasons.is_empty());
        decision
    }

    /// Whether a license allows a request at [`NOW`].
    pub(crate) fn allows(&self, claims: &Claims, request: &CheckRequest) -> bool {
        self.decide(&signed(claims), request, NOW).effect == Effect::Allow
    }
}

/// The codes of a decision.
pub(crate) fn codes(decision: &Decision) -> Vec<Code> {
    decision.reasons.iter().map(|reason| reason.code).collect()
}

fn catalog() -> Value {
    let dataset = |id: &str, release: Value| json!({ "uid": { "type": "Tollgate::Dataset", "id": id }, "attrs": release, "parents": [] });
    let decimal = |number: &str| json!({ "__extn": { "fn": "decimal", "arg": number } });
    json!([
        dataset(
            "sales/eu",
            json!({ "anonymization": {
            "k_anonymity": 10, "l_diversity": 3, "t_closeness": decimal("0.2"), "epsilon": decimal("1.5"),
            "techniques": ["suppression", "generalization"], "attested_by": "auditor",
        } })
        ),
        dataset("sales", json!({})),
    ])
}

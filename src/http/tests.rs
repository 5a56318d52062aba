//! The server over real sockets, spoken to byte by byte.

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config;

const PATIENCE: Duration = Duration::from_secs(5);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

struct Running {
    address: std::net::SocketAddr,
    readiness: Readiness,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

async fn run() -> Running {
    let config = config::Listener { tcp: Some(([127, 0, 0, 1], 0).into()), ..Default::default() };
    let listener = Listener::bind(&config, 10, |_| {}).await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::new(&["keys"]);
    let (stop, stopped) = oneshot::channel();
    let done = tokio::spawn(server(&readiness).serve(listener, async { stopped.await.unwrap() }));
    Running { address, readiness, stop, done }
}

/// A keyring with the public key of RFC 8037, appendix A.2.
fn keyring() -> Keyring {
    let folder = tempfile::tempdir().unwrap();
    let key = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    });
    let set = json!({ "issuer": "https://data.example", "keys": [key] });
    std::fs::write(folder.path().join("issuer.json"), set.to_string()).unwrap();
    Keyring::open(folder.path()).unwrap()
}

fn server(readiness: &Readiness) -> Server {
    let instruments = Instruments::detached();
    instruments.undecided("unavailable");
    let listeners = config::Listeners::default();
    Server::new(readiness.clone(), instruments, Arc::new(keyring()), None, &listeners)
}

impl Running {
    async fn ask(&self, request: &str) -> Answer {
        exchange(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n")).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[tokio::test]
async fn lives_before_it_is_ready() {
    let gate = run().await;
    assert_eq!(gate.get("/healthz").await.status, 200);
    let waiting = gate.get("/readyz").await;
    assert_eq!(waiting.status, 503);
    assert_eq!(waiting.header("content-type"), Some("application/json"));
    assert_eq!(waiting.json()["ready"], false);
    assert_eq!(waiting.json()["parts"][0]["name"], "keys");

    gate.readiness.ready("keys", "");
    assert_eq!(gate.get("/readyz").await.status, 200);
    gate.readiness.drain();
    assert_eq!(gate.get("/readyz").await.status, 503);
    assert_eq!(gate.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn publishes_metrics_and_keys() {
    let gate = run().await;
    let metrics = gate.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    assert!(metrics.body.contains("unavailable"), "{}", metrics.body);

    let keys = gate.get("/.well-known/jwks.json").await;
    assert_eq!(keys.status, 200);
    assert_eq!(keys.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(keys.header("cache-control"), Some("max-age=60"));
    assert_eq!(keys.json(), keyring().published());
    assert_eq!(keys.json()["keys"][0]["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[tokio::test]
async fn answers_what_it_does_not_serve_with_a_problem() {
    let gate = run().await;
    for path in ["/", "/nothing", "/metrics/", "/healthz/../metrics", "/access/v1/evaluation"] {
        let answer = gate.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let expected = json!({
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": format!("nothing is served at `{path}`"),
        });
        assert_eq!(answer.json(), expected);
    }
    let post = "POST /metrics HTTP/1.1\r\nhost: gate\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
    let answer = gate.ask(post).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.json()["title"], "Method Not Allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn refuses_a_head_that_is_too_large() {
    let gate = run().await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: gate\r\nx: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(gate.ask(&request).await.status, 431);
}

#[tokio::test]
async fn the_end_finishes_what_was_begun_and_closes_idle_connections() {
    let gate = run().await;
    let mut idle = TcpStream::connect(gate.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let read = idle.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{answer:?}");

    gate.stop.send(()).unwrap();
    timeout(PATIENCE, gate.done).await.expect("an idle connection held it up").unwrap();
    assert_eq!(idle.read(&mut answer).await.unwrap(), 0);
    TcpStream::connect(gate.address).await.expect_err("the listener is still open");
}

#[tokio::test]
async fn serves_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let config = config::Listener { unix: Some(path.clone()), ..Default::default() };
    let listener = Listener::bind(&config, 10, |_| {}).await.unwrap();
    let readiness = Readiness::new(&["keys"]);
    readiness.ready("keys", "");
    let served = tokio::spawn(server(&readiness).serve(listener, std::future::pending()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let request = "GET /readyz HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(stream, request).await.status, 200);
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert!(!path.exists(), "the socket outlived its listener");
}

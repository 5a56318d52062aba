//! Real sockets, real files, real certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const MOMENT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(5);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A listener that echoes, and what its client needs.
struct Echo {
    folder: TempDir,
    address: SocketAddr,
    reloads: mpsc::Receiver<Result<(), String>>,
}

impl Echo {
    async fn tls(server: &Authority, clients: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = config::Tls {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
            client_ca: clients.map(|_| folder.path().join("ca.crt")),
        };
        put(folder.path(), &server.sign("localhost"));
        if let Some(clients) = clients {
            fs::write(folder.path().join("ca.crt"), clients.certificate.pem()).unwrap();
        }
        let config = config::Listener { tls: Some(tls), ..loopback() };
        let (report, reloads) = mpsc::channel();
        let on_reload = move |result: Result<(), &TlsError>| {
            report.send(result.map_err(ToString::to_string)).unwrap();
        };
        let listener = Listener::bind(&config, 100, on_reload).await.unwrap();
        let address = listener.local_addr().unwrap();
        echo(listener);
        Self { folder, address, reloads }
    }

    /// Waits without blocking the runtime that serves.
    async fn reloaded(&self) -> Result<(), String> {
        for _ in 0..100 {
            if let Ok(result) = self.reloads.try_recv() {
                return result;
            }
            tokio::time::sleep(PATIENCE / 100).await;
        }
        panic!("no reload was reported");
    }

    async fn connect(
        &self,
        trusted: &Authority,
        own: Option<(String, String)>,
    ) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address, trusted, own, &version::TLS13).await
    }
}

fn loopback() -> config::Listener {
    config::Listener { tcp: Some(([127, 0, 0, 1], 0).into()), ..config::Listener::default() }
}

fn put(folder: &Path, (certificate, key): &(String, String)) {
    fs::write(folder.join("tls.crt"), certificate).unwrap();
    fs::write(folder.join("tls.key"), key).unwrap();
}

fn echo(mut listener: Listener) {
    tokio::spawn(async move {
        loop {
            let (mut from, mut to) = tokio::io::split(listener.accept().await);
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        }
    });
}

async fn connect(
    address: SocketAddr,
    trusted: &Authority,
    own: Option<(String, String)>,
    version: &'static SupportedProtocolVersion,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // With TLS 1.3 a client learns only now that it was refused.
    says(&mut stream).await?;
    Ok(stream)
}

async fn says(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"hello").await?;
    let mut answer = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
    assert_eq!(&answer, b"hello");
    Ok(())
}

#[tokio::test]
async fn speaks_tls_12_and_13_and_offers_h2() {
    let authority = Authority::new();
    let server = Echo::tls(&authority, None).await;
    for (asked, spoken) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let stream = connect(server.address, &authority, None, asked).await.unwrap();
        let session = stream.get_ref().1;
        assert_eq!(session.protocol_version(), Some(spoken));
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[tokio::test]
async fn takes_new_certificates_into_force_while_serving() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Echo::tls(&old, None).await;
    let mut before = server.connect(&old, None).await.unwrap();

    put(server.folder.path(), &new.sign("localhost"));
    assert_eq!(server.reloaded().await, Ok(()));
    server.connect(&new, None).await.unwrap();
    server.connect(&old, None).await.unwrap_err();
    says(&mut before).await.unwrap();
}

#[tokio::test]
async fn keeps_the_old_certificates_when_the_new_are_unusable() {
    let authority = Authority::new();
    let server = Echo::tls(&authority, Some(&authority)).await;
    let own = authority.sign("client");
    let (certificate, key) = (server.folder.path().join("tls.crt"), server.folder.path().join("tls.key"));
    let ca = server.folder.path().join("ca.crt");
    let good = fs::read(&key).unwrap();

    fs::write(&key, authority.sign("localhost").1).unwrap();
    assert!(server.reloaded().await.unwrap_err().contains("cannot be used"), "another's key");
    fs::write(&key, &good).unwrap();
    assert_eq!(server.reloaded().await, Ok(()));
    fs::write(&certificate, "not PEM").unwrap();
    assert!(server.reloaded().await.unwrap_err().contains("does not hold certificates"), "no certificate");
    fs::write(&ca, "").unwrap();
    server.reloaded().await.unwrap_err();
    fs::remove_file(&key).unwrap();
    assert!(server.reloaded().await.unwrap_err().contains("cannot read"), "no key");
    server.connect(&authority, Some(own)).await.unwrap();
}

#[tokio::test]
async fn lets_in_only_clients_of_its_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Echo::tls(&authority, Some(&authority)).await;
    let own = authority.sign("client");

    server.connect(&authority, None).await.unwrap_err();
    server.connect(&authority, Some(stranger.sign("client"))).await.unwrap_err();
    server.connect(&authority, Some(own.clone())).await.unwrap();

    fs::write(server.folder.path().join("ca.crt"), stranger.certificate.pem()).unwrap();
    assert_eq!(server.reloaded().await, Ok(()));
    server.connect(&authority, Some(own)).await.unwrap_err();
    server.connect(&authority, Some(stranger.sign("client"))).await.unwrap();
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_others() {
    let authority = Authority::new();
    let server = Echo::tls(&authority, None).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    server.connect(&authority, None).await.unwrap();
}

#[tokio::test]
async fn refuses_unusable_certificates_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let tls = config::Tls {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        client_ca: None,
    };
    let config = config::Listener { tls: Some(tls), ..loopback() };
    let error = Listener::bind(&config, 1, |_| {}).await.unwrap_err();
    assert!(matches!(error, ListenError::Tls(TlsError::Read { .. })), "{error}");
    assert!(error.to_string().contains("tls.crt"), "{error}");
}

fn at(path: &Path) -> config::Listener {
    config::Listener { unix: Some(path.to_owned()), ..config::Listener::default() }
}

#[tokio::test]
async fn serves_a_unix_socket_and_removes_it_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let mut listener = Listener::bind(&at(&path), 10, |_| {}).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);

    let mut client = UnixStream::connect(&path).await.unwrap();
    let mut served = listener.accept().await;
    served.write_all(b"hi").await.unwrap();
    let mut answer = [0; 2];
    client.read_exact(&mut answer).await.unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn takes_over_a_stale_unix_socket_but_not_one_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves it behind, as a killed process does");

    let first = Listener::bind(&at(&path), 10, |_| {}).await.unwrap();
    let error = Listener::bind(&at(&path), 10, |_| {}).await.unwrap_err();
    assert!(matches!(error, ListenError::Taken { .. }), "{error}");
    UnixStream::connect(&path).await.unwrap();
    drop(first);
}

#[tokio::test]
async fn leaves_alone_what_is_not_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&at(&path), 10, |_| {}).await.unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    let listener = Listener::bind(&at(&path), 10, |_| {}).await.unwrap();
    fs::rename(&path, folder.path().join("moved")).unwrap();
    fs::write(&path, "a successor's").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[tokio::test]
async fn names_a_taken_address() {
    let first = Listener::bind(&loopback(), 1, |_| {}).await.unwrap();
    let address = first.local_addr().unwrap();
    let second = config::Listener { tcp: Some(address), ..loopback() };
    let error = Listener::bind(&second, 1, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn lets_no_more_in_than_the_limit() {
    let mut listener = Listener::bind(&loopback(), 2, |_| {}).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TcpStream::connect(address).await.unwrap());
    }
    let first = listener.accept().await;
    let _second = listener.accept().await;
    timeout(MOMENT, listener.accept()).await.expect_err("a third was let in");
    drop(first);
    timeout(PATIENCE, listener.accept()).await.expect("the third was lost");
}

#[tokio::test]
async fn without_an_address_nothing_comes_in() {
    let mut listener = Listener::bind(&config::Listener::default(), 1, |_| {}).await.unwrap();
    assert_eq!(listener.local_addr(), None);
    timeout(MOMENT, listener.accept()).await.expect_err("from where?");
}

/// The limit is the process's, so the test runs again in a process of its own.
#[tokio::test]
async fn survives_running_out_of_descriptors() {
    const HERE: &str = "TOLLGATE_TEST_WITH_FEW_DESCRIPTORS";
    if std::env::var_os(HERE).is_none() {
        let test = "listener::tests::survives_running_out_of_descriptors";
        let status = Command::new("sh")
            .args(["-c", "ulimit -n 40 && exec \"$0\" --exact \"$1\" --test-threads 1"])
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(HERE, "")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let mut listener = Listener::bind(&loopback(), 100, |_| {}).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut hog: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    hog.pop();
    let _client = TcpStream::connect(address).await.unwrap();
    timeout(MOMENT, listener.accept()).await.expect_err("there was a descriptor left");
    hog.clear();
    timeout(PATIENCE, listener.accept()).await.expect("the client was lost");
}

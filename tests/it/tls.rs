//! TLS from outside: whom the gate lets in, and certificates that change while it serves.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::gate::{Client, Gate, Site, ask, eventually, is_allowed, program};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Otherwise it has the name of what it signs, which OpenSSL takes for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `localhost` and its key, in PEM.
    fn sign(&self) -> (String, String) {
        self.sign_for("localhost")
    }

    /// A certificate of this key, in PEM.
    pub(crate) fn certify(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// A certificate for this DNS name and its key, in PEM.
    pub(crate) fn sign_for(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (self.certify(&params, &key), key.serialize_pem())
    }
}

async fn connect(
    gate: &Gate,
    trusted: &Authority,
    own: Option<(String, String)>,
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusted.pem));
    let tls = tls.domain_name("localhost");
    let tls = own.into_iter().fold(tls, |tls, (pem, key)| tls.identity(Identity::from_pem(pem, key)));
    Endpoint::from_shared(format!("https://{}", gate.decisions))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
}

/// Whether a caller is let in and answered.
async fn answers(gate: &Gate, trusted: &Authority, own: Option<(String, String)>) -> bool {
    let question = ask(&gate.site().issuer.license("license-1"));
    match connect(gate, trusted, own).await {
        // A client that is refused may learn it only when it asks.
        Ok(channel) => Client::new(channel).check(question).await.is_ok(),
        Err(_) => false,
    }
}

pub(crate) fn install(site: &Site, (pem, key): (String, String)) {
    site.write("tls.crt", &pem);
    site.write("tls.key", &key);
}

const TLS: [(&str, &str); 2] =
    [("listeners.decisions.tls.certificate", "tls.crt"), ("listeners.decisions.tls.key", "tls.key")];

#[tokio::test]
async fn certificates_change_while_it_serves() {
    let (first, second) = (Authority::new(), Authority::new());
    let site = Site::new();
    install(&site, first.sign());
    let gate = site.start(&TLS);
    let question = ask(&gate.site().issuer.license("license-1"));
    let mut long_lived = Client::new(connect(&gate, &first, None).await.unwrap());
    assert!(is_allowed(&long_lived.check(question.clone()).await.unwrap().into_inner()));
    assert!(!answers(&gate, &second, None).await, "a caller who does not trust the certificate");
    let plain = Endpoint::from_shared(format!("http://{}", gate.decisions)).unwrap().connect().await;
    let answered = match plain {
        Ok(channel) => Client::new(channel).check(question.clone()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered, "a caller without TLS was answered");

    install(gate.site(), second.sign());
    eventually("the new certificate is in force", async || answers(&gate, &second, None).await).await;
    assert!(!answers(&gate, &first, None).await, "the old certificate is still shown");
    assert!(is_allowed(&long_lived.check(question).await.unwrap().into_inner()));

    let failures = [("what", "certificates"), ("result", "failure")];
    // Those of rcgen, unless told otherwise.
    let until = |name: &str| gate.metric(name, &[("certificate", "decisions")]);
    assert_eq!(until("tollgate_certificate_start_timestamp_seconds"), 157_766_400.0);
    assert_eq!(until("tollgate_certificate_expiry_timestamp_seconds"), 67_090_118_400.0);
    gate.site().write("tls.key", "no key at all");
    eventually("it is told", async || gate.metric("tollgate_reloads_total", &failures) > 0.0).await;
    assert!(answers(&gate, &second, None).await, "the old pair stays in force");
    assert_eq!(gate.get("/readyz").0, 200);
    // The first change may have been seen half done: certificate and key are two files.
    let log = gate.stop().await.stderr;
    assert_eq!(log.matches("new certificates are in force").count(), 1, "{log}");
}

#[tokio::test]
async fn only_clients_of_the_authority_are_let_in() {
    let (server, clients, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let site = Site::new();
    install(&site, server.sign());
    site.write("clients.crt", &clients.pem);
    let gate = site.start(&[TLS[0], TLS[1], ("listeners.decisions.tls.client_ca", "clients.crt")]);
    assert!(answers(&gate, &server, Some(clients.sign())).await);
    assert!(!answers(&gate, &server, Some(stranger.sign())).await, "a stranger was let in");
    assert!(!answers(&gate, &server, None).await, "a caller without a certificate was let in");

    // The authority of the clients changes too.
    gate.site().write("clients.crt", &stranger.pem);
    eventually("the new authority counts", async || answers(&gate, &server, Some(stranger.sign())).await)
        .await;
    assert!(!answers(&gate, &server, Some(clients.sign())).await);
    assert_eq!(gate.metric("tollgate_checks_total", &[]), 2.0);
}

#[tokio::test]
async fn an_open_address_with_tls_is_allowed() {
    let authority = Authority::new();
    let site = Site::new();
    install(&site, authority.sign());
    let gate = site.start(&[TLS[0], TLS[1], ("listeners.decisions.tcp", "0.0.0.0:0")]);
    assert!(answers(&gate, &authority, None).await);
}

#[tokio::test]
async fn the_command_line_asks_over_tls_and_shows_a_certificate() {
    let (server, clients) = (Authority::new(), Authority::new());
    let site = Site::new();
    install(&site, server.sign());
    site.write("server-ca.crt", &server.pem);
    site.write("clients.crt", &clients.pem);
    let (certificate, key) = clients.sign();
    site.write("client.crt", &certificate);
    site.write("client.key", &key);
    let gate = site.start(&[TLS[0], TLS[1], ("listeners.decisions.tls.client_ca", "clients.crt")]);
    gate.site().write("license", &gate.site().issuer.license("license-1"));
    let address = format!("https://localhost:{}", gate.decisions.port());
    let ask = |more: &[&str]| {
        let usual = ["check", "--gate", &address, "--license", "license", "--subject", "ana"];
        let usual =
            [&usual[..], &["--organization", "acme", "--action", "read", "--dataset", "sales/eu"]].concat();
        let usual = [&usual[..], &["--purpose", "ScientificResearch", "--json"], more].concat();
        program(&gate.site().path(""), &usual).output().unwrap()
    };
    let trusted = ["--ca", "server-ca.crt", "--certificate", "client.crt", "--key", "client.key"];
    let allowed = ask(&trusted);
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    let answer: serde_json::Value = serde_json::from_slice(&allowed.stdout).unwrap();
    assert!(answer["valid_until"].as_str().unwrap() > "2026", "{answer}");
    for refused in [&trusted[..2], &[], &["--ca", "clients.crt"]] {
        assert_eq!(ask(refused).status.code(), Some(2), "{refused:?}");
    }
    let clear = format!("http://localhost:{}", gate.decisions.port());
    let clear = ["check", "--gate", &clear, "--license", "license", "--ca", "server-ca.crt"];
    let clear = program(&gate.site().path(""), &clear).output().unwrap();
    assert!(clear.status.code() == Some(2) && String::from_utf8_lossy(&clear.stderr).contains("is not TLS"));
    // A gate that does not answer is not waited for without end.
    gate.signal("STOP");
    let begun = std::time::Instant::now();
    let late = ask(&[&trusted[..], &["--timeout", "300ms"]].concat());
    gate.signal("CONT");
    assert_eq!(late.status.code(), Some(2), "{late:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

//! A gate elsewhere, over TLS with certificates on both sides; and gRPC behind Envoy.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Scene, client, program, site, start_gate};
use crate::tls::Authority;

/// A certificate with these names, and its key, in PEM.
fn certificate(authority: &Authority, names: Vec<SanType>) -> (String, String) {
    let mut params = CertificateParams::default();
    // Not that of the authority, which would make it its own.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    (authority.certify(&params, &key), key.serialize_pem())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

/// The files that the example names, for an Envoy that is only to look at them.
pub(crate) fn certificates(folder: &Path) {
    let authority = Authority::new();
    let (pem, key) = certificate(&authority, vec![dns("envoy.example.org")]);
    for (name, text) in [("ca.crt", &authority.pem), ("envoy.crt", &pem), ("envoy.key", &key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// A request over TLS, by whoever shows this certificate.
async fn send(
    scene: &Scene,
    authority: &Authority,
    own: &(String, String),
    request: &[u8],
) -> client::Answer {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let stream = TcpStream::connect(scene.envoy.data).await.unwrap();
    let name = ServerName::try_from("envoy.example.org").unwrap();
    client::over(TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap(), request).await
}

#[tokio::test]
async fn over_tls_clients_are_who_their_certificates_say() {
    let Some(program) = program() else { return };
    let authority = Authority::new();
    let site = site();
    let (pem, key) = certificate(&authority, vec![dns("gate.example.org")]);
    for (name, text) in [("gate.crt", &pem), ("gate.key", &key), ("ca.crt", &authority.pem)] {
        site.write(name, text);
    }
    let folder = site.path("");
    let file = |name: &str| folder.join(name).display().to_string();
    let tls = format!(
        "{{certificate: {}, key: {}, client_ca: {}}}",
        file("gate.crt"),
        file("gate.key"),
        file("ca.crt")
    );
    let gate = start_gate(site, &[("listeners.decisions.tls", &tls)]);
    let (pem, key) = certificate(&authority, vec![dns("envoy.example.org")]);
    let files = [("ca.crt", authority.pem.as_str()), ("envoy.crt", &pem), ("envoy.key", &key)];
    let scene = Scene::around(program, gate, "central.yaml", &[], &files).await;

    let own = certificate(&authority, vec![uri("spiffe://example.org/orders"), dns("orders.example.org")]);
    let der = CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap();
    let issuer = &scene.gate.site().issuer;
    let bound = |confirmation: serde_json::Value| {
        let mut claims = issuer.claims("license-1");
        claims["cnf"] = confirmation;
        let license = format!("authorization: License {}", issuer.sign(&claims));
        client::request("GET", "/v1/datasets/sales/eu", &[&license, "x-purpose: ScientificResearch"])
    };
    let by_id = bound(json!({ "spiffe_id": "spiffe://example.org/orders" }));
    let by_hash = bound(json!({ "x5t#S256": URL_SAFE_NO_PAD.encode(Sha256::digest(&der)) }));
    for request in [&by_id, &by_hash] {
        let answer = send(&scene, &authority, &own, request).await;
        assert_eq!(answer.status, 200, "{answer:?} {}", scene.envoy.stderr.text());
        let record = scene.record(&answer.passed("x-license-decision-id").concat()).await;
        assert_eq!(record["subject"]["id"], "spiffe://example.org/orders");
    }

    let neighbour = certificate(&authority, vec![uri("spiffe://example.org/other")]);
    for request in [&by_id, &by_hash] {
        let answer = send(&scene, &authority, &neighbour, request).await;
        assert_eq!((answer.status, answer.codes()), (401, vec!["HOLDER_MISMATCH".to_owned()]));
    }
    // A name in another field than that of SPIFFE ids, and one of a domain that is not trusted.
    for names in [vec![uri("spiffe://evil.example/orders")], vec![dns("orders.example.org")]] {
        let answer = send(&scene, &authority, &certificate(&authority, names), &by_id).await;
        assert!(answer.codes().contains(&"CONTEXT_INVALID".to_owned()), "{answer:?}");
    }
    assert_eq!(scene.upstream.asked(), 2);
}

/// Calls an RPC through Envoy.
async fn call(channel: &Channel, license: Option<String>) -> Code {
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    if let Some(license) = license {
        request.metadata_mut().insert("authorization", format!("License {license}").parse().unwrap());
    }
    match HealthClient::new(channel.clone()).check(request).await {
        Ok(_) => Code::Ok,
        Err(status) => {
            assert!(!status.message().is_empty(), "{status}");
            status.code()
        }
    }
}

#[tokio::test]
async fn grpc_clients_see_grpc_statuses() {
    let Some(program) = program() else { return };
    let gate = start_gate(site(), &[]);
    // The service behind Envoy is the gate's own health.
    let upstream = format!("port_value: {}", gate.decisions.port());
    let scene = Scene::around(program, gate, "grpc.yaml", &[("port_value: 8081", &upstream)], &[]).await;
    let channel =
        Endpoint::from_shared(format!("http://{}", scene.envoy.data)).unwrap().connect().await.unwrap();
    let issuer = &scene.gate.site().issuer;
    let license = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = issuer.claims("license-1");
        claims["terms"]["actions"] = json!(["query"]);
        change(&mut claims["terms"]);
        Some(issuer.sign(&claims))
    };
    assert_eq!(call(&channel, license(&|_| {})).await, Code::Ok);
    assert_eq!(call(&channel, None).await, Code::Unauthenticated);
    assert_eq!(
        call(&channel, license(&|terms| terms["actions"] = json!(["read"]))).await,
        Code::PermissionDenied
    );
    let quota = json!({ "id": "daily", "metric": "requests", "limit": 1, "per": "license", "window": "day" });
    let limited = license(&|terms| terms["quotas"] = json!([quota]));
    assert_eq!(call(&channel, limited.clone()).await, Code::Ok);
    assert_eq!(call(&channel, limited).await, Code::ResourceExhausted);
    let several = Some(format!("{}, License x.y.z", issuer.license("license-1")));
    assert_eq!(call(&channel, several).await, Code::InvalidArgument);
    assert_eq!(scene.upstream.asked(), 0);
}

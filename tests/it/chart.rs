//! The Helm chart from the gate's side: gates are started from what it renders, with its files, arguments and probes.
//!
//! Reads golden renders, so that no Helm is needed here; `helm/check.py` holds them current.

mod pod;

use std::path::Path;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::Value;
use tokio::net::UnixStream;
use tollgate::config::sources;
use tollgate::keyring::jwks::KeyState;
use tollgate::proto::v1::CheckRequest;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::gate::{Client, Gate, ISSUER, Issuer, ask, codes, eventually, is_allowed, program};
use crate::postgres::server;
use crate::tls::Authority;
use pod::{Given, Pod, Render, is_mounted};

/// What cert-manager puts into a Secret, for who has these names.
fn secret(authority: &Authority, names: &[String]) -> Vec<(String, String)> {
    let mut params = CertificateParams::default();
    let name = |name: &String| match name.contains("://") {
        true => SanType::URI(name.as_str().try_into().unwrap()),
        false => SanType::DnsName(name.as_str().try_into().unwrap()),
    };
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names.iter().map(name).collect();
    let key = KeyPair::generate().unwrap();
    let files = [
        ("tls.crt", authority.certify(&params, &key)),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", authority.pem.clone()),
    ];
    files.map(|(name, text)| (name.to_owned(), text)).to_vec()
}

/// The names of a Certificate, with more.
fn names(render: &Render, certificate: &str, more: &[&str]) -> Vec<String> {
    let spec = &render.object("Certificate", certificate).unwrap()["spec"];
    let named = spec["dnsNames"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    named.chain(more.iter().map(|name| (*name).to_owned())).collect()
}

fn issuer() -> Issuer {
    Issuer::new(ISSUER, 1)
}

/// A key set of the tests' issuer, as whoever runs the cluster would give it.
fn issuers() -> (String, Vec<(String, String)>) {
    let set = issuer().key_set(vec![issuer().jwk(KeyState::Active)]);
    ("issuers".to_owned(), vec![("issuer.json".to_owned(), set)])
}

/// Until the kubelet would call it ready, by its own probes.
async fn probed(pod: &Pod<'_>, gate: &Gate) {
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let path = pod.container[probe]["httpGet"]["path"].as_str().unwrap();
        eventually(probe, async || gate.get(path).0 == 200).await;
    }
}

/// As `helm test` does it, once names lead to gates.
fn tested(render: &Render, gates: &[&Gate]) {
    let pod = render.object("Pod", "demo-tollgate-test").unwrap();
    let said = pod["spec"]["containers"][0]["args"].as_array().unwrap();
    let mut arguments: Vec<String> = said.iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    assert_eq!(arguments.len(), gates.len() + 1);
    for (url, gate) in arguments.iter_mut().skip(1).zip(gates) {
        assert!(url.starts_with("http://demo-tollgate-") && url.ends_with(".data.svc:9193"), "{url}");
        *url = format!("http://{}", gate.http);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = program(Path::new("."), &arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A caller with a certificate, who knows the gate by this name.
async fn client(gate: &Gate, authority: &Authority, name: &str) -> Client {
    let own = secret(authority, &["orders".to_owned()]);
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&authority.pem))
        .identity(Identity::from_pem(&own[0].1, &own[1].1))
        .domain_name(name);
    let address = format!("https://127.0.0.1:{}", gate.decisions.port());
    let endpoint = Endpoint::from_shared(address).unwrap().tls_config(tls).unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

/// Where a hub with a certificate is, here.
fn at(hub: &Gate) -> String {
    format!("https://localhost:{}", hub.hub.port())
}

#[test]
fn every_configuration_is_taken_and_names_only_what_is_mounted() {
    let renders = Render::all();
    let mut looked_at = 0;
    for pod in renders.iter().flat_map(Render::pods) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tollgate.yaml");
        let Some(text) = pod.config() else { continue };
        std::fs::write(&file, text).unwrap();
        let config = sources::load(Some(&file), pod.variables().into_iter(), &[]);
        let config = config.unwrap_or_else(|problems| panic!("{}: {problems}", pod.name));
        assert_eq!(config.gate.name, "pod-0.test");
        let said = text.lines().filter_map(|line| line.split_once(": ").map(|(_, value)| value));
        for path in said.filter(|value| value.starts_with('/') && !value.starts_with("/v1/")) {
            assert!(is_mounted(&pod, path), "{}: `{path}` is not mounted", pod.name);
            looked_at += 1;
        }
    }
    assert!(looked_at > 50, "{looked_at} paths");
}

#[test]
fn hubs_are_called_by_names_that_their_certificates_have() {
    let mut looked_at = 0;
    for render in Render::all() {
        for pod in render.pods() {
            let config = pod.config().unwrap_or_default();
            let hosts =
                config.lines().filter_map(|line| line.trim().strip_prefix("- https://")?.split(':').next());
            for host in hosts {
                let (_, domain) = host.split_once('.').unwrap();
                let wildcard = Value::from(format!("*.{domain}"));
                let certificates = render.objects.iter().filter(|object| object["kind"] == "Certificate");
                let mut names =
                    certificates.filter_map(|object| object["spec"]["dnsNames"].as_array()).flatten();
                // Hubs of another release have a certificate there.
                let is_here = render.object("Service", domain.split('.').next().unwrap()).is_some();
                assert!(!is_here || names.any(|name| *name == wildcard), "{}: {host}", render.name);
                looked_at += usize::from(is_here);
            }
        }
    }
    assert!(looked_at > 2, "{looked_at} hosts");
}

#[tokio::test]
async fn keys_policies_and_catalog_are_read_from_every_source() {
    let render = Render::of("full");
    let authority = Authority::new();
    let partner = Issuer::new("https://partner.example", 2);
    let partners = partner.key_set(vec![partner.jwk(KeyState::Active)]);
    let more = r#"@id("house/no-export") @reason("No.") @admin("no") @passes("never")
        forbid (principal, action == Tollgate::Action::"export", resource);"#;
    let file = |name: &str, text: String| vec![(name.to_owned(), text)];
    let given = Given::from([
        issuers(),
        ("partners".to_owned(), file("partner.json", partners)),
        ("more-policies".to_owned(), file("more.cedar", more.to_owned())),
        ("demo-tollgate-gate-tls".to_owned(), secret(&authority, &["gate".to_owned()])),
    ]);
    let pod = render.pod("demo-tollgate-gate");
    let gate = pod.start(&given, &[]);
    assert_eq!(gate.part("keys"), ("ready".to_owned(), "keys: 2, issuers: 2".to_owned()));
    assert_eq!(gate.part("policies").0, "ready");
    // No hub has answered, so everything is denied; but a denial names all its reasons.
    let mut client = client(&gate, &authority, "gate").await;
    for (action, policy) in [("train", "house/no-training"), ("export", "house/no-export")] {
        let question = CheckRequest { action: action.to_owned(), ..ask(&issuer().license("license-1")) };
        let reasons = client.check(question).await.unwrap().into_inner().reasons;
        assert!(reasons.iter().any(|reason| reason.policy_id == policy), "{reasons:?}");
    }
}

#[tokio::test]
async fn a_central_gate_decides_over_its_hub_and_a_revocation_reaches_it() {
    let render = Render::of("central");
    let authority = Authority::new();
    // Here the hub's name is that of this machine.
    let of_hub = secret(&authority, &names(&render, "demo-tollgate-hub", &["localhost"]));
    let of_gate = secret(&authority, &names(&render, "demo-tollgate-gate", &[]));
    let given = Given::from([
        ("demo-tollgate-hub-tls".to_owned(), of_hub),
        ("demo-tollgate-gate-tls".to_owned(), of_gate),
    ]);
    let (hub_pod, gate_pod) = (render.pod("demo-tollgate-hub"), render.pod("demo-tollgate-gate"));
    let hub = hub_pod.start(&given, &[]);
    let address = "https://demo-tollgate-hub-0.demo-tollgate-hub-pods.data.svc:9194";
    let gate = gate_pod.start(&given, &[(address, at(&hub))]);
    probed(&hub_pod, &hub).await;
    probed(&gate_pod, &gate).await;
    tested(&render, &[&hub, &gate]);

    let mut client = client(&gate, &authority, "demo-tollgate-gate.data.svc").await;
    let question = ask(&issuer().license("license-1"));
    let answer = client.check(question.clone()).await.unwrap().into_inner();
    assert!(is_allowed(&answer), "{answer:?}");
    // Its record is the hub's, under its name.
    let recorded =
        async || hub.stdout.find(&answer.decision_id).is_some_and(|line| line.contains("pod-0.test"));
    eventually("the hub has the record", recorded).await;

    let revoke = ["revoke", "--license", "license-1", "--issuer", ISSUER, "--reason", "contract ended"];
    let output = hub_pod.exec(&hub, &revoke).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = async |client: &mut Client| {
        codes(&client.check(question.clone()).await.unwrap().into_inner()) == ["REVOKED"]
    };
    eventually("the gate knows", async || told(&mut client).await).await;

    let begun = Instant::now();
    assert_eq!(gate.stop().await.code, Some(0));
    let spec = &render.object("Deployment", "demo-tollgate-gate").unwrap()["spec"]["template"]["spec"];
    let grace = Duration::from_secs(spec["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(begun.elapsed() < grace);
}

#[tokio::test]
async fn a_sidecar_answers_on_its_socket() {
    let (hubs, orders) = (Render::of("embedded"), Render::of("orders"));
    let authority = Authority::new();
    let given = Given::from([
        issuers(),
        ("hub-tls".to_owned(), secret(&authority, &["localhost".to_owned()])),
        ("orders-tollgate-tls".to_owned(), secret(&authority, &["spiffe://example.org/sidecar".to_owned()])),
    ]);
    let hub = hubs.pod("demo-tollgate-hub").start(&given, &[]);
    let pod = orders.pod("orders");
    let address = |number| format!("https://tollgate-hub-{number}.tollgate-hub-pods.data.svc:9194");
    let sidecar = pod.start(&given, &[(&address(0), at(&hub)), (&address(1), at(&hub))]);
    probed(&pod, &sidecar).await;
    // Where Envoy finds it: the socket of its configuration, in the volume that both mount.
    let envoy = orders.object("ConfigMap", "orders-envoy").unwrap()["data"]["envoy.yaml"].as_str().unwrap();
    let (_, rest) = envoy.split_once("pipe: {path: ").unwrap();
    let socket = sidecar.site().path(rest.split('}').next().unwrap().trim_start_matches('/'));
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel: Channel =
        Endpoint::from_static("http://sidecar").connect_with_connector(connect).await.unwrap();
    let answer = Client::new(channel).check(ask(&issuer().license("license-1"))).await.unwrap().into_inner();
    assert!(is_allowed(&answer), "{answer:?}");
    // Nobody in the pod is left to wait for.
    let begun = Instant::now();
    assert_eq!(sidecar.stop().await.code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_knows_both_hubs_over_postgres_and_goes_on_when_one_is_lost() {
    let Some(server) = server() else { return };
    let render = Render::of("mesh");
    let given =
        Given::from([issuers(), ("db-app".to_owned(), vec![("password".to_owned(), "hunter2".to_owned())])]);
    let database = format!("postgres://postgres@127.0.0.1:{}/{}", server.port, server.database());
    let (hub_pod, gate_pod) = (render.pod("demo-tollgate-hub"), render.pod("demo-tollgate-gate"));
    let hub = || hub_pod.start(&given, &[("postgres://tollgate@db/tollgate", database.clone())]);
    let address = |number| format!("http://demo-tollgate-hub-{number}.demo-tollgate-hub-pods.data.svc:9194");
    let at = |hub: &Gate| format!("http://127.0.0.1:{}", hub.hub.port());
    // Either is lost, since which of them the gate uses is its own affair.
    for lost in 0..2 {
        let mut hubs = vec![hub(), hub()];
        let gate = gate_pod.start(&given, &[(&address(0), at(&hubs[0])), (&address(1), at(&hubs[1]))]);
        probed(&gate_pod, &gate).await;
        let id = format!("license-{lost}");
        let question = ask(&issuer().license(&id));
        assert!(is_allowed(&gate.check(question.clone()).await));
        drop(hubs.remove(lost));
        let suspend = ["suspend", "--license", &id, "--issuer", ISSUER, "--reason", "an invoice is open"];
        let output = hub_pod.exec(&hubs[0], &suspend).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = async || codes(&gate.check(question.clone()).await) == ["SUSPENDED"];
        eventually("it is suspended", told).await;
    }
}

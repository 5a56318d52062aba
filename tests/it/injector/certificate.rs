//! The certificate that an injector makes itself, at a real API server, by the rights that the chart gives it.
//!
//! Refuses to help it: what it may not do there, it cannot do here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tollgate::document::Document;

use super::webhook::{Injector, command, connect, write};
use super::{bare, golden, names, template_of};
use crate::gate::{PATIENCE, eventually, now, within};
use crate::kubernetes::Cluster;

/// The render in which it does so.
const RENDER: &str = "injector-alone";
const ACCOUNT: &str = "demo-tollgate-injector";
const KEPT: &str = "demo-tollgate-injector-tls";
const HOOK: &str = "demo-tollgate-injector.data";
const NAME: &str = "demo-tollgate-injector.data.svc";

/// It looks after its certificate every ten seconds, and waits once before it shows another.
const ROUNDS: Duration = Duration::from_secs(40);

/// An API server with what the chart installs there, and a namespace that asks for gates.
async fn installed() -> Option<Cluster> {
    let cluster = Cluster::start(&[ACCOUNT]).await?;
    let kinds = ["Secret", "Lease", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    for object in golden(RENDER) {
        let kind = object["kind"].as_str().unwrap();
        if kinds.contains(&kind) || kind == "MutatingWebhookConfiguration" {
            cluster.create(&object).await;
        }
    }
    // There are no pods behind services here, but there are names of other places.
    cluster
        .create(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": ACCOUNT},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }))
        .await;
    let labels = json!({"tollgate.dev/inject": "true", "kubernetes.io/metadata.name": "shop"});
    cluster
        .create(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}),
        )
        .await;
    Some(cluster)
}

/// What pods get; without its probes, which an API server that is older than native sidecars refuses.
fn template() -> String {
    let mut template = Document::parse("template", &template_of(RENDER)).unwrap().value().clone();
    template["container"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Probe"));
    template.to_string()
}

/// An injector of that cluster.
fn start(cluster: &Cluster) -> Injector {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "template.yaml", &template());
    let mut command = command(folder.path(), RENDER);
    command.env("KUBECONFIG", cluster.kubeconfig(ACCOUNT));
    Injector::run(folder, command)
}

async fn listening(injector: &Injector) -> SocketAddr {
    within(ROUNDS, "it listens", async || injector.address().is_some()).await;
    injector.address().unwrap()
}

fn hooks(cluster: &Cluster) -> Api<MutatingWebhookConfiguration> {
    Api::all(cluster.client.clone())
}

/// Whom API servers trust.
async fn trusted(cluster: &Cluster) -> String {
    let hook = hooks(cluster).get(HOOK).await.unwrap();
    let bundle = hook.webhooks.unwrap()[0].client_config.ca_bundle.clone().unwrap_or_default();
    String::from_utf8(bundle.0).unwrap()
}

/// Changes what API servers know of webhooks, which are told apart by their names.
async fn change(cluster: &Cluster, webhooks: Value) {
    let patch = Patch::Strategic(json!({"webhooks": webhooks}));
    hooks(cluster).patch(HOOK, &PatchParams::default(), &patch).await.unwrap();
}

/// Has them ask there.
async fn ask_at(cluster: &Cluster, address: SocketAddr) {
    let service = json!({"service": {"name": ACCOUNT, "namespace": "data", "port": address.port()}});
    change(cluster, json!([{"name": "inject.tollgate.dev", "clientConfig": service}])).await;
}

async fn kept(cluster: &Cluster) -> Secret {
    Api::namespaced(cluster.client.clone(), "data").get(KEPT).await.unwrap()
}

/// Makes a pod, and takes it away again.
async fn make(cluster: &Cluster, pod: &Value) -> Result<Pod, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let made = pods.create(&PostParams::default(), &serde_json::from_value(pod.clone()).unwrap()).await?;
    let name = made.metadata.name.as_deref().unwrap();
    pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    Ok(made)
}

/// Until the API server has heard of a change.
async fn until_made(cluster: &Cluster) {
    let mut last = None;
    let made = async {
        while let Err(error) = make(cluster, &pod()).await {
            last = Some(error);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let made = tokio::time::timeout(PATIENCE, made).await;
    assert!(made.is_ok(), "pods are not made: {last:?}");
}

fn has_gate(pod: &Pod) -> bool {
    let spec = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
    spec.get("initContainers").is_some_and(|containers| names(containers) == ["tollgate"])
}

fn pod() -> Value {
    bare(&json!({}), &json!({}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injectors_make_one_certificate_and_api_servers_trust_it() {
    let Some(cluster) = installed().await else { return };
    let refused = make(&cluster, &pod()).await.unwrap_err().to_string();
    assert!(
        refused.contains("failed calling webhook"),
        "nobody answers, so nobody is let through: {refused}"
    );

    let injectors = [start(&cluster), start(&cluster)];
    let addresses = [listening(&injectors[0]).await, listening(&injectors[1]).await];
    let bundle = trusted(&cluster).await;
    for address in addresses {
        assert!(connect(address, &bundle).is_some(), "both show what API servers trust");
    }
    let made =
        injectors.iter().map(|injector| injector.log.text().matches("a new certificate is made").count());
    assert_eq!(made.sum::<usize>(), 1);

    ask_at(&cluster, addresses[0]).await;
    until_made(&cluster).await;
    let wrong = bare(&json!({"annotations": {"tollgate.dev/hub": "x"}}), &json!({}));
    let kube::Error::Api(refusal) = make(&cluster, &wrong).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.code, 422);
    assert!(refusal.message.contains("tollgate.dev/hub: is not known"), "{}", refusal.message);

    // As when the configuration is laid anew by somebody who does not know of it.
    change(&cluster, json!([{"name": "inject.tollgate.dev", "clientConfig": {"caBundle": null}}])).await;
    within(ROUNDS, "they are told again", async || trusted(&cluster).await == bundle).await;
    until_made(&cluster).await;
    for injector in injectors {
        assert_eq!(injector.stop(), Some(0));
    }
}

/// A certificate that is about to end, as an injector of before left it; and who vouches for it.
fn ending() -> (Value, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    let end = jiff::Timestamp::from_second(now())
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .saturating_add(jiff::Span::new().days(20));
    let part = |number: i8| u8::try_from(number).unwrap();
    params.not_after = rcgen::date_time_ymd(end.year().into(), part(end.month()), part(end.day()));
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let parts = [
        ("tls.crt", certificate),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", authority.clone()),
        ("ca-before.crt", String::new()),
    ];
    let data = parts.map(|(name, text)| (name.to_owned(), json!(ByteString(text.into_bytes()))));
    (Value::Object(data.into_iter().collect()), authority)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_before_it_ends_and_no_pod_is_refused() {
    let Some(cluster) = installed().await else { return };
    let (data, before) = ending();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "data");
    secrets.patch(KEPT, &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await.unwrap();
    let bundle = ByteString(before.clone().into_bytes());
    change(&cluster, json!([{"name": "inject.tollgate.dev", "clientConfig": {"caBundle": bundle}}])).await;
    // Somebody leads, and is never heard of again.
    let spec = json!({"holderIdentity": "gone", "leaseDurationSeconds": 15, "renewTime": time()});
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(cluster.client.clone(), "data");
    leases.patch(KEPT, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();

    let injectors = [start(&cluster), start(&cluster)];
    let addresses = [listening(&injectors[0]).await, listening(&injectors[1]).await];
    for address in addresses {
        assert!(connect(address, &before).is_some(), "the one that is there is shown");
    }
    ask_at(&cluster, addresses[0]).await;
    until_made(&cluster).await;

    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        while !stop.load(Ordering::Relaxed) {
            let pod =
                make(&cluster, &pod()).await.unwrap_or_else(|error| panic!("after {made:?} pods: {error}"));
            assert!(has_gate(&pod));
            made.fetch_add(1, Ordering::Relaxed);
            // The API server keeps its connections: whoever comes anew must be served as well.
            let bundle = trusted(&cluster).await;
            for address in addresses {
                assert!(connect(address, &bundle).is_some(), "it shows what API servers do not trust");
            }
        }
    };
    let replaced = async {
        within(ROUNDS * 2, "both show another", async || {
            addresses.iter().all(|address| connect(*address, &before).is_none())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, replaced);
    assert!(made.into_inner() > 100);
    let after = trusted(&cluster).await;
    assert!(after.ends_with(&before), "who still shows the one of before is trusted");
    assert!(addresses.iter().all(|address| connect(*address, &after).is_some()));
    let kept = kept(&cluster).await.data.unwrap();
    assert_eq!(after.into_bytes(), [kept["ca.crt"].0.clone(), kept["ca-before.crt"].0.clone()].concat());
}

fn time() -> String {
    format!("{:.6}", jiff::Timestamp::from_second(now()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_somebody_else_is_left_alone() {
    let Some(cluster) = installed().await else { return };
    let data = json!({"data": {"password": ByteString(b"secret".to_vec())}});
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "data");
    secrets.patch(KEPT, &PatchParams::default(), &Patch::Merge(data)).await.unwrap();
    let injector = start(&cluster);
    let words = format!("Secret `{KEPT}`: holds what no injector put there");
    within(ROUNDS, "it says so", async || injector.log.text().contains(&words)).await;
    assert_eq!(injector.address(), None);
    assert_eq!(kept(&cluster).await.data.unwrap().keys().collect::<Vec<_>>(), ["password"]);
    secrets.patch(KEPT, &PatchParams::default(), &Patch::Merge(json!({"data": null}))).await.unwrap();
    listening(&injector).await;
}

#[tokio::test]
async fn without_an_api_server_it_waits_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "template.yaml", &template_of(RENDER));
    let nowhere = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "nowhere",
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
        "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
    });
    write(folder.path(), "nowhere.yaml", &nowhere.to_string());
    let mut command = command(folder.path(), RENDER);
    command.env("KUBECONFIG", folder.path().join("nowhere.yaml"));
    let injector = Injector::run(folder, command);
    eventually("it says so", async || {
        injector.log.text().contains(&format!("MutatingWebhookConfiguration `{HOOK}`"))
    })
    .await;
    assert_eq!(injector.address(), None);
    assert_eq!(injector.stop(), Some(0));
}

//! The injector from outside: real reviews over real TLS, by the template that the chart renders.

mod certificate;
mod webhook;

use serde_json::{Value, json};
use tollgate::config::sources;
use tollgate::document::Document;

use crate::docs::assert_current;
use crate::gate::{eventually, program};
use crate::order::root;
use webhook::{Outcome, Webhook, admit, answered, review};

/// The objects of a golden render of the chart.
fn golden(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(format!("helm/golden/{name}.yaml"))).unwrap();
    // Octal to Helm and Kubernetes, which read YAML 1.1 there.
    let text = text.replace("defaultMode: 0440", "defaultMode: 288");
    text.split("\n---\n").map(|text| Document::parse(name, text).unwrap().value().clone()).collect()
}

fn object(objects: &[Value], kind: &str, name: &str) -> Value {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    objects.iter().find(is_it).unwrap().clone()
}

/// The template as the chart renders it.
fn template() -> String {
    template_of("injector")
}

fn template_of(render: &str) -> String {
    let map = object(&golden(render), "ConfigMap", "demo-tollgate-injector");
    map["data"]["template.yaml"].as_str().unwrap().to_owned()
}

/// The pod of the example, which has its gate from the chart's templates.
fn included() -> Value {
    let template = object(&golden("orders"), "Deployment", "orders")["spec"]["template"].clone();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders"}});
    pod["metadata"].as_object_mut().unwrap().extend(template["metadata"].as_object().unwrap().clone());
    pod["spec"] = template["spec"].clone();
    pod
}

/// The same without it, and with what it then has to ask for.
fn orders() -> Value {
    let mut pod = included();
    let is_of_the_gate = |item: &Value| item["name"].as_str().unwrap().starts_with("tollgate");
    for list in ["/spec/initContainers", "/spec/volumes", "/spec/initContainers/0/volumeMounts"] {
        pod.pointer_mut(list).unwrap().as_array_mut().unwrap().retain(|item| !is_of_the_gate(item));
    }
    pod["metadata"]["annotations"] = json!({
        "tollgate.dev/config": "orders-tollgate-sidecar",
        "tollgate.dev/certificate": "orders-tollgate-tls",
        "tollgate.dev/containers": "envoy",
    });
    pod
}

/// The least of a pod, with these parts besides.
fn bare(metadata: &Value, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bare"},
        "spec": {"containers": [{"name": "app", "image": "registry.example.org/app:1.0.0"}]},
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        pod[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[test]
fn a_pod_gets_what_a_chart_would_include() {
    let webhook = Webhook::start(&template());
    let pod = webhook.patched(&orders());
    let mut expected = included();
    expected["metadata"]["annotations"] = pod["metadata"]["annotations"].clone();
    assert_eq!(pod, expected);
    assert_eq!(pod["metadata"]["annotations"]["tollgate.dev/injected"], "true");
    assert!(matches!(webhook.admit(&pod), Outcome::Same), "it was changed a second time");
    assert!(matches!(webhook.admit(&included()), Outcome::Same), "a gate that the pod brought along");

    let wishes = json!({"annotations": {"tollgate.dev/hubs": "https://hub-0:9194, https://hub-1:9194"}});
    let news = json!({"newInKubernetes": {"kept": true}, "initContainers": [{"name": "init"}], "securityContext": {"fsGroup": 7}});
    let pods = [
        pod,
        webhook.patched(&bare(&json!({}), &json!({"securityContext": {}}))),
        webhook.patched(&bare(&wishes, &news)),
    ];
    let begun_with = [(vec!["tollgate"], 65532), (vec!["tollgate", "init"], 7)];
    for (pod, (begun, group)) in pods[1..].iter().zip(begun_with) {
        assert_eq!(names(&pod["spec"]["initContainers"]), begun);
        assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
        let socket = json!([{"name": "tollgate-run", "mountPath": "/run/tollgate"}]);
        let others = pod["spec"]["initContainers"].as_array().unwrap().iter().skip(1);
        for container in others.chain(pod["spec"]["containers"].as_array().unwrap()) {
            assert_eq!(container["volumeMounts"], socket, "{container}");
        }
        assert_eq!(pod["spec"]["securityContext"], json!({"fsGroup": group}));
        assert!(matches!(webhook.admit(pod), Outcome::Same), "it was changed a second time");
    }
    assert_eq!(pods[2]["spec"]["newInKubernetes"], news["newInKubernetes"]);
    assert_eq!(hubs(&pods[2]), ["https://hub-0:9194", "https://hub-1:9194"]);

    // Kubernetes knows neither that pod's new part nor an image that is none.
    let shown = pods[..2].iter().map(|pod| serde_json::to_string_pretty(pod).unwrap() + "\n");
    assert_current("helm/checks/injected.yaml", &shown.collect::<Vec<_>>().join("---\n"));
}

/// The hubs of the gate in a pod, as a gate reads them.
fn hubs(pod: &Value) -> Vec<String> {
    let map = object(&golden("orders"), "ConfigMap", "orders-tollgate-sidecar");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.yaml");
    std::fs::write(&file, map["data"]["tollgate.yaml"].as_str().unwrap()).unwrap();
    let variables = pod["spec"]["initContainers"][0]["env"].as_array().unwrap().iter();
    let said = variables.filter_map(|variable| {
        Some((variable["name"].as_str()?.to_owned(), variable["value"].as_str()?.to_owned()))
    });
    let said = said.filter(|(name, _)| name.contains("HUB"));
    sources::load(Some(&file), said, &[]).unwrap().state.hub.unwrap().addresses
}

#[test]
fn what_other_webhooks_add_comes_after_the_gate_and_gets_the_socket() {
    let webhook = Webhook::start(&template());
    let mut pod = webhook.patched(&bare(&json!({}), &json!({})));
    let mesh = json!({"name": "istio-proxy", "image": "mesh", "restartPolicy": "Always"});
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, mesh);
    let Outcome::Patched(pod, steps) = webhook.admit(&pod) else { panic!("{pod}") };
    assert_eq!(names(&pod["spec"]["initContainers"]), ["tollgate", "istio-proxy"]);
    assert_eq!(names(&pod["spec"]["initContainers"][1]["volumeMounts"]), ["tollgate-run"]);
    assert_eq!(steps, 2);
    assert!(matches!(webhook.admit(&pod), Outcome::Same));

    // One that is named may come later; whoever makes the pod hears of it, since it may be misspelled.
    let later = json!({"annotations": {"tollgate.dev/containers": "istio-proxy"}});
    let asked = review(&bare(&later, &json!({})));
    let said = answered(&webhook.client().post("/inject", &[], &asked), &asked);
    assert!(said["warnings"][0].as_str().unwrap().contains("`istio-proxy`"), "{said}");
}

#[test]
fn a_pod_may_go_without_and_else_what_stands_in_the_way_refuses_it() {
    let webhook = Webhook::start(&template());
    for part in ["labels", "annotations"] {
        let out = bare(&json!({part: {"tollgate.dev/inject": "false"}}), &json!({"hostNetwork": true}));
        assert!(matches!(webhook.admit(&out), Outcome::Same), "{part}");
    }
    let annotated = |key: &str, value: &str| bare(&json!({"annotations": {key: value}}), &json!({}));
    let with = |spec: Value| bare(&json!({}), &spec);
    let app = |more: Value| {
        let mut container = json!({"name": "app"});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"containers": [container]})
    };
    let cases = [
        (annotated("tollgate.dev/inject", "maybe"), "tollgate.dev/inject: `maybe` is neither"),
        (annotated("tollgate.dev/config", "No_Name"), "tollgate.dev/config: `No_Name` is no name"),
        (annotated("tollgate.dev/certificate", ""), "tollgate.dev/certificate: `` is no name"),
        (annotated("tollgate.dev/hubs", "hub:9194"), "tollgate.dev/hubs: `hub:9194` is no list of addresses"),
        (annotated("tollgate.dev/containers", "a,,b"), "tollgate.dev/containers: `a,,b` is no list"),
        (annotated("tollgate.dev/conifg", "x"), "tollgate.dev/conifg: is not known; known are"),
        (with(json!({"hostNetwork": true})), "hostNetwork: "),
        (with(json!({"volumes": [{"name": "tollgate-run"}]})), "volume `tollgate-run` has the name of one"),
        (
            with(json!({"containers": [{"name": "tollgate"}]})),
            "container `tollgate` has the name of the gate",
        ),
        (with(json!({"initContainers": [{"name": "tollgate"}]})), "container `tollgate` has the name"),
        (with(app(json!({"ports": [{"containerPort": 9193}]}))), "container `app` has port 9193"),
        (
            with(app(json!({"volumeMounts": [{"name": "own", "mountPath": "/run/tollgate"}]}))),
            "container `app` mounts `own` at `/run/tollgate`",
        ),
    ];
    for (pod, words) in &cases {
        match webhook.admit(pod) {
            Outcome::Refused(said) => assert!(said.contains(words), "{said}\nnot: {words}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    // Another protocol is another port; and all that is wrong is told at once.
    let udp = app(json!({"ports": [{"containerPort": 9193, "protocol": "UDP"}]}));
    assert!(matches!(webhook.admit(&with(udp)), Outcome::Patched(..)));
    let twice = with(json!({"hostNetwork": true, "volumes": [{"name": "tollgate-run"}]}));
    let Outcome::Refused(said) = webhook.admit(&twice) else { panic!("it was let go") };
    assert!(said.contains("hostNetwork") && said.contains("tollgate-run"), "{said}");
}

#[test]
fn what_is_no_review_of_a_new_pod_is_a_bad_request() {
    let webhook = Webhook::start(&template());
    assert!(!webhook.speaks_plainly());
    let good = review(&bare(&json!({}), &json!({})));
    let changed = |pointer: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review
    };
    let cases = [
        (json!({}), "no AdmissionReview"),
        (json!([1]), "no AdmissionReview"),
        (changed("/apiVersion", json!("admission.k8s.io/v1beta1")), "apiVersion `admission.k8s.io/v1beta1`"),
        (changed("/request", json!(null)), "no request"),
        (changed("/request/object", json!(null)), "no request with a pod"),
        (changed("/request/object/spec", json!(null)), "no request with a pod and its spec"),
        (changed("/request/object/spec/containers", json!("none")), "no AdmissionReview"),
        (changed("/request/operation", json!("UPDATE")), "only the CREATE"),
        (changed("/request/resource/resource", json!("deployments")), "only the CREATE"),
    ];
    let mut client = webhook.client();
    for (review, words) in &cases {
        let reply = client.post("/inject", &[], review);
        assert!(
            reply.status == 400 && reply.body.contains(words),
            "{}: {}\n{review}",
            reply.status,
            reply.body
        );
    }
    assert_eq!(client.send("POST /inject", &[], b"{\"apiVersion\": ").status, 400);
    assert_eq!(client.get("/inject", &[]).status, 405);
    assert_eq!(client.get("/", &[]).status, 404);
    assert_eq!(client.get("/healthz", &[]).body, "ok\n");
    // Too large by its last byte, so that all of it is read before the answer.
    assert_eq!(client.send("POST /inject", &[], &vec![b' '; (4 << 20) + 1]).status, 413);
    assert!(matches!(webhook.admit(&bare(&json!({}), &json!({}))), Outcome::Patched(..)));
}

#[tokio::test]
async fn template_and_certificate_change_while_it_serves() {
    let mut webhook = Webhook::start(&template());
    let pod = bare(&json!({}), &json!({}));
    let image = |webhook: &Webhook| webhook.patched(&pod)["spec"]["initContainers"][0]["image"].clone();
    let mut long_lived = webhook.client();
    assert!(matches!(admit(&mut long_lived, &pod), Outcome::Patched(..)));
    let old = webhook.rotate();
    eventually("the new certificate is shown", async || webhook.shows_the_newest()).await;
    assert!(webhook.connect(&old).is_none(), "the old certificate is still shown");
    assert!(matches!(admit(&mut long_lived, &pod), Outcome::Patched(..)));

    webhook.write("template.yaml", &template().replace("tollgate:0.1.0", "tollgate:next"));
    eventually("the new template is in force", async || image(&webhook) == "tollgate:next").await;
    webhook.write("template.yaml", "container: 1\n");
    eventually("it is told", async || webhook.injector.log.find("a new template is refused").is_some()).await;
    assert_eq!(image(&webhook), "tollgate:next", "the one before stays in force");
    drop(long_lived);
    assert_eq!(webhook.injector.stop(), Some(0));
}

#[test]
fn it_does_not_start_on_files_that_are_wrong() {
    let changed = |from: &str, to: &str| {
        assert!(template().contains(from), "{from}");
        template().replace(from, to)
    };
    let cases = [
        ("# nothing\n".to_owned(), "template.yaml: expected a mapping"),
        (changed("fsGroup:", "fsGruop:"), "fsGruop: unknown key; did you mean `fsGroup`?"),
        (changed("memory: 256Mi", "memory: [1]"), "container.resources.limits.memory: "),
        (changed("readOnlyRootFilesystem", "readOnlyRootFileSystem"), "readOnlyRootFileSystem: unknown key"),
        (
            changed("restartPolicy: Always", "restartPolicy: Never"),
            "container.restartPolicy: must be `Always`",
        ),
        (changed("- emptyDir:\n    sizeLimit: 1Mi\n  name: tollgate-run\n", ""), "is none of `volumes`"),
        (
            changed("mounts:\n- mountPath: /run/tollgate", "mounts:\n- mountPath: /run"),
            "mounts[0]: the gate does not mount `tollgate-run` at `/run`",
        ),
        (changed("mounts:\n- mountPath: /run/tollgate\n  name: tollgate-run", "mounts: []"), "mounts: "),
    ];
    for (template, words) in cases {
        let output = Webhook::refuses(&template, "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(64) && said.contains(words), "{said}\nnot: {words}");
        assert!(said.contains("template.yaml"), "{said}");
    }
    let output = Webhook::refuses(&template(), "no key at all");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(64) && said.contains("tls.key"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let help = program(folder.path(), &["injector", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Example:"));
}

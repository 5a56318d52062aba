//! From a pod and the template to what changes in the pod: a pure function.
//!
//! Only adds and moves, so that what is not known here of pods stays. Refuses a pod in which the place of something is
//! taken. A pod as it leaves here has nothing left to change.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, MoveOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::template::{ALWAYS, Template, is_same};
use super::wishes::{INJECTED, Wishes};
use super::{Refusal, wishes};

/// The volumes of the template that pods may have from elsewhere.
const CONFIG: &str = "tollgate-config";
const CERTIFICATE: &str = "tollgate-tls";

/// By which a gate is told of its hubs.
const HUBS: &str = "TOLLGATE__STATE__HUB__ADDRESSES";

/// What changes in a pod.
#[derive(Debug, Default)]
pub(super) struct Injection {
    pub(super) patch: Patch,
    /// For whoever makes the pod.
    pub(super) warnings: Vec<String>,
}

/// What changes in a pod, and what stands in the way.
#[derive(Default)]
struct Work {
    operations: Vec<PatchOperation>,
    wrong: Vec<String>,
}

/// What changes in the pod.
pub(super) fn inject(pod: &ObjectMeta, spec: &PodSpec, template: &Template) -> Result<Injection, Refusal> {
    let Some(wishes) = Wishes::of(pod)? else { return Ok(Injection::default()) };
    let at = spec.init_containers.iter().flatten().position(|container| is_gate(container, template));
    if at.is_some() && !is_marked(pod) {
        // The pod brought it along, and with it whatever belongs to it.
        return Ok(Injection::default());
    }
    let mut work = Work::default();
    // First: later the containers have other places. A gate that is there has its socket.
    for (list, containers) in
        [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&*spec.containers))]
    {
        for (index, container) in containers.unwrap_or_default().iter().enumerate() {
            let asks = wishes.containers.as_ref().is_none_or(|names| names.contains(&container.name));
            if asks {
                work.mount(&["spec", list, &index.to_string()], container, template);
            }
        }
    }
    match at {
        None => {
            work.clashes(spec, template);
            let template = work.granted(template, &wishes);
            work.add_gate(pod, spec, &template);
        }
        // Something was put before it meanwhile.
        Some(index @ 1..) => work.operations.push(PatchOperation::Move(MoveOperation {
            from: pointer(&["spec", "initContainers", &index.to_string()]),
            path: pointer(&["spec", "initContainers", "0"]),
        })),
        Some(0) => {}
    }
    if !work.wrong.is_empty() {
        return Err(Refusal(work.wrong));
    }
    Ok(Injection { patch: Patch(work.operations), warnings: missing(&wishes, spec) })
}

/// Whether it is a gate like that of the template, of whatever version.
fn is_gate(container: &Container, template: &Template) -> bool {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    container.name == template.container.name
        && container.restart_policy.as_deref() == Some(ALWAYS)
        && template.mounts.iter().all(|socket| mounts.iter().any(|mount| is_same(mount, socket)))
}

fn is_marked(pod: &ObjectMeta) -> bool {
    pod.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(INJECTED))
}

/// Names of containers that may be wrong; or a container comes from another webhook, later.
fn missing(wishes: &Wishes, spec: &PodSpec) -> Vec<String> {
    let containers = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let is_there = |name: &&String| containers().any(|container| container.name == **name);
    let missing = wishes.containers.iter().flatten().filter(|name| !is_there(name));
    missing
        .map(|name| format!("no container of the pod is named `{name}`, so none of that name asks the gate"))
        .collect()
}

fn volume<'a>(template: &'a mut Template, name: &str) -> Option<&'a mut Volume> {
    template.volumes.iter_mut().find(|volume| volume.name == name)
}

impl Work {
    /// The template with what the pod wishes.
    fn granted(&mut self, template: &Template, wishes: &Wishes) -> Template {
        let mut granted = template.clone();
        if let Some(name) = &wishes.config {
            match volume(&mut granted, CONFIG).and_then(|volume| volume.config_map.as_mut()) {
                Some(config) => config.name.clone_from(name),
                None => {
                    self.wrong.push(format!("{}: the template has no ConfigMap for that", wishes::CONFIG));
                }
            }
        }
        if let Some(name) = &wishes.certificate {
            match volume(&mut granted, CERTIFICATE).and_then(|volume| volume.secret.as_mut()) {
                Some(secret) => secret.secret_name = Some(name.clone()),
                None => {
                    self.wrong.push(format!("{}: the template has no Secret for that", wishes::CERTIFICATE));
                }
            }
        }
        if let Some(hubs) = &wishes.hubs {
            let env = granted.container.env.get_or_insert_default();
            env.retain(|variable| variable.name != HUBS);
            env.push(EnvVar {
                name: HUBS.to_owned(),
                value: Some(json!(hubs).to_string()),
                value_from: None,
            });
        }
        granted
    }

    /// The socket in a container.
    fn mount(&mut self, at: &[&str], container: &Container, template: &Template) {
        let there = container.volume_mounts.as_deref().unwrap_or_default();
        let mut more = Vec::new();
        for socket in &template.mounts {
            match there.iter().find(|mount| mount.mount_path == socket.mount_path) {
                None => more.push(json!(socket)),
                Some(mount) if is_same(mount, socket) => {}
                Some(mount) => self.wrong.push(format!(
                    "container `{}` mounts `{}` at `{}`, where the gate's socket belongs",
                    container.name, mount.name, mount.mount_path
                )),
            }
        }
        self.append(&[at, &["volumeMounts"]].concat(), container.volume_mounts.is_some(), more);
    }

    /// What stands in the way of a gate.
    fn clashes(&mut self, spec: &PodSpec, template: &Template) {
        let gate = &template.container;
        if spec.host_network == Some(true) {
            self.wrong.push(
                "hostNetwork: the gate tells how it fares without TLS, which is for the pod's own network"
                    .to_owned(),
            );
        }
        let ports = |container: &Container| container.ports.clone().unwrap_or_default();
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            if container.name == gate.name {
                self.wrong.push(format!("container `{}` has the name of the gate, and is none", gate.name));
            }
            let taken = ports(gate)
                .into_iter()
                .filter(|port| ports(container).iter().any(|other| collide(port, other)));
            self.wrong.extend(taken.map(|port| {
                format!(
                    "container `{}` has port {}, which is the gate's",
                    container.name, port.container_port
                )
            }));
        }
        let taken = |volume: &&Volume| template.volumes.iter().any(|own| own.name == volume.name);
        let taken = spec.volumes.iter().flatten().filter(taken);
        self.wrong.extend(
            taken.map(|volume| format!("volume `{}` has the name of one of the gate's", volume.name)),
        );
    }

    /// The gate, first of all; its volumes; the group of its files; and the mark.
    fn add_gate(&mut self, pod: &ObjectMeta, spec: &PodSpec, template: &Template) {
        match spec.init_containers {
            Some(_) => self.add(&["spec", "initContainers", "0"], json!(template.container)),
            None => self.add(&["spec", "initContainers"], json!([template.container])),
        }
        let volumes = template.volumes.iter().map(|volume| json!(volume)).collect();
        self.append(&["spec", "volumes"], spec.volumes.is_some(), volumes);
        match (template.fs_group, &spec.security_context) {
            (Some(group), None) => self.add(&["spec", "securityContext"], json!({"fsGroup": group})),
            (Some(group), Some(context)) if context.fs_group.is_none() => {
                self.add(&["spec", "securityContext", "fsGroup"], json!(group));
            }
            _ => {}
        }
        match pod.annotations {
            Some(_) => self.add(&["metadata", "annotations", INJECTED], json!("true")),
            None => self.add(&["metadata", "annotations"], json!({INJECTED: "true"})),
        }
    }

    fn add(&mut self, path: &[&str], value: Value) {
        self.operations.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    /// Items at the end of a list that may not be there.
    fn append(&mut self, list: &[&str], is_there: bool, items: Vec<Value>) {
        if is_there {
            for item in items {
                self.add(&[list, &["-"]].concat(), item);
            }
        } else if !items.is_empty() {
            self.add(list, items.into());
        }
    }
}

/// Whether two containers of one pod cannot have both.
fn collide(one: &ContainerPort, other: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let on_node = one.host_port.is_some() && one.host_port == other.host_port;
    protocol(one) == protocol(other) && (one.container_port == other.container_port || on_node)
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

//! What a pod wishes, by its annotations.
//!
//! Refuses a wish that it does not know or understand, with all others: a pod must not run by less than it asked for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Refusal;

const PREFIX: &str = "tollgate.dev/";

/// Whether the pod is to have a gate; as a label too, by which Kubernetes need not even ask.
const INJECT: &str = "tollgate.dev/inject";
pub(super) const CONFIG: &str = "tollgate.dev/config";
pub(super) const CERTIFICATE: &str = "tollgate.dev/certificate";
const HUBS: &str = "tollgate.dev/hubs";
const CONTAINERS: &str = "tollgate.dev/containers";

/// Not a wish: the injector was here.
pub(super) const INJECTED: &str = "tollgate.dev/injected";

/// The longest name of a ConfigMap or Secret.
const MAX_NAME: usize = 253;

/// What a pod wishes of its gate.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// The ConfigMap with `tollgate.yaml`.
    pub(super) config: Option<String>,
    /// The Secret with the certificate: who the gate is.
    pub(super) certificate: Option<String>,
    /// Addresses of its hubs.
    pub(super) hubs: Option<Vec<String>>,
    /// The containers that get the socket.
    pub(super) containers: Option<Vec<String>>,
}

impl Wishes {
    /// Reads them; none where the pod wishes no gate.
    pub(super) fn of(pod: &ObjectMeta) -> Result<Option<Self>, Refusal> {
        let mut wishes = Self::default();
        let mut wrong = Vec::new();
        let mut wanted = true;
        let labelled = pod.labels.iter().flatten().filter(|(key, _)| *key == INJECT);
        let annotated = pod.annotations.iter().flatten().filter(|(key, _)| key.starts_with(PREFIX));
        for (key, value) in labelled.chain(annotated) {
            let read = match key.as_str() {
                INJECT => flag(value).map(|said| wanted &= said),
                CONFIG => name(value).map(|name| wishes.config = Some(name)),
                CERTIFICATE => name(value).map(|name| wishes.certificate = Some(name)),
                HUBS => hubs(value).map(|hubs| wishes.hubs = Some(hubs)),
                CONTAINERS => list(value).map(|names| wishes.containers = Some(names)),
                INJECTED => Ok(()),
                _ => Err(format!(
                    "is not known; known are `{INJECT}`, `{CONFIG}`, `{CERTIFICATE}`, `{HUBS}`, `{CONTAINERS}`"
                )),
            };
            wrong.extend(read.err().map(|message| format!("{key}: {message}")));
        }
        if wrong.is_empty() { Ok(wanted.then_some(wishes)) } else { Err(Refusal(wrong)) }
    }
}

fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("`{value}` is neither `true` nor `false`"))
}

fn name(value: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let is_name = (1..=MAX_NAME).contains(&value.len()) && value.chars().all(allowed);
    is_name
        .then(|| value.to_owned())
        .ok_or_else(|| format!("`{value}` is no name of an object, such as `orders-gate`"))
}

fn list(value: &str) -> Result<Vec<String>, String> {
    let parts: Vec<String> = value.split(',').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        return Err(format!("`{value}` is no list of names, such as `envoy, app`"));
    }
    Ok(parts)
}

fn hubs(value: &str) -> Result<Vec<String>, String> {
    let is_address = |text: &String| {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic()))
    };
    list(value).ok().filter(|addresses| addresses.iter().all(is_address)).ok_or_else(|| {
        format!("`{value}` is no list of addresses, such as `https://hub-0:9194, https://hub-1:9194`")
    })
}

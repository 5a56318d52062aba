//! A pod of a rendered chart, started as the kubelet would: its files where they are mounted, its arguments, its variables.
//!
//! Paths begin in a folder of the test's, ports are free ones, and nothing else differs. Refuses volumes that it does not
//! know, and files that nobody gave.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tollgate::document::Document;

use crate::gate::{Gate, Site, program};
use crate::order::root;

/// Where pods have files.
const PLACES: [&str; 3] = ["/etc/tollgate", "/run/tollgate", "/var/lib/tollgate"];

/// What the cluster has beside the chart's own: files by the name of their ConfigMap or Secret.
pub(super) type Given = BTreeMap<String, Vec<(String, String)>>;

/// The objects of one golden render.
pub(super) struct Render {
    pub(super) name: String,
    pub(super) objects: Vec<Value>,
}

impl Render {
    pub(super) fn of(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(format!("helm/golden/{name}.yaml"))).unwrap();
        let documents =
            text.split("\n---\n").map(|text| Document::parse(name, text).unwrap().value().clone());
        let objects: Vec<Value> = documents.filter(|object| !object.is_null()).collect();
        assert!(!objects.is_empty());
        Self { name: name.to_owned(), objects }
    }

    /// Every golden render.
    pub(super) fn all() -> Vec<Self> {
        let files = std::fs::read_dir(root().join("helm/golden")).unwrap().map(|file| file.unwrap().path());
        files.map(|file| Self::of(file.file_stem().unwrap().to_str().unwrap())).collect()
    }

    pub(super) fn object(&self, kind: &str, name: &str) -> Option<&Value> {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects.iter().find(is_it)
    }

    /// The gates in the pods that it has: each by the name of what makes the pods.
    pub(super) fn pods(&self) -> Vec<Pod<'_>> {
        let found = self.objects.iter().filter_map(|object| {
            let spec = object.pointer("/spec/template/spec")?;
            let containers = ["containers", "initContainers"].iter().filter_map(|list| spec[list].as_array());
            let container = containers.flatten().find(|container| container["name"] == "tollgate")?;
            let name = object["metadata"]["name"].as_str()?;
            Some(Pod { render: self, name: name.to_owned(), spec, container })
        });
        found.collect()
    }

    pub(super) fn pod(&self, name: &str) -> Pod<'_> {
        self.pods().into_iter().find(|pod| pod.name == name).unwrap()
    }
}

/// A gate in a pod.
pub(super) struct Pod<'a> {
    render: &'a Render,
    pub(super) name: String,
    spec: &'a Value,
    pub(super) container: &'a Value,
}

impl Pod<'_> {
    /// The folders that it mounts.
    pub(super) fn mounts(&self) -> impl Iterator<Item = (&str, &str)> {
        let mounts = self.container["volumeMounts"].as_array().into_iter().flatten();
        mounts.map(|mount| (mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap()))
    }

    /// Its configuration, as the chart wrote it; nothing where that is somebody else's.
    pub(super) fn config(&self) -> Option<&str> {
        let mut volumes = self.spec["volumes"].as_array()?.iter();
        let volume = volumes.find(|volume| volume["name"] == "tollgate-config")?;
        self.render.object("ConfigMap", volume["configMap"]["name"].as_str()?)?["data"]["tollgate.yaml"]
            .as_str()
    }

    /// The variables that it starts with, in a pod named `pod-0` of the namespace `test`.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let mut known: Vec<(String, String)> = Vec::new();
        for variable in self.container["env"].as_array().into_iter().flatten() {
            let value = match variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
                Some("metadata.name") => "pod-0".to_owned(),
                Some("metadata.namespace") => "test".to_owned(),
                Some(field) => panic!("{field} is not known here"),
                None => variable["value"].as_str().unwrap().to_owned(),
            };
            let expand =
                |value: String, (name, known): &(String, String)| value.replace(&format!("$({name})"), known);
            let value = known.iter().fold(value, expand);
            known.push((variable["name"].as_str().unwrap().to_owned(), value));
        }
        known
    }

    /// Starts it; the cluster's addresses lead to others here.
    pub(super) fn start(&self, given: &Given, leads: &[(&str, String)]) -> Gate {
        let site = Site::new();
        // Nothing of another configuration.
        std::fs::remove_dir_all(site.path("keys")).unwrap();
        std::fs::remove_file(site.path("tollgate.yaml")).unwrap();
        for (volume, path) in self.mounts() {
            let folder = path.trim_start_matches('/');
            std::fs::create_dir_all(site.path(folder)).unwrap();
            for (name, content) in self.files(volume, given) {
                let content =
                    if folder == "etc/tollgate/config" { here(&site, &content, leads) } else { content };
                site.write(&format!("{folder}/{name}"), &content);
            }
        }
        let arguments = self.container["args"].as_array().unwrap().iter();
        let arguments: Vec<String> = arguments.map(|text| moved(&site, text.as_str().unwrap())).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = program(&site.path(""), &arguments);
        command.envs(self.variables().into_iter().map(|(name, value)| (name, moved(&site, &value))));
        Gate::run(site, command)
    }

    /// `kubectl exec` in it.
    pub(super) fn exec(&self, gate: &Gate, arguments: &[&str]) -> Command {
        let mut command = program(&gate.site().path(""), arguments);
        command.envs(self.variables().into_iter().map(|(name, value)| (name, moved(gate.site(), &value))));
        command
    }

    /// The files of a volume, by their names in it.
    fn files(&self, volume: &str, given: &Given) -> Vec<(String, String)> {
        let claimed = volume == "data";
        let mut volumes = self.spec["volumes"].as_array().into_iter().flatten();
        let Some(found) = volumes.find(|found| found["name"] == volume) else {
            assert!(claimed, "{}: no volume `{volume}`", self.name);
            return Vec::new();
        };
        if found.get("emptyDir").is_some() {
            return Vec::new();
        }
        match found.pointer("/projected/sources").and_then(Value::as_array) {
            Some(sources) => sources.iter().flat_map(|source| self.source(source, given)).collect(),
            None => self.source(found, given),
        }
    }

    fn source(&self, source: &Value, given: &Given) -> Vec<(String, String)> {
        let source = source.get("configMap").or(source.get("secret")).expect("a ConfigMap or a Secret");
        let name = source["name"].as_str().or(source["secretName"].as_str()).unwrap();
        let own = self.render.object("ConfigMap", name).and_then(|map| map["data"].as_object());
        let files = match own {
            Some(data) => {
                data.iter().map(|(key, text)| (key.clone(), text.as_str().unwrap().to_owned())).collect()
            }
            None => given.get(name).unwrap_or_else(|| panic!("{}: nobody gave `{name}`", self.name)).clone(),
        };
        let Some(items) = source["items"].as_array() else { return files };
        let picked = items.iter().map(|item| {
            let (_, text) = files.iter().find(|(key, _)| item["key"] == *key).expect("the key of an item");
            (item["path"].as_str().unwrap().to_owned(), text.clone())
        });
        picked.collect()
    }
}

/// A text with the pod's paths in the site's folder.
fn moved(site: &Site, text: &str) -> String {
    let to = |place: &str| site.path(place.trim_start_matches('/')).display().to_string();
    PLACES.iter().fold(text.to_owned(), |text, place| text.replace(place, &to(place)))
}

/// A configuration for this machine: its paths, free ports, and what addresses lead to.
fn here(site: &Site, config: &str, leads: &[(&str, String)]) -> String {
    let config = leads.iter().fold(moved(site, config), |config, (address, here)| {
        assert!(config.contains(address), "nobody asks for {address}");
        config.replace(address, here)
    });
    let free = |line: &str| match line.split_once("tcp: 0.0.0.0:") {
        Some((indent, _)) => format!("{indent}tcp: 0.0.0.0:0"),
        None => line.to_owned(),
    };
    config.lines().map(free).collect::<Vec<_>>().join("\n")
}

/// A path below a folder that the pod mounts.
pub(super) fn is_mounted(pod: &Pod<'_>, path: &str) -> bool {
    pod.mounts().any(|(_, mount)| PathBuf::from(path).starts_with(mount))
}

//! The template: what is put into pods, as whoever runs the injector wrote it.
//!
//! Refuses a template by which no pod could run, and every key that Kubernetes does not know. A bad one that comes while
//! the injector serves leaves the one in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Container, Volume, VolumeMount};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{Document, Problem, Problems};

/// What makes a container a native sidecar, which starts before what comes after it and stops after that.
pub(super) const ALWAYS: &str = "Always";

/// What is put into pods. The parts are those of `core/v1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Template {
    /// The gate.
    #[schemars(with = "Map<String, Value>")]
    pub(super) container: Container,
    /// What the gate mounts, and its socket.
    #[schemars(with = "Vec<Map<String, Value>>")]
    pub(super) volumes: Vec<Volume>,
    /// What whoever asks the gate mounts: its socket.
    #[schemars(with = "Vec<Map<String, Value>>", length(min = 1))]
    pub(super) mounts: Vec<VolumeMount>,
    /// The group of socket and files, for pods that name none.
    #[serde(default)]
    pub(super) fs_group: Option<i64>,
}

impl Template {
    /// Reads the text of a template; `origin` names it in problems.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let document = Document::parse(origin, text)?;
        let template: Self = document.decode()?;
        let mut problems = document.dropped(&template);
        problems.extend(template.contradictions(&document));
        if problems.is_empty() { Ok(template) } else { Err(problems.into()) }
    }

    /// What each part may say, and the whole may not.
    fn contradictions(&self, document: &Document) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.container.restart_policy.as_deref() != Some(ALWAYS) {
            let message =
                format!("must be `{ALWAYS}`: the gate runs beside the pod's containers, not before them");
            problems.push(document.problem("/container/restartPolicy", message));
        }
        let mounts = [
            ("/container/volumeMounts", self.container.volume_mounts.as_deref()),
            ("/mounts", Some(&self.mounts)),
        ];
        for (list, mounts) in mounts {
            for (index, mount) in mounts.unwrap_or_default().iter().enumerate() {
                if !self.volumes.iter().any(|volume| volume.name == mount.name) {
                    let message = format!("`{}` is none of `volumes`", mount.name);
                    problems.push(document.problem(&format!("{list}/{index}/name"), message));
                }
            }
        }
        let of_gate = self.container.volume_mounts.as_deref().unwrap_or_default();
        for (index, mount) in self.mounts.iter().enumerate() {
            if !of_gate.iter().any(|own| is_same(own, mount)) {
                let message = format!("the gate does not mount `{}` at `{}`", mount.name, mount.mount_path);
                problems.push(document.problem(&format!("/mounts/{index}"), message));
            }
        }
        problems
    }
}

/// Whether two containers have the same volume in the same place.
pub(super) fn is_same(mount: &VolumeMount, other: &VolumeMount) -> bool {
    mount.name == other.name && mount.mount_path == other.mount_path
}

/// The template in force, and the file that it comes from.
#[derive(Debug)]
pub(super) struct Templates {
    path: PathBuf,
    /// As it was last looked at, usable or not.
    seen: Mutex<String>,
    in_force: ArcSwap<Template>,
}

impl Templates {
    pub(super) fn load(path: &Path) -> Result<Self, Problems> {
        let text = read(path)?;
        let template = Template::parse(&path.display().to_string(), &text)?;
        Ok(Self { path: path.to_owned(), seen: Mutex::new(text), in_force: ArcSwap::from_pointee(template) })
    }

    pub(super) fn in_force(&self) -> Arc<Template> {
        self.in_force.load_full()
    }

    /// Takes the file into force if it changed since it was last looked at; says whether.
    pub(super) fn reload(&self) -> Result<bool, Problems> {
        let text = read(&self.path)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == text {
            return Ok(false);
        }
        seen.clone_from(&text);
        self.in_force.store(Arc::new(Template::parse(&self.path.display().to_string(), &text)?));
        Ok(true)
    }
}

fn read(path: &Path) -> Result<String, Problems> {
    let unreadable = |error| Problem::new(path.display().to_string(), format!("cannot be read: {error}"));
    std::fs::read_to_string(path).map_err(|error| unreadable(error).into())
}

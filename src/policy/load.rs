//! Reads the texts that make up a policy set: the built-in ones, overlaid by the operator's folder.
//!
//! Refuses to interpret them. A folder is read as one consistent state: through the
//! `..data` link of a Kubernetes volume where there is one, and again when it changed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::document::{Problem, Problems};
use crate::watch::steady_root;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");

/// The files of an operator's folder that replace a built-in file of the same name.
const REPLACEABLE: [&str; 4] =
    ["schema.cedarschema", "attributes.cedarschema", "purposes.json", "regions.json"];

/// The schema of administration: built-in, and not replaced.
const ADMINISTRATION_SCHEMA: &str = "administration/schema.cedarschema";

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The texts of one policy set, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// `schema.cedarschema`.
    pub schema: Text,
    /// `attributes.cedarschema`.
    pub attributes: Text,
    /// `purposes.json`.
    pub purposes: Text,
    /// `regions.json`.
    pub regions: Text,
    /// The catalog of datasets.
    pub catalog: Text,
    /// The policies, base first.
    pub policies: Vec<Text>,
    /// The built-in schema of administration.
    pub administration_schema: Text,
    /// The policies about administration, the built-in first.
    pub administration: Vec<Text>,
}

/// A text and where it came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file's path, or its name among the built-in ones.
    pub origin: String,
    /// The content.
    pub content: String,
}

impl Sources {
    /// The built-in texts.
    pub fn built_in() -> Self {
        let mut files = BTreeMap::new();
        collect_built_in(&BUILT_IN, &mut files);
        Self::assemble(files, BTreeMap::new(), None)
    }

    /// The built-in texts overlaid by those of `directory`, with the catalog at `catalog`.
    ///
    /// # Errors
    /// Names every file that could not be read.
    pub fn read(directory: Option<&Path>, catalog: Option<&Path>) -> Result<Self, Problems> {
        let mut built_in = BTreeMap::new();
        collect_built_in(&BUILT_IN, &mut built_in);
        let own = directory.map_or_else(|| Ok(BTreeMap::new()), read_steady)?;
        let catalog = catalog.map(read_text).transpose()?;
        Ok(Self::assemble(built_in, own, catalog))
    }

    fn assemble(
        mut built_in: BTreeMap<String, Text>,
        mut own: BTreeMap<String, Text>,
        catalog: Option<Text>,
    ) -> Self {
        let mut pick = |name: &str| {
            let built_in = built_in.remove(name);
            own.remove(name)
                .or(built_in)
                .unwrap_or_else(|| Text { origin: name.to_owned(), content: String::new() })
        };
        let [schema, attributes, purposes, regions] = REPLACEABLE.map(&mut pick);
        let default_catalog = pick("catalog.json");
        let administration_schema = pick(ADMINISTRATION_SCHEMA);
        let of_administration = |name: &str| name.starts_with("administration/") && name.ends_with(".cedar");
        let mut administration = Vec::new();
        for texts in [&mut built_in, &mut own] {
            let names: Vec<String> = texts.keys().filter(|name| of_administration(name)).cloned().collect();
            administration.extend(names.iter().filter_map(|name| texts.remove(name)));
        }
        let is_base = |name: &str| name.starts_with("base/") && name.ends_with(".cedar");
        if own.keys().any(|name| is_base(name)) {
            built_in.retain(|name, _| !is_base(name));
        }
        built_in.retain(|name, _| is_base(name));
        own.retain(|name, _| name.ends_with(".cedar"));
        let policies = built_in.into_values().chain(own.into_values()).collect();
        Self {
            schema,
            attributes,
            purposes,
            regions,
            catalog: catalog.unwrap_or(default_catalog),
            policies,
            administration_schema,
            administration,
        }
    }

    /// Whether `schema.cedarschema` is the built-in one.
    pub fn has_built_in_schema(&self) -> bool {
        let built_in = BUILT_IN.get_file("schema.cedarschema").and_then(|file| file.contents_utf8());
        built_in == Some(&self.schema.content)
    }

    /// A name for exactly these texts.
    pub fn revision(&self) -> String {
        let mut hash = Sha256::new();
        let fixed = [&self.schema, &self.attributes, &self.purposes, &self.regions, &self.catalog];
        for text in fixed.into_iter().chain(&self.policies).chain(&self.administration) {
            hash.update(text.content.len().to_be_bytes());
            hash.update(text.content.as_bytes());
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The ids in a built-in taxonomy, such as `purposes.json`.
pub fn built_in_names(file: &str) -> BTreeSet<String> {
    let text = BUILT_IN.get_file(file).and_then(|file| file.contents_utf8()).unwrap_or_default();
    let entities: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let id = |entity: &serde_json::Value| Some(entity.pointer("/uid/id")?.as_str()?.to_owned());
    entities.iter().filter_map(id).collect()
}

fn collect_built_in(dir: &Dir<'_>, files: &mut BTreeMap<String, Text>) {
    for file in dir.files() {
        if let (Some(name), Some(content)) = (file.path().to_str(), file.contents_utf8()) {
            let text = Text { origin: format!("policies/{name}"), content: content.to_owned() };
            files.insert(name.to_owned(), text);
        }
    }
    for dir in dir.dirs() {
        collect_built_in(dir, files);
    }
}

/// Reads the folder until it did not change while it was read.
fn read_steady(directory: &Path) -> Result<BTreeMap<String, Text>, Problems> {
    let mut before = read_folder(directory)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        let after = read_folder(directory)?;
        if after == before {
            return Ok(after);
        }
        before = after;
    }
    Err(problem(directory, "the folder keeps changing while it is read; replace it in one step"))
}

fn read_folder(directory: &Path) -> Result<BTreeMap<String, Text>, Problems> {
    let root = steady_root(directory);
    let mut files = BTreeMap::new();
    let walk = WalkDir::new(&root).follow_links(true).sort_by_file_name();
    let shown = |entry: &walkdir::DirEntry| entry.depth() == 0 || !starts_with_dot(entry.path());
    for entry in walk.into_iter().filter_entry(shown) {
        let entry = entry.map_err(|error| {
            let cause = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
            problem(
                error.path().unwrap_or(directory),
                &format!("the folder of policies cannot be read: {cause}"),
            )
        })?;
        let name = entry.path().strip_prefix(&root).unwrap_or(entry.path()).to_string_lossy().into_owned();
        if entry.file_type().is_file() && (name.ends_with(".cedar") || REPLACEABLE.contains(&name.as_str())) {
            let mut text = read_text(entry.path())?;
            text.origin = directory.join(&name).display().to_string();
            files.insert(name, text);
        }
    }
    Ok(files)
}

fn starts_with_dot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn read_text(path: &Path) -> Result<Text, Problems> {
    let unreadable = |error: std::io::Error| problem(path, &format!("the file cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE_BYTES {
        return Err(problem(path, &format!("the file has {size} bytes; at most {MAX_FILE_BYTES} are read")));
    }
    let content = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(Text { origin: path.display().to_string(), content })
}

fn problem(path: &Path, message: &str) -> Problems {
    Problems::from(Problem::new(path.display().to_string(), message))
}

//! The order of the house: which module may import which, and where big dependencies live.
//!
//! `src/lib.rs` tells the first, this file the second; the tests of the order and
//! `docs/architecture.md` read both from here.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// A dependency, or the generated code, that only some modules may name.
pub(crate) struct Home {
    /// How code names it.
    pub(crate) path: &'static str,
    /// The modules that may.
    pub(crate) modules: &'static [&'static str],
    /// What it does there.
    pub(crate) purpose: &'static str,
}

const fn home(path: &'static str, modules: &'static [&'static str], purpose: &'static str) -> Home {
    Home { path, modules, purpose }
}

/// Where big dependencies live.
pub(crate) const HOMES: &[Home] = &[
    home("cedar_policy::", &["policy"], "policies: parsing, validation, evaluation"),
    home("cedar_policy_core::", &["policy"], "entities and contexts that are known already"),
    home("miette::", &["policy"], "where in a text Cedar found a problem"),
    home("ed25519_dalek::", &["keyring", "license", "cases", "cli"], "signatures of licenses"),
    home("tonic::", &["grpc", "cli", "listener", "telemetry", "proto", "store"], "gRPC"),
    home("envoy_types::", &["grpc"], "the messages and services of Envoy"),
    home("crate::proto", &["grpc", "cli", "store"], "the generated messages"),
    home("async_stream::", &["grpc"], "answers of a stream, written as they come"),
    home("axum::", &["http", "injector"], "routes of the HTTP listener, and of the webhook"),
    home("kube::", &["injector"], "reviews of Kubernetes, and its API server"),
    home("kube_lease_manager::", &["injector"], "one injector of several"),
    home("rcgen::", &["injector", "listener", "grpc"], "certificates, made: by the injector, and by tests"),
    home("k8s_openapi::", &["injector"], "the parts of pods"),
    home("json_patch::", &["injector"], "what changes in a pod"),
    home("rustls::", &["injector", "listener", "store"], "TLS"),
    home("webpki::", &["listener"], "names in client certificates"),
    home("x509_cert::", &["listener"], "until when a certificate is good"),
    home("redb::", &["store"], "state in a file"),
    home("deadpool::", &["store"], "connections to PostgreSQL, kept open"),
    home("deadpool_postgres::", &["store"], "PostgreSQL"),
    home("tokio_postgres_rustls::", &["store"], "TLS to PostgreSQL"),
    home("rustls_native_certs::", &["store"], "the system's authorities"),
    home("backon::", &["store"], "trying again"),
    home("moka::", &["cache"], "caches bounded in bytes"),
    home("notify::", &["watch"], "changes of files"),
    home("serde_saphyr::", &["document", "config"], "YAML"),
    home("jsonschema::", &["document"], "what is wrong with a document, by its schema"),
    home("opentelemetry", &["telemetry"], "traces and metrics"),
    home("prometheus::", &["telemetry"], "the text format of metrics"),
    home("clap::", &["cli"], "arguments of the command line"),
    home("comfy_table::", &["cli"], "tables on a terminal"),
    home("csv::", &["cli"], "tables for spreadsheets"),
];

/// The folder of the crate.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The modules, line by line: each may import those of earlier lines; modules of one line never
/// import each other.
pub(crate) fn order() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let map = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let map: Vec<&str> =
        map.skip_while(|line| *line != "```text").skip(1).take_while(|line| *line != "```").collect();
    let names = |line: &str| line.trim_matches(['{', '}', ' ']).split(' ').map(str::to_owned).collect();
    map.join(" ").split('<').map(names).collect()
}

/// The Rust files of `src/`, by path below it, with their text.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let src = root().join("src");
    let files = WalkDir::new(&src).sort_by_file_name().into_iter().map(|entry| entry.unwrap().into_path());
    let rust = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    rust.map(|path| (path.strip_prefix(&src).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The top-level module of a file.
pub(crate) fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

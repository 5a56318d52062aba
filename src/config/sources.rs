//! Where the configuration comes from: a YAML file, environment variables over it, flags over both.
//!
//! Refuses a configuration with anything wrong in it, and then says everything that is wrong.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Config, rules};
use crate::document::{Document, Problem, Problems, Schema};

/// What every variable begins with; upper or lower case.
pub const PREFIX: &str = "TOLLGATE__";

/// The name of flags in problems.
const FLAGS: &str = "command line";

/// A file that is larger is not a configuration.
const MAX_BYTES: u64 = 1 << 20;

/// One value from outside the file.
struct Override<'a> {
    /// Who says it.
    origin: &'a str,
    /// The keys from the top.
    path: Vec<String>,
    text: &'a str,
}

/// The configuration from a file (or none), `TOLLGATE__SECTION__KEY` variables, and flags given
/// as a dotted key with a value. Other variables are ignored. What none of them says is as in
/// [`Config::default`]. Relative paths, where the file or a default says them, are made relative
/// to the folder of the file.
///
/// # Errors
///
/// Everything that is wrong: in the file, the variables and the flags.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Config, Problems> {
    let mut document = match file {
        Some(path) => read(path)?,
        None => Document::empty("configuration"),
    };
    let own = document.origin_of("").to_owned();
    let schema = Schema::of::<Config>();
    let mut problems = Vec::new();
    let variables = variables(env);
    for said in overrides(&variables, flags) {
        if let Err(problem) = apply(&mut document, &schema, &said) {
            problems.push(problem);
        }
    }
    document.fill(&defaults());
    match document.decode::<Config>() {
        Ok(mut config) => {
            problems.extend(
                rules::check(&config)
                    .into_iter()
                    .map(|(key, message)| document.problem(&format!("/{}", key.replace('.', "/")), message)),
            );
            if problems.is_empty() {
                let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
                anchor(&mut config, folder, |pointer| document.origin_of(pointer) == own);
                return Ok(config);
            }
        }
        Err(found) => problems.extend(found.0),
    }
    Err(Problems(problems))
}

/// The default configuration as data.
pub(super) fn defaults() -> Value {
    // Plain data with string keys: there is nothing in it that JSON cannot say.
    serde_json::to_value(Config::default()).unwrap_or_default()
}

fn read(path: &Path) -> Result<Document, Problems> {
    let origin = path.display().to_string();
    let unreadable = |message: String| {
        Problems::from(Problem { origin: origin.clone(), line: None, key: String::new(), message })
    };
    let text = read_text(path).map_err(|error| {
        unreadable(match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
            _ => format!("cannot be read: {error}"),
        })
    })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unreadable(format!("is too large: at most {} KiB", MAX_BYTES >> 10)));
    }
    let document = Document::parse(&origin, &text)?;
    Ok(if document.value().is_null() { Document::empty(&origin) } else { document })
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Our variables, in an order that does not depend on the environment's.
fn variables(env: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut variables: Vec<_> =
        env.filter(|(name, _)| name.to_ascii_uppercase().starts_with(PREFIX)).collect();
    variables.sort();
    variables
}

fn overrides<'a>(
    variables: &'a [(String, String)],
    flags: &'a [(String, String)],
) -> impl Iterator<Item = Override<'a>> {
    let said_by_variables = variables.iter().map(|(name, text)| {
        let keys = name.get(PREFIX.len()..).unwrap_or_default().to_ascii_lowercase();
        Override { origin: name, path: keys.split("__").map(str::to_owned).collect(), text }
    });
    let said_by_flags = flags.iter().map(|(key, text)| Override {
        origin: FLAGS,
        path: key.split('.').map(str::to_owned).collect(),
        text,
    });
    said_by_variables.chain(said_by_flags)
}

/// Puts one value into the document, as what its key expects: a string as it stands, anything
/// else as YAML.
fn apply(document: &mut Document, schema: &Schema, said: &Override<'_>) -> Result<(), Problem> {
    let path: Vec<&str> = said.path.iter().map(String::as_str).collect();
    let problem = |message: String| Problem {
        origin: said.origin.to_owned(),
        line: None,
        key: said.path.join("."),
        message,
    };
    let Some(expected) = schema.at(&path) else {
        return Err(problem("unknown key; docs/configuration.md lists the keys".to_owned()));
    };
    let is_null = said.text == "null" && schema.is_nullable(expected);
    let value = if is_null {
        Value::Null
    } else if is_text(schema.resolve(expected)) {
        said.text.into()
    } else {
        let parsed = Document::parse(said.origin, said.text);
        let first = |Problems(found)| found.into_iter().next().map(|found: Problem| found.message);
        parsed.map_err(|found| problem(first(found).unwrap_or_default()))?.value().clone()
    };
    document.set(&path, value, said.origin);
    Ok(())
}

fn is_text(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().all(|kind| kind == "string" || kind == "null"),
        _ => false,
    }
}

/// Makes relative paths relative to `folder`, where `is_ours` says so of their JSON pointer.
fn anchor(config: &mut Config, folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let add = |pointer: String, path: Option<&mut PathBuf>| {
        if let Some(path) = path.filter(|_| is_ours(&pointer)) {
            *path = folder.join(&*path);
        }
    };
    add("/licenses/keys".to_owned(), Some(&mut config.licenses.keys));
    add("/policies/directory".to_owned(), config.policies.directory.as_mut());
    add("/policies/catalog".to_owned(), config.policies.catalog.as_mut());
    add("/state/embedded/path".to_owned(), Some(&mut config.state.embedded.path));
    if let Some(postgres) = &mut config.state.postgres {
        add("/state/postgres/password_file".to_owned(), postgres.password_file.as_mut());
        add("/state/postgres/ca".to_owned(), postgres.ca.as_mut());
    }
    if let Some(hub) = &mut config.state.hub {
        add("/state/hub/ca".to_owned(), hub.ca.as_mut());
        add("/state/hub/certificate".to_owned(), hub.certificate.as_mut());
        add("/state/hub/key".to_owned(), hub.key.as_mut());
        if is_ours("/state/hub/addresses") {
            hub.addresses.iter_mut().for_each(|address| anchor_socket(address, folder));
        }
    }
    add("/audit/file/path".to_owned(), config.audit.file.as_mut().map(|file| &mut file.path));
    let listeners = &mut config.listeners;
    let administration = &mut listeners.administration;
    add("/listeners/administration/tokens".to_owned(), administration.tokens.as_mut());
    let of_listeners = [
        ("decisions", &mut listeners.decisions.unix, &mut listeners.decisions.tls),
        ("administration", &mut administration.unix, &mut administration.tls),
        ("hub", &mut listeners.hub.unix, &mut listeners.hub.tls),
        ("http", &mut listeners.http.unix, &mut listeners.http.tls),
    ];
    for (name, unix, tls) in of_listeners {
        let pointer = format!("/listeners/{name}");
        add(format!("{pointer}/unix"), unix.as_mut());
        if let Some(tls) = tls {
            add(format!("{pointer}/tls/certificate"), Some(&mut tls.certificate));
            add(format!("{pointer}/tls/key"), Some(&mut tls.key));
            add(format!("{pointer}/tls/client_ca"), tls.client_ca.as_mut());
        }
    }
}

/// Makes the path of a `unix:` address relative to `folder`.
fn anchor_socket(address: &mut String, folder: &Path) {
    if let Some(path) = address.strip_prefix("unix:").map(|path| folder.join(path)) {
        *address = format!("unix:{}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuditMode, LogFormat};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(text: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tollgate.yaml"), text).unwrap();
            Self(folder)
        }

        fn load(&self, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
            let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
            let flags: Vec<_> = flags.iter().map(own).collect();
            let path = self.0.path().join("tollgate.yaml");
            load(Some(&path), env.iter().map(own), &flags).map_err(|problems| {
                problems.to_string().replace(&path.display().to_string(), "tollgate.yaml")
            })
        }
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(load(None, std::iter::empty(), &[]).unwrap(), Config::default());
        let empty = Folder::with("# all commented out\n").load(&[], &[]).unwrap();
        assert_eq!(empty.listeners, Config::default().listeners);
    }

    #[test]
    fn a_section_that_is_given_in_part_keeps_its_other_defaults() {
        let text = "listeners:\n  decisions:\n    unix: gate.sock\n  http:\n    tcp: null\n";
        let config = Folder::with(text).load(&[], &[]).unwrap();
        assert_eq!(config.listeners.decisions.tcp, Config::default().listeners.decisions.tcp);
        assert_eq!(config.listeners.http.tcp, None);
    }

    #[test]
    fn variables_override_the_file_and_flags_override_both() {
        let text = "gate: {name: file, audiences: [a]}\ntelemetry: {logs: {level: warn}}\n";
        let env = [
            ("TOLLGATE__GATE__NAME", "123"),
            ("tollgate__gate__audiences", "[\"b\", c]"),
            ("TOLLGATE__AUDIT__QUEUE", "7"),
            ("TOLLGATE__AUDIT__FILE", "{path: /var/log/a.jsonl}"),
            ("TOLLGATE__TELEMETRY__LOGS__FORMAT", "text"),
            ("TOLLGATE__LISTENERS__HTTP__TCP", "null"),
            ("TOLLGATE__LICENSES__LEEWAY", "1m"),
            ("TOLLGATE_OTHER", "ignored"),
        ];
        let flags = [("telemetry.logs.level", "debug"), ("audit.mode", "durable"), ("audit.queue", "9")];
        let config = Folder::with(text).load(&env, &flags).unwrap();
        assert_eq!(config.gate.name, "123");
        assert_eq!(config.gate.audiences, ["b", "c"]);
        assert_eq!(config.audit.queue, 9);
        assert_eq!(config.audit.mode, AuditMode::Durable);
        assert_eq!(config.audit.file.unwrap().keep, 10);
        assert_eq!(config.telemetry.logs.format, LogFormat::Text);
        assert_eq!(config.telemetry.logs.level, "debug");
        assert_eq!(config.listeners.http.tcp, None);
        assert_eq!(config.licenses.leeway, "60s".parse().unwrap());
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_place() {
        let text = "gate:\n  nam: x\nlisteners:\n  decisions:\n    tcp: localhost\n    tls: {key: k}\n\
                    licenses:\n  leeway: soon\n  cache: 3 MB\naudit:\n  queue: many\n";
        let env = [
            ("TOLLGATE__GATE__COLOUR", "red"),
            ("TOLLGATE__AUDIT__MODE", "sometimes"),
            ("TOLLGATE__GATE__AUDIENCES", "[a"),
        ];
        let flags = [("shutdown.grace", "late")];
        let found = Folder::with(text).load(&env, &flags).unwrap_err();
        let expected = [
            "TOLLGATE__GATE__AUDIENCES: gate.audiences: ",
            "TOLLGATE__GATE__COLOUR: gate.colour: unknown key",
            "tollgate.yaml:2: gate.nam: unknown key; did you mean `name`?",
            "tollgate.yaml:5: listeners.decisions.tcp: `localhost` is not a socket address; write for example \
             `127.0.0.1:9191` or `[::1]:9191`",
            "tollgate.yaml:6: listeners.decisions.tls.certificate: is missing",
            "tollgate.yaml:8: licenses.leeway: `soon` is not a duration; write for example `500ms`, `30s` or `5m`",
            "tollgate.yaml:9: licenses.cache: `3 MB` is not a size; write for example `64 KiB` or `100 MiB`",
            "tollgate.yaml:11: audit.queue: expected a whole number, found a string",
            "TOLLGATE__AUDIT__MODE: audit.mode: `sometimes` is not one of `queued`, `durable`",
            "command line: shutdown.grace: `late` is not a duration",
        ];
        let lines: Vec<_> = found.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{found}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}\nshould begin with\n{expected}");
        }
    }

    #[test]
    fn broken_rules_have_lines_too() {
        let text = "listeners:\n  decisions:\n    tcp: 0.0.0.0:1\naudit:\n  stdout: false\n";
        let found =
            Folder::with(text).load(&[("TOLLGATE__TELEMETRY__LOGS__LEVEL", "a=b=c")], &[]).unwrap_err();
        let lines: Vec<_> = found.lines().collect();
        assert_eq!(lines.len(), 3, "{found}");
        assert!(
            lines[0].starts_with("tollgate.yaml:3: listeners.decisions.tcp: `0.0.0.0:1` is not loopback")
        );
        assert!(lines[1].starts_with("tollgate.yaml:4: audit: has neither"), "{found}");
        assert!(lines[2].starts_with("TOLLGATE__TELEMETRY__LOGS__LEVEL: telemetry.logs.level: "), "{found}");
    }

    #[test]
    fn paths_in_the_file_start_at_its_folder() {
        let text = "policies: {directory: policies, catalog: /etc/catalog.json}\n\
                    audit: {file: {path: a.jsonl}}\n\
                    listeners: {decisions: {unix: gate.sock, tls: {certificate: c, key: k}}}\n";
        let folder = Folder::with(text);
        let config = folder.load(&[("TOLLGATE__LISTENERS__DECISIONS__TLS__KEY", "here/k")], &[]).unwrap();
        let inside = |name: &str| folder.0.path().join(name);
        assert_eq!(config.licenses.keys, inside("keys"));
        assert_eq!(config.policies.directory, Some(inside("policies")));
        assert_eq!(config.policies.catalog, Some("/etc/catalog.json".into()));
        assert_eq!(config.audit.file.unwrap().path, inside("a.jsonl"));
        let decisions = config.listeners.decisions;
        assert_eq!(decisions.unix, Some(inside("gate.sock")));
        let tls = decisions.tls.unwrap();
        assert_eq!((tls.certificate, tls.key), (inside("c"), PathBuf::from("here/k")));
    }

    #[test]
    fn files_of_hubs_start_at_the_folder_too() {
        let text = "state: {store: hub, hub: {addresses: ['unix:hub.sock', 'unix:/run/hub.sock', 'https://hub:1'], \
                    ca: ca.crt, certificate: c, key: /k}}\n";
        let folder = Folder::with(text);
        let hub = folder.load(&[], &[]).unwrap().state.hub.unwrap();
        let inside = |name: &str| folder.0.path().join(name);
        let socket = format!("unix:{}", inside("hub.sock").display());
        assert_eq!(hub.addresses, [socket.as_str(), "unix:/run/hub.sock", "https://hub:1"]);
        assert_eq!((hub.ca, hub.certificate), (Some(inside("ca.crt")), Some(inside("c"))));
        assert_eq!(hub.key, Some("/k".into()));
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        let found = load(Some(Path::new("/nowhere/t.yaml")), std::iter::empty(), &[]).unwrap_err();
        assert_eq!(found.to_string(), "/nowhere/t.yaml: there is no such file");
        let large = Folder::with(&"#".repeat(1 + (1 << 20))).load(&[], &[]).unwrap_err();
        assert_eq!(large, "tollgate.yaml: is too large: at most 1024 KiB");
        let folder = Folder::with("");
        std::fs::write(folder.0.path().join("tollgate.yaml"), b"\xff\xfe").unwrap();
        assert_eq!(folder.load(&[], &[]).unwrap_err(), "tollgate.yaml: is not UTF-8 text");
    }
}

//! `docs/configuration.md`, rendered from the configuration's schema and its defaults.
//!
//! Refuses words of its own about any key: what a key means is said where it is declared.

use std::fmt::Write;

use serde_json::Value;

use super::{Config, sources};
use crate::document::Schema;

const INTRODUCTION: &str = "# Configuration

<!-- Rendered from src/config.rs by src/config/reference.rs; do not edit. -->

`tollgate serve --config tollgate.yaml` reads one YAML file. Every key has a default, so the file says only what
differs, and there may be no file at all. Unknown keys and wrong values are errors; all of them are reported at
once, each with its file, line and key, and the gate does not start.

What is said in more than one place is decided in this order, the last one winning:

1. the defaults below;
2. the file;
3. environment variables: `TOLLGATE__`, then the keys joined by a double underscore, in upper or lower case, such
   as `TOLLGATE__LISTENERS__DECISIONS__TCP=127.0.0.1:9000`;
4. flags: `--set`, then the keys joined by dots, such as `--set listeners.decisions.tcp=127.0.0.1:9000`.

In variables and flags, a string is taken as it stands; anything else is read as YAML, such as `[a, b]` or
`{path: audit.jsonl}`; `null` takes an optional value away.

Relative paths in the file, and those of the defaults, start at the folder of the file. Relative paths in variables
and flags start at the working directory.

Durations are written like `500ms`, `30s` or `5m`; sizes like `64 KiB` or `100 MiB`.
";

/// The text of `docs/configuration.md`.
pub fn render() -> String {
    let schema = Schema::of::<Config>();
    let defaults = sources::defaults();
    let mut text = INTRODUCTION.to_owned();
    for (name, section) in members(schema.root()) {
        let mut table = Table { schema: &schema, defaults: &defaults, rows: String::new() };
        table.add_members(name, schema.resolve(section));
        text.push_str(&format!(
            "\n## {name}\n\n{}\n\n| key | value | default | |\n|---|---|---|---|\n{}",
            description(section),
            table.rows
        ));
    }
    let example = serde_saphyr::to_string(&Config::default()).unwrap_or_default();
    text.push_str(&format!("\n## The defaults as a file\n\n```yaml\n{}\n```\n", example.trim()));
    text
}

/// A table of every member of a document of this schema, at any depth.
pub fn table(schema: &Schema) -> String {
    let mut table = Table { schema, defaults: &Value::Null, rows: String::new() };
    let required = required(schema.root());
    for (name, member) in members(schema.root()) {
        table.add(name, member, required.contains(&name.as_str()));
    }
    format!("| key | value | default | |\n|---|---|---|---|\n{}", table.rows)
}

struct Table<'a> {
    schema: &'a Schema,
    defaults: &'a Value,
    rows: String,
}

impl Table<'_> {
    fn add_members(&mut self, key: &str, mapping: &Value) {
        let required = required(mapping);
        for (name, member) in members(mapping) {
            self.add(&format!("{key}.{name}"), member, required.contains(&name.as_str()));
        }
    }

    fn add(&mut self, key: &str, member: &Value, is_required: bool) {
        let value = self.schema.resolve(member);
        let is_section = value.get("properties").is_some();
        let is_optional = self.schema.is_nullable(member);
        let kind = match is_section {
            true => "mapping".to_owned(),
            false => kind_of(self.schema, value),
        };
        let or_null = if is_optional { " or `null`" } else { "" };
        let default = match (is_section && !is_optional, is_required) {
            (_, true) => "required".to_owned(),
            (true, false) => String::new(),
            (false, false) => self.default_of(key, member, is_optional),
        };
        let mut words = description(member);
        for (choice, meaning) in choices(value) {
            // Writing to a string cannot fail.
            let _ = write!(words, "<br>`{choice}`: {meaning}");
        }
        self.rows.push_str(&format!("| `{key}` | {kind}{or_null} | {default} | {words} |\n"));
        if is_section {
            self.add_members(key, value);
        }
        // What has a name of its own is explained once, elsewhere.
        let items = value.get("items").map(|items| self.schema.resolve(items));
        if let Some(items) = items.filter(|items| items.get("title").is_none()) {
            self.add_members(&format!("{key}[]"), items);
        }
    }

    /// What the default configuration has; inside of what it has not, what the schema says.
    fn default_of(&self, key: &str, member: &Value, is_optional: bool) -> String {
        let pointer = format!("/{}", key.replace('.', "/"));
        let default = self.defaults.pointer(&pointer).or_else(|| member.get("default"));
        match default {
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
            None if is_optional => "`null`".to_owned(),
            None => String::new(),
        }
    }
}

fn required(mapping: &Value) -> Vec<&str> {
    let required = mapping.get("required").and_then(Value::as_array).into_iter().flatten();
    required.filter_map(Value::as_str).collect()
}

fn members(mapping: &Value) -> impl Iterator<Item = (&String, &Value)> {
    mapping.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn description(node: &Value) -> String {
    let text = node.get("description").and_then(Value::as_str).unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}

/// The words of an enumeration, with their meanings.
fn choices(value: &Value) -> Vec<(String, String)> {
    let branches = value.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    branches
        .filter_map(|branch| Some((branch.get("const")?.as_str()?.to_owned(), description(branch))))
        .collect()
}

fn kind_of(schema: &Schema, value: &Value) -> String {
    let choices: Vec<_> = choices(value).into_iter().map(|(choice, _)| format!("`{choice}`")).collect();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    if let Some(title) = value.get("title").and_then(Value::as_str) {
        return title.to_owned();
    }
    let kind = match value.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        other => other.and_then(Value::as_str),
    };
    let name = match kind {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("array") => {
            let items = value.get("items").map(|items| schema.resolve(items)).unwrap_or(&Value::Null);
            match kind_of(schema, items) {
                words if words.starts_with('`') => format!("list of {}", words.replace(" or ", ", ")),
                kind => format!("list of {kind}s"),
            }
        }
        Some(other) => other.to_owned(),
        None => String::new(),
    };
    let bound = |name: &str| value.get(name).and_then(Value::as_f64);
    match (bound("minimum"), bound("maximum").filter(|maximum| *maximum < f64::from(u32::MAX))) {
        (Some(minimum), Some(maximum)) => format!("{name}, {minimum} to {maximum}"),
        (Some(minimum), None) => format!("{name}, at least {minimum}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    #[test]
    fn the_example_is_the_default_configuration() {
        let page = render();
        let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let config: Config = Document::parse("example", example).unwrap().decode().unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn every_key_has_words() {
        for line in render().lines().filter(|line| line.starts_with("| `")) {
            let words = line.split(" | ").nth(3).unwrap().trim_end_matches(['|', ' ']);
            assert!(!words.is_empty(), "{line}");
        }
    }
}

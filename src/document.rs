//! Documents that people write, in YAML or JSON: each value keeps the line that it came from,
//! so that whatever is wrong can be shown where it was written.
//!
//! Refuses duplicate keys, merge keys, documents that unfold without bound, and unknown keys
//! where the type that is read denies them. Reads no files and knows no configuration.

mod check;
pub mod printable;
mod problem;
mod schema;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use problem::{Problem, Problems, with_causes};
pub use schema::Schema;

/// A document: its value, and where each part of it was written.
#[derive(Clone, Debug)]
pub struct Document {
    origin: Arc<str>,
    value: Value,
    /// By JSON pointer. A part without a place of its own was written where its parent was.
    places: BTreeMap<String, Place>,
}

/// Where a part was written.
#[derive(Clone, Debug)]
struct Place {
    origin: Arc<str>,
    line: Option<u32>,
}

impl Document {
    /// Reads YAML, and so JSON. `origin` is the name that problems are reported under, such as
    /// the file's. A text of nothing but comments is `null`.
    ///
    /// # Errors
    ///
    /// The first syntax error or duplicate key.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let origin: Arc<str> = origin.into();
        let mut document = Self { origin: Arc::clone(&origin), value: Value::Null, places: BTreeMap::new() };
        if !tree::is_blank(text) {
            let (value, lines) = tree::parse(text).map_err(|(line, message)| Problem {
                origin: origin.to_string(),
                line,
                key: String::new(),
                message,
            })?;
            document.value = value;
            document.places = lines
                .into_iter()
                .map(|(pointer, line)| (pointer, Place { origin: Arc::clone(&origin), line }))
                .collect();
        }
        Ok(document)
    }

    /// A mapping with nothing in it.
    pub fn empty(origin: &str) -> Self {
        Self { origin: origin.into(), value: Value::Object(Map::new()), places: BTreeMap::new() }
    }

    /// The document as data.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Puts `value` at `path`, said by `origin`, and makes the mappings on the way. Where
    /// something that is not a mapping is in the way it stays, for [`Document::decode`] to refuse.
    pub fn set(&mut self, path: &[&str], value: Value, origin: &str) {
        let place = Place { origin: origin.into(), line: None };
        let mut pointer = String::new();
        let mut node = &mut self.value;
        for key in path {
            if node.is_null() {
                *node = Value::Object(Map::new());
            }
            let Value::Object(members) = node else { return };
            pointer = child(&pointer, key);
            if !members.contains_key(*key) {
                self.places.insert(pointer.clone(), place.clone());
            }
            node = members.entry(*key).or_insert(Value::Null);
        }
        *node = value;
        let below = format!("{pointer}/");
        self.places.retain(|known, _| !known.starts_with(&below));
        self.places.insert(pointer, place);
    }

    /// Fills in what the document does not say from `defaults`, mapping by mapping.
    pub fn fill(&mut self, defaults: &Value) {
        fill(&mut self.value, defaults);
    }

    /// Who said the part at `pointer` (a JSON pointer): the document itself, or what was last
    /// [`set`](Document::set) there.
    pub fn origin_of(&self, pointer: &str) -> &str {
        self.place(pointer).map_or(&self.origin, |place| &place.origin)
    }

    /// A problem with the part at `pointer` (a JSON pointer).
    pub fn problem(&self, pointer: &str, message: impl Into<String>) -> Problem {
        Problem {
            origin: self.origin_of(pointer).to_owned(),
            line: self.place(pointer).and_then(|place| place.line),
            key: self.key(pointer),
            message: message.into(),
        }
    }

    /// The document as a `T`.
    ///
    /// # Errors
    ///
    /// Everything in which the document differs from `T`'s schema; where it differs in nothing,
    /// the first value that `T` refuses all the same.
    pub fn decode<T: DeserializeOwned + JsonSchema>(&self) -> Result<T, Problems> {
        let problems = check::problems(self, &Schema::of::<T>());
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let pointer = pointer_to(error.path());
            self.problem(&pointer, error.into_inner().to_string()).into()
        })
    }

    /// A problem with every key that `decoded` has not: types of somebody else's drop what they do not know.
    pub fn dropped<T: Serialize>(&self, decoded: &T) -> Vec<Problem> {
        let mut dropped = Vec::new();
        match serde_json::to_value(decoded) {
            Ok(read) => dropped_keys(&self.value, &read, "", &mut dropped),
            Err(error) => return vec![self.problem("", error.to_string())],
        }
        dropped.iter().map(|pointer| self.problem(pointer, "unknown key")).collect()
    }

    /// The place of the part, or of the nearest parent that has one.
    fn place(&self, pointer: &str) -> Option<&Place> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return Some(place);
            }
            pointer = pointer.rsplit_once('/')?.0;
        }
    }

    /// A JSON pointer as people write it: `duties[0].id`.
    fn key(&self, pointer: &str) -> String {
        let mut key = String::new();
        let mut node = Some(&self.value);
        for segment in pointer.split('/').skip(1) {
            let name = segment.replace("~1", "/").replace("~0", "~");
            if let Some(Value::Array(items)) = node {
                key.push_str(&format!("[{name}]"));
                node = name.parse::<usize>().ok().and_then(|index| items.get(index));
            } else {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(&name);
                node = node.and_then(|node| node.get(&name));
            }
        }
        key
    }
}

/// The JSON pointer of a member.
fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Where serde stopped, as a JSON pointer.
fn pointer_to(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => child(&pointer, key),
        Segment::Enum { variant } => child(&pointer, variant),
        Segment::Unknown => pointer,
    })
}

/// Where `written` has keys with values that `read` has not.
fn dropped_keys(written: &Value, read: &Value, pointer: &str, dropped: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let pointer = child(pointer, key);
                match read.get(key) {
                    Some(read) => dropped_keys(value, read, &pointer, dropped),
                    None => dropped.push(pointer),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                dropped_keys(written, read, &format!("{pointer}/{index}"), dropped);
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, defaults: &Value) {
    if let (Value::Object(members), Value::Object(defaults)) = (value, defaults) {
        for (key, default) in defaults {
            match members.get_mut(key) {
                Some(member) => fill(member, default),
                None => {
                    members.insert(key.clone(), default.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: String,
        #[serde(default)]
        kind: Option<Kind>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        /// One.
        Queued,
        /// Another.
        Durable,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[schemars(range(min = 1))]
        count: u32,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        #[schemars(inner(length(min = 1)))]
        items: std::collections::BTreeSet<String>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        kind: Option<Kind>,
        #[serde(default)]
        path: Option<crate::domain::DatasetPath>,
    }

    fn problems(text: &str) -> String {
        match Document::parse("f.yaml", text).and_then(|document| document.decode::<Outer>()) {
            Ok(outer) => panic!("decoded {outer:?}"),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn a_good_document_decodes_from_yaml_and_from_json() {
        let yaml = "count: 3 # three\ninner:\n  name: \"a\"\n  kind: durable\nitems: [NO, on]\n";
        let json = r#"{"count": 3, "inner": {"name": "a", "kind": "durable"}, "items": ["NO", "on"]}"#;
        let decode = |text| Document::parse("f", text).unwrap().decode::<Outer>().unwrap();
        assert_eq!(decode(yaml), decode(json));
        assert_eq!(decode(yaml).inner.unwrap().kind, Some(Kind::Durable));
    }

    #[test]
    fn every_problem_is_reported_at_once_where_it_was_written() {
        let text = "count: 0\n\ninner:\n  nam: x\n  kind: queud\nitems:\n  - a\n  - a\n  - ''\n\
                    list:\n  - name: 5\n  - {}\nkind: 3\npath: a//b\nunwanted: 1\n";
        assert_eq!(
            problems(text),
            "f.yaml:1: count: `0` is too small: at least 1\n\
             f.yaml:3: inner.name: is missing\n\
             f.yaml:4: inner.nam: unknown key; did you mean `name`?\n\
             f.yaml:5: inner.kind: `queud` is not one of `queued`, `durable`; did you mean `queued`?\n\
             f.yaml:8: items[1]: `a` is listed twice\n\
             f.yaml:9: items[2]: is empty\n\
             f.yaml:11: list[0].name: expected a string, found the number `5`\n\
             f.yaml:12: list[1].name: is missing\n\
             f.yaml:13: kind: `3` is not one of `queued`, `durable`\n\
             f.yaml:14: path: `a//b` is not a dataset path; write for example `sales/eu/orders` or `*`\n\
             f.yaml:15: unwanted: unknown key; known here are `count`, `inner`, `items`, `list`, `kind`, `path`"
        );
    }

    #[test]
    fn what_only_the_type_refuses_is_located_too() {
        let path = "ä/".repeat(200) + "ä";
        let found = problems(&format!("count: 1\npath: {path}"));
        assert!(found.starts_with("f.yaml:2: path: `ä/ä"), "{found}");
        assert!(found.contains("longer than 512 bytes"), "{found}");
    }

    #[test]
    fn integers_beyond_their_type_are_too_large() {
        assert_eq!(
            problems("count: 4294967296"),
            "f.yaml:1: count: `4294967296` is too large: at most 4294967295"
        );
    }

    #[test]
    fn the_whole_may_be_of_the_wrong_type() {
        assert_eq!(problems("- 1"), "f.yaml:1: expected a mapping, found a list");
        assert_eq!(problems("# nothing\n"), "f.yaml: expected a mapping, found null");
    }

    #[test]
    fn syntax_errors_and_duplicates_are_located() {
        assert_eq!(problems("count: 1\ncount: 2\n"), "f.yaml:2: `count` is given twice");
        assert_eq!(problems("a:\n  \"1\": 2\n  1: 3\n"), "f.yaml:3: `1` is given twice");
        assert_eq!(problems("count: [1\n"), "f.yaml:1: unclosed bracket '['");
        assert!(problems("a: &x {}\nb:\n  <<: *x\n").starts_with("f.yaml:3: "));
        assert!(problems("count: 1\n---\ncount: 2\n").contains("more than one document"));
    }

    #[test]
    fn a_document_that_unfolds_without_bound_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let previous = level - 1;
            let aliases = vec![format!("*a{previous}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        assert!(problems(&text).contains("too large"), "{}", problems(&text));
        let deep = "[".repeat(10_000);
        assert!(Document::parse("f", &deep).is_err());
    }

    #[test]
    fn what_is_set_is_reported_under_its_own_origin() {
        let mut document = Document::parse("f.yaml", "count: 1\ninner:\n  name: a\n").unwrap();
        document.set(&["inner", "kind"], "x".into(), "VARIABLE");
        document.set(&["other", "deep"], "x".into(), "OTHER");
        let found = document.decode::<Outer>().unwrap_err().to_string();
        assert_eq!(
            found,
            "VARIABLE: inner.kind: `x` is not one of `queued`, `durable`\n\
             OTHER: other: unknown key; known here are `count`, `inner`, `items`, `list`, `kind`, `path`"
        );
        assert_eq!(document.origin_of("/inner/name"), "f.yaml");
        assert_eq!(document.problem("/inner/name", "m").line, Some(3));
    }
}

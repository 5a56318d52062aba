//! Identifiers with a shape: dataset paths and decision ids.
//!
//! Refuses values that could be read two ways (empty segments, `.` and `..`,
//! control characters), so that a prefix comparison is a comparison of segments.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A path in the catalog, such as `sales/eu/orders`. `*` is the root: all datasets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetPath(String);

/// What is wrong with a dataset path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{path}` is not a dataset path: {problem}; expected segments joined by `/`, such as `sales/eu/orders`, or `*` for all"
)]
pub struct DatasetPathError {
    path: String,
    problem: &'static str,
}

impl DatasetPath {
    /// The path that covers every other.
    pub const ROOT: &'static str = "*";

    /// The longest path accepted, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the path that covers every other.
    pub fn is_root(&self) -> bool {
        self.0 == Self::ROOT
    }

    /// The paths that cover this one, the nearest first, the root last.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let mut rest = if self.is_root() { None } else { Some(self.0.as_str()) };
        std::iter::from_fn(move || {
            let (parent, next) = match rest?.rsplit_once('/') {
                Some((parent, _)) => (parent, Some(parent)),
                None => (Self::ROOT, None),
            };
            rest = next;
            Some(parent)
        })
    }

    /// Whether a license for this path is a license for `other`.
    pub fn covers(&self, other: &DatasetPath) -> bool {
        self == other || other.ancestors().any(|ancestor| ancestor == self.0)
    }
}

impl FromStr for DatasetPath {
    type Err = DatasetPathError;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let problem = |problem| Err(DatasetPathError { path: path.chars().take(80).collect(), problem });
        if path == Self::ROOT {
            return Ok(Self(path.to_owned()));
        }
        if path.is_empty() {
            return problem("it is empty");
        }
        if path.len() > Self::MAX_BYTES {
            return problem("it is longer than 512 bytes");
        }
        for segment in path.split('/') {
            match segment {
                "" => return problem("it has an empty segment"),
                "." | ".." => return problem("it has a relative segment"),
                "*" => return problem("`*` stands alone or not at all"),
                _ if segment.chars().any(char::is_control) => return problem("it has a control character"),
                _ => {}
            }
        }
        Ok(Self(path.to_owned()))
    }
}

impl TryFrom<String> for DatasetPath {
    type Error = DatasetPathError;

    fn try_from(path: String) -> Result<Self, Self::Error> {
        path.parse()
    }
}

impl From<DatasetPath> for String {
    fn from(path: DatasetPath) -> Self {
        path.0
    }
}

impl fmt::Display for DatasetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for DatasetPath {
    fn schema_name() -> Cow<'static, str> {
        "DatasetPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let segment = r"(?!(?:\.{1,2}|\*)(?:/|$))[^/\p{Cc}]+";
        json_schema!({
            "type": "string",
            "title": "dataset path",
            "pattern": format!("^(?:\\*|{segment}(?:/{segment})*)$"),
            "examples": ["sales/eu/orders", "*"],
        })
    }
}

/// The id of one decision and of its record: a UUIDv7 (RFC 9562), so ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecisionId(uuid::Uuid);

impl DecisionId {
    /// A new id for a decision made at `now`.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Self(uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos)))
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> DatasetPath {
        text.parse().unwrap()
    }

    #[test]
    fn covers_by_segments_not_by_characters() {
        assert!(path("sales/eu").covers(&path("sales/eu")));
        assert!(path("sales/eu").covers(&path("sales/eu/orders/2026")));
        assert!(path("*").covers(&path("sales")));
        assert!(!path("sales/eu").covers(&path("sales/europe")));
        assert!(!path("sales/eu").covers(&path("sales")));
        assert!(!path("sales").covers(&path("*")));
    }

    #[test]
    fn refuses_paths_that_read_two_ways() {
        for text in ["", "/", "a//b", "/a", "a/", "a/../b", ".", "a/*", "a\u{0}b", &"a".repeat(513)] {
            assert!(text.parse::<DatasetPath>().is_err(), "{text:?}");
        }
    }
}

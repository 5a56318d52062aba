//! The text of a document, as a tree that remembers lines.
//!
//! Refuses merge keys (YAML 1.2 has none), duplicate keys, values that JSON has not, and
//! aliases or nesting that unfold without bound.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::AliasLimits;
use serde_saphyr::{
    DuplicateKeyPolicy, Error, MergeKeyPolicy, MessageFormatter, Spanned, UserMessageFormatter,
};

use super::child;

/// A value whose members and items know their lines.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Mapping(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// The lines of a document by JSON pointer.
pub(super) type Lines = BTreeMap<String, Option<u32>>;

/// What is wrong, and on which line.
type Flaw = (Option<u32>, String);

/// Whether the text has nothing but comments.
pub(super) fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// The value of a text, with its lines.
pub(super) fn parse(text: &str) -> Result<(Value, Lines), Flaw> {
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = 100_000;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: 1_000_000, max_events: 3_000_000 },
        alias_limits: aliases,
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        // `NO` is Norway, not false.
        strict_booleans: true,
        with_snippet: false,
    };
    let tree = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| (error.location().and_then(|location| line(location.line())), words(&error)))?;
    flatten(tree)
}

/// The value, and the line of each key and item.
fn flatten(tree: Spanned<Tree>) -> Result<(Value, Lines), Flaw> {
    let mut lines = Lines::new();
    lines.insert(String::new(), line(tree.referenced.line()));
    let value = value_of(tree.value, "", &mut lines)?;
    Ok((value, lines))
}

fn value_of(tree: Tree, pointer: &str, lines: &mut Lines) -> Result<Value, Flaw> {
    match tree {
        Tree::Scalar(value) => Ok(value),
        Tree::List(items) => {
            let values = items.into_iter().enumerate().map(|(index, item)| {
                let pointer = format!("{pointer}/{index}");
                lines.insert(pointer.clone(), line(item.referenced.line()));
                value_of(item.value, &pointer, lines)
            });
            values.collect::<Result<_, _>>().map(Value::Array)
        }
        Tree::Mapping(members) => {
            let mut mapping = Map::new();
            for (key, member) in members {
                let pointer = child(pointer, &key.value);
                lines.insert(pointer.clone(), line(key.referenced.line()));
                let value = value_of(member.value, &pointer, lines)?;
                // The parser tells `1` from `"1"`; JSON does not.
                if mapping.contains_key(&key.value) {
                    return Err((line(key.referenced.line()), format!("`{}` is given twice", key.value)));
                }
                mapping.insert(key.value, value);
            }
            Ok(Value::Object(mapping))
        }
    }
}

/// 0 is the parser's word for unknown.
fn line(line: u64) -> Option<u32> {
    u32::try_from(line).ok().filter(|line| *line > 0)
}

/// The parser's errors in our words; what is rare stays in the parser's.
fn words(error: &Error) -> String {
    match error.without_snippet() {
        Error::AliasError { error, .. } => words(error),
        Error::Eof { .. } => "the document ends too early".to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` is given twice"),
        Error::DuplicateMappingKey { key: None, .. } => "a key is given twice".to_owned(),
        Error::MergeKeyNotAllowed { .. } => {
            "merge keys (`<<`) are not supported; write the keys out".to_owned()
        }
        Error::MultipleDocuments { .. } => "there is more than one document; expected one".to_owned(),
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => "the document is too large or too deep".to_owned(),
        other => UserMessageFormatter.format_message(other).replace(char::is_control, " "),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(Tree::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Tree::Mapping(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,12}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_read_as_json(value in json()) {
            let text = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&parse(&text).unwrap().0, &value, "{}", text);
        }

        #[test]
        fn any_text_is_a_value_or_a_flaw(text in "[\\[\\]{}:,\"'&*!|>?#%@\\-\n \\ta-c0-9~.<=]{0,60}") {
            if let Err((_, message)) = parse(&text) {
                prop_assert!(!message.is_empty() && !message.contains(char::is_control));
            }
        }
    }
}

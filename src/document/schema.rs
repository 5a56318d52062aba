//! The JSON Schema of a Rust type, and ways through it. Refuses to validate: that is the
//! neighbour's part.

use schemars::JsonSchema;
use serde_json::Value;

/// The schema of a type.
#[derive(Clone, Debug)]
pub struct Schema(Value);

impl Schema {
    /// The schema by which a `T` is read.
    pub fn of<T: JsonSchema>() -> Self {
        let mut schema = schemars::schema_for!(T).to_value();
        bound_integers(&mut schema);
        Self(schema)
    }

    /// The schema of the whole.
    pub fn root(&self) -> &Value {
        &self.0
    }

    /// The schema that `node` stands for: references are followed, and an optional value is
    /// taken as the value.
    pub fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        let mut node = node;
        // Every step goes one level down a finite type; the bound is for schemas that loop.
        for _ in 0..32 {
            let next = match node.get("$ref").and_then(Value::as_str) {
                Some(reference) => self.0.pointer(reference.trim_start_matches('#')),
                None => node.get("anyOf").and_then(Value::as_array).and_then(|branches| only_value(branches)),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The schema of the member at `path`, before it is resolved; none where there is no such key.
    pub fn at<'a>(&'a self, path: &[&str]) -> Option<&'a Value> {
        path.iter().try_fold(&self.0, |node, key| self.resolve(node).get("properties")?.get(*key))
    }

    /// Whether the value may be `null`.
    pub fn is_nullable(&self, node: &Value) -> bool {
        let names_null = |kind: &Value| kind.as_array().is_some_and(|kinds| kinds.contains(&"null".into()));
        node.get("type").is_some_and(names_null)
            || node
                .get("anyOf")
                .and_then(Value::as_array)
                .is_some_and(|branches| branches.iter().any(is_null))
    }
}

/// The key of `known` that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The one branch that is not `null`.
fn only_value(branches: &[Value]) -> Option<&Value> {
    let mut values = branches.iter().filter(|branch| !is_null(branch));
    values.next().filter(|_| values.next().is_none())
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// Writes the bounds of the integer types into the schema, so that a number beyond them is
/// found together with everything else.
fn bound_integers(schema: &mut Value) {
    if let Value::Object(members) = schema {
        let maximum = match members.get("format").and_then(Value::as_str) {
            Some("uint32") => Some(u64::from(u32::MAX)),
            Some("int32") => u64::try_from(i32::MAX).ok(),
            _ => None,
        };
        if let Some(maximum) = maximum {
            members.entry("maximum").or_insert_with(|| maximum.into());
        }
        members.values_mut().for_each(bound_integers);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(bound_integers);
    }
}

//! Compares a document with a schema and says, in words, everywhere that they differ.
//!
//! Refuses to stop at the first difference. Shows no string of the document except where a
//! word or a shape was expected, so that a secret in the wrong place is not repeated.

use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::schema::nearest;
use super::{Document, Problem, Schema, child};

/// How many characters of a value are shown.
const SHOWN: usize = 80;

/// Everything in which the document differs from the schema, in the order of the lines.
pub(super) fn problems(document: &Document, schema: &Schema) -> Vec<Problem> {
    let validator = match jsonschema::options().build(schema.root()) {
        Ok(validator) => validator,
        Err(error) => return vec![document.problem("", format!("cannot be checked: {error}"))],
    };
    let mut report = Report { document, schema, problems: Vec::new() };
    for error in validator.iter_errors(document.value()) {
        report.explain(&error);
    }
    let mut problems = report.problems;
    problems.sort_by_key(|problem| problem.line.unwrap_or(u32::MAX));
    problems
}

struct Report<'a> {
    document: &'a Document,
    schema: &'a Schema,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn say(&mut self, pointer: &str, message: impl Into<String>) {
        let problem = self.document.problem(pointer, message);
        // Two keywords may object to the same thing.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn explain(&mut self, error: &ValidationError<'_>) {
        let pointer = error.instance_path().as_str();
        let value = error.instance().as_ref();
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.siblings(error);
                for name in unexpected {
                    self.say(&child(pointer, name), unknown_key(name, &known));
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                self.say(&child(pointer, name), "is missing");
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                self.explain_branches(pointer, value, context);
            }
            ValidationErrorKind::UniqueItems => {
                for (index, item) in repeated(value) {
                    self.say(&format!("{pointer}/{index}"), format!("{} is listed twice", show(item)));
                }
            }
            ValidationErrorKind::Pattern { .. } => {
                let message = self.expected_shape(error, value);
                self.say(pointer, message);
            }
            ValidationErrorKind::Type { kind } => {
                let expected = self.shape_name(error).unwrap_or_else(|| type_names(kind));
                self.say(pointer, format!("expected {expected}, found {}", found(value)));
            }
            kind => {
                let message = in_words(kind, value).unwrap_or_else(|| error.masked().to_string());
                self.say(pointer, message);
            }
        }
    }

    /// None of the alternatives held: speaks about the one that was probably meant.
    fn explain_branches(&mut self, pointer: &str, value: &Value, context: &[Vec<ValidationError<'static>>]) {
        let branches: Vec<_> = context.iter().filter(|errors| !wants_null(errors)).collect();
        if let [only] = branches.as_slice() {
            return only.iter().for_each(|error| self.explain(error));
        }
        let (worded, structured) = branches
            .into_iter()
            .partition::<Vec<_>, _>(|errors| errors.iter().any(|error| words_of(error).is_some()));
        if let [only] = structured.as_slice() {
            return only.iter().for_each(|error| self.explain(error));
        }
        let words: Vec<_> = worded.iter().flat_map(|errors| errors.iter()).collect();
        let at = words.iter().find(|error| words_of(error).is_some());
        match at {
            Some(at) if structured.is_empty() => {
                let choices: Vec<_> = words.iter().filter_map(|error| words_of(error)).flatten().collect();
                self.say(at.instance_path().as_str(), not_one_of(at.instance(), &choices));
            }
            _ => self.say(pointer, format!("{} has none of the forms that are allowed here", found(value))),
        }
    }

    /// The schema that holds the keyword that failed.
    fn holder(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.root().pointer(parent)
    }

    fn siblings(&self, error: &ValidationError<'_>) -> Vec<String> {
        let properties = self.holder(error).and_then(|holder| holder.get("properties")?.as_object());
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }

    /// What a string with a shape is called, such as `a duration`.
    fn shape_name(&self, error: &ValidationError<'_>) -> Option<String> {
        let holder = self.holder(error)?;
        holder.get("pattern")?;
        Some(format!("a {}{}", holder.get("title")?.as_str()?, examples(holder, ", such as ")))
    }

    fn expected_shape(&self, error: &ValidationError<'_>, value: &Value) -> String {
        let holder = self.holder(error);
        let title = holder.and_then(|holder| holder.get("title")?.as_str());
        match (holder, title) {
            (Some(holder), Some(title)) => {
                format!("{} is not a {title}{}", show(value), examples(holder, "; write for example "))
            }
            _ => format!("{} does not have the expected shape", show(value)),
        }
    }
}

/// The keywords that need nothing but the value.
fn in_words(kind: &ValidationErrorKind, value: &Value) -> Option<String> {
    let shown = show(value);
    Some(match kind {
        ValidationErrorKind::Minimum { limit } => format!("{shown} is too small: at least {limit}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            format!("{shown} is too small: more than {limit}")
        }
        ValidationErrorKind::Maximum { limit } => format!("{shown} is too large: at most {limit}"),
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            format!("{shown} is too large: less than {limit}")
        }
        ValidationErrorKind::MinLength { limit: 1 }
        | ValidationErrorKind::MinItems { limit: 1 }
        | ValidationErrorKind::MinProperties { limit: 1 } => "is empty".to_owned(),
        ValidationErrorKind::MinLength { limit } => format!("is too short: at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("is too long: at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("has too few entries: at least {limit}"),
        ValidationErrorKind::MaxItems { limit } => format!("has too many entries: at most {limit}"),
        ValidationErrorKind::Constant { expected_value } => not_one_of(value, &[expected_value.as_ref()]),
        ValidationErrorKind::Enum { options } => {
            not_one_of(value, &options.as_array()?.iter().collect::<Vec<_>>())
        }
        _ => return None,
    })
}

fn unknown_key(name: &str, known: &[String]) -> String {
    if let Some(nearest) = nearest(name, known.iter().map(String::as_str)) {
        return format!("unknown key; did you mean `{nearest}`?");
    }
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    match known.is_empty() {
        true => "unknown key; none is known here".to_owned(),
        false => format!("unknown key; known here are {}", known.join(", ")),
    }
}

fn not_one_of(value: &Value, choices: &[&Value]) -> String {
    let names: Vec<_> = choices.iter().map(|choice| show(choice)).collect();
    let meant = value
        .as_str()
        .and_then(|text| nearest(text, choices.iter().filter_map(|choice| choice.as_str())))
        .map(|meant| format!("; did you mean `{meant}`?"))
        .unwrap_or_default();
    match names.as_slice() {
        [only] => format!("{} is not {only}{meant}", show(value)),
        _ => format!("{} is not one of {}{meant}", show(value), names.join(", ")),
    }
}

/// The words that were expected, where it was a word that failed.
fn words_of<'a>(error: &'a ValidationError<'_>) -> Option<Vec<&'a Value>> {
    match error.kind() {
        ValidationErrorKind::Constant { expected_value } => Some(vec![expected_value.as_ref()]),
        ValidationErrorKind::Enum { options } => Some(options.as_array()?.iter().collect()),
        _ => None,
    }
}

/// The branch of an optional value that stands for its absence.
fn wants_null(errors: &[ValidationError<'_>]) -> bool {
    errors.iter().all(|error| {
        matches!(error.kind(), ValidationErrorKind::Type { kind: TypeKind::Single(JsonType::Null) })
    })
}

fn repeated(value: &Value) -> Vec<(usize, &Value)> {
    let mut seen = HashSet::new();
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().enumerate().filter(|(_, item)| !seen.insert(item.to_string())).collect()
}

fn type_names(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => type_name(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            let names: Vec<_> = kinds.iter().map(type_name).collect();
            names.join(" or ")
        }
    }
}

fn type_name(kind: JsonType) -> &'static str {
    match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "a list",
        JsonType::Object => "a mapping",
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => format!("`{truth}`"),
        Value::Number(number) => format!("the number `{number}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

/// A value in backticks, cut short, with nothing in it that a terminal obeys.
fn show(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => return found(value),
        other => other.to_string(),
    };
    let shown: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let more = if text.chars().nth(SHOWN).is_some() { "..." } else { "" };
    format!("`{shown}{more}`")
}

fn examples(holder: &Value, lead: &str) -> String {
    let examples = holder.get("examples").and_then(Value::as_array);
    let shown: Vec<_> = examples.into_iter().flatten().map(show).collect();
    match shown.split_last() {
        None => String::new(),
        Some((last, [])) => format!("{lead}{last}"),
        Some((last, others)) => format!("{lead}{} or {last}", others.join(", ")),
    }
}

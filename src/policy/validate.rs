//! Parses policies and their annotations, and validates them in Cedar's strict mode.
//!
//! Refuses what it cannot fully understand: texts beyond all depth, templates with slots, unknown annotations'
//! values, duplicate ids, questions about entities that a request does not carry, and whatever
//! the schema does not vouch for. All problems are reported at once, each with its file and line.

use std::collections::HashMap;
use std::str::FromStr;

use cedar_policy::{Effect, Policy, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use miette::Diagnostic;
use serde_json::Value;

use super::depth::{self, Language};
use super::explain::Words;
use super::load::{Sources, Text};
use crate::document::{Problem, Problems};
use crate::domain::{Code, Obligation};

/// How annotations begin that are properties of the policy's obligation.
const PROPERTY: &str = "obligation_";

/// A policy with what its annotations say.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The policy, under its id.
    pub policy: Policy,
    /// The code and words of an objection; only on a `forbid`.
    pub words: Option<Words>,
    /// The obligation that comes with a grant; only on a `permit`.
    pub obligation: Option<Obligation>,
}

impl Rule {
    /// The policy's id as text.
    pub fn id(&self) -> String {
        self.policy.id().to_string()
    }
}

/// The schema: Tollgate's and the operator's attributes, together.
///
/// # Errors
/// A located problem for what Cedar does not accept.
pub fn schema(sources: &Sources) -> Result<Schema, Problems> {
    let mut fragments = Vec::new();
    for text in [&sources.schema, &sources.attributes] {
        if let Some(problem) = depth::exceeded(text, Language::Schema) {
            return Err(problem.into());
        }
        match SchemaFragment::from_cedarschema_str(&text.content) {
            Ok((fragment, _)) => fragments.push(fragment),
            Err(error) => return Err(located(text, "", &error).into()),
        }
    }
    Schema::from_schema_fragments(fragments).map_err(|error| located(&sources.schema, "", &error).into())
}

/// Parses and validates every policy.
///
/// # Errors
/// All problems of all files.
pub fn rules(texts: &[Text], schema: &Schema) -> Result<Vec<Rule>, Problems> {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    let mut places = HashMap::new();
    for text in texts {
        for (rule, place) in parse(text, &mut problems) {
            if let Some(first) = places.insert(rule.policy.id().clone(), place.clone()) {
                let message = format!("the id is already taken by the policy at {first}; ids are unique");
                problems.push(place.problem(&rule.id(), &message));
            } else {
                rules.push(rule);
            }
        }
    }
    problems.extend(validate(&rules, &places, schema));
    if problems.is_empty() { Ok(rules) } else { Err(Problems::from(problems)) }
}

/// Where a policy stands.
#[derive(Clone, Debug)]
struct Place {
    origin: String,
    line: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.origin, self.line)
    }
}

impl Place {
    fn problem(&self, id: &str, message: &str) -> Problem {
        Problem::new(&self.origin, message).at_line(self.line).under(id)
    }
}

fn parse(text: &Text, problems: &mut Vec<Problem>) -> Vec<(Rule, Place)> {
    if let Some(problem) = depth::exceeded(text, Language::Policies) {
        problems.push(problem);
        return Vec::new();
    }
    let set = match PolicySet::from_str(&text.content) {
        Ok(set) => set,
        Err(errors) => {
            problems.extend(errors.iter().map(|error| located(text, "", error)));
            return Vec::new();
        }
    };
    for template in set.templates() {
        let message = "policies with slots (`?principal`, `?resource`) are not accepted; write the entity";
        problems.push(Problem::new(&text.origin, message).under(template.id().to_string()));
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    // Cedar numbers the policies of a text `policy0`, `policy1`, ... in order.
    policies.sort_by_key(|policy| (policy.id().to_string().len(), policy.id().to_string()));
    let mut rules = Vec::new();
    for (number, policy) in policies.into_iter().enumerate() {
        let place = Place { origin: text.origin.clone(), line: line_of(text, policy) };
        let id = policy.annotation("id").map_or_else(|| fallback_id(text, number), str::to_owned);
        let policy = policy.new_id(PolicyId::new(&id));
        match annotate(policy) {
            Ok(rule) => rules.push((rule, place)),
            Err(message) => problems.push(place.problem(&id, &message)),
        }
    }
    rules
}

fn fallback_id(text: &Text, number: usize) -> String {
    let name = std::path::Path::new(&text.origin).file_stem().unwrap_or_default().to_string_lossy();
    format!("{name}#{}", number + 1)
}

/// The line on which a policy begins: it is found by its own text.
fn line_of(text: &Text, policy: &Policy) -> u32 {
    let source = policy.to_string();
    let offset = text.content.find(source.trim()).unwrap_or(0);
    line_at(&text.content, offset)
}

fn line_at(content: &str, offset: usize) -> u32 {
    let before = content.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    u32::try_from(before + 1).unwrap_or(u32::MAX)
}

fn annotate(policy: Policy) -> Result<Rule, String> {
    let form = policy.to_json().map_err(|error| error.to_string())?;
    if form.get("conditions").is_some_and(asks_about_a_literal) {
        return Err("what is left of `in` or `has` must come from the request, such as `resource` or \
                    `context.purpose`: of an entity that the policy itself names, a request carries nothing"
            .into());
    }
    let grants = policy.effect() == Effect::Permit;
    let only_on = |annotation: &str, wanted: bool, effect: &str| {
        if policy.annotation(annotation).is_some() && !wanted {
            return Err(format!("`@{annotation}` belongs on a `{effect}`"));
        }
        Ok(())
    };
    only_on("obligation", grants, "permit")?;
    let has_properties = policy.annotations().any(|(name, _)| name.starts_with(PROPERTY));
    if has_properties && policy.annotation("obligation").is_none() {
        return Err(format!("`@{PROPERTY}...` belongs on a `permit` that has an `@obligation`"));
    }
    for annotation in ["code", "reason", "admin", "passes", "cite"] {
        only_on(annotation, !grants, "forbid")?;
    }
    let obligation = policy.annotation("obligation").map(|kind| obligation(&policy, kind)).transpose()?;
    let words = if grants { None } else { Some(words(&policy)?) };
    Ok(Rule { policy, words, obligation })
}

/// Whether a condition asks what a literal entity is in, or has. Cedar would always answer no,
/// whatever taxonomies and catalog say, and a `forbid` would not object.
fn asks_about_a_literal(expression: &Value) -> bool {
    let names_literal = |operand: &Value| operand.to_string().contains("\"__entity\":");
    let about_literal = |asked: &Value| asked.get("left").is_some_and(names_literal);
    match expression {
        Value::Object(members) => {
            let asks =
                ["in", "has", "hasTag"].iter().filter_map(|name| members.get(*name)).any(about_literal)
                    || members.get("is").is_some_and(|is| is.get("in").is_some() && about_literal(is));
            asks || members.values().any(asks_about_a_literal)
        }
        Value::Array(items) => items.iter().any(asks_about_a_literal),
        _ => false,
    }
}

fn words(policy: &Policy) -> Result<Words, String> {
    let code = policy.annotation("code").map_or(Ok(Code::PolicyForbids), str::parse::<Code>);
    let code = code.map_err(|error| format!("`@code`: {error}"))?;
    let text = |annotation, default: &str| policy.annotation(annotation).unwrap_or(default).to_owned();
    let cite = policy.annotation("cite");
    if cite.is_some_and(|cite| cite.trim().is_empty()) {
        return Err(
            "`@cite` names the law that the policy puts into force, such as `@cite(\"GDPR Art. 9(1)\")`"
                .into(),
        );
    }
    let default_admin = format!("policy `{}` forbids it", policy.id());
    Words::new(
        code,
        &text("reason", code.meaning()),
        &text("admin", &default_admin),
        &text("passes", code.remedy()),
        cite,
    )
}

/// `@obligation("notify")` with `@obligation_address("...")` for its properties.
fn obligation(policy: &Policy, kind: &str) -> Result<Obligation, String> {
    if kind.is_empty() {
        return Err(
            "`@obligation` names the type of the obligation, such as `@obligation(\"notify\")`".into()
        );
    }
    let properties = policy
        .annotations()
        .filter_map(|(name, value)| Some((name.strip_prefix(PROPERTY)?.to_owned(), value.into())))
        .collect();
    Ok(Obligation { id: policy.id().to_string(), kind: kind.to_owned(), properties })
}

fn validate(rules: &[Rule], places: &HashMap<PolicyId, Place>, schema: &Schema) -> Vec<Problem> {
    let set = match PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(error) => return vec![Problem::new("policies", error.to_string())],
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let problem = |error: &cedar_policy::ValidationError| {
        let id = error.policy_id().to_string();
        let message = with_help(error);
        match places.get(error.policy_id()) {
            Some(place) => place.problem(&id, &message),
            None => Problem::new("policies", message).under(id),
        }
    };
    result.validation_errors().map(problem).collect()
}

fn with_help(error: &dyn Diagnostic) -> String {
    error.help().map_or_else(|| error.to_string(), |help| format!("{error}; {help}"))
}

/// A problem at the place that Cedar's diagnostic points to.
fn located(text: &Text, key: &str, error: &dyn Diagnostic) -> Problem {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let problem = Problem::new(&text.origin, with_help(error)).under(key);
    match offset {
        Some(offset) => problem.at_line(line_at(&text.content, offset)),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(condition: &str) -> Option<String> {
        let mut sources = Sources::built_in();
        let content = format!("forbid (principal, action, resource) when {{ {condition} }};");
        sources.policies.push(Text { origin: "house.cedar".to_owned(), content });
        rules(&sources.policies, &schema(&sources).unwrap()).err().map(|problems| problems.to_string())
    }

    #[test]
    fn properties_without_an_obligation_are_refused() {
        let refusal = |policy: &str| {
            let mut sources = Sources::built_in();
            sources.policies.push(Text { origin: "house.cedar".to_owned(), content: policy.to_owned() });
            rules(&sources.policies, &schema(&sources).unwrap()).err().map(|problems| problems.to_string())
        };
        for scope in ["permit", "forbid", "@code(\"POLICY_FORBIDS\") forbid"] {
            let found = refusal(&format!("@obligation_to(\"x\") {scope} (principal, action, resource);"));
            assert!(found.is_some_and(|problem| problem.contains("has an `@obligation`")), "{scope}");
        }
        assert_eq!(
            refusal("@obligation(\"n\") @obligation_to(\"x\") permit (principal, action, resource);"),
            None
        );
    }

    #[test]
    fn refuses_to_ask_about_entities_that_no_request_carries() {
        for condition in [
            r#"Tollgate::Purpose::"DirectMarketing" in context.license.purposes"#,
            r#"!(Tollgate::Region::"FR" in [Tollgate::Region::"EU"])"#,
            r#"(if context.combined_with_external then resource else Tollgate::Dataset::"a") in Tollgate::Dataset::"b""#,
            r#"Tollgate::Dataset::"a" is Tollgate::Dataset in Tollgate::Dataset::"b""#,
            r#"Tollgate::Dataset::"a" has classification"#,
        ] {
            let problems = refusal(condition).unwrap_or_default();
            assert!(problems.contains("must come from the request"), "{condition}: {problems}");
        }
        for condition in [
            r#"resource in Tollgate::Dataset::"sales" && resource is Tollgate::Dataset"#,
            r#"context has purpose && context.purpose in [Tollgate::Purpose::"Marketing"]"#,
            r#"principal == Tollgate::User::"ana" && resource has classification"#,
            r#"context.license.purposes.contains(Tollgate::Purpose::"Marketing")"#,
        ] {
            assert_eq!(refusal(condition), None, "{condition}");
        }
    }
}

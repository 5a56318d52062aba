//! What is left of the conjunction of all terms once the license is known.
//!
//! A term that a license does not have is decided when the license is first asked about, not on every request.
//! Decides only tests of the license by itself, and only those that cannot err: whether it has a
//! member, whether a list of it has a text or is empty. Refuses to touch anything else of a policy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use cedar_policy::PolicySet;
use serde_json::Value as Json;

use super::assemble::Value;
use super::compose::{self, ComposeError};

/// The deepest condition, in levels of its JSON, that is composed anew: Cedar reads it by recursion, and a
/// request has a smaller stack than a reload.
const MAX_DEPTH: usize = 128;

/// The most terms that are composed anew for a license: it happens while a request waits.
const MAX_TERMS: usize = 100;

/// The most kinds of licenses that have a conjunction of their own; the others share the whole one.
const MAX_KINDS: usize = 1_000;

/// The conjunction of a policy set's terms, whole and by kind of license.
pub(super) struct Residuals {
    /// Tells this policy set from all others.
    number: u64,
    condition: Json,
    tests: Vec<Test>,
    whole: Arc<PolicySet>,
    /// By the outcome of `tests`.
    kinds: Mutex<HashMap<Vec<Option<bool>>, Arc<PolicySet>>>,
}

/// What was found for a license, kept with it.
#[derive(Debug)]
pub(super) struct Residual {
    number: u64,
    set: Arc<PolicySet>,
}

/// A test of the license by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    /// The members that lead from the license to what is tested.
    path: Vec<String>,
    asked: Asked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    HasMember(String),
    HasText(String),
    IsEmpty,
}

impl Residuals {
    /// The conjunction of so many terms under one condition.
    ///
    /// # Errors
    /// When Cedar does not accept it.
    pub(super) fn new(condition: Json, terms: usize) -> Result<Self, ComposeError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut tests = Vec::new();
        if terms <= MAX_TERMS && depth(&condition) <= MAX_DEPTH {
            collect(&condition, &mut tests);
        }
        let whole = Arc::new(set(condition.clone())?);
        Ok(Self { number: NUMBERS.fetch_add(1, Relaxed), condition, tests, whole, kinds: Mutex::default() })
    }

    /// What is to be asked of requests under this license, given what was `found` for it before.
    pub(super) fn of(&self, license: &Value, found: &arc_swap::ArcSwapOption<Residual>) -> Arc<PolicySet> {
        if let Some(found) = &*found.load()
            && found.number == self.number
        {
            return found.set.clone();
        }
        let set = self.kind(license);
        found.store(Some(Arc::new(Residual { number: self.number, set: set.clone() })));
        set
    }

    fn kind(&self, license: &Value) -> Arc<PolicySet> {
        let outcomes: Vec<_> = self.tests.iter().map(|test| test.of(license)).collect();
        let kinds = || self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = kinds().get(&outcomes) {
            return set.clone();
        }
        if kinds().len() >= MAX_KINDS || outcomes.iter().all(Option::is_none) {
            return self.whole.clone();
        }
        // Without the lock, for it takes a while; who comes second takes what the first made.
        let known = |expression: &Json| Test::read(expression)?.of(license);
        let folded = compose::fold(self.condition.clone(), &known);
        // Cedar accepted the whole, and so its parts; if it did not, the whole would say the same.
        let set = set(folded).map_or_else(|_| self.whole.clone(), Arc::new);
        kinds().entry(outcomes).or_insert(set).clone()
    }
}

fn set(condition: Json) -> Result<PolicySet, ComposeError> {
    Ok(PolicySet::from_policies([compose::permit(condition)?])?)
}

fn depth(expression: &Json) -> usize {
    let below = match expression {
        Json::Object(members) => members.values().map(depth).max(),
        Json::Array(items) => items.iter().map(depth).max(),
        _ => None,
    };
    below.map_or(0, |below| below + 1)
}

/// The tests anywhere in an expression.
fn collect(expression: &Json, tests: &mut Vec<Test>) {
    match (Test::read(expression), expression) {
        (Some(test), _) if tests.contains(&test) => {}
        (Some(test), _) => tests.push(test),
        (None, Json::Object(members)) => members.values().for_each(|member| collect(member, tests)),
        (None, Json::Array(items)) => items.iter().for_each(|item| collect(item, tests)),
        (None, _) => {}
    }
}

impl Test {
    /// The test that an expression is.
    fn read(expression: &Json) -> Option<Self> {
        let (operator, operands) = expression.as_object()?.iter().next()?;
        let (tested, asked) = match operator.as_str() {
            "has" => ("left", Asked::HasMember(operands.get("attr")?.as_str()?.to_owned())),
            "contains" => ("left", Asked::HasText(operands.get("right")?.get("Value")?.as_str()?.to_owned())),
            "isEmpty" => ("arg", Asked::IsEmpty),
            _ => return None,
        };
        Some(Self { path: path(operands.get(tested)?)?, asked })
    }

    /// Its outcome; unknown where what is tested is not there, or is something else.
    fn of(&self, license: &Value) -> Option<bool> {
        let tested = self.path.iter().try_fold(license.clone(), |value, name| value.member(name))?;
        match &self.asked {
            Asked::HasMember(name) => tested.has(name),
            Asked::HasText(text) => tested.contains(text),
            Asked::IsEmpty => tested.is_empty(),
        }
    }
}

/// The members that lead from the license to what an expression reads.
fn path(expression: &Json) -> Option<Vec<String>> {
    let access = expression.get(".")?;
    let (read, name) = (access.get("left")?, access.get("attr")?.as_str()?);
    if read.get("Var").and_then(Json::as_str) == Some("context") {
        return (name == "license").then(Vec::new);
    }
    let mut path = path(read)?;
    path.push(name.to_owned());
    Some(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::entities::{self, LicenseFacts, Types};
    use super::super::load::Sources;
    use super::super::{Snapshot, validate};
    use super::*;
    use crate::domain::Terms;

    fn license(more: &Json) -> entities::CedarLicense {
        let mut terms = json!({ "datasets": ["a"], "actions": ["read"], "purposes": ["Marketing"] });
        terms.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let terms: Terms = serde_json::from_value(terms).unwrap();
        let facts = LicenseFacts { digest: [0; 32], id: "l", issuer: "i", assignee: "acme", terms: &terms };
        entities::license(facts, &Types::new().unwrap()).unwrap()
    }

    fn left(snapshot: &Snapshot, license: &entities::CedarLicense) -> String {
        let set = snapshot.composed.of(&license.record, &license.residual);
        set.policies().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_license_does_not_have_is_not_asked_of_requests() {
        let snapshot = Snapshot::compile(&Sources::built_in(), 0).unwrap();
        let all = ["users", "roles", "projects", "regions", "environments", "anonymization", "prohibitions"];
        let plain = left(&snapshot, &license(&json!({})));
        for term in all {
            assert!(!plain.contains(term), "{term}: {plain}");
        }
        for term in ["assignee", "datasets", "actions", "purposes"] {
            assert!(plain.contains(term), "{term}: {plain}");
        }
        let limited = left(&snapshot, &license(&json!({ "roles": ["r"], "prohibitions": ["reidentify"] })));
        for (words, asked) in [
            ("principal in context.license.roles", true),
            ("license has", false),
            ("!context.combined_with_external", true),
            ("prohibitions", false),
        ] {
            assert_eq!(limited.contains(words), asked, "{words}: {limited}");
        }
    }

    #[test]
    fn licenses_of_one_kind_share_what_is_left() {
        let snapshot = Snapshot::compile(&Sources::built_in(), 0).unwrap();
        let of = |license: &entities::CedarLicense| snapshot.composed.of(&license.record, &license.residual);
        let (ana, ben) = (license(&json!({ "users": ["ana"] })), license(&json!({ "users": ["ben"] })));
        assert!(Arc::ptr_eq(&of(&ana), &of(&ben)));
        assert!(!Arc::ptr_eq(&of(&ana), &of(&license(&json!({})))));
        // Other policies, other questions: nothing of the old ones is left.
        let mut sources = Sources::built_in();
        sources.policies.retain(|policy| !policy.origin.ends_with("user.cedar"));
        let newer = Snapshot::compile(&sources, 0).unwrap();
        assert!(left(&snapshot, &ana).contains("users") && !left(&newer, &ana).contains("users"));
        assert!(left(&snapshot, &ana).contains("users"));
    }

    #[test]
    fn what_is_too_deep_for_a_request_is_asked_whole() {
        let snapshot = |alternatives: usize| {
            let mut sources = Sources::built_in();
            let condition = vec!["context.combined_with_external"; alternatives].join(" || ");
            let content = format!("forbid (principal, action, resource) unless {{ {condition} }};");
            sources.policies.push(super::super::load::Text { origin: "a.cedar".to_owned(), content });
            Snapshot::compile(&sources, 0).unwrap()
        };
        assert!(!snapshot(10).composed.tests.is_empty());
        let deep = snapshot(480);
        assert!(deep.composed.tests.is_empty());
        // What a request has.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let asked =
            move || Arc::ptr_eq(&deep.composed.whole, &deep.composed.kind(&license(&json!({})).record));
        assert!(thread.spawn(asked).unwrap().join().unwrap());
    }

    #[test]
    fn only_tests_of_the_license_by_itself_are_read() {
        let read = |condition: &str| {
            let mut sources = Sources::built_in();
            let content = format!("forbid (principal, action, resource) when {{ {condition} }};");
            sources.policies = vec![super::super::load::Text { origin: "a.cedar".to_owned(), content }];
            let rules = validate::rules(&sources.policies, &validate::schema(&sources).unwrap()).unwrap();
            let condition = compose::conjunction(rules.iter().map(|rule| &rule.policy)).unwrap();
            Residuals::new(condition, 1).unwrap().tests.len()
        };
        for (condition, tests) in [
            ("context.license has tier", 1),
            ("context.license.prohibitions.contains(\"combine\") || context.license.actions.isEmpty()", 2),
            ("context.license has anonymization && context.license.anonymization has epsilon", 2),
            ("context.license.actions.contains(context.action)", 0),
            ("context has purpose && resource has region", 0),
            ("context.license.purposes.contains(Tollgate::Purpose::\"Marketing\")", 0),
            ("context.combined_with.isEmpty()", 0),
        ] {
            assert_eq!(read(condition), tests, "{condition}");
        }
        // An entity is not a record: what it has, only the request's store knows.
        assert_eq!(license(&json!({})).record.member("assignee").unwrap().has("id"), None);
    }
}

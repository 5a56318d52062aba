//! The law of the index, and of the small store of a request.
//!
//! The same decision, the same reasons and the same errors as Cedar gives when it is asked with every
//! policy and every entity.

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::super::entities::{LicenseFacts, Types};
use super::super::load::{Sources, Text};
use super::*;

/// Actions in groups, one of them in two, and groups in a group.
const ACTIONS: &str = r#"
  action "any";
  action "looking", "moving" in ["any"];
  action "read", "query" in ["looking"] appliesTo { principal: User, resource: Dataset, context: Question };
  action "export" in ["looking", "moving"] appliesTo { principal: User, resource: Dataset, context: Question };
  action "share" in ["moving"] appliesTo { principal: User, resource: Dataset, context: Question };
  action "aggregate", "analyse", "train", "derive", "combine", "stream", "delete"
    appliesTo { principal: User, resource: Dataset, context: Question };
}
"#;

const ATTRIBUTES: &str = "namespace Tollgate { type Attributes = { n?: Long, origin?: Region, copy?: Dataset }; type Properties = {}; }";

const REGIONS: &[(&str, &[&str])] =
    &[("FR", &["EU"]), ("NO", &["EEA"]), ("EU", &["EEA"]), ("EEA", &[]), ("US", &[])];

const PURPOSES: &[(&str, &[&str])] =
    &[("Research", &[]), ("Science", &["Research"]), ("Study", &["Science", "Teaching"]), ("Teaching", &[])];

const PRINCIPALS: &[&str] = &[
    "principal",
    r#"principal == Tollgate::User::"ana""#,
    r#"principal in Tollgate::Role::"analyst""#,
    r#"principal in Tollgate::Organization::"acme""#,
    r#"principal in Tollgate::Project::"p1""#,
    "principal is Tollgate::User",
    r#"principal is Tollgate::User in Tollgate::Role::"intern""#,
];

const ACTION_SCOPES: &[&str] = &[
    "action",
    r#"action == Tollgate::Action::"read""#,
    r#"action in [Tollgate::Action::"read", Tollgate::Action::"share"]"#,
    r#"action in Tollgate::Action::"looking""#,
    r#"action in [Tollgate::Action::"moving", Tollgate::Action::"looking"]"#,
    r#"action in Tollgate::Action::"any""#,
    r#"action in [Tollgate::Action::"train"]"#,
];

const RESOURCES: &[&str] = &[
    "resource",
    r#"resource == Tollgate::Dataset::"sales/eu/orders""#,
    r#"resource in Tollgate::Dataset::"sales""#,
    r#"resource in Tollgate::Dataset::"*""#,
    r#"resource in Tollgate::Dataset::"bundles/all""#,
    "resource is Tollgate::Dataset",
    r#"resource is Tollgate::Dataset in Tollgate::Dataset::"sales/eu""#,
];

/// Conditions that hold, do not hold, depend, or err.
const CONDITIONS: &[&str] = &[
    "",
    "",
    "when { true }",
    "when { false }",
    "unless { context.combined_with_external }",
    "when { context.attributes has n && context.attributes.n + 9223372036854775807 > 0 }",
    "unless { context.attributes has n && context.attributes.n * 9223372036854775807 < 5 }",
    "when { context.attributes has n } unless { context.attributes.n < 1 }",
    r#"when { context has purpose && context.purpose in Tollgate::Purpose::"Research" }"#,
    r#"unless { context has region && context.region in Tollgate::Region::"EU" }"#,
    r#"when { resource has region && resource.region in Tollgate::Region::"EEA" }"#,
    r#"when { context.attributes has origin && context.attributes.origin in Tollgate::Region::"EU" }"#,
    r#"when { context.attributes has copy && context.attributes.copy in Tollgate::Dataset::"bundles" }"#,
    r#"when { context.attributes has copy && context.attributes.copy has region && context.attributes.copy.region in Tollgate::Region::"EU" }"#,
    r#"when { principal in Tollgate::Role::"analyst" }"#,
    r#"unless { action in Tollgate::Action::"moving" }"#,
    r#"unless { resource in Tollgate::Dataset::"sales/eu" }"#,
];

/// A policy as text, without its id.
fn policy() -> impl Strategy<Value = String> {
    let effect = select(vec!["forbid", "forbid", "permit", "@obligation(\"notify\") permit"]);
    let scope = (select(PRINCIPALS), select(ACTION_SCOPES), select(RESOURCES));
    (effect, scope, select(CONDITIONS), select(CONDITIONS)).prop_map(
        |(effect, (principal, action, resource), one, other)| {
            let action = if one.is_empty() { "action" } else { action };
            format!("{effect} ({principal}, {action}, {resource}) {one} {other};")
        },
    )
}

fn request() -> impl Strategy<Value = CheckRequest> {
    let subject = (select(vec!["ana", "bo"]), select(vec!["acme", "other", ""]));
    let roles = subsequence(vec!["analyst", "intern"], 0..=2);
    let data =
        ["sales", "sales/eu", "sales/eu/orders", "sales/eu/orders/2026", "sales/europe", "hr/new", "*"];
    let attributes = select(vec![
        json!({}),
        json!({ "n": 0 }),
        json!({ "n": 7 }),
        json!({ "origin": { "__entity": { "type": "Tollgate::Region", "id": "FR" } } }),
        json!({ "origin": { "__entity": { "type": "Tollgate::Region", "id": "US" } }, "n": -1 }),
        json!({ "copy": { "__entity": { "type": "Tollgate::Dataset", "id": "sales/eu/orders/2026" } } }),
    ]);
    let words = (select(vec!["", "Study", "Teaching"]), select(vec!["", "FR", "US"]), select(vec!["", "p1"]));
    let action = select(vec!["read", "query", "export", "share", "train"]);
    (subject, roles, select(data.to_vec()), attributes, words, action, any::<bool>()).prop_map(
        |((id, organization), roles, data, attributes, (purpose, region, project), action, external)| {
            let mut request = CheckRequest {
                action: action.to_owned(),
                purpose: purpose.to_owned(),
                region: region.to_owned(),
                project: project.to_owned(),
                combined_with_external: external,
                context: attributes.as_object().unwrap().clone(),
                ..CheckRequest::default()
            };
            request.subject.id = id.to_owned();
            request.subject.organization = organization.to_owned();
            request.subject.roles = roles.into_iter().map(str::to_owned).collect();
            request.resource.id = data.to_owned();
            request
        },
    )
}

fn text(content: String) -> Text {
    Text { origin: "test".to_owned(), content }
}

fn taxonomy(kind: &str, words: &[(&str, &[&str])]) -> Text {
    let uid = |id: &str| json!({ "type": format!("Tollgate::{kind}"), "id": id });
    let entity = |(id, parents): &(&str, &[&str])| {
        let parents: Vec<_> = parents.iter().map(|parent| uid(parent)).collect();
        json!({ "uid": uid(id), "attrs": {}, "parents": parents })
    };
    text(json!(words.iter().map(entity).collect::<Vec<_>>()).to_string())
}

fn catalog() -> Text {
    let uid = |id: &str| json!({ "type": "Tollgate::Dataset", "id": id });
    let region = |id: &str| json!({ "__entity": { "type": "Tollgate::Region", "id": id } });
    text(
        json!([
            { "uid": uid("sales/eu"), "attrs": { "region": region("FR") }, "parents": [] },
            { "uid": uid("sales/eu/orders"), "attrs": { "region": region("NO") }, "parents": [uid("bundles/all")] },
            { "uid": uid("hr"), "attrs": { "region": region("US") }, "parents": [] },
            { "uid": uid("bundles/all"), "attrs": {}, "parents": [] },
        ])
        .to_string(),
    )
}

/// The built-in schema with groups of actions, and only these policies.
fn snapshot(policies: &[String]) -> Snapshot {
    let built_in = Sources::built_in();
    let schema = built_in.schema.content.clone();
    let (before, _) = schema.split_once("  action \"read\"").unwrap();
    let numbered = policies.iter().enumerate().map(|(n, policy)| format!("@id(\"p{n}\") {policy}\n"));
    let sources = Sources {
        schema: text(format!("{before}{ACTIONS}")),
        attributes: text(ATTRIBUTES.to_owned()),
        purposes: taxonomy("Purpose", PURPOSES),
        regions: taxonomy("Region", REGIONS),
        catalog: catalog(),
        policies: vec![text(numbered.collect())],
        ..built_in
    };
    Snapshot::compile(&sources, 0).unwrap_or_else(|problems| panic!("{problems}"))
}

fn terms() -> Terms {
    let terms = json!({ "datasets": ["*"], "actions": ["read"], "purposes": ["Research"] });
    serde_json::from_value(terms).unwrap()
}

/// What Cedar says when it is asked with every policy and every entity that there is.
fn full(
    snapshot: &Snapshot,
    everything: &Entities,
    license: Licensed<'_>,
    request: &CheckRequest,
) -> Response {
    let asked = snapshot.ask(license, request).unwrap();
    let own = [asked.principal.entity.entity(), asked.resource.entity.entity()];
    let entities = everything.clone().upsert_entities(own, None).unwrap();
    let policies = snapshot.rules.values().map(|rule| rule.policy.clone());
    Authorizer::new().is_authorized(&asked.request, &PolicySet::from_policies(policies).unwrap(), &entities)
}

fn ids<'a>(ids: impl Iterator<Item = &'a PolicyId>) -> BTreeSet<String> {
    ids.map(PolicyId::to_string).collect()
}

fn assert_same(snapshot: &Snapshot, answer: &Answer, full: &Response) -> Result<bool, TestCaseError> {
    let satisfied = ids(full.diagnostics().reason());
    let errors = ids(full.diagnostics().errors().map(|error| {
        let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
        error.policy_id()
    }));
    let permitted = full.decision() == cedar_policy::Decision::Allow;
    let coded = |wanted: &dyn Fn(Code) -> bool| -> BTreeSet<String> {
        let reasons = answer.reasons.iter().filter(|reason| wanted(reason.code));
        reasons.map(|reason| reason.policy_id.clone()).collect()
    };
    prop_assert_eq!(answer.reasons.is_empty(), permitted && errors.is_empty(), "decision");
    prop_assert_eq!(&coded(&|code| code == Code::PolicyError), &errors, "errors");
    let forbidding = if permitted { BTreeSet::new() } else { satisfied.clone() };
    prop_assert_eq!(&coded(&|code| code == Code::PolicyForbids), &forbidding, "reasons");
    let silent = !permitted && forbidding.is_empty() && errors.is_empty();
    prop_assert_eq!(coded(&|code| code == Code::NoPolicyPermits).len(), usize::from(silent), "no permit");
    if answer.reasons.is_empty() {
        prop_assert_eq!(&answer.granting.iter().cloned().collect::<BTreeSet<_>>(), &satisfied);
        let obliging = snapshot.rules.values().filter(|rule| rule.obligation.is_some());
        let obliging: BTreeSet<_> =
            obliging.map(|rule| rule.id()).filter(|id| satisfied.contains(id)).collect();
        prop_assert_eq!(
            answer.obligations.iter().map(|duty| duty.id.clone()).collect::<BTreeSet<_>>(),
            obliging
        );
    }
    Ok(answer.reasons.is_empty())
}

#[test]
fn the_index_answers_as_all_policies_and_all_entities_do() {
    let types = Types::new().unwrap();
    let terms = terms();
    let facts = LicenseFacts { digest: [0; 32], id: "l", issuer: "i", assignee: "acme", terms: &terms };
    let cedar = super::super::entities::license(facts, &types).unwrap();
    let license = Licensed { license: &cedar, assignee: "acme", terms: &terms };
    let (allowed, denied) = (Cell::new(0), Cell::new(0));
    let sets = prop::collection::vec(policy(), 0..14);
    let granting = select(vec!["", "permit (principal, action, resource);"]);
    let strategy = (sets, granting, prop::collection::vec(request(), 24));
    let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&strategy, |(mut policies, granting, requests)| {
        policies.push(granting.to_owned());
        policies.retain(|policy| !policy.is_empty());
        let snapshot = snapshot(&policies);
        let nodes = [&snapshot.catalog, &snapshot.purposes, &snapshot.regions];
        let nodes = nodes.into_iter().flat_map(|nodes| nodes.values()).chain(snapshot.actions.values());
        let unlisted = snapshot.dataset(&"sales/eu/orders/2026".parse().unwrap());
        let nodes = nodes.chain([&unlisted]).map(|node| node.entity.entity());
        let everything = Entities::from_entities(nodes, None).unwrap();
        for request in &requests {
            let answer = snapshot.evaluate(license, request);
            let same = assert_same(&snapshot, &answer, &full(&snapshot, &everything, license, request))?;
            let count = if same { &allowed } else { &denied };
            count.set(count.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(allowed.get() > 60 && denied.get() > 60, "{} allowed, {} denied", allowed.get(), denied.get());
}

#[test]
fn a_license_that_the_schema_does_not_accept_is_refused_whatever_was_asked_before() {
    let mut sources = Sources::built_in();
    sources.schema.content = sources.schema.content.replace("    environments?: Set<String>,\n", "");
    sources.policies.retain(|policy| !policy.origin.ends_with("environment.cedar"));
    let snapshot = Snapshot::compile(&sources, 0).unwrap();
    let allows = |more: serde_json::Value| {
        let mut value = json!({ "datasets": ["sales"], "actions": ["read"], "purposes": ["Marketing"] });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let terms: Terms = serde_json::from_value(value).unwrap();
        let facts = LicenseFacts { digest: [0; 32], id: "l", issuer: "i", assignee: "acme", terms: &terms };
        let cedar = snapshot.license(facts).unwrap();
        let mut request = CheckRequest { purpose: "Marketing".to_owned(), ..CheckRequest::default() };
        request.subject.id = "ana".to_owned();
        request.subject.organization = "acme".to_owned();
        request.action = "read".to_owned();
        request.resource.id = "sales".to_owned();
        let license = Licensed { license: &cedar, assignee: "acme", terms: &terms };
        snapshot.evaluate(license, &request).reasons.is_empty()
    };
    let limited = json!({ "environments": ["enclave"] });
    let answers = [allows(limited.clone()), allows(json!({})), allows(limited)];
    assert_eq!(answers, [false, true, false]);
}

#[test]
fn a_role_that_is_named_again_and_again_is_one_role() {
    let types = Types::new().unwrap();
    let snapshot = snapshot(&[]);
    let mut request = CheckRequest::default();
    request.subject.roles = ["b", "a", "b", "", "a"].map(str::to_owned).to_vec();
    assert_eq!(snapshot.principal(&request).ancestors, ["a", "b"].map(|role| types.role(role)));
}

#[test]
fn what_the_gate_would_drop_is_refused() {
    let refused = |change: &dyn Fn(&mut Sources)| {
        let mut sources = Sources::built_in();
        change(&mut sources);
        Snapshot::compile(&sources, 0).err().map(|problems| problems.to_string()).unwrap_or_default()
    };
    let tagged = refused(&|sources| {
        let schema = &mut sources.schema.content;
        *schema = schema.replacen(
            "    anonymization?: Release,\n  };",
            "    anonymization?: Release,\n  } tags String;",
            1,
        );
        sources.catalog.content =
            r#"[{"uid": {"type": "Tollgate::Dataset", "id": "a"}, "attrs": {}, "parents": [], "tags": {"pii": "yes"}}]"#
                .to_owned();
    });
    assert!(tagged.contains("tags are not read"), "{tagged}");
    let attributed = refused(&|sources| {
        let schema = &mut sources.schema.content;
        *schema =
            schema.replace("entity Region in [Region];", "entity Region in [Region] = { embargoed?: Bool };");
        sources.regions.content =
            r#"[{"uid": {"type": "Tollgate::Region", "id": "FR"}, "attrs": {"embargoed": true}, "parents": []}]"#
                .to_owned();
    });
    assert!(attributed.contains("attributes are not read"), "{attributed}");
}

#[test]
fn an_entity_that_is_not_listed_is_refused_however_often_the_same_was_asked_of_another() {
    let mut sources = Sources::built_in();
    sources.schema.content =
        sources.schema.content.replace("entity Project;", r#"entity Project enum ["p1", "p2"];"#);
    let snapshot = Snapshot::compile(&sources, 0).unwrap();
    let terms = terms();
    let facts = LicenseFacts { digest: [0; 32], id: "l", issuer: "i", assignee: "acme", terms: &terms };
    let cedar = snapshot.license(facts).unwrap();
    let license = Licensed { license: &cedar, assignee: "acme", terms: &terms };
    let invalid = |project: &str| {
        let mut request = CheckRequest { project: project.to_owned(), ..CheckRequest::default() };
        request.subject.id = "ana".to_owned();
        request.action = "read".to_owned();
        request.resource.id = "sales".to_owned();
        let answer = snapshot.evaluate(license, &request);
        answer.reasons.iter().any(|reason| reason.code == Code::ContextInvalid)
    };
    let found = ["p1", "p2", "p3", "p1", "p3"].map(invalid);
    assert_eq!(found, [false, false, true, false, true]);
}

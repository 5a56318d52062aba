//! A remembered answer is the fresh one, and no two questions that differ in anything that an
//! answer can depend on share a memory.

use std::cell::RefCell;
use std::collections::HashSet;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tollgate::decision::license_facts;
use tollgate::domain::CheckRequest;
use tollgate::license::{Claims, VerifiedLicense, verify};
use tollgate::policy::{CedarLicense, Licensed, Snapshot, Sources};

use crate::gate::{keyring, policies, signed};
use crate::samples;

fn verified(claims: &Claims) -> VerifiedLicense {
    verify::verify(&signed(claims), &keyring().current()).unwrap()
}

fn cedar(snapshot: &Snapshot, license: &VerifiedLicense) -> CedarLicense {
    snapshot.license(license_facts(license)).unwrap()
}

/// Asks, and tells whether the answer was remembered. It is the fresh one in any case.
fn ask(snapshot: &Snapshot, claims: &Claims, request: &CheckRequest) -> bool {
    let license = verified(claims);
    let cedar = cedar(snapshot, &license);
    let licensed = Licensed { license: &cedar, assignee: &license.claims.sub, terms: &license.claims.terms };
    let (answer, remembered) = snapshot.answer(licensed, request);
    assert_eq!(*answer, snapshot.evaluate(licensed, request));
    remembered
}

type ChangeOf<T> = fn(&mut T);

/// Moves a field of the request on: never back to what it was, and never to another field's.
const OF_REQUEST: [(&str, ChangeOf<CheckRequest>); 18] = [
    ("subject.id", |request| request.subject.id.push('1')),
    ("subject.organization", |request| request.subject.organization.push('1')),
    ("subject.roles", |request| request.subject.roles.push("1".to_owned())),
    ("an empty role", |request| request.subject.roles.push(String::new())),
    ("roles split", |request| request.subject.roles = vec!["a".to_owned(), "bc".to_owned()]),
    ("roles split elsewhere", |request| request.subject.roles = vec!["ab".to_owned(), "c".to_owned()]),
    ("action", |request| request.action.push('1')),
    ("resource.id", |request| request.resource.id.push('1')),
    ("resource.type", |request| request.resource.kind.push('1')),
    ("resource.properties", |request| drop(request.resource.properties.insert("p".to_owned(), json!(1)))),
    ("purpose", |request| request.purpose.push('1')),
    ("region", |request| request.region.push('1')),
    ("project", |request| request.project.push('1')),
    ("environment", |request| request.environment.push('1')),
    ("combined_with", |request| request.combined_with.push("1".to_owned())),
    ("combined_with_external", |request| request.combined_with_external ^= true),
    ("context", |request| drop(request.context.insert("c".to_owned(), json!("1")))),
    ("the type in context", |request| drop(request.context.insert("c".to_owned(), json!(1)))),
];

const OF_LICENSE: [(&str, ChangeOf<Claims>); 22] = [
    ("sub", |claims| claims.sub.push('1')),
    ("jti", |claims| claims.jti.push('1')),
    ("iat", |claims| claims.iat = Timestamp::from_second(1).unwrap()),
    ("nbf", |claims| claims.nbf = Timestamp::from_second(1).unwrap()),
    ("exp", |claims| claims.exp = Timestamp::from_second(2_000_000_000).unwrap()),
    ("aud", |claims| claims.aud = Some(tollgate::license::Audience::One("1".to_owned()))),
    ("cnf", |claims| claims.cnf = Some(tollgate::license::Confirmation::SpiffeId("1".to_owned()))),
    ("tier", |claims| claims.terms.tier = Some("1".to_owned())),
    ("datasets", |claims| claims.terms.datasets.extend(["1".parse().unwrap()])),
    ("actions", |claims| claims.terms.actions.extend([tollgate::domain::Action::Delete])),
    ("purposes", |claims| claims.terms.purposes.extend(["1".to_owned()])),
    ("users", |claims| claims.terms.users.get_or_insert_default().extend(["1".to_owned()])),
    ("roles", |claims| claims.terms.roles.get_or_insert_default().extend(["1".to_owned()])),
    ("projects", |claims| claims.terms.projects.get_or_insert_default().extend(["1".to_owned()])),
    ("regions", |claims| claims.terms.regions.get_or_insert_default().extend(["1".to_owned()])),
    ("environments", |claims| claims.terms.environments.get_or_insert_default().extend(["1".to_owned()])),
    ("prohibitions", |claims| {
        change(claims, "prohibitions", json!(["redistribute", "combine", "reidentify"]));
    }),
    ("anonymization", |claims| change(claims, "anonymization", json!({ "k_anonymity": 99 }))),
    ("legal_basis", |claims| change(claims, "legal_basis", json!("1"))),
    ("regulations", |claims| change(claims, "regulations", json!(["hipaa"]))),
    ("duties", |claims| change(claims, "duties", json!([{ "id": "1", "type": "1" }]))),
    ("retention", |claims| change(claims, "retention", json!({ "duration": "P1D", "then": "delete" }))),
];

fn change(claims: &mut Claims, term: &str, value: serde_json::Value) {
    let mut terms = serde_json::to_value(&claims.terms).unwrap();
    terms[term] = value;
    claims.terms = serde_json::from_value(terms).unwrap();
}

fn snapshot() -> Snapshot {
    Snapshot::compile(&Sources::built_in(), 8 << 20).unwrap()
}

#[test]
fn questions_that_differ_in_one_field_share_no_memory() {
    let snapshot = snapshot();
    let (license, request) = (samples::claims(), samples::request());
    assert!(!ask(&snapshot, &license, &request));
    assert!(ask(&snapshot, &license, &request), "the same question is remembered");
    for (name, change) in OF_REQUEST {
        let mut other = request.clone();
        change(&mut other);
        assert!(!ask(&snapshot, &license, &other), "{name} makes no difference");
    }
    for (name, change) in OF_LICENSE {
        let mut other = license.clone();
        change(&mut other);
        assert_ne!(other, license, "{name}");
        assert!(!ask(&snapshot, &other, &request), "{name} makes no difference");
    }
}

#[test]
fn what_policies_cannot_see_shares_a_memory() {
    let snapshot = snapshot();
    let (license, mut request) = (samples::claims(), samples::request());
    assert!(!ask(&snapshot, &license, &request));
    request.request_id = "another".to_owned();
    request.holder.spiffe_id = "spiffe://acme/loader".to_owned();
    request.usage.insert("rows".to_owned(), 1.0);
    request.dry_run = true;
    assert!(ask(&snapshot, &license, &request));
}

/// Words of one or two letters of two, empty ones too: concatenated they are often the same.
fn short() -> impl Strategy<Value = String> {
    "[ab/]{0,2}"
}

fn confusable() -> impl Strategy<Value = CheckRequest> {
    let words = prop::collection::vec(short(), 9);
    (words, prop::collection::vec(short(), 0..3), prop::collection::vec(short(), 0..3)).prop_map(
        |(words, roles, combined_with)| {
            let mut request = CheckRequest { combined_with, ..CheckRequest::default() };
            let mut words = words.into_iter();
            let fields = [
                &mut request.subject.id,
                &mut request.subject.organization,
                &mut request.action,
                &mut request.resource.id,
                &mut request.resource.kind,
                &mut request.purpose,
                &mut request.region,
                &mut request.project,
                &mut request.environment,
            ];
            fields.into_iter().for_each(|field| *field = words.next().unwrap());
            request.subject.roles = roles;
            request
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_remembered_answer_is_the_fresh_one(license in samples::license(), request in samples::any_request()) {
        let snapshot = policies().current();
        ask(&snapshot, &license, &request);
        prop_assert!(ask(&snapshot, &license, &request));
    }
}

#[test]
fn only_the_same_question_is_remembered() {
    let (snapshot, asked) = (snapshot(), RefCell::new(HashSet::new()));
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&confusable(), |request| {
        let known = !asked.borrow_mut().insert(format!("{request:?}"));
        prop_assert_eq!(ask(&snapshot, &samples::claims(), &request), known);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

//! Licenses and requests of few words, so that they often fit each other.
//!
//! Refuses words that the gate does not know: those deny for a reason of their own.

use std::collections::BTreeSet;

use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;
use tollgate::domain::request::{Holder, Resource, Subject};
use tollgate::domain::terms::{Anonymization, Prohibition, Terms};
use tollgate::domain::{Action, CheckRequest, DatasetPath, Obligation};
use tollgate::license::{Audience, Claims, Confirmation};

use crate::gate::{AUDIENCE, ISSUER};

pub(crate) const USERS: [&str; 3] = ["ana", "bo", "cy"];
pub(crate) const ROLES: [&str; 3] = ["analyst", "engineer", "intern"];
pub(crate) const PROJECTS: [&str; 2] = ["p1", "p2"];
pub(crate) const DATASETS: [&str; 5] = ["*", "sales", "sales/eu", "sales/eu/orders", "sales/europe"];
pub(crate) const ACTIONS: [Action; 5] =
    [Action::Read, Action::Combine, Action::Share, Action::Export, Action::Train];
pub(crate) const PURPOSES: [&str; 4] =
    ["ResearchAndDevelopment", "ScientificResearch", "AcademicResearch", "Marketing"];
pub(crate) const REGIONS: [&str; 5] = ["FR", "DE", "NO", "US", "CH"];
pub(crate) const GROUPS: [&str; 4] = ["EU", "EEA", "US", "FR"];
pub(crate) const ENVIRONMENTS: [&str; 2] = ["enclave", "lab"];
pub(crate) const PROHIBITIONS: [Prohibition; 4] =
    [Prohibition::Combine, Prohibition::CombineExternal, Prohibition::Reidentify, Prohibition::Redistribute];
pub(crate) const DUTIES: [&str; 2] = ["notify", "watermark"];
pub(crate) const HOLDERS: [&str; 2] = ["spiffe://acme/loader", "spiffe://acme/other"];

/// A license that limits nothing but data, action and purpose.
pub(crate) fn claims() -> Claims {
    let claims = json!({
        "iss": ISSUER, "sub": "acme", "jti": "license-1",
        "iat": 1_767_225_600, "nbf": 1_767_225_600, "exp": 1_798_761_600,
        "terms": { "datasets": ["sales/eu"], "actions": ["read"], "purposes": ["ResearchAndDevelopment"] },
    });
    serde_json::from_value(claims).unwrap()
}

/// A request that [`claims`] allows.
pub(crate) fn request() -> CheckRequest {
    CheckRequest {
        subject: Subject { id: "ana".to_owned(), organization: "acme".to_owned(), roles: Vec::new() },
        action: "read".to_owned(),
        resource: Resource { id: "sales/eu/orders".to_owned(), ..Resource::default() },
        purpose: "ScientificResearch".to_owned(),
        ..CheckRequest::default()
    }
}

/// Some of the words, at least one.
pub(crate) fn some(words: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<String>> {
    let most = words.len();
    subsequence(words, 1..=most).prop_map(|some| some.into_iter().map(str::to_owned).collect())
}

/// A limit that is mostly absent.
fn limit(words: &'static [&'static str]) -> impl Strategy<Value = Option<BTreeSet<String>>> {
    weighted(0.2, some(words))
}

pub(crate) fn obligation(kind: &str) -> Obligation {
    Obligation { id: kind.to_owned(), kind: kind.to_owned(), properties: serde_json::Map::new() }
}

/// A standard that the catalog's release of `sales/eu` meets about half the time.
pub(crate) fn standard() -> impl Strategy<Value = Anonymization> {
    let whole = || weighted(0.4, select(vec![2, 3, 10, 11]));
    let number = || weighted(0.4, select(vec![0.1, 0.2, 1.5, 0.7]));
    let techniques = prop_oneof![4 => Just(BTreeSet::new()), 1 => some(&["suppression", "noise"])];
    let attested = prop_oneof![4 => Just(BTreeSet::new()), 1 => some(&["auditor", "owner"])];
    (whole(), whole(), number(), number(), techniques, attested).prop_map(
        |(k_anonymity, l_diversity, t_closeness, epsilon, techniques, attested_by)| Anonymization {
            k_anonymity,
            l_diversity,
            t_closeness,
            epsilon,
            techniques,
            attested_by,
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let granted = (some(&DATASETS), subsequence(&ACTIONS[..], 2..=5), some(&PURPOSES));
    let who = (limit(&USERS), limit(&ROLES), limit(&PROJECTS));
    let place = (limit(&GROUPS), limit(&ENVIRONMENTS));
    let prohibitions = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(&PROHIBITIONS[..], 1..=2)];
    let duties = prop_oneof![3 => Just(Vec::new()), 1 => subsequence(&DUTIES[..], 1..=2)];
    (granted, who, place, prohibitions, weighted(0.15, standard()), duties).prop_map(
        |(
            (datasets, actions, purposes),
            (users, roles, projects),
            (regions, environments),
            prohibitions,
            anonymization,
            duties,
        )| Terms {
            datasets: datasets.iter().map(|path| path.parse::<DatasetPath>().unwrap()).collect(),
            actions: actions.into_iter().collect(),
            purposes,
            users,
            roles,
            projects,
            regions,
            environments,
            prohibitions: prohibitions.into_iter().collect(),
            anonymization,
            duties: duties.into_iter().map(obligation).collect(),
            ..claims().terms
        },
    )
}

/// A license in force, with any of its limits.
pub(crate) fn license() -> impl Strategy<Value = Claims> {
    let holder = weighted(0.2, select(HOLDERS.to_vec()));
    (terms(), weighted(0.2, Just(AUDIENCE)), holder).prop_map(|(terms, audience, holder)| Claims {
        aud: audience.map(|name| Audience::One(name.to_owned())),
        cnf: holder.map(|id| Confirmation::SpiffeId(id.to_owned())),
        terms,
        ..claims()
    })
}

/// A word, mostly given.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(String::new()), 12 => select(words).prop_map(str::to_owned)]
}

/// A request of known words, with any of them missing.
pub(crate) fn any_request() -> impl Strategy<Value = CheckRequest> {
    let organization = prop_oneof![1 => Just("other"), 9 => Just("acme")];
    let subject = (word(&USERS), organization, subsequence(&ROLES[..], 0..=3));
    let action = select(&ACTIONS[..]);
    let words =
        (word(&DATASETS[1..]), word(&PURPOSES[..3]), word(&REGIONS), word(&PROJECTS), word(&ENVIRONMENTS));
    let combined = (weighted(0.15, word(&DATASETS[1..])), prop::bool::weighted(0.2));
    let duties = prop_oneof![3 => Just(DUTIES.to_vec()), 1 => subsequence(&DUTIES[..], 0..=2)];
    (subject, action, words, combined, word(&HOLDERS), duties).prop_map(
        |(
            (id, organization, roles),
            action,
            (path, purpose, region, project, environment),
            (with, external),
            spiffe_id,
            duties,
        )| CheckRequest {
            subject: Subject {
                id,
                organization: organization.to_owned(),
                roles: roles.into_iter().map(str::to_owned).collect(),
            },
            action: action.to_string(),
            resource: Resource { id: path, ..Resource::default() },
            purpose,
            region,
            project,
            environment,
            combined_with: with.into_iter().filter(|path| !path.is_empty()).collect(),
            combined_with_external: external,
            holder: Holder { spiffe_id, ..Holder::default() },
            supported_obligations: duties.into_iter().map(str::to_owned).collect(),
            ..CheckRequest::default()
        },
    )
}

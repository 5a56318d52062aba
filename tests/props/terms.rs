//! A license with one more limit never allows what it does not allow without it.

use std::cell::Cell;
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tollgate::domain::terms::Terms;
use tollgate::license::{Audience, Claims, Confirmation};

use crate::gate::{Gate, NOW};
use crate::samples::{self, obligation};

/// Narrows a license; the number chooses how.
type Limit = fn(&mut Claims, usize);

/// Every kind of limit.
const LIMITS: [(&str, Limit); 18] = [
    ("a dataset fewer", |claims, n| fewer(&mut claims.terms.datasets, n)),
    ("a dataset below", |claims, n| below(&mut claims.terms, ["sales/eu", "sales/eu/orders"][n % 2])),
    ("an action fewer", |claims, n| fewer(&mut claims.terms.actions, n)),
    ("a purpose fewer", |claims, n| fewer(&mut claims.terms.purposes, n)),
    ("users", |claims, n| within(&mut claims.terms.users, &samples::USERS, n)),
    ("roles", |claims, n| within(&mut claims.terms.roles, &samples::ROLES, n)),
    ("projects", |claims, n| within(&mut claims.terms.projects, &samples::PROJECTS, n)),
    ("regions", |claims, n| within(&mut claims.terms.regions, &samples::GROUPS, n)),
    ("environments", |claims, n| within(&mut claims.terms.environments, &samples::ENVIRONMENTS, n)),
    ("a prohibition", |claims, n| claims.terms.prohibitions.extend([samples::PROHIBITIONS[n % 4]])),
    ("a standard", |claims, n| stricter(&mut claims.terms, n)),
    ("a duty", |claims, n| {
        claims.terms.duties = vec![obligation(samples::DUTIES[n % 2]), obligation("other")];
    }),
    ("quotas", |claims, _| with_quotas(&mut claims.terms)),
    ("a holder", |claims, n| bind(claims, samples::HOLDERS[n % 2])),
    ("another audience", |claims, _| claims.aud = Some(Audience::One("another gate".to_owned()))),
    ("a later beginning", |claims, n| claims.nbf = near(n)),
    ("an earlier end", |claims, n| claims.exp = near(n)),
    ("a later signature", |claims, n| claims.iat = near(n)),
];

/// Takes one of several away; the last one stays.
fn fewer<T: Ord + Clone>(set: &mut BTreeSet<T>, n: usize) {
    if set.len() > 1 {
        let gone = set.iter().nth(n % set.len()).unwrap().clone();
        set.remove(&gone);
    }
}

fn below(terms: &mut Terms, path: &str) {
    let path = path.parse().unwrap();
    if terms.datasets.iter().any(|above| above.covers(&path)) {
        terms.datasets = BTreeSet::from([path]);
    }
}

/// Limits to some of the words, or to those of them that are named already.
fn within(limit: &mut Option<BTreeSet<String>>, words: &[&str], n: usize) {
    let named = |word: &str| limit.as_ref().is_none_or(|old| old.contains(word));
    let some = words.iter().enumerate().filter(|(position, word)| n >> position & 1 == 1 && named(word));
    let some: BTreeSet<String> = some.map(|(_, word)| (*word).to_owned()).collect();
    if !some.is_empty() {
        *limit = Some(some);
    }
}

fn stricter(terms: &mut Terms, n: usize) {
    let empty = || serde_json::from_value(json!({})).unwrap();
    let least = terms.anonymization.get_or_insert_with(empty);
    match n % 6 {
        0 => least.k_anonymity = Some(least.k_anonymity.unwrap_or(8) + 1),
        1 => least.l_diversity = Some(least.l_diversity.unwrap_or(1) + 1),
        2 => least.t_closeness = Some(least.t_closeness.unwrap_or(0.3) - 0.05),
        3 => least.epsilon = Some(least.epsilon.unwrap_or(1.6) - 0.05),
        4 => least.techniques.extend(["suppression".to_owned()]),
        _ if least.attested_by.is_empty() => least.attested_by.extend(["auditor".to_owned()]),
        _ => fewer(&mut least.attested_by, n),
    }
}

/// A limit that only a gate with state can hold.
fn with_quotas(terms: &mut Terms) {
    let quota = json!({ "id": "q", "metric": "rows", "limit": 1e9, "per": "license", "window": "day" });
    terms.quotas = vec![serde_json::from_value(quota).unwrap()];
}

fn bind(claims: &mut Claims, holder: &str) {
    claims.cnf.get_or_insert_with(|| Confirmation::SpiffeId(holder.to_owned()));
}

/// A moment around now.
fn near(n: usize) -> Timestamp {
    let seconds = i64::try_from(n % 30).unwrap() - 15;
    NOW + SignedDuration::from_secs(seconds)
}

#[test]
fn one_more_limit_never_allows_more() {
    let gate = Gate::new();
    let (kept, lost, denied) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let limits = prop::collection::vec((select(&LIMITS[..]), any::<usize>()), 8);
    let config = Config { cases: 192, failure_persistence: None, ..Config::default() };
    let strategy = (samples::license(), samples::any_request(), limits);
    let outcome = TestRunner::new(config).run(&strategy, |(license, request, limits)| {
        let wide = gate.allows(&license, &request);
        for ((name, limit), n) in limits {
            let mut narrow = license.clone();
            limit(&mut narrow, n);
            let still = narrow.check().is_ok() && gate.allows(&narrow, &request);
            prop_assert!(wide || !still, "with {} it is allowed: {:#?}", name, narrow);
            let count = if still {
                &kept
            } else if wide {
                &lost
            } else {
                &denied
            };
            count.set(count.get() + 1);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let seen = [kept.get(), lost.get(), denied.get()];
    assert!(seen.iter().all(|count| *count > 50), "{seen:?} kept, lost, denied");
}

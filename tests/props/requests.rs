//! What a request leaves out never helps it: without an attribute or a piece of evidence, a
//! denial stays a denial, and where the license limits that attribute, an allow becomes one.
//!
//! Said of words that the gate knows. A purpose or region that it has never heard of is refused
//! as malformed whether or not the license looks at it, and without it the request is well-formed.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tollgate::domain::{CheckRequest, LicenseRef};
use tollgate::license::Claims;

use crate::gate::Gate;
use crate::samples;

/// An attribute: how to leave it out, and whether a license insists on it.
type Attribute = (&'static str, fn(&mut CheckRequest), fn(&Claims) -> bool);

const ATTRIBUTES: [Attribute; 13] = [
    ("license", |request| request.license = LicenseRef::Missing, |_| false),
    ("subject", |request| request.subject = Default::default(), |_| true),
    ("subject.id", |request| request.subject.id.clear(), |_| true),
    ("subject.organization", |request| request.subject.organization.clear(), |_| true),
    ("subject.roles", |request| request.subject.roles.clear(), |claims| claims.terms.roles.is_some()),
    ("one role", |request| drop(request.subject.roles.pop()), |_| false),
    ("action", |request| request.action.clear(), |_| true),
    ("resource.id", |request| request.resource.id.clear(), |_| true),
    ("purpose", |request| request.purpose.clear(), |_| true),
    ("region", |request| request.region.clear(), |claims| claims.terms.regions.is_some()),
    ("project", |request| request.project.clear(), |claims| claims.terms.projects.is_some()),
    ("environment", |request| request.environment.clear(), |claims| claims.terms.environments.is_some()),
    ("holder", |request| request.holder = Default::default(), |claims| claims.cnf.is_some()),
];

const DUTIES: Attribute = (
    "supported_obligations",
    |request| request.supported_obligations.clear(),
    |claims| !claims.terms.duties.is_empty(),
);

#[test]
fn nothing_that_is_left_out_turns_a_denial_into_an_allow() {
    let gate = Gate::new();
    let (allowed, denied) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let strategy = (samples::license(), samples::any_request());
    let outcome = TestRunner::new(config).run(&strategy, |(license, request)| {
        let before = gate.allows(&license, &request);
        let count = if before { &allowed } else { &denied };
        count.set(count.get() + 1);
        for (name, leave_out, insists) in ATTRIBUTES.iter().chain([&DUTIES]) {
            let mut without = request.clone();
            leave_out(&mut without);
            let after = gate.allows(&license, &without);
            prop_assert!(before || !after, "without {} it is allowed", name);
            prop_assert!(!after || !insists(&license), "without {} it is still allowed", name);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(allowed.get() > 5 && denied.get() > 20, "{} allowed, {} denied", allowed.get(), denied.get());
}

//! The conjunction of terms allows exactly when no term objects and none errs.

use cedar_policy::{Authorizer, Context, Decision, Entities, Policy, PolicyId, PolicySet, Request};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tollgate::policy::compose;

/// A condition that is true or false, or errs: by overflow, or by an attribute that is not there.
fn condition() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "true",
        "false",
        "context.yes",
        "context.no",
        "context.n > 3",
        "context.n + 9223372036854775807 > 0",
        "context.missing",
        "(context has missing && context.missing)",
        "[1, 2].contains(context.n)",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("!({one})")),
            inner.clone().prop_map(|one| format!("!(!({one}))")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} && {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} || {other})")),
            (inner.clone(), inner.clone(), inner)
                .prop_map(|(one, two, three)| format!("(if {one} then {two} else {three})")),
        ]
    })
}

/// A term with up to three conditions.
fn term() -> impl Strategy<Value = String> {
    let one = (select(vec!["when", "unless"]), condition());
    prop::collection::vec(one, 0..=3).prop_map(|conditions| {
        let conditions = conditions.iter().map(|(kind, body)| format!(" {kind} {{ {body} }}"));
        format!("forbid (principal, action, resource){};", conditions.collect::<String>())
    })
}

/// A policy that keeps its JSON form: from text, Cedar would parse it again for each conjunction.
fn parsed(term: &str) -> Policy {
    let form = Policy::parse(None, term).unwrap().to_json().unwrap();
    Policy::from_json(Some(PolicyId::new("term")), form).unwrap()
}

fn request(n: i64) -> Request {
    let context = json!({ "yes": true, "no": false, "n": n });
    let context = Context::from_json_value(context, None).unwrap();
    let uid = |text: &str| text.parse().unwrap();
    Request::new(uid("U::\"u\""), uid("Action::\"a\""), uid("R::\"r\""), context, None).unwrap()
}

/// Whether Cedar allows, and whether anything objected or erred.
fn ask(policy: &Policy, request: &Request) -> (bool, bool) {
    let set = PolicySet::from_policies([policy.clone()]).unwrap();
    let response = Authorizer::new().is_authorized(request, &set, &Entities::empty());
    let allowed = response.decision() == Decision::Allow;
    let spoke = response.diagnostics().reason().next().is_some();
    let erred = response.diagnostics().errors().next().is_some();
    (allowed && !erred, spoke || erred)
}

/// Whether the policy is satisfied, and whether it erred.
fn outcome(policy: &Policy, request: &Request) -> (bool, bool) {
    let set = PolicySet::from_policies([policy.clone()]).unwrap();
    let response = Authorizer::new().is_authorized(request, &set, &Entities::empty());
    (response.diagnostics().reason().next().is_some(), response.diagnostics().errors().next().is_some())
}

fn allows(terms: &[Policy], request: &Request) -> bool {
    let condition = compose::conjunction(terms.iter()).unwrap();
    ask(&compose::permit(condition).unwrap(), request).0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_allows_when_no_term_objects_and_none_errs(
        pool in prop::collection::vec(term(), 1..24), n in select(vec![0, 1, 7]),
        picks in prop::collection::vec(any::<Index>(), 0..200), place in any::<Index>(),
    ) {
        let request = request(n);
        let pool: Vec<Policy> = pool.iter().map(|term| parsed(term)).collect();
        let terms: Vec<Policy> = picks.iter().map(|pick| pick.get(&pool).clone()).collect();
        prop_assert_eq!(allows(&terms, &request), terms.iter().all(|term| !ask(term, &request).1));
        let (against, calm): (Vec<&Policy>, Vec<&Policy>) = pool.iter().partition(|term| ask(term, &request).1);
        let picks = if calm.is_empty() { &[] } else { picks.as_slice() };
        let calm: Vec<Policy> = picks.iter().map(|pick| (*pick.get(&calm)).clone()).collect();
        prop_assert!(allows(&calm, &request), "no term is against it");
        for one in against.into_iter().take(1) {
            let mut with_one = calm.clone();
            with_one.insert(place.index(calm.len() + 1), one.clone());
            prop_assert!(!allows(&with_one, &request), "denied by {}", one);
        }
    }

    #[test]
    fn one_term_decides_as_it_does_alone(term in term(), n in select(vec![0, 1, 7])) {
        let (request, term) = (request(n), parsed(&term));
        prop_assert_eq!(allows(std::slice::from_ref(&term), &request), !ask(&term, &request).1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_known_changes_no_outcome(condition in condition(), n in select(vec![0, 1, 7]), knows in any::<[bool; 3]>()) {
        let request = request(n);
        let policy = parsed(&format!("permit (principal, action, resource) when {{ {condition} }};"));
        let body = policy.to_json().unwrap()["conditions"][0]["body"].take();
        let truths = [("yes", true), ("no", false), ("missing", false)];
        // Each by itself may be known, or not.
        let known = |expression: &Value| {
            let read = expression.pointer("/./attr").or(expression.pointer("/has/attr"))?.as_str()?;
            let position = truths.iter().position(|(name, _)| *name == read)?;
            let errs = read == "missing" && expression.get("has").is_none();
            (knows[position] && !errs).then_some(truths[position].1)
        };
        let folded = compose::permit(compose::fold(body, &known)).unwrap();
        prop_assert_eq!(outcome(&folded, &request), outcome(&policy, &request), "{} from {}", folded, policy);
    }
}

#[test]
fn five_thousand_terms_are_asked_without_going_deep() {
    let term = |number: i64| {
        let n = json!({ ".": { "left": { "Var": "context" }, "attr": "n" } });
        let body = json!({ "==": { "left": n, "right": { "Value": number } } });
        let any = json!({ "op": "All" });
        let form = json!({
            "effect": "forbid", "principal": any, "action": any, "resource": any,
            "conditions": [{ "kind": "when", "body": body }],
        });
        Policy::from_json(None, form).unwrap()
    };
    let terms: Vec<Policy> = (0..5_000).map(term).collect();
    let conjunction = compose::permit(compose::conjunction(terms.iter()).unwrap()).unwrap();
    for (n, allowed) in [(-1, true), (0, false), (2_500, false), (4_999, false), (5_000, true)] {
        let conjunction = conjunction.clone();
        // What a thread of the server has.
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let answer = thread.spawn(move || ask(&conjunction, &request(n)).0).unwrap().join().unwrap();
        assert_eq!(answer, allowed, "{n}");
    }
}

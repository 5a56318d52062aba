//! Criterion over the steps of a check, each by itself, and over the whole.

use std::hint::black_box;
use std::time::Duration;

use cedar_policy::{Policy, PolicySet};
use criterion::{BatchSize, Criterion};
use tollgate::audit::{LicenseFacts, Record};
use tollgate::config::Config;
use tollgate::decision::license_facts;
use tollgate::domain::{Action, CheckRequest, Decision, DecisionId, Effect, LicenseRef};
use tollgate::license::verify::verify;
use tollgate::license::{Licenses, VerifiedLicense};
use tollgate::policy::entities::{Node, Types};
use tollgate::policy::index::Index;
use tollgate::policy::{CedarLicense, Licensed};

use crate::scene::{Scene, policies, request};

pub(crate) fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    licenses(&mut criterion);
    index(&mut criterion);
    answers(&mut criterion);
    records(&mut criterion);
    checks(&mut criterion);
    criterion.final_summary();
}

fn licenses(criterion: &mut Criterion) {
    let scene = Scene::new(0, "32 MiB");
    let keys = scene.keyring.current();
    let token = scene.token(0, &[]);
    let key = scene.trusted();
    let (signed, signature) = crate::unseen::signature(&token);
    criterion.bench_function("license/bare signature", |bench| {
        bench.iter(|| key.key.verify_strict(black_box(signed.as_bytes()), &signature).unwrap());
    });
    criterion.bench_function("license/verify a fresh token", |bench| {
        bench.iter(|| verify(black_box(&token), &keys).unwrap());
    });
    let cache = Licenses::<()>::new(&Config::default().licenses);
    criterion.bench_function("license/remembered token", |bench| {
        bench.iter(|| cache.resolve(black_box(&token), &keys, |_| Ok(())).0.unwrap());
    });
}

/// The subject and dataset of the question, with what they are in.
fn lineages() -> [Node; 3] {
    let types = Types::new().unwrap();
    let user = Node::plain(types.user("ana"), vec![types.role("analyst"), types.organization("acme")]);
    let action = Node::plain(types.action(Action::Read), Vec::new());
    let above = ["sales/eu", "sales", "*"].map(|path| types.dataset(path));
    [user, action, Node::plain(types.dataset("sales/eu/orders"), above.to_vec())]
}

fn index(criterion: &mut Criterion) {
    let [user, action, dataset] = lineages();
    for count in [10, 1_000, 10_000] {
        let set: PolicySet = policies(count).parse().unwrap();
        let set: Vec<Policy> = set.policies().cloned().collect();
        let index = Index::build(set.iter()).unwrap();
        criterion.bench_function(&format!("index/select among {count} policies"), |bench| {
            bench.iter(|| index.select(user.lineage(), action.lineage(), black_box(dataset.lineage())));
        });
    }
}

/// A license with its entity, as the gate keeps it.
fn prepared(scene: &Scene) -> (VerifiedLicense, CedarLicense) {
    let license = verify(&scene.token(0, &[]), &scene.keyring.current()).unwrap();
    let entity = scene.policies.current().license(license_facts(&license)).unwrap();
    (license, entity)
}

fn answers(criterion: &mut Criterion) {
    for (count, name) in [(0, "base"), (1_000, "1000"), (10_000, "10000")] {
        let scene = Scene::new(count, "32 MiB");
        let (license, entity) = prepared(&scene);
        let licensed = Licensed { license: &entity, assignee: "acme", terms: &license.claims.terms };
        let snapshot = scene.policies.current();
        let allowed = request(String::new());
        let denied = CheckRequest { purpose: "Marketing".into(), region: "US".into(), ..allowed.clone() };
        assert!(snapshot.evaluate(licensed, &allowed).reasons.is_empty(), "an allow is expected");
        assert!(snapshot.evaluate(licensed, &denied).reasons.len() >= 2, "reasons are expected");
        criterion.bench_function(&format!("policy/evaluate, allow, {name} policies"), |bench| {
            bench.iter(|| snapshot.evaluate(licensed, black_box(&allowed)));
        });
        if count == 0 {
            criterion.bench_function("policy/evaluate, deny with reasons, base policies", |bench| {
                bench.iter(|| snapshot.evaluate(licensed, black_box(&denied)));
            });
            criterion.bench_function("policy/remembered answer", |bench| {
                bench.iter(|| snapshot.answer(licensed, black_box(&allowed)));
            });
        }
    }
}

fn records(criterion: &mut Criterion) {
    let scene = Scene::new(0, "32 MiB");
    let request = scene.request();
    let decision = Decision {
        id: DecisionId::new(scene.now),
        effect: Effect::Allow,
        enforced: true,
        reasons: Vec::new(),
        obligations: Vec::new(),
        valid_until: Some(scene.now),
        quotas: Vec::new(),
        reservation: None,
        status_as_of: None,
        policy_revision: scene.policies.current().revision().clone(),
        granting_policies: Vec::new(),
    };
    let facts = LicenseFacts {
        id: Some("license-00000000"),
        issuer: Some("https://data.example"),
        assignee: Some("acme"),
        key_id: Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    };
    let encode = || {
        let mut line = Vec::with_capacity(1024);
        let record = Record::new(&request, &decision, scene.now, "tollgate", facts);
        record.encode(&mut line).unwrap();
        line
    };
    criterion.bench_function("record/encode", |bench| bench.iter(encode));
    criterion.bench_function("record/encode and append, queued to a file", |bench| {
        bench.iter(|| scene.append(encode()));
    });
}

fn checks(criterion: &mut Criterion) {
    let scene = Scene::new(0, "32 MiB");
    let request = scene.request();
    criterion.bench_function("check/remembered question", |bench| {
        bench.iter(|| scene.check(black_box(&request)));
    });
    let mut number = 0;
    criterion.bench_function("check/unseen license", |bench| {
        let mut fresh = || {
            number += 1;
            CheckRequest { license: LicenseRef::Token(scene.token(number, &[])), ..request.clone() }
        };
        bench.iter_batched(&mut fresh, |request| scene.check(&request), BatchSize::SmallInput);
    });
    let scene = Scene::new(0, "0 B");
    let request = scene.request();
    criterion.bench_function("check/fresh question", |bench| {
        bench.iter(|| scene.check(black_box(&request)));
    });
}

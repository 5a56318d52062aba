//! What remembered licenses cost in memory, as the kernel sees it, beside what they are reckoned at.

use serde_json::json;
use tollgate::decision::license_facts;
use tollgate::domain::CheckRequest;
use tollgate::license::verify::verify;
use tollgate::license::{Licenses, VerifiedLicense};
use tollgate::policy::CedarLicense;

use crate::scene::{Scene, request};

/// Checks so many distinct licenses, with so much memory for remembered answers, and prints how
/// the gate grew. Only rehearses: what was used goes to the store, which has a bound of its own for its pages.
pub(crate) fn fill(licenses: usize, answer_cache: &str) {
    let scene = Scene::new(0, answer_cache);
    // What grows once only, whatever the licenses: allocator, queue, runtime.
    let rehearsed = |number| CheckRequest { dry_run: true, ..request(scene.token(number, &[])) };
    (0..100).for_each(|number| scene.check(&rehearsed(number)));
    let before = resident();
    (100..licenses).for_each(|number| scene.check(&rehearsed(number)));
    let report = json!({
        "licenses": licenses,
        "grown_bytes": resident().saturating_sub(before),
        "reckoned_bytes": scene.license_bytes() + scene.policies.current().answer_bytes(),
        "bound_bytes": scene.config.licenses.cache.bytes() + scene.config.policies.answer_cache.bytes(),
    });
    println!("{report}");
}

/// Remembers licenses of so many datasets, with names of this length, all of which fit, and prints
/// what one takes.
pub(crate) fn entry(datasets: usize, length: usize, licenses: usize) {
    let names: Vec<String> = (1..datasets).map(|dataset| format!("{dataset:0length$}")).collect();
    let scene = Scene::new(0, "0 B");
    let mut config = scene.config.licenses.clone();
    config.cache = "1024 GiB".parse().unwrap();
    let cache = Licenses::<CedarLicense>::new(&config);
    let (snapshot, keys) = (scene.policies.current(), scene.keyring.current());
    let prepare = |license: &VerifiedLicense| Ok(snapshot.license(license_facts(license)).unwrap());
    let remember =
        |number: usize| drop(cache.resolve(&scene.token(number, &names), &keys, prepare).0.unwrap());
    (0..10).for_each(remember);
    let (reckoned, before) = (cache.bytes().0, resident());
    (10..licenses + 10).for_each(remember);
    let taken = cache.bytes().0 - reckoned;
    let one = |bytes: u64| bytes / u64::try_from(licenses).unwrap();
    let claims = verify(&scene.token(0, &names), &keys).unwrap().claims;
    let report = json!({
        "datasets": datasets,
        "length": length,
        "json_bytes": serde_json::to_vec(&claims).unwrap().len(),
        "grown_bytes": one(resident().saturating_sub(before)),
        "reckoned_bytes": one(taken),
    });
    println!("{report}");
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

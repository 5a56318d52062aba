//! The order of the house: imports run strictly leftward, and big dependencies stay at home.

use std::collections::BTreeMap;

use crate::order::{HOMES, Home, module, order, sources};

/// Code without line comments.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn imports_run_leftward() {
    let order = order();
    let ranked =
        order.iter().enumerate().flat_map(|(rank, line)| line.iter().map(move |name| (name.as_str(), rank)));
    let rank: BTreeMap<&str, usize> = ranked.collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = module(&path);
        if ["lib", "proto"].contains(&from.as_str()) {
            continue;
        }
        let own = *rank
            .get(from.as_str())
            .unwrap_or_else(|| panic!("`{from}` has no place in the map of src/lib.rs"));
        for imported in code(&text).split("crate::").skip(1).flat_map(names) {
            let allowed = imported == from
                || imported == "proto"
                || rank.get(imported.as_str()).is_some_and(|rank| *rank < own);
            if !allowed && (rank.contains_key(imported.as_str())) {
                wrong.push(format!("{}: `{from}` imports `{imported}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must run leftward:\n{}", wrong.join("\n"));
}

/// The first segments of what follows `crate::`: one, or several in braces.
fn names(after: &str) -> Vec<String> {
    let identifier =
        |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match after.strip_prefix('{') {
        None => vec![identifier(after)],
        Some(list) => list.split('}').next().unwrap_or_default().split(',').map(identifier).collect(),
    }
}

#[test]
fn dependencies_stay_at_home() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let text = code(&text);
        for Home { path: dependency, modules: homes, .. } in HOMES {
            let at_home = homes.contains(&module(&path).as_str());
            let named = text
                .match_indices(dependency)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':'));
            if named && !at_home {
                wrong.push(format!("{}: `{dependency}` lives in {homes:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies must stay at home:\n{}", wrong.join("\n"));
}

#[test]
fn the_map_is_read_whole() {
    let order = order();
    assert_eq!(order.first().unwrap(), &["domain"]);
    assert_eq!(order.last().unwrap(), &["main"]);
    let named: Vec<&String> = order.iter().flatten().collect();
    let there: Vec<String> = sources().iter().map(|(path, _)| module(path)).collect();
    assert!(named.iter().all(|name| there.contains(name)), "a module of the map does not exist: {named:?}");
}

#[test]
fn this_test_sees_wrong_imports() {
    assert_eq!(names("store::redb;"), ["store"]);
    assert_eq!(names("{grpc, http::problem};"), ["grpc", "http"]);
}

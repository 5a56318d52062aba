//! House rules that no lint knows: every file says what it is for, and stays small enough to know.

use std::path::Path;

use walkdir::WalkDir;

/// The longest file, in lines.
const MAX_LINES: usize = 420;

fn rust_files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "fuzz/fuzz_targets"];
    let entries = folders.iter().flat_map(|folder| WalkDir::new(root.join(folder)).into_iter().flatten());
    let rust = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"));
    rust.map(|entry| {
        let name = entry.path().strip_prefix(root).unwrap().display().to_string();
        (name, std::fs::read_to_string(entry.path()).unwrap())
    })
    .collect()
}

fn report(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust_files().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    report("every file begins with `//!`", &silent.map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_large_to_know() {
    let large = rust_files().into_iter().filter(|(_, text)| text.lines().count() > MAX_LINES);
    let large = large.map(|(name, text)| format!("{name}: {} lines", text.lines().count()));
    report("files stay under about 400 lines", &large.collect::<Vec<_>>());
}

#[test]
fn no_module_is_called_mod() {
    let named = rust_files().into_iter().filter(|(name, _)| name.ends_with("/mod.rs"));
    report("`foo.rs` stands beside `foo/`", &named.map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_for_later() {
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let unfinished = rust_files().into_iter().flat_map(|(name, text)| {
        let lines = text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        lines.map(|(number, _)| format!("{name}:{}", number + 1)).collect::<Vec<_>>()
    });
    report("no word of what is left to do", &unfinished.collect::<Vec<_>>());
}

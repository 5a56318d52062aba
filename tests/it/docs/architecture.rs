//! `docs/architecture.md`: the map, the import order and the homes of dependencies, from the code.

use std::path::Path;

use super::assert_blocks_current;
use crate::order::{HOMES, module, order, sources};

/// The first sentence of a file's `//!`.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ").replace("[`", "`").replace("`]", "`");
    let end = paragraph.match_indices(". ").map(|(at, _)| at).next();
    paragraph[..end.unwrap_or(paragraph.len())].trim_end_matches('.').to_owned()
}

/// A list of modules in the order of imports, each with the files below it.
fn map() -> String {
    let mut sources = sources();
    // `foo.rs` before what is in `foo/`.
    sources.sort_by_key(|(path, _)| path.with_extension(""));
    let mut out = String::new();
    let order = order();
    for name in order.iter().flatten().map(String::as_str).chain(["proto"]) {
        for (path, text) in sources.iter().filter(|(path, _)| module(path) == name && !is_test(path)) {
            let indent = "  ".repeat(path.iter().count() - 1);
            let stem = path.file_stem().unwrap().to_string_lossy();
            let link = path.display();
            out.push_str(&format!("{indent}- [`{stem}`](../src/{link}): {}.\n", first_sentence(text)));
        }
    }
    out
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.iter().any(|part| part == "tests")
}

fn import_order() -> String {
    let line = |names: &Vec<String>| match names.as_slice() {
        [one] => one.clone(),
        several => format!("{{{}}}", several.join(" ")),
    };
    let lines: Vec<String> = order().iter().map(line).collect();
    format!("```text\n{}\n```\n", lines.join("\n  < "))
}

fn homes() -> String {
    let mut out = "| dependency | lives in | for |\n|---|---|---|\n".to_owned();
    for home in HOMES {
        let modules: Vec<String> = home.modules.iter().map(|module| format!("`{module}`")).collect();
        let name = home.path.trim_end_matches("::");
        out.push_str(&format!("| `{name}` | {} | {} |\n", modules.join(", "), home.purpose));
    }
    out
}

#[test]
fn architecture_page_is_current() {
    let blocks = [("order", import_order()), ("map", map()), ("homes", homes())];
    assert_blocks_current("docs/architecture.md", &blocks);
}

#[test]
fn every_first_sentence_is_one_line_of_the_map() {
    for (path, text) in sources() {
        let sentence = first_sentence(&text);
        assert!((10..160).contains(&sentence.len()), "{}: `{sentence}`", path.display());
    }
}

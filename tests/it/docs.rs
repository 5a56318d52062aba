//! The pages for readers: what can be rendered from the code is rendered, and every link leads somewhere.
//!
//! A page holds rendered blocks between two comments; the words around them are written by hand.

mod architecture;
mod authzen;
mod reasons;
mod records;

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::order::root;

/// Checks that a file is as rendered; writes it instead where `UPDATE_DOCS` is set.
pub(crate) fn assert_current(page: &str, rendered: &str) {
    let path = root().join(page);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, rendered).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == rendered,
        "{page} is stale; renew it with `UPDATE_DOCS=1 cargo test --test it`"
    );
}

/// Checks that the blocks of a page are as rendered, each by its name.
fn assert_blocks_current(page: &str, blocks: &[(&str, String)]) {
    let mut text = std::fs::read_to_string(root().join(page)).unwrap();
    for (name, content) in blocks {
        text = with_block(&text, name, content);
    }
    assert_current(page, &text);
}

/// The text with the content of one block replaced.
fn with_block(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- rendered: {name}; do not edit -->\n"), "<!-- end of rendered -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no block `{name}`"));
    let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("block `{name}` has no end"));
    format!("{before}{begin}\n{content}\n{end}{after}")
}

#[test]
fn configuration_page_is_current() {
    assert_current("docs/configuration.md", &tollgate::config::reference::render());
}

#[test]
fn licenses_page_is_current() {
    let schema = tollgate::document::Schema::of::<tollgate::license::Draft>();
    let table = tollgate::config::reference::table(&schema);
    assert_blocks_current("docs/licenses.md", &[("members", table)]);
}

#[test]
fn envoy_page_is_current() {
    let schema = tollgate::document::Schema::of::<tollgate::config::envoy::SourceKeys>();
    let table = tollgate::config::reference::table(&schema);
    assert_blocks_current("docs/envoy.md", &[("sources", table)]);
}

/// Every page for readers.
fn pages() -> Vec<PathBuf> {
    let in_docs = WalkDir::new(root().join("docs")).into_iter().map(|entry| entry.unwrap().into_path());
    let pages = in_docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name))).collect()
}

/// The targets of Markdown links and of images in HTML.
fn links(text: &str) -> Vec<&str> {
    let targets = |opening, closing| {
        text.split(opening).skip(1).filter_map(move |rest: &str| Some(rest.split_once(closing)?.0))
    };
    targets("](", ")").chain(targets("src=\"", "\"")).collect()
}

/// How GitHub names the heading of a line.
fn anchor(heading: &str) -> String {
    let name = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = name.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    let has_heading = || {
        let text = std::fs::read_to_string(&target).unwrap_or_default();
        text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
    };
    target.exists() && (heading.is_empty() || has_heading())
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.starts_with("https://")) {
            if !leads_somewhere(&page, link) {
                dead.push(format!("{}: `{link}`", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn this_test_sees_dead_links() {
    let page = root().join("README.md");
    assert_eq!(links("[a](b.md) <img src=\"c.svg\">"), ["b.md", "c.svg"]);
    assert!(!leads_somewhere(&page, "docs/none.md"));
    assert!(!leads_somewhere(&page, "#none"));
    assert_eq!(anchor("## A Check, step by step"), "a-check-step-by-step");
}

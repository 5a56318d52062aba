//! `docs/reasons.md`: every reason code, and which step or policy names it.

use tollgate::domain::Code;
use tollgate::grpc::envoy::denial::Denial;

use super::assert_blocks_current;
use crate::order::{root, sources};

/// The codes of the built-in policies, each with the name of its file.
fn base_policies() -> Vec<(String, String)> {
    let files = std::fs::read_dir(root().join("policies/base")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let annotated = |name: &String| {
        let text = std::fs::read_to_string(root().join("policies/base").join(name)).unwrap();
        let code = text.split_once("@code(\"")?.1.split_once('"')?.0.to_owned();
        Some((code, name.clone()))
    };
    names.iter().filter_map(annotated).collect()
}

/// Where the code itself is named, outside of tests and of the list of codes.
fn steps(code: Code) -> Vec<String> {
    let name = format!("Code::{code:?}");
    let names_it = |text: &str| {
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        shipped.match_indices(&name).any(|(at, _)| {
            let before = shipped[..at].chars().next_back();
            let after = shipped[at + name.len()..].chars().next();
            !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
        })
    };
    let files = sources().into_iter().filter(|(path, text)| {
        // Cases are about decisions, they make none; nor does the list of codes, or that of their statuses.
        let of_tests = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        let decides = !of_tests && !path.starts_with("cases");
        let lists = path.ends_with("domain/reason.rs") || path.ends_with("envoy/denial.rs");
        decides && !lists && names_it(text)
    });
    files.map(|(path, _)| path.display().to_string()).collect()
}

fn table() -> String {
    let policies = base_policies();
    let mut out = "| code | HTTP | meaning | passes if | named by |\n|---|---|---|---|---|\n".to_owned();
    for code in Code::ALL {
        let of_policy = policies.iter().filter(|(of, _)| of == code.as_str());
        let of_policy = of_policy.map(|(_, file)| {
            format!("[`base/{}`](../policies/base/{file})", file.trim_end_matches(".cedar"))
        });
        let of_step = steps(*code).into_iter().map(|file| format!("[`{file}`](../src/{file})"));
        let named_by: Vec<String> = of_policy.chain(of_step).collect();
        assert!(!named_by.is_empty(), "nothing names {code}");
        let (meaning, remedy) = (code.meaning(), code.remedy());
        let status = Denial::of(*code).http().as_u16();
        out.push_str(&format!(
            "| `{code}` | {status} | {meaning} | {remedy} | {} |\n",
            named_by.join("<br>")
        ));
    }
    out
}

#[test]
fn reasons_page_is_current() {
    assert_blocks_current("docs/reasons.md", &[("codes", table())]);
}

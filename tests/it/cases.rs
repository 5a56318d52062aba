//! The golden cases, and that none is missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tollgate::cases;
use tollgate::domain::Code;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[tokio::test]
async fn every_case_goes_as_expected() {
    let report = cases::run(None, &cases::read(&folder()).unwrap()).await.unwrap();
    let failed: Vec<String> = report
        .outcomes
        .iter()
        .filter(|outcome| !outcome.differences.is_empty())
        .map(|outcome| format!("{}\n    {}", outcome.path.display(), outcome.differences.join("\n    ")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let never: Vec<&String> = report.never_satisfied().collect();
    assert!(never.is_empty(), "no case satisfies these policies: {never:?}");
}

#[test]
fn every_code_has_a_case() {
    let cases = cases::read(&folder()).unwrap();
    let shown: BTreeSet<&str> =
        cases.iter().flat_map(|(_, case)| case.expect.codes.iter().map(String::as_str)).collect();
    let missing: Vec<&str> =
        Code::ALL.iter().map(|code| code.as_str()).filter(|code| !shown.contains(code)).collect();
    assert!(missing.is_empty(), "no case expects {missing:?}");
}

//! The quickstart from outside: two commands, a table, and nothing in the way of a second time.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::gate::{Lines, PATIENCE, program, records};

/// Two that start in the same moment may find the same port free.
pub(super) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The lines that the quota and the stream leave in the log: four reads, the opening, the revocation, and
/// what ended the stream.
const OF_LICENSES_THAT_LIVE: usize = 7;

/// The rows of the table: decision and first code.
fn rows(text: &str) -> Vec<(&str, &str)> {
    // The first table: what comes after it is another story.
    let table = text.lines().take_while(|line| !line.contains("A quota runs out"));
    let decided = table.filter_map(|line| {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let decision = *cells.get(1).filter(|cell| ["allow", "deny"].contains(*cell))?;
        Some((decision, cells.get(2).map_or("", |codes| codes.split(", ").next().unwrap())))
    });
    decided.collect()
}

#[test]
fn once_shows_allows_and_denials_in_plain_text() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let output = program(folder.path(), &["quickstart", "--once"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
    assert!(!text.contains('\u{1b}'), "escape sequences without a terminal: {text}");
    let rows = rows(&text);
    let allowed = rows.iter().filter(|(decision, _)| *decision == "allow").count();
    let codes: BTreeSet<_> =
        rows.iter().filter(|(decision, _)| *decision == "deny").map(|(_, code)| code).collect();
    assert!(allowed >= 1 && codes.len() >= 5, "{text}");
    for code in [
        "PURPOSE_NOT_LICENSED",
        "DATASET_NOT_LICENSED",
        "SIGNATURE_INVALID",
        "EXPIRED",
        "COMBINATION_PROHIBITED",
    ] {
        assert!(codes.contains(&code), "{code}: {text}");
    }
    let made = folder.path().join("tollgate-quickstart");
    assert_eq!(records(&made.join("decisions.jsonl")).len(), rows.len() + OF_LICENSES_THAT_LIVE);
    // A quota runs out, and a revocation reaches an open stream.
    let line = |first: &str| text.lines().map(str::trim).find(|line| line.starts_with(first)).unwrap();
    let words = |first| line(first).split_whitespace().collect::<Vec<_>>();
    assert_eq!(words("read 3"), ["read", "3", "allow", "0"], "{text}");
    assert_eq!(words("read 4"), ["read", "4", "deny", "0", "QUOTA_EXCEEDED"], "{text}");
    assert!(text.contains("ended     REVOKED, "), "{text}");

    // What it says to try works on what it made.
    let inspect =
        ["inspect", "tollgate-quickstart/licenses/raw.license", "--keys", "tollgate-quickstart/keys"];
    assert!(text.contains("tollgate-quickstart/licenses/anonymized.license"), "{text}");
    assert_eq!(program(folder.path(), &inspect).output().unwrap().status.code(), Some(0));
    let again =
        program(folder.path(), &["quickstart", "--once", "--dir", "tollgate-quickstart"]).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "a folder that is there is not touched");
}

#[test]
fn a_second_one_in_the_same_folder_does_not_collide() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut first = program(folder.path(), &["quickstart"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = Lines::follow(first.stdout.take().unwrap());
    let begun = Instant::now();
    while said.find("Ctrl-C stops the gate").is_none() {
        assert!(begun.elapsed() < PATIENCE, "{}", said.text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = program(folder.path(), &["quickstart", "--once"]).output().unwrap();
    let text = String::from_utf8(second.stdout).unwrap();
    assert_eq!(second.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&second.stderr));
    assert!(rows(&text).len() >= 6 && folder.path().join("tollgate-quickstart-2").is_dir(), "{text}");
    // The first is still there, and answers a question by hand as it says.
    let address = said.find("A gate is running on").unwrap();
    let address = address.split(' ').find(|word| word.starts_with("http://")).unwrap().trim_end_matches(',');
    let ask = ["check", "--gate", address, "--license", "tollgate-quickstart/licenses/raw.license"];
    let who = ["--subject", "ana", "--organization", "acme", "--action", "read", "--dataset", "sales/eu"];
    let purpose = ["--purpose", "AcademicResearch"];
    let answer = program(folder.path(), &[&ask[..], &who, &purpose].concat()).output().unwrap();
    assert_eq!(answer.status.code(), Some(0), "{}", String::from_utf8_lossy(&answer.stderr));
    let stop = format!("kill -s INT {}", first.id());
    assert!(std::process::Command::new("sh").args(["-c", &stop]).status().unwrap().success());
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let log = folder.path().join("tollgate-quickstart/decisions.jsonl");
    assert_eq!(records(&log).len(), rows(&said.text()).len() + OF_LICENSES_THAT_LIVE + 1);
    assert!(fs::read_to_string(log).unwrap().ends_with('\n'));
}

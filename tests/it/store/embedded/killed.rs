//! What was acknowledged is there, whenever the process was killed.
//!
//! The test binary runs itself as a child that writes and says what was acknowledged, kills it at some
//! moment, and opens the file. `TOLLGATE_KILL_ROUNDS` says how often.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tollgate::domain::amount::Amount;
use tollgate::domain::standing::Status;
use tollgate::store::redb::RedbStore;
use tollgate::store::{Changed, Registration, StateStore, UsageBatch};
use uuid::Uuid;

use super::super::conformance::{change, key, license, target, used, whole};
use super::content;

/// The file of the child.
const FILE: &str = "TOLLGATE_KILL_FILE";
/// Tells one child from another.
const ROUND: &str = "TOLLGATE_KILL_ROUND";
/// What a line of an acknowledgement begins with, wherever the test harness leaves it.
const MARK: &str = "acknowledged ";
/// How many tasks write in a child.
const WRITERS: u64 = 4;

/// The child: not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `what_was_acknowledged_outlives_a_kill`"]
async fn a_child_that_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let store = Arc::new(RedbStore::open(&PathBuf::from(path)).unwrap());
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&store), round, writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn acknowledged(what: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{MARK}{what}").unwrap();
    stdout.flush().unwrap();
}

async fn write(store: Arc<RedbStore>, round: u64, writer: u64) {
    for number in 1..100_000 {
        let id = format!("{round}-{writer}-{number}");
        assert_eq!(store.register(&license(&id)).await, Ok(Registration::Created));
        acknowledged(&format!("license {id}"));
        let changed = store.change(&change(target(&id), Status::Revoked)).await.unwrap();
        let Changed::Applied(revision) = changed else { panic!("{changed:?}") };
        acknowledged(&format!("change {id} {revision}"));
        let rows = vec![used(key(&format!("{round}-{writer}"), 1), 1)];
        let boot = Uuid::from_u64_pair(round, writer);
        let batch = UsageBatch { gate: "gate".to_owned(), boot, sequence: number, rows };
        store.add_usage(&batch).await.unwrap();
        acknowledged(&format!("usage {round}-{writer} {number}"));
    }
}

/// What children said.
#[derive(Default)]
struct Said {
    licenses: BTreeSet<String>,
    changes: BTreeMap<u64, String>,
    usage: BTreeMap<String, u64>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let Some((_, said)) = line.split_once(MARK) else { return };
        match said.split(' ').collect::<Vec<_>>().as_slice() {
            ["license", id] => assert!(self.licenses.insert((*id).to_owned())),
            ["change", id, revision] => {
                let before = self.changes.insert(revision.parse().unwrap(), (*id).to_owned());
                assert_eq!(before, None, "revision {revision} was given twice");
            }
            ["usage", user, number] => {
                self.usage.insert((*user).to_owned(), number.parse().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn start(path: &Path, round: u64) -> Child {
    // The path of the child's test, without the name of the crate, as the harness knows it.
    let (_, module) = module_path!().split_once("::").unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::a_child_that_is_killed"), "--exact", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills a child at some moment, and hears all that it said.
fn round(path: &Path, round: u64, said: &mut Said) {
    let mut child = start(path, round);
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut hear = |lines: &mut BufReader<_>| {
        let mut line = String::new();
        // A line without an end was cut off by the kill: that was not said.
        let whole = lines.read_line(&mut line).unwrap() > 0 && line.ends_with('\n');
        if whole {
            said.hear(line.trim_end());
        }
        whole
    };
    // One in four is killed while it starts; the others after something was acknowledged.
    if round % 4 != 3 {
        // The harness itself says something first.
        for _ in 0..4 {
            hear(&mut lines);
        }
    }
    let random = Uuid::new_v4().as_u128() % 60_000;
    std::thread::sleep(Duration::from_micros(u64::try_from(random).unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    while hear(&mut lines) {}
}

async fn check(path: &Path, said: &Said) {
    let store = RedbStore::open(path).unwrap();
    let found = content(&store).await.unwrap();
    let ids: BTreeSet<&str> = found.licenses.iter().map(|license| license.id.as_str()).collect();
    for id in &said.licenses {
        assert!(ids.contains(id.as_str()), "license {id} is gone");
    }
    let revisions: BTreeMap<u64, &str> =
        found.feed.standings.iter().map(|standing| (standing.revision, standing.target.which.id())).collect();
    for (revision, id) in &said.changes {
        assert_eq!(revisions.get(revision), Some(&id.as_str()), "the change of revision {revision}");
    }
    assert!(revisions.keys().copied().eq(1..=found.feed.revision), "revisions have gaps");
    for (user, number) in &said.usage {
        let row = found.usage.iter().find(|row| row.key.user == *user);
        let amount = row.map_or(Amount::ZERO, |row| row.amount);
        // One more may have been written and not been said.
        assert!(amount == whole(*number) || amount == whole(number + 1), "{user}: {amount}, not {number}");
    }
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_kill() {
    let rounds = std::env::var("TOLLGATE_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let mut said = Said::default();
    for number in 0..rounds.unwrap_or(200) {
        round(&path, number, &mut said);
        check(&path, &said).await;
    }
    assert!(!said.licenses.is_empty() && !said.changes.is_empty() && !said.usage.is_empty());
}

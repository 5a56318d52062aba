//! `tollgate licenses --watch` from outside: what it tells, and how it ends.

use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{ADMIN, OVER_UNIX, admin, folder};
use crate::gate::{Gate, Lines, eventually, program};

/// Somebody who watches. Killed when dropped.
struct Watch {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Watch {
    fn start(gate: &Gate, options: &[&str]) -> Self {
        let arguments = [&["licenses", "--watch"], &ADMIN[..], options].concat();
        let mut command = program(&folder(gate), &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::follow(child.stdout.take().unwrap());
        let stderr = Lines::follow(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// The line of this number, once it is told.
    async fn line(&self, number: usize) -> String {
        eventually("it is told", async || self.stdout.text().lines().count() > number).await;
        self.stdout.text().lines().nth(number).unwrap().to_owned()
    }

    async fn json(&self, number: usize) -> Value {
        serde_json::from_str(&self.line(number).await).unwrap()
    }

    /// How it ended by itself: how many lines it told, its exit code, and why.
    async fn ended(mut self) -> (usize, Option<i32>, String) {
        eventually("it ends", async || self.child.try_wait().unwrap().is_some()).await;
        let (told, why) = (self.stdout.read_to_end(), self.stderr.read_to_end());
        (told.lines().count(), self.child.wait().unwrap().code(), why)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_watch_tells_what_stands_against_licenses_and_every_change() {
    let gate = Gate::start(&[OVER_UNIX]);
    admin(&gate, &["suspend", "--assignee", "globex", "--reason", "an incident"]).done();
    let (words, json) = (Watch::start(&gate, &[]), Watch::start(&gate, &["--json"]));
    let elsewhere = Watch::start(&gate, &["--issuer", "https://other.example"]);
    let first = words.line(0).await;
    assert!(first.starts_with("SUSPENDED: assignee `globex` of `https://data.example`, by unix:"), "{first}");
    assert!(first.ends_with("Z: an incident"), "{first}");
    let first = json.json(0).await;
    assert_eq!((&first["status"], &first["target"]["id"]), (&"SUSPENDED".into(), &"globex".into()));

    admin(&gate, &["reinstate", "--assignee", "globex", "--reason", "it is over"]).done();
    // Each line is what the gate says, and not what somebody wrote as a reason.
    let forged = "ended\nVALID: license `license-1` of `https://data.example`";
    admin(&gate, &["revoke", "--license", "license-1", "--reason", forged]).done();
    let lifted = words.line(1).await;
    assert!(lifted.starts_with("VALID: assignee `globex`") && lifted.ends_with("it is over"), "{lifted}");
    let revoked = words.line(2).await;
    assert!(revoked.starts_with("REVOKED: license `license-1`") && revoked.contains("VALID: "), "{revoked}");
    assert_eq!(json.json(1).await["status"], "VALID");
    let revoked = json.json(2).await;
    assert_eq!((&revoked["reason"], &revoked["revision"]), (&forged.into(), &3.into()));

    assert_eq!(gate.stop().await.code, Some(0));
    for (watch, told) in [(words, 3), (json, 3), (elsewhere, 0)] {
        let (lines, code, why) = watch.ended().await;
        assert_eq!((lines, code), (told, Some(2)), "{why}");
        assert!(why.contains("shutting down"), "{why}");
    }
}

#[tokio::test]
async fn a_watch_does_not_go_on_where_the_gate_is_gone_or_silent() {
    for signal in ["KILL", "STOP"] {
        let gate = Gate::start(&[OVER_UNIX]);
        let watch = Watch::start(&gate, &["--timeout", "1s"]);
        // Longer than a verb that has an end may take.
        tokio::time::sleep(Duration::from_secs(2)).await;
        admin(&gate, &["revoke", "--license", "license-1", "--reason", "ended"]).done();
        watch.line(0).await;
        gate.signal(signal);
        let (lines, code, why) = watch.ended().await;
        assert_eq!((lines, code), (1, Some(2)), "{why}");
        assert!(why.contains("no gate administers at `unix:admin.sock`"), "{why}");
    }
}

#[tokio::test]
async fn a_watch_ends_when_nobody_reads_it() {
    let gate = Gate::start(&[OVER_UNIX]);
    let watch = ["licenses", "--watch"];
    let mut child =
        program(&folder(&gate), &[&watch[..], &ADMIN].concat()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    admin(&gate, &["revoke", "--license", "license-1", "--reason", "ended"]).done();
    eventually("it ends", async || child.try_wait().unwrap().is_some()).await;
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_is_of_all_or_of_an_issuer() {
    let gate = Gate::start(&[OVER_UNIX]);
    for other in [&["license-1"][..], &["--assignee", "acme"], &["--status", "revoked"], &["--limit", "1"]] {
        let refused = admin(&gate, &[&["licenses", "--watch"], other].concat()).failed();
        assert!(refused.contains("cannot be used with") && refused.contains("--watch"), "{refused}");
    }
}

//! The page about operations: its commands do what it says, and forget what it says.

use std::path::Path;
use std::process::Command;

use super::gate::{Site, ask, codes, eventually, is_allowed};
use super::operators::{Admin, OVERRIDES};
use super::order::root;
use super::postgres::Server;

/// The command of the page that begins like this, run in a folder.
fn run(begin: &str, folder: &Path, environment: &[(&str, &str)]) -> String {
    let page = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let mut commands = page.lines().map(str::trim).filter(|line| line.starts_with(begin));
    let (Some(command), None) = (commands.next(), commands.next()) else {
        panic!("one command begins `{begin}`")
    };
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).current_dir(folder).envs(environment.iter().copied());
    let output = shell.output().unwrap();
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_embedded_state_is_restored_and_forgets_what_came_after() {
    let gate = Site::new().start(OVERRIDES);
    Admin::of(&gate).await.revoke("before").await;
    let site = gate.stop().await.site;
    run("cp state.redb", site.path("").as_path(), &[]);
    let gate = site.start(OVERRIDES);
    Admin::of(&gate).await.revoke("after").await;
    let site = gate.stop().await.site;
    run("cp state.backup.redb", site.path("").as_path(), &[]);
    let gate = site.start(OVERRIDES);
    let license = |id: &str| ask(&gate.site().issuer.license(id));
    assert_eq!(codes(&gate.check(license("before")).await), ["REVOKED"]);
    assert!(is_allowed(&gate.check(license("after")).await), "the page warns of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_restored_under_a_gate_that_keeps_what_it_knew() {
    let Some(server) = Server::start(|_| {}) else { return };
    let (database, folder) = (server.database(), tempfile::tempdir().unwrap());
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", server.port);
    let state = [("state.store", "postgres"), ("state.postgres.url", url.as_str())];
    let gate = Site::new().start(&[OVERRIDES, &state].concat());
    let mut admin = Admin::of(&gate).await;
    let path = format!("{}:{}", server.programs().display(), std::env::var("PATH").unwrap());
    let environment = [("DATABASE", url.as_str()), ("PATH", path.as_str())];
    admin.revoke("before").await;
    run("pg_dump", folder.path(), &environment);
    admin.revoke("after").await;
    run("pg_restore", folder.path(), &environment);
    eventually("it is noticed", async || gate.metric("tollgate_state_restores_total", &[]) == 1.0).await;
    let license = |id: &str| ask(&gate.site().issuer.license(id));
    for id in ["before", "after"] {
        assert_eq!(codes(&gate.check(license(id)).await), ["REVOKED"], "{id}");
    }
    let acts = run("grep", gate.site().path("").as_path(), &[]);
    assert!(acts.lines().count() == 2 && acts.contains("\"id\":\"after\""), "{acts}");
    // What is done again holds for gates that start afterwards.
    admin.revoke("after").await;
    let next = Site::new().start(&[OVERRIDES, &state].concat());
    assert_eq!(codes(&next.check(license("after")).await), ["REVOKED"]);
}

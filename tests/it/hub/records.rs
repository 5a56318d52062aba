//! What sidecars hand in: usage and records, also while a hub restarts; and that they need no disk.

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tollgate::proto::v1::GetUsageRequest;
use tollgate::store::hub::HubStore;

use super::{Fleet, metered, ready};
use crate::gate::{Gate, Site, TOLLGATE, ask, eventually, ids, is_allowed};
use crate::operators::Admin;
use crate::store::hub::hubs;

/// Records go to the hub and nowhere else.
const TO_HUB: [(&str, &str); 2] = [("audit.file", "null"), ("audit.hub", "true")];

fn of<'a>(gate: &str, records: &'a [Value]) -> HashSet<&'a str> {
    let own: Vec<Value> = records.iter().filter(|record| record["gate"] == gate).cloned().collect();
    let named: HashSet<String> = ids(&own).into_iter().map(str::to_owned).collect();
    ids(records).into_iter().filter(|id| named.contains(*id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sidecar_acknowledged_is_at_the_hub_although_it_was_killed_meanwhile() {
    let fleet = Fleet::new(1);
    let durable = [("audit.mode", "durable")];
    let hub = fleet.hub(0, &durable);
    let [sidecar] = fleet.sidecars::<1>(&TO_HUB).await;
    let token = metered(sidecar.site(), "steady", 1_000_000);
    let mut client = sidecar.client().await;
    let asking = tokio::spawn(async move {
        let (mut allowed, mut denied) = (HashSet::new(), 0);
        for _ in 0..400 {
            let answer = client.check(ask(&token)).await.unwrap().into_inner();
            match is_allowed(&answer) {
                true => drop(allowed.insert(answer.decision_id)),
                false => denied += 1,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (allowed, denied)
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    hub.signal("KILL");
    let site = hub.ended().await.site;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let hub = site.start_with(&fleet.of_hub(0, &durable));
    let (allowed, denied) = asking.await.unwrap();
    assert!(allowed.len() > 50, "{} allowed, {denied} denied", allowed.len());
    let missing = async || {
        let records = hub.site().records();
        let there = of("sidecar-0", &records);
        allowed.iter().filter(|id| !there.contains(id.as_str())).count()
    };
    eventually("all records are at the hub", async || missing().await == 0).await;
    let mut admin = Admin::of(&hub).await;
    let used = async |admin: &mut Admin| -> f64 {
        admin.usage(GetUsageRequest::default()).await.iter().map(|row| row.amount).sum()
    };
    let all = allowed.len() as f64;
    eventually("all usage is at the hub", async || used(&mut admin).await == all).await;
    let lines = hub.site().records().len();
    eprintln!("a hub was killed: {all} allowed, {denied} denied; all records there, in {lines} lines");
    assert!(!sidecar.site().path("decisions.jsonl").exists());
    let ended = sidecar.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_record_is_at_the_hub_before_a_durable_sidecar_answers() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[("audit.mode", "durable")]);
    let [sidecar] = fleet.sidecars::<1>(&[TO_HUB[0], TO_HUB[1], ("audit.mode", "durable")]).await;
    let token = sidecar.site().issuer.license("one");
    for _ in 0..20 {
        let id = sidecar.check(ask(&token)).await.decision_id;
        let records = hub.site().records();
        let found = records.iter().find(|record| record["decision_id"] == id.as_str()).expect("it is there");
        assert_eq!((&found["gate"], &found["decision"]), (&"sidecar-0".into(), &"allow".into()));
    }
}

/// MiB of memory that the hub has.
fn memory(hub: &Gate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", hub.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_hand_in_at_once_does_not_fill_the_memory_of_a_hub() {
    let hub = Gate::start(&[
        ("listeners.hub.tcp", "127.0.0.1:0"),
        ("listeners.hub.insecure", "true"),
        ("audit.file", "null"),
        ("audit.stdout", "true"),
    ]);
    // As where a disk stalls: what the log holds is full, and so is every queue before it.
    hub.stdout.stall(true);
    let before = memory(&hub);
    let line = format!("{{\"gate\":\"member\",\"x\":\"{}\"}}\n", "x".repeat(32 << 10));
    let lines: Arc<str> = line.repeat((1 << 20) / line.len()).into();
    let address = format!("http://{}", hub.hub);
    let mut members = JoinSet::new();
    for _ in 0..400 {
        let (lines, hubs) = (Arc::clone(&lines), hubs(vec![address.clone()]));
        members.spawn(async move { HubStore::open(&hubs).unwrap().hand_in(lines.as_bytes()).await });
    }
    let mut most = 0;
    while let Ok(taken) = timeout(Duration::from_millis(100), members.join_next()).await {
        most = most.max(memory(&hub) - before);
        if taken.is_none() {
            break;
        }
    }
    while members.join_next().await.is_some() {
        most = most.max(memory(&hub) - before);
    }
    eprintln!("400 MiB were handed in at once: {most} MiB more in memory");
    assert!(most < 280, "{most} MiB");
    hub.stdout.stall(false);
    let store = HubStore::open(&hubs(vec![address])).unwrap();
    eventually("it takes lines again", async || store.hand_in(line.as_bytes()).await.is_ok()).await;
}

/// As whom, where the tests run as root: it may write everywhere.
fn as_nobody(site: &Site, overrides: &[(String, String)]) -> Command {
    let arguments = ["serve", "--config", "tollgate.yaml"].map(str::to_owned).into_iter();
    let sets = overrides.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    let mut command = match fs::metadata("/proc/self").unwrap().uid() {
        0 => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", TOLLGATE]);
            command
        }
        _ => Command::new(TOLLGATE),
    };
    command.current_dir(site.path("")).args(arguments.chain(sets)).stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_sidecar_needs_no_writable_disk() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let site = Site::new();
    fleet.install(&site, &fleet.authority, "sidecar");
    fs::set_permissions(site.path("own.key"), Permissions::from_mode(0o444)).unwrap();
    let folder = site.path("");
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let listed = || -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listed();
    let command = as_nobody(&site, &fleet.of_sidecar(&[TO_HUB[0], TO_HUB[1], ("gate.name", "bare")]));
    let sidecar = Gate::run(site, command);
    ready(&sidecar).await;
    let token = sidecar.site().issuer.license("one");
    let id = sidecar.check(ask(&token)).await.decision_id;
    eventually("its record is at the hub", async || of("bare", &hub.site().records()).contains(id.as_str()))
        .await;
    assert_eq!(listed(), before);
    let ended = sidecar.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(listed(), before);
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
}

//! Everything is replaced, one after the other, under load: no request fails, and nothing is allowed that may not be.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::client::get;
use super::download::{Download, Over};
use super::upstream::Course;
use super::{ELSEWHERE, Scene, example, program, site, start_gate};
use crate::gate::{Gate, eventually, within};
use crate::hub::{Fleet, port};
use crate::operators::Admin;
use crate::postgres::server;

/// What a request asks for.
const SHORT: Course = Course { chunks: 2, bytes: 100, pause: 1 };

/// Long enough for Envoy to see that a gate leaves, and for what is under way.
const STOPPING: [(&str, &str); 3] =
    [("shutdown.notice", "1s"), ("shutdown.grace", "2s"), ("envoy.unfinished", "release")];

/// A central gate over the hubs, at a port that stays.
fn central(fleet: &Fleet, port: u16) -> Gate {
    let site = site();
    fleet.introduce(&site, "sidecar");
    let address = format!("127.0.0.1:{port}");
    let own = [
        ("listeners.decisions.tcp", address.as_str()),
        ("audit.stdout", "false"),
        ("listeners.http.tcp", "127.0.0.1:0"),
    ];
    let more = [&own[..], &STOPPING].concat();
    site.start_with(&fleet.of_sidecar(&more))
}

async fn ready(gate: &Gate) {
    within(Duration::from_secs(30), "it is ready", async || gate.get("/readyz").0 == 200).await;
}

/// The lines of the example of a central gate from that with `from` on, to that with `to`.
fn central_lines(from: &str, to: &str) -> String {
    let patience = [&ELSEWHERE[..], &[("max_interval: 0.5s", "max_interval: 10s")]].concat();
    let central = example("central.yaml", &patience);
    let lines = central.lines().skip_while(|line| !line.contains(from));
    lines.take_while(|line| !line.contains(to)).map(|line| format!("{line}\n")).collect()
}

/// An Envoy that asks two gates as the example of a central gate has it, but without certificates.
///
/// The gate that is given only lends its name and files, unless its port is one of these.
async fn scene(program: &Path, gate: Gate, ports: [u16; 2], looked_after: bool) -> Scene {
    let endpoints = ports.map(|port| {
        format!(
            "        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"
        )
    });
    let asking = "grpc_service: {envoy_grpc: {cluster_name: tollgate}";
    let mut changes = vec![
        (
            "        - endpoint: {address: {pipe: {path: /run/tollgate/gate.sock}}}".to_owned(),
            endpoints.join("\n"),
        ),
        (
            format!("              {asking}, timeout: 10s}}\n"),
            central_lines("grpc_service:", "failure_mode_allow"),
        ),
        (format!("              {asking}}}\n"), central_lines("retry_policy: *", "failure_mode_allow")),
    ];
    if looked_after {
        let checks = central_lines("connect_timeout", "circuit_breakers");
        assert!(checks.contains("health_checks"), "{checks}");
        changes.push(("    connect_timeout: 0.25s\n".to_owned(), checks));
    }
    let changes: Vec<_> = changes.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    Scene::around(program, gate, "sidecar.yaml", &changes, &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_and_gates_are_replaced_under_load_and_nothing_fails() {
    let (Some(program), Some(server)) = (program(), server()) else { return };
    let url = server.config(&server.database()).url;
    let fleet = Fleet::new(2);
    let over = [("state.store", "postgres"), ("state.postgres.url", url.as_str()), ("shutdown.notice", "0s")];
    let mut hubs = [0, 1].map(|number| Some(fleet.hub(number, &over)));
    let ports = [port(), port()];
    let mut gates = ports.map(|port| Some(central(&fleet, port)));
    for gate in gates.iter().flatten() {
        ready(gate).await;
    }
    let scene = scene(program, start_gate(site(), &[]), ports, true).await;
    let scene = Arc::new(scene);
    Admin::of(hubs[0].as_ref().unwrap()).await.revoke("revoked").await;
    let issuer = &scene.gate.site().issuer;
    let (good, bad) = (issuer.license("good"), issuer.license("revoked"));
    eventually("what is revoked is denied", async || {
        scene.download(Over::Http1, &bad, SHORT).await.response.status() == 401
    })
    .await;

    let mut lasting =
        scene.download(Over::Http2, &good, Course { chunks: 100_000, bytes: 100, pause: 20 }).await;
    let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut load = JoinSet::new();
    for number in 0..6 {
        let (scene, stop, asked) = (Arc::clone(&scene), Arc::clone(&stop), Arc::clone(&asked));
        let (token, status) = if number == 0 { (bad.clone(), 401) } else { (good.clone(), 200) };
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let over = if number % 2 == 0 { Over::Http1 } else { Over::Http2 };
                let download = scene.download(over, &token, SHORT).await;
                let nth = asked.fetch_add(1, Ordering::Relaxed);
                if download.response.status() != status {
                    panic!("request {nth}: {:?}; {}", download.response, why(&scene).await);
                }
                assert!(download.rest().await.whole);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    for (slot, port) in gates.iter_mut().zip(ports) {
        let ended = slot.take().unwrap().stop().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let gate = central(&fleet, port);
        ready(&gate).await;
        *slot = Some(gate);
        // As a roll-out waits before it goes on.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (number, slot) in hubs.iter_mut().enumerate() {
        let ended = slot.take().unwrap().stop().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        *slot = Some(fleet.hub(number, &over));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    assert!(asked.load(Ordering::Relaxed) > 200, "{asked:?} requests");
    goes_on(&mut lasting).await;
}

/// What Envoy says of the gates, and of the last requests that did not get through.
async fn why(scene: &Scene) -> String {
    let gates = "/stats?filter=^cluster.tollgate.(membership|health_check|upstream_[cr][xq]_[a-z_]*)";
    let gates = get(scene.envoy.admin, gates).await.body;
    // Until it has written that.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = scene.envoy.stdout.text();
    // Those of the revoked license are as they should be, and many.
    let expected = |line: &&str| line.contains("via_upstream") || line.contains("ext_authz_denied");
    let said: Vec<&str> = log.lines().filter(|line| !expected(line)).collect();
    format!("{}\n{gates}", said.split_at(said.len().saturating_sub(20)).1.join("\n"))
}

/// It may live, so nobody cut it.
async fn goes_on(lasting: &mut Download) {
    let before = lasting.received;
    while lasting.received < before + 10_000 {
        assert!(lasting.next().await.is_some(), "it ended after {}", lasting.received);
    }
}

#[tokio::test]
async fn where_a_gate_has_just_gone_another_is_asked() {
    let Some(program) = program() else { return };
    let (gate, gone) = (start_gate(site(), &[]), start_gate(site(), &[]));
    let ports = [gone.decisions.port(), gate.decisions.port()];
    // Nothing tells Envoy of it.
    let scene = scene(program, gate, ports, false).await;
    let token = scene.license();
    let passes = async |requests: usize| {
        for nth in 0..requests {
            let download = scene.download(Over::Http1, &token, SHORT).await;
            if download.response.status() != 200 {
                panic!("request {nth} of {requests}: {:?}; {}", download.response, why(&scene).await);
            }
            assert!(download.rest().await.whole);
        }
    };
    passes(4).await;
    gone.signal("KILL");
    gone.ended().await;
    passes(20).await;
    assert_eq!(scene.upstream.asked(), 24);
}

#[tokio::test]
async fn gates_that_leave_are_asked_while_no_other_is_known() {
    let Some(program) = program() else { return };
    let notice = ("shutdown.notice", "20s");
    let gates = [start_gate(site(), &[notice]), start_gate(site(), &[notice])];
    let ports = [gates[0].decisions.port(), gates[1].decisions.port()];
    let scene = scene(program, start_gate(site(), &[]), ports, true).await;
    let healthy = async || scene.envoy.stat("cluster.tollgate.membership_healthy").await;
    eventually("Envoy knows them", async || healthy().await == 2).await;
    // As where both are replaced before Envoy has seen the first of the new ones.
    gates.iter().for_each(|gate| gate.signal("TERM"));
    eventually("Envoy knows that they leave", async || healthy().await == 0).await;
    let download = scene.download(Over::Http1, &scene.license(), SHORT).await;
    assert_eq!(download.response.status(), 200, "{}", why(&scene).await);
    assert!(download.rest().await.whole);
}

#[tokio::test]
async fn an_envoy_that_is_there_before_its_gate_lets_nothing_through() {
    let Some(program) = program() else { return };
    let early = site();
    let socket = early.path("gate.sock");
    let gate = start_gate(site(), &[]);
    let elsewhere = [("/run/tollgate/gate.sock", socket.to_str().unwrap())];
    assert!(example("sidecar.yaml", &[]).contains(elsewhere[0].0));
    let scene = Scene::around(program, gate, "sidecar.yaml", &elsewhere, &[]).await;
    let token = scene.license();
    for _ in 0..5 {
        assert_eq!(scene.download(Over::Http1, &token, SHORT).await.response.status(), 503);
    }
    let _late = start_gate(early, &[("listeners.decisions.unix", "gate.sock")]);
    eventually("it lets through what is allowed", async || {
        scene.download(Over::Http1, &token, SHORT).await.response.status() == 200
    })
    .await;
    assert_eq!(scene.upstream.asked(), 1);
}

//! Hubs and sidecars from outside: processes of their own that know each other by their certificates.

mod failures;
mod members;
mod records;
mod twenty;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::proto::v1::check_request::License;
use tollgate::proto::v1::{CheckRequest, GetUsageRequest};

use super::gate::{Gate, Site, ask, codes, eventually, is_allowed, within};
use super::operators::Admin;
use super::streams::Use;
use super::tls::Authority;

/// A port that nobody listens on.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a gate is started with beside its file.
pub(crate) type Overrides = Vec<(String, String)>;

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Hubs and sidecars that trust one authority.
pub(crate) struct Fleet {
    authority: Authority,
    /// Where hubs are looked for.
    ports: Vec<u16>,
}

impl Fleet {
    pub(crate) fn new(hubs: usize) -> Self {
        Self { authority: Authority::new(), ports: (0..hubs).map(|_| port()).collect() }
    }

    /// Files of a gate outside of this module that goes by this name.
    pub(crate) fn introduce(&self, site: &Site, name: &str) {
        self.install(site, &self.authority, name);
    }

    fn install(&self, site: &Site, authority: &Authority, name: &str) {
        let (certificate, key) = authority.sign_for(name);
        site.write("ca.crt", &self.authority.pem);
        site.write("own.crt", &certificate);
        site.write("own.key", &key);
    }

    /// What the hub of this number is started with.
    fn of_hub(&self, number: usize, more: &[(&str, &str)]) -> Overrides {
        let members = "[{subject: sidecar, scope: gate}, {subject: console, scope: operate}]";
        let tcp = format!("127.0.0.1:{}", self.ports[number]);
        let mut all = overrides(&[
            ("listeners.administration.unix", "admin.sock"),
            ("listeners.hub.tcp", &tcp),
            ("listeners.hub.tls.certificate", "own.crt"),
            ("listeners.hub.tls.key", "own.key"),
            ("listeners.hub.tls.client_ca", "ca.crt"),
            ("listeners.hub.members", members),
        ]);
        all.extend(overrides(more));
        all
    }

    pub(crate) fn hub(&self, number: usize, more: &[(&str, &str)]) -> Gate {
        let site = Site::new();
        self.install(&site, &self.authority, "localhost");
        site.start_with(&self.of_hub(number, more))
    }

    /// What a sidecar is started with.
    pub(crate) fn of_sidecar(&self, more: &[(&str, &str)]) -> Overrides {
        let addresses: Vec<String> =
            self.ports.iter().map(|port| format!("https://localhost:{port}")).collect();
        let hub = json!({
            "addresses": addresses, "ca": "ca.crt", "certificate": "own.crt", "key": "own.key",
        });
        let mut all = overrides(&[("state.store", "hub"), ("state.hub", &hub.to_string())]);
        all.extend(overrides(more));
        all
    }

    fn sidecar_named(&self, authority: &Authority, name: &str, more: &[(&str, &str)]) -> Gate {
        let site = Site::new();
        self.install(&site, authority, name);
        site.start_with(&self.of_sidecar(more))
    }

    fn sidecar(&self, more: &[(&str, &str)]) -> Gate {
        self.sidecar_named(&self.authority, "sidecar", more)
    }

    async fn sidecars<const N: usize>(&self, more: &[(&str, &str)]) -> [Gate; N] {
        let sidecars = std::array::from_fn(|number| {
            let name = format!("sidecar-{number}");
            self.sidecar(&[&[("gate.name", name.as_str())], more].concat())
        });
        for sidecar in &sidecars {
            ready(sidecar).await;
        }
        sidecars
    }
}

async fn ready(gate: &Gate) {
    eventually("it is ready", async || gate.get("/readyz").0 == 200).await;
}

/// Asks by the id of a registered license.
fn ask_by_id(id: &str) -> CheckRequest {
    CheckRequest { license: Some(License::LicenseId(id.to_owned())), ..ask("") }
}

/// A token of a license with one quota of so many requests.
fn metered(site: &Site, id: &str, limit: u64) -> String {
    let mut claims = site.issuer.claims(id);
    claims["terms"]["quotas"] =
        json!([{"id": "q", "metric": "requests", "limit": limit, "per": "license", "window": "total"}]);
    site.issuer.sign(&claims)
}

#[tokio::test]
async fn a_sidecar_says_what_its_hub_knows() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let [sidecar] = fleet.sidecars::<1>(&[]).await;
    let issuer = &hub.site().issuer;
    let mut admin = Admin::of(&hub).await;
    assert!(is_allowed(&sidecar.check(ask(&issuer.license("by-token"))).await));
    assert_eq!(codes(&sidecar.check(ask_by_id("by-id")).await), ["LICENSE_UNKNOWN"]);

    let mut claims = issuer.claims("by-id");
    claims["terms"]["acceptance"] = json!({"terms_hash": "R2VlbiB0ZXJtcw"});
    assert!(admin.register(&issuer.sign(&claims)).await.unwrap());
    let told = async |question: CheckRequest| {
        codes(&sidecar.check(question).await).first().map(|code| (*code).to_owned())
    };
    let unaccepted = Some("TERMS_NOT_ACCEPTED".to_owned());
    within(Duration::from_secs(2), "it is known", async || told(ask_by_id("by-id")).await == unaccepted)
        .await;
    assert!(admin.accept("by-id", "R2VlbiB0ZXJtcw").await);
    within(Duration::from_secs(2), "accepted", async || told(ask_by_id("by-id")).await.is_none()).await;

    admin.suspend("by-id").await;
    let suspended = Some("SUSPENDED".to_owned());
    within(Duration::from_secs(1), "suspended", async || told(ask_by_id("by-id")).await == suspended).await;
    admin.reinstate("by-id").await;
    within(Duration::from_secs(1), "reinstated", async || told(ask_by_id("by-id")).await.is_none()).await;
    let usage = async |admin: &mut Admin| -> f64 {
        admin.usage(GetUsageRequest::default()).await.iter().map(|row| row.amount).sum()
    };
    let allowed = sidecar.metric("tollgate_checks_total", &[("decision", "allow")]);
    let mut reader = admin.clone();
    eventually("its usage is counted", async || usage(&mut reader).await == allowed).await;
    // What stops hands in what it used, and gives back what it held.
    let answer = sidecar.check(ask(&metered(hub.site(), "metered", 1_000))).await;
    assert!(is_allowed(&answer), "{answer:?}");
    assert_eq!(sidecar.stop().await.code, Some(0));
    assert_eq!(usage(&mut admin).await, allowed + 1.0);
    let left = hub.check(ask(&metered(hub.site(), "metered", 1_000))).await.quotas[0].remaining;
    assert_eq!(left, 998.0);
}

#[tokio::test]
async fn a_sidecar_may_start_before_its_hub() {
    let fleet = Fleet::new(1);
    let sidecar = fleet.sidecar(&[]);
    assert_eq!(sidecar.get("/readyz").0, 503);
    let question = ask(&sidecar.site().issuer.license("one"));
    assert_eq!(codes(&sidecar.check(question.clone()).await), ["STATE_STALE"]);
    let _hub = fleet.hub(0, &[]);
    ready(&sidecar).await;
    assert!(is_allowed(&sidecar.check(question).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_reaches_every_sidecar_and_its_streams_within_a_second() {
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let sidecars = fleet.sidecars::<5>(&[]).await;
    let mut admin = Admin::of(&hub).await;
    let mut clients = Vec::new();
    for sidecar in &sidecars {
        clients.push(sidecar.client().await);
    }
    let mut delays = Vec::new();
    for round in 0..10 {
        let id = format!("license-{round}");
        let question = ask(&hub.site().issuer.license(&id));
        let mut uses = Vec::new();
        for client in &mut clients {
            let (going_on, answer) = Use::open(client, question.clone()).await;
            assert!(is_allowed(&answer), "{answer:?}");
            uses.push(going_on);
        }
        admin.revoke(&id).await;
        let acknowledged = Instant::now();
        let ended = uses.into_iter().map(|mut going_on| {
            tokio::spawn(async move {
                let ended = going_on.ended().await;
                assert_eq!(ended.reasons[0].code, "REVOKED");
                acknowledged.elapsed()
            })
        });
        for delay in ended.collect::<Vec<_>>() {
            delays.push(delay.await.unwrap());
        }
        for client in &mut clients {
            let answer = client.check(question.clone()).await.unwrap().into_inner();
            assert_eq!(codes(&answer), ["REVOKED"]);
        }
    }
    delays.sort();
    let (median, last) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!("a revocation at the hub ended streams at 5 sidecars: p50 {median:?}, max {last:?}");
    assert!(last < Duration::from_secs(1), "{delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_sidecars_share_is_never_over_and_can_be_used_up() {
    const LIMIT: u64 = 3_000;
    let fleet = Fleet::new(1);
    let hub = fleet.hub(0, &[]);
    let sidecars = fleet.sidecars::<3>(&[]).await;
    let token = metered(hub.site(), "shared", LIMIT);
    let mut asking = Vec::new();
    for sidecar in &sidecars {
        for _ in 0..4 {
            let (mut client, token) = (sidecar.client().await, token.clone());
            asking.push(tokio::spawn(async move {
                let (mut allowed, mut last) = (0, Instant::now());
                // What a sidecar holds without demand goes back after some seconds.
                while last.elapsed() < Duration::from_secs(6) {
                    let answer = client.check(ask(&token)).await.unwrap().into_inner();
                    if is_allowed(&answer) {
                        (allowed, last) = (allowed + 1, Instant::now());
                    } else {
                        assert_eq!(codes(&answer), ["QUOTA_EXCEEDED"], "{answer:?}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
                allowed
            }));
        }
    }
    let mut allowed = 0;
    for one in asking {
        allowed += one.await.unwrap();
    }
    eprintln!("{allowed} of {LIMIT} were used by 3 sidecars");
    assert!(allowed <= LIMIT && allowed * 100 >= LIMIT * 99, "{allowed}");
}

//! Trust from outside: what the keys in the folder say holds at once, for what is remembered too.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::keyring::jwks::KeyState;

use super::gate::{Client, Gate, Issuer, Site, ask, codes, eventually, within};
use super::volume::Volume;

/// How soon a change of keys must be in force.
const SOON: Duration = Duration::from_secs(2);

/// The codes of a denial; none for an allow.
async fn answer(client: &mut Client, token: &str) -> Vec<String> {
    let answer = client.check(ask(token)).await.unwrap().into_inner();
    codes(&answer).into_iter().map(str::to_owned).collect()
}

fn failures(gate: &Gate) -> f64 {
    gate.metric("tollgate_reloads_total", &[("what", "keys"), ("result", "failure")])
}

fn hits(gate: &Gate) -> f64 {
    gate.metric("tollgate_cache_lookups_total", &[("cache", "verified_licenses"), ("result", "hit")])
}

#[tokio::test]
async fn a_key_that_is_retired_or_removed_ends_what_it_verified() {
    let gate = Gate::start(&[]);
    let issuer = &gate.site().issuer;
    let next = Issuer::new(&issuer.name, 2);
    let (token, renewed) = (issuer.license("license-1"), next.license("license-1"));
    let mut client = gate.client().await;
    for _ in 0..3 {
        assert!(answer(&mut client, &token).await.is_empty());
    }
    assert_eq!(hits(&gate), 2.0, "the license is remembered");
    assert_eq!(answer(&mut client, &renewed).await, ["KEY_UNKNOWN"]);

    let mut publish = async |states: &[(&Issuer, KeyState)], token: &str, expected: &[&str]| {
        let keys = states.iter().map(|(issuer, state)| issuer.jwk(*state)).collect();
        gate.site().write("keys/issuer.json", &issuer.key_set(keys));
        let holds = async || answer(&mut client, token).await == expected;
        within(SOON, &format!("{expected:?}"), holds).await;
    };
    publish(&[(issuer, KeyState::Active), (&next, KeyState::Next)], &renewed, &[]).await;
    publish(&[(issuer, KeyState::Retiring), (&next, KeyState::Active)], &token, &[]).await;
    publish(&[(issuer, KeyState::Retired), (&next, KeyState::Active)], &token, &["KEY_RETIRED"]).await;
    publish(&[(&next, KeyState::Active)], &token, &["KEY_UNKNOWN"]).await;
    publish(&[(&next, KeyState::Active)], &renewed, &[]).await;
    // Taken back: a refusal that is remembered ends too.
    publish(&[(issuer, KeyState::Active), (&next, KeyState::Active)], &token, &[]).await;
}

#[tokio::test]
async fn an_issuer_comes_and_goes_while_the_gate_runs() {
    let gate = Gate::start(&[]);
    let newcomer = Issuer::new("https://new.example", 7);
    let token = newcomer.license("license-1");
    let own = gate.site().issuer.license("license-1");
    let mut client = gate.client().await;
    assert_eq!(answer(&mut client, &token).await, ["KEY_UNKNOWN"]);
    gate.site().write("keys/new.json", &newcomer.key_set(vec![newcomer.jwk(KeyState::Active)]));
    within(SOON, "the new issuer is trusted", async || answer(&mut client, &token).await.is_empty()).await;
    assert!(gate.part("keys").1.contains("issuers: 2"), "{:?}", gate.part("keys"));

    // Its key signs for nobody else.
    let mut claims = newcomer.claims("license-2");
    claims["iss"] = gate.site().issuer.name.clone().into();
    assert_eq!(answer(&mut client, &newcomer.sign(&claims)).await, ["ISSUER_UNTRUSTED"]);

    fs::remove_file(gate.site().path("keys/new.json")).unwrap();
    within(SOON, "it is trusted no more", async || answer(&mut client, &token).await == ["KEY_UNKNOWN"])
        .await;
    assert!(answer(&mut client, &own).await.is_empty());
}

#[tokio::test]
async fn a_bad_key_set_leaves_the_keys_in_force_and_is_told() {
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut client = gate.client().await;
    let good = fs::read_to_string(gate.site().path("keys/issuer.json")).unwrap();
    // The next to last is the private key, copied into the folder by mistake.
    let private = serde_json::to_value(gate.site().issuer.private()).unwrap();
    let secret = private["d"].as_str().unwrap().to_owned();
    let mut with_private: Value = serde_json::from_str(&good).unwrap();
    with_private["keys"][0]["d"] = json!(secret);
    let half = good[..good.len() / 2].to_owned();
    let bad = ["{".to_owned(), String::new(), half, with_private.to_string(), private.to_string()];
    for (round, bad) in bad.into_iter().enumerate() {
        let before = failures(&gate);
        gate.site().write("keys/issuer.json", &bad);
        eventually("the failure is counted", async || failures(&gate) > before).await;
        let (state, detail) = gate.part("keys");
        assert_eq!(state, "degraded", "{round}");
        assert!(detail.contains("keys/issuer.json") && !detail.contains(&secret), "{round}: {detail}");
        assert_eq!(gate.get("/readyz").0, 200, "the old keys are in force");
        assert!(answer(&mut client, &token).await.is_empty(), "{round}");

        gate.site().write("keys/issuer.json", &good);
        eventually("it is taken back", async || gate.part("keys").0 == "ready").await;
    }
    let ended = gate.stop().await;
    assert!(ended.stderr.contains("keys/issuer.json") && !ended.stderr.contains(&secret), "{}", ended.stderr);
}

#[tokio::test]
async fn when_the_last_key_set_is_removed_nobody_is_trusted() {
    let gate = Gate::start(&[]);
    let token = gate.site().issuer.license("license-1");
    let mut client = gate.client().await;
    assert!(answer(&mut client, &token).await.is_empty());
    let file = gate.site().path("keys/issuer.json");
    let good = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    within(SOON, "nobody is trusted", async || answer(&mut client, &token).await == ["KEY_UNKNOWN"]).await;
    eventually("the gate says so", async || gate.get("/readyz").0 == 503).await;
    assert_eq!(gate.part("keys"), ("not_ready".to_owned(), "keys: 0, issuers: 0".to_owned()));
    fs::write(&file, good).unwrap();
    within(SOON, "the issuer is back", async || answer(&mut client, &token).await.is_empty()).await;
    eventually("the gate is ready", async || gate.get("/readyz").0 == 200).await;
}

#[test]
fn a_gate_does_not_start_on_a_private_key() {
    let site = Site::new();
    let private = serde_json::to_value(site.issuer.private()).unwrap();
    site.write("keys/private.json", &private.to_string());
    let refused = site.serve(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("keys/private.json"), "{words}");
    assert!(!words.contains(private["d"].as_str().unwrap()), "{words}");
}

#[tokio::test]
async fn keys_in_a_mounted_volume_are_rotated_by_its_swaps() {
    let site = Site::new();
    let name = site.issuer.name.clone();
    let issuers: Vec<_> = (1..5).map(|seed| Issuer::new(&name, seed)).collect();
    let files = |issuer: &Issuer| [("issuer.json", issuer.key_set(vec![issuer.jwk(KeyState::Active)]))];
    let mut volume = Volume::mount(&site.path("keys"), &files(&issuers[0]));
    let gate = site.start(&[]);
    let mut client = gate.client().await;
    for pair in issuers.windows(2) {
        let (old, new) = (pair[0].license("license-1"), pair[1].license("license-1"));
        assert!(answer(&mut client, &old).await.is_empty());
        volume.swap(&files(&pair[1]));
        within(SOON, "the new key counts", async || answer(&mut client, &new).await.is_empty()).await;
        assert_eq!(answer(&mut client, &old).await, ["KEY_UNKNOWN"]);
    }
    assert_eq!(failures(&gate), 0.0);
}

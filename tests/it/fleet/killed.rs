//! One gate with an embedded state, killed at random moments: what was acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tollgate::proto::v1::{CheckRequest, GetLicenseRequest, GetUsageRequest, SettleRequest};

use super::{a_moment, admin, is_denied_with, random, rounds};
use crate::gate::{Gate, Site, ask, is_allowed};
use crate::operators::OVERRIDES;

/// What the gate acknowledged.
#[derive(Clone, Default)]
struct Told {
    registered: Vec<String>,
    /// How licenses stand, and under which code they are denied.
    standings: BTreeMap<String, &'static str>,
    /// Rows that were allowed, and of these what was settled.
    allowed: f64,
    settled: f64,
}

async fn work(gate: &Gate, round: usize, token: String, told: Arc<Mutex<Told>>) -> Option<()> {
    let (mut admin, mut client) = (admin(gate).await, gate.client().await);
    let issuer = Site::new().issuer;
    for number in 0.. {
        let id = format!("license-{round}-{number}");
        admin.register(&issuer.license(&id)).await.ok()?;
        told.lock().unwrap().registered.push(id.clone());
        match random(3) {
            0 => {
                admin.try_revoke(&id).await.ok()?;
                told.lock().unwrap().standings.insert(id, "REVOKED");
            }
            1 => {
                let target = crate::operators::license(&id);
                let request = tollgate::proto::v1::SuspendLicenseRequest { target, reason: "a test".into() };
                admin.0.suspend_license(request).await.ok()?;
                told.lock().unwrap().standings.insert(id, "SUSPENDED");
            }
            _ => {}
        }
        let usage = [("rows".to_owned(), 10.0)].into();
        let answer = client.check(CheckRequest { usage, ..ask(&token) }).await.ok()?.into_inner();
        assert!(is_allowed(&answer), "{answer:?}");
        told.lock().unwrap().allowed += 10.0;
        let reservation_id = answer.reservation_id;
        let settle = SettleRequest { reservation_id, usage: [("rows".to_owned(), 7.0)].into() };
        client.settle(settle).await.ok()?;
        told.lock().unwrap().settled += 7.0;
    }
    None
}

async fn verify(gate: &Gate, told: &Told) {
    let (mut admin, mut client) = (admin(gate).await, gate.client().await);
    for id in &told.registered {
        let request = GetLicenseRequest { license_id: id.clone() };
        assert!(admin.0.get_license(request).await.is_ok(), "the registration of `{id}` is lost");
    }
    let issuer = Site::new().issuer;
    for (id, code) in &told.standings {
        let answer = client.check(ask(&issuer.license(id))).await.unwrap().into_inner();
        assert!(is_denied_with(&answer, code), "`{id}` was {code}: {answer:?}");
    }
    let request = GetUsageRequest { metric: "rows".to_owned(), ..GetUsageRequest::default() };
    let used: f64 = admin.usage(request).await.iter().map(|row| row.amount).sum();
    // A settlement that was answered was handed in with the use that it settles.
    assert!(used >= told.settled && used <= told.allowed + 10.0, "{used}, settled {}", told.settled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost() {
    let mut gate = Site::new().start(OVERRIDES);
    let told = Arc::new(Mutex::new(Told::default()));
    let quota = json!([{"id": "q", "metric": "rows", "limit": 1e9, "per": "license", "window": "total"}]);
    let token = super::metered("metered", quota);
    for round in 0..rounds(8) {
        {
            let working = work(&gate, round, token.clone(), told.clone());
            let killing = async {
                a_moment().await;
                gate.signal("KILL");
            };
            tokio::join!(working, killing);
        }
        // What was asked for last may have happened without an answer.
        told.lock().unwrap().allowed += 10.0;
        let site = gate.ended().await.site;
        gate = site.start(OVERRIDES);
        let so_far = told.lock().unwrap().clone();
        verify(&gate, &so_far).await;
    }
    let told = told.lock().unwrap();
    eprintln!("acknowledged: {} registrations, {} standings", told.registered.len(), told.standings.len());
}

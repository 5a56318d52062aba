//! What goes on beside decisions: files are followed, and what becomes of them is told.
//!
//! Refuses to put anything bad in force: a bad set of keys or policies leaves the old one, and
//! readiness, metrics and the log say so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinHandle;

use crate::administration::Operators;
use crate::audit::{Health, Writer};
use crate::config::Config;
use crate::decision::Pdp;
use crate::document::Problems;
use crate::domain::Clock;
use crate::hub::Hub;
use crate::keyring::Keyring;
use crate::listener::tls;
use crate::policy::Policies;
use crate::telemetry::instruments::{AuditFigures, CacheName, Instruments, Reloaded, Shown};
use crate::telemetry::readiness::Readiness;
use crate::watch::{Watch, WatchError};

/// Whom a reload tells of its outcome.
#[derive(Clone)]
pub(super) struct Reloads {
    pub(super) readiness: Readiness,
    pub(super) instruments: Instruments,
    pub(super) clock: Clock,
    pub(super) pdp: Arc<Pdp>,
}

impl Reloads {
    /// Tells of a reload; nothing when there was nothing new.
    fn tell(&self, what: Reloaded, name: &'static str, outcome: &Result<bool, Problems>, in_force: &InForce) {
        let InForce { words, .. } = in_force;
        let refused = match outcome {
            Ok(_) => None,
            Err(problems) => Some(format!("{words}; newer ones are refused: {problems}")),
        };
        match (in_force.suffices, &refused) {
            (false, _) => self.readiness.not_ready(name, refused.as_ref().unwrap_or(words)),
            (true, None) => self.readiness.ready(name, words),
            (true, Some(refused)) => self.readiness.degraded(name, refused),
        }
        match outcome {
            // The bad set was taken back.
            Ok(false) => return,
            Ok(true) => tracing::info!("new {name} are in force: {words}"),
            Err(problems) => {
                tracing::error!("new {name} are refused, those in force stay ({words}): {problems}");
            }
        }
        self.instruments.reload(what, outcome.is_ok(), self.clock.now());
        // What goes on may hang on what is new.
        self.pdp.ask_running_again();
    }
}

/// What a reload left in force.
struct InForce {
    words: String,
    /// Whether the gate can decide with it.
    suffices: bool,
}

/// Follows the folder of key sets.
pub(super) fn follow_keys(reloads: &Reloads, keyring: Arc<Keyring>) -> Result<Watch, WatchError> {
    let reloads = reloads.clone();
    let in_force = |keyring: &Keyring| {
        let keys = keyring.current();
        let words = format!("keys: {}, issuers: {}", keys.len(), keys.issuers());
        InForce { words, suffices: !keys.is_empty() }
    };
    reloads.tell(Reloaded::Keys, "keys", &Ok(true), &in_force(&keyring));
    let folder = keyring.folder().to_owned();
    Watch::start(&[folder], move || {
        let outcome = keyring.reload();
        reloads.tell(Reloaded::Keys, "keys", &outcome, &in_force(&keyring));
    })
}

/// Follows the files of certificates that the gate shows, and tells until when these are good; whether they were taken
/// into force, listeners tell.
pub(super) fn follow_certificates(config: &Config, instruments: &Instruments) -> Result<Watch, WatchError> {
    let listeners = &config.listeners;
    let shown = [
        (Shown::Decisions, listeners.decisions.tls.as_ref().map(|tls| &tls.certificate)),
        (Shown::Administration, listeners.administration.tls.as_ref().map(|tls| &tls.certificate)),
        (Shown::Hub, listeners.hub.tls.as_ref().map(|tls| &tls.certificate)),
        (Shown::Http, listeners.http.tls.as_ref().map(|tls| &tls.certificate)),
        (Shown::HubClient, config.state.hub.as_ref().and_then(|hub| hub.certificate.as_ref())),
    ];
    let shown: Vec<(Shown, PathBuf)> =
        shown.into_iter().filter_map(|(shown, path)| Some((shown, path?.clone()))).collect();
    let paths: Vec<PathBuf> = shown.iter().map(|(_, path)| path.clone()).collect();
    let instruments = instruments.clone();
    let tell = move || {
        for (shown, path) in &shown {
            instruments.certificate(*shown, tls::validity(path));
        }
    };
    tell();
    Watch::start(&paths, tell)
}

/// Follows the folder of policies and the catalog.
pub(super) fn follow_policies(reloads: &Reloads, policies: Arc<Policies>) -> Result<Watch, WatchError> {
    let reloads = reloads.clone();
    let in_force = |policies: &Policies| InForce {
        words: format!("revision {}", policies.current().revision()),
        suffices: true,
    };
    let tell_revision = |reloads: &Reloads, policies: &Policies| {
        reloads.instruments.policy_revision(policies.current().revision());
    };
    reloads.tell(Reloaded::Policies, "policies", &Ok(true), &in_force(&policies));
    tell_revision(&reloads, &policies);
    let paths: Vec<PathBuf> = policies.paths().map(Path::to_owned).collect();
    Watch::start(&paths, move || {
        let outcome = policies.reload();
        reloads.tell(Reloaded::Policies, "policies", &outcome, &in_force(&policies));
        tell_revision(&reloads, &policies);
    })
}

/// Follows the file of tokens, if there is one.
pub(super) fn follow_tokens(
    reloads: &Reloads,
    operators: Arc<Operators>,
) -> Result<Option<Watch>, WatchError> {
    let Some(file) = operators.file().map(Path::to_owned) else { return Ok(None) };
    let reloads = reloads.clone();
    let watch = Watch::start(&[file], move || {
        let outcome = operators.reload();
        match &outcome {
            Ok(false) => return,
            Ok(true) => tracing::info!(tokens = operators.tokens(), "new tokens are in force"),
            Err(problems) => tracing::error!("new tokens are refused, those in force stay: {problems}"),
        }
        reloads.instruments.reload(Reloaded::Tokens, outcome.is_ok(), reloads.clock.now());
    })?;
    Ok(Some(watch))
}

/// A gate that cannot record does not call itself ready.
pub(super) fn follow_decision_log(readiness: Readiness, audit: &Writer) -> JoinHandle<()> {
    let mut health = audit.subscribe();
    tokio::spawn(async move {
        loop {
            match &*health.borrow_and_update() {
                Health::Writable => readiness.ready("decision log", "writable"),
                Health::Unwritable(reason) => readiness.not_ready("decision log", reason.to_string()),
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    })
}

/// Metrics that are read when somebody asks.
pub(super) fn register_gauges(
    instruments: &Instruments,
    pdp: &Arc<Pdp>,
    policies: &Arc<Policies>,
    audit: &Writer,
    capacity: u32,
) {
    let of_pdp = pdp.clone();
    instruments.register_cache_size(CacheName::VerifiedLicenses, move || of_pdp.license_bytes().0);
    let of_pdp = pdp.clone();
    instruments.register_cache_size(CacheName::RejectedTokens, move || of_pdp.license_bytes().1);
    let policies = policies.clone();
    instruments.register_cache_size(CacheName::PolicyAnswers, move || policies.current().answer_bytes());
    let (log, capacity) = (audit.counters(), u64::from(capacity));
    instruments.register_audit(move || AuditFigures {
        queued: log.queued.load(Relaxed),
        capacity,
        written: log.written.load(Relaxed),
        bytes: log.bytes.load(Relaxed),
        failures: log.failures.load(Relaxed),
    });
}

/// Lets metrics tell who is connected to a hub.
pub(super) fn register_members(instruments: &Instruments, hub: &Arc<Hub>) {
    let hub = Arc::clone(hub);
    instruments.register_members(move || u64::try_from(hub.listening()).unwrap_or(u64::MAX));
}

//! The decision: a signed license in, allow or deny with every reason out.
//!
//! [`Pdp::check`] reads as its steps. Refuses to stop at the first objection, to answer without
//! a record, and to touch a disk or a network on the way: it reads memory.

mod batch;
mod candidates;
mod holder;
mod obligations;
mod record;
mod reserve;
mod resolve;
mod standing;
mod state;
mod stream;
mod validity;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::audit::{Writer, redact};
use crate::config;
use crate::domain::outcome::QuotaState;
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Decision, DecisionId, Effect, Reason};
use crate::keyring::Keyring;
use crate::license::Licenses;
use crate::policy::{Answer, CedarLicense, Licensed, Policies};
use crate::quota::{Held, SettleError};
use crate::telemetry::instruments::{CacheName, Instruments};

pub use batch::Semantic;
pub use candidates::{Found, Sought, Span};
use resolve::Presented;
pub use resolve::license_facts;
pub use state::State;
pub use stream::{Drawn, Opened, Running};

/// The most bytes of each word on a reason: as long as a license may be, so that what a license
/// names is named in full.
const MAX_WORDS: usize = 16 << 10;

/// How long steps may wait that wait for nothing.
const MOMENT: Duration = Duration::from_millis(10);

/// Why no decision could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// The gate no longer takes questions.
    #[error("the gate is shutting down")]
    Closing,
}

/// What decisions are made with.
pub struct Pdp {
    gate: Arc<str>,
    audiences: Vec<String>,
    leeway: Duration,
    on_audit_failure: config::AuditFailure,
    /// Whether denials hold; if not, this is a dry run of everything.
    enforces: bool,
    keyring: Arc<Keyring>,
    policies: Arc<Policies>,
    licenses: Licenses<CedarLicense>,
    state: State,
    audit: Writer,
    instruments: Instruments,
    /// Turns when every running stream must ask again.
    pulse: tokio::sync::watch::Sender<u64>,
}

/// A resolved license in force at this moment.
pub type Known = crate::license::cache::Known<CedarLicense>;

/// A decision that nobody has been told yet.
struct Judged {
    decision: Decision,
    license: Option<Arc<Known>>,
    /// What was taken from quotas.
    held: Option<Held>,
    /// The time when the steps ended that wait for nothing, and how that is measured.
    decided: (Timestamp, Instant),
}

impl Pdp {
    /// A decision point over loaded keys, policies, state and an open decision log.
    pub fn new(
        config: &config::Config,
        keyring: Arc<Keyring>,
        policies: Arc<Policies>,
        state: State,
        audit: Writer,
        instruments: Instruments,
    ) -> Self {
        Self {
            gate: config.gate.name.as_str().into(),
            audiences: config.gate.audiences.clone(),
            leeway: config.licenses.leeway.get(),
            on_audit_failure: config.audit.on_failure,
            enforces: !config.gate.dry_run_all,
            keyring,
            policies,
            licenses: Licenses::new(&config.licenses),
            state,
            audit,
            instruments,
            pulse: tokio::sync::watch::Sender::new(0),
        }
    }

    /// Decides one use of data at `now`, and records the decision.
    ///
    /// # Errors
    /// When no decision could be made. A denial is not an error.
    pub async fn check(
        &self,
        request: &CheckRequest,
        trace_id: Option<&str>,
        now: Timestamp,
    ) -> Result<Decision, DecideError> {
        Ok(self.check_known(request, trace_id, now).await?.0)
    }

    /// The same, with the license that it was about, where that could be read.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn check_known(
        &self,
        request: &CheckRequest,
        trace_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(Decision, Option<Arc<Known>>), DecideError> {
        let started = Instant::now();
        let Judged { mut decision, license, held, decided: (decided, since) } =
            self.judge(request, now).await;
        self.record(request, license.as_deref(), &mut decision, trace_id, now, started).await?;
        let now = later(decided, since);
        if self.object_since(license.as_deref(), &mut decision, now) {
            // The record had to wait. What is answered has one of its own.
            decision.id = DecisionId::new(now);
            self.record(request, license.as_deref(), &mut decision, trace_id, now, started).await?;
        }
        self.conclude(request, license.as_deref(), held, &mut decision, now);
        let codes = decision.reasons.iter().map(|reason| reason.code);
        self.instruments.record_check(decision.effect, codes, started.elapsed());
        Ok((decision.told(), license))
    }

    /// The steps before the record.
    async fn judge(&self, request: &CheckRequest, now: Timestamp) -> Judged {
        let asked = Instant::now();
        let presented = self.look_up(request).await;
        let now = later(now, asked);
        let (mut decision, license) = self.decide(request, presented, now);
        let decided = (now, Instant::now());
        self.check_acceptance(license.as_deref(), &mut decision).await;
        let held = self.reserve(request, license.as_deref(), &mut decision, now).await;
        self.object_since(license.as_deref(), &mut decision, later(now, decided.1));
        Judged { decision, license, held, decided }
    }

    /// Denies what was allowed, and may not be any more after what it waited for. Says whether it did.
    fn object_since(&self, license: Option<&Known>, decision: &mut Decision, now: Timestamp) -> bool {
        let Some(license) = license.filter(|_| decision.effect == Effect::Allow) else { return false };
        let mut reasons = self.check_standing(license, now);
        reasons.extend(validity::check_window(&license.license.claims, self.leeway, now));
        let objects = !reasons.is_empty();
        reasons.into_iter().for_each(|reason| deny(decision, reason));
        objects
    }

    /// The steps that read memory alone. All that can run do, so a denial names everything that is wrong.
    fn decide(
        &self,
        request: &CheckRequest,
        presented: Result<Presented<'_>, Reason>,
        now: Timestamp,
    ) -> (Decision, Option<Arc<Known>>) {
        let policies = self.policies.current();
        let mut reasons = validity::check_lists(request);
        let can_be_asked = reasons.is_empty();
        let mut answer = Arc::default();
        let license = presented.and_then(|presented| self.verify_token(presented.token(), &policies));
        let license = license.map_err(|reason| reasons.push(reason)).ok();
        if let Some(license) = &license {
            let claims = &license.license.claims;
            reasons.extend(validity::check_window(claims, self.leeway, now));
            reasons.extend(validity::check_audience(claims, &self.audiences));
            reasons.extend(validity::check_terms_are_enforced(claims));
            reasons.extend(self.check_standing(license, now));
            reasons.extend(holder::check_holder(claims, &request.holder));
            if can_be_asked {
                answer = self.ask_policies(&policies, license, request);
                reasons.extend(answer.reasons.iter().cloned());
            }
        }
        reasons.extend(validity::check_request(request));
        let obligations = obligations::collect(license.as_deref(), &answer);
        if can_be_asked {
            reasons.extend(obligations::check_supported(&obligations, request));
        }
        let allowed = reasons.is_empty();
        let decision = Decision {
            id: DecisionId::new(now),
            effect: if allowed { Effect::Allow } else { Effect::Deny },
            enforced: self.enforces,
            reasons: reasons.into_iter().map(fit_to_show).collect(),
            obligations: if allowed { obligations } else { Vec::new() },
            valid_until: license.as_ref().map(|license| license.license.claims.exp),
            quotas: Vec::new(),
            reservation: None,
            status_as_of: self.state.revocations.as_of(now).ok(),
            policy_revision: policies.revision().clone(),
            granting_policies: if allowed && request.explain { answer.granting.clone() } else { Vec::new() },
        };
        (decision, license)
    }

    fn ask_policies(
        &self,
        policies: &crate::policy::Snapshot,
        known: &Known,
        request: &CheckRequest,
    ) -> Arc<Answer> {
        let claims = &known.license.claims;
        let licensed = Licensed { license: &known.prepared, assignee: &claims.sub, terms: &claims.terms };
        let (answer, remembered) = policies.answer(licensed, request);
        self.instruments.cache_lookup(CacheName::PolicyAnswers, remembered);
        answer
    }

    /// Says how much of a reservation was used; the rest goes back to its quotas.
    ///
    /// # Errors
    /// When there is no such reservation, more was used than it has, or the store cannot be reached.
    pub async fn settle(
        &self,
        id: Uuid,
        usage: &BTreeMap<String, f64>,
    ) -> Result<Vec<QuotaState>, SettleError> {
        self.state.quotas.settle(id, usage).await
    }

    /// The revision of policies and catalog in force.
    pub fn policy_revision(&self) -> Arc<str> {
        self.policies.current().revision().clone()
    }

    /// The state that decisions ask.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The bytes that verified licenses and refused tokens take.
    pub fn license_bytes(&self) -> (u64, u64) {
        self.licenses.bytes()
    }
}

/// The time after what was waited for since `now` was told. What takes less than a [`MOMENT`] is no wait.
fn later(now: Timestamp, since: Instant) -> Timestamp {
    let waited = since.elapsed();
    if waited < MOMENT { now } else { now.saturating_add(waited).unwrap_or(Timestamp::MAX) }
}

/// The same with words that anyone may see: a token that came in a wrong field does not go out in
/// the words about that field, and no field makes an answer without end.
fn fit_to_show(mut reason: Reason) -> Reason {
    for words in [&mut reason.reason_user, &mut reason.reason_admin, &mut reason.would_pass_if] {
        let changed = match redact::fit(words, MAX_WORDS) {
            Cow::Borrowed(_) => None,
            Cow::Owned(changed) => Some(changed),
        };
        if let Some(changed) = changed {
            *words = changed;
        }
    }
    reason
}

/// Denies a decision that was an allow, or adds to what was wrong already.
fn deny(decision: &mut Decision, reason: Reason) {
    decision.effect = Effect::Deny;
    decision.obligations.clear();
    decision.granting_policies.clear();
    decision.reasons.push(fit_to_show(reason));
}

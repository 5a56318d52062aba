//! A use that lasts: opened by a check, asked about again whenever something changes that it hangs on,
//! and metered as it goes.
//!
//! Refuses to go on by inertia: every change asks the whole question again, and whatever denies it now
//! ends it. What ended it is a decision with a record of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::resolve::Presented;
use super::{DecideError, Known, Pdp, deny, later, reserve, standing};
use crate::domain::outcome::QuotaState;
use crate::domain::time::Timestamp;
use crate::domain::{CheckRequest, Clock, Code, Decision, DecisionId, Effect, LicenseRef, Reason};
use crate::quota::{Denied, Held, Source, Use};
use crate::revocation::Watcher;

/// The most metrics of one report.
const MAX_METRICS: usize = 100;

/// What became of a use that was to begin.
pub enum Opened {
    /// It may not.
    Denied(Decision),
    /// It may, for now.
    Running(Decision, Box<Running>),
    /// It would not, but nothing is enforced: it goes on, whatever happens.
    Unwatched(Decision),
}

impl Opened {
    fn denied(decision: Decision) -> Self {
        if decision.enforced { Self::Denied(decision) } else { Self::Unwatched(decision.told()) }
    }
}

/// A use that goes on.
pub struct Running {
    pdp: Arc<Pdp>,
    /// What was asked, with its token, so that it can be asked again.
    request: CheckRequest,
    license: Arc<Known>,
    watcher: Watcher,
    pulse: watch::Receiver<u64>,
    trace_id: Option<String>,
    /// Something would have ended it, was recorded, and was not enforced.
    spared: AtomicBool,
    /// What it reported to.
    sources: Vec<Source>,
}

/// What was taken from quotas for a use that goes on, until it is used. Dropped, it goes back.
pub struct Drawn {
    usage: BTreeMap<String, f64>,
    /// Nothing where it was only rehearsed.
    held: Option<Held>,
    /// How the quotas stand then.
    states: Vec<QuotaState>,
}

/// What was asked and allowed, and what tells of changes since.
struct Asked {
    request: CheckRequest,
    license: Arc<Known>,
    pulse: watch::Receiver<u64>,
    trace_id: Option<String>,
}

impl Pdp {
    /// Decides about a use that lasts.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn open(
        self: &Arc<Self>,
        mut request: CheckRequest,
        trace_id: Option<String>,
        now: Timestamp,
    ) -> Result<Opened, DecideError> {
        let started = Instant::now();
        // Before the decision, so that no change in between is missed.
        let pulse = self.pulse.subscribe();
        let (decision, license) = self.check_known(&request, trace_id.as_deref(), now).await?;
        let Some(license) = license.filter(|_| !decision.objects()) else {
            return Ok(Opened::denied(decision));
        };
        request.usage.clear();
        self.run(Asked { request, license, pulse, trace_id }, decision, later(now, started)).await
    }

    /// Goes on with a use that was allowed a moment ago, by this gate or another: asks the whole question again,
    /// and takes nothing a second time. Only a denial is recorded.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn resume(
        self: &Arc<Self>,
        mut request: CheckRequest,
        trace_id: Option<String>,
        now: Timestamp,
    ) -> Result<Opened, DecideError> {
        let started = Instant::now();
        let pulse = self.pulse.subscribe();
        request.usage.clear();
        let presented = self.look_up(&request).await;
        let (mut decision, license) = self.decide(&request, presented, later(now, started));
        self.check_acceptance(license.as_deref(), &mut decision).await;
        let now = later(now, started);
        match license {
            Some(license) if decision.effect == Effect::Allow => {
                self.run(Asked { request, license, pulse, trace_id }, decision, now).await
            }
            license => {
                let trace = trace_id.as_deref();
                self.record(&request, license.as_deref(), &mut decision, trace, now, started).await?;
                self.instruments.stream_ended(decision.reasons.iter().map(|reason| reason.code));
                Ok(Opened::denied(decision))
            }
        }
    }

    /// Watches over a use that is allowed.
    async fn run(
        self: &Arc<Self>,
        asked: Asked,
        decision: Decision,
        now: Timestamp,
    ) -> Result<Opened, DecideError> {
        let Asked { mut request, license, pulse, trace_id } = asked;
        let watcher = self.state.revocations.watch(standing::subject(&license));
        if let Ok(Presented::Registered(registered)) = self.look_up(&request).await {
            request.license = LicenseRef::Token(registered.token.clone());
        }
        let (spared, sources) = (AtomicBool::new(false), Vec::new());
        let running =
            Running { pdp: Arc::clone(self), request, license, watcher, pulse, trace_id, spared, sources };
        // The watcher came after the decision.
        match running.objection(now).await? {
            Some(ended) => Ok(Opened::denied(ended)),
            None => Ok(Opened::Running(decision, Box::new(running))),
        }
    }

    /// Has every running use asked about again: policies, keys or the freshness of state changed.
    pub fn ask_running_again(&self) {
        self.pulse.send_modify(|pulse| *pulse = pulse.wrapping_add(1));
    }

    /// How many uses are running.
    pub fn running(&self) -> usize {
        self.pulse.receiver_count()
    }
}

impl Running {
    /// Takes more from quotas.
    ///
    /// # Errors
    /// As [`Pdp::check`]; the inner error is the decision that ends the use. Where nothing is enforced, none does.
    pub async fn report(
        &mut self,
        usage: BTreeMap<String, f64>,
        clock: &Clock,
    ) -> Result<Result<Vec<QuotaState>, Decision>, DecideError> {
        let now = clock.now();
        let reasons = check_report(&usage);
        let drawn = if reasons.is_empty() { self.draw(usage, now).await } else { Err(Denied::from(reasons)) };
        let drawn = match drawn {
            Ok(drawn) => drawn,
            Err(denied) => {
                let states = denied.states.clone();
                return Ok(self.end(denied, now).await?.map_or(Ok(states), Err));
            }
        };
        // It may have waited for the state. What ends now gives back what it drew.
        if let Some(ended) = self.ask_if_changed(clock).await? {
            return Ok(Err(ended));
        }
        let sources = drawn.held.as_ref().map(Held::sources).unwrap_or_default();
        self.sources.retain(|known| sources.iter().all(|new| new.metric != known.metric));
        self.sources.extend(sources);
        Ok(Ok(self.consume(drawn, now)))
    }

    fn more<'a>(&'a self, usage: &'a BTreeMap<String, f64>) -> Use<'a> {
        Use { is_request: false, ..reserve::of(&self.license, &self.request, usage) }
    }

    /// Takes more from quotas, to be [consumed](Self::consume), or says why not; that alone does not end the use.
    ///
    /// # Errors
    /// A reason for each quota that does not leave enough.
    pub async fn draw(&self, usage: BTreeMap<String, f64>, now: Timestamp) -> Result<Drawn, Denied> {
        let (of, quotas) = (self.more(&usage), &self.pdp.state.quotas);
        if self.request.dry_run {
            let states = quotas.rehearse(&of, now).await?;
            return Ok(Drawn { usage, held: None, states });
        }
        let held = Some(quotas.reserve(&of, None, now).await?);
        Ok(Drawn { usage, held, states: Vec::new() })
    }

    /// Uses what was taken; says how the quotas stand.
    pub fn consume(&self, drawn: Drawn, now: Timestamp) -> Vec<QuotaState> {
        let Drawn { usage, held, states } = drawn;
        held.map_or(states, |held| held.consume(&self.more(&usage), now))
    }

    /// Resolves when nothing is left of a quota that it reported to, whoever used it, with its place: see whether
    /// that [ends](Self::end_emptied) it.
    pub fn emptied(&self) -> impl Future<Output = usize> + use<> {
        let watched = if self.spared.load(Relaxed) { &[] } else { self.sources.as_slice() };
        let emptied: Vec<_> = watched.iter().map(|source| Box::pin(source.emptied())).collect();
        async {
            match emptied.is_empty() {
                true => std::future::pending().await,
                false => futures_util::future::select_all(emptied).await.1,
            }
        }
    }

    /// The decision that ends the use because a quota that it reported to is used up.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn end_emptied(
        &mut self,
        place: usize,
        now: Timestamp,
    ) -> Result<Option<Decision>, DecideError> {
        if place >= self.sources.len() {
            return Ok(None);
        }
        let source = self.sources.swap_remove(place);
        // Where its window is over, the next report takes from another one.
        let states = self.pdp.state.quotas.known(&self.more(&BTreeMap::new()), now);
        let empty =
            states.iter().filter(|state| state.metric == source.metric && !state.remaining.is_positive());
        let reason = |state: &QuotaState| {
            let admin = format!("quota `{}`: nothing of {} is left", state.id, state.limit);
            Reason::new(Code::QuotaExceeded, admin)
        };
        let reasons: Vec<Reason> = empty.map(reason).collect();
        if reasons.is_empty() { Ok(None) } else { self.end(Denied { reasons, states }, now).await }
    }

    /// Whether the license limits how much is used of a metric.
    pub fn is_limited(&self, metric: &str) -> bool {
        self.license.license.claims.terms.quotas.iter().any(|quota| quota.metric == metric)
    }

    /// Resolves when something changed that the use hangs on, so that it must be [asked about again](Self::ask_again)
    /// before it goes on. Until it resolves, dropping the future loses nothing.
    pub async fn changed(&mut self, clock: &Clock) {
        if self.spared.load(Relaxed) {
            // It was found out already.
            return std::future::pending().await;
        }
        let left = self.license.license.claims.exp.duration_since(clock.now());
        if !left.is_positive() {
            // A timer would say so a moment later, and what comes without a pause would get past it.
            return;
        }
        let expiry = tokio::time::sleep(Duration::try_from(left).unwrap_or_default());
        tokio::select! {
            () = self.watcher.changed() => {}
            // An error is the end of the gate: nothing more is allowed.
            _ = self.pulse.changed() => {}
            () = expiry => {}
        }
    }

    /// Asks again where something changed already, as it may while a report waits for the state: what was revoked
    /// meanwhile does not go on.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn ask_if_changed(&mut self, clock: &Clock) -> Result<Option<Decision>, DecideError> {
        let has_changed = tokio::select! {
            biased;
            () = self.changed(clock) => true,
            () = std::future::ready(()) => false,
        };
        if has_changed { self.ask_again(clock).await } else { Ok(None) }
    }

    /// Asks the whole question again: the decision that ends the use, if it may not go on. Who drops the future does not
    /// know whether it may.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn ask_again(&self, clock: &Clock) -> Result<Option<Decision>, DecideError> {
        // Boxed, so that what asking needs is not kept while nothing is asked.
        Box::pin(async { Ok(self.enforced(self.objection(clock.now()).await?)) }).await
    }

    /// What ends the use. Where nothing is enforced, only notes that something would have.
    fn enforced(&self, ended: Option<Decision>) -> Option<Decision> {
        let spared = ended.as_ref().is_some_and(|ended| !ended.enforced);
        self.spared.fetch_or(spared, Relaxed);
        ended.filter(|ended| ended.enforced)
    }

    /// Asks the whole question again; the answer, where it is a denial.
    async fn objection(&self, now: Timestamp) -> Result<Option<Decision>, DecideError> {
        let LicenseRef::Token(token) = &self.request.license else {
            let reason = Reason::new(Code::LicenseMissing, "the license of the stream is gone");
            return self.denial(Denied::from(reason), now).await.map(Some);
        };
        let (decision, _) = self.pdp.decide(&self.request, Ok(Presented::Token(token)), now);
        if decision.effect == Effect::Allow {
            return Ok(None);
        }
        self.recorded(decision, now).await.map(Some)
    }

    /// The decision that ends the use because of a denial; none where nothing is enforced.
    ///
    /// # Errors
    /// As [`Pdp::check`].
    pub async fn end(&self, denied: Denied, now: Timestamp) -> Result<Option<Decision>, DecideError> {
        if self.spared.load(Relaxed) {
            return Ok(None);
        }
        let ended = self.denial(denied, now).await?;
        Ok(self.enforced(Some(ended)))
    }

    async fn denial(&self, denied: Denied, now: Timestamp) -> Result<Decision, DecideError> {
        let mut decision = Decision {
            id: DecisionId::new(now),
            effect: Effect::Deny,
            enforced: self.pdp.enforces,
            reasons: Vec::new(),
            obligations: Vec::new(),
            valid_until: Some(self.license.license.claims.exp),
            quotas: denied.states,
            reservation: None,
            status_as_of: self.pdp.state.revocations.as_of(now).ok(),
            policy_revision: self.pdp.policies.current().revision().clone(),
            granting_policies: Vec::new(),
        };
        denied.reasons.into_iter().for_each(|reason| deny(&mut decision, reason));
        self.recorded(decision, now).await
    }

    async fn recorded(&self, mut decision: Decision, now: Timestamp) -> Result<Decision, DecideError> {
        let (pdp, trace) = (&self.pdp, self.trace_id.as_deref());
        pdp.record(&self.request, Some(&self.license), &mut decision, trace, now, Instant::now()).await?;
        pdp.instruments.stream_ended(decision.reasons.iter().map(|reason| reason.code));
        Ok(decision)
    }
}

/// What is wrong with a report.
fn check_report(usage: &BTreeMap<String, f64>) -> Vec<Reason> {
    if usage.len() > MAX_METRICS {
        let admin = format!("report.usage: it has {} metrics", usage.len());
        let remedy = format!("a report has at most {MAX_METRICS} metrics");
        return vec![Reason::new(Code::ContextInvalid, admin).would_pass_if(remedy)];
    }
    super::validity::check_usage(usage).into_iter().collect()
}

//! Every metric of the gate, for Prometheus to read and, if configured, sent over OTLP.
//!
//! What a check counts is one addition to a number in memory; the numbers are read when
//! someone collects. Refuses labels without a bound: never an id of a license, user or dataset.

mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, BoundHistogram, Meter, MeterProvider};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

pub use state::StateFigures;

use super::TelemetryError;
use crate::domain::time::Timestamp;
use crate::domain::{Code, Effect};

/// From far below a check in memory to far above one that waited.
const SECONDS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0,
];

/// Declares a closed set of label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $label:literal),* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            const ALL: [Self; [$($label),*].len()] = [$(Self::$variant),*];

            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }
        }
    };
}

// After what it declares its labels with.
mod certificates;

pub use certificates::Shown;

labels! {
    /// A cache, as the label `cache`.
    CacheName {
        /// Licenses that were verified.
        VerifiedLicenses "verified_licenses",
        /// Tokens that were refused.
        RejectedTokens "rejected_tokens",
        /// Answers that policies gave.
        PolicyAnswers "policy_answers"
    }
}

labels! {
    /// What can be loaded again while the gate runs, as the label `what`.
    Reloaded {
        /// Key sets of issuers.
        Keys "keys",
        /// Policies and catalog.
        Policies "policies",
        /// Certificates of listeners.
        Certificates "certificates",
        /// Tokens of those who administer.
        Tokens "tokens"
    }
}

/// What the decision log did, and what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFigures {
    /// Records that wait to be written.
    pub queued: u64,
    /// Records that may wait.
    pub capacity: u64,
    /// Records that were written.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Attempts to write that failed.
    pub failures: u64,
}

/// Every metric of one gate. Clones share them.
#[derive(Clone)]
pub struct Instruments(Arc<Inner>);

struct Inner {
    counts: Arc<Counts>,
    allowed: BoundHistogram<f64>,
    denied: BoundHistogram<f64>,
    provider: SdkMeterProvider,
    registry: Registry,
}

type Size = Box<dyn Fn() -> u64 + Send + Sync>;
type Audit = Box<dyn Fn() -> AuditFigures + Send + Sync>;

/// The numbers themselves. A list has one place for each value of its labels.
#[derive(Default)]
struct Counts {
    allowed: AtomicU64,
    denied: AtomicU64,
    denials: Vec<AtomicU64>,
    undecided: Mutex<BTreeMap<&'static str, u64>>,
    hits: [AtomicU64; CacheName::ALL.len()],
    misses: [AtomicU64; CacheName::ALL.len()],
    sizes: [OnceLock<Size>; CacheName::ALL.len()],
    reloads: [AtomicU64; Reloaded::ALL.len()],
    failed_reloads: [AtomicU64; Reloaded::ALL.len()],
    /// Milliseconds since 1970; 0: never.
    reloaded_at: [AtomicU64; Reloaded::ALL.len()],
    revision: Mutex<Option<Arc<str>>>,
    audit: OnceLock<Audit>,
    audit_lost: AtomicU64,
    dry_run_all: AtomicU64,
    state: state::Counts,
    certificates: certificates::Counts,
}

impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instruments")
    }
}

impl Instruments {
    /// Metrics of the gate that `resource` describes, sent by `otlp` if there is one.
    pub(super) fn new(resource: Resource, otlp: Option<PeriodicReader<MetricExporter>>) -> Self {
        let registry = Registry::new();
        let mut builder = SdkMeterProvider::builder().with_resource(resource);
        let exporter =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false);
        // Fails only where the registry has a collector of the same name; this one is empty.
        if let Ok(reader) = exporter.build() {
            builder = builder.with_reader(reader);
        }
        if let Some(otlp) = otlp {
            builder = builder.with_reader(otlp);
        }
        let provider = builder.build();
        let meter = provider.meter("tollgate");
        let denials = Code::ALL.iter().map(|_| AtomicU64::default()).collect();
        let counts = Arc::new(Counts { denials, ..Counts::default() });
        declare(&meter, &counts);
        let duration = meter
            .f64_histogram("tollgate.check.duration")
            .with_description("Time from a request's arrival in the gate to its decision")
            .with_unit("s")
            .with_boundaries(SECONDS.to_vec())
            .build();
        let timed = |effect: Effect| duration.bind(&[KeyValue::new("decision", effect.as_str())]);
        let (allowed, denied) = (timed(Effect::Allow), timed(Effect::Deny));
        Self(Arc::new(Inner { counts, allowed, denied, provider, registry }))
    }

    /// Metrics that are sent nowhere and belong to no gate in particular.
    pub fn detached() -> Self {
        Self::new(Resource::builder_empty().build(), None)
    }

    /// A check was decided, for these reasons, in this time.
    pub fn record_check(&self, effect: Effect, codes: impl Iterator<Item = Code>, elapsed: Duration) {
        let counts = &self.0.counts;
        let (count, histogram) = match effect {
            Effect::Allow => (&counts.allowed, &self.0.allowed),
            Effect::Deny => (&counts.denied, &self.0.denied),
        };
        add(count, 1);
        histogram.record(elapsed.as_secs_f64());
        for code in codes {
            at(&counts.denials, code as usize, 1);
        }
    }

    /// A check could not be decided; `kind` is the name of the error, one of few.
    pub fn undecided(&self, kind: &'static str) {
        let mut undecided = self.0.counts.undecided.lock().unwrap_or_else(PoisonError::into_inner);
        *undecided.entry(kind).or_default() += 1;
    }

    /// Something was looked for in a cache.
    pub fn cache_lookup(&self, cache: CacheName, hit: bool) {
        let counts = &self.0.counts;
        at(if hit { &counts.hits } else { &counts.misses }, cache as usize, 1);
    }

    /// Lets `bytes` tell how large a cache is. The first to register stays.
    pub fn register_cache_size(&self, cache: CacheName, bytes: impl Fn() -> u64 + Send + Sync + 'static) {
        if let Some(size) = self.0.counts.sizes.get(cache as usize) {
            size.get_or_init(|| Box::new(bytes));
        }
    }

    /// Something was loaded, or failed to be.
    pub fn reload(&self, what: Reloaded, ok: bool, now: Timestamp) {
        let counts = &self.0.counts;
        at(if ok { &counts.reloads } else { &counts.failed_reloads }, what as usize, 1);
        if let Some(reloaded_at) = counts.reloaded_at.get(what as usize).filter(|_| ok) {
            reloaded_at.store(u64::try_from(now.as_millisecond()).unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// The revision of policies and catalog that is in force.
    pub fn policy_revision(&self, revision: &str) {
        *self.0.counts.revision.lock().unwrap_or_else(PoisonError::into_inner) = Some(revision.into());
    }

    /// Lets `figures` tell of the decision log. The first to register stays.
    pub fn register_audit(&self, figures: impl Fn() -> AuditFigures + Send + Sync + 'static) {
        self.0.counts.audit.get_or_init(|| Box::new(figures));
    }

    /// Nothing is enforced.
    pub fn dry_run_all(&self) {
        self.0.counts.dry_run_all.store(1, Ordering::Relaxed);
    }

    /// A decision was answered without a record, as the configuration allows.
    pub fn audit_lost(&self) {
        add(&self.0.counts.audit_lost, 1);
    }

    /// Everything, in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// The metrics cannot be encoded.
    pub fn render(&self) -> Result<String, TelemetryError> {
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .map_err(|error| TelemetryError::Render(error.to_string()))
    }

    /// Sends what was not sent yet, and ends. Blocks until then.
    pub(super) fn shutdown(&self) {
        if let Err(error) = self.0.provider.shutdown() {
            tracing::warn!(%error, "the last metrics may not have been sent");
        }
    }
}

fn add(count: &AtomicU64, amount: u64) {
    count.fetch_add(amount, Ordering::Relaxed);
}

fn at(counts: &[AtomicU64], index: usize, amount: u64) {
    if let Some(count) = counts.get(index) {
        add(count, amount);
    }
}

type Observer<'a> = &'a dyn AsyncInstrument<u64>;

/// Declares every counter and gauge: its name, its words, and where its numbers are.
fn declare(meter: &Meter, counts: &Arc<Counts>) {
    declare_checks(&Declarations { meter, counts });
    declare_caches(&Declarations { meter, counts });
    declare_reloads(&Declarations { meter, counts });
    declare_audit(&Declarations { meter, counts });
    state::declare(&Declarations { meter, counts });
    certificates::declare(&Declarations { meter, counts });
}

struct Declarations<'a> {
    meter: &'a Meter,
    counts: &'a Arc<Counts>,
}

impl Declarations<'_> {
    fn counter(
        &self,
        name: &'static str,
        unit: &'static str,
        words: &'static str,
        read: fn(&Counts, Observer<'_>),
    ) {
        let counts = Arc::clone(self.counts);
        let builder = self.meter.u64_observable_counter(name).with_unit(unit).with_description(words);
        builder.with_callback(move |observer| read(&counts, observer)).build();
    }

    fn gauge(
        &self,
        name: &'static str,
        unit: &'static str,
        words: &'static str,
        read: fn(&Counts, Observer<'_>),
    ) {
        let counts = Arc::clone(self.counts);
        let builder = self.meter.u64_observable_gauge(name).with_unit(unit).with_description(words);
        builder.with_callback(move |observer| read(&counts, observer)).build();
    }
}

fn declare_checks(declare: &Declarations<'_>) {
    declare.gauge("tollgate.dry_run_all", "", "1 while nothing is enforced", |counts, observer| {
        observer.observe(load(&counts.dry_run_all), &[]);
    });
    declare.counter("tollgate.checks", "", "Checks that were decided", |counts, observer| {
        for (effect, count) in [(Effect::Allow, &counts.allowed), (Effect::Deny, &counts.denied)] {
            observer.observe(load(count), &[KeyValue::new("decision", effect.as_str())]);
        }
    });
    declare.counter(
        "tollgate.denials",
        "",
        "Reasons of denials; a denial may have several",
        |counts, observer| {
            for (code, count) in Code::ALL.iter().zip(&counts.denials) {
                observer.observe(load(count), &[KeyValue::new("code", code.as_str())]);
            }
        },
    );
    declare.counter("tollgate.undecided", "", "Checks that could not be decided", |counts, observer| {
        for (kind, count) in counts.undecided.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            observer.observe(*count, &[KeyValue::new("kind", *kind)]);
        }
    });
}

fn declare_caches(declare: &Declarations<'_>) {
    declare.counter("tollgate.cache.lookups", "", "Lookups in caches", |counts, observer| {
        for (result, lookups) in [("hit", &counts.hits), ("miss", &counts.misses)] {
            for (cache, count) in CacheName::ALL.iter().zip(lookups) {
                let labels = [KeyValue::new("cache", cache.label()), KeyValue::new("result", result)];
                observer.observe(load(count), &labels);
            }
        }
    });
    declare.gauge("tollgate.cache.size", "By", "Memory that a cache holds", |counts, observer| {
        for (cache, size) in CacheName::ALL.iter().zip(&counts.sizes) {
            if let Some(size) = size.get() {
                observer.observe(size(), &[KeyValue::new("cache", cache.label())]);
            }
        }
    });
}

fn declare_reloads(declare: &Declarations<'_>) {
    declare.counter("tollgate.reloads", "", "Attempts to load", |counts, observer| {
        for (result, reloads) in [("success", &counts.reloads), ("failure", &counts.failed_reloads)] {
            for (what, count) in Reloaded::ALL.iter().zip(reloads) {
                let labels = [KeyValue::new("what", what.label()), KeyValue::new("result", result)];
                observer.observe(load(count), &labels);
            }
        }
    });
    let counts = Arc::clone(declare.counts);
    declare
        .meter
        .f64_observable_gauge("tollgate.last_reload_success.timestamp")
        .with_unit("s")
        .with_description("When it was last loaded, in seconds since 1970")
        .with_callback(move |observer| {
            for (what, reloaded_at) in Reloaded::ALL.iter().zip(&counts.reloaded_at) {
                let milliseconds = load(reloaded_at);
                if milliseconds > 0 {
                    observer.observe(milliseconds as f64 / 1000.0, &[KeyValue::new("what", what.label())]);
                }
            }
        })
        .build();
    declare.gauge("tollgate.policy.info", "", "1 for the revision in force", |counts, observer| {
        let revision = counts.revision.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(revision) = revision {
            observer.observe(1, &[KeyValue::new("revision", revision)]);
        }
    });
}

fn declare_audit(declare: &Declarations<'_>) {
    declare.gauge("tollgate.audit.queue.depth", "", "Records that wait to be written", |counts, observer| {
        audit(counts, observer, |figures| figures.queued);
    });
    declare.gauge("tollgate.audit.queue.capacity", "", "Records that may wait", |counts, observer| {
        audit(counts, observer, |figures| figures.capacity);
    });
    declare.counter("tollgate.audit.records", "", "Records that were written", |counts, observer| {
        audit(counts, observer, |figures| figures.written);
    });
    declare.counter(
        "tollgate.audit.written",
        "By",
        "Bytes of records that were written",
        |counts, observer| {
            audit(counts, observer, |figures| figures.bytes);
        },
    );
    declare.counter("tollgate.audit.failures", "", "Attempts to write that failed", |counts, observer| {
        audit(counts, observer, |figures| figures.failures);
    });
    declare.counter("tollgate.audit.lost", "", "Decisions answered without a record", |counts, observer| {
        observer.observe(load(&counts.audit_lost), &[]);
    });
}

fn audit(counts: &Counts, observer: Observer<'_>, figure: fn(&AuditFigures) -> u64) {
    if let Some(figures) = counts.audit.get() {
        observer.observe(figure(&figures()), &[]);
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;

//! Metrics of state and of uses that go on.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use super::{Declarations, Instruments, add, at, load};
use crate::domain::Code;

/// What the gate knows of its state.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateFigures {
    /// Standings that are not VALID.
    pub standings: u64,
    /// How old that knowledge is, in seconds; nothing before the first read.
    pub age: Option<f64>,
    /// Uses that go on.
    pub streams: u64,
    /// Rows of usage that the store does not have yet.
    pub unreported: u64,
}

type Figures = Box<dyn Fn() -> StateFigures + Send + Sync>;
type Members = Box<dyn Fn() -> u64 + Send + Sync>;

/// The numbers.
#[derive(Default)]
pub(super) struct Counts {
    figures: OnceLock<Figures>,
    members: OnceLock<Members>,
    streams_ended: AtomicU64,
    failures: AtomicU64,
    restores: AtomicU64,
}

impl Instruments {
    /// A use that went on was ended by the gate, for these reasons.
    pub fn stream_ended(&self, codes: impl Iterator<Item = Code>) {
        add(&self.0.counts.state.streams_ended, 1);
        for code in codes {
            at(&self.0.counts.denials, code as usize, 1);
        }
    }

    /// Lets `figures` tell of the state. The first to register stays.
    pub fn register_state(&self, figures: impl Fn() -> StateFigures + Send + Sync + 'static) {
        self.0.counts.state.figures.get_or_init(|| Box::new(figures));
    }

    /// Lets `members` tell how many gates are connected to this one, their hub. The first to register stays.
    pub fn register_members(&self, members: impl Fn() -> u64 + Send + Sync + 'static) {
        self.0.counts.state.members.get_or_init(|| Box::new(members));
    }

    /// The state could not be read.
    pub fn state_read_failed(&self) {
        add(&self.0.counts.state.failures, 1);
    }

    /// The state was found to have gone back, or to be another.
    pub fn state_restored(&self) {
        add(&self.0.counts.state.restores, 1);
    }
}

/// Declares every one of them.
pub(super) fn declare(declare: &Declarations<'_>) {
    declare.counter("tollgate.state.failures", "", "Attempts to read that failed", |counts, observer| {
        observer.observe(load(&counts.state.failures), &[]);
    });
    declare.counter("tollgate.state.restores", "", "Times that the state went back", |counts, observer| {
        observer.observe(load(&counts.state.restores), &[]);
    });
    declare.counter("tollgate.streams.ended", "", "Uses that the gate ended", |counts, observer| {
        observer.observe(load(&counts.state.streams_ended), &[]);
    });
    figure(declare, "tollgate.state.standings", "Standings that are not VALID", |figures| figures.standings);
    figure(declare, "tollgate.usage.unreported", "Rows of usage to be handed in", |figures| {
        figures.unreported
    });
    figure(declare, "tollgate.streams", "Uses that go on", |figures| figures.streams);
    let counts = Arc::clone(declare.counts);
    let members = declare.meter.u64_observable_gauge("tollgate.hub.members");
    members
        .with_description("Gates that are connected to this hub")
        .with_callback(move |observer| {
            if let Some(members) = counts.state.members.get() {
                observer.observe(members(), &[]);
            }
        })
        .build();
    let counts = Arc::clone(declare.counts);
    let age = declare.meter.f64_observable_gauge("tollgate.state.age").with_unit("s");
    let age = age.with_description("Since the state was last read");
    age.with_callback(move |observer| {
        if let Some(age) = counts.state.figures.get().and_then(|figures| figures().age) {
            observer.observe(age, &[]);
        }
    })
    .build();
}

fn figure(
    declare: &Declarations<'_>,
    name: &'static str,
    words: &'static str,
    figure: fn(&StateFigures) -> u64,
) {
    let counts = Arc::clone(declare.counts);
    let gauge = declare.meter.u64_observable_gauge(name).with_description(words);
    gauge
        .with_callback(move |observer| {
            if let Some(figures) = counts.state.figures.get() {
                observer.observe(figure(&figures()), &[]);
            }
        })
        .build();
}

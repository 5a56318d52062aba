//! From when until when the certificates are good that the gate shows.
//!
//! Refuses to guess: of a certificate that cannot be read, nothing is told.

use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::KeyValue;

use super::{Declarations, Instruments, load};
use crate::domain::time::Timestamp;

labels! {
    /// A certificate that the gate shows, as the label `certificate`.
    Shown {
        /// To enforcement points.
        Decisions "decisions",
        /// To those who administer.
        Administration "administration",
        /// To other gates.
        Hub "hub",
        /// To probes, and to those who ask over HTTP.
        Http "http",
        /// To hubs.
        HubClient "hub_client"
    }
}

/// Seconds since 1970; 0: not known.
#[derive(Default)]
pub(super) struct Counts {
    begins: [AtomicU64; Shown::ALL.len()],
    ends: [AtomicU64; Shown::ALL.len()],
}

impl Instruments {
    /// A certificate is good from one time until another; none where it cannot be read.
    pub fn certificate(&self, shown: Shown, validity: Option<(Timestamp, Timestamp)>) {
        let counts = &self.0.counts.certificates;
        let seconds = |time: Timestamp| u64::try_from(time.as_second()).unwrap_or(0);
        let (begins, ends) = validity.map_or((0, 0), |(begins, ends)| (seconds(begins), seconds(ends)));
        for (list, time) in [(&counts.begins, begins), (&counts.ends, ends)] {
            if let Some(place) = list.get(shown as usize) {
                place.store(time, Ordering::Relaxed);
            }
        }
    }
}

pub(super) fn declare(declare: &Declarations<'_>) {
    declare.gauge(
        "tollgate.certificate.start.timestamp",
        "s",
        "From when a certificate is good, in seconds since 1970",
        |counts, observer| observe(&counts.certificates.begins, observer),
    );
    declare.gauge(
        "tollgate.certificate.expiry.timestamp",
        "s",
        "Until when a certificate is good, in seconds since 1970",
        |counts, observer| observe(&counts.certificates.ends, observer),
    );
}

fn observe(times: &[AtomicU64], observer: super::Observer<'_>) {
    for (shown, time) in Shown::ALL.iter().zip(times) {
        let time = load(time);
        if time > 0 {
            observer.observe(time, &[KeyValue::new("certificate", shown.label())]);
        }
    }
}

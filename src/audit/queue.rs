//! The place where records wait for the writer: bounded, first in, first out.
//!
//! Lines are collected in one buffer, which the writer swaps for an empty one: adding a line
//! costs a lock and a copy, and wakes nobody unless the writer has nothing to do. Refuses
//! to grow: who finds no place waits.

use std::future::Future;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, oneshot, watch};

use super::AuditError;

/// The bytes of a line that one place stands for. A longer line takes several places, so that the
/// queue is bounded in bytes too.
const PLACE: usize = 4 * 1024;

/// What the decision log did since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records accepted and not yet written: the only one that falls.
    pub queued: AtomicU64,
    /// Records that every sink has.
    pub written: AtomicU64,
    /// Their bytes, counted once however many sinks there are.
    pub bytes: AtomicU64,
    /// Records refused, and records whose fate their caller was not told in `durable` mode.
    pub refused: AtomicU64,
    /// Attempts to write that failed.
    pub failures: AtomicU64,
}

/// Whether records can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last write succeeded, or there was none.
    Writable,
    /// The last write failed, with this reason. It is tried again until it succeeds.
    Unwritable(Arc<str>),
}

/// Told when the records of a group are safe.
type Acknowledgement = oneshot::Sender<()>;

/// Records that are written together.
#[derive(Default)]
pub(super) struct Group {
    /// Whole lines.
    pub(super) lines: Vec<u8>,
    /// How many lines.
    pub(super) records: u64,
    /// The places that they take.
    places: usize,
    /// Who waits for them; nobody in `queued` mode.
    acknowledgements: Vec<Acknowledgement>,
}

/// The queue between many checks and one writer.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Tells the writer that `waiting` has what it waits for.
    news: Condvar,
    /// Places left. Given back when a group is written, so records being written count too.
    places: Semaphore,
    capacity: usize,
    durable: bool,
    pub(super) health: watch::Sender<Health>,
    pub(super) counters: Arc<Counters>,
}

/// What the lock guards.
#[derive(Default)]
struct Waiting {
    group: Group,
    /// The writer sleeps until the next record.
    idle: bool,
    /// A record found no place: the writer should not wait for more.
    full: bool,
    /// No more records are accepted.
    closed: bool,
}

impl Queue {
    /// A queue of `capacity` places, in whose `durable` form [`Queue::append`] waits for
    /// [`Queue::finish`].
    pub(super) fn new(capacity: u32, durable: bool) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            waiting: Mutex::default(),
            news: Condvar::new(),
            places: Semaphore::new(capacity),
            capacity,
            durable,
            health: watch::Sender::new(Health::Writable),
            counters: Arc::default(),
        }
    }

    /// Adds so many lines when there is a place for them; in durable mode, returns when they are written.
    pub(super) async fn append(&self, line: &[u8], records: u64) -> Result<(), AuditError> {
        if let Health::Unwritable(reason) = &*self.health.borrow() {
            return Err(AuditError::Unwritable(Arc::clone(reason)));
        }
        let wanted = self.places_of(line);
        let places = match self.places.try_acquire_many(wanted) {
            Ok(places) => places,
            Err(TryAcquireError::Closed) => return Err(AuditError::Closed),
            Err(TryAcquireError::NoPermits) => {
                self.hurry();
                let places = self.while_writable(self.places.acquire_many(wanted)).await?;
                places.map_err(|_| AuditError::Closed)?
            }
        };
        match self.add(line, records, places)? {
            None => Ok(()),
            Some(written) => self.while_writable(written).await?.map_err(|_| AuditError::Closed),
        }
    }

    /// The places that a line takes: never more than there are.
    fn places_of(&self, line: &[u8]) -> u32 {
        let places = line.len().div_ceil(PLACE).clamp(1, self.capacity);
        u32::try_from(places).unwrap_or(u32::MAX)
    }

    /// Puts lines behind the others.
    fn add(
        &self,
        line: &[u8],
        records: u64,
        places: SemaphorePermit<'_>,
    ) -> Result<Option<oneshot::Receiver<()>>, AuditError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AuditError::Closed);
        }
        let group = &mut waiting.group;
        group.lines.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            group.lines.push(b'\n');
        }
        group.records += records;
        group.places += places.num_permits();
        places.forget();
        let written = self.durable.then(|| {
            let (acknowledgement, written) = oneshot::channel();
            group.acknowledgements.push(acknowledgement);
            written
        });
        self.counters.queued.fetch_add(records, Relaxed);
        let wake = mem::take(&mut waiting.idle);
        drop(waiting);
        if wake {
            self.news.notify_one();
        }
        Ok(written)
    }

    /// Waits for `future`, or fails when records can no longer be written.
    async fn while_writable<F: Future>(&self, future: F) -> Result<F::Output, AuditError> {
        let mut health = self.health.subscribe();
        tokio::select! {
            biased;
            output = future => Ok(output),
            reason = unwritable(&mut health) => Err(AuditError::Unwritable(reason)),
        }
    }

    /// Tells the writer that somebody waits for a place.
    fn hurry(&self) {
        self.lock().full = true;
        self.news.notify_one();
    }

    /// Fills the empty `group` with all that waits, after waiting for a first record and then at most
    /// `linger` for more. False when the queue is closed and nothing is left in it.
    pub(super) fn collect(&self, group: &mut Group, linger: Duration) -> bool {
        let mut waiting = self.lock();
        while waiting.group.records == 0 && !waiting.closed {
            waiting.idle = true;
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.idle = false;
        if !linger.is_zero() {
            let more = |waiting: &mut Waiting| !waiting.full && !waiting.closed;
            let waited = self.news.wait_timeout_while(waiting, linger, more);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.full = false;
        mem::swap(&mut waiting.group, group);
        group.records > 0
    }

    /// Gives back the places of a written group, tells who waits for it, and empties it.
    pub(super) fn finish(&self, group: &mut Group) {
        let bytes = u64::try_from(group.lines.len()).unwrap_or(u64::MAX);
        self.counters.queued.fetch_sub(group.records, Relaxed);
        self.counters.written.fetch_add(group.records, Relaxed);
        self.counters.bytes.fetch_add(bytes, Relaxed);
        self.health.send_if_modified(|health| mem::replace(health, Health::Writable) != Health::Writable);
        for acknowledgement in group.acknowledgements.drain(..) {
            // Who gave up waiting is not told.
            let _ = acknowledgement.send(());
        }
        self.places.add_permits(mem::take(&mut group.places));
        group.records = 0;
        group.lines.clear();
    }

    /// Accepts no more records; false when that was so before.
    pub(super) fn close(&self) -> bool {
        let was_closed = mem::replace(&mut self.lock().closed, true);
        self.places.close();
        self.news.notify_one();
        !was_closed
    }

    /// Whether [`Queue::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock, so what it guards is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why records cannot be written, once that is so.
async fn unwritable(health: &mut watch::Receiver<Health>) -> Arc<str> {
    loop {
        if let Health::Unwritable(reason) = &*health.borrow_and_update() {
            return Arc::clone(reason);
        }
        // The queue holds the sender, so this fails only when the queue is gone, and its callers with it.
        if health.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

//! What the writer and the readers of a state file share.
//!
//! Refuses to read a file that was lost or closed.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError, RwLock};

use jiff::SignedDuration;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};
use tokio::sync::watch;

use super::fault::{Fault, guarded};
use super::tables::{META, REVISION_ROW, number, read_time};
use crate::domain::time::Timestamp;
use crate::store::StoreError;

/// How far the time in memory may be ahead of the one on disk.
const AHEAD: SignedDuration = SignedDuration::from_secs(10);

/// The file, or what became of it.
pub(super) enum Held {
    /// It is open.
    Open(Database),
    /// It failed, and is to be opened again.
    Lost(StoreError),
    /// It was let go of.
    Closed,
}

/// What is shared.
pub(super) struct Shared {
    held: RwLock<Held>,
    times: Mutex<Times>,
    /// The revision of the last change.
    revision: watch::Sender<u64>,
    /// The highest revision that a feed told.
    fed: AtomicU64,
}

struct Times {
    /// The latest that was told.
    latest: Timestamp,
    /// The latest that is on disk, or on its way there.
    written: Timestamp,
}

impl Shared {
    pub(super) fn new(database: Database) -> Result<Self, StoreError> {
        let read = guarded(|| {
            let meta = database.begin_read()?.open_table(META)?;
            Ok((number(&meta, REVISION_ROW)?, read_time(&meta)?))
        });
        let (revision, time) = read.map_err(Fault::told)?;
        Ok(Self {
            held: RwLock::new(Held::Open(database)),
            times: Mutex::new(Times { latest: time, written: time }),
            revision: watch::Sender::new(revision),
            fed: AtomicU64::new(0),
        })
    }

    pub(super) fn replace(&self, held: Held) {
        let before = std::mem::replace(&mut *self.held.write().unwrap_or_else(PoisonError::into_inner), held);
        // Outside of the lock: closing writes.
        drop(before);
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(*self.held.read().unwrap_or_else(PoisonError::into_inner), Held::Lost(_))
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Fault> {
        match &*self.held.read().unwrap_or_else(PoisonError::into_inner) {
            Held::Open(database) => Ok(database.begin_write()?),
            Held::Lost(_) | Held::Closed => Err(Fault::InUse),
        }
    }

    /// Reads what is committed.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let transaction = match &*self.held.read().unwrap_or_else(PoisonError::into_inner) {
            Held::Open(database) => guarded(|| Ok(database.begin_read()?)),
            Held::Lost(error) => return Err(error.clone()),
            Held::Closed => return Err(StoreError::Closed),
        };
        let read = transaction.and_then(|transaction| guarded(|| look(&transaction)));
        read.map_err(|fault| match fault {
            Fault::InUse if self.is_closed() => StoreError::Closed,
            fault => fault.told(),
        })
    }

    fn is_closed(&self) -> bool {
        matches!(*self.held.read().unwrap_or_else(PoisonError::into_inner), Held::Closed)
    }

    /// The latest time that was told.
    pub(super) fn time(&self) -> Timestamp {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).latest
    }

    /// Takes a time, and says whether it must be written on its own.
    pub(super) fn told(&self, now: Timestamp) -> bool {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.latest = times.latest.max(now);
        let ahead = times.latest.duration_since(times.written) >= AHEAD;
        if ahead {
            times.written = times.latest;
        }
        ahead
    }

    /// A transaction was committed, with this time.
    pub(super) fn committed(&self, revision: u64, time: Timestamp) {
        {
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.written = times.written.max(time);
        }
        self.revision.send_if_modified(|known| {
            let newer = *known != revision;
            *known = revision;
            newer
        });
    }

    /// A feed told this revision.
    pub(super) fn fed(&self, revision: u64) {
        self.fed.fetch_max(revision, Relaxed);
    }

    /// Resolves when there is a change that no feed told before it began, or a new one.
    pub(super) async fn news(&self) {
        let mut revision = self.revision.subscribe();
        if *revision.borrow_and_update() > self.fed.load(Relaxed) {
            return;
        }
        if revision.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

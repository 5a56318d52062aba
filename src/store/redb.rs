//! State in a file of its own, for one gate: an embedded database, [redb](https://docs.rs/redb).
//!
//! One thread writes: what waits for it becomes durable together, and is acknowledged then. Readers see
//! what was committed, and wait for nobody. Refuses a file that another process holds, that a newer
//! version wrote, or that is not whole, and never starts with an empty one in its place.

mod fault;
mod file;
mod format;
mod quotas;
mod rows;
mod shared;
mod standings;
mod tables;
#[cfg(test)]
mod tests;
mod trial;
mod usage;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use self::fault::Fault;
use self::shared::Shared;
use self::tables::Tables;
use self::writer::{Asked, Message, Opener, Writer};
use super::{
    Acceptance, Change, Changed, Claim, Claimed, Feed, LicenseFilter, Registered, Registration, StateStore,
    StoreError, Take, Taken, UsageBatch, UsageFilter, UsageKey, UsageRow,
};
use crate::domain::amount::Amount;
use crate::domain::time::Timestamp;

/// A store in a file, which it holds until [`StateStore::close`] returns. When it is dropped without, the
/// file is let go of soon after.
pub struct RedbStore {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    /// One for each [`PLACE`] of what may wait for the writer.
    places: Arc<Semaphore>,
}

/// How many places there are for what waits for the writer: a disk that hangs must not fill the memory.
const WAITING: usize = 65_536;

/// The bytes of a place, more or less.
const PLACE: usize = 512;

/// The most time given to a write, from when it is asked for.
const PATIENCE: Duration = Duration::from_secs(3);

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedbStore")
    }
}

impl RedbStore {
    /// Opens the file of this path, and makes it, readable to its owner alone, where there is none. Reads
    /// all of it to see that it is whole, so it may take a while; it blocks the calling thread.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the file is in use, of a newer format, empty, damaged or not a state
    /// file, or when it cannot be made; the words say what to do. Such a file stays as it is.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = file::open(path)?;
        let path = path.to_owned();
        Self::start(database, Box::new(move || file::open_existing(&path)))
    }

    /// A store in memory, which is forgotten when it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when there is no memory or no thread for it.
    pub fn in_memory() -> Result<Self, StoreError> {
        let lost = || Err(StoreError::Unavailable("the state was kept in memory, and is lost".to_owned()));
        Self::start(file::in_memory()?, Box::new(lost))
    }

    fn start(database: redb::Database, opener: Opener) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(database)?);
        let (messages, received) = channel();
        let writer = Writer { shared: Arc::clone(&shared), messages: received, opener };
        let thread = thread::Builder::new().name("state".to_owned()).spawn(move || writer.run());
        thread.map_err(|error| StoreError::Unusable(format!("no thread can write the state: {error}")))?;
        Ok(Self { shared, messages, places: Arc::new(Semaphore::new(WAITING)) })
    }

    /// Does something in a transaction, and gives its outcome when it is durable.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_much(0, work).await
    }

    /// The same with so many bytes of what is to be written.
    async fn write_much<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnMut(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        match timeout(PATIENCE, self.ask(bytes, work)?).await {
            Ok(answer) => answer.unwrap_or(Err(StoreError::Closed)),
            Err(_) => {
                let words = format!("the disk of the state did not take it within {PATIENCE:?}");
                Err(StoreError::Unavailable(words))
            }
        }
    }

    /// Has something done in a transaction.
    fn ask<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnMut(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let places = u32::try_from(1 + bytes / PLACE).unwrap_or(u32::MAX);
        let place = Arc::clone(&self.places).try_acquire_many_owned(places).map_err(|_| {
            StoreError::Unavailable(
                "the disk of the state does not keep up: too much waits for it".to_owned(),
            )
        })?;
        let (reply, answer) = oneshot::channel();
        let job = Message::Job(Box::new(Asked::new(work, reply, place)));
        self.messages.send(job).map_err(|_| StoreError::Closed)?;
        Ok(answer)
    }

    /// Reads more than a row, away from the threads that serve.
    async fn browse<T: Send + 'static>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.read(look)).await;
        read.unwrap_or_else(|_| Err(StoreError::Unavailable("the reader was stopped".to_owned())))
    }

    /// Takes a time that was told. What is far ahead of the disk is written, and nobody waits for that.
    fn told(&self, now: Timestamp) {
        if self.shared.told(now) {
            // Every transaction writes the time; this one writes nothing else, and is not needed where others wait.
            drop(self.ask(0, |_| Ok(())));
        }
    }
}

fn rows(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[async_trait]
impl StateStore for RedbStore {
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        let license = license.clone();
        self.write_much(license.token.len(), move |tables| standings::register(tables, &license)).await
    }

    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError> {
        self.shared.read(|transaction| standings::license(transaction, id))
    }

    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError> {
        let (filter, after) = (filter.clone(), after.to_owned());
        self.browse(move |transaction| standings::licenses(transaction, &filter, &after, rows(limit))).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        let change = change.clone();
        self.write(move |tables| standings::change(tables, &change)).await
    }

    async fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Result<Feed, StoreError> {
        self.told(now);
        let time = self.shared.time();
        let feed =
            self.browse(move |transaction| standings::feed(transaction, after, rows(limit), time)).await?;
        self.shared.fed(feed.revision);
        Ok(feed)
    }

    async fn news(&self) {
        self.shared.news().await;
    }

    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        let acceptance = acceptance.clone();
        self.write(move |tables| standings::accept(tables, &acceptance)).await
    }

    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError> {
        self.shared.read(|transaction| standings::acceptance(transaction, (issuer, license, terms_hash)))
    }

    async fn take(&self, take: &Take) -> Result<Taken, StoreError> {
        if !take.want.is_positive() {
            return self.shared.read(|transaction| quotas::look(transaction, take));
        }
        let take = take.clone();
        self.write(move |tables| quotas::take(tables, &take)).await
    }

    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError> {
        self.write(move |tables| quotas::keep(tables, lease, kept)).await
    }

    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError> {
        self.write(move |tables| quotas::give_back(tables, lease, amount)).await
    }

    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError> {
        self.shared.read(|transaction| quotas::claimed(transaction, request))
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        let claim = claim.clone();
        self.write(move |tables| quotas::claim(tables, &claim)).await
    }

    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        let batch = batch.clone();
        let bytes = batch.rows.len() * PLACE;
        self.write_much(bytes, move |tables| usage::add(tables, &batch)).await
    }

    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.browse(move |transaction| usage::read(transaction, &filter, after.as_ref(), rows(limit))).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.shared.told(now);
        self.write(move |tables| quotas::sweep(tables, now)).await
    }

    async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.messages.send(Message::Close(sender)).is_ok() {
            // An error means that another closed it first.
            drop(closed.await);
        }
    }
}

//! The one thread that writes: it takes what waits, does it in one transaction, commits, and only then
//! answers.
//!
//! Refuses to answer before the commit is on disk, and to go on with a file after a failure without
//! opening it again.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, Durability};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::fault::{Fault, guarded};
use super::shared::{Held, Shared};
use super::tables::Tables;
use crate::store::StoreError;

/// The most jobs of one transaction.
const GROUP: usize = 512;

/// How long after a file could not be opened again it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Opens the file, again after a failure.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

/// What the writer is asked.
pub(super) enum Message {
    /// To do something in a transaction.
    Job(Box<dyn Job>),
    /// To end, and to say so.
    Close(oneshot::Sender<()>),
}

/// Something to be done in a transaction.
pub(super) trait Job: Send {
    /// Does it. Done again from the beginning where a transaction was given up for another job's sake.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault>;

    /// Answers who asked.
    fn answer(self: Box<Self>, durable: Result<(), StoreError>);
}

/// Someone's question.
pub(super) struct Asked<W, T> {
    work: W,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    /// Its place among those that wait, until it is answered.
    _place: OwnedSemaphorePermit,
}

impl<W, T> Asked<W, T> {
    pub(super) fn new(
        work: W,
        reply: oneshot::Sender<Result<T, StoreError>>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self { work, outcome: None, reply, _place: place }
    }
}

impl<W, T> Job for Asked<W, T>
where
    W: FnMut(&mut Tables<'_>) -> Result<T, Fault> + Send,
    T: Send,
{
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        self.outcome = Some((self.work)(tables)?);
        Ok(())
    }

    fn answer(self: Box<Self>, durable: Result<(), StoreError>) {
        let Self { outcome, reply, .. } = *self;
        // Who asked may have gone away.
        let _ = reply.send(durable.and_then(|()| outcome.ok_or(StoreError::Closed)));
    }
}

/// Why a transaction was given up.
enum Failure {
    /// The job of this index found a damaged row.
    Job(usize, Fault),
    /// All of it.
    Group(Fault),
}

impl<F: Into<Fault>> From<F> for Failure {
    fn from(fault: F) -> Self {
        Self::Group(fault.into())
    }
}

/// The thread.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) messages: Receiver<Message>,
    pub(super) opener: Opener,
}

impl Writer {
    /// Does what it is asked until it is closed, or nobody is left to ask.
    pub(super) fn run(mut self) {
        let closed = loop {
            let message = if self.shared.is_lost() {
                self.messages.recv_timeout(RETRY)
            } else {
                self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match message {
                Ok(Message::Job(job)) => {
                    if let Some(closed) = self.work(job) {
                        break Some(closed);
                    }
                }
                Ok(Message::Close(closed)) => break Some(closed),
                Err(RecvTimeoutError::Timeout) => drop(self.reopen()),
                Err(RecvTimeoutError::Disconnected) => break None,
            }
        };
        self.shared.replace(Held::Closed);
        // What is asked from now on finds nobody.
        drop(self.messages);
        if let Some(closed) = closed {
            // Who asked may have gone away.
            let _ = closed.send(());
        }
    }

    /// Does a job and those that wait behind it. Gives back who wants it closed.
    fn work(&mut self, first: Box<dyn Job>) -> Option<oneshot::Sender<()>> {
        let mut jobs = vec![first];
        let mut closed = None;
        while jobs.len() < GROUP && closed.is_none() {
            match self.messages.try_recv() {
                Ok(Message::Job(job)) => jobs.push(job),
                Ok(Message::Close(sender)) => closed = Some(sender),
                Err(_) => break,
            }
        }
        self.group(jobs);
        closed
    }

    fn group(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        if let Err(error) = self.reopen() {
            return answer(jobs, &Err(error));
        }
        while !jobs.is_empty() {
            match self.attempt(&mut jobs) {
                Ok(()) => return answer(jobs, &Ok(())),
                // The others have nothing to do with it.
                Err(Failure::Job(index, fault)) => jobs.remove(index).answer(Err(fault.told())),
                Err(Failure::Group(fault)) => {
                    let error = fault.told();
                    tracing::error!(%error, "the state could not be written");
                    self.shared.replace(Held::Lost(error.clone()));
                    // At once, so that readers do not miss it for longer than they must.
                    drop(self.reopen());
                    return answer(jobs, &Err(error));
                }
            }
        }
    }

    fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        let mut at_fault = None;
        let time = self.shared.time();
        let committed = guarded(|| {
            let mut transaction = self.shared.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // What was acknowledged is found at once after a crash, without a pass over the file; and
            // a damaged commit is never passed over for the one before it.
            transaction.set_quick_repair(true);
            let mut tables = Tables::open(&transaction)?;
            for (index, job) in jobs.iter_mut().enumerate() {
                job.run(&mut tables).inspect_err(|fault| {
                    at_fault = matches!(fault, Fault::Row(_)).then_some(index);
                })?;
            }
            let revision = tables.revision;
            tables.finish(time)?;
            transaction.commit()?;
            Ok(revision)
        });
        match (committed, at_fault) {
            (Ok(revision), _) => {
                self.shared.committed(revision, time);
                Ok(())
            }
            (Err(fault), Some(index)) => Err(Failure::Job(index, fault)),
            (Err(fault), None) => Err(Failure::Group(fault)),
        }
    }

    /// Opens the file again if it was lost.
    fn reopen(&self) -> Result<(), StoreError> {
        if !self.shared.is_lost() {
            return Ok(());
        }
        match (self.opener)() {
            Ok(database) => {
                tracing::info!("the state file was opened again");
                self.shared.replace(Held::Open(database));
                Ok(())
            }
            Err(error) => {
                // It may be possible later, so nobody is told that it is for good.
                let error = StoreError::Unavailable(error.to_string());
                self.shared.replace(Held::Lost(error.clone()));
                Err(error)
            }
        }
    }
}

fn answer(jobs: Vec<Box<dyn Job>>, durable: &Result<(), StoreError>) {
    for job in jobs {
        job.answer(durable.clone());
    }
}

//! The writer: one thread that takes records from the queue in groups and writes each group at once.
//!
//! Refuses records while it cannot write, and never forgets one that it accepted: a group that
//! could not be written is kept and tried again.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::file::{LogFile, write_from};
use super::queue::{Group, Queue};
use super::{AuditError, Counters, Health};
use crate::config::{Audit, AuditMode};

/// How long the writer lets records gather in `queued` mode: long enough that a busy gate does not
/// wake it for each, short enough that a log shipper does not notice.
const LINGER: Duration = Duration::from_millis(2);

/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a closed writer tries to write what it still holds.
const LAST_TRIES: Duration = Duration::from_secs(1);

/// The most memory that an emptied buffer keeps.
const SPARE_BUFFER: usize = 1 << 20;

/// A handle on the decision log. Clones share it; when the last is dropped, the log closes as
/// after [`Writer::close`], with nobody told how that went.
#[derive(Clone)]
pub struct Writer(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    /// How the thread ended; taken by the first to close.
    ended: Mutex<Option<oneshot::Receiver<Result<(), AuditError>>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Writer {
    /// Opens the sinks that `config` names and starts to write.
    ///
    /// # Errors
    /// When a sink cannot be opened, or there is none.
    pub fn open(config: &Audit) -> Result<Self, AuditError> {
        Self::open_with(config, None)
    }

    /// The same; records go to the hub too, where there is a way to hand them in.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open_with(config: &Audit, hub: Option<HandIn>) -> Result<Self, AuditError> {
        let mut sinks: Vec<Sink> = hub.map(Sink::Hub).into_iter().collect();
        if let Some(file) = &config.file {
            sinks.push(Sink::File(LogFile::open(file)?));
        }
        if config.stdout {
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(AuditError::Stdout)?;
            sinks.push(Sink::Stream(File::from(stdout)));
        }
        if sinks.is_empty() {
            return Err(AuditError::Nowhere);
        }
        Self::start(sinks, config.mode, config.queue)
    }

    fn start(sinks: Vec<Sink>, mode: AuditMode, capacity: u32) -> Result<Self, AuditError> {
        let durable = mode == AuditMode::Durable;
        let queue = Arc::new(Queue::new(capacity, durable));
        let outlets = sinks.into_iter().map(|sink| Outlet { sink, done: 0 }).collect();
        let thread = WriterThread { queue: Arc::clone(&queue), outlets, durable };
        let (report, ended) = oneshot::channel();
        thread::Builder::new()
            .name("audit".to_owned())
            // Nobody may be left to hear how it ended.
            .spawn(move || drop(report.send(thread.run())))
            .map_err(AuditError::Thread)?;
        Ok(Self(Arc::new(Handle { queue, ended: Some(ended).into() })))
    }

    /// Accepts a line, as [`super::Record::encode`] makes it. Waits for a place when the queue is
    /// full. Returns in `queued` mode when the record has its place, in `durable` mode when every
    /// sink has it and the file is synced. Dropping the future before it has a place takes
    /// the line back.
    ///
    /// # Errors
    /// [`AuditError::Unwritable`] while the last write is one that failed, [`AuditError::Closed`] after
    /// [`Writer::close`]. In `queued` mode the record is then not in the log and never will be; in
    /// `durable` mode it is not known to be there, and may yet be written.
    pub async fn append(&self, line: Vec<u8>) -> Result<(), AuditError> {
        self.append_lines(line, 1).await
    }

    /// Accepts so many whole lines at once, as [`Writer::append`] does one.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub async fn append_lines(&self, lines: Vec<u8>, records: u64) -> Result<(), AuditError> {
        let queue = &self.0.queue;
        queue.append(&lines, records).await.inspect_err(|_| {
            queue.counters.refused.fetch_add(records, Relaxed);
        })
    }

    /// Whether records can be written now.
    pub fn health(&self) -> Health {
        self.0.queue.health.borrow().clone()
    }

    /// Tells when records become unwritable, and when they can be written again.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.0.queue.health.subscribe()
    }

    /// What the log did so far.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.0.queue.counters)
    }

    /// Accepts no more records, writes and syncs those it accepted, and closes the sinks. Waits as
    /// long as a sink takes them, however slowly: set a limit around it. A sink that fails is
    /// tried again for a second.
    ///
    /// # Errors
    /// [`AuditError::Abandoned`] when accepted records could not be written, [`AuditError::Closed`]
    /// when the log was closed before.
    pub async fn close(&self) -> Result<(), AuditError> {
        self.0.queue.close();
        let ended = self.0.ended.lock().ok().and_then(|mut ended| ended.take());
        ended.ok_or(AuditError::Closed)?.await.map_err(|_| AuditError::Closed)?
    }
}

/// Where records go.
enum Sink {
    File(LogFile),
    Stream(File),
    Hub(HandIn),
}

/// Hands whole lines in to a hub, and says how many bytes of them it has, in words where none. Blocks its thread.
pub type HandIn = Box<dyn FnMut(&[u8]) -> Result<usize, String> + Send>;

/// A sink, and how many bytes of the group in hand it has.
struct Outlet {
    sink: Sink,
    done: usize,
}

impl Outlet {
    /// Goes on where the last call failed.
    fn write(&mut self, lines: &[u8], durable: bool) -> Result<(), AuditError> {
        match &mut self.sink {
            Sink::Stream(stream) => write_from(stream, lines, &mut self.done).map_err(AuditError::Stdout),
            Sink::File(file) if self.done < lines.len() => file.write(lines, &mut self.done, durable),
            Sink::File(_) => Ok(()),
            Sink::Hub(hand_in) => {
                while let Some(rest) = lines.get(self.done..).filter(|rest| !rest.is_empty()) {
                    self.done += hand_in(rest).map_err(AuditError::Hub)?;
                }
                Ok(())
            }
        }
    }
}

/// What runs on the writer's thread.
struct WriterThread {
    queue: Arc<Queue>,
    outlets: Vec<Outlet>,
    durable: bool,
}

impl WriterThread {
    /// Writes group after group until the queue is closed and empty.
    fn run(mut self) -> Result<(), AuditError> {
        // In durable mode callers wait; what arrives during a sync makes the next group.
        let linger = if self.durable { Duration::ZERO } else { LINGER };
        let mut group = Group::default();
        while self.queue.collect(&mut group, linger) {
            self.write(&group)?;
            self.queue.finish(&mut group);
            group.lines.shrink_to(SPARE_BUFFER);
        }
        for outlet in &mut self.outlets {
            if let Sink::File(file) = &mut outlet.sink {
                file.sync(&mut outlet.done)?;
            }
        }
        Ok(())
    }

    /// Returns when every sink has the group; gives up only some time after the log was closed.
    fn write(&mut self, group: &Group) -> Result<(), AuditError> {
        let mut closed_since = None;
        while let Err(error) = self.try_write(&group.lines) {
            self.report(&error);
            if self.queue.is_closed() && closed_since.get_or_insert_with(Instant::now).elapsed() >= LAST_TRIES
            {
                let records = self.queue.counters.queued.load(Relaxed);
                return Err(AuditError::Abandoned { records, reason: error.to_string() });
            }
            thread::sleep(RETRY);
        }
        for outlet in &mut self.outlets {
            outlet.done = 0;
        }
        if *self.queue.health.borrow() != Health::Writable {
            tracing::info!("records can be written again; those accepted before are written");
        }
        Ok(())
    }

    /// Lets every sink write what it lacks, also after another one failed.
    fn try_write(&mut self, lines: &[u8]) -> Result<(), AuditError> {
        let mut result = Ok(());
        for outlet in &mut self.outlets {
            result = result.and(outlet.write(lines, self.durable));
        }
        result
    }

    /// Makes a failure known: from now on records are refused.
    fn report(&self, error: &AuditError) {
        self.queue.counters.failures.fetch_add(1, Relaxed);
        let reason = error.to_string();
        self.queue.health.send_if_modified(|health| {
            if matches!(health, Health::Unwritable(known) if **known == *reason) {
                return false;
            }
            tracing::error!(%reason, "records cannot be written; those accepted are kept, new ones are refused");
            *health = Health::Unwritable(reason.as_str().into());
            true
        });
    }
}

#[cfg(test)]
mod tests;

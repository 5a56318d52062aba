//! What a hub does for its members: feeds them from memory, keeps their usage and their records, and
//! asks the store of this gate for the rest.
//!
//! Refuses members what their scope does not have, and to acknowledge a change that its own feed does
//! not tell yet.

mod log;
mod members;

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use tokio::sync::watch;

use crate::audit::record::MAX_LINE;
use crate::audit::{AuditError, Writer};
use crate::decision::State;
use crate::domain::Clock;
use crate::store::{Acceptance, Change, Changed, Feed, Registered, Registration, StateStore, StoreError};

use log::Log;
pub use log::Mark;
pub use members::Members;

/// A gate that others keep their state in.
pub struct Hub {
    store: Arc<dyn StateStore>,
    state: State,
    audit: Writer,
    clock: Clock,
    log: Arc<Log>,
    /// One of those who wait for a read has it done for all of them.
    reading: tokio::sync::Mutex<()>,
}

/// Why lines were not taken.
#[derive(Debug, thiserror::Error)]
pub enum HandInError {
    /// They are no lines of a decision log.
    #[error("{0}")]
    Malformed(&'static str),
    /// They cannot be recorded; some may be all the same.
    #[error("records are not taken: {0}")]
    Unrecorded(#[from] AuditError),
}

impl Hub {
    /// A hub over the store that `state` reads; to be made before the first read.
    pub fn new(store: Arc<dyn StateStore>, state: State, audit: Writer, clock: Clock) -> Self {
        let log = Arc::new(Log::default());
        let hears = Arc::clone(&log);
        state.revocations.let_hear(move |heard| hears.take_in(heard));
        Self { store, state, audit, clock, log, reading: tokio::sync::Mutex::default() }
    }

    /// The store, for what needs no more than it.
    pub fn store(&self) -> &dyn StateStore {
        self.store.as_ref()
    }

    /// What changed after a revision, from memory. A member that knows more than this hub has it read the store
    /// first: another hub was faster, or the store was restored.
    ///
    /// # Errors
    /// When the store was not read yet, or has to be, and cannot be.
    pub async fn feed(&self, after: u64, limit: u32) -> Result<Feed, StoreError> {
        // It asks again for the last change that it knows, so it knows one more than that; where there is one
        // change alone, it may not, and the store is read without need.
        if after > 0 && self.log.mark().revision <= after {
            self.read().await?;
        }
        let none = || StoreError::Unavailable("the hub has not read its own state yet".to_owned());
        self.log.feed(after, limit, self.clock.now()).ok_or_else(none)
    }

    /// Tells when the feed grew.
    pub fn news(&self) -> watch::Receiver<Mark> {
        self.log.subscribe()
    }

    /// How many members listen for that: each does that is connected.
    pub fn listening(&self) -> usize {
        self.log.listening()
    }

    /// Reads what is in the store now, or was later than this call.
    async fn read(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let _alone = self.reading.lock().await;
        if !self.log.was_read_after(asked) {
            self.state.revocations.read(&self.clock).await?;
        }
        Ok(())
    }

    /// Makes a change; the feed has it when this returns.
    ///
    /// # Errors
    /// When the store cannot be reached, before or after the change.
    pub async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        self.state.revocations.make(change, &self.clock).await
    }

    /// Registers a license; the feed counts it when this returns.
    ///
    /// # Errors
    /// When the store cannot be reached, before or after.
    pub async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        let registration = self.store.register(license).await?;
        // Also where it was registered before, and not read then.
        self.read().await?;
        Ok(registration)
    }

    /// Records an acceptance; the feed counts it when this returns.
    ///
    /// # Errors
    /// When the store cannot be reached, before or after.
    pub async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        let created = self.store.accept(acceptance).await?;
        // Also where it was accepted before, and not read then.
        self.read().await?;
        Ok(created)
    }

    /// The registered license of this id, from memory where it was asked for before.
    ///
    /// # Errors
    /// When the store has to be asked, and cannot be.
    pub async fn license(&self, id: &str) -> Result<Option<Arc<Registered>>, StoreError> {
        self.state.registry.license(id, self.state.revocations.records()).await
    }

    /// Who accepted terms, from memory where it was asked for before.
    ///
    /// # Errors
    /// When the store has to be asked, and cannot be.
    pub async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Arc<Acceptance>>, StoreError> {
        let records = self.state.revocations.records();
        self.state.registry.acceptance(issuer, license, terms_hash, records).await
    }

    /// Appends lines of a member's decision log to that of this gate, as they are.
    ///
    /// # Errors
    /// When they are not whole lines, each of a record that names its gate; then none is taken.
    pub async fn hand_in(&self, lines: Vec<u8>) -> Result<(), HandInError> {
        let count = check_lines(&lines).map_err(HandInError::Malformed)?;
        Ok(self.audit.append_lines(lines, count).await?)
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hub")
    }
}

/// What a record has to say. The rest is between its gate and whoever reads it.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "gate")]
    _gate: String,
}

/// How many lines there are.
fn check_lines(lines: &[u8]) -> Result<u64, &'static str> {
    let text = std::str::from_utf8(lines).map_err(|_| "is not UTF-8")?;
    if !text.ends_with('\n') {
        return Err("does not end with a whole line");
    }
    let mut count = 0;
    for line in text.split_terminator('\n') {
        if line.len() >= MAX_LINE {
            return Err("has a line of more than 64 KiB");
        }
        // A list would be read as a record too.
        if !line.starts_with('{') || serde_json::from_str::<Line>(line).is_err() {
            return Err("has a line that is not one JSON object with a `gate`");
        }
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_that_name_their_gate_are_taken() {
        assert_eq!(check_lines(b"{\"gate\":\"a\",\"x\":[1]}\n{\"gate\":\"b\"}\n"), Ok(2));
        let long = format!("{{\"gate\":\"{}\"}}\n", "x".repeat(MAX_LINE));
        let bad: [&[u8]; 10] = [
            b"",
            b"{\"gate\":\"a\"}",
            b"\n",
            b"{}\n",
            b"{\"gate\":1}\n",
            b"[\"a\"]\n",
            b"{\"gate\":\"a\"}{\"gate\":\"a\"}\n",
            b"{\"gate\":\"a\",\"x\":\"\xff\"}\n",
            b"{\"gate\":\"a\"\n}\n",
            long.as_bytes(),
        ];
        for lines in bad {
            assert!(check_lines(lines).is_err(), "{}", String::from_utf8_lossy(lines));
        }
    }
}

//! The decision log: one record for every decision, as JSON lines, by one writer.
//!
//! Refuses to lose a record that it accepted, to write half a line into another, and to
//! carry a token: [`record`] says what a record holds, [`writer`] when it is safe,
//! the private `file` how files are rotated.

pub mod act;
mod file;
mod queue;
pub mod record;
pub mod redact;
pub mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use act::ActRecord;
pub use queue::{Counters, Health};
pub use record::{LicenseFacts, Record};
pub use writer::{HandIn, Writer};

/// Why a record was not accepted, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The configuration names no place for records.
    #[error(
        "decisions would be recorded nowhere; set `audit.stdout: true`, name a file in `audit.file.path`, or set `audit.hub: true`"
    )]
    Nowhere,
    /// The file cannot be opened for writing.
    #[error(
        "cannot open the audit file `{path}`: {source}; it must lie in an existing folder in which this user may create, rename and write files"
    )]
    Open {
        /// The file, as configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path leads to a folder, a device or a pipe.
    #[error(
        "the audit file `{path}` is not a regular file; name a regular file, or set `audit.stdout: true` for a stream"
    )]
    NotAFile {
        /// The file, as configured.
        path: PathBuf,
    },
    /// Another process holds the lock on the file.
    #[error("the audit file `{path}` is being written by another process; give each gate a file of its own")]
    InUse {
        /// The file, as configured.
        path: PathBuf,
    },
    /// A record is not representable in JSON.
    #[error("the record cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// A write or a sync of the file failed.
    #[error("cannot write the audit file `{path}`: {source}")]
    Write {
        /// The file, as configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be moved aside when it was full.
    #[error("cannot rotate the audit file `{path}`: {source}")]
    Rotate {
        /// The file, as configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Standard output could not be opened or written.
    #[error("cannot write records to standard output: {0}")]
    Stdout(io::Error),
    /// The hub did not take records.
    #[error("cannot hand records in: {0}")]
    Hub(String),
    /// The writer's thread could not be started.
    #[error("cannot start the thread that writes records: {0}")]
    Thread(io::Error),
    /// The last write failed; the record was not accepted.
    #[error("records cannot be written: {0}")]
    Unwritable(Arc<str>),
    /// The writer was closed; the record was not accepted.
    #[error("the decision log is closed")]
    Closed,
    /// The writer was closed while records could not be written.
    #[error("the decision log was closed with {records} records unwritten: {reason}")]
    Abandoned {
        /// Records that were accepted and are lost.
        records: u64,
        /// Why they could not be written.
        reason: String,
    },
}

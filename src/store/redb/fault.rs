//! What can go wrong between the store and its file.
//!
//! Refuses to let a panic of the database library out: it says of itself that it may panic on a file
//! that was damaged by others.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{CommitError, DatabaseError, SetDurabilityError, StorageError, TableError, TransactionError};

use crate::store::StoreError;

/// Why a transaction did not do its work.
#[derive(Debug)]
pub(super) enum Fault {
    /// A row is not what was written: it concerns whoever asked for it, and nobody else.
    Row(String),
    /// The file as a whole is damaged.
    File(String),
    /// The file could not be read or written.
    Disk(String),
    /// Another holds the file, or let go of it while it was read.
    InUse,
}

impl Fault {
    /// The row of this key is damaged.
    pub(super) fn row(table: &str, key: impl fmt::Debug, problem: impl fmt::Display) -> Self {
        Self::Row(format!("in table `{table}`, the row {key:?} {problem}"))
    }

    /// What a caller of the store is told.
    pub(super) fn told(self) -> StoreError {
        match self {
            Self::Row(problem) | Self::File(problem) => StoreError::Damaged(problem),
            Self::Disk(problem) => StoreError::Unavailable(problem),
            Self::InUse => StoreError::Unavailable("the state file is being opened again".to_owned()),
        }
    }

    fn of(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseClosed | redb::Error::DatabaseAlreadyOpen => Self::InUse,
            // So redb says that a file is none of its own, or ends too early.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::File(error.to_string())
            }
            redb::Error::Io(error) => Self::Disk(error.to_string()),
            redb::Error::PreviousIo => Self::Disk("an earlier failure of the disk".to_owned()),
            error @ (redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)) => Self::File(error.to_string()),
            error => Self::Disk(error.to_string()),
        }
    }
}

macro_rules! from {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::of(error.into())
            }
        })*
    };
}

from!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);

/// Does the work; a panic in it becomes a fault of the file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // What the work had in hand is thrown away with the panic, so nothing half-done is seen again.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Fault::File("what is in the file makes no sense".to_owned())))
}

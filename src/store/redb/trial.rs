//! A file that is opened on trial: what would be written to it is kept in memory, and forgotten.
//!
//! Opening a database for writing writes to it before it is known to be whole. Refuses to touch the
//! file, so that one that is refused stays as it is for whoever mends it.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// The file, and what is written beside it.
#[derive(Debug)]
pub(super) struct Trial {
    file: FileBackend,
    beside: Mutex<Beside>,
}

#[derive(Debug)]
struct Beside {
    /// How long the file seems.
    length: u64,
    /// How much of it is read from the file.
    kept: u64,
    /// What was written at which place, in its order.
    written: Vec<(u64, Vec<u8>)>,
}

impl Trial {
    pub(super) fn new(file: File) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let length = file.len()?;
        Ok(Self { file, beside: Mutex::new(Beside { length, kept: length, written: Vec::new() }) })
    }

    fn beside(&self) -> MutexGuard<'_, Beside> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Trial {
    fn len(&self) -> io::Result<u64> {
        Ok(self.beside().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let beside = self.beside();
        if offset.saturating_add(length(out)) > beside.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        let kept = index(beside.kept.saturating_sub(offset)).min(out.len());
        if let Some(kept) = out.get_mut(..kept) {
            self.file.read(offset, kept)?;
        }
        for (place, data) in &beside.written {
            lay_over(*place, data, offset, out);
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut beside = self.beside();
        beside.length = length;
        beside.kept = beside.kept.min(length);
        // What is cut off reads as zeros when the file grows again.
        for (place, data) in &mut beside.written {
            data.truncate(index(length.saturating_sub(*place)));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.beside().written.push((offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Copies what of the data at `place` lies in what is read at `offset`.
fn lay_over(place: u64, data: &[u8], offset: u64, out: &mut [u8]) {
    let begin = place.max(offset);
    let end = place.saturating_add(length(data)).min(offset.saturating_add(length(out)));
    if begin < end {
        let source = data.get(index(begin - place)..index(end - place));
        let target = out.get_mut(index(begin - offset)..index(end - offset));
        if let (Some(source), Some(target)) = (source, target) {
            target.copy_from_slice(source);
        }
    }
}

fn index(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

fn length(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

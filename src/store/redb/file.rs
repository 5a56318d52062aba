//! A state file: made where there is none, opened where it is whole, and otherwise refused in words
//! that help.
//!
//! Never replaces a file, and never takes an empty one for a new one: what was revoked would be
//! allowed again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database};

use super::fault::{Fault, guarded};
use super::format::{FORMAT, Known, STEPS, initialize, known, migrate};
use super::trial::Trial;
use crate::store::StoreError;

/// The most memory for pages of the file.
const CACHE: usize = 64 << 20;

/// Opens the file, and makes it where there is none.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(inaccessible(path, &error)),
        Ok(_) => {}
    }
    open_existing(path)
}

/// A database in memory.
pub(super) fn in_memory() -> Result<Database, StoreError> {
    let made = guarded(|| {
        let database = builder().create_with_backend(InMemoryBackend::new())?;
        initialize(&database)?;
        Ok(database)
    });
    made.map_err(|fault| StoreError::Unusable(format!("no state can be kept in memory: {}", fault.told())))
}

/// Opens a file that is there.
pub(super) fn open_existing(path: &Path) -> Result<Database, StoreError> {
    let found = fs::metadata(path).map_err(|error| inaccessible(path, &error))?;
    if !found.is_file() {
        return Err(unusable(path, "is not a file: name one in a folder of the gate's own"));
    }
    // redb would take it for a new one.
    if found.len() == 0 {
        return Err(unusable(
            path,
            "is empty, so what was in it is lost, revocations too: restore a backup of it, or remove it if \
             nothing was ever in it",
        ));
    }
    let older = check(path)?;
    let opened = guarded(|| {
        let database = builder().open(path)?;
        older.map(|version| migrate(&database, version, STEPS)).transpose()?;
        Ok(database)
    });
    opened.map_err(|fault| refusal(path, &fault))
}

/// Reads all of a file without touching it. Gives its format where it must be migrated.
fn check(path: &Path) -> Result<Option<u32>, StoreError> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.map_err(|error| inaccessible(path, &error))?;
    let checked = guarded(|| {
        // Without the check, redb trusts a file that was closed in order, and panics later if it was
        // damaged since.
        let database = builder().set_check_integrity_on_open(true).create_with_backend(Trial::new(file)?)?;
        known(&database)
    });
    match checked {
        Ok(Known::Current) => Ok(None),
        Ok(Known::Older(version)) => Ok(Some(version)),
        Ok(Known::Newer(version)) => Err(newer(path, version)),
        Ok(Known::Foreign) => {
            Err(unusable(path, "was not written by tollgate: name another file in `state.embedded.path`"))
        }
        Err(fault) => Err(refusal(path, &fault)),
    }
}

/// Makes the file whole under another name first: a file of this name was never empty.
fn create(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let failed = |error: &dyn std::fmt::Display| {
        let folder = folder.display();
        unusable(path, &format!("cannot be made: the folder `{folder}` must exist and be writable ({error})"))
    };
    // It is made with mode 0600.
    let made = tempfile::Builder::new().prefix(".state-").suffix(".new").tempfile_in(&folder);
    let made = made.map_err(|error| failed(&error))?;
    let database = guarded(|| {
        let database = builder().create(made.path())?;
        initialize(&database)?;
        Ok(database.close()?)
    });
    database.map_err(|fault| failed(&fault.told()))?;
    made.as_file().sync_all().map_err(|error| failed(&error))?;
    match made.persist_noclobber(path) {
        Ok(_) => {}
        // Someone else was faster, and their file is as good.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(&error.error)),
    }
    // The name is only durable when the folder is.
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(&error))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

fn unusable(path: &Path, problem: &str) -> StoreError {
    StoreError::Unusable(format!("the state file `{}` {problem}", path.display()))
}

fn inaccessible(path: &Path, error: &io::Error) -> StoreError {
    unusable(path, &format!("cannot be opened: {error}"))
}

fn newer(path: &Path, version: u32) -> StoreError {
    let read = if FORMAT == 1 { "format 1".to_owned() } else { format!("formats 1 to {FORMAT}") };
    unusable(
        path,
        &format!(
            "has format {version}, and this tollgate reads {read}: run the version that wrote it, or a \
             newer one"
        ),
    )
}

fn refusal(path: &Path, fault: &Fault) -> StoreError {
    match fault {
        Fault::InUse => unusable(
            path,
            "is in use by another process: each gate needs a file of its own, and commands that concern a \
             running gate go through its administration API",
        ),
        Fault::Disk(problem) => unusable(path, &format!("cannot be opened: {problem}")),
        Fault::Row(problem) | Fault::File(problem) => unusable(
            path,
            &format!(
                "is damaged, or no state file ({problem}); it is not replaced by an empty one, which would \
                 forget revocations: move it aside and restore a backup of it"
            ),
        ),
    }
}

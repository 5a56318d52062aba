//! The versions of the file's format, and the steps from one to the next.
//!
//! Refuses a version that this binary does not know, before anything is written to the file.

use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

use super::fault::Fault;
use super::tables::{FORMAT_ROW, META, format, make};

/// The version that this binary writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// Leads the tables of a file from one version to the next.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), Fault>;

/// The step from version 1 to 2, that from 2 to 3, and so on to [`FORMAT`].
pub(super) const STEPS: &[Step] = &[];

/// What a file's format says about it.
pub(super) enum Known {
    /// It is read as it is.
    Current,
    /// It is read after [`migrate`].
    Older(u32),
    /// It is not read.
    Newer(u32),
    /// It is no state file.
    Foreign,
}

/// What the format of an open file says.
pub(super) fn known(database: &impl ReadableDatabase) -> Result<Known, Fault> {
    Ok(match format(&database.begin_read()?)? {
        Some(FORMAT) => Known::Current,
        Some(version) if version > FORMAT => Known::Newer(version),
        Some(version) if version > 0 => Known::Older(version),
        Some(_) | None => Known::Foreign,
    })
}

/// Makes the tables of an empty file.
pub(super) fn initialize(database: &Database) -> Result<(), Fault> {
    write(database, |transaction| make(transaction, FORMAT, &uuid::Uuid::new_v4().to_string()))
}

/// Leads a file of an older version to [`FORMAT`]: all steps, or none.
pub(super) fn migrate(database: &Database, from: u32, steps: &[Step]) -> Result<(), Fault> {
    let done = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    write(database, |transaction| {
        for step in steps.iter().skip(done) {
            step(transaction)?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_ROW, FORMAT.to_string().as_str())?;
        Ok(())
    })
}

fn write(
    database: &Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    work(&transaction)?;
    Ok(transaction.commit()?)
}

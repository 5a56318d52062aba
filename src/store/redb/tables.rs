//! The tables of a state file, and all of them opened in one write transaction.
//!
//! Their names and types are the file's format: who changes one adds a step to `format.rs`. Refuses to
//! know what a change or a quota is.

use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::fault::Fault;
use crate::domain::time::Timestamp;

/// Issuer, kind and id of a target.
pub(super) type TargetKey = (&'static str, &'static str, &'static str);

/// Issuer, license, assignee, user, project, metric and hour: the order of the fields of a `UsageKey`,
/// and with it the order in which usage is read.
pub(super) type UsageRowKey =
    (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str, i128);

/// What is known of the file itself, as text, so that every version can read it.
pub(super) const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
/// Registered licenses by id.
pub(super) const LICENSES: TableDefinition<&str, &[u8]> = TableDefinition::new("licenses");
/// How a target stands.
pub(super) const STANDINGS: TableDefinition<TargetKey, &[u8]> = TableDefinition::new("standings");
/// Which target changed last under a revision. A target is listed once.
pub(super) const CHANGES: TableDefinition<u64, TargetKey> = TableDefinition::new("changes");
/// Acceptances by issuer, license and hash of the terms.
pub(super) const ACCEPTANCES: TableDefinition<(&str, &str, &str), &[u8]> =
    TableDefinition::new("acceptances");
/// Counter and beginning of a window: what is set aside, and when it ends.
pub(super) const WINDOWS: TableDefinition<(&str, i128), (i128, i128)> = TableDefinition::new("windows");
/// When windows end: end, counter and beginning.
pub(super) const WINDOW_ENDS: TableDefinition<(i128, &str, i128), ()> = TableDefinition::new("window_ends");
/// Leases: counter and beginning of the window, amount, end, gate.
pub(super) const LEASES: TableDefinition<u128, (&str, i128, i128, i128, &str)> =
    TableDefinition::new("leases");
/// When leases end.
pub(super) const LEASE_ENDS: TableDefinition<(i128, u128), ()> = TableDefinition::new("lease_ends");
/// Claims by request: the question's hash, and when they end.
pub(super) const CLAIMS: TableDefinition<&str, (&[u8; 32], i128)> = TableDefinition::new("claims");
/// When claims end.
pub(super) const CLAIM_ENDS: TableDefinition<(i128, &str), ()> = TableDefinition::new("claim_ends");
/// The last batch of usage of a gate's boot.
pub(super) const BATCHES: TableDefinition<(&str, u128), u64> = TableDefinition::new("batches");
/// Usage by key.
pub(super) const USAGE: TableDefinition<UsageRowKey, i128> = TableDefinition::new("usage");

/// The rows of [`META`].
pub(super) const FORMAT_ROW: &str = "format";
pub(super) const EPOCH_ROW: &str = "epoch";
pub(super) const REVISION_ROW: &str = "revision";
pub(super) const RECORDS_ROW: &str = "records";
pub(super) const TIME_ROW: &str = "time";

/// All tables, in one write transaction; the counters are written with [`Tables::finish`].
pub(super) struct Tables<'txn> {
    pub(super) meta: Table<'txn, &'static str, &'static str>,
    pub(super) licenses: Table<'txn, &'static str, &'static [u8]>,
    pub(super) standings: Table<'txn, TargetKey, &'static [u8]>,
    pub(super) changes: Table<'txn, u64, TargetKey>,
    pub(super) acceptances: Table<'txn, (&'static str, &'static str, &'static str), &'static [u8]>,
    pub(super) windows: Table<'txn, (&'static str, i128), (i128, i128)>,
    pub(super) window_ends: Table<'txn, (i128, &'static str, i128), ()>,
    pub(super) leases: Table<'txn, u128, (&'static str, i128, i128, i128, &'static str)>,
    pub(super) lease_ends: Table<'txn, (i128, u128), ()>,
    pub(super) claims: Table<'txn, &'static str, (&'static [u8; 32], i128)>,
    pub(super) claim_ends: Table<'txn, (i128, &'static str), ()>,
    pub(super) batches: Table<'txn, (&'static str, u128), u64>,
    pub(super) usage: Table<'txn, UsageRowKey, i128>,
    /// The revision of the last change.
    pub(super) revision: u64,
    /// How many licenses and acceptances were recorded.
    pub(super) records: u64,
}

impl<'txn> Tables<'txn> {
    /// Opens all tables, and makes those that are not there.
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Fault> {
        let meta = transaction.open_table(META)?;
        let revision = number(&meta, REVISION_ROW)?;
        let records = number(&meta, RECORDS_ROW)?;
        let tables = Self {
            meta,
            licenses: transaction.open_table(LICENSES)?,
            standings: transaction.open_table(STANDINGS)?,
            changes: transaction.open_table(CHANGES)?,
            acceptances: transaction.open_table(ACCEPTANCES)?,
            windows: transaction.open_table(WINDOWS)?,
            window_ends: transaction.open_table(WINDOW_ENDS)?,
            leases: transaction.open_table(LEASES)?,
            lease_ends: transaction.open_table(LEASE_ENDS)?,
            claims: transaction.open_table(CLAIMS)?,
            claim_ends: transaction.open_table(CLAIM_ENDS)?,
            batches: transaction.open_table(BATCHES)?,
            usage: transaction.open_table(USAGE)?,
            revision,
            records,
        };
        Ok(tables)
    }

    /// Writes the counters, and the time where it is later than the one that is written.
    pub(super) fn finish(mut self, time: Timestamp) -> Result<(), Fault> {
        self.meta.insert(REVISION_ROW, self.revision.to_string().as_str())?;
        self.meta.insert(RECORDS_ROW, self.records.to_string().as_str())?;
        if read_time(&self.meta)? < time {
            self.meta.insert(TIME_ROW, time.to_string().as_str())?;
        }
        Ok(())
    }
}

/// A text of [`META`]; without it, this is not a state file.
pub(super) fn text(
    meta: &impl ReadableTable<&'static str, &'static str>,
    row: &str,
) -> Result<String, Fault> {
    let value = meta.get(row)?.ok_or_else(|| Fault::row("meta", row, "is missing"))?;
    Ok(value.value().to_owned())
}

/// A number of [`META`].
pub(super) fn number(meta: &impl ReadableTable<&'static str, &'static str>, row: &str) -> Result<u64, Fault> {
    text(meta, row)?.parse().map_err(|_| Fault::row("meta", row, "is not a number"))
}

/// The latest time that is written; the earliest there is, where none is.
pub(super) fn read_time(meta: &impl ReadableTable<&'static str, &'static str>) -> Result<Timestamp, Fault> {
    let Some(time) = meta.get(TIME_ROW)? else { return Ok(Timestamp::MIN) };
    time.value().parse().map_err(|_| Fault::row("meta", TIME_ROW, "is not a time"))
}

/// Makes all tables of an empty file, of this format and epoch.
pub(super) fn make(transaction: &WriteTransaction, format: u32, epoch: &str) -> Result<(), Fault> {
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_ROW, format.to_string().as_str())?;
        meta.insert(EPOCH_ROW, epoch)?;
        meta.insert(REVISION_ROW, "0")?;
        meta.insert(RECORDS_ROW, "0")?;
    }
    Tables::open(transaction).map(drop)
}

/// The format of the file; `None` where it is no state file.
pub(super) fn format(transaction: &redb::ReadTransaction) -> Result<Option<u32>, Fault> {
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let Some(format) = meta.get(FORMAT_ROW)? else { return Ok(None) };
    Ok(format.value().parse().ok())
}

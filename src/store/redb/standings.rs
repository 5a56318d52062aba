//! Licenses, acceptances, and how targets stand.

use std::ops::Bound;

use jiff::SignedDuration;
use redb::{ReadTransaction, ReadableTable};

use super::fault::Fault;
use super::rows::{AcceptanceRow, LicenseRow, StandingRow, decode, encode};
use super::tables::{
    ACCEPTANCES, CHANGES, EPOCH_ROW, LICENSES, META, RECORDS_ROW, REVISION_ROW, STANDINGS, Tables, TargetKey,
    number, text,
};
use crate::domain::standing::{Standing, Status, Target};
use crate::domain::time::Timestamp;
use crate::store::{Acceptance, Change, Changed, Feed, LicenseFilter, Registered, Registration};

pub(super) fn register(tables: &mut Tables<'_>, license: &Registered) -> Result<Registration, Fault> {
    if let Some(present) = license_in(&tables.licenses, &license.id)? {
        return Ok(Registration::Present(present));
    }
    let row = encode("licenses", &license.id, &LicenseRow::of(license.clone()))?;
    tables.licenses.insert(license.id.as_str(), row.as_slice())?;
    tables.records = tables.records.saturating_add(1);
    Ok(Registration::Created)
}

pub(super) fn license(transaction: &ReadTransaction, id: &str) -> Result<Option<Registered>, Fault> {
    license_in(&transaction.open_table(LICENSES)?, id)
}

fn license_in(
    licenses: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
) -> Result<Option<Registered>, Fault> {
    let Some(row) = licenses.get(id)? else { return Ok(None) };
    let row: LicenseRow = decode("licenses", id, row.value())?;
    Ok(Some(row.license(id)))
}

pub(super) fn licenses(
    transaction: &ReadTransaction,
    filter: &LicenseFilter,
    after: &str,
    limit: usize,
) -> Result<Vec<Registered>, Fault> {
    let licenses = transaction.open_table(LICENSES)?;
    let mut found = Vec::new();
    for entry in licenses.range::<&str>((Bound::Excluded(after), Bound::Unbounded))? {
        if found.len() >= limit {
            break;
        }
        let (id, row) = entry?;
        let row: LicenseRow = decode("licenses", id.value(), row.value())?;
        let license = row.license(id.value());
        if lets_through(filter, &license) {
            found.push(license);
        }
    }
    Ok(found)
}

fn lets_through(filter: &LicenseFilter, license: &Registered) -> bool {
    filter.issuer.as_ref().is_none_or(|issuer| *issuer == license.issuer)
        && filter.assignee.as_ref().is_none_or(|assignee| *assignee == license.assignee)
        && filter.expiring_before.is_none_or(|moment| license.expires < moment)
}

pub(super) fn change(tables: &mut Tables<'_>, change: &Change) -> Result<Changed, Fault> {
    let key = key(&change.standing.target);
    let before = standing_in(&tables.standings, key)?;
    let status = before.as_ref().map_or(Status::Valid, |standing| standing.status);
    if !change.from.contains(&status) {
        return Ok(before.map_or(Changed::Unknown, Changed::Refused));
    }
    let revision = tables.revision.saturating_add(1);
    let row = encode("standings", key, &StandingRow::of(&change.standing, revision))?;
    // The feed has a target once, under its latest revision.
    if let Some(before) = before {
        tables.changes.remove(before.revision)?;
    }
    tables.standings.insert(key, row.as_slice())?;
    tables.changes.insert(revision, key)?;
    tables.revision = revision;
    Ok(Changed::Applied(revision))
}

fn key(target: &Target) -> (&str, &str, &str) {
    (&target.issuer, target.which.kind(), target.which.id())
}

fn standing_in(
    standings: &impl ReadableTable<TargetKey, &'static [u8]>,
    key: (&str, &str, &str),
) -> Result<Option<Standing>, Fault> {
    let Some(row) = standings.get(key)? else { return Ok(None) };
    let row: StandingRow = decode("standings", key, row.value())?;
    row.standing(key).map(Some)
}

pub(super) fn feed(
    transaction: &ReadTransaction,
    after: u64,
    limit: usize,
    time: Timestamp,
) -> Result<Feed, Fault> {
    let meta = transaction.open_table(META)?;
    let epoch = text(&meta, EPOCH_ROW)?;
    let standings = transaction.open_table(STANDINGS)?;
    let changes = transaction.open_table(CHANGES)?;
    let mut changed = Vec::new();
    for entry in changes.range((Bound::Excluded(after), Bound::Unbounded))?.take(limit) {
        let (revision, target) = entry?;
        let standing = standing_in(&standings, target.value())?
            .filter(|standing| standing.revision == revision.value())
            .ok_or_else(|| Fault::row("changes", revision.value(), "has no standing"))?;
        changed.push(standing);
    }
    Ok(Feed {
        epoch: epoch.parse().map_err(|_| Fault::row("meta", EPOCH_ROW, "is not a UUID"))?,
        revision: number(&meta, REVISION_ROW)?,
        records: number(&meta, RECORDS_ROW)?,
        time,
        age: SignedDuration::ZERO,
        standings: changed,
    })
}

pub(super) fn accept(tables: &mut Tables<'_>, acceptance: &Acceptance) -> Result<bool, Fault> {
    let key = (acceptance.issuer.as_str(), acceptance.license.as_str(), acceptance.terms_hash.as_str());
    if tables.acceptances.get(key)?.is_some() {
        return Ok(false);
    }
    let row = encode("acceptances", key, &AcceptanceRow::of(acceptance))?;
    tables.acceptances.insert(key, row.as_slice())?;
    tables.records = tables.records.saturating_add(1);
    Ok(true)
}

pub(super) fn acceptance(
    transaction: &ReadTransaction,
    key: (&str, &str, &str),
) -> Result<Option<Acceptance>, Fault> {
    let Some(row) = transaction.open_table(ACCEPTANCES)?.get(key)? else { return Ok(None) };
    let row: AcceptanceRow = decode("acceptances", key, row.value())?;
    Ok(Some(row.acceptance(key)))
}

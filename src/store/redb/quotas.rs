//! Parts of quotas that are set aside, and requests that consume once.
//!
//! One writer does everything here, so what is read in a transaction is still so when it is written.

use redb::{ReadTransaction, ReadableTable};
use uuid::Uuid;

use super::fault::Fault;
use super::tables::{CLAIMS, Tables, WINDOWS};
use crate::domain::amount::Amount;
use crate::domain::time::Timestamp;
use crate::store::{Claim, Claimed, Take, Taken};

/// The most rows of a kind that one sweep forgets, so that nobody waits long behind it.
pub(super) const SWEPT: usize = 10_000;

pub(super) fn take(tables: &mut Tables<'_>, take: &Take) -> Result<Taken, Fault> {
    let (counter, begin) = (take.counter.as_str(), take.window.as_nanosecond());
    let window = (counter, begin);
    let before = tables.windows.get(window)?.map(|row| row.value());
    let aside = Amount::of_millionths(before.map_or(0, |(aside, _)| aside));
    let lease = take.lease.as_u128();
    // A lease that exists was taken by the same call, whose answer was lost.
    let existing = tables.leases.get(lease)?.map(|row| row.value().2);
    if let Some(amount) = existing {
        let granted = Amount::of_millionths(amount);
        return Ok(Taken { granted, remaining: left(take.limit, aside) });
    }
    let available = left(take.limit, aside);
    let is_of_use = available >= take.least;
    let granted = if is_of_use { take.want.min(available).max(Amount::ZERO) } else { Amount::ZERO };
    let aside = aside + granted;
    if granted.is_positive() {
        let ends = take.ends.as_nanosecond();
        let row = (counter, begin, granted.millionths(), ends, take.gate.as_str());
        tables.leases.insert(lease, row)?;
        tables.lease_ends.insert((ends, lease), ())?;
        // Of two that do not agree when a window ends, the later one is believed: a window that is
        // forgotten early would be granted twice.
        let ends = before.map_or(ends, |(_, known)| known.max(ends));
        if let Some((_, known)) = before.filter(|(_, known)| *known != ends) {
            tables.window_ends.remove((known, counter, begin))?;
        }
        tables.windows.insert(window, (aside.millionths(), ends))?;
        tables.window_ends.insert((ends, counter, begin), ())?;
    }
    Ok(Taken { granted, remaining: left(take.limit, aside) })
}

/// What a look finds, which sets nothing aside.
pub(super) fn look(transaction: &ReadTransaction, take: &Take) -> Result<Taken, Fault> {
    let windows = transaction.open_table(WINDOWS)?;
    let row = windows.get((take.counter.as_str(), take.window.as_nanosecond()))?;
    let aside = Amount::of_millionths(row.map_or(0, |row| row.value().0));
    Ok(Taken { granted: Amount::ZERO, remaining: left(take.limit, aside) })
}

fn left(limit: Amount, aside: Amount) -> Amount {
    (limit - aside).max(Amount::ZERO)
}

pub(super) fn keep(tables: &mut Tables<'_>, lease: Uuid, kept: Amount) -> Result<(), Fault> {
    let lease = lease.as_u128();
    let Some((counter, begin, leased, ends, gate)) = tables.leases.get(lease)?.map(|row| {
        let (counter, begin, leased, ends, gate) = row.value();
        (counter.to_owned(), begin, leased, ends, gate.to_owned())
    }) else {
        return Ok(());
    };
    let (kept, leased) = (kept.max(Amount::ZERO), Amount::of_millionths(leased));
    if kept >= leased {
        return Ok(());
    }
    let row = (counter.as_str(), begin, kept.millionths(), ends, gate.as_str());
    tables.leases.insert(lease, row)?;
    credit(tables, (&counter, begin), leased - kept)
}

pub(super) fn give_back(tables: &mut Tables<'_>, lease: Uuid, amount: Amount) -> Result<(), Fault> {
    let lease = lease.as_u128();
    let Some((counter, begin, leased, ends)) = tables.leases.remove(lease)?.map(|row| {
        let (counter, begin, leased, ends, _) = row.value();
        (counter.to_owned(), begin, leased, ends)
    }) else {
        return Ok(());
    };
    tables.lease_ends.remove((ends, lease))?;
    credit(tables, (&counter, begin), amount.min(Amount::of_millionths(leased)).max(Amount::ZERO))
}

/// Puts what was set aside back into its window, if that is still known.
fn credit(tables: &mut Tables<'_>, window: (&str, i128), back: Amount) -> Result<(), Fault> {
    let Some((aside, ends)) = tables.windows.get(window)?.map(|row| row.value()) else { return Ok(()) };
    let aside = (Amount::of_millionths(aside) - back).max(Amount::ZERO);
    tables.windows.insert(window, (aside.millionths(), ends))?;
    Ok(())
}

pub(super) fn claimed(transaction: &ReadTransaction, request: &str) -> Result<Option<[u8; 32]>, Fault> {
    Ok(transaction.open_table(CLAIMS)?.get(request)?.map(|row| *row.value().0))
}

pub(super) fn claim(tables: &mut Tables<'_>, claim: &Claim) -> Result<Claimed, Fault> {
    let request = claim.request.as_str();
    if let Some(row) = tables.claims.get(request)? {
        return Ok(Claimed::Before(*row.value().0));
    }
    let expires = claim.expires.as_nanosecond();
    tables.claims.insert(request, (&claim.question, expires))?;
    tables.claim_ends.insert((expires, request), ())?;
    Ok(Claimed::First)
}

/// Forgets what ended at `now` or before, [`SWEPT`] of each kind at most.
pub(super) fn sweep(tables: &mut Tables<'_>, now: Timestamp) -> Result<(), Fault> {
    // The least key of what ends after `now`.
    let after = now.as_nanosecond().saturating_add(1);
    for (ends, counter, begin) in
        first(&tables.window_ends, (after, "", i128::MIN), |(ends, counter, begin)| {
            (ends, counter.to_owned(), begin)
        })?
    {
        tables.windows.remove((counter.as_str(), begin))?;
        tables.window_ends.remove((ends, counter.as_str(), begin))?;
    }
    for (ends, lease) in first(&tables.lease_ends, (after, 0), |key| key)? {
        tables.leases.remove(lease)?;
        tables.lease_ends.remove((ends, lease))?;
    }
    for (ends, request) in
        first(&tables.claim_ends, (after, ""), |(ends, request)| (ends, request.to_owned()))?
    {
        tables.claims.remove(request.as_str())?;
        tables.claim_ends.remove((ends, request.as_str()))?;
    }
    Ok(())
}

/// The first [`SWEPT`] keys below a key.
fn first<K: redb::Key + 'static, T>(
    ends: &impl ReadableTable<K, ()>,
    below: K::SelfType<'_>,
    owned: impl Fn(K::SelfType<'_>) -> T,
) -> Result<Vec<T>, Fault> {
    let mut keys = Vec::new();
    for entry in ends.range(..below)?.take(SWEPT) {
        keys.push(owned(entry?.0.value()));
    }
    Ok(keys)
}

//! What was used, added up by key.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable};

use super::fault::Fault;
use super::rows::time;
use super::tables::{Tables, USAGE};
use crate::domain::amount::Amount;
use crate::store::{UsageBatch, UsageFilter, UsageKey, UsageRow};

/// A key of the table, borrowed.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, i128);

pub(super) fn add(tables: &mut Tables<'_>, batch: &UsageBatch) -> Result<(), Fault> {
    let boot = (batch.gate.as_str(), batch.boot.as_u128());
    let last = tables.batches.get(boot)?.map_or(0, |last| last.value());
    if batch.sequence <= last {
        return Ok(());
    }
    tables.batches.insert(boot, batch.sequence)?;
    for row in &batch.rows {
        let key = stored(&row.key);
        let before = Amount::of_millionths(tables.usage.get(key)?.map_or(0, |amount| amount.value()));
        tables.usage.insert(key, (before + row.amount).millionths())?;
    }
    Ok(())
}

pub(super) fn read(
    transaction: &ReadTransaction,
    filter: &UsageFilter,
    after: Option<&UsageKey>,
    limit: usize,
) -> Result<Vec<UsageRow>, Fault> {
    let usage = transaction.open_table(USAGE)?;
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(stored(key)));
    let mut rows = Vec::new();
    for entry in usage.range::<Key<'_>>((from, Bound::Unbounded))? {
        if rows.len() >= limit {
            break;
        }
        let (key, amount) = entry?;
        if lets_through(filter, &key.value()) {
            rows.push(UsageRow {
                key: read_key(key.value())?,
                amount: Amount::of_millionths(amount.value()),
            });
        }
    }
    Ok(rows)
}

fn lets_through(filter: &UsageFilter, key: &Key<'_>) -> bool {
    let (issuer, license, assignee, user, project, metric, hour) = *key;
    let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
    same(&filter.issuer, issuer)
        && same(&filter.license, license)
        && same(&filter.assignee, assignee)
        && same(&filter.user, user)
        && same(&filter.project, project)
        && same(&filter.metric, metric)
        && filter.from.is_none_or(|from| from.as_nanosecond() <= hour)
        && filter.until.is_none_or(|until| hour < until.as_nanosecond())
}

fn stored(key: &UsageKey) -> Key<'_> {
    let UsageKey { issuer, license, assignee, user, project, metric, hour } = key;
    (issuer, license, assignee, user, project, metric, hour.as_nanosecond())
}

fn read_key(key: Key<'_>) -> Result<UsageKey, Fault> {
    let (issuer, license, assignee, user, project, metric, hour) = key;
    Ok(UsageKey {
        issuer: issuer.to_owned(),
        license: license.to_owned(),
        assignee: assignee.to_owned(),
        user: user.to_owned(),
        project: project.to_owned(),
        metric: metric.to_owned(),
        hour: time("usage", key, hour)?,
    })
}

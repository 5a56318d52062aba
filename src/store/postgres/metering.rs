//! Usage: added up by license, user, metric and hour, once for each batch; and what has ended,
//! which is forgotten.
//!
//! Refuses a batch that was accepted before, and to hold many rows at once while it forgets.

use std::borrow::Cow;

use deadpool_postgres::tokio_postgres::Row;

use super::columns::{amount, count, digits, micros, moment, stored, text};
use super::connector::Session;
use super::faults::Fault;
use super::question::Question;
use crate::domain::time::Timestamp;
use crate::store::{KEPT, UsageBatch, UsageFilter, UsageKey, UsageRow};

// In the order of the keys, so that two batches never wait for each other; and each key once, since
// one statement cannot add to a row twice.
const ADD: &str = "
    WITH fresh AS (
        INSERT INTO tollgate_usage_batch AS b (gate, boot, sequence) VALUES ($1, $2, $3)
        ON CONFLICT (gate, boot) DO UPDATE SET sequence = EXCLUDED.sequence
            WHERE b.sequence < EXCLUDED.sequence
        RETURNING sequence
    )
    INSERT INTO tollgate_usage AS u (issuer, license, assignee, user_id, project, metric, hour, amount)
    SELECT r.issuer, r.license, r.assignee, r.user_id, r.project, r.metric, r.hour, sum(r.amount::numeric)
    FROM unnest($4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[],
        $11::text[]) AS r (issuer, license, assignee, user_id, project, metric, hour, amount)
    WHERE EXISTS (SELECT 1 FROM fresh)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
    ORDER BY 1, 2, 3, 4, 5, 6, 7
    ON CONFLICT (issuer, license, assignee, user_id, project, metric, hour)
        DO UPDATE SET amount = u.amount + EXCLUDED.amount";

const USAGE: &str = "
    SELECT issuer, license, assignee, user_id, project, metric, hour, amount::text AS amount
    FROM tollgate_usage
    WHERE ($1::text IS NULL OR issuer = $1) AND ($2::text IS NULL OR license = $2)
        AND ($3::text IS NULL OR assignee = $3) AND ($4::text IS NULL OR user_id = $4)
        AND ($5::text IS NULL OR project = $5) AND ($6::text IS NULL OR metric = $6)
        AND ($7::bigint IS NULL OR hour >= $7) AND ($8::bigint IS NULL OR hour < $8)
        AND ($9::text IS NULL OR
            (issuer, license, assignee, user_id, project, metric, hour) > ($9, $10, $11, $12, $13, $14, $15))
    ORDER BY issuer, license, assignee, user_id, project, metric, hour
    LIMIT $16";

impl Question for UsageBatch {
    type Answer = ();
    // Its number tells that it was accepted.
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<(), Fault> {
        let statement = session.prepare_cached(ADD).await?;
        let texts = |of: fn(&UsageKey) -> &str| -> Vec<Cow<'_, str>> {
            self.rows.iter().map(|row| stored(of(&row.key))).collect()
        };
        let hours: Vec<i64> = self.rows.iter().map(|row| micros(row.key.hour)).collect();
        let amounts: Vec<String> = self.rows.iter().map(|row| digits(row.amount)).collect();
        session
            .execute(
                &statement,
                &[
                    &stored(&self.gate),
                    &self.boot,
                    &count(self.sequence),
                    &texts(|key| &key.issuer),
                    &texts(|key| &key.license),
                    &texts(|key| &key.assignee),
                    &texts(|key| &key.user),
                    &texts(|key| &key.project),
                    &texts(|key| &key.metric),
                    &hours,
                    &amounts,
                ],
            )
            .await?;
        Ok(())
    }
}

/// Usage by key.
pub(super) struct Usage<'a> {
    pub(super) filter: &'a UsageFilter,
    pub(super) after: Option<&'a UsageKey>,
    pub(super) limit: u32,
}

impl Question for Usage<'_> {
    type Answer = Vec<UsageRow>;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Vec<UsageRow>, Fault> {
        let statement = session.prepare_cached(USAGE).await?;
        let UsageFilter { issuer, license, assignee, user, project, metric, from, until } = self.filter;
        let wanted = |value: &'_ Option<String>| value.as_deref().map(|text| stored(text).into_owned());
        let after = |of: fn(&UsageKey) -> &str| self.after.map(|key| stored(of(key)));
        let rows = session
            .query(
                &statement,
                &[
                    &wanted(issuer),
                    &wanted(license),
                    &wanted(assignee),
                    &wanted(user),
                    &wanted(project),
                    &wanted(metric),
                    &from.map(micros),
                    &until.map(micros),
                    &after(|key| &key.issuer),
                    &after(|key| &key.license),
                    &after(|key| &key.assignee),
                    &after(|key| &key.user),
                    &after(|key| &key.project),
                    &after(|key| &key.metric),
                    &self.after.map(|key| micros(key.hour)),
                    &i64::from(self.limit),
                ],
            )
            .await?;
        rows.iter().map(usage_row).collect()
    }
}

fn usage_row(row: &Row) -> Result<UsageRow, Fault> {
    let key = UsageKey {
        issuer: text(row, "issuer")?,
        license: text(row, "license")?,
        assignee: text(row, "assignee")?,
        user: text(row, "user_id")?,
        project: text(row, "project")?,
        metric: text(row, "metric")?,
        hour: moment(row, "hour")?,
    };
    Ok(UsageRow { key, amount: amount(row, "amount")? })
}

/// Forgets a bounded part of what ended, leases before the windows that they count in.
pub(super) struct Forget {
    pub(super) table: Forgotten,
    pub(super) before: Timestamp,
}

/// What is forgotten.
#[derive(Clone, Copy)]
pub(super) enum Forgotten {
    Leases,
    Windows,
    Claims,
}

impl Forget {
    /// How many rows one statement forgets.
    pub(super) const AT_ONCE: u64 = 1000;
}

impl Forgotten {
    // Rows that another gate forgets at this moment are skipped, not waited for. By the database's clock too:
    // a gate whose clock is ahead must not end the windows that others count in.
    fn statement(self) -> String {
        let (table, key, ends) = match self {
            Self::Leases => ("tollgate_lease", "lease", "ends"),
            Self::Windows => ("tollgate_quota", "counter, window_start", "ends"),
            Self::Claims => ("tollgate_claim", "request", "expires"),
        };
        format!(
            "DELETE FROM {table} WHERE ({key}) IN (
                SELECT {key} FROM {table}
                WHERE {ends} < LEAST($1, (EXTRACT(EPOCH FROM now()) * 1000000)::bigint - $2)
                ORDER BY {ends} LIMIT {} FOR UPDATE SKIP LOCKED)",
            Forget::AT_ONCE
        )
    }
}

impl Question for Forget {
    type Answer = u64;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<u64, Fault> {
        let statement = session.prepare_cached(&self.table.statement()).await?;
        let kept = i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        Ok(session.execute(&statement, &[&micros(self.before), &kept]).await?)
    }
}

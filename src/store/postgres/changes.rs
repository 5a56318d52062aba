//! Changes of standings, and what changed: one after the other, in the order of their revisions.
//!
//! Refuses to number a change before it holds the one row that numbers all of them, so that nobody
//! sees a revision before the one below it.

use deadpool_postgres::tokio_postgres::Row;
use jiff::SignedDuration;

use super::columns::{column, count, counted, micros, moment, stored, text};
use super::connector::Session;
use super::faults::Fault;
use super::question::Question;
use crate::domain::standing::{Standing, Status, Target, Which};
use crate::store::{Change, Changed, Feed};

const LOCK: &str = "SELECT revision FROM tollgate_meta FOR UPDATE";

const STANDING: &str = "SELECT * FROM tollgate_standing WHERE issuer = $1 AND kind = $2 AND id = $3";

const CHANGE: &str = "
    WITH next AS (
        UPDATE tollgate_meta SET revision = revision + 1 RETURNING revision
    ), changed AS (
        INSERT INTO tollgate_standing (issuer, kind, id, status, reason, actor, since, revision)
        SELECT $1, $2, $3, $4, $5, $6, $7, next.revision FROM next
        ON CONFLICT (issuer, kind, id) DO UPDATE SET
            status = EXCLUDED.status, reason = EXCLUDED.reason, actor = EXCLUDED.actor,
            since = EXCLUDED.since, revision = EXCLUDED.revision
        RETURNING revision
    )
    SELECT revision, pg_notify('tollgate', '') FROM changed";

// One statement, hence one snapshot: no change is missing below the revision that is told. The clock
// is read by the server that answers.
const FEED: &str = "
    SELECT m.epoch, m.revision AS last, m.records, s.*,
        (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint AS clock,
        current_setting('transaction_read_only') = 'on' AS demoted
    FROM tollgate_meta AS m
    LEFT JOIN (
        SELECT * FROM tollgate_standing WHERE revision > $1 ORDER BY revision LIMIT $2
    ) AS s ON true
    ORDER BY s.revision";

impl Question for Change {
    type Answer = Changed;
    // A second try would find its own change, and say that the target stands so already.
    const REPEATABLE: bool = false;

    async fn ask(&self, session: &mut Session) -> Result<Changed, Fault> {
        let Standing { target, status, reason, actor, since, .. } = &self.standing;
        let key = [&target.issuer, target.which.kind(), target.which.id()].map(stored);
        let [issuer, kind, id] = &key;
        let transaction = session.transaction().await?;
        // Each statement sees what was committed before it began: the lock comes first, alone.
        let lock = transaction.prepare_cached(LOCK).await?;
        transaction.query_one(&lock, &[]).await?;
        let read = transaction.prepare_cached(STANDING).await?;
        let stands = transaction.query_opt(&read, &[issuer, kind, id]).await?;
        let stands = stands.as_ref().map(standing).transpose()?;
        if !self.from.contains(&stands.as_ref().map_or(Status::Valid, |standing| standing.status)) {
            transaction.rollback().await?;
            return Ok(stands.map_or(Changed::Unknown, Changed::Refused));
        }
        let write = transaction.prepare_cached(CHANGE).await?;
        let row = transaction
            .query_one(
                &write,
                &[issuer, kind, id, &status.as_str(), &stored(reason), &stored(actor), &micros(*since)],
            )
            .await?;
        let revision = counted(&row, "revision")?;
        transaction.commit().await?;
        Ok(Changed::Applied(revision))
    }
}

/// What changed after a revision.
pub(super) struct FeedAfter {
    pub(super) after: u64,
    pub(super) limit: u32,
}

impl Question for FeedAfter {
    type Answer = Feed;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Feed, Fault> {
        let statement = session.prepare_cached(FEED).await?;
        let rows = session.query(&statement, &[&count(self.after), &i64::from(self.limit)]).await?;
        let first = rows.first().ok_or_else(|| Fault::damaged("`tollgate_meta` is empty"))?;
        // A standby knows less than was acknowledged; some services make one of a primary without
        // ending its connections.
        if column(first, "demoted")? {
            return Err(Fault::demoted());
        }
        let changed = rows.iter().filter(|row| !matches!(row.try_get("revision"), Ok(None::<i64>)));
        Ok(Feed {
            epoch: column(first, "epoch")?,
            revision: counted(first, "last")?,
            records: counted(first, "records")?,
            time: moment(first, "clock")?,
            age: SignedDuration::ZERO,
            standings: changed.map(standing).collect::<Result<_, _>>()?,
        })
    }
}

fn standing(row: &Row) -> Result<Standing, Fault> {
    let (kind, id, status) = (text(row, "kind")?, text(row, "id")?, text(row, "status")?);
    let which = Which::of(&kind, &id).ok_or_else(|| Fault::damaged(format!("unknown kind `{kind}`")))?;
    let status =
        Status::named(&status).ok_or_else(|| Fault::damaged(format!("unknown status `{status}`")))?;
    Ok(Standing {
        target: Target { issuer: text(row, "issuer")?, which },
        status,
        reason: text(row, "reason")?,
        actor: text(row, "actor")?,
        since: moment(row, "since")?,
        revision: counted(row, "revision")?,
    })
}

//! Parts of quotas that are set aside and given back, and requests that are claimed once.
//!
//! Refuses to set aside more than the limit, whatever happens at the same time: taking and giving
//! back are one statement each, and each locks the row that counts.

use super::columns::{amount, digits, hash, micros, stored};
use super::connector::Session;
use super::faults::Fault;
use super::question::Question;
use crate::domain::amount::Amount;
use crate::store::{Claim, Claimed, StoreError, Take, Taken};
use uuid::Uuid;

// The same lease again is answered as before. Should both run at once, the second fails on the key of
// the lease, is undone, and finds the first when it is repeated; or it is granted nothing, and looks for it.
const TAKE: &str = "
    WITH held AS (
        SELECT amount FROM tollgate_lease WHERE lease = $4
    ), counted AS (
        INSERT INTO tollgate_quota AS q (counter, window_start, ends, granted, last_grant)
        SELECT $1, $2, $3, share.amount, share.amount
        FROM (SELECT CASE WHEN $7::text::numeric >= $8::text::numeric
            THEN GREATEST(0, LEAST($6::text::numeric, $7::text::numeric)) ELSE 0 END AS amount) AS share
        WHERE NOT EXISTS (SELECT 1 FROM held)
        ON CONFLICT (counter, window_start) DO UPDATE SET
            ends = GREATEST(q.ends, EXCLUDED.ends),
            last_grant = CASE WHEN $7::text::numeric - q.granted >= $8::text::numeric
                THEN GREATEST(0, LEAST($6::text::numeric, $7::text::numeric - q.granted)) ELSE 0 END,
            granted = q.granted + CASE WHEN $7::text::numeric - q.granted >= $8::text::numeric
                THEN GREATEST(0, LEAST($6::text::numeric, $7::text::numeric - q.granted)) ELSE 0 END
        RETURNING granted, last_grant
    ), leased AS (
        INSERT INTO tollgate_lease (lease, counter, window_start, ends, gate, amount)
        SELECT $4, $1, $2, $3, $5, last_grant FROM counted WHERE last_grant > 0
    )
    SELECT COALESCE((SELECT amount FROM held), (SELECT last_grant FROM counted))::text AS granted,
        GREATEST(0, $7::text::numeric - COALESCE(
            (SELECT granted FROM counted),
            (SELECT granted FROM tollgate_quota WHERE counter = $1 AND window_start = $2),
            0
        ))::text AS remaining";

const HELD: &str = "SELECT amount::text AS amount FROM tollgate_lease WHERE lease = $1";

const LOOK: &str = "
    SELECT GREATEST(0, $3::text::numeric - COALESCE(
        (SELECT granted FROM tollgate_quota WHERE counter = $1 AND window_start = $2), 0
    ))::text AS remaining";

const KEEP: &str = "
    WITH had AS (
        SELECT lease, amount FROM tollgate_lease WHERE lease = $1 FOR UPDATE
    ), kept AS (
        UPDATE tollgate_lease AS l SET amount = GREATEST(0, $2::text::numeric)
        FROM had
        WHERE l.lease = had.lease AND had.amount > GREATEST(0, $2::text::numeric)
        RETURNING l.counter, l.window_start, had.amount - l.amount AS back
    )
    UPDATE tollgate_quota AS q SET granted = GREATEST(0, q.granted - kept.back)
    FROM kept
    WHERE q.counter = kept.counter AND q.window_start = kept.window_start";

const GIVE_BACK: &str = "
    WITH ended AS (
        DELETE FROM tollgate_lease WHERE lease = $1 RETURNING counter, window_start, amount
    )
    UPDATE tollgate_quota AS q
    SET granted = GREATEST(0, q.granted - GREATEST(0, LEAST($2::text::numeric, ended.amount)))
    FROM ended
    WHERE q.counter = ended.counter AND q.window_start = ended.window_start";

const CLAIM: &str = "
    INSERT INTO tollgate_claim (request, question, expires) VALUES ($1, $2, $3)
    ON CONFLICT (request) DO NOTHING";

const CLAIMED: &str = "SELECT question FROM tollgate_claim WHERE request = $1";

impl Question for Take {
    type Answer = Taken;
    // The lease tells that it is the same take.
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Taken, Fault> {
        let (counter, window) = (stored(&self.counter), micros(self.window));
        if !self.want.is_positive() {
            let statement = session.prepare_cached(LOOK).await?;
            let row = session.query_one(&statement, &[&counter, &window, &digits(self.limit)]).await?;
            return Ok(Taken { granted: Amount::ZERO, remaining: amount(&row, "remaining")? });
        }
        let statement = session.prepare_cached(TAKE).await?;
        let row = session
            .query_one(
                &statement,
                &[
                    &counter,
                    &window,
                    &micros(self.ends),
                    &self.lease,
                    &stored(&self.gate),
                    &digits(self.want),
                    &digits(self.limit),
                    &digits(self.least),
                ],
            )
            .await?;
        let mut granted = amount(&row, "granted")?;
        if !granted.is_positive() {
            // The same take may have run until a moment ago, unseen, and taken what is lacking now.
            let statement = session.prepare_cached(HELD).await?;
            let held = session.query_opt(&statement, &[&self.lease]).await?;
            granted = held.map(|row| amount(&row, "amount")).transpose()?.unwrap_or(granted);
        }
        Ok(Taken { granted, remaining: amount(&row, "remaining")? })
    }
}

/// A lease that goes on with less.
pub(super) struct Keep {
    pub(super) lease: Uuid,
    pub(super) kept: Amount,
}

impl Question for Keep {
    type Answer = ();
    // The second time it has no more.
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<(), Fault> {
        let statement = session.prepare_cached(KEEP).await?;
        session.execute(&statement, &[&self.lease, &digits(self.kept)]).await?;
        Ok(())
    }
}

/// What is left of a lease that ends.
pub(super) struct GiveBack {
    pub(super) lease: Uuid,
    pub(super) amount: Amount,
}

impl Question for GiveBack {
    type Answer = ();
    // The lease ends the first time, and the second finds none.
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<(), Fault> {
        let statement = session.prepare_cached(GIVE_BACK).await?;
        session.execute(&statement, &[&self.lease, &digits(self.amount)]).await?;
        Ok(())
    }
}

impl Question for Claim {
    type Answer = Claimed;
    // A second try would find its own claim.
    const REPEATABLE: bool = false;

    async fn ask(&self, session: &mut Session) -> Result<Claimed, Fault> {
        let statement = session.prepare_cached(CLAIM).await?;
        // A claim that was in the way may be forgotten before it is read.
        for _ in 0..3 {
            let (request, question) = (stored(&self.request), self.question.as_slice());
            let made = session.execute(&statement, &[&request, &question, &micros(self.expires)]).await?;
            if made == 1 {
                return Ok(Claimed::First);
            }
            if let Some(question) = ClaimOf(&self.request).ask(session).await? {
                return Ok(Claimed::Before(question));
            }
        }
        let words = "others claim and forget the same request all the time".to_owned();
        Err(Fault::before(StoreError::Unavailable(words)))
    }
}

/// What was claimed under a request.
pub(super) struct ClaimOf<'a>(pub(super) &'a str);

impl Question for ClaimOf<'_> {
    type Answer = Option<[u8; 32]>;
    const REPEATABLE: bool = true;

    async fn ask(&self, session: &mut Session) -> Result<Option<[u8; 32]>, Fault> {
        let statement = session.prepare_cached(CLAIMED).await?;
        let row = session.query_opt(&statement, &[&stored(self.0)]).await?;
        row.as_ref().map(|row| hash(row, "question")).transpose()
    }
}

//! Asking the database: with a connection of the pool, within the time, once more where that is safe.
//!
//! Refuses to ask twice what may have been done, and to wait longer than one statement may take:
//! the time counts from the call, whatever it is spent on.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use deadpool::managed::{Pool, PoolError};
use tokio::time::{Instant, sleep, timeout_at};

use super::connector::{Connector, Session};
use super::faults::Fault;
use crate::store::StoreError;

/// One question to the database.
pub(super) trait Question: Sync {
    /// What it answers.
    type Answer: Send;

    /// Whether asking twice, unknowingly, gives the same answer as asking once.
    const REPEATABLE: bool;

    /// Asks it on this connection.
    fn ask(&self, session: &mut Session) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// Asks, and asks again where the connection broke and that is safe.
pub(super) async fn ask<Q: Question>(pool: &Pool<Connector>, question: &Q) -> Result<Q::Answer, StoreError> {
    let deadline = Instant::now() + pool.manager().patience;
    let mut pauses = ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(20))
        .with_factor(4.0)
        .with_max_times(2)
        .build();
    loop {
        let fault = match attempt(pool, question, deadline).await {
            Ok(answer) => return Ok(answer),
            Err(fault) => fault,
        };
        match pauses.next() {
            Some(pause) if fault.allows_repeating(Q::REPEATABLE) && Instant::now() + pause < deadline => {
                sleep(pause).await;
            }
            _ => return Err(fault.error),
        }
    }
}

async fn attempt<Q: Question>(
    pool: &Pool<Connector>,
    question: &Q,
    deadline: Instant,
) -> Result<Q::Answer, Fault> {
    let Connector { database, patience, .. } = pool.manager();
    let mut session = match timeout_at(deadline, pool.get()).await {
        Ok(Ok(session)) => session,
        Ok(Err(PoolError::Closed)) => return Err(Fault::before(StoreError::Closed)),
        // What was configured worked when the store was opened, and may work again.
        Ok(Err(PoolError::Backend(StoreError::Unusable(words)))) => {
            return Err(Fault::before(StoreError::Unavailable(words)));
        }
        Ok(Err(PoolError::Backend(error))) => return Err(Fault::before(error)),
        Ok(Err(error)) => return Err(Fault::before(StoreError::Unavailable(error.to_string()))),
        Err(_) => {
            let words = format!("no connection to {database} was free within {patience:?}");
            return Err(Fault::before(StoreError::Unavailable(words)));
        }
    };
    // Also for the case that the caller stops listening.
    session.heard_out = false;
    match timeout_at(deadline, question.ask(&mut session)).await {
        Ok(Ok(answer)) => {
            session.heard_out = true;
            Ok(answer)
        }
        Ok(Err(fault)) => {
            session.heard_out = !fault.spoiled;
            Err(fault)
        }
        Err(_) => Err(Fault::unanswered(format!("{database} did not answer within {patience:?}"))),
    }
}

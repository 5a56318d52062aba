//! Asking the database: with a connection of the pool, within the time, once more where that is safe.
//!
//! Refuses to ask twice what may have been done, and to wait longer than one statement may take:
//! the time counts from the call, whatever it is spent on.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use deadpool::managed::{Object, Pool, PoolError};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connector::{Connector, Session};
use super::faults::Fault;
use crate::store::StoreError;

/// How many times as long as a caller waits a connection waits for an answer that nobody waits for.
const HEARD_OUT: u32 = 3;

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
    let session = match timeout_at(deadline, pool.get()).await {
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
    let words = || format!("{database} did not answer within {patience:?}");
    let mut asked = Asked::on(session, *patience);
    let answer = timeout_at(deadline, question.ask(asked.session()?)).await;
    let Ok(answer) = answer else { return Err(Fault::unanswered(words())) };
    asked.end(answer.as_ref().err().is_some_and(|fault| fault.spoiled));
    answer
}

/// A connection that is asked something. Where nobody waits for the answer any more, since the caller stopped
/// listening or the time is over, it keeps its place in the pool until the answer came, but not for long: what a
/// server is still busy with would otherwise add up there, one connection for each.
struct Asked {
    session: Option<Object<Connector>>,
    patience: Duration,
}

impl Asked {
    fn on(mut session: Object<Connector>, patience: Duration) -> Self {
        session.heard_out = false;
        Self { session: Some(session), patience }
    }

    fn session(&mut self) -> Result<&mut Session, Fault> {
        let closed = || Fault::before(StoreError::Closed);
        self.session.as_deref_mut().ok_or_else(closed)
    }

    /// The answer came; a connection that is spoiled is not used again.
    fn end(&mut self, spoiled: bool) {
        if let Some(mut session) = self.session.take() {
            session.heard_out = !spoiled;
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Without a runtime, everything ends.
        let (Some(mut session), Ok(runtime)) = (self.session.take(), Handle::try_current()) else { return };
        let longest = self.patience * HEARD_OUT;
        runtime.spawn(async move {
            // It comes behind whatever was asked before.
            let heard = timeout(longest, session.batch_execute("")).await;
            session.heard_out = matches!(heard, Ok(Ok(())));
        });
    }
}

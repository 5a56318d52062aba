//! Hears from the database that something changed, over a connection of its own.
//!
//! Refuses to promise anything: while the connection is down, nothing is heard, and whoever waits has
//! to look by itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use deadpool::managed::Pool;
use deadpool_postgres::tokio_postgres::AsyncMessage;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::connector::Connector;
use super::faults::words;
use crate::store::StoreError;

/// How often the server is asked whether it is still there: one that froze says nothing, like one
/// where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The task that listens; it ends with this.
pub(super) struct Listener(AbortHandle);

impl Listener {
    /// Listens, or tried to, when it returns. Everything heard wakes one waiter of `news`, or the next
    /// one to come.
    pub(super) async fn start(pool: Pool<Connector>, news: Arc<Notify>) -> Self {
        let (settled, settling) = oneshot::channel();
        let ear = Ear { pool, news, settled: Some(settled), may_have_missed: false };
        let listener = Self(tokio::spawn(ear.listen()).abort_handle());
        // An error says that the first try is over, as a word does.
        let _ = settling.await;
        listener
    }

    /// Stops listening.
    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Ear {
    pool: Pool<Connector>,
    news: Arc<Notify>,
    /// Whom to tell that the first try is over.
    settled: Option<oneshot::Sender<()>>,
    /// Whether something may have changed while nobody listened.
    may_have_missed: bool,
}

impl Ear {
    async fn listen(mut self) {
        let pauses = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times();
        let mut waits = pauses.build();
        let mut was_warned = false;
        loop {
            let mut listened = false;
            let error = self.hear(&mut listened).await;
            self.settled = None;
            self.may_have_missed = true;
            if listened {
                waits = pauses.build();
                was_warned = false;
            }
            // Once for each time that the database goes away, not for each try.
            if !std::mem::replace(&mut was_warned, true) {
                let words = "changes of the state are not announced, the gate looks for them by itself";
                tracing::warn!(%error, "{words}");
            }
            sleep(waits.next().unwrap_or(HEARTBEAT)).await;
        }
    }

    /// Listens until the connection ends, and says why it did.
    async fn hear(&mut self, listened: &mut bool) -> StoreError {
        let lost = |error| StoreError::Unavailable(words(&error));
        let connector = self.pool.manager();
        let (client, mut wire) = match connector.connect().await {
            Ok(connected) => connected,
            Err(error) => return error,
        };
        let answers = async {
            loop {
                match poll_fn(|context| wire.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(_))) => self.news.notify_one(),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return lost(error),
                    None => return StoreError::Unavailable("the connection ended".to_owned()),
                }
            }
        };
        let questions = async {
            let mut question = "LISTEN tollgate";
            loop {
                match timeout(connector.patience, client.batch_execute(question)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return lost(error),
                    Err(_) => return StoreError::Unavailable("the server does not answer".to_owned()),
                }
                if !std::mem::replace(listened, true) && self.may_have_missed {
                    self.news.notify_one();
                }
                self.settled = None;
                question = "";
                sleep(HEARTBEAT).await;
            }
        };
        tokio::select! { error = answers => error, error = questions => error }
    }
}

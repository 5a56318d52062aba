//! State in a PostgreSQL database, for many gates.
//!
//! Refuses to answer from a server that takes no writes, to wait longer than the configured time, and
//! to keep anything in memory: what is not in the database is not known.

mod address;
mod changes;
mod columns;
mod connector;
mod faults;
mod leases;
mod metering;
mod migrations;
mod notices;
mod question;
mod registrations;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::Pool;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Acceptance, Change, Changed, Claim, Claimed, Feed, LicenseFilter, Registered, Registration, StateStore,
    StoreError, Take, Taken, UsageBatch, UsageFilter, UsageKey, UsageRow,
};
use crate::config::Postgres;
use crate::domain::amount::Amount;
use crate::domain::time::Timestamp;

use connector::Connector;
use metering::{Forget, Forgotten};
use notices::Listener;
use question::{Question, ask};

/// How many statements one sweep takes for each table.
const SWEEPS: u32 = 10;

/// State in a PostgreSQL database.
pub struct PostgresStore {
    pool: Pool<Connector>,
    /// For the feed alone: what else waits must not make what is known grow stale.
    feeds: Pool<Connector>,
    news: Arc<Notify>,
    listener: Listener,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl PostgresStore {
    /// Connects, prepares the tables, and starts to listen. One of the connections is for listening, and where there
    /// are more than two, one for the feed.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when the database cannot be used as it is configured, or holds tables of
    /// a newer version; [`StoreError::Unavailable`] when it does not answer for now. The words name the
    /// server and the database, never a password.
    pub async fn open(config: &Postgres) -> Result<Self, StoreError> {
        let connector = Connector::new(config)?;
        let (patience, database) = (connector.patience, connector.database.clone());
        let unlistening = usize::try_from(config.connections).unwrap_or(usize::MAX).saturating_sub(1).max(1);
        let (pool, feeds) = match unlistening {
            1 => {
                let both = pool(connector, 1)?;
                (both.clone(), both)
            }
            more => (pool(connector, more - 1)?, pool(Connector::new(config)?, 1)?),
        };
        // Connecting to each server in turn takes no longer than this, plus what follows.
        let mut session = match tokio::time::timeout(patience * 2, pool.get()).await {
            Ok(Ok(session)) => session,
            Ok(Err(deadpool::managed::PoolError::Backend(error))) => return Err(error),
            Ok(Err(error)) => return Err(StoreError::Unavailable(error.to_string())),
            Err(_) => {
                let words = format!("cannot connect to {database}: no answer within {:?}", patience * 2);
                return Err(StoreError::Unavailable(words));
            }
        };
        migrations::migrate(&mut session, &database).await?;
        drop(session);
        let news = Arc::new(Notify::new());
        let listener = Listener::start(pool.clone(), Arc::clone(&news)).await;
        Ok(Self { pool, feeds, news, listener })
    }

    async fn ask<Q: Question>(&self, question: &Q) -> Result<Q::Answer, StoreError> {
        ask(&self.pool, question).await
    }
}

#[async_trait]
impl StateStore for PostgresStore {
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        self.ask(license).await
    }

    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError> {
        self.ask(&registrations::LicenseOf(id)).await
    }

    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError> {
        self.ask(&registrations::Licenses { filter, after, limit }).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        self.ask(change).await
    }

    /// The time is that of the database, which many gates share.
    async fn feed(&self, after: u64, limit: u32, _now: Timestamp) -> Result<Feed, StoreError> {
        ask(&self.feeds, &changes::FeedAfter { after, limit }).await
    }

    async fn news(&self) {
        self.news.notified().await;
    }

    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        self.ask(acceptance).await
    }

    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError> {
        self.ask(&registrations::AcceptanceOf { issuer, license, terms_hash }).await
    }

    async fn take(&self, take: &Take) -> Result<Taken, StoreError> {
        self.ask(take).await
    }

    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError> {
        self.ask(&leases::Keep { lease, kept }).await
    }

    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError> {
        self.ask(&leases::GiveBack { lease, amount }).await
    }

    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError> {
        self.ask(&leases::ClaimOf(request)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.ask(claim).await
    }

    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        self.ask(batch).await
    }

    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.ask(&metering::Usage { filter, after, limit }).await
    }

    /// In short statements, and not more than some: what is left goes with the next sweep.
    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        for table in [Forgotten::Leases, Forgotten::Windows, Forgotten::Claims] {
            for _ in 0..SWEEPS {
                if self.ask(&Forget { table, before: now }).await? < Forget::AT_ONCE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits for the answers that are on their way, as long as one may take.
    async fn close(&self) {
        self.listener.stop();
        let deadline = Instant::now() + self.pool.manager().patience;
        for pool in [&self.feeds, &self.pool] {
            pool.close();
            while pool.status().size > 0 && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn pool(connector: Connector, connections: usize) -> Result<Pool<Connector>, StoreError> {
    let pool = Pool::builder(connector).max_size(connections).build();
    pool.map_err(|error| StoreError::Unusable(error.to_string()))
}

//! Changes of standings as they come, beginning with all that are not VALID.

use std::sync::Arc;
use std::time::Duration;

use super::{AdminError, Administration, Operator};
use crate::domain::Clock;
use crate::domain::standing::{Standing, Status};
use crate::revocation::{Revocations, Watcher};
use crate::store::StateStore;

/// How many changes are read at once.
const PAGE: u32 = 1_000;

/// How often one that has nothing to tell looks whether it would hear of anything.
const LOOK: Duration = Duration::from_secs(1);

/// Follows the changes.
pub struct Changes {
    store: Arc<dyn StateStore>,
    revocations: Revocations,
    clock: Clock,
    issuer: Option<String>,
    watcher: Watcher,
    position: u64,
    /// As often the store was found to have gone back when it was read last.
    restarts: u64,
    caught_up: bool,
}

impl Administration {
    /// Every change from now on, after all that are not VALID.
    ///
    /// # Errors
    /// When it is not permitted.
    pub fn watch(&self, by: &Operator, issuer: Option<&str>) -> Result<Changes, AdminError> {
        self.judge_all(by, "WatchLicenses", issuer)?;
        Ok(Changes {
            store: Arc::clone(&self.store),
            revocations: self.state.revocations.clone(),
            clock: self.clock.clone(),
            issuer: issuer.map(str::to_owned),
            // Before the first read, so that no change in between is missed.
            watcher: self.state.revocations.watch_all(),
            position: 0,
            restarts: self.state.revocations.restarts(),
            caught_up: false,
        })
    }
}

impl Changes {
    /// The next changes: at least one, once there is one.
    ///
    /// # Errors
    /// When the store cannot be read, also where that only shows while there is nothing to tell.
    pub async fn next(&mut self) -> Result<Vec<Standing>, AdminError> {
        loop {
            let restarts = self.revocations.restarts();
            if restarts != self.restarts {
                // The store was restored: everything is told again.
                (self.restarts, self.position) = (restarts, 0);
            }
            let feed = self.store.feed(self.position, PAGE, self.clock.now()).await?;
            let last = feed.standings.last().map_or(feed.revision, |last| last.revision);
            // What is told is in force here.
            self.revocations.read_up_to(last, &self.clock).await?;
            let known = self.caught_up;
            self.caught_up |= last >= feed.revision;
            self.position = last;
            let concerns = |standing: &Standing| {
                let of_issuer = self.issuer.as_ref().is_none_or(|issuer| *issuer == standing.target.issuer);
                of_issuer && (known || standing.status != Status::Valid)
            };
            let changes: Vec<Standing> = feed.standings.into_iter().filter(concerns).collect();
            if !changes.is_empty() {
                return Ok(changes);
            }
            if last >= feed.revision {
                self.changed().await?;
            }
        }
    }

    /// Waits for a change, as long as this gate would hear of one.
    async fn changed(&self) -> Result<(), AdminError> {
        while tokio::time::timeout(LOOK, self.watcher.changed()).await.is_err() {
            let fresh = self.revocations.as_of(self.clock.now());
            fresh.map_err(|reason| AdminError::Stale(Box::new(reason)))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("position", &self.position).finish_non_exhaustive()
    }
}

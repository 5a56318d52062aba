//! Keeps a link to a hub: finds one that answers, listens to it, and goes on to the next when it falls
//! silent.
//!
//! Refuses to run all gates to the same hub at the same moment: each has an order of its own, and waits
//! a random time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use uuid::Uuid;

use super::Mark;
use super::address::Address;
use super::links::{Client, Link, STEADY, Standing, refusal};
use super::messages::{MAX_ANSWER, uuid};
use crate::proto::v1::{NewsRequest, NewsResponse};
use crate::store::StoreError;

/// A hub speaks every second. One that has been silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(3);

/// The most that is waited before the first try of another hub; twice as much for each further one.
const SPREAD: Duration = Duration::from_millis(200);

/// The most that is ever waited.
const LONGEST: Duration = Duration::from_secs(2);

/// Keeps a link.
pub(super) struct Keeper {
    hubs: Vec<Address>,
    standing: Arc<watch::Sender<Standing>>,
    /// The number of the last link that callers found not to work.
    left: watch::Receiver<u64>,
    marks: watch::Sender<Mark>,
    /// The most time given to a step.
    share: Duration,
    /// Links so far.
    count: u64,
}

impl Keeper {
    /// Looks for one of these hubs, in an order of its own.
    pub(super) fn new(
        mut hubs: Vec<Address>,
        standing: Arc<watch::Sender<Standing>>,
        left: watch::Receiver<u64>,
        marks: watch::Sender<Mark>,
        share: Duration,
    ) -> Self {
        let boot = Uuid::new_v4();
        hubs.sort_by_cached_key(|hub| -> [u8; 32] {
            Sha256::new().chain_update(boot).chain_update(&hub.name).finalize().into()
        });
        Self { hubs, standing, left, marks, share, count: 0 }
    }

    /// Keeps a link, for ever.
    pub(super) async fn keep(mut self) {
        let hubs = std::mem::take(&mut self.hubs);
        let mut failures: Vec<StoreError> = Vec::new();
        let mut pauses = 0;
        for hub in hubs.iter().cycle() {
            let (links, begun) = (self.count, Instant::now());
            let error = self.follow(hub).await;
            if self.count > links {
                tracing::warn!(%error, "the hub is lost, another is looked for");
                failures.clear();
                self.standing.send_replace(Standing::Looking);
                // It worked: waiting begins anew.
                if begun.elapsed() >= STEADY {
                    pauses = 0;
                }
            }
            failures.push(error);
            if failures.len() >= hubs.len() && self.count == links {
                // Once for each time that all are away, not for each try.
                let was_down = matches!(*self.standing.borrow(), Standing::Down(_));
                let down = joined(&failures);
                failures.clear();
                if !was_down {
                    tracing::warn!(error = %down, "no hub answers; they are tried again");
                }
                self.standing.send_replace(Standing::Down(down));
            }
            sleep(pause(pauses)).await;
            pauses += 1;
        }
    }

    /// Connects to a hub and listens to it; says why that ended.
    async fn follow(&mut self, hub: &Address) -> StoreError {
        let (client, mut news) = match self.link(hub).await {
            Ok(linked) => linked,
            Err(error) => return error,
        };
        self.count += 1;
        let number = self.count;
        tracing::info!(hub = hub.name, "linked to a hub");
        let heard = Arc::<AtomicU64>::default();
        let link = Link {
            number,
            hub: hub.name.as_str().into(),
            client,
            since: Instant::now(),
            heard: Arc::clone(&heard),
        };
        self.standing.send_replace(Standing::Up(link));
        let mut left = self.left.clone();
        loop {
            let message = tokio::select! {
                message = timeout(SILENCE, news.message()) => message,
                _ = left.wait_for(|left| *left >= number) => return hub.unavailable("its answers failed"),
            };
            match message {
                Ok(Ok(Some(message))) => {
                    heard.fetch_add(1, Relaxed);
                    self.hear(&message);
                }
                Ok(Ok(None)) => return hub.unavailable("it ended the stream of news"),
                Ok(Err(status)) => return refusal(&status, &hub.name),
                Err(_) => return hub.unavailable("it fell silent"),
            }
        }
    }

    /// A connection over which the first news have come.
    async fn link(&self, hub: &Address) -> Result<(Client, Streaming<NewsResponse>), StoreError> {
        let channel = hub.connect(self.share).await?;
        let mut client = Client::new(channel).max_decoding_message_size(MAX_ANSWER);
        let begin = async {
            let mut news = client.news(NewsRequest {}).await?.into_inner();
            Ok::<_, tonic::Status>((news.message().await?, news))
        };
        match timeout(self.share, begin).await {
            Ok(Ok((Some(message), news))) => {
                self.hear(&message);
                Ok((client, news))
            }
            Ok(Ok((None, _))) => Err(hub.unavailable("it has no news")),
            Ok(Err(status)) => Err(refusal(&status, &hub.name)),
            Err(_) => Err(hub.unavailable("it does not answer")),
        }
    }

    fn hear(&self, message: &NewsResponse) {
        // What is no UUID is looked at when it is read.
        let epoch = uuid("epoch", &message.epoch).unwrap_or_default();
        let mark = Mark { epoch, revision: message.revision, records: message.records };
        self.marks.send_replace(mark);
    }
}

/// What is wrong with all hubs; that they refuse, where every one does.
fn joined(failures: &[StoreError]) -> StoreError {
    let words = |error: &StoreError| match error {
        StoreError::Unavailable(words) | StoreError::Forbidden(words) | StoreError::Unusable(words) => {
            words.clone()
        }
        other => other.to_string(),
    };
    let all = failures.iter().map(words).collect::<Vec<_>>().join("; ");
    match failures.iter().all(|error| matches!(error, StoreError::Forbidden(_))) {
        true => StoreError::Forbidden(all),
        false => StoreError::Unavailable(all),
    }
}

/// A random time, up to one that grows with each.
fn pause(number: u32) -> Duration {
    let most = SPREAD.saturating_mul(1 << number.min(8)).min(LONGEST);
    // Without random numbers, all gates wait for as long.
    most.mul_f64(getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX)))
}

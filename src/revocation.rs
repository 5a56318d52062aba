//! What is revoked or suspended, kept in memory, and how fresh that knowledge is.
//!
//! Only what is not VALID is kept. Changes are taken in the order of their revisions and in no other
//! way, also those made at this gate. Refuses to forget a revocation because a store that was restored
//! does not know it, and to call itself fresh when the store was not read.

mod known;
mod watchers;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use jiff::SignedDuration;

use crate::config;
use crate::domain::standing::{Standing, Status};
use crate::domain::time::Timestamp;
use crate::domain::{Clock, Code, Reason};
use crate::store::{Change, Changed, Feed, StateStore, StoreError};

use known::Known;
use watchers::Watchers;
pub use watchers::{Concern, Watcher};

/// How often the store is read although it says nothing.
const EVERY: Duration = Duration::from_millis(500);

/// How many changes are read at once.
const PAGE: u32 = 10_000;

/// How often, and how long after each other, a change that was made is looked for.
const CATCHING_UP: u32 = 100;
const A_MOMENT: Duration = Duration::from_millis(10);

/// How long to wait after a read that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The license that a standing may concern: its issuer, its id, its key and its assignee.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its `iss`.
    pub issuer: &'a str,
    /// Its `jti`.
    pub license: &'a str,
    /// The `kid` of the key that signed it.
    pub kid: &'a str,
    /// Its `sub`.
    pub assignee: &'a str,
}

/// What a gate knows of revocations. Clones share it.
#[derive(Clone)]
pub struct Revocations(Arc<Shared>);

struct Shared {
    store: Arc<dyn StateStore>,
    known: RwLock<Known>,
    /// Nothing before the store was read.
    freshness: RwLock<Option<Freshness>>,
    /// One reader at a time, so that changes are taken in their order.
    reading: tokio::sync::Mutex<()>,
    watchers: Mutex<Watchers>,
    /// Who listens in on what the store says.
    ear: OnceLock<Ear>,
    /// An alarm that nobody has heard of: whatever reads may find that the store went back.
    alarm: Mutex<Option<String>>,
    max_staleness: SignedDuration,
    max_skew: SignedDuration,
}

/// How far what is known can be trusted.
#[derive(Clone, Copy, Debug)]
struct Freshness {
    /// When the store was read for what was last heard of it, by this gate's clock, or before that.
    as_of: Timestamp,
    /// The same moment, by a clock that nobody sets.
    instant: Instant,
    /// How far the store's clock was ahead then.
    ahead: SignedDuration,
}

impl Freshness {
    /// As an answer says it that was asked for when it `began`.
    fn of(feed: &Feed, began: Timestamp, instant: Instant) -> Self {
        Self {
            as_of: began.saturating_sub(feed.age.abs()).unwrap_or(Timestamp::MIN),
            instant: instant.checked_sub(feed.age.unsigned_abs()).unwrap_or(instant),
            ahead: feed.time.duration_since(began),
        }
    }

    /// What is known now, after an answer that was asked for when it `began`: no less than before, where a hub
    /// answers from what it heard longer ago. A clock that was set back is gone by all the same.
    fn after(self, before: Self, began: Timestamp) -> Self {
        let is_older = self.as_of < before.as_of && before.as_of <= began;
        if is_older { Self { ahead: self.ahead, ..before } } else { self }
    }
}

/// An answer of the store, for who listens in.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// The revision after which it was asked for.
    pub after: u64,
    /// What the store said.
    pub feed: &'a Feed,
    /// When it was asked, by this gate's clock.
    pub began: Timestamp,
    /// The same moment, by a clock that nobody sets.
    pub instant: Instant,
}

type Ear = Box<dyn Fn(Heard<'_>) + Send + Sync>;

/// How a read of the store went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// How many changes were new.
    pub changes: usize,
    /// The store was found to have gone back, or to be another: the alarm, in words. It is told once, to
    /// whom [`Revocations::follow`] tells.
    pub restored: Option<String>,
}

impl Revocations {
    /// Knows nothing yet, and denies until it was told: see [`Revocations::read`].
    pub fn new(store: Arc<dyn StateStore>, config: &config::State) -> Self {
        let signed = |duration: config::HumanDuration| {
            SignedDuration::try_from(duration.get()).unwrap_or(SignedDuration::MAX)
        };
        Self(Arc::new(Shared {
            store,
            known: RwLock::default(),
            freshness: RwLock::default(),
            reading: tokio::sync::Mutex::default(),
            watchers: Mutex::default(),
            ear: OnceLock::new(),
            alarm: Mutex::default(),
            max_staleness: signed(config.max_staleness),
            max_skew: signed(config.max_clock_skew),
        }))
    }

    /// Lets one listen in on every answer of the store, in its order. To be called before the first read, once.
    pub fn let_hear(&self, ear: impl Fn(Heard<'_>) + Send + Sync + 'static) {
        // A second one would hear nothing of what was said before.
        drop(self.0.ear.set(Box::new(ear)));
    }

    /// Everything that stands against a license; nothing where it is VALID.
    pub fn against(&self, subject: Subject<'_>) -> Vec<Arc<Standing>> {
        self.known().against(subject)
    }

    /// A reason for each standing against a license.
    pub fn reasons(&self, subject: Subject<'_>) -> Vec<Reason> {
        self.against(subject).iter().filter_map(|standing| reason(standing)).collect()
    }

    /// Until when everything that was acknowledged is known.
    ///
    /// # Errors
    /// The reason to deny, where that is too long ago, or clocks cannot be trusted.
    pub fn as_of(&self, now: Timestamp) -> Result<Timestamp, Reason> {
        let Some(Freshness { as_of, instant, ahead }) = self.freshness() else {
            return Err(Reason::new(Code::StateStale, "the state was not read since the gate started"));
        };
        let age = now.duration_since(as_of);
        let skew = self.0.max_skew;
        if age < -skew {
            let admin = format!("the clock says {now:.3}, and said {as_of:.3} before: it was set back");
            return Err(Reason::new(Code::ClockSuspect, admin));
        }
        if ahead.abs() > skew {
            let admin = format!(
                "the clock was {:#} apart from the time that the state knows; at most {skew:#} is allowed",
                ahead.abs()
            );
            return Err(Reason::new(Code::ClockSuspect, admin));
        }
        // Whatever the clock was set to meanwhile.
        let passed = SignedDuration::try_from(instant.elapsed()).unwrap_or(SignedDuration::MAX);
        if age.max(passed) > self.0.max_staleness {
            let limit = self.0.max_staleness;
            let admin = format!("the state was last read at {as_of:.3}, which is more than {limit:#} ago");
            return Err(Reason::new(Code::StateStale, admin));
        }
        Ok(as_of)
    }

    /// When the store was last read with success, however long ago.
    pub fn read_at(&self) -> Option<Timestamp> {
        self.freshness().map(|freshness| freshness.as_of)
    }

    /// Reads what changed since the last read.
    ///
    /// # Errors
    /// When the store cannot be read; what is known stays, and grows stale.
    pub async fn read(&self, clock: &Clock) -> Result<News, StoreError> {
        let _in_order = self.0.reading.lock().await;
        self.read_on(clock).await
    }

    async fn read_on(&self, clock: &Clock) -> Result<News, StoreError> {
        let (mut news, mut restored) = (News::default(), false);
        loop {
            let (began, instant) = (clock.now(), Instant::now());
            let (after, position) = (self.known().after(), self.known().position());
            let mut feed = self.0.store.feed(after, PAGE, began).await?;
            if let Some(alarm) = self.change(|known| known.restart_if_restored(&feed)) {
                self.raise(alarm);
                restored = true;
                continue;
            }
            feed.standings.retain(|standing| standing.revision > position);
            if let Some(ear) = self.0.ear.get() {
                ear(Heard { after: position, feed: &feed, began, instant });
            }
            let complete = self.take_in(&feed, &mut news);
            if complete {
                let mut freshness = self.0.freshness.write().unwrap_or_else(PoisonError::into_inner);
                let read = Freshness::of(&feed, began, instant);
                let before = freshness.filter(|_| !restored);
                *freshness = Some(before.map_or(read, |before| read.after(before, began)));
                return Ok(news);
            }
        }
    }

    /// Takes changes in, and wakes whom they concern. Says whether there are no more.
    fn take_in(&self, feed: &Feed, news: &mut News) -> bool {
        let complete = self.change(|known| known.take_in(feed));
        news.changes += feed.standings.len();
        let watchers = self.watchers();
        for standing in &feed.standings {
            watchers.wake(&standing.target);
        }
        complete
    }

    /// Makes a change, durable and known here when this returns, also where it was made before.
    ///
    /// # Errors
    /// When the store cannot be reached, before or after the change.
    pub async fn make(&self, change: &Change, clock: &Clock) -> Result<Changed, StoreError> {
        let before = self.known().position();
        let changed = self.0.store.change(change).await?;
        match &changed {
            Changed::Applied(revision) => self.catch_up(before, *revision, clock).await?,
            Changed::Refused(known) => self.read_up_to(known.revision, clock).await?,
            Changed::Unknown => {}
        }
        Ok(changed)
    }

    /// Reads until a revision is known that the store has given. Where as much was known before it was
    /// given, the store went back.
    async fn catch_up(&self, before: u64, revision: u64, clock: &Clock) -> Result<(), StoreError> {
        {
            let _in_order = self.0.reading.lock().await;
            if revision <= before
                && let Some(alarm) = self.change(|known| known.restart_from(before, revision))
            {
                self.raise(alarm);
            }
        }
        self.read_up_to(revision, clock).await
    }

    /// Reads until a revision is known that the store has given.
    ///
    /// # Errors
    /// When the store cannot be read, or does not tell of it for a while.
    pub async fn read_up_to(&self, revision: u64, clock: &Clock) -> Result<(), StoreError> {
        let is_known = || self.known().position() >= revision;
        let _in_order = self.0.reading.lock().await;
        for _ in 0..CATCHING_UP {
            if !is_known() {
                self.read_on(clock).await?;
            }
            if is_known() {
                return Ok(());
            }
            // Another hub than the one that made the change, which will hear of it in a moment.
            tokio::time::sleep(A_MOMENT).await;
        }
        Err(StoreError::Unavailable("the change was made, and the state does not tell of it yet".to_owned()))
    }

    /// Reads the store whenever it has news, and every half second, for ever. `tell` hears of every read.
    pub async fn follow(&self, clock: &Clock, tell: impl Fn(&Result<News, StoreError>)) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.0.store.news() => {}
            }
            if !self.follow_once(clock, &tell).await {
                // What cannot be read stays news.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Says whether it could be read.
    async fn follow_once(&self, clock: &Clock, tell: impl Fn(&Result<News, StoreError>)) -> bool {
        let read = self.read(clock).await.map(|news| News { restored: self.alarm().take(), ..news });
        tell(&read);
        read.is_ok()
    }

    /// How many licenses and acceptances the store had recorded when it was last read.
    pub fn records(&self) -> u64 {
        self.known().records()
    }

    /// How many standings are known that are not VALID.
    pub fn len(&self) -> usize {
        self.known().len()
    }

    /// Whether everything is VALID.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that is not VALID, of one issuer or of all.
    pub fn list(&self, issuer: Option<&str>) -> Vec<Arc<Standing>> {
        self.known().list(issuer)
    }

    /// Is woken when the standing of a license may have changed.
    pub fn watch(&self, subject: Subject<'_>) -> Watcher {
        Watcher::register(self.clone(), subject)
    }

    /// Is woken at every change.
    pub fn watch_all(&self) -> Watcher {
        Watcher::register_for_all(self.clone())
    }

    /// How often the store was found to have gone back, or to be another. Those who watch everything are
    /// woken when it was.
    pub fn restarts(&self) -> u64 {
        self.known().restarts()
    }

    fn raise(&self, alarm: String) {
        self.alarm().get_or_insert(alarm);
        self.watchers().wake_all();
    }

    fn freshness(&self) -> Option<Freshness> {
        *self.0.freshness.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alarm(&self) -> MutexGuard<'_, Option<String>> {
        self.0.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.known.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Revocations")
    }
}

/// What a standing means for a decision.
fn reason(standing: &Standing) -> Option<Reason> {
    let Standing { target, status, reason, actor, since, .. } = standing;
    let (code, verb) = match status {
        Status::Valid => return None,
        Status::Suspended => (Code::Suspended, "suspended"),
        Status::Revoked => (Code::Revoked, "revoked"),
    };
    Some(Reason::new(code, format!("{target}: {verb} at {since:.0} by `{actor}`: {reason}")))
}

#[cfg(test)]
mod tests;

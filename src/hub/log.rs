//! The feed of a hub: the latest standing of every target that ever changed, in memory, by revision.
//!
//! It is what the gate itself hears from its store, so a thousand members cost the store nothing. Refuses
//! to tell half of what a restored store has, and to call itself fresher than the store was read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use jiff::SignedDuration;
use tokio::sync::watch;
use uuid::Uuid;

use crate::domain::standing::{Standing, Target};
use crate::domain::time::Timestamp;
use crate::revocation::Heard;
use crate::store::Feed;

/// The most bytes of standings that are told at once, about.
const PAGE: usize = 1 << 20;

/// How far the feed goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The store's epoch.
    pub epoch: Uuid,
    /// The last revision.
    pub revision: u64,
    /// How many licenses and acceptances were recorded.
    pub records: u64,
}

/// What was heard from the store.
#[derive(Debug, Default)]
pub(super) struct Log {
    known: RwLock<Known>,
    grew: watch::Sender<Mark>,
}

#[derive(Debug, Default)]
struct Known {
    mark: Mark,
    by_revision: BTreeMap<u64, Arc<Standing>>,
    revisions: HashMap<Target, u64>,
    /// The last read after which nothing was lacking.
    read: Option<Read>,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    began: Timestamp,
    instant: Instant,
    /// The time that the store knew.
    time: Timestamp,
}

impl Log {
    /// Takes in what the store said.
    pub(super) fn take_in(&self, heard: Heard<'_>) {
        let mark = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.take_in(heard);
            known.read.is_some().then_some(known.mark)
        };
        if let Some(mark) = mark {
            self.grew.send_if_modified(|told| std::mem::replace(told, mark) != mark);
        }
    }

    pub(super) fn mark(&self) -> Mark {
        self.known.read().unwrap_or_else(PoisonError::into_inner).mark
    }

    /// How many wait for that.
    pub(super) fn listening(&self) -> usize {
        self.grew.receiver_count()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Mark> {
        self.grew.subscribe()
    }

    pub(super) fn was_read_after(&self, moment: Instant) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.read.is_some_and(|read| read.instant >= moment)
    }

    /// What changed after a revision; `None` before the store was read.
    pub(super) fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Option<Feed> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).feed(after, limit, now)
    }
}

impl Known {
    fn take_in(&mut self, Heard { after, feed, began, instant }: Heard<'_>) {
        // The gate reads from the beginning when it found that the store went back, however far that is by now.
        let restored = self.mark.epoch != feed.epoch || feed.revision < self.mark.revision || after == 0;
        if restored {
            *self = Self { mark: Mark { epoch: feed.epoch, ..Mark::default() }, ..Self::default() };
        }
        // What does not follow on what is known would leave a gap; the gate then reads from the beginning.
        if after != self.mark.revision {
            return;
        }
        for standing in &feed.standings {
            let revision = standing.revision;
            if let Some(before) = self.revisions.insert(standing.target.clone(), revision) {
                self.by_revision.remove(&before);
            }
            self.by_revision.insert(revision, Arc::new(standing.clone()));
            self.mark.revision = self.mark.revision.max(revision);
        }
        if feed.standings.last().is_none_or(|last| last.revision >= feed.revision) {
            self.mark.revision = self.mark.revision.max(feed.revision);
            self.mark.records = feed.records;
            self.read = Some(Read { began, instant, time: feed.time });
        }
    }

    fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Option<Feed> {
        let read = self.read?;
        // A clock that was set back does not make what is known fresher, nor does one that stood still.
        let elapsed = SignedDuration::try_from(read.instant.elapsed()).unwrap_or(SignedDuration::MAX);
        let age = elapsed.max(now.duration_since(read.began));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let small_enough = |standing: &&Arc<Standing>| {
            let fits = bytes < PAGE;
            bytes += size(standing);
            fits
        };
        let later = self.by_revision.range(after.saturating_add(1)..).map(|(_, standing)| standing);
        let page = later.take(limit).take_while(small_enough);
        Some(Feed {
            epoch: self.mark.epoch,
            revision: self.mark.revision,
            records: self.mark.records,
            time: read.time.saturating_add(age).unwrap_or(Timestamp::MAX),
            age,
            standings: page.map(|standing| Standing::clone(standing)).collect(),
        })
    }
}

/// What a standing takes in a message, about.
fn size(standing: &Standing) -> usize {
    let Standing { target, reason, actor, .. } = standing;
    64 + target.issuer.len() + target.which.id().len() + reason.len() + actor.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::standing::{Status, Which};

    const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);

    fn standing(id: &str, status: Status, revision: u64) -> Standing {
        Standing {
            target: Target { issuer: "i".into(), which: Which::License(id.into()) },
            status,
            reason: "r".into(),
            actor: "a".into(),
            since: NOW,
            revision,
        }
    }

    fn hear(log: &Log, epoch: u128, after: u64, revision: u64, standings: Vec<Standing>) {
        let epoch = Uuid::from_u128(epoch);
        let feed = Feed { epoch, revision, records: 1, time: NOW, age: SignedDuration::ZERO, standings };
        log.take_in(Heard { after, feed: &feed, began: NOW, instant: Instant::now() });
    }

    fn told(log: &Log, after: u64) -> Option<(u64, Vec<(u64, Status)>)> {
        let feed = log.feed(after, 99, NOW)?;
        Some((feed.revision, feed.standings.iter().map(|one| (one.revision, one.status)).collect()))
    }

    #[test]
    fn a_target_is_told_once_under_its_latest_revision() {
        let log = Log::default();
        assert_eq!(told(&log, 0), None, "the store was not read");
        hear(&log, 1, 0, 2, vec![standing("a", Status::Suspended, 1), standing("b", Status::Revoked, 2)]);
        hear(&log, 1, 2, 3, vec![standing("a", Status::Valid, 3)]);
        assert_eq!(told(&log, 0), Some((3, vec![(2, Status::Revoked), (3, Status::Valid)])));
        assert_eq!(told(&log, 2), Some((3, vec![(3, Status::Valid)])));
        assert_eq!(told(&log, u64::MAX), Some((3, vec![])));
    }

    #[test]
    fn a_restored_store_is_told_whole_or_not_at_all() {
        let log = Log::default();
        let mut news = log.subscribe();
        hear(&log, 1, 0, 5, vec![standing("a", Status::Revoked, 5)]);
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        // It went back: what is asked for after 5 does not tell what was before.
        hear(&log, 1, 5, 2, vec![]);
        assert_eq!(told(&log, 0), None);
        assert!(!news.has_changed().unwrap());
        hear(&log, 1, 0, 2, vec![standing("b", Status::Revoked, 1)]);
        assert_eq!(told(&log, 0), None, "a page of two");
        hear(&log, 1, 1, 2, vec![standing("c", Status::Revoked, 2)]);
        assert_eq!(told(&log, 0), Some((2, vec![(1, Status::Revoked), (2, Status::Revoked)])));
        assert!(news.has_changed().unwrap());
        // It went back again, and has as many changes as before.
        hear(&log, 1, 0, 2, vec![standing("b", Status::Revoked, 1), standing("d", Status::Suspended, 2)]);
        assert_eq!(told(&log, 1), Some((2, vec![(2, Status::Suspended)])));
        hear(&log, 2, 2, 0, vec![]);
        hear(&log, 2, 0, 0, vec![]);
        assert_eq!(told(&log, 0), Some((0, vec![])));
    }

    #[test]
    fn what_is_told_is_as_old_as_it_is() {
        let log = Log::default();
        hear(&log, 1, 0, 0, vec![]);
        let later = NOW + SignedDuration::from_secs(7);
        let feed = log.feed(0, 1, later).unwrap();
        assert_eq!((feed.age, feed.time), (SignedDuration::from_secs(7), later));
        // A clock that was set back.
        let feed = log.feed(0, 1, NOW - SignedDuration::from_secs(7)).unwrap();
        assert!(!feed.age.is_negative() && feed.time >= NOW);
    }

    #[test]
    fn a_page_is_bounded_in_bytes() {
        let log = Log::default();
        let reason = "r".repeat(1024);
        let large = |revision: u64| Standing {
            reason: reason.clone(),
            ..standing(&revision.to_string(), Status::Revoked, revision)
        };
        hear(&log, 1, 0, 3_000, (1..=3_000).map(large).collect());
        let (mut after, mut pages) = (0, 0);
        while after < 3_000 {
            let page = log.feed(after, u32::MAX, NOW).unwrap().standings;
            assert!(page.iter().map(size).sum::<usize>() <= PAGE + 2_000);
            assert_eq!(page[0].revision, after + 1);
            after = page.last().unwrap().revision;
            pages += 1;
        }
        assert!((3..6).contains(&pages), "{pages}");
    }
}

//! The standings that are not VALID, by issuer. Refuses changes out of their order.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Subject;
use crate::domain::standing::{Standing, Status, Which};
use crate::store::Feed;

type ById = HashMap<String, Arc<Standing>>;

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    epoch: Option<Uuid>,
    position: u64,
    /// The change at `position`.
    last: Option<Standing>,
    records: u64,
    /// How often the store was found to have gone back, or to be another.
    restarts: u64,
    issuers: HashMap<String, OfIssuer>,
}

#[derive(Debug, Default)]
struct OfIssuer {
    all: Option<Arc<Standing>>,
    licenses: ById,
    keys: ById,
    assignees: ById,
}

impl OfIssuer {
    fn parts(&self) -> [&ById; 3] {
        [&self.licenses, &self.keys, &self.assignees]
    }

    fn put(&mut self, standing: &Arc<Standing>) {
        let by_id = match &standing.target.which {
            Which::All => {
                put(&mut self.all, standing);
                return;
            }
            Which::License(_) => &mut self.licenses,
            Which::Key(_) => &mut self.keys,
            Which::Assignee(_) => &mut self.assignees,
        };
        let id = standing.target.which.id();
        let mut place = by_id.remove(id);
        put(&mut place, standing);
        if let Some(kept) = place {
            by_id.insert(id.to_owned(), kept);
        }
    }

    fn len(&self) -> usize {
        usize::from(self.all.is_some()) + self.parts().into_iter().map(HashMap::len).sum::<usize>()
    }

    fn list(&self) -> impl Iterator<Item = &Arc<Standing>> {
        self.all.iter().chain(self.parts().into_iter().flat_map(HashMap::values))
    }
}

/// Puts a standing in the place of another. What was revoked stays so, and a standing that comes from a
/// restored store does not undo a later one.
fn put(place: &mut Option<Arc<Standing>>, standing: &Arc<Standing>) {
    if let Some(known) = place {
        let earlier = standing.revision <= known.revision && standing.since <= known.since;
        if standing.status < known.status && (known.status == Status::Revoked || earlier) {
            return;
        }
    }
    *place = (standing.status != Status::Valid).then(|| Arc::clone(standing));
}

/// Whether a store has this change, or a later one of the same target in its place.
fn has(feed: &Feed, change: &Standing) -> bool {
    let complete = feed.standings.last().is_some_and(|last| last.revision >= feed.revision);
    match feed.standings.first() {
        Some(first) if first.revision <= change.revision => first == change,
        // It may be in a later page.
        Some(_) if !complete => true,
        _ => feed.standings.iter().any(|standing| standing.target == change.target),
    }
}

impl Known {
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// After which revision to read. The last change comes again: a store that went back, and has others
    /// since, is told by it. The very first does not: whoever knows nothing reads after 0 too.
    pub(super) fn after(&self) -> u64 {
        match self.position {
            0 | 1 => self.position,
            position => position - 1,
        }
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(super) fn len(&self) -> usize {
        self.issuers.values().map(OfIssuer::len).sum()
    }

    pub(super) fn against(&self, subject: Subject<'_>) -> Vec<Arc<Standing>> {
        let Some(of_issuer) = self.issuers.get(subject.issuer) else { return Vec::new() };
        let by_id = [
            of_issuer.licenses.get(subject.license),
            of_issuer.keys.get(subject.kid),
            of_issuer.assignees.get(subject.assignee),
        ];
        of_issuer.all.iter().chain(by_id.into_iter().flatten()).cloned().collect()
    }

    pub(super) fn list(&self, issuer: Option<&str>) -> Vec<Arc<Standing>> {
        let wanted = |name: &String| issuer.is_none_or(|issuer| issuer == name);
        let found = self.issuers.iter().filter(|(name, _)| wanted(name));
        let mut list: Vec<_> = found.flat_map(|(_, of_issuer)| of_issuer.list().cloned()).collect();
        list.sort_by_key(|standing| standing.revision);
        list
    }

    /// Begins anew where the store is another than before, or went back. What is known stays in force:
    /// a restored store may have lost a revocation that was acknowledged.
    pub(super) fn restart_if_restored(&mut self, feed: &Feed) -> Option<String> {
        let epoch = *self.epoch.get_or_insert(feed.epoch);
        let what = if epoch != feed.epoch {
            format!("the state is another than before: epoch {} instead of {epoch}", feed.epoch)
        } else if feed.revision < self.position {
            format!("the state went back from revision {} to {}", self.position, feed.revision)
        } else if self.position > 1 && self.last.as_ref().is_some_and(|last| !has(feed, last)) {
            format!("the state went back, and has other changes since: revision {} is another", self.position)
        } else {
            return None;
        };
        self.epoch = Some(feed.epoch);
        Some(self.restart(&what))
    }

    /// The same where a change got a revision that was seen before it was made, unless that was noticed
    /// meanwhile.
    pub(super) fn restart_from(&mut self, seen: u64, revision: u64) -> Option<String> {
        let what = format!("the state went back from revision {seen}: a new change is its {revision}");
        (self.position >= seen).then(|| self.restart(&what))
    }

    fn restart(&mut self, what: &str) -> String {
        self.position = 0;
        self.last = None;
        self.restarts += 1;
        format!("{what}; it is read afresh, and the {} revocations known here stay", self.len())
    }

    /// Takes changes in. Says whether there are no more.
    pub(super) fn take_in(&mut self, feed: &Feed) -> bool {
        for standing in &feed.standings {
            let issuer = self.issuers.entry(standing.target.issuer.clone()).or_default();
            issuer.put(&Arc::new(standing.clone()));
            self.position = self.position.max(standing.revision);
        }
        self.last = feed.standings.last().cloned().or(self.last.take());
        let complete = feed.standings.last().is_none_or(|last| last.revision >= feed.revision);
        if complete {
            self.position = self.position.max(feed.revision);
            self.records = feed.records;
        }
        complete
    }
}

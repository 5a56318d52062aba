//! Who is to be woken by a change: those whom it concerns, and nobody else.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Revocations, Subject};
use crate::domain::standing::{Target, Which};

/// What a watcher wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Concern {
    /// Every change.
    Everything,
    /// Changes of one target.
    Target(Target),
}

/// Those who wait, by what concerns them.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    next: u64,
    by_concern: HashMap<Concern, HashMap<u64, Arc<Notify>>>,
}

impl Watchers {
    fn add(&mut self, concerns: &[Concern], notify: &Arc<Notify>) -> u64 {
        self.next += 1;
        for concern in concerns {
            self.by_concern.entry(concern.clone()).or_default().insert(self.next, Arc::clone(notify));
        }
        self.next
    }

    fn remove(&mut self, concerns: &[Concern], id: u64) {
        for concern in concerns {
            if let Some(waiting) = self.by_concern.get_mut(concern) {
                waiting.remove(&id);
                if waiting.is_empty() {
                    self.by_concern.remove(concern);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_concern.is_empty()
    }

    /// Wakes those whom a change of this target concerns.
    pub(super) fn wake(&self, target: &Target) {
        self.wake_those(&Concern::Target(target.clone()));
        self.wake_all();
    }

    /// Wakes those whom everything concerns.
    pub(super) fn wake_all(&self) {
        self.wake_those(&Concern::Everything);
    }

    fn wake_those(&self, concern: &Concern) {
        for notify in self.by_concern.get(concern).into_iter().flat_map(HashMap::values) {
            // Remembered where nobody waits at this moment.
            notify.notify_one();
        }
    }
}

/// Waits for changes that concern it; hears of none once it is dropped.
pub struct Watcher {
    of: Revocations,
    id: u64,
    concerns: Vec<Concern>,
    notify: Arc<Notify>,
}

impl Watcher {
    pub(super) fn register(of: Revocations, subject: Subject<'_>) -> Self {
        let concern = |which| Concern::Target(Target { issuer: subject.issuer.to_owned(), which });
        let concerns = vec![
            concern(Which::All),
            concern(Which::License(subject.license.to_owned())),
            concern(Which::Key(subject.kid.to_owned())),
            concern(Which::Assignee(subject.assignee.to_owned())),
        ];
        Self::of(of, concerns)
    }

    pub(super) fn register_for_all(of: Revocations) -> Self {
        Self::of(of, vec![Concern::Everything])
    }

    fn of(of: Revocations, concerns: Vec<Concern>) -> Self {
        let notify = Arc::new(Notify::new());
        let id = of.watchers().add(&concerns, &notify);
        Self { of, id, concerns, notify }
    }

    /// Resolves when something changed since this last resolved, or since it was registered.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.of.watchers().remove(&self.concerns, self.id);
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("concerns", &self.concerns).finish_non_exhaustive()
    }
}

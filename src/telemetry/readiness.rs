//! Whether the gate can decide: a set of named conditions, all of which must hold.
//!
//! Refuses to be ready before every condition has been said to hold, and ever again once the
//! gate drains. Checks nothing itself: those who load keys and policies tell it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// How one condition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds.
    Ready,
    /// It holds, but something is wrong: a bad set of policies, say, while the old one is in force.
    Degraded,
    /// It does not hold.
    NotReady,
}

/// One condition, for `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// What it is about, such as `policies`.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// In words for the operator.
    pub detail: String,
}

/// The conditions of one gate. Clones share them.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    conditions: Mutex<Conditions>,
    ready: watch::Sender<bool>,
}

#[derive(Debug)]
struct Conditions {
    list: Vec<Condition>,
    draining: bool,
}

impl Readiness {
    /// Conditions of these names, none of which holds yet.
    pub fn new(names: &[&'static str]) -> Self {
        let waiting = |name: &&'static str| Condition {
            name,
            state: State::NotReady,
            detail: "not loaded yet".to_owned(),
        };
        let conditions = Conditions { list: names.iter().map(waiting).collect(), draining: false };
        Self(Arc::new(Shared { conditions: Mutex::new(conditions), ready: watch::Sender::new(false) }))
    }

    /// The condition holds.
    pub fn ready(&self, name: &'static str, detail: impl Into<String>) {
        self.say(name, State::Ready, detail.into());
    }

    /// The condition holds, but something is wrong; `detail` says what.
    pub fn degraded(&self, name: &'static str, detail: impl Into<String>) {
        self.say(name, State::Degraded, detail.into());
    }

    /// The condition does not hold; `detail` says why.
    pub fn not_ready(&self, name: &'static str, detail: impl Into<String>) {
        self.say(name, State::NotReady, detail.into());
    }

    /// The gate is about to stop: it is never ready again.
    pub fn drain(&self) {
        self.change(|conditions| conditions.draining = true);
    }

    /// Whether every condition holds and the gate does not drain.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Follows [`Readiness::is_ready`].
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// Every condition as it stands; while draining, one more that says so.
    pub fn snapshot(&self) -> Vec<Condition> {
        let conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = conditions.list.clone();
        if conditions.draining {
            let detail = "the gate is stopping".to_owned();
            list.push(Condition { name: "drain", state: State::NotReady, detail });
        }
        list
    }

    fn say(&self, name: &'static str, state: State, detail: String) {
        self.change(|conditions| {
            match conditions.list.iter_mut().find(|condition| condition.name == name) {
                Some(condition) => (condition.state, condition.detail) = (state, detail),
                // A condition that nobody declared counts all the same: fail closed.
                None => conditions.list.push(Condition { name, state, detail }),
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Conditions)) {
        let mut conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut conditions);
        let holds = |condition: &Condition| condition.state != State::NotReady;
        let ready = !conditions.draining && conditions.list.iter().all(holds);
        // Under the lock, so that the last change is also the last that is announced.
        self.0.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_condition_holds() {
        let readiness = Readiness::new(&["keys", "policies"]);
        assert!(!readiness.is_ready());
        readiness.ready("keys", "2 issuers");
        assert!(!readiness.is_ready());
        readiness.degraded("policies", "the new set does not parse");
        assert!(readiness.is_ready());
        readiness.not_ready("keys", "the folder is gone");
        assert!(!readiness.is_ready());
        let snapshot = serde_json::to_value(readiness.snapshot()).unwrap();
        assert_eq!(
            snapshot,
            serde_json::json!([
                {"name": "keys", "state": "not_ready", "detail": "the folder is gone"},
                {"name": "policies", "state": "degraded", "detail": "the new set does not parse"},
            ])
        );
    }

    #[test]
    fn a_gate_that_drains_is_never_ready_again() {
        let readiness = Readiness::new(&["keys"]);
        readiness.ready("keys", "");
        readiness.drain();
        readiness.ready("keys", "");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.snapshot().last().unwrap().name, "drain");
    }

    #[tokio::test]
    async fn subscribers_hear_of_changes_only() {
        let readiness = Readiness::new(&["keys"]);
        let mut heard = readiness.subscribe();
        readiness.ready("keys", "");
        heard.changed().await.unwrap();
        assert!(*heard.borrow_and_update());
        readiness.ready("keys", "again");
        assert!(!heard.has_changed().unwrap());
    }
}

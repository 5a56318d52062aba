//! Tests of what is known, against a store that is told what to say.

mod restored;

use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::*;
use crate::domain::standing::{Target, Which};
use crate::store::redb::RedbStore;

const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);

fn clock() -> Clock {
    Clock::of(|| NOW)
}

fn later(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

fn target(which: Which) -> Target {
    Target { issuer: "i".to_owned(), which }
}

fn change(which: Which, status: Status) -> Change {
    let standing = Standing {
        target: target(which),
        status,
        reason: "because".to_owned(),
        actor: "ana".to_owned(),
        since: NOW,
        revision: 0,
    };
    Change { standing, from: status.reached_from() }
}

const SUBJECT: Subject<'_> = Subject { issuer: "i", license: "l", kid: "k", assignee: "a" };

async fn revocations() -> Revocations {
    let store = Arc::new(RedbStore::in_memory().unwrap());
    let revocations = Revocations::new(store, &config::State::default());
    revocations.read(&clock()).await.unwrap();
    revocations
}

fn codes(revocations: &Revocations) -> Vec<Code> {
    revocations.reasons(SUBJECT).iter().map(|reason| reason.code).collect()
}

#[tokio::test]
async fn each_kind_of_target_stands_against_a_license_and_all_are_named() {
    let revocations = revocations().await;
    let kinds = [
        (Which::License("l".into()), Status::Revoked),
        (Which::Key("k".into()), Status::Suspended),
        (Which::Assignee("a".into()), Status::Revoked),
        (Which::All, Status::Suspended),
    ];
    for (which, status) in kinds {
        assert!(matches!(revocations.make(&change(which, status), &clock()).await, Ok(Changed::Applied(_))));
    }
    for other in [Which::License("m".into()), Which::Key("l".into()), Which::Assignee("l".into())] {
        revocations.make(&change(other, Status::Revoked), &clock()).await.unwrap();
    }
    let mut found = codes(&revocations);
    found.sort();
    assert_eq!(found, [Code::Revoked, Code::Revoked, Code::Suspended, Code::Suspended]);
    assert!(revocations.against(Subject { issuer: "j", ..SUBJECT }).is_empty());
}

#[tokio::test]
async fn only_a_suspension_can_be_lifted() {
    let revocations = revocations().await;
    let license = || Which::License("l".into());
    let make = async |status| revocations.make(&change(license(), status), &clock()).await.unwrap();
    assert_eq!(make(Status::Valid).await, Changed::Unknown);
    make(Status::Suspended).await;
    assert_eq!(codes(&revocations), [Code::Suspended]);
    make(Status::Valid).await;
    assert_eq!(codes(&revocations), []);
    make(Status::Revoked).await;
    for status in [Status::Valid, Status::Suspended] {
        assert!(matches!(make(status).await, Changed::Refused(known) if known.status == Status::Revoked));
    }
    assert_eq!(codes(&revocations), [Code::Revoked]);
}

#[tokio::test]
async fn what_is_known_grows_stale_and_clocks_are_not_believed_blindly() {
    let store = Arc::new(RedbStore::in_memory().unwrap());
    let revocations = Revocations::new(store, &config::State::default());
    let code = |now| revocations.as_of(now).unwrap_err().code;
    assert_eq!(code(NOW), Code::StateStale);
    revocations.read(&clock()).await.unwrap();
    assert_eq!(revocations.as_of(later(30)).unwrap(), NOW);
    assert_eq!(code(later(31)), Code::StateStale);
    assert!(revocations.as_of(later(-5)).is_ok());
    assert_eq!(code(later(-6)), Code::ClockSuspect);
    // The store remembers the latest time, also for a gate that is started later.
    revocations.read(&Clock::of(|| later(-60))).await.unwrap();
    assert_eq!(code(later(-60)), Code::ClockSuspect);
}

fn feed(epoch: u128, revision: u64, standings: Vec<Standing>) -> Feed {
    Feed {
        epoch: Uuid::from_u128(epoch),
        revision,
        records: 0,
        time: NOW,
        age: SignedDuration::ZERO,
        standings,
    }
}

fn standing(status: Status, revision: u64) -> Standing {
    Standing { revision, ..change(Which::License("l".into()), status).standing }
}

#[test]
fn what_was_read_by_another_is_as_old_as_that() {
    let read = |age| {
        let feed = Feed { age: SignedDuration::from_secs(age), ..feed(1, 0, Vec::new()) };
        Freshness::of(&feed, later(7), Instant::now())
    };
    assert_eq!(read(0).as_of, later(7));
    assert_eq!(read(5).as_of, later(2));
    // An age below zero would make knowledge fresher than it is.
    assert_eq!(read(-5).as_of, later(2));
    let forgotten = Feed { age: SignedDuration::MAX, ..feed(1, 0, Vec::new()) };
    assert_eq!(Freshness::of(&forgotten, NOW, Instant::now()).as_of, Timestamp::MIN);
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_make_knowledge_younger() {
    let revocations = revocations().await;
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    for (seconds, is_stale) in [(29, false), (31, true)] {
        revocations.0.freshness.write().unwrap().as_mut().unwrap().instant = ago(seconds);
        let stale = revocations.as_of(later(-4)).map_err(|reason| reason.code);
        assert_eq!(stale == Err(Code::StateStale), is_stale, "{seconds} s, {stale:?}");
    }
}

#[test]
fn an_older_answer_does_not_make_knowledge_older() {
    let read = |age, began| {
        let feed = Feed { age: SignedDuration::from_secs(age), ..feed(1, 0, Vec::new()) };
        Freshness::of(&feed, began, Instant::now())
    };
    let (fresh, from_another) = (read(0, NOW), read(40, later(1)));
    assert_eq!(from_another.after(fresh, later(1)).as_of, NOW);
    assert_eq!(read(0, later(2)).after(fresh, later(2)).as_of, later(2));
    // But for a clock that was set back, which would be suspect for ever.
    assert_eq!(read(0, later(-9)).after(fresh, later(-9)).as_of, later(-9));
}

#[tokio::test]
async fn a_change_that_another_gate_made_is_known_when_it_is_acknowledged_again() {
    let store: Arc<dyn StateStore> = Arc::new(RedbStore::in_memory().unwrap());
    let gate = || Revocations::new(Arc::clone(&store), &config::State::default());
    let (first, second) = (gate(), gate());
    second.read(&clock()).await.unwrap();
    let revoke = change(Which::License("l".into()), Status::Revoked);
    assert!(matches!(first.make(&revoke, &clock()).await, Ok(Changed::Applied(1))));
    assert!(matches!(second.make(&revoke, &clock()).await, Ok(Changed::Refused(_))));
    assert_eq!(codes(&second), [Code::Revoked]);
}

#[test]
fn a_restored_store_takes_no_revocation_back() {
    let mut known = Known::default();
    let mut read = |feed: Feed| {
        let alarm = known.restart_if_restored(&feed);
        known.take_in(&feed);
        (alarm.is_some(), known.against(SUBJECT).first().map(|standing| standing.status))
    };
    assert_eq!(read(feed(1, 3, vec![standing(Status::Suspended, 3)])), (false, Some(Status::Suspended)));
    assert_eq!(read(feed(1, 9, vec![standing(Status::Revoked, 9)])), (false, Some(Status::Revoked)));
    // Back to the backup of revision 3, and then to an empty store.
    assert_eq!(read(feed(1, 3, vec![standing(Status::Suspended, 3)])), (true, Some(Status::Revoked)));
    assert_eq!(read(feed(2, 0, Vec::new())), (true, Some(Status::Revoked)));
    assert_eq!(read(feed(2, 1, vec![standing(Status::Valid, 1)])), (false, Some(Status::Revoked)));
}

#[test]
fn a_suspension_can_be_lifted_after_a_restore() {
    let mut known = Known::default();
    known.restart_if_restored(&feed(1, 5, Vec::new()));
    known.take_in(&feed(1, 5, vec![standing(Status::Suspended, 5)]));
    let lifted = Standing { since: later(1), ..standing(Status::Valid, 3) };
    assert!(known.restart_if_restored(&feed(1, 3, Vec::new())).is_some());
    known.take_in(&feed(1, 3, vec![lifted]));
    assert!(known.against(SUBJECT).is_empty());
}

#[tokio::test]
async fn a_change_wakes_whom_it_concerns_and_nobody_else() {
    let revocations = revocations().await;
    let concerned = revocations.watch(SUBJECT);
    let other = revocations.watch(Subject { license: "m", kid: "n", ..SUBJECT });
    revocations.make(&change(Which::License("l".into()), Status::Revoked), &clock()).await.unwrap();
    concerned.changed().await;
    let woken = AtomicBool::new(false);
    let wait = async {
        other.changed().await;
        woken.store(true, Ordering::Relaxed);
    };
    let _ = tokio::time::timeout(Duration::from_millis(20), wait).await;
    assert!(!woken.load(Ordering::Relaxed));
    revocations.make(&change(Which::All, Status::Suspended), &clock()).await.unwrap();
    other.changed().await;
    drop((concerned, other));
    assert!(revocations.0.watchers.lock().unwrap().is_empty());
}

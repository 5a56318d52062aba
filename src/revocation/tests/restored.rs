//! A store that is restored under a gate that goes on: what the gate knew stays, whoever reads first, and
//! somebody hears of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::*;
use crate::domain::Amount;
use crate::store::{
    Acceptance, Claim, Claimed, LicenseFilter, Registered, Registration, Take, Taken, UsageBatch,
    UsageFilter, UsageKey, UsageRow,
};

/// A file of which there is a backup.
struct Restorable {
    folder: tempfile::TempDir,
    store: ArcSwap<RedbStore>,
    cut_off: AtomicBool,
}

impl Restorable {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let store = ArcSwap::from_pointee(RedbStore::open(&folder.path().join("state.redb")).unwrap());
        Arc::new(Self { folder, store, cut_off: AtomicBool::new(false) })
    }

    fn now(&self) -> Arc<RedbStore> {
        self.store.load_full()
    }

    async fn go_on_with(&self, file: &Path) {
        self.now().close().await;
        self.store.store(Arc::new(RedbStore::open(file).unwrap()));
    }

    async fn back_up(&self) -> PathBuf {
        let (file, backup) = (self.folder.path().join("state.redb"), self.folder.path().join("backup.redb"));
        self.now().close().await;
        std::fs::copy(&file, &backup).unwrap();
        self.go_on_with(&file).await;
        backup
    }
}

fn license(id: &str) -> Change {
    change(Which::License(id.to_owned()), Status::Revoked)
}

fn is_known(revocations: &Revocations, id: &str) -> bool {
    !revocations.against(Subject { license: id, kid: "-", assignee: "-", ..SUBJECT }).is_empty()
}

/// A gate that knows `old` and `lost`, over a store that was put back to where it knew `old` alone.
async fn restored() -> (Arc<Restorable>, Revocations) {
    let store = Restorable::new();
    let revocations = Revocations::new(Arc::<Restorable>::clone(&store), &config::State::default());
    revocations.make(&license("old"), &clock()).await.unwrap();
    let backup = store.back_up().await;
    revocations.make(&license("lost"), &clock()).await.unwrap();
    store.go_on_with(&backup).await;
    (store, revocations)
}

/// What is told to whoever follows, at the next read that succeeds.
async fn told(revocations: &Revocations) -> Option<String> {
    let (told, clock) = (Mutex::new(None), clock());
    let tell = |read: &Result<News, StoreError>| {
        *told.lock().unwrap() = read.as_ref().unwrap().restored.clone();
    };
    revocations.follow_once(&clock, tell).await;
    told.into_inner().unwrap()
}

#[tokio::test]
async fn a_change_is_known_though_its_revision_was_seen_before() {
    let (_, revocations) = restored().await;
    assert_eq!(revocations.make(&license("new"), &clock()).await, Ok(Changed::Applied(2)));
    for id in ["old", "lost", "new"] {
        assert!(is_known(&revocations, id), "{id}");
    }
    let alarm = told(&revocations).await.expect("the read that noticed it was not that of whoever tells");
    assert!(alarm.contains("a new change is its 2"), "{alarm}");
    assert_eq!(told(&revocations).await, None, "it is told once");
}

#[tokio::test]
async fn changes_of_another_gate_are_known_though_their_revisions_were_seen_before() {
    for others in [&["new"][..], &["new", "newer"], &["new", "newer", "newest"]] {
        let (store, revocations) = restored().await;
        for id in others {
            store.now().change(&license(id)).await.unwrap();
        }
        revocations.read(&clock()).await.unwrap();
        for id in others.iter().chain(&["old", "lost"]) {
            assert!(is_known(&revocations, id), "{id}");
        }
        assert!(told(&revocations).await.is_some());
    }
}

#[tokio::test]
async fn an_alarm_outlives_a_read_that_fails() {
    let (store, revocations) = restored().await;
    // The store is read afresh when it is noticed; that read fails.
    store.cut_off.store(true, Ordering::Relaxed);
    revocations.read(&clock()).await.unwrap_err();
    store.cut_off.store(false, Ordering::Relaxed);
    assert!(told(&revocations).await.is_some());
    assert!(is_known(&revocations, "lost"));
}

#[tokio::test]
async fn news_that_cannot_be_read_is_not_asked_for_without_a_pause() {
    let store = Restorable::new();
    let revocations = Revocations::new(Arc::<Restorable>::clone(&store), &config::State::default());
    store.now().change(&license("l")).await.unwrap();
    store.cut_off.store(true, Ordering::Relaxed);
    let failed = AtomicUsize::new(0);
    let clock = clock();
    let follow = revocations.follow(&clock, |read| {
        failed.fetch_add(usize::from(read.is_err()), Ordering::Relaxed);
    });
    let _ = tokio::time::timeout(Duration::from_millis(350), follow).await;
    let failed = failed.load(Ordering::Relaxed);
    assert!((2..=5).contains(&failed), "{failed}");
}

#[tokio::test]
async fn changes_of_the_same_target_are_no_restore() {
    let store = Restorable::new();
    let revocations = Revocations::new(Arc::<Restorable>::clone(&store), &config::State::default());
    for status in [Status::Suspended, Status::Valid, Status::Suspended, Status::Valid, Status::Revoked] {
        // Each a change that somebody else made, some of them two at once.
        store.now().change(&change(Which::All, status)).await.unwrap();
        if status != Status::Valid {
            revocations.read(&clock()).await.unwrap();
        }
    }
    store.now().change(&license("l")).await.unwrap();
    assert_eq!(revocations.read(&clock()).await.unwrap().changes, 1);
    assert_eq!(revocations.read(&clock()).await.unwrap().changes, 0);
    assert_eq!(told(&revocations).await, None);
}

#[async_trait]
impl StateStore for Restorable {
    async fn register(&self, license: &Registered) -> Result<Registration, StoreError> {
        self.now().register(license).await
    }

    async fn license(&self, id: &str) -> Result<Option<Registered>, StoreError> {
        self.now().license(id).await
    }

    async fn licenses(
        &self,
        filter: &LicenseFilter,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Registered>, StoreError> {
        self.now().licenses(filter, after, limit).await
    }

    async fn change(&self, change: &Change) -> Result<Changed, StoreError> {
        self.now().change(change).await
    }

    async fn feed(&self, after: u64, limit: u32, now: Timestamp) -> Result<Feed, StoreError> {
        if after == 0 && self.cut_off.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("a test cut it off".to_owned()));
        }
        self.now().feed(after, limit, now).await
    }

    async fn news(&self) {
        self.now().news().await;
    }

    async fn accept(&self, acceptance: &Acceptance) -> Result<bool, StoreError> {
        self.now().accept(acceptance).await
    }

    async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
    ) -> Result<Option<Acceptance>, StoreError> {
        self.now().acceptance(issuer, license, terms_hash).await
    }

    async fn take(&self, take: &Take) -> Result<Taken, StoreError> {
        self.now().take(take).await
    }

    async fn keep(&self, lease: Uuid, kept: Amount) -> Result<(), StoreError> {
        self.now().keep(lease, kept).await
    }

    async fn give_back(&self, lease: Uuid, amount: Amount) -> Result<(), StoreError> {
        self.now().give_back(lease, amount).await
    }

    async fn claimed(&self, request: &str) -> Result<Option<[u8; 32]>, StoreError> {
        self.now().claimed(request).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, StoreError> {
        self.now().claim(claim).await
    }

    async fn add_usage(&self, batch: &UsageBatch) -> Result<(), StoreError> {
        self.now().add_usage(batch).await
    }

    async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.now().usage(filter, after, limit).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        self.now().sweep(now).await
    }

    async fn close(&self) {
        self.now().close().await;
    }
}

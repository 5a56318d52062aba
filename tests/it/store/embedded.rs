//! The embedded store: the laws of all stores, and a file that outlives its process.

mod damage;
mod killed;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tollgate::domain::standing::Status;
use tollgate::store::redb::RedbStore;
use tollgate::store::{
    Claim, Feed, LicenseFilter, Registered, StateStore, StoreError, Take, UsageFilter, UsageRow,
};

use super::conformance::{Fresh, acceptance, at, batch, change, key, license, take, target, used, whole};

mod in_memory {
    //! The laws, on a store in memory.

    use std::sync::Arc;

    use tollgate::store::redb::RedbStore;

    use super::Fresh;

    async fn fresh() -> Fresh {
        Fresh::new(Arc::new(RedbStore::in_memory().unwrap()), ())
    }

    conformance!(fresh);
}

mod in_a_file {
    //! The laws, on a store in a file.

    use std::sync::Arc;

    use tollgate::store::redb::RedbStore;

    use super::Fresh;

    async fn fresh() -> Fresh {
        let folder = tempfile::tempdir().unwrap();
        let store = RedbStore::open(&folder.path().join("state.redb")).unwrap();
        Fresh::new(Arc::new(store), folder)
    }

    conformance!(fresh);
}

/// What is in a store, as far as it can be listed.
#[derive(Debug, PartialEq)]
struct Content {
    licenses: Vec<Registered>,
    feed: Feed,
    usage: Vec<UsageRow>,
}

async fn content(store: &RedbStore) -> Result<Content, StoreError> {
    Ok(Content {
        licenses: store.licenses(&LicenseFilter::default(), "", 10_000).await?,
        feed: store.feed(0, 10_000, at(0)).await?,
        usage: store.usage(&UsageFilter::default(), None, 10_000).await?,
    })
}

/// A store with some of everything, of so many licenses.
async fn filled(path: &Path, licenses: u64) -> RedbStore {
    let store = RedbStore::open(path).unwrap();
    for number in 0..licenses {
        let id = format!("license-{number}");
        let token = "x".repeat(500);
        let rows = vec![used(key(&id, 1), number)];
        let (license, change) = (Registered { token, ..license(&id) }, change(target(&id), Status::Revoked));
        let (register, change, usage) =
            (store.register(&license), store.change(&change), batch(number + 1, rows));
        let (registered, changed, counted) = tokio::join!(register, change, store.add_usage(&usage));
        registered.unwrap();
        changed.unwrap();
        counted.unwrap();
    }
    store
}

fn refused(path: &Path) -> String {
    match RedbStore::open(path) {
        Err(StoreError::Unusable(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_is_opened_again_has_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = filled(&path, 3).await;
    let taken = take(60);
    let claim = Claim { request: "request".to_owned(), question: [7; 32], expires: at(9_000) };
    store.accept(&acceptance("license-1")).await.unwrap();
    store.take(&taken).await.unwrap();
    store.claim(&claim).await.unwrap();
    store.feed(0, 0, at(1_000_000)).await.unwrap();
    let before = content(&store).await.unwrap();
    store.close().await;

    let store = RedbStore::open(&path).unwrap();
    assert_eq!(content(&store).await.unwrap(), before);
    assert_eq!(before.feed.time, at(1_000_000));
    assert_eq!(
        store.acceptance("issuer", "license-1", "sha-256:terms").await,
        Ok(Some(acceptance("license-1")))
    );
    assert_eq!(store.claimed("request").await, Ok(Some([7; 32])));
    assert_eq!(store.take(&take(0)).await.unwrap().remaining, whole(40));
    store.give_back(taken.lease, whole(60)).await.unwrap();
    assert_eq!(store.take(&Take { limit: whole(50), ..take(50) }).await.unwrap().granted, whole(50));
    // The batches that were counted are known, and so is what a target may come from.
    store.add_usage(&batch(3, vec![used(key("late", 1), 1)])).await.unwrap();
    assert_eq!(content(&store).await.unwrap().usage, before.usage);
    store.change(&change(target("license-1"), Status::Revoked)).await.unwrap();
    assert_eq!(content(&store).await.unwrap().feed.revision, before.feed.revision);
    store.close().await;
}

#[tokio::test]
async fn every_file_has_an_epoch_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for name in ["one.redb", "two.redb"] {
        let store = RedbStore::open(&folder.path().join(name)).unwrap();
        epochs.push(store.feed(0, 0, at(0)).await.unwrap().epoch);
        store.close().await;
    }
    assert_ne!(epochs[0], epochs[1]);
}

#[tokio::test]
async fn a_new_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["state.redb"], "nothing is left of how it was made");
    store.close().await;
}

#[tokio::test]
async fn a_file_is_held_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = filled(&path, 3).await;
    let words = refused(&path);
    assert!(words.contains("is in use by another process"), "{words}");
    assert!(words.contains("each gate needs a file of its own"), "{words}");
    assert!(words.contains("administration API"), "{words}");
    // Who holds it does not notice.
    store.register(&license("after")).await.unwrap();
    let before = content(&store).await.unwrap();
    store.close().await;
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(content(&store).await.unwrap(), before);
    store.close().await;
}

#[tokio::test]
async fn what_was_asked_before_closing_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = Arc::new(RedbStore::open(&path).unwrap());
    let mut asked = Vec::new();
    for number in 0..1_000 {
        let store = Arc::clone(&store);
        asked.push(tokio::spawn(async move { store.register(&license(&format!("{number:04}"))).await }));
    }
    tokio::task::yield_now().await;
    store.close().await;
    let mut done = 0;
    for registered in asked {
        match registered.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error, StoreError::Closed),
        }
    }
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(content(&store).await.unwrap().licenses.len(), done);
    store.close().await;
}

//! What cannot be seen from outside: a disk that fails, rows that are damaged, what is written when.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{BackendError, Builder, ReadableDatabase, StorageBackend};
use tempfile::TempDir;

use super::fault::Fault;
use super::format::{FORMAT, STEPS, Step, migrate};
use super::tables::{META, TIME_ROW, format};
use super::{PLACE, RedbStore, file};
use crate::domain::time::Timestamp;
use crate::store::{Registered, Registration, StateStore, StoreError};

/// How the disk does.
#[derive(Debug, Default)]
struct Disk {
    full: AtomicBool,
    syncs: AtomicUsize,
}

#[derive(Debug)]
struct Flaky {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl Flaky {
    fn works(&self) -> io::Result<()> {
        if self.disk.full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Flaky {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.works().and_then(|()| self.file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.syncs.fetch_add(1, SeqCst);
        self.works().and_then(|()| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.works().and_then(|()| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }
}

/// A store on a disk that can be made to fail.
fn flaky() -> (TempDir, PathBuf, Arc<Disk>, RedbStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(file::open(&path).unwrap());
    let disk = Arc::new(Disk::default());
    let opener = {
        let (path, disk) = (path.clone(), Arc::clone(&disk));
        move || {
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let file = FileBackend::new(file).unwrap();
            let opened = Builder::new().create_with_backend(Flaky { file, disk: Arc::clone(&disk) });
            opened.map_err(|error| StoreError::Unusable(error.to_string()))
        }
    };
    let store = RedbStore::start(opener().unwrap(), Box::new(opener)).unwrap();
    (folder, path, disk, store)
}

fn license(id: &str) -> Registered {
    Registered {
        id: id.to_owned(),
        issuer: "issuer".to_owned(),
        assignee: "assignee".to_owned(),
        kid: "key".to_owned(),
        not_before: at(1),
        expires: at(2),
        token: "secret-token".to_owned(),
        registered_at: at(1),
        registered_by: "ops".to_owned(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Waits until it is so.
async fn becomes(what: impl AsyncFn() -> bool) {
    for _ in 0..1_000 {
        if what().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to that");
}

#[tokio::test]
async fn a_disk_that_failed_is_tried_again() {
    let (_folder, _, disk, store) = flaky();
    store.register(&license("one")).await.unwrap();
    disk.full.store(true, SeqCst);
    for _ in 0..3 {
        let Err(StoreError::Unavailable(words)) = store.register(&license("two")).await else {
            panic!("it was acknowledged")
        };
        assert!(words.contains("no storage space"), "{words}");
    }
    assert!(matches!(store.license("one").await, Err(StoreError::Unavailable(_)) | Ok(Some(_))));
    disk.full.store(false, SeqCst);
    // Readers need nobody to write.
    becomes(async || store.license("one").await == Ok(Some(license("one")))).await;
    assert!(store.register(&license("two")).await.is_ok());
    assert_eq!(store.register(&license("two")).await, Ok(Registration::Present(license("two"))));
    store.close().await;
}

#[tokio::test]
async fn what_waits_is_written_together() {
    let (_folder, _, disk, store) = flaky();
    let store = Arc::new(store);
    let before = disk.syncs.load(SeqCst);
    let tasks: Vec<_> = (0..500)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.register(&license(&number.to_string())).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(Registration::Created));
    }
    let syncs = disk.syncs.load(SeqCst) - before;
    assert!((1..100).contains(&syncs), "{syncs} syncs for 500 registrations");
    store.close().await;
}

#[tokio::test]
async fn time_is_written_with_other_things_or_when_it_is_far_ahead() {
    let (_folder, path, disk, store) = flaky();
    store.feed(0, 0, at(1_000)).await.unwrap();
    becomes(async || disk.syncs.load(SeqCst) > 0 && written(&store) == Some(at(1_000))).await;
    let before = disk.syncs.load(SeqCst);
    for second in 1_001..1_010 {
        assert_eq!(store.feed(0, 0, at(second)).await.unwrap().time, at(second));
    }
    assert_eq!((disk.syncs.load(SeqCst), written(&store)), (before, Some(at(1_000))));
    store.register(&license("one")).await.unwrap();
    assert_eq!(written(&store), Some(at(1_009)));
    store.feed(0, 0, at(1_019)).await.unwrap();
    becomes(async || written(&store) == Some(at(1_019))).await;
    store.close().await;
    let store = RedbStore::open(&path).unwrap();
    assert_eq!(store.feed(0, 0, at(0)).await.unwrap().time, at(1_019));
    store.close().await;
}

/// The time on disk.
fn written(store: &RedbStore) -> Option<Timestamp> {
    let read = store.shared.read(|transaction| {
        let time = transaction.open_table(META)?;
        let time = redb::ReadableTable::get(&time, TIME_ROW)?;
        Ok(time.map(|time| time.value().parse().unwrap()))
    });
    read.unwrap()
}

#[tokio::test]
async fn a_damaged_row_concerns_nobody_else() {
    let store = RedbStore::in_memory().unwrap();
    let spoil = store.write(|tables| {
        tables.licenses.insert("bad", b"{\"token\": \"secret-token\"".as_slice())?;
        Ok(())
    });
    spoil.await.unwrap();
    let half = || {
        store.write(|tables| -> Result<(), Fault> {
            tables.licenses.insert("half", b"{}".as_slice())?;
            Err(Fault::row("licenses", "half", "is damaged"))
        })
    };
    let (bad, good) = (license("bad"), license("good"));
    let (spoiled, first, halved, second) =
        tokio::join!(store.register(&bad), store.register(&good), half(), store.register(&good));
    let Err(StoreError::Damaged(words)) = spoiled else { panic!("{spoiled:?}") };
    assert!(words.contains("in table `licenses`, the row \"bad\""), "{words}");
    assert!(!words.contains("secret"), "{words}");
    assert_eq!(first, Ok(Registration::Created));
    assert!(matches!(halved, Err(StoreError::Damaged(_))));
    assert_eq!(second, Ok(Registration::Present(license("good"))));
    assert_eq!(store.license("half").await, Ok(None), "what was half done is undone");
    assert!(matches!(store.license("bad").await, Err(StoreError::Damaged(_))));
    store.close().await;
}

#[tokio::test]
async fn a_panic_in_a_transaction_is_no_hang() {
    let (_folder, _, _, store) = flaky();
    let panicked = store.write(|_| -> Result<(), Fault> { panic!("as redb might") }).await;
    assert!(matches!(panicked, Err(StoreError::Damaged(_))), "{panicked:?}");
    assert_eq!(store.register(&license("one")).await, Ok(Registration::Created));
    let panicked = store.browse(|_| -> Result<(), Fault> { panic!("as redb might") }).await;
    assert!(matches!(panicked, Err(StoreError::Damaged(_))), "{panicked:?}");
    store.close().await;
}

fn add_a(transaction: &redb::WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(META)?.insert("steps", "a")?;
    Ok(())
}

fn add_b(transaction: &redb::WriteTransaction) -> Result<(), Fault> {
    let mut meta = transaction.open_table(META)?;
    let steps = format!("{}b", super::tables::text(&meta, "steps")?);
    meta.insert("steps", steps.as_str())?;
    Ok(())
}

fn fail(_: &redb::WriteTransaction) -> Result<(), Fault> {
    Err(Fault::File("no".to_owned()))
}

/// The format of a file and which steps it went, after a migration from version 1.
fn migrated(path: &Path, steps: &[Step]) -> (bool, Option<u32>, Option<String>) {
    let database = file::open(path).unwrap();
    let done = migrate(&database, 1, steps).is_ok();
    let transaction = database.begin_read().unwrap();
    let steps = super::tables::text(&transaction.open_table(META).unwrap(), "steps").ok();
    (done, format(&transaction).unwrap(), steps)
}

#[test]
fn all_steps_of_a_migration_are_made_or_none() {
    assert_eq!(STEPS.len() + 1, usize::try_from(FORMAT).unwrap(), "a step leads to each version");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    assert_eq!(migrated(&path, &[add_a, fail]), (false, Some(FORMAT), None));
    assert_eq!(migrated(&path, &[add_a, add_b]), (true, Some(FORMAT), Some("ab".to_owned())));
}

#[tokio::test]
async fn a_disk_that_hangs_makes_nobody_wait_for_long_and_does_not_fill_the_memory() {
    let store = RedbStore::in_memory().unwrap();
    let (release, hangs) = std::sync::mpsc::channel::<()>();
    let hanging = store.ask(0, move |_| hangs.recv().map_err(|_| Fault::InUse)).unwrap();
    let late = store.register(&license("late")).await.unwrap_err();
    assert!(late.to_string().contains("did not take it within 3s"), "{late}");
    // As from members of a hub that hand in usage.
    let mut asked = Vec::new();
    while let Ok(answer) = store.ask(1_000 * PLACE, |_| Ok(())) {
        asked.push(answer);
    }
    assert_eq!(asked.len(), 65);
    while let Ok(answer) = store.ask(0, |_| Ok(())) {
        asked.push(answer);
    }
    let refused = store.register(&license("refused")).await.unwrap_err();
    assert!(refused.to_string().contains("does not keep up"), "{refused}");
    release.send(()).unwrap();
    hanging.await.unwrap().unwrap();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(store.register(&license("one")).await, Ok(Registration::Created));
    // It was asked for, and done.
    assert!(store.license("late").await.unwrap().is_some());
}

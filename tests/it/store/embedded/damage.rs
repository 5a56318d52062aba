//! Files that are not whole are refused in words that help, and stay as they are; never is less than
//! what was acknowledged taken for all of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tollgate::store::redb::RedbStore;
use tollgate::store::{StateStore, StoreError};

use super::{Content, content, filled, refused};

fn file_of(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Refuses the file in words that have all of these, and leaves it as it is.
fn refused_with(path: &Path, words: &[&str]) {
    let before = fs::read(path).unwrap();
    let refusal = refused(path);
    assert!(refusal.contains(&path.display().to_string()), "{refusal}");
    for word in words {
        assert!(refusal.contains(word), "no `{word}` in: {refusal}");
    }
    assert!(fs::read(path).unwrap() == before, "the file was changed, though: {refusal}");
}

#[test]
fn an_empty_file_is_refused() {
    let (_folder, path) = file_of(b"");
    refused_with(&path, &["is empty", "revocations", "restore a backup"]);
}

#[test]
fn a_file_of_something_else_is_refused() {
    for bytes in [b"state: {}\n".to_vec(), vec![0; 100_000], vec![0xff; 72 << 10], b"redb".to_vec()] {
        let (_folder, path) = file_of(&bytes);
        refused_with(&path, &["is damaged, or no state file", "not replaced", "move it aside", "backup"]);
    }
}

/// Another program's database, or one of ours of this format.
fn database(format: Option<&str>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    if let Some(format) = format {
        const META: TableDefinition<&str, &str> = TableDefinition::new("meta");
        transaction.open_table(META).unwrap().insert("format", format).unwrap();
    } else {
        const OTHER: TableDefinition<u64, u64> = TableDefinition::new("meta");
        transaction.open_table(OTHER).unwrap().insert(1, 1).unwrap();
    }
    transaction.commit().unwrap();
    (folder, path)
}

#[test]
fn a_file_of_a_newer_format_is_refused() {
    let (_folder, path) = database(Some("2"));
    refused_with(&path, &["has format 2", "reads format 1", "the version that wrote it"]);
}

#[test]
fn another_programs_database_is_refused() {
    for format in [None, Some("x"), Some("0")] {
        let (_folder, path) = database(format);
        refused_with(&path, &["was not written by tollgate", "state.embedded.path"]);
    }
}

#[test]
fn a_folder_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let words = refused(&folder.path().join("missing/state.redb"));
    assert!(words.contains("must exist and be writable"), "{words}");
    assert!(words.contains(&folder.path().join("missing").display().to_string()), "{words}");
    let words = refused(folder.path());
    assert!(words.contains("is not a file"), "{words}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

/// The bytes of a store that was closed in order, those of one that was not, and what is in both.
async fn samples() -> ([(&'static str, Vec<u8>); 2], Content) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = filled(&path, 40).await;
    let all = content(&store).await.unwrap();
    let open = fs::read(&path).unwrap();
    store.close().await;
    ([("closed", fs::read(&path).unwrap()), ("not closed", open)], all)
}

/// What became of a damaged file: refused, and as it was; or whole in spite of it.
async fn survives(name: &str, bytes: &[u8], all: &Content) -> bool {
    let (_folder, path) = file_of(bytes);
    match RedbStore::open(&path) {
        Err(StoreError::Unusable(words)) => {
            assert!(words.contains("backup"), "{name}: {words}");
            assert!(fs::read(&path).unwrap() == bytes, "{name}: changed, though {words}");
            false
        }
        Err(error) => panic!("{name}: {error:?}"),
        Ok(store) => {
            let found = content(&store).await.unwrap();
            // How the times and epochs are told is not what matters here.
            assert!(found == *all, "{name}: it has less than was acknowledged: {:?}", found.feed.revision);
            store.close().await;
            true
        }
    }
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused() {
    let (samples, all) = samples().await;
    for (name, bytes) in samples {
        assert!(survives(name, &bytes, &all).await, "it is whole");
        let length = bytes.len();
        let steps = (1..40).map(|step| length * step / 40);
        let pages = (1..length / 4_096).step_by(7).map(|page| page * 4_096);
        for cut in steps.chain(pages).chain([1, 9, 63, 64, 319, 320, 4_095, 4_096, 4_097, length - 1]) {
            survives(&format!("{name}, cut at {cut} of {length}"), &bytes[..cut], &all).await;
        }
    }
}

#[tokio::test]
async fn a_byte_that_changed_is_found_or_does_not_matter() {
    let (samples, all) = samples().await;
    for (name, bytes) in samples {
        let (mut found, mut tried) = (0, 0);
        // All of the header, and a byte here and there.
        for at in (0..320).chain((320..bytes.len()).step_by(1_499)) {
            // A bit of this byte says which of the last two commits counts. With the other one, the
            // file is as if the process had died just before the last was acknowledged; nothing in
            // the file can tell.
            if name == "not closed" && at == 9 {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            tried += 1;
            if !survives(&format!("{name}, byte {at}"), &damaged, &all).await {
                found += 1;
            }
        }
        assert!(found > 100, "{name}: {found} of {tried} were found");
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_is_open_stops_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = filled(&path, 40).await;
    let length = fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&vec![0xa5; usize::try_from(length).unwrap() - 4_096], 4_096).unwrap();
    // Whether anything is read from the disk again is not said; nothing may panic or hang.
    for number in 0..20 {
        let _ = store.license(&format!("license-{number}")).await;
        let _ = store.register(&super::license(&format!("new-{number}"))).await;
    }
    let _ = content(&store).await;
    store.close().await;
    refused(&path);
}

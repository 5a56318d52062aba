//! Real files in real folders: ends of lines, rotation, and what others do to the file.

use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::config::ByteSize;

fn config(folder: &TempDir, rotate_at: &str, keep: u32) -> AuditFile {
    let path = folder.path().join("decisions.jsonl");
    AuditFile { path, rotate_at: rotate_at.parse::<ByteSize>().unwrap(), keep }
}

fn write(file: &mut LogFile, lines: &str) {
    let mut done = 0;
    file.write(lines.as_bytes(), &mut done, true).unwrap();
    assert_eq!(done, lines.len());
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_line_that_a_crash_cut_short_is_ended_and_kept() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "1 MiB", 1);
    fs::write(&config.path, "whole\nhal").unwrap();
    write(&mut LogFile::open(&config).unwrap(), "next\n");
    assert_eq!(read(&config.path), "whole\nhal\nnext\n");
    write(&mut LogFile::open(&config).unwrap(), "last\n");
    assert_eq!(read(&config.path), "whole\nhal\nnext\nlast\n");
}

#[test]
fn a_new_file_is_not_for_everybody() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "1 MiB", 1);
    let _file = LogFile::open(&config).unwrap();
    let mode = fs::metadata(&config.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn what_cannot_be_a_log_is_refused_with_what_would_be() {
    let folder = TempDir::new().unwrap();
    let good = config(&folder, "1 MiB", 1);
    let missing = AuditFile { path: folder.path().join("no/such.jsonl"), ..good };
    let error = LogFile::open(&missing).err().unwrap();
    assert!(matches!(error, AuditError::Open { .. }), "{error}");
    assert!(error.to_string().contains("no/such.jsonl") && error.to_string().contains("existing folder"));
    let device = AuditFile { path: PathBuf::from("/dev/null"), ..good };
    assert!(matches!(LogFile::open(&device), Err(AuditError::NotAFile { .. })));
    let _first = LogFile::open(&good).unwrap();
    assert!(matches!(LogFile::open(&good), Err(AuditError::InUse { .. })));
}

#[test]
fn rotation_keeps_so_many_files_and_every_line_whole() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "10", 2);
    let mut file = LogFile::open(&config).unwrap();
    // One group that needs several files; one of its lines is longer than a file may be.
    write(&mut file, "a1\na2\na3\na4\nb1\n");
    assert_eq!(read(&config.path), "a4\nb1\n");
    assert_eq!(read(file.older(1)), "a1\na2\na3\n");
    write(&mut file, "c1 is a long line\nd1\n");
    assert_eq!(read(&config.path), "d1\n");
    assert_eq!(read(file.older(1)), "c1 is a long line\n");
    assert_eq!(read(file.older(2)), "a4\nb1\n");
    assert!(!file.older(3).exists());
}

#[test]
fn files_beyond_a_lowered_limit_are_removed() {
    for keep in [0, 1] {
        let folder = TempDir::new().unwrap();
        let config = config(&folder, "4", keep);
        let mut file = LogFile::open(&config).unwrap();
        for number in 1..=3 {
            fs::write(file.older(number), "old\n").unwrap();
        }
        write(&mut file, "one\ntwo\n");
        assert_eq!(read(&config.path), "two\n");
        assert_eq!(file.older(1).exists(), keep == 1);
        assert!(!file.older(2).exists() && !file.older(3).exists());
    }
}

#[test]
fn a_rotation_that_was_cut_short_costs_no_older_file() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "4", 3);
    fs::write(&config.path, "now\n").unwrap();
    let mut file = LogFile::open(&config).unwrap();
    // As a crash leaves it between the first renames and the last.
    fs::write(file.older(2), "older\n").unwrap();
    fs::write(file.older(3), "oldest\n").unwrap();
    write(&mut file, "new\n");
    let all = [config.path, file.older(1), file.older(2), file.older(3)].map(read);
    assert_eq!(all, ["new\n", "now\n", "older\n", "oldest\n"]);
}

#[test]
fn a_rotation_that_fails_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "4", 1);
    let mut file = LogFile::open(&config).unwrap();
    write(&mut file, "one\n");
    // A folder in the way of the rename: it fails for root too.
    fs::create_dir(file.older(1)).unwrap();
    let mut done = 0;
    let error = file.write(b"two\n", &mut done, false).unwrap_err();
    assert!(matches!(error, AuditError::Rotate { .. }), "{error}");
    assert_eq!((done, read(&config.path).as_str()), (0, "one\n"));
    fs::remove_dir(file.older(1)).unwrap();
    file.write(b"two\n", &mut done, false).unwrap();
    assert_eq!((read(file.older(1)), read(&config.path)), ("one\n".to_owned(), "two\n".to_owned()));
}

#[test]
fn a_file_that_was_moved_or_removed_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "1 MiB", 1);
    let moved = folder.path().join("moved");
    let mut file = LogFile::open(&config).unwrap();
    write(&mut file, "one\n");
    fs::rename(&config.path, &moved).unwrap();
    write(&mut file, "two\n");
    assert_eq!((read(&moved), read(&config.path)), ("one\n".to_owned(), "two\n".to_owned()));
    fs::remove_file(&config.path).unwrap();
    write(&mut file, "three\n");
    assert_eq!(read(&config.path), "three\n");
    // What `logrotate` does with `copytruncate`.
    File::options().write(true).open(&config.path).unwrap().set_len(0).unwrap();
    write(&mut file, "four\n");
    assert_eq!(read(&config.path), "four\n");
}

#[test]
fn a_half_written_line_goes_on_in_its_file_and_starts_over_in_another() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder, "6", 1);
    let lines = b"one\ntwo\n";
    let mut file = LogFile::open(&config).unwrap();
    // A disk that filled up took so much and no more.
    write(&mut file, "one\ntw");
    let mut done = 6;
    file.write(lines, &mut done, true).unwrap();
    assert_eq!((done, read(&config.path).as_str()), (8, "one\ntwo\n"));

    fs::write(&config.path, "").unwrap();
    write(&mut file, "one\ntw");
    fs::rename(&config.path, folder.path().join("moved")).unwrap();
    let mut done = 6;
    file.write(lines, &mut done, true).unwrap();
    assert_eq!((done, read(&config.path).as_str()), (8, "two\n"));
}

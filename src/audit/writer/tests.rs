//! Many producers, stalled readers, full disks: nothing that was accepted is lost.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::config::{AuditFile, ByteSize};

const SOON: Duration = Duration::from_secs(5);

fn config(path: PathBuf, mode: AuditMode, queue: u32, rotate_at: &str) -> Audit {
    let rotate_at = rotate_at.parse::<ByteSize>().unwrap();
    let file = AuditFile { path, rotate_at, keep: 1000 };
    Audit { mode, stdout: false, file: Some(file), queue, ..Audit::default() }
}

fn log(path: impl AsRef<Path>, mode: AuditMode) -> Writer {
    Writer::open(&config(path.as_ref().to_owned(), mode, 1024, "1 GiB")).unwrap()
}

fn line(producer: usize, number: usize) -> Vec<u8> {
    format!("{{\"producer\":{producer},\"number\":{number}}}\n").into_bytes()
}

/// Appends so many records from so many tasks at once.
async fn produce(writer: &Writer, producers: usize, records: usize) {
    let mut tasks = JoinSet::new();
    for producer in 0..producers {
        let writer = writer.clone();
        tasks.spawn(async move {
            for number in 0..records {
                writer.append(line(producer, number)).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

/// Every line of every file of a folder.
fn lines_in(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|file| lines_of(&file)).collect()
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{} ends within a line", file.display());
    text.lines().map(str::to_owned).collect()
}

/// Each of these records is there once, and nothing else.
fn assert_exactly_once(lines: &[String], producers: usize, records: usize) {
    let expected: HashSet<Vec<u8>> = (0..producers)
        .flat_map(|producer| (0..records).map(move |number| line(producer, number)))
        .map(|line| line.trim_ascii().to_vec())
        .collect();
    let found: HashSet<Vec<u8>> = lines.iter().map(|line| line.clone().into_bytes()).collect();
    assert_eq!(lines.len(), producers * records);
    assert!(found == expected);
}

async fn becomes(writer: &Writer, writable: bool) {
    let mut health = writer.subscribe();
    let changed = health.wait_for(|health| (*health == Health::Writable) == writable);
    timeout(SOON, changed).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_between_many_producers_and_one_file() {
    let folder = TempDir::new().unwrap();
    let writer = Writer::open(&config(folder.path().join("log"), AuditMode::Queued, 500, "1 GiB")).unwrap();
    produce(&writer, 64, 2000).await;
    writer.close().await.unwrap();
    let lines = lines_in(folder.path());
    assert_exactly_once(&lines, 64, 2000);
    let counters = writer.counters();
    assert_eq!(counters.written.load(Relaxed), 128_000);
    assert_eq!(counters.queued.load(Relaxed), 0);
    let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
    assert_eq!(counters.bytes.load(Relaxed), bytes as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_under_load_keeps_every_record_once() {
    let folder = TempDir::new().unwrap();
    let writer = Writer::open(&config(folder.path().join("log"), AuditMode::Queued, 500, "64 KiB")).unwrap();
    produce(&writer, 16, 1000).await;
    writer.close().await.unwrap();
    assert_exactly_once(&lines_in(folder.path()), 16, 1000);
    let sizes: Vec<u64> =
        fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 5 && sizes.iter().all(|size| *size <= 64 * 1024), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn durable_returns_when_the_record_is_in_the_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let writer = log(&path, AuditMode::Durable);
    let mut tasks = JoinSet::new();
    for producer in 0..8 {
        let (writer, path) = (writer.clone(), path.clone());
        tasks.spawn(async move {
            for number in 0..10 {
                let line = line(producer, number);
                writer.append(line.clone()).await.unwrap();
                let text = fs::read(&path).unwrap();
                assert!(text.split_inclusive(|byte| *byte == b'\n').any(|found| found == line));
            }
        });
    }
    tasks.join_all().await;
    assert_exactly_once(&lines_of(&path), 8, 10);
}

#[tokio::test]
async fn a_sink_that_stalls_makes_producers_wait() {
    let (reader, pipe) = io::pipe().unwrap();
    let stream = Sink::Stream(File::from(OwnedFd::from(pipe)));
    let writer = Writer::start(vec![stream], AuditMode::Queued, 10).unwrap();
    // Each line takes two of the ten places; a pipe that nobody reads takes 64 KiB.
    let long = |number: usize| format!("{number} {}\n", "x".repeat(5000)).into_bytes();
    let mut accepted = 0;
    while let Ok(appended) = timeout(Duration::from_millis(200), writer.append(long(accepted))).await {
        appended.unwrap();
        accepted += 1;
        assert!(writer.counters().queued.load(Relaxed) <= 5);
    }
    assert_eq!(writer.counters().queued.load(Relaxed), 5);
    assert!((5..5 + 64 * 1024 / 5000).contains(&accepted), "{accepted}");
    let waiting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.append(long(accepted)).await }
    });
    let read = thread::spawn(|| BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>().unwrap());
    timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    writer.close().await.unwrap();
    let read = read.join().unwrap();
    let numbers: Vec<String> = read.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    // The line whose future was dropped is not among them: it had no place.
    assert_eq!(numbers, (0..=accepted).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_line_larger_than_the_queue_still_has_its_place() {
    let folder = TempDir::new().unwrap();
    let writer = Writer::open(&config(folder.path().join("log"), AuditMode::Queued, 1, "1 GiB")).unwrap();
    for _ in 0..3 {
        writer.append(vec![b'x'; 60_000]).await.unwrap();
    }
    writer.close().await.unwrap();
    assert_eq!(lines_in(folder.path()), vec!["x".repeat(60_000); 3]);
}

#[tokio::test]
async fn a_closed_stream_refuses_records_and_the_file_has_them() {
    let folder = TempDir::new().unwrap();
    let (reader, pipe) = io::pipe().unwrap();
    drop(reader);
    let file = config(folder.path().join("log"), AuditMode::Queued, 1, "1 GiB").file.unwrap();
    let sinks =
        vec![Sink::Stream(File::from(OwnedFd::from(pipe))), Sink::File(LogFile::open(&file).unwrap())];
    let writer = Writer::start(sinks, AuditMode::Queued, 100).unwrap();
    writer.append(line(0, 0)).await.unwrap();
    becomes(&writer, false).await;
    let error = writer.append(line(0, 1)).await.unwrap_err();
    assert!(
        matches!(&error, AuditError::Unwritable(reason) if reason.contains("standard output")),
        "{error}"
    );
    assert_exactly_once(&lines_of(&file.path), 1, 1);
    assert_eq!(writer.counters().refused.load(Relaxed), 1);
}

#[tokio::test]
async fn durable_fails_on_a_full_device_and_close_says_what_is_lost() {
    // Every write to this device fails with ENOSPC.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let writer = Writer::start(vec![Sink::Stream(full)], AuditMode::Durable, 100).unwrap();
    let error = timeout(SOON, writer.append(line(0, 0))).await.unwrap().unwrap_err();
    assert!(matches!(error, AuditError::Unwritable(_)), "{error}");
    assert!(matches!(writer.health(), Health::Unwritable(_)));
    let error = timeout(SOON, writer.close()).await.unwrap().unwrap_err();
    assert!(matches!(error, AuditError::Abandoned { records: 1, .. }), "{error}");
}

#[tokio::test]
async fn who_waits_for_a_place_is_refused_when_writing_fails() {
    let folder = TempDir::new().unwrap();
    let away = folder.path().join("away");
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let writer = Writer::open(&config(home.join("log"), AuditMode::Queued, 1, "1 GiB")).unwrap();
    fs::rename(&home, &away).unwrap();
    writer.append(line(0, 0)).await.unwrap();
    // Either it waits for the only place, or it comes after the failure.
    let error = timeout(SOON, writer.append(line(0, 1))).await.unwrap().unwrap_err();
    assert!(matches!(error, AuditError::Unwritable(_)), "{error}");

    fs::create_dir(&home).unwrap();
    becomes(&writer, true).await;
    writer.append(line(0, 1)).await.unwrap();
    writer.close().await.unwrap();
    assert_exactly_once(&lines_in(&home), 1, 2);
}

#[tokio::test]
async fn a_closed_log_accepts_nothing() {
    let folder = TempDir::new().unwrap();
    let writer = log(folder.path().join("log"), AuditMode::Queued);
    writer.append(line(0, 0)).await.unwrap();
    writer.close().await.unwrap();
    assert!(matches!(writer.append(line(0, 1)).await, Err(AuditError::Closed)));
    assert!(matches!(writer.close().await, Err(AuditError::Closed)));
    assert_exactly_once(&lines_in(folder.path()), 1, 1);
}

#[tokio::test]
async fn a_dropped_log_writes_what_it_accepted() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let writer = log(&path, AuditMode::Queued);
    let config = config(path.clone(), AuditMode::Queued, 1, "1 GiB").file.unwrap();
    writer.append(line(0, 0)).await.unwrap();
    drop(writer);
    let ended = async {
        // The lock is free when the thread has ended.
        while LogFile::open(&config).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, ended).await.unwrap();
    assert_exactly_once(&lines_of(&path), 1, 1);
}

#[test]
fn a_log_that_goes_nowhere_is_refused() {
    let nowhere = Audit { stdout: false, file: None, ..Audit::default() };
    assert!(matches!(Writer::open(&nowhere), Err(AuditError::Nowhere)));
}

#[tokio::test]
async fn a_hub_that_takes_lines_in_parts_and_fails_between_gets_all_in_order() {
    let (sent, received) = std::sync::mpsc::channel();
    let mut calls = 0;
    let hand_in: HandIn = Box::new(move |lines| {
        calls += 1;
        if calls % 3 == 2 {
            return Err("the hub restarts".to_owned());
        }
        let one = lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        sent.send(lines[..one].to_vec()).unwrap();
        Ok(one)
    });
    let config = Audit { stdout: false, file: None, hub: true, mode: AuditMode::Durable, ..Audit::default() };
    let writer = Writer::open_with(&config, Some(hand_in)).unwrap();
    let mut health = writer.subscribe();
    let lines: Vec<Vec<u8>> = (0..4).map(|number| line(0, number)).collect();
    // While it fails, who waits in durable mode is told so, and the lines are handed in all the same.
    let _ = writer.append_lines(lines.concat(), 4).await;
    timeout(SOON, health.wait_for(|health| *health == Health::Writable)).await.unwrap().unwrap();
    writer.close().await.unwrap();
    assert_eq!(received.iter().collect::<Vec<_>>(), lines);
    assert_eq!(writer.counters().written.load(Relaxed), 4);
}

/// A file system of 64 KiB, for as long as it lives.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None where mounting is not permitted.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(folder.path());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_records_and_keeps_those_it_accepted() {
    for mode in [AuditMode::Queued, AuditMode::Durable] {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("SKIPPED: a_full_disk_refuses_records needs the right to mount a tmpfs");
            return;
        };
        let ballast = disk.0.path().join("ballast");
        fs::write(&ballast, vec![0; 40 * 1024]).unwrap();
        let path = disk.0.path().join("log");
        let writer = log(&path, mode);
        let mut accepted = 0;
        let error = loop {
            match timeout(SOON, writer.append(line(0, accepted))).await.unwrap() {
                Ok(()) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("No space left"), "{error}");
        let refused = Instant::now();
        assert!(writer.append(line(0, accepted)).await.is_err());
        assert!(refused.elapsed() < RETRY, "it is refused at once");
        assert!(!fs::read(&path).unwrap().ends_with(b"\n"), "the disk took a part of a line");

        fs::remove_file(&ballast).unwrap();
        becomes(&writer, true).await;
        // In durable mode the refused record is kept and written as well.
        accepted += usize::from(mode == AuditMode::Durable);
        writer.append(line(0, accepted)).await.unwrap();
        writer.close().await.unwrap();
        assert_exactly_once(&lines_of(&path), 1, accepted + 1);
    }
}

//! Tells when files or folders have changed, so that what was read from them is read again.
//!
//! A change is told once it has been quiet for a moment, and in any case every 30 seconds,
//! because network file systems report nothing. Refuses to say what changed: whoever is told
//! compares contents, so a false alarm costs a read and a missed one is caught up.

mod places;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use places::Places;

/// A change is told when nothing has happened for this long.
const QUIET: Duration = Duration::from_millis(100);
/// A change is told after this long, however much goes on happening.
const LATEST: Duration = Duration::from_secs(1);
/// A change is supposed after this long, whatever was reported.
const RESCAN: Duration = Duration::from_secs(30);
/// How often the watches are laid anew while the folders change under them.
const ROUNDS: usize = 5;

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    inbox: Sender<Message>,
}

/// The operating system does not let us watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A path cannot be made absolute.
    #[error("cannot watch `{path}`: {source}")]
    Path {
        /// As it was given.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A folder cannot be watched.
    #[error("cannot watch the folder `{folder}`: {source}")]
    Folder {
        /// The folder, without symbolic links.
        folder: PathBuf,
        /// What the operating system says.
        source: notify::Error,
    },
    /// No watch can be had at all.
    #[error("cannot watch files: {0}")]
    Unavailable(#[from] notify::Error),
    /// No thread can be had.
    #[error("cannot start the thread that watches files: {0}")]
    Thread(#[source] std::io::Error),
}

enum Message {
    Happened(notify::Result<Event>),
    Stop,
}

/// What came first.
enum Next {
    Change,
    Elapsed,
    Stop,
}

struct Lookout<F> {
    paths: Vec<PathBuf>,
    places: Places,
    watcher: RecommendedWatcher,
    inbox: Receiver<Message>,
    on_change: F,
}

/// The folder to read `folder` through. A Kubernetes volume swaps its `..data` link: what that leads
/// to is one consistent state, which a swap meanwhile does not touch.
pub fn steady_root(folder: &Path) -> PathBuf {
    folder.join("..data").canonicalize().unwrap_or_else(|_| folder.to_owned())
}

impl Watch {
    /// Calls `on_change`, on a thread of its own, after any of `paths` may have changed: files or
    /// folders, folders with all that is in them. A path need not exist yet, may be or lead
    /// through symbolic links, and may be deleted and made again.
    ///
    /// # Errors
    ///
    /// When the operating system has no more watches to give.
    pub fn start(paths: &[PathBuf], on_change: impl FnMut() + Send + 'static) -> Result<Self, WatchError> {
        let (sender, inbox) = mpsc::channel();
        let events = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, may_be_a_change) {
                // Fails only when nobody is left to be told.
                let _ = events.send(Message::Happened(event));
            }
        })?;
        let paths = paths.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
        let mut lookout = Lookout { paths, places: Places::default(), watcher, inbox, on_change };
        lookout.lay()?;
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || lookout.run())
            .map_err(WatchError::Thread)?;
        Ok(Self { inbox: sender })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Fails only when the thread is gone already.
        let _ = self.inbox.send(Message::Stop);
    }
}

impl<F: FnMut()> Lookout<F> {
    fn run(mut self) {
        while self.wait() {
            if let Err(error) = self.lay() {
                tracing::warn!(%error, "changes of files may be noticed late");
            }
            (self.on_change)();
        }
    }

    /// Waits until a change has settled or is due to be supposed; false: stop.
    fn wait(&self) -> bool {
        match self.next(Instant::now() + RESCAN) {
            Next::Stop => return false,
            Next::Elapsed => return true,
            Next::Change => {}
        }
        let latest = Instant::now() + LATEST;
        loop {
            match self.next(latest.min(Instant::now() + QUIET)) {
                Next::Stop => return false,
                Next::Elapsed => return true,
                Next::Change if Instant::now() >= latest => return true,
                Next::Change => {}
            }
        }
    }

    /// What comes first: a change that matters, `until`, or the end.
    fn next(&self, until: Instant) -> Next {
        loop {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Happened(event)) if self.matters(&event) => return Next::Change,
                Ok(Message::Happened(_)) if Instant::now() >= until => return Next::Elapsed,
                Ok(Message::Happened(_)) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
                Err(RecvTimeoutError::Timeout) => return Next::Elapsed,
            }
        }
    }

    fn matters(&self, event: &notify::Result<Event>) -> bool {
        event.as_ref().map_or(true, |event| {
            event.need_rescan() || event.paths.iter().any(|path| self.places.matter(path))
        })
    }

    /// Watches every folder in which a change of the paths would show. Repeated after each
    /// change, because a watch belongs to a folder as it was: one that was replaced is not
    /// watched any more. Surveyed again after watching, because what came between is not told.
    fn lay(&mut self) -> Result<(), WatchError> {
        for _ in 0..ROUNDS {
            let places = Places::survey(&self.paths);
            for folder in places.folders() {
                self.watch(folder)?;
            }
            if places == self.places {
                break;
            }
            self.places = places;
        }
        Ok(())
    }

    fn watch(&mut self, folder: &Path) -> Result<(), WatchError> {
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            // Gone since the survey; the next one sees it.
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => Ok(()),
            Err(source) => Err(WatchError::Folder { folder: folder.to_owned(), source }),
            Ok(()) => Ok(()),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, WatchError> {
    std::path::absolute(path).map_err(|source| WatchError::Path { path: path.to_owned(), source })
}

/// Reading is reported too, and whoever is told of a change reads.
fn may_be_a_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a watch tells, one message for each call.
    struct Told {
        _watch: Watch,
        calls: Receiver<()>,
    }

    impl Told {
        fn of(path: &Path) -> Self {
            let (call, calls) = mpsc::channel();
            let watch = Watch::start(&[path.to_owned()], move || call.send(()).unwrap()).unwrap();
            Self { _watch: watch, calls }
        }

        fn soon(&self) {
            self.calls.recv_timeout(Duration::from_secs(3)).expect("no change was told");
            while self.calls.recv_timeout(3 * QUIET).is_ok() {}
        }

        fn not(&self) {
            assert!(self.calls.recv_timeout(5 * QUIET).is_err(), "a change was told");
        }
    }

    #[test]
    fn tells_of_a_plain_write_but_not_of_reading_or_of_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        fs::write(&file, "1").unwrap();
        let told = Told::of(&file);

        fs::write(&file, "2").unwrap();
        told.soon();
        fs::read(&file).unwrap();
        told.not();
        fs::write(folder.path().join("audit.jsonl"), "a neighbour").unwrap();
        told.not();
    }

    #[test]
    fn tells_of_files_at_any_depth_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let told = Told::of(folder.path());

        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        told.soon();
        fs::write(folder.path().join("a/b/one.cedar"), "1").unwrap();
        told.soon();
        fs::remove_file(folder.path().join("a/b/one.cedar")).unwrap();
        told.soon();
    }

    #[test]
    fn tells_of_each_atomic_rename() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("catalog.json");
        fs::write(&file, "0").unwrap();
        let told = Told::of(&file);
        for round in 1..4 {
            let new = folder.path().join(".catalog.json.new");
            fs::write(&new, round.to_string()).unwrap();
            fs::rename(&new, &file).unwrap();
            told.soon();
        }
    }

    /// As Kubernetes does it: a folder of each version, a link to it that is replaced whole,
    /// and links through that one.
    fn swap(mount: &Path, version: u32) {
        let name = format!("..version_{version}");
        fs::create_dir(mount.join(&name)).unwrap();
        fs::write(mount.join(&name).join("keys.json"), version.to_string()).unwrap();
        symlink(&name, mount.join("..data_tmp")).unwrap();
        let before = fs::read_link(mount.join("..data"));
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(mount.join(before)).unwrap();
        }
    }

    #[test]
    fn survives_one_swap_of_a_mounted_volume_after_another() {
        for watched in ["keys.json", "", "..data", "..data/keys.json"] {
            let mount = tempfile::tempdir().unwrap();
            swap(mount.path(), 0);
            symlink("..data/keys.json", mount.path().join("keys.json")).unwrap();
            let told = Told::of(&mount.path().join(watched));
            for version in 1..5 {
                swap(mount.path(), version);
                told.soon();
                assert_eq!(
                    fs::read_to_string(mount.path().join("keys.json")).unwrap(),
                    version.to_string(),
                    "{watched}"
                );
            }
        }
    }

    #[test]
    fn follows_a_folder_reached_through_a_link_that_moves() {
        let root = tempfile::tempdir().unwrap();
        for release in ["one", "two"] {
            fs::create_dir_all(root.path().join(release).join("policies")).unwrap();
        }
        symlink("one", root.path().join("current")).unwrap();
        let told = Told::of(&root.path().join("current/policies"));

        symlink("two", root.path().join("next")).unwrap();
        fs::rename(root.path().join("next"), root.path().join("current")).unwrap();
        told.soon();
        fs::write(root.path().join("two/policies/a.cedar"), "permit").unwrap();
        told.soon();
        fs::write(root.path().join("one/policies/a.cedar"), "nobody looks here any more").unwrap();
        told.not();
    }

    #[test]
    fn survives_a_folder_that_is_deleted_and_made_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/keys");
        fs::create_dir_all(&folder).unwrap();
        let told = Told::of(&folder);
        for gone in [folder.clone(), root.path().join("etc"), folder.clone()] {
            fs::remove_dir_all(&gone).unwrap();
            told.soon();
            fs::create_dir_all(&folder).unwrap();
            told.soon();
            fs::write(folder.join("one.json"), "{}").unwrap();
            told.soon();
        }
    }

    #[test]
    fn sees_what_is_made_in_one_breath_with_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("not/yet");
        let told = Told::of(&folder);
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        fs::write(folder.join("deep/er/one.cedar"), "1").unwrap();
        told.soon();
        fs::write(folder.join("deep/er/one.cedar"), "2").unwrap();
        told.soon();
    }

    #[test]
    fn tells_within_a_second_or_so_of_steady_change() {
        let folder = tempfile::tempdir().unwrap();
        let told = Told::of(folder.path());
        let begun = Instant::now();
        while told.calls.try_recv().is_err() {
            fs::write(folder.path().join("busy"), "x").unwrap();
            thread::sleep(Duration::from_millis(20));
            assert!(begun.elapsed() < Duration::from_secs(3), "steady change was never told");
        }
    }

    #[test]
    fn is_silent_once_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let Told { _watch: watch, calls } = Told::of(folder.path());
        drop(watch);
        fs::write(folder.path().join("late"), "x").unwrap();
        // The closure that tells is gone too, so the channel is closed, not merely empty.
        assert_eq!(calls.recv_timeout(Duration::from_secs(3)), Err(RecvTimeoutError::Disconnected));
    }
}

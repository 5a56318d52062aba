//! Where a change of some paths would show: which folders to watch, and what matters in them.
//!
//! A path leads through symbolic links, any of which may be replaced; so the folder of every link
//! on the way matters, and the folder that holds the end. Refuses to watch anything itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use walkdir::WalkDir;

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// The places in which some paths would change. All paths in it are free of symbolic links, up
/// to their last component.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// To be watched, each for itself.
    folders: BTreeSet<PathBuf>,
    /// Entries whose change matters.
    names: BTreeSet<PathBuf>,
    /// Folders in which everything matters.
    trees: BTreeSet<PathBuf>,
}

impl Places {
    /// Looks up where a change of these absolute paths would show, as things are now.
    pub(super) fn survey(paths: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for path in paths {
            places.trace(path);
        }
        places
    }

    /// The folders to watch.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(PathBuf::as_path)
    }

    /// Whether an event at `path` may be a change.
    pub(super) fn matter(&self, path: &Path) -> bool {
        self.names.contains(path)
            || self.folders.contains(path)
            || self.trees.iter().any(|tree| path.starts_with(tree))
    }

    /// Goes down `path` one component after another, as the operating system does.
    fn trace(&mut self, path: &Path) {
        let mut links = 0;
        let mut at = PathBuf::from("/");
        let mut ahead = Vec::new();
        push(path, &mut ahead);
        while let Some(name) = ahead.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match fs::symlink_metadata(&next) {
                Ok(entry) if entry.is_symlink() && links < MAX_LINKS => {
                    links += 1;
                    self.entry(&at, &next);
                    if let Ok(target) = fs::read_link(&next) {
                        if target.is_absolute() {
                            at = PathBuf::from("/");
                        }
                        push(&target, &mut ahead);
                    }
                }
                Ok(_) if ahead.is_empty() => {
                    self.entry(&at, &next);
                    self.tree(&next);
                    return;
                }
                Ok(_) => at = next,
                // Not there yet: its folder will tell when it is.
                Err(_) => return self.entry(&at, &next),
            }
        }
        // The path ended in `..` or at the root.
        self.tree(&at);
    }

    fn entry(&mut self, folder: &Path, name: &Path) {
        self.folders.insert(folder.to_owned());
        self.names.insert(name.to_owned());
    }

    /// Everything below, if it is a folder.
    fn tree(&mut self, path: &Path) {
        let below = WalkDir::new(path).follow_links(true).into_iter().flatten();
        self.folders
            .extend(below.filter(|entry| entry.file_type().is_dir()).map(walkdir::DirEntry::into_path));
        if path.is_dir() {
            self.trees.insert(path.to_owned());
        }
    }
}

/// Puts the components of `path` before those that are ahead already.
fn push(path: &Path, ahead: &mut Vec<OsString>) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    ahead.extend(names);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn follows_links_as_the_operating_system_does() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("a/b")).unwrap();
        fs::write(real.join("a/file"), "").unwrap();
        symlink("../a/b/../link", real.join("a/to")).unwrap();
        symlink(real.join("a/file"), real.join("a/link")).unwrap();

        let places = Places::survey(&[real.join("a/to")]);
        assert_eq!(places.folders().collect::<Vec<_>>(), [real.join("a")]);
        for name in ["a/to", "a/link", "a/file", "a"] {
            assert!(places.matter(&real.join(name)), "{name}");
        }
        assert!(!places.matter(&real.join("a/other")));
    }

    #[test]
    fn ends_on_links_that_go_round() {
        let root = tempfile::tempdir().unwrap();
        symlink("two", root.path().join("one")).unwrap();
        symlink("one", root.path().join("two")).unwrap();
        symlink(".", root.path().join("self")).unwrap();
        let paths = [root.path().join("one/x"), root.path().to_owned()];
        assert!(Places::survey(&paths).matter(&root.path().canonicalize().unwrap().join("one")));
    }
}

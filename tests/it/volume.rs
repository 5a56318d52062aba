//! A volume as Kubernetes mounts it from a ConfigMap or a Secret: each version has a folder of its
//! own, a `..data` link leads to the one in force and is replaced whole, and every file is a
//! link through it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(crate) struct Volume {
    mount: PathBuf,
    version: u32,
}

impl Volume {
    pub(crate) fn mount(mount: &Path, files: &[(&str, String)]) -> Self {
        // What was there before a volume was mounted over it.
        let _ = fs::remove_dir_all(mount);
        fs::create_dir_all(mount).unwrap();
        let mut volume = Self { mount: mount.to_owned(), version: 0 };
        volume.swap(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), mount.join(name)).unwrap();
        }
        volume
    }

    /// Replaces all files in one step.
    pub(crate) fn swap(&mut self, files: &[(&str, String)]) {
        self.version += 1;
        let name = format!("..version_{}", self.version);
        let folder = self.mount.join(&name);
        fs::create_dir(&folder).unwrap();
        for (file, content) in files {
            fs::write(folder.join(file), content).unwrap();
        }
        symlink(&name, self.mount.join("..data_tmp")).unwrap();
        let before = fs::read_link(self.mount.join("..data"));
        fs::rename(self.mount.join("..data_tmp"), self.mount.join("..data")).unwrap();
        if let Ok(before) = before {
            fs::remove_dir_all(self.mount.join(before)).unwrap();
        }
    }
}

//! Where a configuration is read from, again and again, and the files it was read from.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Config, Faults, layers};

/// The file of this process, found once, and its environment.
#[derive(Clone, Debug)]
pub struct Source {
    file: Option<PathBuf>,
}

/// A configuration, good or not, and the files that had a part in it.
#[derive(Debug)]
pub struct Reading {
    /// What was understood, or everything that is wrong with it.
    pub config: Result<Config, Faults>,
    /// Also of one that is wrong: when they change, it may be right.
    pub files: Files,
}

impl Source {
    /// `file`, else the file `COHORTD_CONFIG` names, else `./cohortd.toml` if there is one, else none.
    #[must_use]
    pub fn locate(file: Option<&Path>) -> Self {
        Self { file: layers::locate(file) }
    }

    /// The file, if there is one: else all comes from the environment.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, the environment, and the files that they name.
    #[must_use]
    pub fn read(&self) -> Reading {
        let environment = std::env::vars_os();
        Config::read(self.file.as_deref(), environment)
    }
}

/// The files that a configuration was read from, each as it was just before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Stamp>>);

impl Files {
    /// Notes a file that is about to be read, so that a change while it is read is one too.
    pub(super) fn note(&mut self, path: &Path) {
        self.0.entry(path.to_owned()).or_insert_with(|| Stamp::of(path));
    }

    /// The same files as they are now.
    #[must_use]
    pub fn now(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), Stamp::of(path))).collect())
    }
}

/// What tells one state of a file from another, whether it was written in place, replaced, or what a
/// link on the way to it points to was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None if it is not there, or is no regular file: what came through a pipe cannot come again.
    fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|of| Self {
            device: of.dev(),
            inode: of.ino(),
            bytes: of.size(),
            written: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("it is ours");
        let link = |target: &str, name: &str| symlink(target, path(name)).expect("it is ours");
        // As Kubernetes mounts a secret: the file is a link through a link to a folder.
        std::fs::create_dir(path("..1")).expect("it is ours");
        std::fs::create_dir(path("..2")).expect("it is ours");
        write("..1/token", "old");
        write("..2/token", "new");
        link("..1", "..data");
        link("..data/token", "token");
        write("plain", "old");
        let mut files = Files::default();
        for name in ["token", "plain", "missing"] {
            files.note(&path(name));
        }
        let mut has_changed = |what: &str, expected: bool| {
            let now = files.now();
            assert_eq!(now != files, expected, "{what}");
            files = now;
        };
        has_changed("nothing", false);
        write("plain", "longer");
        has_changed("written in place", true);
        write("beside", "longer");
        std::fs::rename(path("beside"), path("plain")).expect("it is ours");
        has_changed("replaced by one of the same size", true);
        link("..2", "..data_tmp");
        std::fs::rename(path("..data_tmp"), path("..data")).expect("it is ours");
        has_changed("a link on the way to it", true);
        write("missing", "");
        has_changed("there now", true);
        std::fs::remove_file(path("missing")).expect("it is ours");
        has_changed("gone", true);
        has_changed("nothing since", false);
    }

    #[test]
    fn a_file_is_noted_as_it_was_before_it_was_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "old").expect("it is ours");
        let mut files = Files::default();
        files.note(&path);
        std::fs::write(&path, "newer").expect("it is ours");
        files.note(&path); // a second key names it too
        assert_ne!(files, files.now());
    }
}

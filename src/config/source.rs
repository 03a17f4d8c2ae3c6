//! Where a configuration is read from, so that it can be read again, and the files it was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Config, Faults, layers};

/// The configuration file, located once. Reading also uses the environment.
#[derive(Clone, Debug)]
pub struct Source {
    file: Option<PathBuf>,
    /// Where a file was looked for but not found.
    looked_for: Vec<PathBuf>,
}

/// What a configuration was read from, for people, who may have expected another file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadFrom {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Where a file was looked for but not found.
    pub looked_for: Vec<PathBuf>,
    /// The names of environment variables that set a key. Their values may be secrets.
    pub variables: Vec<String>,
}

impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.variables.join(", ");
        match (&self.file, &self.variables[..]) {
            (Some(file), []) => return write!(f, "read from {}", absolute(file).display()),
            (Some(file), _) => {
                return write!(f, "read from {} and {variables}", absolute(file).display());
            }
            (None, []) => f.write_str("read from no file and no COHORTD_ variable")?,
            (None, _) => write!(f, "read from {variables}")?,
        }
        let places: Vec<_> =
            self.looked_for.iter().map(|path| absolute(path).display().to_string()).collect();
        if !places.is_empty() {
            write!(f, "; there is no {}, and --config FILE names one", places.join(" and no "))?;
        }
        Ok(())
    }
}

impl ReadFrom {
    /// Keeps only the variables that set keys of one section.
    pub(super) fn only_of(mut self, section: &str) -> Self {
        let start = format!("COHORTD_{}__", section.to_uppercase());
        self.variables.retain(|name| name.starts_with(&start));
        self
    }
}

/// A path in quotes, as in a TOML file.
#[must_use]
pub fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// The absolute path, which does not depend on the reader's working directory.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The outcome of reading a configuration, and the files it was read from.
#[derive(Debug)]
pub struct Reading {
    /// The configuration, or all of its faults.
    pub config: Result<Config, Faults>,
    /// The files that were read, also if there are faults: the configuration may be valid once they change.
    pub files: Files,
    /// What it was read from.
    pub from: ReadFrom,
}

impl Source {
    /// Locates the configuration file: `file`, or else the one that `COHORTD_CONFIG` names, or else the
    /// first of `./cohortd.toml` and `/etc/cohortd/cohortd.toml` that exists, or else none.
    #[must_use]
    pub fn locate(file: Option<&Path>) -> Self {
        layers::locate(file)
    }

    /// Reads exactly `file`; without one, only the environment.
    pub(super) fn exactly(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), looked_for: Vec::new() }
    }

    /// No file: none of these exists.
    pub(super) fn none_of(looked_for: Vec<PathBuf>) -> Self {
        Self { file: None, looked_for }
    }

    /// Where a file was looked for but not found.
    pub(super) fn looked_for(&self) -> &[PathBuf] {
        &self.looked_for
    }

    /// The file, if there is one; otherwise everything comes from the environment.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file, the environment, and the files that they name.
    #[must_use]
    pub fn read(&self) -> Reading {
        Config::read(self, std::env::vars_os())
    }
}

/// The files that a configuration was read from, each with its state just before it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<Stamp>>);

impl Files {
    /// Records a file's state before it is read, so that a change during the reading is noticed later.
    pub(super) fn note(&mut self, path: &Path) {
        self.0.entry(path.to_owned()).or_insert_with(|| Stamp::of(path));
    }

    /// The present states of the same files.
    #[must_use]
    pub fn now(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), Stamp::of(path))).collect())
    }
}

/// Identifies the state of a file: it differs after a write in place, a replacement, or a change of a
/// symlink's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None if it is not there, or is no regular file: nothing else is read.
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
        // Kubernetes mounts a secret like this: the file is a symlink through a symlink to a folder.
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

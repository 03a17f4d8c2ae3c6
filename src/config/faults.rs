//! The faults of a configuration: all of them at once, by key path, never with a secret.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::exposure::exposure;
use super::fingerprint::Fingerprints;
use super::source::{Files, ReadFrom, Source};
use crate::regular_file;

/// Every fault of a configuration, printed as one block at start-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    faults: Vec<Fault>,
    /// Where the configuration was read.
    pub from: ReadFrom,
}

/// A single fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key's path, as in `delivery.max_batch`; if the fault is not a key's, the file's path.
    pub key: String,
    /// The value, if it may be shown; never that of a secret or of an unknown key.
    pub shown: Option<String>,
    /// What is wrong, and what would be right, in words.
    pub problem: String,
    /// The environment variable that would set the key, unless `problem` names it.
    pub variable: Option<String>,
}

impl Faults {
    /// The faults one by one, in the order in which the configuration is read.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// The same of a part of the configuration, which was read from there.
    pub(super) fn of(self, from: ReadFrom) -> Self {
        Self { from, ..self }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "config: {count} problem{}", if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        write!(f, "\n{}", self.from)
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(shown) = &self.shown {
            write!(f, " = {shown}")?;
        }
        write!(f, "   {}", self.problem)?;
        match &self.variable {
            Some(variable) => write!(f, "   [{variable}]"),
            None => Ok(()),
        }
    }
}

/// The environment variable that sets the key at `path`.
pub(super) fn variable(path: &str) -> String {
    format!("COHORTD_{}", path.to_uppercase().replace('.', "__"))
}

/// The list that every section pushes its faults to, so that one pass finds all of them.
#[derive(Debug, Default)]
pub(super) struct Report {
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<String>>,
    files: RefCell<Files>,
    fingerprints: RefCell<Fingerprints>,
    /// The configuration file and what others can do to it, if its permissions let them.
    exposed_file: RefCell<Option<(String, String)>>,
    from: RefCell<ReadFrom>,
    /// Where relative paths of the file begin.
    base: RefCell<PathBuf>,
    /// Whoever needs little of the configuration leaves other faults to those who need it all.
    only_unknown_keys: bool,
}

impl Report {
    /// One that takes no faults but unknown keys.
    pub(super) fn of_unknown_keys() -> Self {
        Self { only_unknown_keys: true, ..Self::default() }
    }

    /// What is about to be read.
    pub(super) fn reads(&self, source: &Source) {
        let mut from = self.from.borrow_mut();
        from.file = source.file().map(Path::to_owned);
        from.looked_for = source.looked_for().to_vec();
        // Of the file as it was named, link or not: beside that its owner has put what it names.
        let base = source.file().and_then(Path::parent);
        self.base.replace(base.map(Path::to_owned).unwrap_or_default());
    }

    /// Records a variable that sets a key.
    pub(super) fn reads_variable(&self, name: &str) {
        let mut from = self.from.borrow_mut();
        from.variables.push(name.to_owned());
        from.variables.sort_unstable();
    }

    /// What was read so far.
    pub(super) fn from(&self) -> ReadFrom {
        self.from.borrow().clone()
    }

    /// A path as the file means it: relative to the file.
    pub(super) fn beside_the_file(&self, path: &str) -> PathBuf {
        self.base.borrow().join(path)
    }

    /// Reads the configuration file itself, which may hold secrets.
    pub(super) fn read_configuration(&self, path: &Path) -> io::Result<String> {
        let text = self.read_text(path)?;
        let exposure = exposure(path).map(|exposure| (path.display().to_string(), exposure));
        self.exposed_file.replace(exposure);
        Ok(text)
    }

    /// The configuration file and what others can do to it, if its permissions let them.
    pub(super) fn exposed_file(&self) -> Option<(String, String)> {
        self.exposed_file.borrow().clone()
    }

    /// Reads a file that the configuration consists of or names. All such reads go through here.
    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow_mut().note(path);
        regular_file::read(path)
    }

    /// Records a faulty file: the configuration may become valid when it changes.
    pub(super) fn note(&self, path: &Path) {
        self.files.borrow_mut().note(path);
    }

    /// Like [`read`](Self::read), for a text file.
    pub(super) fn read_text(&self, path: &Path) -> io::Result<String> {
        text(self.read(path)?)
    }

    /// Computes the fingerprints of all keys, before the files that keys name are read.
    pub(super) fn fingerprint(&self, tree: &serde_json::Value) {
        self.fingerprints.replace(Fingerprints::of(tree));
    }

    /// Adds the contents of the file that the key at `path` names to the key's fingerprint.
    pub(super) fn mix(&self, path: String, bytes: &[u8]) {
        self.fingerprints.borrow_mut().mix(path, bytes);
    }

    /// The files and fingerprints gathered so far.
    pub(super) fn gathered(&self) -> (Files, Fingerprints) {
        (self.files.take(), self.fingerprints.take())
    }

    /// A fault of the key at `path`.
    pub(super) fn fault(&self, path: &str, shown: Option<String>, problem: impl Into<String>) {
        // An element of a list of sections has no variable.
        let variable = (!path.contains('[')).then(|| variable(path));
        self.push(Fault { key: path.to_owned(), shown, problem: problem.into(), variable });
    }

    /// A fault of something that no environment variable sets.
    pub(super) fn fault_of(&self, what: impl Into<String>, problem: impl Into<String>) {
        self.push(Fault { key: what.into(), shown: None, problem: problem.into(), variable: None });
    }

    /// The fault of a key that there is not.
    pub(super) fn unknown_key(&self, path: String, problem: String) {
        let fault = Fault { key: path, shown: None, problem, variable: None };
        self.faults.borrow_mut().push(fault);
    }

    fn push(&self, fault: Fault) {
        if !self.only_unknown_keys {
            self.faults.borrow_mut().push(fault);
        }
    }

    /// Something legal that its owner should know of.
    pub(super) fn warn(&self, path: &str, text: &str) {
        self.warnings.borrow_mut().push(format!("{path}: {text}"));
    }

    /// Whether no key below `path` is faulty: only then does a check between keys make sense.
    pub(super) fn is_clean(&self, path: &str) -> bool {
        let below = format!("{path}.");
        !self.faults.borrow().iter().any(|fault| fault.key == path || fault.key.starts_with(&below))
    }

    /// The warnings, if there was no fault.
    pub(super) fn finish(self) -> Result<Vec<String>, Faults> {
        let (faults, from) = (self.faults.into_inner(), self.from.into_inner());
        if faults.is_empty() {
            Ok(self.warnings.into_inner())
        } else {
            Err(Faults { faults, from })
        }
    }
}

/// Converts a file's contents to text.
pub(super) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_reads_as_operators_know_it() {
        let report = Report::default();
        let problem = "is below retry_floor_ms (500)";
        report.fault("delivery.retry_ceiling_ms", Some("200".into()), problem);
        report.fault_of("cohortd.toml", "cannot be read");
        let faults = report.finish().expect_err("two faults were pushed");
        assert_eq!(
            faults.to_string(),
            "config: 2 problems\n  \
             delivery.retry_ceiling_ms = 200   is below retry_floor_ms (500)   \
             [COHORTD_DELIVERY__RETRY_CEILING_MS]\n  \
             cohortd.toml   cannot be read\n\
             read from no file and no COHORTD_ variable"
        );
    }
}

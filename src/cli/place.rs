//! Whether a daemon could use the place of its ledger, found out without changing anything there.

use std::path::Path;

use rustix::fs::{Access, access};

use super::Exit;
use crate::config::{LedgerDirectory, LedgerPlace, absolute, quoted};
use crate::ledger::{self, OpenError, Seen};
use crate::operate::logging::chain;

/// Why a start is refused: there is a ledger where a relative path used to lead, and none where it leads
/// now. Starting would create an empty ledger.
pub(super) fn left_behind(place: &LedgerDirectory) -> Option<String> {
    let once = place.once.as_deref().filter(|once| ledger::is_there(once))?;
    if ledger::is_there(&place.path) {
        return None;
    }
    let (old, new) = (absolute(once), absolute(&place.path));
    Some(format!(
        "there is no ledger at {}, which is where ledger.path points: paths in the configuration \
         file are relative to that file. There is one at {}, where the same path leads from the \
         working directory. Set ledger.path = {}, or move that directory to {} while no daemon \
         runs",
        new.display(),
        old.display(),
        quoted(&old),
        new.display()
    ))
}

/// Where the ledger is, for people: no user, no password.
pub(super) fn shown(place: &LedgerPlace) -> String {
    match place {
        LedgerPlace::Directory(directory) => absolute(&directory.path).display().to_string(),
        LedgerPlace::Database(address) => address.to_string(),
    }
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    pub words: String,
    /// A daemon has it.
    pub is_in_use: bool,
}

/// Why a daemon of this user could not use the place, in words, and how a start would end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfNoUse {
    pub words: String,
    pub exit: Exit,
}

impl From<String> for OfNoUse {
    fn from(words: String) -> Self {
        Self { words, exit: Exit::Unavailable }
    }
}

impl From<OpenError> for OfNoUse {
    fn from(error: OpenError) -> Self {
        Self { words: chain(&error), exit: Exit::of(&error) }
    }
}

/// What is there, or why a daemon of this user could not use it.
pub(super) fn tried(directory: &Path) -> Result<Tried, OfNoUse> {
    let directory = absolute(directory);
    let free = |words: String| Ok(Tried { words, is_in_use: false });
    let may = |path: &Path, how| {
        access(path, how).map_err(|error| {
            let user = rustix::process::geteuid().as_raw();
            format!("{} cannot be used by this user ({user}): {error}", path.display())
        })
    };
    let all = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    // The deepest directory that exists: a start creates those below it.
    let there = directory.ancestors().find(|path| path.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("/"));
    match there.metadata() {
        Ok(found) if !found.is_dir() => {
            return Err(format!("{} is not a directory", there.display()).into());
        }
        Err(error) => return Err(format!("{} cannot be used: {error}", there.display()).into()),
        Ok(_) => may(there, all)?,
    }
    if !ledger::is_there(&directory) {
        ledger::may_begin(&directory)?;
        return match ledger::still_around(&directory) {
            Some(around) => {
                ledger::look(&around)?;
                free(format!("it is still in {}; the next start moves it here", around.display()))
            }
            None => free("none yet; the next start creates it".to_owned()),
        };
    }
    let database = ledger::database(&directory);
    if !database.exists() {
        return free("a restore was interrupted; the next start completes it".to_owned());
    }
    may(&database, Access::READ_OK | Access::WRITE_OK)?;
    ledger::may_begin(&directory)?;
    if database.metadata().is_ok_and(|file| file.len() == 0) {
        return free("none yet; the next start creates it".to_owned());
    }
    Ok(match ledger::look(&directory)? {
        Seen::Free => Tried { words: "there is one".to_owned(), is_in_use: false },
        Seen::InUse => {
            Tried { words: "there is one, in use by a daemon".to_owned(), is_in_use: true }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock::SystemClock;
    use crate::ledger::{EmbeddedLedger, Retention, Settings};

    fn words(directory: &Path) -> Result<String, (Exit, String)> {
        tried(directory).map(|tried| tried.words).map_err(|of| (of.exit, of.words))
    }

    fn is_refused(directory: &Path, exit: Exit, why: &str) {
        let (code, words) = words(directory).expect_err(why);
        assert!(code == exit && words.contains(why), "{code:?}: {words}");
    }

    #[test]
    fn a_place_is_tried_without_making_anything() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").expect("it is ours");
        let none = "none yet; the next start creates it".to_owned();
        assert_eq!(words(&at("a/b")), Ok(none.clone()));
        is_refused(&at("file"), Exit::Unavailable, "file is not a directory");
        is_refused(&at("file/ledger"), Exit::Unavailable, "file is not a directory");
        std::fs::create_dir(at("ledger")).expect("it is ours");
        std::fs::write(at("ledger/ledger.db"), "").expect("it is ours");
        assert_eq!(words(&at("ledger")), Ok(none.clone()), "a start was killed before it was one");
        std::fs::create_dir_all(at("new/restoring")).expect("it is ours");
        assert_eq!(words(&at("new")), Ok(none), "it never counted");
        std::fs::create_dir(at("new/restored")).expect("it is ours");
        std::fs::write(at("new/restored/ledger.db"), "").expect("it is ours");
        assert!(
            words(&at("new")).is_ok_and(|words| words.starts_with("a restore was interrupted"))
        );
        assert!(!at("a").exists());
    }

    #[test]
    fn none_is_begun_beside_one_that_was_set_aside_or_around_one_that_is_meant() {
        for other in ["ledger", "before-restore-1"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let other = folder.path().join(other);
            std::fs::create_dir(&other).expect("it is ours");
            std::fs::write(other.join("ledger.db"), "its tables").expect("it is ours");
            let database = folder.path().join("ledger.db");
            for content in [None, Some("")] {
                if let Some(text) = content {
                    std::fs::write(&database, text).expect("it is ours");
                }
                let why = format!("one at {}", other.display());
                is_refused(folder.path(), Exit::BadUsage, &why);
            }
        }
    }

    #[test]
    fn no_ledger_is_begun_among_what_is_not_its_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["lock", ".snapshots", "lost+found"] {
            std::fs::write(folder.path().join(name), "").expect("it is ours");
        }
        assert!(words(folder.path()).is_ok());
        for name in ["a", "b", "c", "d"] {
            std::fs::write(folder.path().join(name), "").expect("it is ours");
        }
        is_refused(folder.path(), Exit::BadUsage, "it is not empty: a, b, c and 1 more. ");
    }

    fn open(path: &Path) -> Result<EmbeddedLedger, OpenError> {
        let kept = Retention { max_age: Duration::MAX, max_count: 1, max_bytes: 1 };
        let settings = Settings {
            path: path.to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: Duration::MAX,
            rejected: kept,
            parked: kept,
            max_audiences: 1,
            check_every: Duration::MAX,
            destinations: Vec::new(),
        };
        EmbeddedLedger::open(settings, Arc::new(SystemClock)).map(|(ledger, _)| ledger)
    }

    /// Names, contents and times of everything in a directory.
    fn state(directory: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
        let entries = std::fs::read_dir(directory).expect("it is there").flatten();
        let known = |entry: std::fs::DirEntry| {
            let changed = entry.metadata().expect("it is there").modified().expect("it has one");
            let content = std::fs::read(entry.path()).expect("it is ours");
            (entry.file_name().display().to_string(), (content, changed))
        };
        entries.map(known).collect()
    }

    type Change = (&'static str, fn(&mut Vec<u8>), Option<(Exit, &'static str)>);

    /// Whatever a start would say of what is there, and not a byte of it changes.
    #[test]
    fn a_ledger_is_looked_at_as_a_start_would_and_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sound = folder.path().join("sound");
        let ledger = open(&sound).expect("a new one");
        let before = state(&sound);
        let running = tried(&sound).expect("it is sound");
        assert!(running.is_in_use && running.words.ends_with("in use by a daemon"), "{running:?}");
        assert_eq!(state(&sound), before);
        drop(ledger); // as after a kill: its log stays
        let table: [Change; 6] = [
            ("as it was", |_| {}, None),
            (
                "cut",
                |bytes| bytes.truncate(bytes.len() / 2),
                Some((Exit::Internal, "the database has ")),
            ),
            (
                "cut to nearly nothing",
                |bytes| bytes.truncate(50),
                Some((Exit::Internal, "has only 50 bytes")),
            ),
            (
                "of a newer version",
                |bytes| bytes[60..64].copy_from_slice(&[0, 0, 0, 9]),
                Some((Exit::BadUsage, "schema version 9")),
            ),
            (
                "another one's",
                |bytes| bytes[68] = 0,
                Some((Exit::BadUsage, "is not a cohortd ledger")),
            ),
            ("damaged", |bytes| bytes[4096..].fill(0x55), Some((Exit::Internal, ""))),
        ];
        for (what, change, expected) in table {
            for with_log in [false, true] {
                let directory = folder.path().join(format!("{what} {with_log} 100% ?#"));
                std::fs::create_dir(&directory).expect("it is ours");
                let mut bytes = whole(&sound);
                change(&mut bytes);
                std::fs::write(directory.join("ledger.db"), bytes).expect("it is ours");
                if with_log {
                    std::fs::write(directory.join("ledger.db-wal"), "").expect("it is ours");
                }
                let before = state(&directory);
                match (words(&directory), expected) {
                    (Ok(words), None) => assert_eq!(words, "there is one"),
                    (Err((exit, words)), Some((expected, says))) => {
                        assert!(
                            exit == expected && words.contains(says),
                            "{what}: {exit:?} {words}"
                        );
                    }
                    (other, _) => panic!("{what}: {other:?}"),
                }
                assert_eq!(state(&directory), before, "{what}");
                let opened = open(&directory);
                assert_eq!(
                    opened.as_ref().err().map(Exit::of),
                    expected.map(|of| of.0),
                    "{what}: {opened:?}"
                );
            }
        }
        let killed = tried(&sound).expect("it is sound");
        assert!(!killed.is_in_use);
    }

    /// The database with what its log holds.
    fn whole(ledger: &Path) -> Vec<u8> {
        let copy = ledger.with_extension("whole");
        std::fs::remove_file(&copy).ok();
        ledger::backup(ledger, &copy).expect("it is sound");
        let mut bytes = std::fs::read(copy).expect("it is ours");
        bytes[18..20].copy_from_slice(&[2, 2]); // as a daemon writes it
        bytes
    }

    #[test]
    fn only_a_ledger_that_a_start_would_overlook_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["old", "new"] {
            std::fs::create_dir(at(name)).expect("it is ours");
        }
        let told = |once: Option<&str>| {
            left_behind(&LedgerDirectory { path: at("new"), once: once.map(at) })
        };
        assert_eq!(told(Some("old")), None, "there is none");
        std::fs::write(at("old/ledger.db"), "").expect("it is ours");
        assert_eq!(told(None), None);
        let words = told(Some("old")).expect("it would be overlooked");
        assert!(words.contains(&format!("Set ledger.path = {}", quoted(&at("old")))), "{words}");
        std::fs::write(at("new/ledger.db"), "").expect("it is ours");
        assert_eq!(told(Some("old")), None, "the new one is in use");
    }
}

//! Whether a daemon could use the place of its ledger, found out without changing anything there.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::config::{LedgerPlace, absolute, quoted};
use crate::ledger;
use crate::operate::logging::chain;

/// Why a start is refused: there is a ledger where a relative path used to lead, and none where it leads
/// now. Starting would create an empty ledger.
pub(super) fn left_behind(place: &LedgerPlace) -> Option<String> {
    let once = place.once.as_deref().filter(|once| ledger::is_there(once))?;
    if ledger::is_there(&place.path) {
        return None;
    }
    let (old, new) = (absolute(once), absolute(&place.path));
    Some(format!(
        "there is no ledger at {}, which is what ledger.path means: paths in the configuration file are relative \
         to that file. There is one at {}, where the same path led from the working directory. Set ledger.path = \
         {}, or move that directory to {} while no daemon runs",
        new.display(),
        old.display(),
        quoted(&old),
        new.display()
    ))
}

/// What is there, in words, or why a daemon of this user could not use it.
pub(super) fn tried(directory: &Path) -> Result<String, String> {
    let directory = absolute(directory);
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
        Ok(found) if !found.is_dir() => return Err(format!("{} is no directory", there.display())),
        Err(error) => return Err(format!("{} cannot be used: {error}", there.display())),
        Ok(_) => may(there, all)?,
    }
    if !ledger::is_there(&directory) {
        ledger::may_begin(&directory).map_err(|error| chain(&error))?;
        return Ok(match ledger::still_around(&directory) {
            Some(around) => format!("it is still in {}: a start moves it here", around.display()),
            None => "none yet: a start makes it".to_owned(),
        });
    }
    let database = ledger::database(&directory);
    if !database.exists() {
        return Ok("a restore was interrupted: a start finishes it".to_owned());
    }
    may(&database, Access::READ_OK | Access::WRITE_OK)?;
    ledger::may_begin(&directory).map_err(|error| chain(&error))?;
    Ok("there is one".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_tried_without_making_anything() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "").expect("it is ours");
        assert_eq!(tried(&at("a/b")), Ok("none yet: a start makes it".to_owned()));
        assert!(tried(&at("file")).is_err_and(|why| why.ends_with("file is no directory")));
        assert!(tried(&at("file/ledger")).is_err());
        std::fs::create_dir(at("ledger")).expect("it is ours");
        std::fs::write(at("ledger/ledger.db"), "").expect("it is ours");
        assert_eq!(tried(&at("ledger")), Ok("there is one".to_owned()));
        std::fs::create_dir_all(at("new/restoring")).expect("it is ours");
        assert_eq!(
            tried(&at("new")),
            Ok("none yet: a start makes it".to_owned()),
            "it never counted"
        );
        std::fs::create_dir(at("new/restored")).expect("it is ours");
        std::fs::write(at("new/restored/ledger.db"), "").expect("it is ours");
        assert!(
            tried(&at("new")).is_ok_and(|words| words.starts_with("a restore was interrupted"))
        );
        let below = at("ledger/ledger");
        assert!(tried(&below).is_ok_and(|words| words.starts_with("it is still in ")));
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
                let why = tried(folder.path()).expect_err("it would be overlooked");
                assert!(why.contains(&format!("one at {}", other.display())), "{why}");
            }
            std::fs::write(&database, "its tables").expect("it is ours");
            assert_eq!(tried(folder.path()), Ok("there is one".to_owned()));
        }
    }

    #[test]
    fn only_a_ledger_that_a_start_would_overlook_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["old", "new"] {
            std::fs::create_dir(at(name)).expect("it is ours");
        }
        let told =
            |once: Option<&str>| left_behind(&LedgerPlace { path: at("new"), once: once.map(at) });
        assert_eq!(told(Some("old")), None, "there is none");
        std::fs::write(at("old/ledger.db"), "").expect("it is ours");
        assert_eq!(told(None), None);
        let words = told(Some("old")).expect("it would be overlooked");
        assert!(words.contains(&format!("Set ledger.path = {}", quoted(&at("old")))), "{words}");
        std::fs::write(at("new/ledger.db"), "").expect("it is ours");
        assert_eq!(told(Some("old")), None, "the new one is in use");
    }
}

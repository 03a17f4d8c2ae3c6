//! A ledger that goes one directory down, as the image's did: from the mount point of its volume, where
//! things are that are not the ledger's (`lost+found`, a backup), into a directory of its own.
//!
//! A ledger's directory holds nothing that is not the ledger's. So where there is none yet in the directory
//! that is configured and is called `ledger`, and one in the directory around it, that one is meant.
//!
//! # What always holds
//! * Whatever ends the move, there is a whole ledger afterwards: its files have both names until the new
//!   directory is there, which comes into its place at one moment.
//! * Nobody has it meanwhile: the lock of the old place is held.
//! * A ledger that is there already is never touched.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ledger::embedded::directory::names::{self, DIRECTORY, LOCK};
use crate::ledger::embedded::directory::on_disk::{remove_if_there, sync, unusable};
use crate::ledger::embedded::directory::owner::Owner;
use crate::ledger::embedded::opening::interrupted::{self, MOVING};
use crate::ledger::embedded::opening::lock;
use crate::ledger::embedded::tables::open_error::OpenError;

/// Moves the ledger of the directory around `directory` into it, if there is one and none in `directory`;
/// finishes such a move.
pub(crate) fn take_in(directory: &Path) -> Result<(), OpenError> {
    let Some(around) = around(directory) else { return Ok(()) };
    if has_moved(&around, directory) {
        return finish(&around, directory);
    }
    if !is_to_be_moved(&around, directory) {
        return Ok(());
    }
    let lock = lock::take(&around)?;
    let moving = around.join(MOVING);
    if moving.exists() {
        take_back(&moving, &around)?;
    }
    let owner = Owner::of(&around).map_err(unusable(&around))?;
    owner.make_directory(&moving).map_err(unusable(&moving))?;
    for name in interrupted::files() {
        let old = around.join(name);
        if old.exists() {
            fs::hard_link(&old, moving.join(name)).map_err(unusable(&old))?;
        }
    }
    sync(&moving)?;
    fs::rename(&moving, directory).map_err(unusable(directory))?;
    sync(&around)?;
    finish(&around, directory)?;
    drop(lock);
    let (from, to) = (around.display(), directory.display());
    tracing::warn!(%from, %to, "the ledger was in the parent of its own directory and has been moved");
    Ok(())
}

/// Takes away the names that an earlier start has given, and nothing else. Where the ledger has been used in its old
/// place since, what was taken away there is in its database.
fn take_back(moving: &Path, around: &Path) -> Result<(), OpenError> {
    let has_same_database = is_same(&names::database(moving), &names::database(around));
    let database_last = interrupted::files().skip(1).chain(interrupted::files().take(1));
    for name in database_last {
        if has_same_database {
            remove_if_there(&moving.join(name))?;
        } else {
            take_away(name, moving, around)?;
        }
    }
    Ok(fs::remove_dir(moving).map_err(unusable(moving))?)
}

/// Takes along the ledgers that a restore has set aside, and then the old names away, that of the database first:
/// without it nobody opens what is left. Another start may be doing the same.
fn finish(around: &Path, directory: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(around).map_err(unusable(around))? {
        let entry = entry.map_err(unusable(around))?;
        if interrupted::is_set_aside(&entry.file_name()) {
            take_along(&entry.path(), directory)?;
        }
    }
    sync(directory)?;
    sync(around)?;
    let mut old_names = interrupted::files();
    old_names.next().map_or(Ok(()), |database| take_away(database, around, directory))?;
    remove_if_there(&around.join(LOCK))?;
    interrupted::remove_streamed(around)?;
    old_names.try_for_each(|name| take_away(name, around, directory))?;
    Ok(sync(around)?)
}

/// Takes one name away, if the file has it in the other directory too.
fn take_away(name: &str, from: &Path, other: &Path) -> Result<(), OpenError> {
    let old = from.join(name);
    if is_same(&old, &other.join(name)) {
        remove_if_there(&old)?;
    }
    Ok(())
}

/// Under its own name, or the next one that is free.
fn take_along(aside: &Path, directory: &Path) -> Result<(), OpenError> {
    let name = aside.file_name().unwrap_or_default();
    let mut new = directory.join(name);
    if new.exists() {
        new = interrupted::next_aside(directory)?;
    }
    match fs::rename(aside, &new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => Ok(moved.map_err(unusable(&new))?),
    }
}

/// Where the ledger is that a start moves into `directory`, if there is one.
#[must_use]
pub fn still_around(directory: &Path) -> Option<PathBuf> {
    around(directory).filter(|around| is_to_be_moved(around, directory))
}

fn is_to_be_moved(around: &Path, directory: &Path) -> bool {
    let is_there = names::database(around).is_file() || interrupted::has_counted(around);
    is_there && !names::database(directory).exists()
}

/// Whether a move was interrupted after it counted.
fn has_moved(around: &Path, directory: &Path) -> bool {
    interrupted::files().any(|name| is_same(&around.join(name), &directory.join(name)))
}

/// Whether they are two names of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |of: Metadata| (of.dev(), of.ino());
    let look = |path: &Path| fs::symlink_metadata(path).ok().map(identity);
    look(one).is_some_and(|one| look(other) == Some(one))
}

fn around(directory: &Path) -> Option<PathBuf> {
    if directory.file_name()? != DIRECTORY {
        return None;
    }
    let around = directory.parent()?;
    Some(if around == Path::new("") { PathBuf::from(".") } else { around.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume on whose top there is what a ledger consists of, and what is not the ledger's.
    fn volume() -> tempfile::TempDir {
        let volume = tempfile::tempdir().expect("a temporary directory");
        for name in ["ledger.db", "ledger.db-wal", "journal-1", "lock", "backup.db"] {
            fs::write(volume.path().join(name), name).expect("it is ours");
        }
        for name in ["before-restore-1", "lost+found"] {
            fs::create_dir(volume.path().join(name)).expect("it is ours");
        }
        volume
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("it is there").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn is_moved(volume: &Path) {
        assert_eq!(names(volume), ["backup.db", "ledger", "lost+found"]);
        let inside = ["before-restore-1", "journal-1", "ledger.db", "ledger.db-wal"];
        assert_eq!(names(&volume.join("ledger")), inside);
    }

    #[test]
    fn a_ledger_goes_down_as_a_whole_and_what_is_not_its_own_stays() {
        let volume = volume();
        let directory = volume.path().join("ledger");
        for _ in 0..2 {
            take_in(&directory).expect("it can be moved");
            is_moved(volume.path());
        }
    }

    #[test]
    fn an_interrupted_move_is_begun_again_or_finished() {
        let volume = volume();
        let (moving, directory) = (volume.path().join(MOVING), volume.path().join("ledger"));
        fs::create_dir(&moving).expect("it is ours");
        let link = |name: &str, into: &Path| {
            fs::hard_link(volume.path().join(name), into.join(name)).expect("it is ours");
        };
        link("ledger.db", &moving);
        // and no further; a daemon of before has used the ledger since
        fs::write(moving.join("ledger.db-shm"), "").expect("it is ours");
        take_in(&directory).expect("it can be moved");
        is_moved(volume.path());

        for name in ["ledger.db-wal", "journal-1"] {
            fs::hard_link(directory.join(name), volume.path().join(name)).expect("it is ours");
        }
        take_in(&directory).expect("it can be finished");
        is_moved(volume.path());
    }

    #[test]
    fn a_ledger_whose_restore_was_interrupted_is_there_too() {
        let volume = volume();
        let at = |name: &str| volume.path().join(name);
        fs::create_dir_all(at("restored/before")).expect("it is ours");
        fs::rename(at("ledger.db"), at("restored/before/ledger.db")).expect("both are ours");
        fs::write(at("restored/ledger.db"), "the copy").expect("it is ours");
        assert_eq!(still_around(&at("ledger")).as_deref(), Some(volume.path()));
        take_in(&at("ledger")).expect("it can be moved");
        let text = fs::read_to_string(at("ledger/ledger.db")).expect("it is there");
        assert_eq!(text, "the copy");
        let inside = ["before-restore-1", "before-restore-2", "ledger.db"];
        assert_eq!(names(&at("ledger")), inside);
    }

    #[test]
    fn what_is_not_the_ledgers_own_is_never_lost() {
        let volume = volume();
        let at = |name: &str| volume.path().join(name);
        fs::write(at("streamed"), "of a backup that was killed").expect("it is ours");
        fs::create_dir(at(MOVING)).expect("it is ours");
        fs::write(at("moving/letters"), "somebody's").expect("it is ours");
        let refused = take_in(&at("ledger")).expect_err("that is not to be thrown away");
        assert!(matches!(&refused, OpenError::Directory { path, .. } if *path == at(MOVING)));
        assert!(at("moving/letters").exists() && at("ledger.db").exists());
        fs::rename(at(MOVING), at("letters")).expect("it is ours");
        take_in(&at("ledger")).expect("it can be moved");
        assert_eq!(names(volume.path()), ["backup.db", "ledger", "letters", "lost+found"]);
    }

    #[test]
    fn a_ledger_that_was_set_aside_takes_the_place_of_no_other() {
        let volume = volume();
        let at = |name: &str| volume.path().join(name);
        fs::write(at("before-restore-1/old"), "").expect("it is ours");
        take_in(&at("ledger")).expect("it can be moved");
        fs::create_dir(at("before-restore-1")).expect("it is ours");
        fs::write(at("before-restore-1/older"), "").expect("it is ours");
        fs::hard_link(at("ledger/journal-1"), at("journal-1")).expect("it is ours");
        take_in(&at("ledger")).expect("it can be finished");
        assert!(at("ledger/before-restore-1/old").exists());
        assert!(at("ledger/before-restore-2/older").exists());
    }

    #[test]
    fn a_second_ledger_below_the_first_is_another_one() {
        let volume = volume();
        let before = names(volume.path());
        take_in(&volume.path().join("staging")).expect("there is nothing to do");
        assert_eq!(names(volume.path()), before);
    }

    #[test]
    fn a_ledger_that_is_there_or_in_use_is_left_alone() {
        let volume = volume();
        let before = names(volume.path());
        let directory = volume.path().join("ledger");
        fs::create_dir(&directory).expect("it is ours");
        let lock = lock::take(volume.path()).expect("nobody has it");
        let refused = take_in(&directory).expect_err("it is in use");
        assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
        drop(lock);
        fs::write(directory.join("ledger.db"), "another").expect("it is ours");
        take_in(&directory).expect("there is nothing to do");
        assert_eq!(names(&directory), ["ledger.db"]);
        assert_eq!(names(volume.path()).len(), before.len() + 1);
    }
}

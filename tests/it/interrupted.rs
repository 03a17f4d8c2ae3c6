//! Killed at any system call that touches the ledger's directory, every operation that creates or replaces
//! a ledger leaves one that opens: either the old or the new one, complete (P1, P4).

pub mod moving;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::Value;

use crate::harness::{Installation, identify, launchdarkly};
use crate::needs::STRACE;

const NOW_MS: i64 = 1_750_000_000_000;
/// More kills than this mean that something never finishes.
const MOST: usize = 2000;
const SIGKILL: i32 = 9;

/// System calls that change a directory or a disk, and those in between. A question mark means: if the
/// machine has the call.
const CALLS: [&str; 28] = [
    "?open",
    "openat",
    "?creat",
    "?mkdir",
    "mkdirat",
    "?rename",
    "renameat",
    "?renameat2",
    "?unlink",
    "unlinkat",
    "?rmdir",
    "?link",
    "linkat",
    "write",
    "pwrite64",
    "?copy_file_range",
    "?sendfile",
    "ftruncate",
    "?fallocate",
    "fsync",
    "fdatasync",
    "?chmod",
    "fchmod",
    "?fchmodat",
    "?chown",
    "fchown",
    "fchownat",
    "flock",
];

/// File names that may be in the ledger's directory during an operation.
const NAMES: [&str; 9] = [
    "",
    "lock",
    "ledger.db",
    "ledger.db-journal",
    "ledger.db-wal",
    "ledger.db-shm",
    "journal-1",
    "journal-2",
    "journal-answered",
];

/// The n-th call of that name with which a command touches the ledger.
#[derive(Clone, Copy, Debug)]
struct Point {
    call: &'static str,
    number: usize,
}

/// Kills at each call of each name in turn, until a run finishes without reaching the call. `run` returns
/// whether it was killed. Returns the number of kills.
fn at_each_call(mut run: impl FnMut(Point) -> bool) -> usize {
    let mut kills = 0;
    for call in CALLS {
        let mut number = 1;
        while run(Point { call, number }) {
            (number, kills) = (number + 1, kills + 1);
            assert!(number < MOST, "{call} is called for ever");
        }
    }
    kills
}

/// The command line of a tracer that kills at a call if the call touches one of these directories or a
/// ledger's files in them.
fn killer(directories: &[PathBuf], at: Point, also: &[&str]) -> Vec<String> {
    let mut words = vec!["strace".to_owned()];
    words.extend(also.iter().map(|word| (*word).to_owned()));
    words.extend(["-f", "-qq", "-o", "/dev/null"].map(str::to_owned));
    for directory in directories {
        for name in NAMES {
            let path = directory.join(name);
            words
                .extend(["-P".to_owned(), path.display().to_string().trim_end_matches('/').into()]);
        }
    }
    let Point { call, number } = at;
    words.extend(["-e".to_owned(), format!("trace={call}")]);
    words.extend(["-e".to_owned(), format!("inject={call}:signal=SIGKILL:when={number}")]);
    words
}

/// A ledger's directory, and the directories that a restore creates in it.
fn of_a_restore(ledger: &Path) -> Vec<PathBuf> {
    let within = ["", "restoring", "restored", "restored/before", "before-restore-1"];
    within.map(|name| ledger.join(name)).into()
}

/// Runs a command and returns whether it was killed at the call; if not, it must have succeeded.
fn is_killed(installation: &Installation, at: Point, arguments: &[&str]) -> bool {
    let words = killer(&of_a_restore(&installation.ledger_path()), at, &[]);
    let output = installation.typing(&words, arguments).output().expect("strace is there");
    let is_killed = output.status.signal() == Some(SIGKILL);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(is_killed || output.status.success(), "{at:?}: {said}");
    is_killed
}

/// Every member as a line, except parked ones, which a start may remove for their age.
///
/// Only other processes open the ledger here: children that this process starts would inherit its locks.
fn members(installation: &Installation) -> BTreeSet<String> {
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let is_parked = line.get("parked").is_some();
        (!is_parked).then(|| {
            format!("{} {} {}", line["audience_id"], line["context_key"], line["included"])
        })
    };
    installation.types(None, &["ledger", "export"]).done().lines().filter_map(line).collect()
}

fn sound(installation: &Installation) {
    installation.types(None, &["ledger", "check"]).done();
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory of ours");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it is there");
        let there = to.join(entry.file_name());
        if entry.file_type().expect("it has one").is_dir() {
            copy_all(&entry.path(), &there);
        } else {
            std::fs::copy(entry.path(), there).expect("both are ours");
        }
    }
}

fn replace(ledger: &Path, with: &Path) {
    if ledger.exists() {
        std::fs::remove_dir_all(ledger).expect("it is ours");
    }
    copy_all(with, ledger);
}

/// The directories that a restore has set aside.
fn set_aside(ledger: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(ledger).expect("it is there");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it is there").path())
        .filter(|path| path.to_string_lossy().contains("/before-restore-"))
        .collect();
    found.sort();
    found
}

fn has_leftovers(ledger: &Path) -> bool {
    ["restoring", "restored"].iter().any(|name| ledger.join(name).exists())
}

/// An installation whose ledger has entries in SQLite's log and in its journal, a copy of that ledger, and
/// a backup of another ledger, with the contents of each.
struct Case {
    installation: Installation,
    old: PathBuf,
    old_members: BTreeSet<String>,
    new_members: BTreeSet<String>,
}

impl Case {
    async fn new() -> Self {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        for user in ["new-1", "new-2", "new-3"] {
            let answer = cohortd.post(&identify(user, "vip", true, NOW_MS)).await;
            assert_eq!(answer.expect("an answer").0, 200);
        }
        installation.types(None, &["ledger", "backup", "copy"]).done();
        assert!(cohortd.stop().0.success());
        let new_members = members(&installation);
        let recorded =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers/schema_4_journal_2");
        let old = installation.directory.path().join("old");
        copy_all(&recorded, &old);
        replace(&installation.ledger_path(), &old);
        let old_members = members(&installation);
        assert!(old_members.len() > 30 && new_members.len() == 3);
        replace(&installation.ledger_path(), &old);
        Self { installation, old, old_members, new_members }
    }

    /// Checks the ledger after a kill: it is either the old or the new one, complete, without a trace of
    /// the other. Returns whether it is the new one.
    fn is_new(&self, at: Point) -> bool {
        let ledger = self.installation.ledger_path();
        let found = members(&self.installation);
        assert!(!has_leftovers(&ledger), "{at:?}");
        let is_new = found == self.new_members;
        assert!(is_new || found == self.old_members, "{at:?}: {found:?}");
        is_new
    }

    fn restore(&self, from: &Path) {
        let from = from.to_str().expect("a text");
        self.installation.types(None, &["ledger", "restore", from]).done();
    }
}

async fn a_restore_that_is_killed_at_any_call_leaves_the_old_ledger_or_the_new_one() {
    let case = Case::new().await;
    let ledger = case.installation.ledger_path();
    let killed = case.installation.directory.path().join("killed");
    let backup = case.installation.directory.path().join("copy");
    let mut new = 0;
    let kills = at_each_call(|at| {
        replace(&ledger, &case.old);
        let was_killed = is_killed(&case.installation, at, &["ledger", "restore", "copy"]);
        replace(&killed, &ledger);
        // With a start in between …
        assert!(case.installation.start().stop().0.success(), "{at:?}");
        let is_new = case.is_new(at);
        sound(&case.installation);
        if !was_killed {
            assert!(is_new, "it said that it was done");
            return false;
        }
        // … and another restore after it.
        let before = set_aside(&ledger).len();
        case.restore(&backup);
        assert!(case.is_new(at), "{at:?}");
        assert_eq!(set_aside(&ledger).len(), before + 1, "what was there is never lost");
        // Another restore without a start in between.
        replace(&ledger, &killed);
        case.restore(&backup);
        assert!(case.is_new(at), "{at:?}");
        // Restores the old ledger from where it was set aside, including what was only in its journal.
        case.restore(&set_aside(&ledger)[0]);
        assert_eq!(members(&case.installation), case.old_members, "{at:?}");
        new += usize::from(is_new);
        true
    });
    note!("{kills} kills in a restore, {new} of them after it counted");
    assert!(kills > 25 && new > 5, "it was hardly traced");
}

async fn whoever_finishes_a_restore_may_be_killed_too() {
    let case = Case::new().await;
    let ledger = case.installation.ledger_path();
    // Killed right after counting: the next call would sync the directory.
    let unfinished = case.installation.directory.path().join("unfinished");
    let mut number = 1;
    while !ledger.join("restored").exists() {
        replace(&ledger, &case.old);
        let at = Point { call: "fsync", number };
        assert!(is_killed(&case.installation, at, &["ledger", "restore", "copy"]));
        number += 1;
    }
    replace(&unfinished, &ledger);
    let kills = at_each_call(|at| {
        replace(&ledger, &unfinished);
        let was_killed = is_killed(&case.installation, at, &["ledger", "check"]);
        assert!(case.is_new(at), "it has counted");
        assert_eq!(set_aside(&ledger).len(), 1);
        was_killed
    });
    note!("{kills} kills in a check that finishes a restore");
    assert!(kills > 15, "it was hardly traced");
}

/// Waits until the daemon is ready or has ended. Returns whether it is ready.
fn is_ready(daemon: &mut Child) -> bool {
    let log = daemon.stderr.take().expect("its log is piped");
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    lines.any(|line| line.contains("\"message\":\"ready\""))
}

/// Returns whether a starting daemon was killed at the call before it was ready; if not, it is killed now.
fn is_killed_starting(installation: &Installation, directories: &[PathBuf], at: Point) -> bool {
    // -D: the daemon is our child, and the tracer is the daemon's child.
    let words = killer(directories, at, &["-D"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut daemon = installation.wrapped(&words).spawn().expect("strace is there");
    let was_ready = is_ready(&mut daemon);
    let _ = daemon.kill(); // it may have been killed already
    let ended = daemon.wait().expect("it is our child");
    assert_eq!(ended.signal(), Some(SIGKILL), "{at:?}");
    !was_ready
}

async fn the_very_first_start_may_be_killed_at_any_call() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let ledger = installation.ledger_path();
    let killed = installation.directory.path().join("killed");
    let kills = at_each_call(|at| {
        if ledger.exists() {
            std::fs::remove_dir_all(&ledger).expect("it is ours");
        }
        if !is_killed_starting(&installation, &of_a_restore(&ledger), at) {
            return false;
        }
        if ledger.exists() {
            replace(&killed, &ledger);
            let checked = installation.types(None, &["ledger", "check"]);
            assert!(matches!(checked.code, 0 | 69), "{at:?}: {}", checked.complaint);
            replace(&ledger, &killed);
        }
        assert!(installation.start().stop().0.success(), "{at:?}");
        assert!(members(&installation).is_empty());
        sound(&installation);
        true
    });
    note!("{kills} kills in a first start");
    assert!(kills > 25, "it was hardly traced");
}

tests![
    a_restore_that_is_killed_at_any_call_leaves_the_old_ledger_or_the_new_one.needs(&STRACE),
    whoever_finishes_a_restore_may_be_killed_too.needs(&STRACE),
    the_very_first_start_may_be_killed_at_any_call.needs(&STRACE),
];

//! Killed at any system call that touches the old place of a ledger or the new one, a start that moves it leaves
//! one that opens, whole, with the ledgers that a restore had set aside (P1).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cohortd::sandbox::{Fault, StandIn};
use tempfile::TempDir;

use super::{MOST, NAMES, Point, at_each_call, copy_all, is_killed_starting, members, sound};
use crate::harness::{Installation, launchdarkly};
use crate::needs::STRACE;

/// What is on the volume and not the ledger's.
const NOT_ITS_OWN: [&str; 2] = ["backups", "lost+found"];
/// What is, and what a restore has put there.
const ASIDE: [&str; 2] = ["before-restore-1", "before-restore-2"];

/// An installation whose ledger is expected one directory below the top of the volume, where it was.
struct Volume {
    installation: Installation,
    /// As an earlier version left it when it was killed: members in its log and in its journal, some of them
    /// pending, and two ledgers that were set aside.
    old: TempDir,
    members: BTreeSet<String>,
    /// Takes nothing, so that who is pending stays so.
    _launchdarkly: StandIn,
}

/// Who waits to be told.
fn pending(installation: &Installation) -> BTreeSet<String> {
    let exported = installation.types(None, &["ledger", "export"]).done();
    exported.lines().filter(|line| line.contains("\"pending\":true")).map(str::to_owned).collect()
}

/// Whatever is in a directory, by its path from there.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let entry = entry.expect("it is there");
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            found.extend(
                contents(&entry.path()).into_iter().map(|(in_it, of)| (name.join(in_it), of)),
            );
        } else {
            found.insert(name, std::fs::read(entry.path()).expect("it is ours"));
        }
    }
    found
}

fn clear(directory: &Path) {
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it is there").path();
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            .expect("it is ours");
    }
}

impl Volume {
    async fn new() -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(|_| Fault::Answer { status: 503, headers: Vec::new(), body: None });
        let installation = Installation::new(&launchdarkly);
        let old = tempfile::tempdir().expect("a temporary directory");
        let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledgers");
        copy_all(&recorded.join("schema_4_journal_2"), old.path());
        for name in ASIDE {
            copy_all(&recorded.join("schema_4_journal_1"), &old.path().join(name));
        }
        for name in NOT_ITS_OWN {
            std::fs::create_dir(old.path().join(name)).expect("it is ours");
        }
        copy_all(old.path(), &installation.ledger_path());
        let members = members(&installation);
        assert!(members.len() > 30, "{members:?}");
        Self { installation, old, members, _launchdarkly: launchdarkly }
    }

    fn top(&self) -> &Path {
        self.installation.directory.path()
    }

    /// Puts it back to how it was before the first start of this version.
    fn reset(&self) {
        clear(self.top());
        copy_all(self.old.path(), self.top());
    }

    fn directories(&self) -> Vec<PathBuf> {
        let names = ["", "moving", "ledger"].into_iter().chain(ASIDE);
        names.map(|name| self.top().join(name)).collect()
    }

    /// Whether a start was killed there before it was ready.
    fn is_killed(&self, at: Point) -> bool {
        is_killed_starting(&self.installation, &self.directories(), at)
    }

    /// Whether the ledger has its new name.
    fn has_counted(&self) -> bool {
        self.installation.ledger_path().join("ledger.db").exists()
    }

    /// Nothing is lost or changed, and nothing left where it was.
    fn is_moved(&self, at: Point) {
        let ledger = self.installation.ledger_path();
        assert_eq!(members(&self.installation), self.members, "{at:?}");
        sound(&self.installation);
        assert!(!pending(&self.installation).is_empty(), "{at:?}");
        for name in ASIDE {
            let aside = ledger.join(name);
            assert!(aside.is_dir(), "{at:?}: {name}");
            assert_eq!(contents(&aside), contents(&self.old.path().join(name)), "{at:?}: {name}");
        }
        for name in ASIDE.into_iter().chain(NAMES).filter(|name| !name.is_empty()) {
            assert!(!self.top().join(name).exists(), "{at:?}: {name} is left");
        }
        assert!(!self.top().join("moving").exists(), "{at:?}");
        for name in NOT_ITS_OWN {
            assert!(self.top().join(name).exists(), "{at:?}: {name}");
        }
    }
}

async fn a_start_that_moves_the_ledger_may_be_killed_at_any_call() {
    let volume = Volume::new().await;
    let mut after = 0;
    let kills = at_each_call(|at| {
        volume.reset();
        let was_killed = volume.is_killed(at);
        after += usize::from(was_killed && volume.has_counted());
        assert!(volume.installation.start().stop().0.success(), "{at:?}");
        volume.is_moved(at);
        was_killed
    });
    note!("{kills} kills in a start that moves its ledger, {after} of them after the move counted");
    assert!(kills > 40 && after > 20, "it was hardly traced");
}

async fn a_start_that_finishes_a_move_may_be_killed_too() {
    let volume = Volume::new().await;
    let to_be_finished = |at| {
        volume.reset();
        volume.is_killed(at) && volume.has_counted()
    };
    // Killed right after it counted: its next call is to sync the directory.
    let mut points = (1..MOST).map(|number| Point { call: "fsync", number });
    let first = points.find(|at| to_be_finished(*at)).expect("it comes to that");
    let kills = at_each_call(|at| {
        assert!(to_be_finished(first));
        let was_killed = volume.is_killed(at);
        assert!(volume.installation.start().stop().0.success(), "{at:?}");
        volume.is_moved(at);
        was_killed
    });
    note!("{kills} kills in a start that finishes a move");
    assert!(kills > 20, "it was hardly traced");
}

tests![
    a_start_that_moves_the_ledger_may_be_killed_at_any_call.needs(&STRACE),
    a_start_that_finishes_a_move_may_be_killed_too.needs(&STRACE),
];

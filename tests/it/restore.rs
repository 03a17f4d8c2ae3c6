//! A restore stays within the ledger's own directory, and leaves it with the owner and modes it needs.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Installation, Typed, identify, launchdarkly};
use crate::needs::ROOT;

const NOW_MS: i64 = 1_750_000_000_000;
/// The owner of the daemon's files, while root runs the restore.
const SERVICE: u32 = 12_345;

fn ledger(installation: &Installation, arguments: &[&str]) -> Typed {
    let words: Vec<&str> = ["ledger"].into_iter().chain(arguments.iter().copied()).collect();
    installation.types(None, &words)
}

fn people(installation: &Installation) -> BTreeSet<String> {
    let key = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        line["context_key"].as_str().expect("a text").to_owned()
    };
    ledger(installation, &["export"]).done().lines().map(key).collect()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    entries
        .map(|entry| entry.expect("it is there").file_name().into_string().expect("text"))
        .collect()
}

/// Every path below a directory, and the directory itself.
fn all_of(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for entry in std::fs::read_dir(directory).expect("it is there") {
        let path = entry.expect("it is there").path();
        if path.is_dir() {
            found.extend(all_of(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A ledger that contains Eve and Ada, and a backup from before Ada.
async fn with_a_backup() -> Installation {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for user in ["eve", "ada"] {
        cohortd.post(&identify(user, "vip", true, NOW_MS)).await.expect("an answer");
        if user == "eve" {
            ledger(&installation, &["backup", "copy"]).done();
        }
    }
    assert!(cohortd.stop().0.success());
    installation
}

async fn nothing_is_made_beside_the_directory_and_each_ledger_that_was_there_is_kept() {
    let installation = with_a_backup().await;
    let around = installation.directory.path();
    let before = names(around);
    for number in 1..=3 {
        let said = ledger(&installation, &["restore", "copy"]).done();
        let kept = format!("before-restore-{number}");
        assert!(said.contains(&kept), "{said}");
        assert_eq!(people(&installation), ["eve".to_owned()].into());
        assert_eq!(names(around), before);
        assert!(installation.ledger_path().join(kept).join("ledger.db").exists());
    }
    let first = installation.ledger_path().join("before-restore-1");
    let first = first.to_str().expect("text");
    installation.write("copy-wal", "what was committed last");
    let part = ledger(&installation, &["restore", "copy"]);
    assert_eq!(part.code, 64, "{}", part.complaint);
    assert!(part.complaint.contains("name the directory"), "{}", part.complaint);
    std::fs::remove_file(around.join("copy-wal")).expect("it is ours");
    ledger(&installation, &["restore", first]).done();
    assert_eq!(people(&installation), ["ada".to_owned(), "eve".to_owned()].into());
    assert!(Path::new(first).join("ledger.db").exists(), "what is restored stays where it is");
    // The number of a removed directory is not reused.
    std::fs::remove_dir_all(first).expect("it is ours");
    let said = ledger(&installation, &["restore", "copy"]).done();
    assert!(!said.contains("before-restore-1"), "{said}");
    let own = installation.ledger_path();
    let own = ledger(&installation, &["restore", own.to_str().expect("text")]);
    assert_eq!(own.code, 69, "{}", own.complaint);
}

async fn root_leaves_everything_to_the_owner_of_the_ledger() {
    let installation = with_a_backup().await;
    let path = installation.ledger_path();
    for file in all_of(&path) {
        chown(file, Some(SERVICE), Some(SERVICE)).expect("root may");
    }
    ledger(&installation, &["restore", "copy"]).done();
    assert_eq!(people(&installation), ["eve".to_owned()].into());
    let copy = path.join("before-restore-1");
    ledger(&installation, &["restore", copy.to_str().expect("text")]).done();
    ledger(&installation, &["check"]).done();
    for file in all_of(&path) {
        let found = file.metadata().expect("it is there");
        assert_eq!((found.uid(), found.gid()), (SERVICE, SERVICE), "{}", file.display());
    }
    let mode = |name: &str| path.join(name).metadata().expect("it is there").permissions().mode();
    assert_eq!(mode("ledger.db") & 0o777, 0o600);
    assert_eq!(mode("before-restore-1") & 0o777, 0o700);
}

async fn root_restores_where_there_was_no_ledger_for_the_owner_of_the_volume() {
    let installation = with_a_backup().await;
    let path = installation.ledger_path();
    std::fs::remove_dir_all(&path).expect("it is ours");
    std::fs::create_dir(&path).expect("as a volume is");
    chown(&path, Some(SERVICE), Some(SERVICE)).expect("root may");
    ledger(&installation, &["restore", "copy"]).done();
    assert_eq!(names(&path), ["ledger.db".to_owned(), "lock".to_owned()].into());
    for file in all_of(&path) {
        let owner = file.metadata().expect("it is there").uid();
        assert_eq!(owner, SERVICE, "{}", file.display());
    }
    assert!(installation.start().stop().0.success());
}

async fn while_another_process_restores_nobody_starts_and_nobody_reads() {
    let installation = with_a_backup().await;
    let path = installation.ledger_path();
    let lock = std::fs::File::options().write(true).open(path.join("lock")).expect("it is there");
    lock.lock().expect("nobody has it");
    std::fs::create_dir(path.join("restoring")).expect("as a restore makes it");
    for words in
        [&["ledger", "export"][..], &["ledger", "check"], &["ledger", "restore", "copy"], &["run"]]
    {
        let refused = installation.types(None, words);
        assert_eq!(refused.code, 69, "{words:?}: {}", refused.complaint);
        assert!(refused.complaint.contains("in use by another process"), "{}", refused.complaint);
    }
    drop(lock);
    assert_eq!(people(&installation).len(), 2);
    assert!(!path.join("restoring").exists(), "it was never finished");
}

async fn a_database_that_has_gone_is_missed() {
    let installation = with_a_backup().await;
    let path = installation.ledger_path();
    std::fs::write(path.join("journal-1"), [0; 64]).expect("it is ours");
    std::fs::remove_file(path.join("ledger.db")).expect("it is there");
    let refused = installation.types(None, &["run"]);
    assert_eq!(refused.code, 70, "{}", refused.complaint);
    assert!(refused.complaint.contains("ledger.db is missing"), "{}", refused.complaint);
    ledger(&installation, &["restore", "copy"]).done();
    assert_eq!(people(&installation), ["eve".to_owned()].into());
}

tests![
    nothing_is_made_beside_the_directory_and_each_ledger_that_was_there_is_kept,
    root_leaves_everything_to_the_owner_of_the_ledger.needs(&ROOT),
    root_restores_where_there_was_no_ledger_for_the_owner_of_the_volume.needs(&ROOT),
    while_another_process_restores_nobody_starts_and_nobody_reads,
    a_database_that_has_gone_is_missed,
];

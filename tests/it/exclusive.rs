//! One daemon at a time on a ledger, only on a version it knows, and delivering only to the environment it
//! was told.

use cohortd::sandbox::{Account, StandIn};
use cohortd::secret::Secret;
use serde_json::Value;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

/// Runs a daemon that cannot start. Returns its exit code and its logged errors.
async fn refused(installation: &Installation) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::from(installation.command());
    let ending = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, ending).await.expect("it ends by itself");
    let output = output.expect("the daemon can be started");
    let log = String::from_utf8(output.stderr).expect("its log is text");
    let errors = log.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).expect("its log is JSON");
        line["level"] == "ERROR"
    });
    (output.status.code(), errors.collect::<Vec<_>>().join("\n"))
}

async fn a_second_daemon_on_a_ledger_ends_and_the_first_goes_on() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let first = installation.start();

    let (code, complaint) = refused(&installation).await;
    assert_eq!(code, Some(69), "{complaint}");
    let expected = format!(
        "cohortd ends: the ledger cannot be opened: the ledger at {} is in use by another process",
        installation.ledger_path().display()
    );
    assert!(complaint.contains(&expected), "{complaint}");

    let answer = first.post(&identify("ada", "vip", true, NOW_MS)).await;
    assert_eq!(answer.expect("the first one answers").0, 200);
    let has = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("the first one delivers");
    assert!(first.stop().0.success());
}

async fn a_killed_daemon_leaves_no_lock_behind() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    installation.start().kill();
    assert!(installation.start().stop().0.success());
}

async fn a_ledger_of_a_newer_version_is_refused_and_not_touched() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert!(cohortd.stop().0.success());

    let path = installation.ledger_path().join("ledger.db");
    let database = rusqlite::Connection::open(&path).expect("the ledger is there");
    database.pragma_update(None, "user_version", 1000).expect("nobody else has it");
    database.close().map_err(|(_, error)| error).expect("nothing is left to write");
    let before = std::fs::read(&path).expect("it is ours");

    let (code, complaint) = refused(&installation).await;
    assert_eq!(code, Some(64), "{complaint}");
    let expected = "the ledger has schema version 1000, this binary knows up to 7: \
                    run the version of cohortd that wrote it, or a newer one";
    assert!(complaint.contains(expected), "{complaint}");
    assert!(std::fs::read(&path).expect("it is still there") == before, "not one byte is changed");
}

/// Gives the last block of the journal another version, with a matching checksum.
fn of_version(version: u8, journal: &mut [u8], key: &[u8]) {
    let number_at = |at: usize, bytes: &[u8]| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
    };
    let (mut block, mut next) = (0, 0);
    while journal[next..].starts_with(b"cohortd") {
        block = next;
        next += 24 + number_at(block + 16, journal).next_multiple_of(8);
    }
    journal[block + 7] = version;
    let records = number_at(block + 16, journal);
    let mut sum = crc32fast::Hasher::new();
    for part in [b"journal", key, &journal[block + 7..block + 20]] {
        sum.update(part);
    }
    sum.update(&journal[block + 24..block + 24 + records]);
    journal[block + 20..block + 24].copy_from_slice(&sum.finalize().to_le_bytes());
}

async fn a_journal_of_a_newer_version_is_refused_and_not_touched() {
    const FILES: [&str; 4] = ["ledger.db", "ledger.db-wal", "journal-1", "journal-answered"];
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ledgers/schema_4_journal_2");
    for directory in [installation.directory.path().join("read"), installation.ledger_path()] {
        std::fs::create_dir(&directory).expect("it is ours");
        for name in FILES {
            let from = std::path::Path::new(recorded).join(name);
            std::fs::copy(from, directory.join(name)).expect("it is kept");
        }
    }
    let database = installation.directory.path().join("read/ledger.db");
    let database = rusqlite::Connection::open(database).expect("the ledger is there");
    let key: Vec<u8> = database
        .query_row("SELECT value FROM meta WHERE name = 'person_key'", [], |row| row.get(0))
        .expect("every ledger has one");
    let read = |name: &str| std::fs::read(installation.ledger_path().join(name)).expect("ours");
    let journal = installation.ledger_path().join("journal-1");
    let mut bytes = read("journal-1");
    of_version(2, &mut bytes, &key);
    assert!(bytes == read("journal-1"), "the checksum is as the daemon makes it");
    of_version(99, &mut bytes, &key);
    std::fs::write(&journal, &bytes).expect("it is ours");
    let before = FILES.map(read);

    let (code, complaint) = refused(&installation).await;
    assert_eq!(code, Some(64), "{complaint}");
    let expected = "the ledger's journal has format version 99, this binary knows up to 2: \
                    run the version of cohortd that wrote it, or a newer one";
    assert!(complaint.contains(expected), "{complaint}");
    for command in ["check", "export"] {
        let typed = installation.types(None, &["ledger", command]);
        assert_eq!(typed.code, 64, "{}", typed.complaint);
        assert!(typed.complaint.contains(expected), "{}", typed.complaint);
    }
    assert!(FILES.map(read) == before, "not one byte is changed");
}

async fn another_environment_is_told_everything() {
    const OTHER: &str = "64f0c0ffee-other";
    let account = |id: &str| Account {
        client_side_id: id.to_owned(),
        service_token: Secret::new(SERVICE_TOKEN),
    };
    let launchdarkly = StandIn::start(vec![account(ENVIRONMENT), account(OTHER)])
        .await
        .expect("a port on loopback is free");
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    // Enough members for several slices of a resync, posted in several requests.
    let events: Vec<Value> = (0..2500)
        .map(|user| {
            let audience = if user % 5 == 0 { "vip" } else { "beta_testers" };
            identify(&format!("user_{user}"), audience, user % 7 != 0, NOW_MS)
        })
        .collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &2500.into()));
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    assert!(launchdarkly.segments(OTHER).is_empty());

    installation.set("destinations.production.launchdarkly.client_side_id", OTHER);
    let cohortd = installation.start();
    let told = launchdarkly.segments(ENVIRONMENT);
    assert_eq!(told.values().map(|segment| segment.members.len()).sum::<usize>(), 2142);
    let same = |view: &cohortd::sandbox::View<'_>| view.segments(OTHER) == Some(&told);
    launchdarkly.until(DEADLINE, same).await.expect("the new environment becomes as the old");
    assert!(cohortd.stop().0.success());
    assert_eq!(launchdarkly.segments(ENVIRONMENT), told);
}

tests![
    a_second_daemon_on_a_ledger_ends_and_the_first_goes_on,
    a_killed_daemon_leaves_no_lock_behind,
    a_ledger_of_a_newer_version_is_refused_and_not_touched,
    a_journal_of_a_newer_version_is_refused_and_not_touched,
    another_environment_is_told_everything,
];

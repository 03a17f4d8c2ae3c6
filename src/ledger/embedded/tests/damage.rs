//! What is on the disk is not what was written: it is found and never used.

use std::ops::ControlFlow;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// A closed ledger with people who wait and people who were told, and where its file is.
async fn closed_ledger() -> (Bench, std::path::PathBuf) {
    let mut bench = Bench::new();
    bench.record((0..800).map(|n| delta("a", &format!("told{n}"), true, 1)).collect()).await;
    bench.drain(&mut BTreeMap::new()).await;
    bench.record((0..800).map(|n| delta("a", &format!("waits{n}"), true, 1)).collect()).await;
    bench.close().await;
    let path = bench.directory.path().join("ledger.db");
    alter(&path, "PRAGMA wal_checkpoint(TRUNCATE)");
    (bench, path)
}

fn alter(path: &Path, sql: &str) {
    let db = rusqlite::Connection::open(path).expect("it is ours");
    db.execute_batch(sql).expect("the tables are there");
}

#[tokio::test]
async fn a_start_refuses_what_is_cut_off_or_has_other_tables() {
    let alterations: [(&str, &str); 5] = [
        ("DROP INDEX member_pending", "member_pending is missing"),
        (
            "ALTER TABLE member RENAME COLUMN person TO somebody",
            "member is not as this version defines it",
        ),
        ("DROP TABLE forgotten", "forgotten is missing"),
        ("UPDATE audience SET audience_id = 'b'", "an audience does not match its checksum"),
        ("UPDATE destination SET environment = 'b'", "a destination does not match its checksum"),
    ];
    for (sql, words) in alterations {
        let (bench, path) = closed_ledger().await;
        alter(&path, sql);
        let error = bench.try_open().expect_err(sql);
        let said = crate::operate::logging::chain(&error);
        assert!(said.contains(words), "{sql}: {said}");
    }
    let (bench, path) = closed_ledger().await;
    let whole = std::fs::metadata(&path).expect("it is there").len();
    for length in [whole - 1, whole - 4096, 4096, 99] {
        let file = std::fs::File::options().write(true).open(&path).expect("it is ours");
        file.set_len(length).expect("it can be cut");
        assert!(matches!(bench.try_open(), Err(OpenError::Damaged(_))), "{length} of {whole}");
    }
}

#[tokio::test]
async fn a_member_that_is_not_as_it_was_written_ends_the_writer() {
    for sql in [
        "UPDATE member SET included = 0 WHERE context_key = 'waits0'",
        "UPDATE member SET event_at = event_at + 1 WHERE context_key = 'waits0'",
        "UPDATE member SET version = version - 1 WHERE context_key = 'waits0'",
        "UPDATE member SET context_key = 'waits0x' WHERE context_key = 'waits0'",
    ] {
        let (mut bench, path) = closed_ledger().await;
        alter(&path, sql);
        assert!(
            bench.faults().iter().any(|fault| fault.contains("does not match its checksum")),
            "{sql}"
        );
        bench.open();
        let claimed = bench.ledger.outbox(&destination()).claim(longest("a", 1000)).await;
        assert!(matches!(claimed, Err(LedgerError::Closed)), "{sql}: nobody is told");
        let ended = bench.writer.take().expect("it was opened").join().expect("no panic");
        let said = crate::operate::logging::chain(&ended.expect_err("the writer gives up"));
        assert!(said.contains("a member does not match its checksum"), "{said}");
        assert!(said.contains("restore a backup"), "{said}");
    }
}

#[tokio::test]
async fn what_a_reader_finds_damaged_ends_the_writer_too() {
    let mut bench = Bench::new();
    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: "None.".to_owned(),
        body: b"{}".to_vec(),
        user_id: None,
        event_at: START,
    };
    let intake = Intake { rejected: vec![event], ..intake(&*bench.ledger, Vec::new()) };
    bench.ledger.record(intake).await.expect("there is space");
    bench.close().await;
    alter(&bench.directory.path().join("ledger.db"), "UPDATE rejected SET body = X'7b7e'");
    bench.open();
    let read = bench.ledger.rejected(&destination(), 0, 10).await;
    assert!(matches!(read, Err(LedgerError::Closed)));
    let ended = bench.writer.take().expect("it was opened").join().expect("no panic");
    assert!(ended.is_err(), "and with it the daemon");
}

/// As a disk does that writes to the wrong place. What is found in the wrong order must not lead a walk in circles.
#[tokio::test]
async fn pages_in_the_wrong_place_do_not_keep_an_export_from_ending() {
    const PAGE: usize = 4096;
    const MEMBERS: usize = 1600;
    let (bench, path) = closed_ledger().await;
    let whole = std::fs::read(&path).expect("it is there");
    let pages = whole.len() / PAGE;
    let mut rng = StdRng::seed_from_u64(7);
    let mut out_of_order = 0;
    for _ in 0..400 {
        let [from, to] = [0; 2].map(|_| PAGE * rng.random_range(1..pages));
        let mut altered = whole.clone();
        altered.copy_within(from..from + PAGE, to);
        std::fs::write(&path, altered).expect("it is ours");
        let mut exported = 0;
        let ended = export(bench.directory.path(), None, |_| {
            exported += 1;
            if exported > MEMBERS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(exported <= MEMBERS, "page {} in the place of {}", from / PAGE, to / PAGE);
        let said = ended.err().map(|error| crate::operate::logging::chain(&error));
        out_of_order += usize::from(said.is_some_and(|said| said.contains("out of order")));
    }
    assert!(out_of_order > 0, "it was never needed");
}

#[tokio::test]
async fn the_background_check_reads_what_nobody_asks_for() {
    let (mut bench, path) = closed_ledger().await;
    alter(&path, "UPDATE member SET told_at = told_at + 1 WHERE context_key = 'told5'");
    bench.check_every = Duration::from_millis(1);
    bench.open();
    let writer = bench.writer.take().expect("it was opened");
    let ended = tokio::task::spawn_blocking(|| writer.join().expect("no panic"));
    let ended = tokio::time::timeout(DEADLINE, ended).await.expect("in time").expect("no panic");
    let said = crate::operate::logging::chain(&ended.expect_err("the writer gives up"));
    assert!(said.contains("a member does not match its checksum"), "{said}");
}

#[tokio::test]
async fn the_background_check_finds_who_is_missing_in_an_index() {
    for (index, emptied) in
        [("member_pending", "pending_since < 0"), ("member_person", "person < X'00'")]
    {
        let mut bench = Bench::new();
        let under_email =
            MembershipDelta { user_id: UserId::new("u1"), ..delta("a", "u1@example.com", true, 1) };
        bench.record(vec![under_email]).await;
        bench.close().await;
        let path = bench.directory.path().join("ledger.db");
        let sql: String = rusqlite::Connection::open(&path)
            .and_then(|db| {
                let named = "SELECT sql FROM sqlite_schema WHERE name = ?1";
                db.query_row(named, [index], |row| row.get(0))
            })
            .expect("it is there");
        let condition = sql.split("WHERE ").nth(1).expect("it is a part of the table");
        let define = |sql: &str| {
            let sql = sql.replace('\'', "''");
            alter(
                &path,
                &format!(
                    "PRAGMA writable_schema = ON;
                     UPDATE sqlite_schema SET sql = '{sql}' WHERE name = '{index}';"
                ),
            );
        };
        define(&sql.replace(condition, emptied));
        alter(&path, &format!("REINDEX {index}"));
        define(&sql);
        assert!(bench.faults().iter().any(|fault| fault.contains("missing from index")));
        bench.check_every = Duration::from_millis(1);
        bench.open();
        let writer = bench.writer.take().expect("it was opened");
        let ended = tokio::task::spawn_blocking(|| writer.join().expect("no panic"));
        let ended =
            tokio::time::timeout(DEADLINE, ended).await.expect("in time").expect("no panic");
        let said = crate::operate::logging::chain(&ended.expect_err("the writer gives up"));
        assert!(said.contains(&format!("the index {index}")), "{said}");
    }
}

/// A ledger whose process was killed and whose log holds `commits` transactions, one person each.
async fn killed_ledger(commits: usize) -> Bench {
    let bench = Bench::new();
    for number in 0..commits {
        bench.record(vec![delta("a", &format!("p{number:02}"), true, 1)]).await;
    }
    let mut killed = Bench::closed();
    killed.copy_files_of(&bench);
    killed
}

const LOG: &str = "ledger.db-wal";
const INDEX: &str = "ledger.db-shm";

impl Bench {
    fn copy_files_of(&mut self, other: &Self) {
        self.directory = tempfile::tempdir().expect("a temporary directory");
        for file in ["ledger.db", LOG, INDEX] {
            let from = other.directory.path().join(file);
            if from.exists() {
                std::fs::copy(from, self.directory.path().join(file)).expect("both are ours");
            }
        }
    }

    /// How many members are read, if it can be opened.
    fn members_if_sound(&self) -> Option<usize> {
        match self.try_open() {
            Ok((ledger, _)) => {
                let members = ledger.reader().members(&destination()).expect("it is sound");
                Some(members.len())
            }
            Err(OpenError::Damaged(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_log_that_was_torn_or_altered_after_a_kill_never_loses_a_commit_without_a_word() {
    const COMMITS: usize = 12;
    let killed = killed_ledger(COMMITS).await;
    assert_eq!(killed.members_if_sound(), Some(COMMITS));
    let killed = killed_ledger(COMMITS).await;
    let sound = std::fs::read(killed.directory.path().join(LOG)).expect("it is there");
    let mut copy = Bench::closed();
    let mut chance = StdRng::seed_from_u64(20_260_402);
    let mut found = [0, 0];
    for run in 0..400 {
        copy.copy_files_of(&killed);
        // Without the index: as after the death of the machine.
        let has_index = run % 2 == 0;
        if !has_index {
            std::fs::remove_file(copy.directory.path().join(INDEX)).expect("it was copied");
        }
        let mut bytes = sound.clone();
        let at = chance.random_range(1..bytes.len());
        let is_torn = run % 8 < 2;
        if is_torn {
            bytes.truncate(at.max(32));
        } else {
            bytes[at] ^= 1 << chance.random_range(0..8);
        }
        std::fs::write(copy.directory.path().join(LOG), &bytes).expect("it is ours");
        match copy.members_if_sound() {
            None => found[usize::from(has_index)] += 1,
            Some(COMMITS) => {}
            // What was cut off, or the last of all: as if the machine had died while it was written.
            Some(_) if is_torn && !has_index => {}
            Some(left) => assert!(
                !has_index && left == COMMITS - 1,
                "byte {at}, index {has_index}, torn {is_torn}: {left} are left"
            ),
        }
    }
    println!("{found:?} of 200 each were found, without and with the index");
    assert!(found[0] > 100 && found[1] > 190, "{found:?}");
}

#[tokio::test]
async fn whoever_reads_a_ledger_at_rest_looks_at_its_log_first() {
    let killed = killed_ledger(4).await;
    let log = killed.directory.path().join(LOG);
    let mut bytes = std::fs::read(&log).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&log, &bytes).expect("it is ours");
    let path = killed.directory.path();
    for _ in 0..2 {
        let faults = check(path).expect("it can be opened").expect_err("it is damaged");
        assert!(faults[0].contains("SQLite's log is damaged"), "{faults:?}");
        let exported = export(path, None, |_| ControlFlow::<()>::Continue(()));
        assert!(matches!(exported, Err(OpenError::Damaged(_))));
        let copied = backup(path, &path.join("copy"));
        assert!(matches!(copied, Err(BackupError::Open(OpenError::Damaged(_)))));
    }
}

/// Whoever reads beside the writer sees one moment, never half of a commit.
#[tokio::test]
async fn a_check_beside_a_busy_writer_finds_nothing() {
    let bench = Bench::new();
    let path = bench.directory.path().to_owned();
    let checking = std::thread::spawn(move || {
        let db = connections::open_reader(&path).expect("it is there");
        (0..3000).try_for_each(|_| soundness::few_rows(&db)).map_err(|error| error.to_string())
    });
    let mut number = 0;
    while !checking.is_finished() {
        number += 1;
        bench.record(vec![delta("a", &format!("p{number}"), true, 1)]).await;
    }
    assert_eq!(checking.join().expect("it does not panic"), Ok(()), "after {number} commits");
}

/// A checkpoint copies the first page, which says how long the database is, before the last ones.
#[tokio::test]
async fn a_database_that_a_kill_left_short_of_a_checkpoint_is_whole_with_its_log() {
    const PEOPLE: usize = 400;
    let bench = Bench::new();
    let of = |first: usize| {
        let people = first..first + PEOPLE;
        people.map(|number| delta("a", &format!("p{number:05}"), true, 1)).collect::<Vec<_>>()
    };
    bench.record(of(0)).await;
    let database = names::database(bench.directory.path());
    let checkpointer = connections::open_checkpointer(bench.directory.path()).expect("it is there");
    let copy = || checkpointer.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    copy().expect("nobody reads");
    let before = std::fs::metadata(&database).expect("it is there").len();
    bench.record(of(PEOPLE)).await;
    let mut killed = Bench::closed();
    killed.copy_files_of(&bench);
    copy().expect("nobody reads");
    let whole = std::fs::read(&database).expect("it is there");
    assert!(whole.len() as u64 > before, "the test makes the database grow");
    // Its first page is the new one, and what the log has behind it is still to be copied.
    let path = names::database(killed.directory.path());
    let mut short = std::fs::read(&path).expect("it was copied");
    short[..4096].copy_from_slice(&whole[..4096]);
    std::fs::write(&path, &short).expect("it is ours");
    let mut cut = Bench::closed();
    cut.copy_files_of(&killed);
    assert_eq!(killed.members_if_sound(), Some(2 * PEOPLE));
    // Without the log it is cut off.
    std::fs::remove_file(cut.directory.path().join(LOG)).expect("it was copied");
    assert_eq!(cut.members_if_sound(), None);
}

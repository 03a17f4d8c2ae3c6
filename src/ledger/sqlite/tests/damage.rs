//! What is on the disk is not what was written: it is found and never used.

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
        ("ALTER TABLE member RENAME COLUMN person TO somebody", "member is another one"),
        ("DROP TABLE forgotten", "forgotten is missing"),
        ("UPDATE audience SET audience_id = 'b'", "an audience is not as it was written"),
        ("UPDATE destination SET environment = 'b'", "a destination is not as it was written"),
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
            bench.faults().iter().any(|fault| fault.contains("not as it was written")),
            "{sql}"
        );
        bench.open();
        let limit = NonZeroUsize::new(1000).expect("not zero");
        let claimed = bench.ledger.claim(&destination(), &id("a"), limit).await;
        assert!(matches!(claimed, Err(LedgerError::Closed)), "{sql}: nobody is told");
        let ended = bench.writer.take().expect("it was opened").join().expect("no panic");
        let said = crate::operate::logging::chain(&ended.expect_err("the writer gives up"));
        assert!(said.contains("a member is not as it was written"), "{said}");
        assert!(said.contains("restore a backup"), "{said}");
    }
}

#[tokio::test]
async fn what_a_reader_finds_damaged_ends_the_writer_too() {
    let mut bench = Bench::new();
    let event = RejectedEvent {
        reason: "no_context_key",
        detail: "None.".to_owned(),
        body: b"{}".to_vec(),
        user_id: None,
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
    assert!(said.contains("a member is not as it was written"), "{said}");
}

/// Whoever reads beside the writer sees one moment, never half of a commit.
#[tokio::test]
async fn a_check_beside_a_busy_writer_finds_nothing() {
    let bench = Bench::new();
    let path = bench.directory.path().to_owned();
    let checking = std::thread::spawn(move || {
        let db = schema::open_reader(&path).expect("it is there");
        (0..3000).try_for_each(|_| integrity::few_rows(&db)).map_err(|error| error.to_string())
    });
    let mut number = 0;
    while !checking.is_finished() {
        number += 1;
        bench.record(vec![delta("a", &format!("p{number}"), true, 1)]).await;
    }
    assert_eq!(checking.join().expect("it does not panic"), Ok(()), "after {number} commits");
}

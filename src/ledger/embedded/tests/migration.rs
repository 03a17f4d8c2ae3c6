//! Every version of the tables, from the first one on, becomes the present one.

use super::*;
use crate::ledger::AudienceView;
use crate::ledger::embedded::tables::checksum::Checksum;

const VERSION_1: &str = include_str!("../../../../tests/ledgers/version_1.sql");
const VERSION_2: &str = include_str!("../../../../tests/ledgers/version_2.sql");
const VERSION_3: &str = include_str!("../../../../tests/ledgers/version_3.sql");

/// As released binaries left them.
const RECORDED: [&str; 2] = [
    include_str!("../../../../tests/ledgers/version_4.sql"),
    include_str!("../../../../tests/ledgers/version_5.sql"),
];

fn of_version_1() -> Bench {
    of_version(VERSION_1)
}

fn of_version(tables: &str) -> Bench {
    let bench = Bench::closed();
    let db = rusqlite::Connection::open(bench.directory.path().join("ledger.db")).expect("new");
    db.execute_batch("PRAGMA journal_mode = WAL;").expect("as every version has it");
    db.execute_batch(tables).expect("that version's own");
    bench
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_goes_on_where_it_was() {
    for tables in [VERSION_1, VERSION_2, VERSION_3] {
        goes_on_where_it_was(of_version(tables)).await;
    }
}

async fn goes_on_where_it_was(mut bench: Bench) {
    bench.open(); // which compares the tables with those of a new ledger
    assert_eq!(bench.faults(), [""; 0]);
    let view = bench.view().await;
    let marked = view.pending - view.unvisited;
    assert_eq!((view.included, marked, view.parked, view.rejected), (4, 2, 1, 1));
    assert_eq!(bench.parked()[0].answer_id, "answer-1");
    let audiences = bench.ledger.audiences(&destination()).await.expect("it is known");
    let task = |of: &AudienceView| of.walk.as_ref().map(|walk| walk.task);
    let walks: Vec<_> = audiences.iter().map(|of| (&of.audience[..], task(of))).collect();
    assert!(walks.contains(&("aud_vip", None)), "{walks:?}");
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    assert_eq!(launchdarkly.len(), 2, "who waited is told, and nobody else");
    bench.reopen().await;
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn a_ledger_of_each_recorded_version_opens_and_remembers_who_was_deleted() {
    for sql in RECORDED {
        let mut bench = of_version(sql);
        bench.open();
        assert_eq!(bench.faults(), [""; 0]);
        let view = bench.view().await;
        let marked = view.pending - view.unvisited;
        assert_eq!((view.included, marked, view.parked, view.rejected), (3, 5, 0, 1));
        let before = 1_749_988_800_000_000;
        bench.record(vec![delta("aud_vip", "gus", true, before)]).await;
        assert_eq!(bench.view().await.included, 3, "it happened before the deletion");
        let now = bench.ledger.arrival().0;
        bench.record(vec![delta("aud_vip", "gus", true, now)]).await;
        assert_eq!(bench.view().await.included, 4);
        let fay = UserId::new("fay").expect("not empty");
        let deleted = deletion(fay, Timestamp(before - 1), intake(&*bench.ledger, Vec::new()));
        bench.take_in(deleted).await;
        assert_eq!(bench.view().await.rejected, 1, "what is kept of her is newer");
        let fay = UserId::new("fay").expect("not empty");
        bench.ledger.forget(&destination(), fay).await.expect("there is space");
        assert_eq!(bench.view().await.rejected, 0);
        bench.reopen().await;
        assert_eq!(bench.faults(), [""; 0]);
    }
}

/// The second version had the tables of the third, and walks that did not say how far they are.
#[tokio::test]
async fn a_walk_that_the_second_version_began_goes_on() {
    let mut bench = Bench::closed();
    bench.open();
    bench.record(vec![delta("vip", "ada", true, 1)]).await;
    bench.drain(&mut BTreeMap::new()).await;
    bench.close().await;
    let db = rusqlite::Connection::open(bench.directory.path().join("ledger.db")).expect("ours");
    let sum = db
        .query_row(
            "SELECT id, told_counts_from, claimed_through, unheard_through FROM audience",
            [],
            |row| {
                let number = |column| row.get::<_, i64>(column);
                let mut sum = Checksum::new();
                sum.number(number(0)?).text("vip").text("vip").text("user");
                sum.number(1).number(number(1)?).number(number(2)?).number(number(3)?);
                Ok(sum.text("resync").text("").number(1).number(0).number(0).finish())
            },
        )
        .expect("there is one");
    db.execute("UPDATE audience SET walk = 'resync', walk_after = '', checksum = ?1", [sum])
        .expect("it can be written");
    db.execute_batch(
        "ALTER TABLE audience DROP COLUMN guard;
         ALTER TABLE audience DROP COLUMN snapshot_at;
         ALTER TABLE forgotten DROP COLUMN seen_at;
         ALTER TABLE rejected DROP COLUMN event_at;
         DROP TABLE message;
         DROP TABLE reconciliation;
         DROP TABLE reconciliation_piece;",
    )
    .expect("later versions have brought them");
    db.pragma_update(None, "user_version", 2).expect("nobody else has it");
    drop(db);
    bench.open();
    assert_eq!(bench.faults(), [""; 0]);
    assert_eq!(bench.view().await.included, 1);
}

#[tokio::test]
async fn a_kill_in_a_migration_leaves_what_was_there() {
    let bench = of_version_1();
    let path = bench.directory.path().join("ledger.db");
    let db = rusqlite::Connection::open(&path).expect("it is ours");
    // What a kill leaves: the step was begun, and never committed.
    db.execute_batch("BEGIN IMMEDIATE; ALTER TABLE destination ADD COLUMN paused_at INTEGER;")
        .expect("nobody else has it");
    let mut killed = bench;
    killed.crash_while_closed();
    drop(db);
    killed.open();
    assert_eq!(killed.faults(), [""; 0]);
    assert_eq!(killed.view().await.included, 4);
}

#[tokio::test]
async fn a_ledger_of_the_first_version_can_be_checked_backed_up_and_restored() {
    let bench = of_version_1();
    let path = bench.directory.path().to_owned();
    let sound = check(&path).expect("it can be opened").expect("it is sound");
    assert_eq!((sound.members, sound.pending, sound.rejected), (5, 2, 1));
    let exported = export(&path, None, |_| std::ops::ControlFlow::<()>::Continue(()));
    assert!(matches!(exported, Err(OpenError::Older { found: 1 })));
    let copy = path.join("copy");
    backup(&path, &copy).expect("an older one is worth a backup too");

    let mut restored = Bench::closed();
    restore(restored.directory.path(), &copy).expect("it is sound");
    restored.open();
    assert_eq!(restored.faults(), [""; 0]);
    assert_eq!(restored.view().await.included, 4);
}

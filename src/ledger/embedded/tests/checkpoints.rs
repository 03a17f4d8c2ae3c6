//! The write-ahead log while somebody reads from an old moment, and when they have gone.

use super::*;
use crate::ledger::embedded::ids::AudienceRowId;

/// Of a rejected event, so that the log grows quickly.
const BODY: usize = 1 << 20;
/// Bodies that make the log longer than the writer lets it grow without helping.
const MANY: usize = 180;

async fn keep(bench: &Bench, count: usize) {
    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: String::new(),
        body: vec![b'x'; BODY],
        user_id: None,
        event_at: START,
    };
    for _ in 0..count {
        let intake = Intake { rejected: vec![event.clone()], ..intake(&*bench.ledger, Vec::new()) };
        bench.ledger.record(intake).await.expect("there is space");
    }
}

#[tokio::test]
async fn nobody_waits_for_who_reads_from_an_old_moment_and_the_log_is_used_again_after_them() {
    let mut bench = Bench::new();
    bench.rejected = Retention { max_age: DAY, max_count: 4, max_bytes: 1 << 30 };
    bench.reopen().await;
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    let reader = connections::open_reader(bench.directory.path()).expect("it is there");
    let moment = reader.unchecked_transaction().expect("it can be read");
    assert_eq!(members::count_pending(&moment, AudienceRowId(1)).expect("readable"), 1);
    let writing = keep(&bench, MANY + 20);
    tokio::time::timeout(DEADLINE, writing).await.expect("no commit waits for a reader");
    let log = bench.directory.path().join("ledger.db-wal");
    let length = || std::fs::metadata(&log).expect("it is there").len();
    let longest = length();
    assert!(longest > (MANY * BODY) as u64, "the test makes the log long: {longest}");

    drop(moment);
    tokio::time::timeout(DEADLINE, keep(&bench, MANY)).await.expect("in time");
    // Not used again, it would have grown by all of them. How much it grows before somebody copies it
    // depends on what retention erases in one commit.
    assert!(length() < longest + (MANY / 2 * BODY) as u64, "{longest}, then {}", length());
}

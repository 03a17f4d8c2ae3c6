//! What is written beside the writer, and what it does meanwhile.

use super::*;
use crate::ledger::embedded::tests::journaled::{Busy, closed};

/// So long other rows take.
const A_WHILE: Duration = Duration::from_millis(200);

fn full(_: &rusqlite::Connection) -> rusqlite::Result<()> {
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    Err(rusqlite::Error::SqliteFailure(full, None))
}

#[tokio::test]
async fn a_batch_is_not_handed_out_before_it_is_marked_however_long_others_take() {
    let bench = closed();
    let mut busy = Busy::open(&bench);
    busy.writer.turn(); // what is due at the start
    busy.record(vec![delta("a", "ada", true, 1)]).await;
    busy.writer.turn();
    let (held, until) = std::sync::mpsc::channel::<()>();
    busy.writer.run_on_flush_thread(move |_| {
        let _ = until.recv_timeout(A_WHILE); // nobody ends it earlier
        Ok(())
    });
    let ledger = Arc::clone(&busy.ledger);
    let writing = std::thread::spawn(move || busy.writer.run());
    let claimed = ledger.outbox(&destination()).claim(longest("a", 9)).await.expect("it is open");
    assert_eq!(claimed.expect("ada waits").members.len(), 1);
    // As a daemon would find it after a kill.
    let found = rusqlite::Connection::open(bench.directory.path().join("ledger.db"));
    let marked = found.and_then(|db| {
        db.query_row("SELECT claimed_through FROM audience", [], |row| row.get::<_, i64>(0))
    });
    assert!(marked.expect("it is there") > 0, "she would not be known to have been in a call (P3)");
    ledger.close().await;
    drop(held);
    writing.join().expect("no panic").expect("nor fail");
}

#[tokio::test]
async fn who_was_in_a_batch_when_rows_could_not_be_written_still_is_and_is_not_for_ever() {
    let mut bench = closed();
    let mut busy = Busy::open(&bench);
    busy.writer.turn(); // what is due at the start
    busy.record(vec![delta("a", "ada", true, 1), delta("a", "bob", true, 1)]).await;
    busy.writer.turn();
    let ledger = Arc::clone(&busy.ledger);
    let claiming =
        tokio::spawn(async move { ledger.outbox(&destination()).claim(longest("a", 1)).await });
    tokio::task::yield_now().await; // it is asked
    busy.writer.turn();
    let batch = claiming.await.expect("no panic").expect("it is open").expect("both wait");
    busy.writer.run_on_flush_thread(full);
    busy.writer.wait();
    busy.writer.turn();
    bench.ledger = Arc::clone(&busy.ledger);
    bench.writer = Some(std::thread::spawn(move || busy.writer.run()));
    bench.until(|waiting| waiting == 1).await;
    let other = bench.claim("a", 9).await.expect("bob waits");
    assert_eq!((keys(&batch), keys(&other)), (vec!["ada"], vec!["bob"]), "(P3)");
    bench.settle(batch).await;
    bench.settle(other).await;
    bench
        .ledger
        .record(intake(&*bench.ledger, vec![delta("a", "cid", true, 1)]))
        .await
        .expect("space");
    bench.until(|waiting| waiting == 1).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("cid waits")), ["cid"]);
    bench.close().await;
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn rows_that_cannot_be_written_are_changes_that_are_read_again() {
    let mut bench = closed();
    let mut busy = Busy::open(&bench);
    busy.writer.turn(); // what is due at the start
    busy.record(vec![delta("a", "ada", true, 1), delta("a", "bob", true, 1)]).await;
    busy.writer.turn();
    busy.writer.run_on_flush_thread(full);
    busy.writer.wait();
    busy.writer.turn();
    assert!(busy.ledger.obstacle().is_some(), "there was no space");
    bench.ledger = Arc::clone(&busy.ledger);
    bench.writer = Some(std::thread::spawn(move || busy.writer.run()));
    bench.until(|waiting| waiting == 2).await;
    let batch = bench.claim("a", 9).await.expect("both wait");
    assert_eq!(keys(&batch), ["ada", "bob"]);
    bench.settle(batch).await;
    assert_eq!(bench.pending().await, 0);
    bench.close().await;
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn how_many_there_are_is_known_before_their_rows_are_written() {
    let mut bench = closed();
    bench.open();
    let people = (0..900).map(|number| delta("a", &format!("p{number:03}"), true, 1)).collect();
    bench.ledger.record(intake(&*bench.ledger, people)).await.expect("there is space");
    bench.until(|waiting| waiting == 900).await;
    let batch = bench.claim("a", 600).await.expect("all wait");
    bench.settle(batch).await;
    let early = bench.ledger.destinations().await.expect("it is open");
    let [view] = &early[..] else { panic!("one is configured: {early:?}") };
    assert_eq!((view.included, view.pending, view.audiences), (900, 300, 1));
    assert!(view.pending_since.is_some());
    assert!(bench.ledger.shared.has_dirty_members.load(Ordering::SeqCst), "or this shows nothing");
    bench.ledger.caught_up().await.expect("it is open");
    assert_eq!(bench.ledger.destinations().await.expect("it is open"), early);
    bench.close().await;
}

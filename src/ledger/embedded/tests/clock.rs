//! A clock that was ahead, and what it has left in the ledger.

use super::*;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Bench {
    /// Closes the ledger, brings it back to the clock, and opens it again; what was changed.
    async fn reset(&mut self) -> ClockReset {
        self.close().await;
        let reset = reset_clock(self.directory.path(), self.clock.now()).expect("nobody has it");
        assert_eq!(self.faults(), [""; 0], "what was brought back is as it was written");
        self.open();
        reset
    }

    /// Records these one after the other, so that the first has waited longest.
    async fn enter(&self, keys: &[String]) {
        for key in keys {
            self.record(vec![delta("a", key, true, self.clock.now().0)]).await;
        }
    }

    async fn next(&self, limit: usize) -> Batch {
        self.claim("a", limit).await.expect("somebody waits")
    }
}

/// The times of every row that are later than this.
fn later_than(bench: &Bench, at: Timestamp) -> u64 {
    let db =
        connections::open_to_read(&names::database(bench.directory.path())).expect("it is there");
    db.query_row(
        "SELECT (SELECT count(*) FROM member WHERE max(event_at, version, coalesce(told_at, 0),
                 coalesce(pending_since, 0), coalesce(parked_at, 0)) > ?1)
             + (SELECT count(*) FROM forgotten WHERE forgotten_at > ?1)
             + (SELECT count(*) FROM rejected WHERE received_at > ?1)
             + (SELECT count(*) FROM parked WHERE parked_at > ?1)
             + (SELECT count(*) FROM reassertion WHERE settled_at > ?1)
             + (SELECT count(*) FROM destination WHERE paused_at > ?1)
             + (SELECT count(*) FROM audience
                 WHERE max(told_counts_from, claimed_through, unheard_through,
                     snapshot_at) > ?1)",
        [at.0],
        |row| row.get(0),
    )
    .expect("it can be read")
}

#[tokio::test]
async fn what_a_clock_that_was_ahead_has_left_is_brought_back_in_its_order() {
    let mut bench = Bench::new();
    bench.clock.advance(WEEK);
    // Told, refused, told after a call that nobody answered, kept, deleted, paused, waiting: all of it ahead.
    bench.enter(&["told".to_owned()]).await;
    bench.settle(bench.next(1).await).await;
    bench.enter(&["refused".to_owned()]).await;
    bench.park(bench.next(1).await).await;
    bench.enter(&["unheard".to_owned()]).await;
    bench.release(bench.next(1).await, Unheard::Perhaps).await;
    bench.settle(bench.next(1).await).await;
    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: "None.".to_owned(),
        body: b"{}".to_vec(),
        user_id: None,
        event_at: bench.ledger.arrival(),
    };
    let all = Intake { rejected: vec![event], ..intake(&*bench.ledger, Vec::new()) };
    let (gone, arrival) = (UserId::new("gone").expect("not empty"), all.arrival);
    bench.take_in(deletion(gone, arrival, all)).await;
    bench.ledger.pause(&bench.name, true).await.expect("there is space");
    let waiting: Vec<String> = (0..20).map(|n| format!("waits-{:02}", n * 7 % 20)).collect();
    bench.enter(&waiting).await;
    bench.clock.set(START);
    bench.reopen().await;
    assert_eq!(bench.ledger.arrival().since(START).as_secs(), WEEK.as_secs());
    assert!(later_than(&bench, START) > 25);

    let reset = bench.reset().await;
    assert_eq!(reset.ahead.as_secs(), WEEK.as_secs());
    assert_eq!((reset.members, reset.deletions, reset.kept), (23, 1, 3), "{reset:?}");
    assert!(reset.marks >= 1, "{reset:?}");
    let at_most = START.after(Duration::from_millis(1));
    assert_eq!(later_than(&bench, at_most), 0);
    assert!(bench.ledger.arrival() <= at_most);
    // Whoever has waited longest goes first, and nobody is passed over.
    let mut told = Vec::new();
    while told.len() < waiting.len() {
        let batch = bench.next(3).await;
        told.extend(keys(&batch).into_iter().map(str::to_owned));
        bench.settle(batch).await;
    }
    assert_eq!(told, waiting);
    // Who leaves now is out, and who was deleted may return.
    bench.clock.advance(Duration::from_secs(5));
    let now = bench.clock.now().0;
    bench.record(vec![delta("a", "told", false, now), delta("a", "gone", true, now)]).await;
    for (key, included) in [("told", false), ("gone", true)] {
        let found = bench.ledger.member(&bench.name, key).await.expect("it is open");
        assert_eq!(found.first().map(|of| of.included), Some(included), "{key}");
    }
    assert_eq!(bench.faults(), [""; 0]);
}

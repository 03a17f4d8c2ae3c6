//! Two replicas on one database.

use super::*;
use crate::ledger::contract::subject::*;
use crate::ledger::{Batch, Outbox, Recorder, Report};
use crate::membership::Timestamp;

/// A replica, and the task that keeps it.
struct Replica {
    ledger: Arc<PostgresLedger>,
    running: tokio::task::JoinHandle<()>,
}

impl Replica {
    async fn start(database: &Database, name: &str, lease_ttl: Duration) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let settings = SharedSettings { lease_ttl, ..settings_for(database, &Setup::default()) };
        let opened = PostgresLedger::open(settings, name.to_owned(), clock, false).await;
        let (ledger, keeper) = opened.expect("the database is there");
        Self { ledger: Arc::new(ledger), running: tokio::spawn(keeper.run()) }
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        self.ledger.outbox(&production())
    }

    async fn record(&self, deltas: Vec<crate::membership::MembershipDelta>) {
        let all = intake(&*self.ledger, &production(), deltas);
        self.ledger.record(all).await.expect("the database is there");
    }

    async fn claim(&self) -> Option<Batch> {
        self.outbox().claim(longest("a", 999)).await.expect("the database is there")
    }

    /// Stands still, as a process that is stopped does: it renews nothing.
    async fn freeze(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await; // it was told to end
    }
}

/// Requests through each replica, and those whom each of them is about.
const ROUNDS: i64 = 60;
const PEOPLE: i64 = 8;

/// Waits until a replica claims somebody.
async fn until_claimed(replica: &Replica) -> Batch {
    let mut news = replica.outbox().news();
    let claiming = async {
        loop {
            if let Some(batch) = replica.claim().await {
                return batch;
            }
            news.changed().await.expect("it is open");
        }
    };
    tokio::time::timeout(DEADLINE, claiming).await.expect("it takes over in time")
}

#[tokio::test]
async fn only_the_owner_claims_and_who_was_in_its_call_is_told_once_more_by_the_next() {
    let database = Server::of_all().database();
    let ttl = Duration::from_secs(6); // it is renewed every second
    let mut first = Replica::start(&database, "first", ttl).await;
    let second = Replica::start(&database, "second", ttl).await;
    second.record(enter("a", &["ada", "bob"])).await;
    assert!(second.claim().await.is_none(), "the first replica owns the destination");
    let frozen = first.claim().await.expect("it owns the destination");
    assert_eq!(frozen.members.len(), 2, "whoever was recorded by the other is seen");
    first.freeze().await;
    let batch = until_claimed(&second).await;
    assert_eq!(batch.members.len(), 2);
    assert!(first.claim().await.is_none(), "its lease is over by its own clock");

    // It wakes up and reports: nothing of that counts.
    second.record(vec![delta("a", "ada", false, 9)]).await;
    first.outbox().report(Report::Settle(frozen)).await.expect("it is told nothing");
    let told = second.ledger.member(&production(), "bob").await.expect("it is open");
    assert_eq!(told[0].told, None, "only the owner says what was told");
    second.outbox().report(Report::Settle(batch)).await.expect("the database is there");
    let told = second.ledger.member(&production(), "bob").await.expect("it is open");
    assert_eq!(told[0].told, Some(true));
    assert_eq!(tells(&second.claim().await.expect("ada has left meanwhile")), ("ada", false));
    let again = "SELECT 1 FROM reassertion WHERE convert_from(context_key, 'UTF8') = 'bob'";
    let shared = &second.ledger.shared;
    let row = transact!(shared.pool, |tx, _attempt| tx.first(again, &[]));
    assert!(row.expect("it can be read").is_some(), "the frozen call may still be applied");
}

/// Its clock stood still with it, so that it takes itself for the owner.
#[tokio::test]
async fn whoever_has_lost_the_lease_without_knowing_changes_nothing() {
    let database = Server::of_all().database();
    let ttl = Duration::from_secs(600);
    let mut first = Replica::start(&database, "first", ttl).await;
    let second = Replica::start(&database, "second", ttl).await;
    first.record(enter("a", &["ada"])).await;
    let batch = first.claim().await.expect("it owns the destination");
    first.freeze().await;
    database.run("UPDATE lease SET expires_at = clock_timestamp()").await;
    let own = until_claimed(&second).await;
    first.outbox().report(Report::Settle(batch)).await.expect("it is told nothing");
    second.record(enter("a", &["bob"])).await;
    assert!(first.claim().await.is_none(), "bob waits for the owner");
    let told = second.ledger.member(&production(), "ada").await.expect("it is open");
    assert_eq!((told[0].told, told[0].pending), (None, true), "only the owner says what was told");
    second.outbox().report(Report::Settle(own)).await.expect("the database is there");
    assert_eq!(tells(&second.claim().await.expect("bob waits")), ("bob", true));
}

#[tokio::test]
async fn an_orderly_stop_hands_over_at_once() {
    let database = Server::of_all().database();
    let ttl = Duration::from_secs(600);
    let first = Replica::start(&database, "first", ttl).await;
    let second = Replica::start(&database, "second", ttl).await;
    first.record(enter("a", &["ada"])).await;
    assert!(second.claim().await.is_none());
    first.ledger.close().await;
    let batch = until_claimed(&second).await;
    assert_eq!(tells(&batch), ("ada", true));
    let refused =
        first.ledger.record(intake(&*first.ledger, &production(), enter("a", &["bob"]))).await;
    assert!(matches!(refused, Err(LedgerError::Closed)), "{refused:?}");
}

#[tokio::test]
async fn the_latest_event_time_wins_whichever_replica_it_came_through() {
    let database = Server::of_all().database();
    let ttl = Duration::from_secs(600);
    let replicas = [
        Replica::start(&database, "first", ttl).await,
        Replica::start(&database, "second", ttl).await,
    ];
    let people = |round: i64| (0..PEOPLE).map(move |person| (person, format!("p{round}-{person}")));
    let everybody = (0..ROUNDS).flat_map(people);
    replicas[0].record(everybody.map(|(_, key)| delta("a", &key, true, 1)).collect()).await;
    let mut all = tokio::task::JoinSet::new();
    for (number, replica) in (0..).zip(&replicas) {
        let ledger = Arc::clone(&replica.ledger);
        all.spawn(async move {
            for round in 0..ROUNDS {
                // Both bring something new of everybody at once; which of them is later depends on the person.
                let deltas = people(round).map(|(person, key)| {
                    let is_later = (person + number) % 2 == 1;
                    delta("a", &key, is_later, if is_later { 3 } else { 2 })
                });
                let intake = intake(&*ledger, &production(), deltas.collect());
                ledger.record(intake).await.expect("the database is there");
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.expect("it does not panic");
    }
    for (_, key) in (0..ROUNDS).flat_map(people) {
        let found = replicas[0].ledger.member(&production(), &key).await.expect("it is open");
        assert_eq!((found[0].included, found[0].event_at), (true, Timestamp(3)), "{key}");
    }
    assert_eq!(database.faults().await, [""; 0]);
}

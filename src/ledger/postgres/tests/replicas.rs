//! Two replicas on one database.

use super::*;
use crate::ledger::contract::subject::*;
use crate::ledger::lease::{Change, Lease};
use crate::ledger::{Batch, Outbox, Reconciliations, Recorder, Report, Stager, Unheard};
use crate::membership::Timestamp;

/// A replica, and the task that keeps it.
struct Replica {
    ledger: Arc<PostgresLedger>,
    running: tokio::task::JoinHandle<Result<(), WriterFailure>>,
}

impl Replica {
    async fn start(database: &Database, name: &str, lease_ttl: Duration) -> Self {
        Self::start_with(database, name, lease_ttl, &Setup::default()).await
    }

    /// One that tells once more after a moment.
    async fn hasty(database: &Database, name: &str) -> Self {
        let mut setup = Setup::default();
        setup.destinations[0].reassert_after = Duration::from_millis(30);
        Self::start_with(database, name, LONG, &setup).await
    }

    async fn start_with(
        database: &Database,
        name: &str,
        lease_ttl: Duration,
        setup: &Setup,
    ) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let settings = SharedSettings { lease_ttl, ..settings_for(database, setup, name) };
        let opened = PostgresLedger::open(settings, clock, false).await;
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

    async fn settle(&self, batch: Batch) {
        self.outbox().report(Report::Settle(batch)).await.expect("the database is there");
    }

    /// What is told of somebody, and whether that waits.
    async fn told(&self, key: &str) -> (Option<bool>, bool) {
        let found = self.ledger.member(&production(), key).await.expect("it is open");
        (found[0].told, found[0].pending)
    }

    /// Wakes up again after it stood still.
    fn thaw(&mut self) {
        let shared = Arc::clone(&self.ledger.shared);
        self.running =
            tokio::spawn(Keeper::new(shared, recording::queue().1, Arc::default(), false).run());
    }

    /// Stands still, as a process that is stopped does: it renews nothing.
    async fn freeze(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await; // it was told to end
    }
}

/// A lease that does not run out in a test.
const LONG: Duration = Duration::from_secs(600);

/// The leases run out, whatever the owners believe.
async fn run_out(database: &Database) {
    database.run("UPDATE lease SET expires_at = clock_timestamp()").await;
}

/// Requests through each replica, and those whom each of them is about.
const ROUNDS: i64 = 60;
const PEOPLE: i64 = 8;

/// Waits until a replica claims somebody.
async fn until_claimed(replica: &Replica) -> Batch {
    until_claimed_of(replica, "a").await
}

/// The same, of this audience.
async fn until_claimed_of(replica: &Replica, audience: &str) -> Batch {
    let outbox = replica.outbox();
    let mut news = outbox.news();
    let claiming = async {
        loop {
            let claimed = outbox.claim(longest(audience, 999)).await;
            if let Some(batch) = claimed.expect("the database is there") {
                return batch;
            }
            news.changed().await.expect("it is open");
        }
    };
    tokio::time::timeout(DEADLINE, claiming).await.expect("it takes over in time")
}

#[tokio::test]
async fn only_the_owner_claims_and_who_was_in_its_call_is_told_once_more_by_the_next() {
    let database = of_all().database();
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
    let database = of_all().database();
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
    let database = of_all().database();
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
    let database = of_all().database();
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
    assert_eq!(faults(&database).await, [""; 0]);
}

/// Calls at a time.
const CALLS: usize = 4;

/// A claim may read a member that waits just before the report that settles it is committed, and go on after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_settled_while_others_are_claimed_is_told_once() {
    let database = of_all().database();
    let replica = Arc::new(Replica::start(&database, "only", Duration::from_secs(600)).await);
    let people: Vec<String> = (0..1200).map(|person| format!("p{person:04}")).collect();
    replica.record(people.iter().map(|key| delta("a", key, true, 1)).collect()).await;
    let claiming = Arc::new(tokio::sync::Mutex::new(()));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let (replica, claiming) = (Arc::clone(&replica), Arc::clone(&claiming));
        calls.spawn(async move {
            let mut told = Vec::new();
            loop {
                let one_at_a_time = claiming.lock().await; // as a courier does
                let claimed = replica.outbox().claim(longest("a", 8)).await;
                drop(one_at_a_time);
                let Some(batch) = claimed.expect("the database is there") else { return told };
                told.extend(keys(&batch).into_iter().map(str::to_owned));
                let settled = replica.outbox().report(Report::Settle(batch)).await;
                settled.expect("the database is there");
            }
        });
    }
    let mut told = calls.join_all().await.concat();
    told.sort();
    assert_eq!(told, people, "each of them once");
    assert_eq!(faults(&database).await, [""; 0]);
}

/// A transaction may take long between its stamp and its commit: whoever it is about then stands before others.
#[tokio::test]
async fn whoever_waits_since_before_the_front_of_the_queue_is_told_all_the_same() {
    let database = of_all().database();
    let replica = Replica::start(&database, "only", LONG).await;
    replica.record(vec![delta("a", "ada", true, 1)]).await;
    let first = replica.claim().await.expect("she waits");
    replica.settle(first).await;
    replica.record(vec![delta("a", "bob", true, 1), delta("a", "cyd", true, 1)]).await;
    let late = "UPDATE member SET pending_since = 1 WHERE context_key = 'bob';
        UPDATE pending SET since = 1 WHERE context_key = 'bob'";
    database.run(late).await;
    let mut told = Vec::new();
    while let Some(batch) = replica.claim().await {
        told.extend(keys(&batch).into_iter().map(str::to_owned));
        replica.settle(batch).await;
    }
    assert_eq!(told, ["cyd", "bob"], "from the front, and then from the beginning");
    assert!(replica.outbox().backlog().await.expect("the database is there").is_empty());
    assert_eq!(faults(&database).await, [""; 0]);
}

/// Rows that have left the queue stay in its index while a transaction is open that may still see them.
#[tokio::test]
async fn rows_that_an_open_transaction_keeps_are_not_read_again_for_each_claim() {
    const GONE: i64 = 20_000;
    const CLAIMS: i64 = 60;
    let database = of_all().database();
    let replica = Replica::start(&database, "only", LONG).await;
    replica.record(vec![delta("a", "ada", true, 1)]).await;
    let (other, connection) =
        database.config().connect(tokio_postgres::NoTls).await.expect("it is there");
    tokio::spawn(connection);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM member";
    other.batch_execute(begin).await.expect("its owner may");
    let gone = format!(
        "BEGIN;
        INSERT INTO pending SELECT no, number, convert_to(number::text, 'UTF8'), false
            FROM audience, generate_series(1, {GONE}) AS number ORDER BY number;
        DELETE FROM pending WHERE since <= {GONE};
        COMMIT"
    );
    database.run(&gone).await;
    let (client, connection) =
        database.config().connect(tokio_postgres::NoTls).await.expect("it is there");
    tokio::spawn(connection);
    let read = async || -> (i64, i64) {
        let sql = "SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes
            WHERE indexrelid = 'pending_by_age'::regclass";
        let row = client.query_one(sql, &[]).await.expect("its owner may");
        (row.get(0), row.get(1))
    };
    let before = read().await;
    for at in 2..2 + CLAIMS {
        let batch = replica.claim().await.expect("she waits");
        replica.settle(batch).await;
        replica.record(vec![delta("a", "ada", at % 2 == 1, at)]).await;
        assert_eq!(replica.outbox().backlog().await.expect("it is there")[0].waiting, 1);
    }
    // A server counts a little later.
    let counted = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let now = read().await;
            if now.0 - before.0 >= 2 * CLAIMS {
                return now.1 - before.1;
            }
        }
    };
    let entries = tokio::time::timeout(DEADLINE, counted).await.expect("it counts in time");
    assert!(entries < 20 * GONE, "{entries}: about every {}th time", CLAIMS * 2 * GONE / entries);
    other.batch_execute("ROLLBACK").await.expect("it was begun");
}

/// It was frozen in a call. When it wakes up, everybody was told by another long ago.
#[tokio::test]
async fn whoever_was_in_a_call_that_ends_after_the_lease_is_told_once_more_by_the_owner() {
    let database = of_all().database();
    let mut first = Replica::hasty(&database, "first").await;
    let second = Replica::hasty(&database, "second").await;
    first.record(enter("a", &["ada"])).await;
    first.record(enter("b", &["bob"])).await;
    let rests = first.claim().await.expect("ada waits");
    let waits =
        first.outbox().claim(longest("b", 9)).await.expect("it is open").expect("bob waits");
    first.freeze().await;
    run_out(&database).await;
    for told_again in [false, true] {
        let batch = until_claimed(&second).await;
        assert_eq!(tells(&batch), ("ada", true), "once more: {told_again}");
        second.settle(batch).await;
    }
    assert_eq!(second.told("ada").await, (Some(true), false), "it rests");

    first.settle(rests).await;
    let late = Report::Release(waits, Unheard::Perhaps);
    first.outbox().report(late).await.expect("it is told nothing");
    let batch = until_claimed(&second).await;
    assert_eq!(tells(&batch), ("ada", true), "it may have been told late");
    second.settle(batch).await;
    for told_again in [false, true] {
        let batch = until_claimed_of(&second, "b").await;
        assert_eq!(tells(&batch), ("bob", true), "once more: {told_again}");
        second.settle(batch).await;
    }
    for (key, audience) in [("ada", "a"), ("bob", "b")] {
        assert_eq!(second.told(key).await, (Some(true), false), "{audience}");
    }
    let left = "SELECT 1 FROM call_out UNION ALL SELECT 1 FROM reassertion";
    let shared = &second.ledger.shared;
    let row = transact!(shared.pool, |tx, _attempt| tx.first(left, &[]));
    assert!(row.expect("it can be read").is_none(), "nobody is told any more");
}

#[tokio::test]
async fn what_was_not_sent_or_was_refused_is_not_told_once_more() {
    let database = of_all().database();
    let mut first = Replica::hasty(&database, "first").await;
    let second = Replica::hasty(&database, "second").await;
    first.record(enter("a", &["ada"])).await;
    let batch = first.claim().await.expect("ada waits");
    first.freeze().await;
    run_out(&database).await;
    let _in_call = until_claimed(&second).await;
    let of_before = [
        Report::Release(batch.clone(), Unheard::Unsent),
        Report::Park(batch.clone(), reason("1")),
        Report::Split(vec![batch.clone()]),
        Report::Unpark(batch),
    ];
    for report in of_before {
        first.outbox().report(report).await.expect("it is told nothing");
    }
    let late = "SELECT 1 FROM call_out WHERE is_late UNION ALL SELECT 1 FROM parked
         UNION ALL SELECT 1 FROM member WHERE refused_with IS NOT NULL";
    let shared = &second.ledger.shared;
    let row = transact!(shared.pool, |tx, _attempt| tx.first(late, &[]));
    assert!(row.expect("it can be read").is_none(), "nothing of it counts");
}

#[tokio::test]
async fn where_a_queue_begins_is_kept_for_the_next_owner() {
    let database = of_all().database();
    let first = Replica::hasty(&database, "first").await;
    first.record(enter("a", &["ada"])).await;
    let batch = first.claim().await.expect("ada waits");
    first.settle(batch).await;
    let shared = &first.ledger.shared;
    let kept = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let sql = "SELECT front FROM audience WHERE front IS NOT NULL";
            let row = transact!(shared.pool, |tx, _attempt| tx.first(sql, &[]));
            if let Some(row) = row.expect("it can be read") {
                return row.get::<_, i64>(0);
            }
        }
    };
    let kept = tokio::time::timeout(Duration::from_secs(30), kept).await.expect("it is kept");
    first.record(enter("a", &["bob"])).await;
    first.ledger.close().await;
    let second = Replica::hasty(&database, "second").await;
    let known = second.ledger.shared.reading(1, Some(kept));
    assert_eq!(known.from, kept, "whoever comes next begins there");
    assert_eq!(tells(&until_claimed(&second).await), ("bob", true));
}

/// It loses the lease while a call is out, and takes it again.
#[tokio::test]
async fn a_call_of_an_earlier_reign_settles_nothing_of_a_later_one_of_the_same_process() {
    let database = of_all().database();
    let mut first = Replica::hasty(&database, "first").await;
    let second = Replica::hasty(&database, "second").await;
    first.record(enter("a", &["ada"])).await;
    let old = first.claim().await.expect("ada waits");
    first.freeze().await;
    run_out(&database).await;
    drop(until_claimed(&second).await);
    second.ledger.close().await;
    first.thaw();
    let new = until_claimed(&first).await;
    assert_eq!(old.members, new.members, "the same, in another reign");
    assert!(!first.outbox().may_call(&old) && first.outbox().may_call(&new));
    first.outbox().until_over(&old).await;

    first.settle(old).await;
    assert_eq!(first.told("ada").await, (None, true), "its call is still out");
    assert!(first.claim().await.is_none(), "ada is in a call");
    first.settle(new).await;
    let again = until_claimed(&first).await; // the call of before may have been applied after it
    assert_eq!(tells(&again), ("ada", true));
    first.settle(again).await;
    assert_eq!(first.told("ada").await, (Some(true), false));
    assert_eq!(faults(&database).await, [""; 0]);
}

#[tokio::test]
async fn a_call_may_be_made_while_the_lease_lasts_and_is_given_up_when_it_is_over() {
    let database = of_all().database();
    let ttl = Duration::from_secs(2);
    let mut first = Replica::start(&database, "first", ttl).await;
    first.record(enter("a", &["ada"])).await;
    let batch = until_claimed(&first).await;
    first.freeze().await; // nothing renews
    let outbox = first.outbox();
    let over = outbox.until_over(&batch);
    tokio::time::timeout(DEADLINE, over).await.expect("it ends with the lease");
    assert!(!first.outbox().may_call(&batch));
    assert!(first.claim().await.is_none());

    // Nobody has taken it meanwhile: what was reported of the calls counts, and it goes on.
    first.outbox().report(Report::Release(batch, Unheard::Perhaps)).await.expect("it is there");
    first.thaw();
    let batch = until_claimed(&first).await;
    assert!(first.outbox().may_call(&batch));
    first.settle(batch).await;
    let again = "SELECT 1 FROM reassertion";
    let shared = &first.ledger.shared;
    let row = transact!(shared.pool, |tx, _attempt| tx.first(again, &[]));
    assert!(row.expect("it can be read").is_some(), "the call that was given up may be applied");
}

#[tokio::test]
async fn whoever_does_not_learn_that_it_got_the_lease_takes_it_again() {
    let database = of_all().database();
    let first = Replica::start(&database, "first", LONG).await;
    first.record(enter("a", &["ada"])).await;
    let of_before = first.claim().await.expect("it owns the destination");
    let forget = |lease: &mut Lease| {
        lease.hand_over();
        Change::Lost
    };
    first.ledger.shared.learn(&production(), forget);
    let batch = until_claimed(&first).await;
    assert!(batch.token > of_before.token);
}

/// As behind a pooler that knows nothing of statements: what was parsed for one transaction is not there in the next.
#[tokio::test]
async fn statements_go_with_their_text_where_they_are_forgotten() {
    let settings = settings_for(&of_all().database(), &Setup::default(), "only").database;
    let pool = Pool::new(DatabaseSettings { connections: 1, ..settings });
    for forgets in [false, false, true, true, false] {
        let asked: Result<_, Failure> = transact!(pool, |tx, _attempt| async {
            let row = tx.first("SELECT $1 + 1", &[(&1, Type::INT4)]).await?;
            let answer: Option<i32> = row.map(|row| row.try_get(0)).transpose()?;
            if forgets {
                tx.batch("DEALLOCATE ALL").await?;
            }
            Ok(answer)
        });
        assert_eq!(asked.expect("the database is there"), Some(2));
    }
}

#[tokio::test]
async fn a_destination_that_another_replica_has_dropped_begins_anew() {
    let database = of_all().database();
    let only = Replica::start(&database, "only", LONG).await;
    only.record(enter("a", &["ada"])).await;
    let of_before = only.claim().await.expect("it owns the destination");
    // As a replica does that does not have it configured.
    database.run("DELETE FROM member; DELETE FROM pending; DELETE FROM destination").await;
    let recorded = async {
        let mut news = only.outbox().news();
        loop {
            let all = intake(&*only.ledger, &production(), enter("a", &["bob"]));
            if only.ledger.record(all).await.is_ok() {
                return;
            }
            news.changed().await.expect("it is open"); // it is told that it owns nothing any more
        }
    };
    tokio::time::timeout(DEADLINE, recorded).await.expect("it is healed in time");
    only.settle(of_before).await; // says nothing of anybody
    let batch = until_claimed(&only).await;
    assert_eq!((batch.members.len(), batch.members[0].context_key.as_str()), (1, "bob"));
}

#[tokio::test]
async fn a_reconciliation_that_another_replica_writes_down_is_left_to_it_while_it_is_there() {
    let database = of_all().database();
    let one = Replica::start(&database, "one", LONG).await;
    let two = Replica::start(&database, "two", LONG).await;
    let begun = one.ledger.begin_reconciliation(&production(), &id("a")).await;
    assert!(begun.expect("it is open").is_some());
    let stager = async |of: &Replica| {
        let all = of.ledger.reconciliations().await.expect("it is open");
        all[0].stager
    };
    let seen = async {
        while stager(&two).await != Stager::Elsewhere {
            tokio::task::yield_now().await; // it has said nothing of itself yet
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("it says that it is there");
    assert_eq!(stager(&one).await, Stager::Here);
    one.ledger.close().await;
    assert_eq!(stager(&two).await, Stager::Gone, "it has said goodbye");
}

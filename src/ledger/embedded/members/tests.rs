//! What a flush writes, leaves and frees, and when couriers have enough to do.

use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::*;
use crate::ledger::counts::Counts;
use crate::ledger::embedded::memtable::FlushedCounts;
use crate::ledger::embedded::tables::schema;
use crate::ledger::member::Told;
use crate::membership::Membership;

const AUDIENCE: AudienceRowId = AudienceRowId(7);

fn key(text: &str) -> ContextKey {
    ContextKey::new(text).expect("not empty")
}

/// Pending since that stamp, or told if `None`.
fn member(pending_since: Option<i64>) -> Member {
    Member {
        told: pending_since
            .is_none()
            .then_some(Told { membership: Membership::In, at: Timestamp(2) }),
        pending_since: pending_since.map(Timestamp),
        ..Member::at_rest(1)
    }
}

struct Bench {
    db: Database,
    members: Members,
}

impl Bench {
    fn new(most: usize) -> Self {
        let db = Connection::open_in_memory().expect("memory is there");
        schema::make(&db).expect("the tables can be made");
        let db = Database::new(db);
        let mut members = Members::new(most);
        members.buffer(true);
        Self { db, members }
    }

    fn put(&mut self, who: &str, before: Option<&Member>, after: Member) {
        let next = Next::Write(after);
        let place = self.members.place(AUDIENCE, who);
        let stored = self.members.put(&self.db, AUDIENCE, (&key(who), place), before, &next);
        stored.expect("nothing is written");
    }

    /// A whole flush in slices of two while couriers are busy; returns what was written.
    fn flush(&mut self, through: u64) -> Counts {
        self.members.memtable.begin_flush(through, true);
        let mut sum = Counts::default();
        while self.members.memtable.is_flushing() {
            let (rows, written) = self.members.memtable.take_slice(2);
            flush::write(&rows, self.connection()).expect("the tables are there");
            for FlushedCounts { before, now, .. } in written.into_values() {
                sum.change(before, now);
            }
        }
        sum
    }

    fn connection(&self) -> &Connection {
        self.db.connection().expect("it is lent to nobody")
    }

    fn rows(&self) -> Vec<String> {
        let rows = rows::walk_in(self.connection(), AUDIENCE, "", 99).expect("they can be read");
        rows.into_iter().map(|(key, _)| key).collect()
    }
}

#[test]
fn a_pass_leaves_who_waits_to_the_next_one_and_frees_the_journal_up_to_where_the_last_began() {
    let mut bench = Bench::new(100);
    for (who, since) in [("ada", Some(5)), ("bob", None), ("cid", None)] {
        bench.put(who, None, member(since));
    }
    let counts = bench.flush(3);
    assert_eq!((counts.included, counts.pending), (2, 0));
    assert_eq!(bench.rows(), ["bob", "cid"]);
    assert_eq!(bench.members.memtable.complete_through(), 0, "ada's block may be among these");

    bench.put("dan", None, member(Some(6)));
    let counts = bench.flush(4);
    assert_eq!((counts.included, counts.pending), (1, 1));
    assert_eq!(bench.rows(), ["ada", "bob", "cid"], "once is enough");
    assert_eq!(bench.members.memtable.complete_through(), 3, "dan came later");

    bench.put("dan", None, member(None));
    bench.flush(4);
    assert_eq!(bench.rows(), ["ada", "bob", "cid", "dan"]);
    assert_eq!(bench.members.memtable.complete_through(), 4);
    assert!(bench.members.memtable.is_empty());
}

#[test]
fn who_waits_is_found_in_the_order_of_waiting_wherever_the_row_is() {
    let mut bench = Bench::new(100);
    bench.put("ada", None, member(Some(5)));
    bench.put("bob", None, member(Some(7)));
    bench.flush(1);
    bench.flush(2);
    assert_eq!(bench.rows(), ["ada", "bob"]);
    // In this order: told, late from the log, and later than all others.
    bench.put("ada", Some(&member(Some(5))), member(None));
    bench.put("dan", None, member(Some(9)));
    bench.put("cid", None, member(Some(6)));
    let mut found = Vec::new();
    let visit = |key: &ContextKey, _: &Member, is_row: bool| {
        found.push((key.as_str().to_owned(), is_row));
        true
    };
    let Bench { db, members } = &bench;
    members.visit_pending(db, AUDIENCE, Timestamp(4), true, visit).expect("it can be read");
    let expected = [("cid", false), ("bob", true), ("dan", false)];
    assert_eq!(found, expected.map(|(key, has_only_row)| (key.to_owned(), has_only_row)));
}

#[test]
fn couriers_have_enough_if_so_many_wait_and_are_told_quickly() {
    let now = Instant::now();
    let later = |ms| now + Duration::from_millis(ms);
    // Columns: members waiting, members told, when they were told, when it is asked, whether that is enough.
    let table = [
        (10, 1, 0, 0, true),
        (10, 1, 0, 60, true),
        (10, 1, 0, 100, false), // nobody was told lately
        (9, 10, 0, 0, false),   // too few wait
        (10, 0, 0, 0, false),   // too slow: other audiences would wait for these
    ];
    for (waiting, told, at, asked, enough) in table {
        let mut bench = Bench::new(80);
        for number in 0..waiting {
            bench.put(&format!("p{number}"), None, member(Some(number)));
        }
        bench.members.memtable.told(AUDIENCE, told, later(at));
        assert_eq!(
            bench.members.memtable.is_ahead(later(asked)),
            enough,
            "{waiting} {told} {asked}"
        );
        assert!(
            !bench.members.memtable.is_being_told(AudienceRowId(8), later(asked)),
            "nobody of it waits"
        );
    }
}

#[test]
fn an_audience_is_being_told_if_it_is_told_quickly_however_few_wait() {
    let now = Instant::now();
    for (waiting, told, expected) in [(1, 1, true), (0, 1, false), (1, 0, false)] {
        let mut bench = Bench::new(80);
        bench.put("told", None, member(None));
        for number in 0..waiting {
            bench.put(&format!("p{number}"), None, member(Some(number)));
        }
        bench.members.memtable.told(AUDIENCE, told, now);
        assert_eq!(
            bench.members.memtable.is_being_told(AUDIENCE, now),
            expected,
            "{waiting} {told}"
        );
    }
}

#[test]
fn members_whose_keys_take_memory_of_their_own_leave_room_for_fewer() {
    let uuid = |number: i64| format!("018f4e2a-7c1d-7b3e-9f00-{number:012x}");
    let long = |number: i64| format!("somebody-{number}@somewhere.example.com");
    let tables: [(&dyn Fn(i64) -> String, i64); 3] =
        [(&uuid, 12), (&|number| format!("user-{number}"), 12), (&long, 8)];
    for (key, most) in tables {
        let mut bench = Bench::new(12);
        for round in 0..2 {
            for number in 0..most {
                assert!(!bench.members.memtable.is_full(), "{number} of {most}, round {round}");
                bench.put(&key(number), None, member(None));
            }
            assert!(bench.members.memtable.is_full(), "{most}, round {round}");
            bench.members.memtable.begin_flush(0, false);
            bench.members.memtable.take_slice(usize::MAX);
        }
    }
}

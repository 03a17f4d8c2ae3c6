//! The memtable alone, compared with a plain map of what it holds and another of what was flushed.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::{Instant, advance};

use super::*;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};
use crate::seeds;

const AUDIENCES: [AudienceRowId; 2] = [AudienceRowId(3), AudienceRowId(7)];

#[derive(Clone, Debug)]
enum Act {
    /// Puts a member, pending since then or not.
    Put { audience: usize, key: u8, pending_since: Option<i64> },
    /// Deletes a member.
    Delete { audience: usize, key: u8 },
    /// Begins a flush unless one is under way, and takes up to `most` members out.
    Flush { keeps: bool, most: usize },
}

fn act() -> impl Strategy<Value = Act> {
    let (audiences, since) = (0..AUDIENCES.len(), proptest::option::of(0..9_i64));
    let put = (audiences.clone(), 0..20_u8, since)
        .prop_map(|(audience, key, pending_since)| Act::Put { audience, key, pending_since });
    let delete = (audiences, 0..20_u8).prop_map(|(audience, key)| Act::Delete { audience, key });
    let flush = (any::<bool>(), 0..9_usize).prop_map(|(keeps, most)| Act::Flush { keeps, most });
    prop_oneof![4 => put, 1 => delete, 1 => flush]
}

fn key(number: u8) -> ContextKey {
    // One of each form: a short text, a long one, and a UUID.
    let text = match number % 3 {
        0 => format!("user-{number}"),
        1 => format!("somebody-{number}@somewhere.example.com"),
        _ => format!("018f4e2a-7c1d-7b3e-9f00-{number:012x}"),
    };
    ContextKey::new(&text).expect("not empty")
}

fn member(version: i64, pending_since: Option<i64>) -> Member {
    Member { pending_since: pending_since.map(Timestamp), ..Member::at_rest(version) }
}

type Map = BTreeMap<(AudienceRowId, String), Option<Member>>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..seeds::kept_in("tests/seeds/memtable.txt") })]

    #[test]
    fn it_holds_what_was_put_and_flushes_it_once_in_the_order_of_the_keys(
        acts in proptest::collection::vec(act(), 1..120),
    ) {
        let mut memtable = Memtable::new(1000);
        let (mut dirty, mut rows) = (Map::new(), Map::new());
        for (version, act) in (1..).zip(acts) {
            match act {
                Act::Put { audience, key: number, .. } | Act::Delete { audience, key: number } => {
                    let (audience, key) = (AUDIENCES[audience], key(number));
                    let name = (audience, key.as_str().to_owned());
                    let now = match act {
                        Act::Put { pending_since, .. } => Some(member(version, pending_since)),
                        _ => None,
                    };
                    let place = memtable.place(audience, key.as_str());
                    prop_assert_eq!(place.is_row(), !dirty.contains_key(&name));
                    let row = rows.get(&name).cloned().flatten();
                    let put = memtable.put(audience, (&key, place), row.as_ref(), now.as_ref());
                    prop_assert!(!put.is_row());
                    dirty.insert(name, now);
                }
                Act::Flush { keeps, most } => {
                    if !memtable.is_flushing() {
                        memtable.begin_flush(0, keeps);
                    }
                    let (slice, _) = memtable.take_slice(most);
                    let is_empty = slice.is_empty();
                    let FlushSlice(slices) = slice;
                    prop_assert_eq!(is_empty, slices.iter().all(|(_, slots)| slots.is_empty()));
                    for (audience, slots) in slices {
                        let keys: Vec<String> =
                            slots.iter().map(|slot| slot.key.show(str::to_owned)).collect();
                        prop_assert!(keys.is_sorted(), "{:?}", keys);
                        for (key, slot) in keys.into_iter().zip(&slots) {
                            let name = (audience, key);
                            let was = dirty.remove(&name);
                            prop_assert_eq!(was, Some(slot.now()), "it was dirty, and as it was put");
                            rows.insert(name, slot.now());
                        }
                    }
                }
            }
            let mut pending = 0;
            for audience in AUDIENCES {
                let expected = |name: &&(AudienceRowId, String)| name.0 == audience;
                for name in dirty.keys().filter(expected) {
                    let place = memtable.place(audience, &name.1);
                    let next = dirty[name].clone().map_or(Next::Delete, Next::Write);
                    prop_assert_eq!(memtable.get(audience, place), next);
                }
                prop_assert_eq!(memtable.any(audience), dirty.keys().any(|name| name.0 == audience));
                let mut waiting: Vec<(i64, String)> = dirty
                    .iter()
                    .filter(|(name, _)| name.0 == audience)
                    .filter_map(|(name, now)| {
                        Some((now.as_ref()?.pending_since?.0, name.1.clone()))
                    })
                    .collect();
                waiting.sort();
                pending += waiting.len();
                for after in [-1, 3] {
                    let mut shown: Vec<_> = memtable
                        .pending_behind(audience, Timestamp(after))
                        .map(|(since, key, _)| (since.0, key.as_str().to_owned()))
                        .collect();
                    prop_assert!(shown.is_sorted_by_key(|(since, _)| *since));
                    shown.sort();
                    let behind = waiting.iter().filter(|(since, _)| *since > after);
                    prop_assert_eq!(shown, behind.cloned().collect::<Vec<_>>());
                }
            }
            prop_assert!(pending <= dirty.len());
            prop_assert_eq!(memtable.is_empty(), dirty.is_empty());
        }
    }
}

/// Puts a member that has no row yet.
fn put(memtable: &mut Memtable, text: &str, pending_since: Option<i64>) {
    let key = ContextKey::new(text).expect("not empty");
    let place = memtable.place(AUDIENCES[0], text);
    memtable.put(AUDIENCES[0], (&key, place), None, Some(&member(1, pending_since)));
}

fn flush_all(memtable: &mut Memtable) {
    memtable.begin_flush(0, false);
    memtable.take_slice(usize::MAX);
    assert!(memtable.is_empty() && !memtable.is_flushing());
}

/// A key of 96 bytes and more takes the room of a member, beside that of its own.
#[tokio::test(start_paused = true)]
async fn a_flush_is_due_at_three_quarters_and_long_keys_take_room() {
    let long = |number: usize| format!("{number}{}", "x".repeat(96));
    let mut memtable = Memtable::new(8);
    for round in 0..2 {
        for number in 1..=8 {
            put(&mut memtable, &number.to_string(), None);
            let is = (memtable.is_due(), memtable.is_full());
            assert_eq!(is, (number >= 6, number >= 8), "{number} members, round {round}");
        }
        flush_all(&mut memtable);
        for number in 1..=4 {
            put(&mut memtable, &long(number), None);
            let is = (memtable.is_due(), memtable.is_full());
            assert_eq!(is, (number >= 3, number >= 4), "{number} long keys, round {round}");
        }
        flush_all(&mut memtable);
        assert!(!memtable.is_due());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_due_a_second_after_the_first_change_or_the_last_flush() {
    let second = Duration::from_secs(1);
    let mut memtable = Memtable::new(1000);
    advance(second).await;
    assert!(!memtable.is_due(), "nothing has changed");
    put(&mut memtable, "ada", Some(1));
    advance(second / 2).await;
    put(&mut memtable, "bob", None);
    assert!(!memtable.is_due());
    advance(second / 2).await;
    assert!(memtable.is_due(), "since the first");
    memtable.begin_flush(0, true);
    advance(second / 2).await;
    memtable.take_slice(usize::MAX);
    assert!(!memtable.is_empty(), "whoever is pending is left to the next");
    assert!(!memtable.is_due());
    advance(second / 2).await;
    assert!(memtable.is_due(), "since that one began");
    flush_all(&mut memtable);
    advance(second).await;
    assert!(!memtable.is_due(), "nothing is left");
}

/// Room for 80 members: couriers are busy if ten of them wait to be told, and are told within a second.
#[tokio::test(start_paused = true)]
async fn couriers_are_busy_if_enough_wait_and_are_told_fast() {
    // pending, told in the last moment (a twentieth of a second), is being told, is enough
    let rows = [
        (0, 0, false, false),
        (9, 0, false, false),
        (9, 1, true, false),
        (10, 1, true, true),
        (39, 1, true, true),
        (39, 0, false, false),
    ];
    for (pending, told, is_being_told, is_ahead) in rows {
        let mut memtable = Memtable::new(80);
        for number in 0..pending {
            put(&mut memtable, &format!("user-{number}"), Some(number));
        }
        put(&mut memtable, "nobody waits for", None);
        let now = Instant::now();
        memtable.told(AUDIENCES[0], told, now);
        let is = (memtable.is_being_told(AUDIENCES[0], now), memtable.is_ahead(now));
        assert_eq!(is, (is_being_told, is_ahead), "{pending} pending, {told} told");
        let later = now + Duration::from_millis(100);
        assert!(!memtable.is_being_told(AUDIENCES[0], later), "no longer told");
        assert!(!memtable.is_being_told(AUDIENCES[1], now));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_makes_room_for_twice_what_comes_in() {
    let mut memtable = Memtable::new(40_000);
    let fill = |memtable: &mut Memtable, numbers: std::ops::Range<usize>| {
        numbers.for_each(|number| put(memtable, &number.to_string(), None));
    };
    fill(&mut memtable, 0..27_000);
    assert_eq!(memtable.share(99_999, true), 0, "no flush is under way");
    memtable.begin_flush(0, false);
    fill(&mut memtable, 27_000..29_999);
    assert_eq!(memtable.share(99_999, false), 0, "there is room, and time");
    assert_eq!(memtable.share(99_999, true), 99_999, "somebody waits for it");
    fill(&mut memtable, 29_999..30_000);
    assert_eq!(memtable.share(99_999, false), 6000);
    assert_eq!(memtable.share(5000, false), 5000);
    memtable.take_slice(0);
    assert_eq!(memtable.share(99_999, false), 0, "nothing has come in since");
    fill(&mut memtable, 30_000..40_000);
    assert_eq!(memtable.share(99_999, false), 99_999, "it is full");
}

#[tokio::test(start_paused = true)]
async fn a_flush_in_slices_keeps_to_its_time_and_to_what_it_is_asked_for() {
    let mut memtable = Memtable::new(100_000);
    for number in 0..20_000 {
        put(&mut memtable, &number.to_string(), None);
    }
    memtable.begin_flush(5, false);
    advance(Duration::from_secs(1)).await;
    assert_eq!(memtable.share(99_999, false), 10_000, "half of them in half of the time");
    let (FlushSlice(slices), _) = memtable.take_slice(7_000);
    assert_eq!(slices.iter().map(|(_, slots)| slots.len()).sum::<usize>(), 7_000);
    assert_eq!(memtable.share(99_999, false), 0, "the next three thousand can wait");
    advance(Duration::from_secs(1)).await;
    assert_eq!(memtable.share(99_999, false), 13_000);
}

/// Blocks leave the log when a flush has left no member of theirs behind.
#[test]
fn the_log_is_complete_through_the_last_flush_that_left_nobody_behind() {
    let mut memtable = Memtable::new(1000);
    put(&mut memtable, "ada", Some(1));
    memtable.begin_flush(5, false);
    put(&mut memtable, "bob", None);
    memtable.take_slice(usize::MAX);
    assert_eq!(memtable.complete_through(), 5);
    put(&mut memtable, "eve", Some(2));
    memtable.begin_flush(7, true);
    memtable.take_slice(usize::MAX);
    assert_eq!(memtable.complete_through(), 5, "eve is left behind");
    memtable.begin_flush(9, true);
    memtable.take_slice(usize::MAX);
    assert!(memtable.complete_through() >= 7, "nobody is left behind twice");
}

#[test]
fn since_when_members_wait_is_known_by_audience() {
    let mut memtable = Memtable::new(1000);
    for (text, since) in [("bob", Some(20)), ("ada", Some(10)), ("eve", None), ("dan", Some(30))] {
        put(&mut memtable, text, since);
    }
    assert_eq!(memtable.pending_since(AUDIENCES[0]), Some(Timestamp(10)));
    let far = |after, others| memtable.pending_far_behind(AUDIENCES[0], Timestamp(after), others);
    assert_eq!((far(0, 1), far(10, 1)), (Some(Timestamp(20)), Some(Timestamp(30))));
    assert_eq!(memtable.pending_since(AUDIENCES[1]), None);
    assert_eq!(memtable.pending_far_behind(AUDIENCES[1], Timestamp(0), 1), None);
}

/// Places that were looked up before a rollback are used after it.
#[test]
fn a_memtable_that_is_emptied_hashes_as_before() {
    let mut memtable = Memtable::new(1000);
    put(&mut memtable, "ada", Some(1));
    let before = memtable.place(AUDIENCES[0], "ada");
    memtable.forget();
    let place = memtable.place(AUDIENCES[0], "ada");
    assert!(memtable.is_empty() && !before.is_row() && place.is_row());
    assert_eq!(place.hash, before.hash);
}

//! The memtable alone, compared with a plain map of what it holds and another of what was flushed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Membership, Timestamp};
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
    Member {
        membership: Membership::In,
        event_at: Timestamp(version),
        version: Timestamp(version),
        told: None,
        pending_since: pending_since.map(Timestamp),
        parked_at: None,
        unheard: false,
        erase: false,
        key_rule: 1,
        person: None,
        refused_with: None,
        is_ahead: false,
    }
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
                    let (FlushSlice(slices), _) = memtable.take_slice(most);
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
                        .map(|(since, key, ..)| (since.0, key.as_str().to_owned()))
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

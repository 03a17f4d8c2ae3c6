//! A flush: a pass over all dirty members in key order, a slice at a time.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::embedded::ids::{AudienceRowId, SlotNumber};
use crate::ledger::embedded::memtable::audience::DirtyMembers;
use crate::ledger::embedded::memtable::key::Key;
use crate::ledger::embedded::memtable::slot::Slot;

/// Duration of a flush that nothing speeds up.
const TAKES: Duration = Duration::from_secs(2);

/// Members that are worth a transaction, unless fewer are left.
const LEAST: usize = 4096;

/// What is left of a flush.
#[derive(Debug)]
pub(super) struct Flush {
    /// Slot numbers by the row of their audience, in reverse order, so that the next one is popped from the
    /// end.
    pub left: Vec<(AudienceRowId, Vec<SlotNumber>)>,
    pub members: usize,
    pub done: usize,
    pub began: Instant,
    /// The last block of the log that had been read when the flush began.
    pub through: u64,
    /// Whether pending members are left to the next flush, and how many were.
    pub keeps: bool,
    pub kept: usize,
}

impl Flush {
    /// How many members to write now, at most `most`, to end in time and to make room for `for_room` more.
    pub fn share(&self, most: usize, for_room: usize) -> usize {
        let part = self.began.elapsed().as_secs_f64() / TAKES.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "they are bounded, and a rough number is enough"
        )]
        let in_time = ((self.members as f64 * part) as usize).saturating_sub(self.done);
        let (due, left) = (for_room.max(in_time), self.members - self.done);
        if due < LEAST.min(left) { 0 } else { due.min(most) }
    }
}

/// Members taken out of the memtable to be written, by the row of their audience.
#[derive(Debug, Default)]
pub(crate) struct FlushSlice(pub Vec<(AudienceRowId, Vec<Slot>)>);

impl FlushSlice {
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, slots)| slots.is_empty())
    }
}

/// The numbers of an audience's members in reverse key order.
pub(crate) fn in_order(of: &DirtyMembers) -> Vec<SlotNumber> {
    let mut first = None;
    let mut common = 0;
    for (_, key) in of.numbers() {
        key.show(|key| match &first {
            None => (first, common) = (Some(key.to_owned()), key.len()),
            Some(first) => common = common_bytes(first, key, common),
        });
        if common == 0 {
            break;
        }
    }
    // Mostly decided by the first bytes in which the keys differ, without reading the keys themselves.
    let rank = |(number, key): (SlotNumber, &Key)| {
        (key.show(|key| prefix(&key.as_bytes()[common..])), number)
    };
    let mut order: Vec<(u64, SlotNumber)> = of.numbers().map(rank).collect();
    order.sort_unstable_by(|(a, a_number), (b, b_number)| {
        b.cmp(a).then_with(|| of.compare(*b_number, *a_number))
    });
    order.into_iter().map(|(_, number)| number).collect()
}

/// The length of the common prefix, at most `most`.
fn common_bytes(a: &str, b: &str, most: usize) -> usize {
    a.bytes().zip(b.bytes()).take(most).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number with the same order.
fn prefix(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hashbrown::DefaultHashBuilder;

    use super::*;
    use crate::ledger::member::Member;
    use crate::membership::ContextKey;

    fn member() -> Member {
        Member::at_rest(1)
    }

    #[test]
    fn the_order_is_that_of_the_keys_whatever_they_have_in_common() {
        let tables: [&[&str]; 6] = [
            &[],
            &["bz", "ab", "ca", "az"],
            &["a"],
            &["customer-10", "customer-1", "customer-100", "customer-2", "customer-1000000001"],
            &["é", "e", "zz", "ééééééééé", "ééééééééa"],
            &["b", "a", "c\u{0}", "c", "c\u{0}\u{0}"],
        ];
        for keys in tables {
            let (mut of, hasher) = (DirtyMembers::default(), DefaultHashBuilder::default());
            for text in keys {
                let key = ContextKey::new(text).expect("not empty");
                let new = Slot::new(&key, None, Some(&member()));
                let hash = new.hash(&hasher);
                of.insert(new, hash, &hasher);
            }
            let by_number: BTreeMap<SlotNumber, ContextKey> =
                of.numbers().map(|(number, key)| (number, key.context_key())).collect();
            let reversed = in_order(&of);
            let ordered: Vec<&str> =
                reversed.iter().rev().map(|number| by_number[number].as_str()).collect();
            let mut expected = keys.to_vec();
            expected.sort_unstable();
            assert_eq!(ordered, expected);
        }
    }

    /// Small transactions are not worth their commit, unless room is needed or little is left.
    #[tokio::test(start_paused = true)]
    async fn a_flush_takes_two_seconds_in_pieces_that_are_worth_a_transaction() {
        const MANY: usize = 100_000;
        // members, written so far, after this many ms, room needed, at most, and how many are written now
        let rows = [
            (MANY, 0, 0, 0, MANY, 0),
            (MANY, 0, 1000, 0, MANY, MANY / 2),
            (MANY, 40_000, 1000, 0, MANY, 10_000),
            (MANY, 60_000, 1000, 0, MANY, 0), // ahead of its time
            (MANY, 0, 1000, 0, 7000, 7000),
            (MANY, 50_000 - LEAST, 1000, 0, MANY, LEAST),
            (MANY, 50_001 - LEAST, 1000, 0, MANY, 0),
            (MANY, 50_000, 1000, 6000, MANY, 6000), // for room
            (MANY, 50_000, 1000, 60, MANY, 0),
            (MANY, MANY - 100, 3000, 0, MANY, 50_100), // late: whatever is left
            (1000, 0, 1000, 0, MANY, 0),
            (1000, 0, 2000, 0, MANY, 1000),
            (1000, 900, 1000, 100, MANY, 100), // no more are left
        ];
        for (members, done, after_ms, for_room, most, expected) in rows {
            let began = Instant::now();
            let flush =
                Flush { left: vec![], members, done, began, through: 0, keeps: false, kept: 0 };
            tokio::time::advance(Duration::from_millis(after_ms)).await;
            let share = flush.share(most, for_room);
            let case = format!("{done} of {members} after {after_ms} ms, room for {for_room}");
            assert_eq!(share, expected, "{case}, at most {most}");
        }
    }
}

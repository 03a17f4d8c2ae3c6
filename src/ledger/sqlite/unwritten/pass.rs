//! A pass: all members that have changed, in the order of the table, a slice at a time.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::super::members::{Storing, TOGETHER};
use super::changed::Changed;
use super::key::Key;
use super::slot::Slot;
use super::{AT_ONCE, Unwritten, Written};

/// A pass takes so long if nothing makes it quicker.
const TAKES: Duration = Duration::from_secs(2);

/// So many are worth a transaction, unless fewer are left.
const LEAST: usize = 4096;

/// What is left of one.
#[derive(Debug)]
pub(super) struct Pass {
    /// By the row of their audience, each in the reverse order of their keys; the first one last.
    left: Vec<(i64, Vec<u32>)>,
    members: usize,
    done: usize,
    began: Instant,
    /// The last block of the journal that was read when it began.
    through: u64,
    /// Whether those who wait to be told are left to the next one, and how many were.
    keeps: bool,
    kept: usize,
}

/// Members that were taken out to be written, with the rows of their audiences.
#[derive(Debug, Default)]
pub(in super::super) struct Taken(Vec<(i64, Vec<Slot>)>);

impl Taken {
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, slots)| slots.is_empty())
    }

    /// Writes their rows.
    pub fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut storing = Storing::into(db);
        let pieces = self
            .0
            .iter()
            .flat_map(|(audience, slots)| slots.chunks(AT_ONCE).map(|some| (*audience, some)));
        for (audience, some) in pieces {
            // Texts are wherever there was place for them: looked at together they are waited for once.
            let texts = some.iter().filter(|slot| slot.key.is_elsewhere());
            black_box(texts.filter(|slot| slot.key.show(|text| text.starts_with('\0'))).count());
            for run in some.chunk_by(|one, next| one.is_new() && next.is_new()) {
                let mut together = run.chunks_exact(TOGETHER);
                for new in together.by_ref() {
                    let mut insert = storing.insert_together()?;
                    for (slot, now) in new.iter().filter_map(|slot| Some((slot, slot.now()?))) {
                        slot.key.show(|key| insert.add(audience, key, &now))?;
                    }
                    insert.insert()?;
                }
                for slot in together.remainder() {
                    let (row, now) = (slot.row(), slot.now());
                    if row.is_some() || now.is_some() {
                        slot.key.show(|key| storing.store(audience, key, row, now.as_ref()))?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Unwritten {
    pub fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// Begins a pass. The blocks of the journal up to `through` are read; `keeps`: those who wait to
    /// be told will soon change again.
    pub fn begin_pass(&mut self, through: u64, keeps: bool) {
        let in_order = |(audience, of): (&i64, &Changed)| (*audience, in_order(of));
        let left: Vec<_> = self.audiences.iter().rev().map(in_order).collect();
        let members = left.iter().map(|(_, numbers)| numbers.len()).sum();
        self.added = 0;
        self.pass =
            Some(Pass { left, members, done: 0, began: Instant::now(), through, keeps, kept: 0 });
    }

    /// How many are to be written now so that there is room in time.
    pub fn share(&self, most: usize, hurries: bool) -> usize {
        let Some(pass) = &self.pass else { return 0 };
        if hurries || self.is_full() {
            return most;
        }
        let for_room = if self.is_filling() { 2 * self.added } else { 0 };
        let part = pass.began.elapsed().as_secs_f64() / TAKES.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "they are bounded, and a rough number is enough"
        )]
        let in_time = ((pass.members as f64 * part) as usize).saturating_sub(pass.done);
        let (due, left) = (for_room.max(in_time), pass.members - pass.done);
        if due < LEAST.min(left) { 0 } else { due.min(most) }
    }

    /// Takes so many out, to write them.
    pub fn take_some(&mut self, most: usize) -> (Taken, BTreeMap<i64, Written>) {
        let (mut all_taken, mut all_written) = (Taken::default(), BTreeMap::new());
        let Some(mut pass) = self.pass.take() else { return (all_taken, all_written) };
        self.added = 0;
        let mut share = most;
        while share > 0 {
            let Some((audience, numbers)) = pass.left.last_mut() else { break };
            let written: &mut Written = all_written.entry(*audience).or_default();
            let Some(of) = self.audiences.get_mut(audience) else { break };
            if all_taken.0.last().is_none_or(|(last, _)| last != audience) {
                all_taken.0.push((*audience, Vec::with_capacity(share.min(numbers.len()))));
            }
            let slots = &mut all_taken.0.last_mut().expect("one is there").1;
            let taken = numbers.split_off(numbers.len().saturating_sub(share.min(AT_ONCE)));
            (share, pass.done) = (share - taken.len(), pass.done + taken.len());
            let hashes = of.hashes(&taken, &self.hasher);
            for (number, hash) in taken.into_iter().zip(hashes).rev() {
                let Some(slot) = of.take(number, hash, pass.keeps) else {
                    pass.kept += 1;
                    continue;
                };
                self.count -= 1;
                self.text_bytes -= slot.key.bytes_elsewhere();
                written.before += slot.row_counts();
                written.now += slot.counts();
                written.waits_through = written.waits_through.max(slot.pending_since());
                if slot.is_claimed() {
                    written.claimed.push((hash, slot.key.context_key()));
                }
                slots.push(slot);
            }
            if numbers.is_empty() {
                let (audience, _) = (*audience, pass.left.pop());
                if of.is_empty() {
                    self.audiences.remove(&audience);
                }
            }
        }
        if pass.left.is_empty() {
            self.end(&pass);
        } else {
            self.pass = Some(pass);
        }
        (all_taken, all_written)
    }

    /// Whoever was left to this pass by the one before is written now.
    fn end(&mut self, pass: &Pass) {
        self.complete_through = if pass.kept == 0 { pass.through } else { self.begun_through };
        self.begun_through = pass.through;
        self.since = (self.count > 0).then_some(pass.began);
    }

    /// Begins a pass that leaves nobody.
    pub fn begin_last_pass(&mut self) {
        self.begin_pass(self.begun_through, false);
    }

    /// What the blocks of the journal up to this one have changed is written.
    pub fn complete_through(&self) -> u64 {
        self.complete_through
    }
}

/// The members of an audience in the reverse order of their keys.
pub(super) fn in_order(of: &Changed) -> Vec<u32> {
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
    // Mostly decided by the first bytes that differ, without a look at the key itself.
    let rank =
        |(number, key): (u32, &Key)| (key.show(|key| prefix(&key.as_bytes()[common..])), number);
    let mut order: Vec<(u64, u32)> = of.numbers().map(rank).collect();
    order.sort_unstable_by(|(a, a_number), (b, b_number)| {
        b.cmp(a).then_with(|| of.compare(*b_number, *a_number))
    });
    order.into_iter().map(|(_, number)| number).collect()
}

/// With how many bytes both begin, at most `most`.
fn common_bytes(a: &str, b: &str, most: usize) -> usize {
    a.bytes().zip(b.bytes()).take(most).take_while(|(a, b)| a == b).count()
}

/// The first bytes as a number that orders as they do.
fn prefix(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = text.len().min(8);
    bytes[..length].copy_from_slice(&text[..length]);
    u64::from_be_bytes(bytes)
}

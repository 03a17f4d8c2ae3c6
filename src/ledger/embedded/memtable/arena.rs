//! An arena of slots, allocated in chunks: it grows without moving slots, which would need twice the memory
//! for a moment.

use crate::ledger::embedded::ids::SlotNumber;
use crate::ledger::embedded::memtable::free_list::FreeList;
use crate::ledger::embedded::memtable::slot::Slot;

/// Slots in a chunk; the first chunk grows up to this.
const PIECE: usize = 4096;

/// All slots that are in use.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pieces: Vec<Vec<Option<Slot>>>,
    free: FreeList,
}

impl Arena {
    /// The slot with this number, if it is in use.
    pub fn get(&self, number: SlotNumber) -> Option<&Slot> {
        let (piece, place) = place(number);
        self.pieces.get(piece)?.get(place)?.as_ref()
    }

    /// The slot with this number, which must be in use.
    pub fn of(&self, number: SlotNumber) -> &Slot {
        self.get(number).expect("a number that is known is of a slot in use")
    }

    /// See [`Arena::get`].
    pub fn get_mut(&mut self, number: SlotNumber) -> Option<&mut Slot> {
        self.room(number)?.as_mut()
    }

    fn room(&mut self, number: SlotNumber) -> Option<&mut Option<Slot>> {
        let (piece, place) = place(number);
        self.pieces.get_mut(piece)?.get_mut(place)
    }

    /// Stores a slot and returns its number.
    pub fn add(&mut self, slot: Slot) -> SlotNumber {
        if let Some(number) = self.free.take() {
            *self.room(number).expect("who is vacant was in use") = Some(slot);
            return number;
        }
        if self.pieces.last().is_none_or(|last| last.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(if self.pieces.is_empty() { 1 } else { PIECE }));
        }
        let before = PIECE * (self.pieces.len() - 1);
        let last = self.pieces.last_mut().expect("one is there");
        last.push(Some(slot));
        let number = u32::try_from(before + last.len() - 1);
        SlotNumber(number.expect("the memtable is bounded"))
    }

    /// Takes a slot out and frees its number.
    pub fn take(&mut self, number: SlotNumber) -> Option<Slot> {
        let taken = self.room(number)?.take()?;
        self.free.add(number);
        Some(taken)
    }

    /// All slots in use, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = (SlotNumber, &Slot)> {
        let rooms = self.pieces.iter().flatten();
        (0..).map(SlotNumber).zip(rooms).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }
}

fn place(number: SlotNumber) -> (usize, usize) {
    (number.0 as usize / PIECE, number.0 as usize % PIECE)
}

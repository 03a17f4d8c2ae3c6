//! Slots by number, in pieces: there may be more of them without a move of those that are there, for
//! which there would have to be room twice.

use std::mem;

use crate::ledger::embedded::memtable::free_list::Vacant;
use crate::ledger::embedded::memtable::slot::Slot;

/// Slots in a piece; the first one grows up to it.
const PIECE: usize = 4096;

/// All that are in use.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pieces: Vec<Vec<Option<Slot>>>,
    vacant: Vacant,
}

impl Slots {
    /// The one with this number, if it is in use.
    pub fn get(&self, number: u32) -> Option<&Slot> {
        let (piece, place) = place(number);
        self.pieces.get(piece)?.get(place)?.as_ref()
    }

    /// The one with this number, which is in use.
    pub fn of(&self, number: u32) -> &Slot {
        self.get(number).expect("a number that is known is of a slot in use")
    }

    /// See [`Slots::get`].
    pub fn get_mut(&mut self, number: u32) -> Option<&mut Slot> {
        self.room(number)?.as_mut()
    }

    fn room(&mut self, number: u32) -> Option<&mut Option<Slot>> {
        let (piece, place) = place(number);
        self.pieces.get_mut(piece)?.get_mut(place)
    }

    /// Gives one a number.
    pub fn add(&mut self, slot: Slot) -> u32 {
        if let Some(number) = self.vacant.take() {
            let room = self.room(number).expect("who is vacant was in use");
            // Nobody was left there (`Slots::take`): to look whether is to wait for memory far away.
            mem::forget(room.replace(slot));
            return number;
        }
        if self.pieces.last().is_none_or(|last| last.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(if self.pieces.is_empty() { 1 } else { PIECE }));
        }
        let before = PIECE * (self.pieces.len() - 1);
        let last = self.pieces.last_mut().expect("one is there");
        last.push(Some(slot));
        u32::try_from(before + last.len() - 1).expect("they are bounded")
    }

    /// Takes one out; its number is free then.
    pub fn take(&mut self, number: u32) -> Option<Slot> {
        let taken = self.room(number)?.take()?;
        self.vacant.add(number);
        Some(taken)
    }

    /// All in use, in the order of their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let rooms = self.pieces.iter().flatten();
        (0..).zip(rooms).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }
}

fn place(number: u32) -> (usize, usize) {
    (number as usize / PIECE, number as usize % PIECE)
}

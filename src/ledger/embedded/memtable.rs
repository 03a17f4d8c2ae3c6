//! The memtable: dirty members, flushed later in the order of the table.
//!
//! While the writer is behind, a member changes several times within a moment: it arrives, is claimed and is told. So
//! what was read from the log, and what couriers report, changes members here first; their rows are written once, many
//! of them at a time and in the order of their keys, so that one page write holds many of them. It is the memtable of a
//! log-structured store, with SQLite's B-tree in the place of sorted runs.
//!
//! # Inside
//! | part | what |
//! | --- | --- |
//! | `table` | all audiences: counts, room, flushes |
//! | `audience` | the dirty members of one audience, found by key and by since when they have been pending |
//! | `slot` | one member in 72 bytes: what it is to be, and what its row counts as |
//! | `key` | a context key in 24 bytes: a UUID, a short text, or a pointer |
//! | `arena`, `free_list` | slots by number, in pieces that never move; numbers are reused in rising order |
//! | `flush` | one pass over everybody in the order of the keys, a slice at a time |
//! | `place` | where a member is: its number here, or only in its row |
//! | `rate` | how quickly couriers tell an audience |
//!
//! # A flush
//! It begins at the latest a second after the first change, or when three quarters of the room are taken. It visits
//! every member that is dirty at that moment, a slice with each transaction, and takes it out; a member that is pending
//! is left to the next flush once, because it will change again as soon as it is told. When a flush has left nobody, the
//! blocks of the log that were read before it began are superfluous ([`FlushMarks`](super::watermarks::FlushMarks)).
//! A transaction that fails takes everything back: the memtable is emptied, and the log is read again.
//!
//! # What always holds
//! * Until a member is taken out, it says here what it is, whatever its row says; [`super::members`] asks in that order.
//! * A block leaves the log with the transaction that writes the last member it has changed ([P1](crate::design::P1),
//!   tests/it/faults.rs). After a crash it is merged again, and ends the same.
//! * It is bounded: when it is full nothing more is read from the log ([P6](crate::design::P6)).
//! * It holds what was put and no more: any mixture of changes and flushes ends as a plain map does (`tests`).

mod arena;
mod audience;
mod flush;
mod free_list;
mod key;
mod place;
mod rate;
mod slot;
mod table;

pub(crate) use flush::Taken;
pub(crate) use place::Place;
pub(crate) use slot::Row;
pub(crate) use table::{AT_ONCE, MEMBER_BYTES, Memtable, Written};

#[cfg(test)]
mod tests;

//! The memtable: dirty members, flushed later in key order.
//!
//! While the writer is behind, a member changes several times within a moment: it arrives, is claimed and is
//! told. So what was read from the log, and what couriers report, changes members here first. Their rows are
//! written once, many at a time and in key order, so that one page write holds many of them. It is the
//! memtable of a log-structured store, with SQLite's B-tree in the place of sorted runs.
//!
//! # Inside
//! | part | what |
//! | --- | --- |
//! | `table` | all audiences: counts, capacity, flushes |
//! | `audience` | the dirty members of one audience, found by key and by the time since when they are pending |
//! | `slot` | one member in 72 bytes: what it should be, and what its row counts as |
//! | `key` | a context key in 24 bytes: a UUID, a short text, or a pointer |
//! | `arena`, `free_list` | slots by number, in chunks that never move; numbers are reused in ascending order |
//! | `flush` | one pass over all dirty members in key order, a slice at a time |
//! | `place` | where a member is: its slot number, or only in its row |
//! | `rate` | how fast couriers tell an audience |
//!
//! # A flush
//! A flush begins at the latest a second after the first change, or when the memtable is three quarters full.
//! It visits every member that is dirty at that moment, a slice with each transaction, and takes it out; a
//! pending member is left to the next flush once, because it will change again as soon as it is told. When a
//! flush has left no member behind, the blocks of the log that were read before it began are no longer needed
//! ([`FlushMarks`](super::watermarks::FlushMarks)). If a transaction fails, everything starts over: the
//! memtable is emptied, and the log is read again.
//!
//! # What always holds
//! * A dirty member is what the memtable says, whatever its row says; [`super::members`] asks in that order.
//! * A block leaves the log with the transaction that writes the last member it has changed
//!   ([P1](crate::design::P1), tests/it/faults.rs). After a crash it is merged again, with the same result.
//! * It is bounded: when it is full nothing more is read from the log ([P6](crate::design::P6)).
//! * It holds what was put and nothing else: any mixture of changes and flushes ends as with a plain map
//!   (`tests`).

mod arena;
mod audience;
mod flush;
mod free_list;
mod key;
mod place;
mod rate;
mod slot;
mod table;

pub(crate) use flush::FlushSlice;
pub(crate) use place::Place;
pub(crate) use slot::Row;
pub(crate) use table::{AT_ONCE, FlushedCounts, MEMBER_BYTES, Memtable};

#[cfg(test)]
mod tests;

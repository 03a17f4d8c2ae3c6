//! Members that have changed and whose rows are written later, together.
//!
//! While the writer is behind, a member changes several times within a moment: it arrives, is claimed
//! and is told. What was merged from the journal need not be written before it leaves the journal, and
//! what was told need not be written at once: whoever is told twice is told the same. So the rows of
//! many changes are written once, in the order of the table: the more there are, the more of them
//! share a page. They are written in a *pass* over all, a slice with each transaction, beside what the
//! writer does (`super::writer`); a pass leaves those who wait to be told to the next one.
//!
//! # What always holds
//! * Whoever reads the rows themselves has them written first: only what looks up one member, or asks
//!   who waits, finds them here.
//! * A block leaves the journal with the transaction that writes the last member it has changed ([P1](crate::design::P1),
//!   tests/it/faults.rs). After a crash it is merged again, and ends the same.
//! * Members of which a call was made are known by the mark of their audience, which is on the disk before
//!   a batch is handed out: what was heard of the call since may be lost.
//! * They are bounded: when there are so many, nothing more is read from the journal ([P6](crate::design::P6)).

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

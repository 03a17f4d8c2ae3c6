//! The journal: where requests are made durable while the writer is busy.
//!
//! While the writer keeps up, a request is a part of its next transaction. When it does not, the
//! request is appended here, synced together with whatever else waits, and answered; the writer reads
//! it back as soon as it can, and writes the members that it has changed in large groups, sorted by
//! member (`super::unwritten`): then it is merged. Why: [`decisions`](crate::design::decisions::journal).
//!
//! # What always holds
//! * What is appended is on stable storage when it is published, and is erased only when the
//!   transaction that holds it is ([P1](crate::design::P1), tests/it/faults.rs and `tests::journaled`).
//! * What comes after something that is not merged yet goes through the journal too, or waits until
//!   it is merged: nothing overtakes ([P2](crate::design::P2)).
//! * It is bounded: when it is full, requests wait, and are refused in time ([P6](crate::design::P6)).
//! * Merging the same block twice ends as merging it once: a block carries the stamps of its deltas.
//!
//! # On the disk
//! Two files that take turns, each begun again at its start when all of it is merged. A *block* is what
//! was synced at once: a [`header`](block) and records. Blocks are numbered without gaps; the number
//! of the last one that is merged stands in the database, and is written with what it merged. Each says
//! of which version its format is (`block`).

mod block;
mod files;
mod layout;
mod log;
mod recovery;

pub(crate) use block::{HEADER as BLOCK_HEADER, Seal, VERSION};
pub(crate) use files::{AppendError, Files};
pub(crate) use layout::{ANSWERED, FILES, answered, exist};
pub(crate) use log::Log;
pub(crate) use recovery::{Found, ScanError, scan};

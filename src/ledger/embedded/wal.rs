//! The write-ahead log in front of the tables: blocks of bytes, appended and synced while the writer is busy.
//!
//! Users know it as the ledger's journal, hence the names of its files; SQLite has a log of its own. This
//! module handles bytes and numbers only: records are decoded by its callers ([`record`](super::record)), and
//! the changes of its blocks are held in the [`memtable`](super::memtable) until it is flushed. Why there is
//! a log: [`decisions`](crate::design::decisions::journal).
//!
//! # On the disk
//! Three files in the ledger's directory. All integers are little-endian.
//!
//! | file | what |
//! | --- | --- |
//! | `journal-1`, `journal-2` | consecutive blocks from offset 0; then zeros, or blocks of an earlier use of the file |
//! | `journal-answered` | 8 bytes: the number of the last block that was answered; 4 bytes: their CRC-32. Written after each sync and not synced itself: it survives the process, not the machine |
//!
//! A block is what one sync makes durable:
//!
//! | bytes | what |
//! | --- | --- |
//! | 7 | `cohortd` |
//! | 1 | version of the format: 2 (version 1 has no version field, and `J` in this place) |
//! | 8 | number of the block |
//! | 4 | bytes of its records |
//! | 4 | CRC-32, see [`block`] |
//! | … | the records |
//! | 0 to 7 | zeros: the next block begins at a multiple of 8 |
//!
//! The checksum is keyed: it starts with a key that is created with the ledger and stored in its database, so
//! that nobody can send an event that looks like a block. A block has at most 4 GiB; this version closes a
//! block at 4 MiB.
//!
//! # Numbers
//! Blocks are numbered from 1 without gaps, across both files. The database holds the number of the last
//! block whose members are in the tables (*merged*), written in the same transaction as those members. A
//! number that has been written and synced is never reused, whether it was answered or not.
//!
//! # Writing
//! One thread appends ([`Files::append`]): it writes the block behind the last one, syncs the file, notes the
//! number as answered, and only then publishes the block ([`Log::publish`]), after which its requests are
//! answered. Once a file is longer than 32 MiB, appending moves to the other one as soon as everything in
//! that one is merged; a file of which everything is merged is rewritten from its start. A file is extended
//! by zeros, 1 MiB at a time, before the block is written: if there is no space, nothing of the block is
//! written, and its number stays free.
//!
//! # Reading
//! The writer reads published blocks back by their location ([`Files::read`]) and verifies them again: a
//! block that has changed is an error that ends the daemon, and is never skipped silently.
//!
//! # Recovery
//! A start ([`scan`]) reads each file from offset 0 as long as sound blocks with consecutive numbers follow
//! each other, and keeps those behind the last merged one. What a crash can leave:
//!
//! * *A torn last block.* It was never synced, so it was not answered: it is dropped. If `journal-answered`
//!   names it nevertheless, or a sound block with a higher number follows it or is in the other file, then it
//!   was answered and has been damaged since: the start is refused.
//! * *Blocks that are already merged.* They are skipped by their number.
//! * *Blocks of an earlier use of the file* behind the end. Their numbers do not continue the sequence: the
//!   scan of the file ends before them.
//! * *A block of a newer version.* The start is refused, unless the block is merged.
//!
//! # What always holds
//! * A published block is on stable storage, and its space is reused only when the transaction that merges it
//!   is synced ([P1](crate::design::P1), tests/it/faults.rs and `tests::journaled`).
//! * It is bounded: at 256 MiB or 100,000 unmerged blocks requests wait, and are refused in time
//!   ([P6](crate::design::P6)).
//! * Any prefix of a file reads as a prefix of its blocks, and a changed byte either leaves the blocks
//!   unchanged or is reported (`tests`).
//!
//! # What does not
//! A block may be merged twice, after a crash before the commit that merges it: merging must be idempotent.

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

#[cfg(test)]
mod tests;

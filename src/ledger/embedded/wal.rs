//! The write-ahead log in front of the tables: blocks of bytes, appended and synced while the writer is busy.
//!
//! People know it as the ledger's journal, and so its files are called; SQLite has a log of its own. It knows bytes
//! and numbers only: what a record says is read above it ([`record`](super::record)), and what the blocks have changed
//! lies in the [`memtable`](super::memtable) until it is flushed. Why there is one:
//! [`decisions`](crate::design::decisions::journal).
//!
//! # On the disk
//! Three files in the ledger's directory. All integers are little-endian.
//!
//! | file | what |
//! | --- | --- |
//! | `journal-1`, `journal-2` | blocks, one behind the other from offset 0; then zeros, or blocks of an earlier use of the file |
//! | `journal-answered` | 8 bytes: the number of the last block that was answered; 4 bytes: their CRC-32. Written after each sync and not synced itself: it survives the process, not the machine |
//!
//! A block is what was synced at once:
//!
//! | bytes | what |
//! | --- | --- |
//! | 7 | `cohortd` |
//! | 1 | version of the format: 2 (`J` in version 1, which had no version) |
//! | 8 | number of the block |
//! | 4 | bytes of its records |
//! | 4 | CRC-32, see [`block`] |
//! | … | the records |
//! | 0 to 7 | zeros: the next block begins at a multiple of 8 |
//!
//! The checksum begins with a key that is made with the ledger and stands in its database, so that nobody can send an
//! event that looks like a block. A block has at most 4 GiB; the writer of this version begins a new one at 4 MiB.
//!
//! # Numbers
//! Blocks are numbered from 1 without gaps, across both files. The database says which block is the last one whose
//! members are in the tables (*merged*), in the same transaction that writes them. A number that has been written and
//! synced is never used again, whether it was answered or not.
//!
//! # Writing
//! One thread appends ([`Files::append`]): it writes the block where the last one ended, syncs the file, notes the
//! number as answered, and only then publishes the block ([`Log::publish`]), after which the requests in it are
//! answered. A file that is longer than 32 MiB is left for the other one as soon as all that the other one holds is
//! merged; a file of which everything is merged is written again from its start. A file grows by zeros, 1 MiB at a
//! time, before the block is written: where there is no space nothing of the block is written, and its number is free.
//!
//! # Reading
//! The writer reads published blocks back by their place ([`Files::read`]) and verifies them again: a block that has
//! changed since is an error that ends the daemon, never a shorter answer.
//!
//! # Recovery
//! A start ([`scan`]) reads each file from offset 0 as long as sound blocks follow each other without a gap in their
//! numbers, and keeps those behind the last merged one. What a crash can leave:
//!
//! * *A torn last block.* It was never synced, so nobody was answered: it is dropped. If `journal-answered` names it all
//!   the same, or a sound block with a higher number stands behind it or in the other file, it was answered and has been
//!   damaged since: the start is refused.
//! * *Blocks that are merged already.* They are skipped by their number.
//! * *Blocks of an earlier use of the file* behind the end. Their numbers do not follow: the run ends before them.
//! * *A block of a newer version.* The start is refused, unless the block is merged.
//!
//! # What always holds
//! * What is appended is on stable storage when it is published, and its place is reused only when the
//!   transaction that holds it is synced ([P1](crate::design::P1), tests/it/faults.rs and `tests::journaled`).
//! * It is bounded: when 256 MiB or 100,000 blocks wait, requests wait too, and are refused in time
//!   ([P6](crate::design::P6)).
//! * Any prefix of what was written reads as that prefix of its blocks, and any changed byte either leaves the blocks as
//!   they were or is reported (`tests`).
//!
//! # What does not
//! Blocks may be merged twice, after a crash between a flush and its commit: whoever reads them must end the same.

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

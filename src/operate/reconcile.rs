//! A snapshot of an audience becomes the truth at its time: who is in the file and not in the ledger enters,
//! who is in the ledger and not in the file leaves, and what is newer than the file stays
//! ([P2](crate::design::P2)).
//!
//! # What always holds
//! * Memory is bounded, however long file and audience are ([P6](crate::design::P6)): the file's keys are
//!   sorted on disk ([`spool`]) and compared with the ledger's pages side by side ([`comparison`]).
//! * The changes are ordinary deltas with the snapshot's time, so they lose to whatever is newer, and the same
//!   command again does what is left (tests/it/reconcile.rs kills the daemon in between).
//! * Once it is known what changes, all of it is written into the ledger before the rest is recorded, piece by piece
//!   ([`piece`]), by whoever delivers the destination. So it goes on when a process dies, and to record a piece twice
//!   changes nothing (`tests/it/gone_on.rs`).
//! * From the first of them on, what is older than the snapshot changes nobody of the audience, known or not, even
//!   if it arrives later ([`Origin::Snapshot`](crate::ledger::Origin)). So who is as the file says need not be
//!   written, unless entries expire: to be in the file is to have entered.
//!
//! # What does not
//! A reconciliation that was stopped, or whose process died before all was written into the ledger, outdoes older events
//! already, and has not changed everybody yet: that is over once the same command has been given again. The log says so.

pub(super) mod comparison;
pub(super) mod piece;
pub(super) mod reading;
pub(super) mod spool;

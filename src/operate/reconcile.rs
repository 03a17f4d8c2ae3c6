//! A snapshot of an audience becomes the truth at its time: who is in the file and not in the ledger enters,
//! who is in the ledger and not in the file leaves, and what is newer than the file stays
//! ([P2](crate::design::P2)).
//!
//! # What always holds
//! * Memory is bounded, however long file and audience are ([P6](crate::design::P6)): the file's keys are
//!   sorted on disk ([`spool`]) and compared with the ledger's pages side by side ([`comparison`]).
//! * The changes are ordinary deltas with the snapshot's time, so they lose to whatever is newer, and the same
//!   command again does what is left (tests/it/reconcile.rs kills the daemon in between).
//!
//! # What does not
//! Who is as the file says is not written, so an event that is older than the file and arrives after it still
//! counts; the same file again corrects that.

pub(super) mod comparison;
pub(super) mod reading;
pub(super) mod spool;

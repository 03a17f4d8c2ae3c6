//! The ledger: for every member of every audience, what it should be and what LaunchDarkly was told.
//!
//! A member is (destination, audience, context key). `receive` hands deltas in, `deliver` takes
//! batches out; the ledger knows neither. It is state and not a log: ten changes of a member before
//! the next call are one.
//!
//! # What always holds
//! * A delta is on stable storage when [`Recorder::record_all`] returns ([P1](crate::design::P1)).
//! * The latest event time wins, whatever the order of arrival; a tie goes to the later arrival ([P2](crate::design::P2)).
//! * A member is in at most one claimed batch ([P3](crate::design::P3)).
//! * Pending is sticky: only [`Report::Settle`] or [`Report::Park`] of the claimed version clears it.
//!
//! # What does not
//! A crash between LaunchDarkly's answer and `settle` sends a batch twice. Harmless: a delta says
//! "in" or "out", it does not count.

mod batch;
#[cfg(test)]
mod contract;
mod counters;
mod counts;
mod deletion;
mod embedded;
mod error;
mod intake;
mod member;
#[cfg(test)]
pub(crate) mod memory;
mod operations;
mod outbox;
mod picking;
mod pieces;
mod recorder;
mod store;

pub use batch::{
    Backlog, Batch, ClaimedMember, Measure, Members, ParkReason, Room, Route, Unheard,
};
pub use counters::{Counters, Recordings};
pub use embedded::{
    BackedUp, BackupError, ClockReset, DestinationSettings, EmbeddedLedger, ExportedMember,
    ExportedParking, OpenError, RenameError, Renamed, Retention, Settings, Sound, Writer,
    WriterFailure, backup, backup_to, check, database, export, is_there, may_begin, rename,
    reset_clock, restore, restore_from, still_around,
};
pub use error::LedgerError;
pub use intake::{Intake, OrderedDeletion, Recorded, RejectedEvent, Unrecorded};
pub use operations::{
    AudienceView, DestinationView, Disk, MemberView, Operations, ParkedAfter, ParkedView,
    RejectedView, Turnover, WalkView,
};
pub use outbox::{Claim, Outbox, Report};
pub use recorder::Recorder;
pub use store::Store;

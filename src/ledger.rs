//! The ledger: for every member of every audience, what it should be and what LaunchDarkly was told.
//!
//! A member is (destination, audience, context key). `receive` records deltas, `deliver` takes batches out;
//! the ledger depends on neither. It holds state and is no log of changes: ten changes of a member before the
//! next call become one.
//!
//! # What always holds
//! * A delta is on stable storage when [`Recorder::record_all`] returns ([P1](crate::design::P1)).
//! * The latest event time wins, whatever the order of arrival; a tie goes to the later arrival ([P2](crate::design::P2)).
//! * A member is in at most one claimed batch ([P3](crate::design::P3)).
//! * Where processes share a ledger, a batch that one claimed changes nothing once another owns the destination.
//! * A pending member stays pending until [`Report::Settle`] or [`Report::Park`] reports the version that was
//!   claimed.
//!
//! # What does not
//! A crash between LaunchDarkly's answer and `settle` sends a batch twice. Harmless: a delta says
//! "in" or "out", it does not count.
//!
//! # Storeys
//! Each imports only what stands below it; a test reads the imports (`src/design/imports.rs`). The embedded store's own
//! storeys are listed on the page on the house's [`architecture`](crate::design::architecture), and one event is
//! followed through them in its [`walk`](crate::design::architecture::walk).
//!
//! ```text
//! store  copy                            opened, told who is configured, closed; moved from one kind to the other
//! ├── embedded                           the store on one machine: SQLite, and a log in front of it
//! │   ├── at_rest  operations  outbox    check, back up, restore, export, copy; what people and couriers ask
//! │   ├── reconciling                    what is left of reconciliations
//! │   ├── commit                         threads: groups, appends, flushes, checkpoints
//! │   ├── engine                         the rules applied: record, claim, report, operate, upkeep
//! │   ├── members  opening               one member, wherever it is; from a directory to an open database
//! │   ├── memtable  tables  wal          dirty members; rows; the log
//! │   └── directory                      names, modes, owner, free space
//! ├── postgres                           the store that replicas share: a database
//! ├── recorder  outbox  operations       the sides: for receiving, for one destination's courier, for people
//! ├── reconciling                        the side for what is left of reconciliations
//! ├── intake  batch  error  pieces       what goes in, what comes out, why not
//! ├── copied                             rows that no store calls its own
//! └── member  picking  deletion  guard  lease  hashes  counts  counters  the rules, pure, shared by every store
//! ```

mod batch;
#[cfg(test)]
mod contract;
mod copied;
mod copy;
mod counters;
mod counts;
mod deletion;
mod embedded;
mod error;
mod guard;
mod hashes;
mod intake;
pub(crate) mod lease;
mod member;
#[cfg(test)]
pub(crate) mod memory;
mod operations;
mod outbox;
mod picking;
mod pieces;
mod postgres;
mod reconciling;
mod recorder;
mod store;

pub use batch::{
    Backlog, Batch, ClaimedMember, Measure, Members, ParkReason, Room, Route, SOLE_OWNER, Unheard,
};
pub use copy::{Copied, CopiedRows, CopyEnd, CopyError, CopyStep, copy};
pub use counters::Recordings;
pub use embedded::{
    BackedUp, BackupError, ClockReset, DestinationSettings, EmbeddedLedger, ExportedMember,
    ExportedParking, OpenError, RenameError, Renamed, Retention, Seen, Settings, Sound, Writer,
    backup, backup_to, check, database, export, is_there, look, may_begin, rename, reset_clock,
    restore, restore_from, still_around,
};
pub use error::{Burden, LedgerError, Obstacle, WriterFailure};
pub use guard::GuardLimits;
pub use intake::{Intake, OrderedDeletion, Origin, Recorded, RejectedEvent, Unrecorded};
pub use operations::{
    AudienceView, DestinationView, Fact, HeldAudience, MemberView, Operations, ParkedAfter,
    ParkedView, RejectedView, ReplicaView, Standing, Turnover, WalkView,
};
pub use outbox::{Claim, Outbox, Report};
pub use postgres::{
    DatabaseAddress, DatabaseSettings, Replica, SharedSettings, export_shared, look_at,
};
pub use reconciling::{
    Changed, ReconciliationStep, ReconciliationView, Reconciliations, Stage, Stager,
};
pub use recorder::Recorder;
pub use store::{Store, StoreError, StoreSettings, StoreWriter};

//! Settings of the embedded ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::ledger::GuardLimits;
use crate::membership::{AudienceKey, DestinationName};

/// Settings of the embedded ledger.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the ledger: the database and the log of SQLite, the ledger's own log, and the lock.
    pub path: PathBuf,
    /// While less is free on the disk, nothing is recorded; 0 uses the whole disk.
    pub disk_reserve_bytes: u64,
    /// Most memory for caches, in KiB: database pages and dirty members.
    pub cache_kib: u32,
    /// How long a member that left, and was told so, is remembered.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept; the oldest go first.
    pub rejected: Retention,
    /// Which parked members are kept; the oldest go first.
    pub parked: Retention,
    /// Most audiences of a destination; one that already has more keeps them.
    pub max_audiences: usize,
    /// Interval between two background checks of every row.
    pub check_every: Duration,
    /// The destinations that are configured, until [`Store::configure`](crate::ledger::Store::configure)
    /// replaces them.
    pub destinations: Vec<DestinationSettings>,
}

/// Retention limits: the oldest go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time.
    pub max_age: Duration,
    /// Most entries.
    pub max_count: u64,
    /// Most bytes of their texts.
    pub max_bytes: u64,
}

/// What the ledger needs to know of a destination.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// Its name.
    pub name: DestinationName,
    /// Identifies what is told (base URL and client-side ID); when it changes, what was told is forgotten.
    pub environment: String,
    /// An equal value that was told less than this ago is not sent again.
    pub repeat_window: Duration,
    /// How long after a settle the members of an earlier, unanswered call are told once more.
    pub reassert_after: Duration,
    /// How long after its event time an entry expires, by the latest key of its audience; in an audience that
    /// is not named here, entries do not expire.
    pub expires_after: BTreeMap<AudienceKey, Duration>,
    /// From when on the guard holds an audience.
    pub guard: GuardLimits,
}

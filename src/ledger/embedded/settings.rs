//! What the embedded ledger is opened with.

use std::path::PathBuf;
use std::time::Duration;

use crate::membership::DestinationName;

/// What the embedded ledger is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A directory: database, lock, nothing else.
    pub path: PathBuf,
    /// While less is free on the disk, nothing is recorded; 0 uses all of it.
    pub disk_reserve_bytes: u64,
    /// Most memory for what is cached, in KiB: pages of the writer, and members whose rows are written
    /// later.
    pub cache_kib: u32,
    /// How long a member that left, and was told so, is remembered.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept; the oldest go first.
    pub rejected: Retention,
    /// Which parked members are kept; the oldest go first.
    pub parked: Retention,
    /// Audiences that a destination may have; one that has more keeps those it has.
    pub max_audiences: usize,
    /// Between two readings of every row in the background.
    pub check_every: Duration,
    /// Every destination that may record or claim, until [`Store::configure`](crate::ledger::Store::configure).
    pub destinations: Vec<DestinationSettings>,
}

/// How long, how many and how much of something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time.
    pub max_age: Duration,
    /// Most of them.
    pub max_count: u64,
    /// Most bytes of their texts.
    pub max_bytes: u64,
}

/// What the ledger needs to know of a destination.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// Its name.
    pub name: DestinationName,
    /// Where its tellings go (base URL and client-side ID); when that changes, what was told is forgotten.
    pub environment: String,
    /// An equal value told less than this ago is not sent again.
    pub repeat_window: Duration,
    /// How long after a settle the members of an earlier, unanswered call are told once more.
    pub reassert_after: Duration,
}

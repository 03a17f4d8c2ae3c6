//! `[ledger]`: where the durable state is kept and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use super::listeners::A_YEAR_S;
use super::section::Section;

/// Segment sends a refused event again for [this long](crate::design::segment::requests).
const SEGMENT_RETRIES_S: u64 = 4 * 3600;

/// Where and how the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSection {
    /// A directory of the ledger's own.
    pub path: PathBuf,
    /// While less is free on the disk, events are answered 503; 0 uses all of it.
    pub disk_reserve_bytes: u64,
    /// Memory for pages and for members whose rows are written later, in MiB.
    pub cache_mib: u64,
    /// How long a member that left keeps its row after LaunchDarkly was told.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept for a replay; a count of 0 keeps none.
    pub rejected: Kept,
    /// Which parked members are kept.
    pub parked: Kept,
    /// Audiences that a destination may have; one that has more keeps those it has.
    pub max_audiences: usize,
    /// Between two readings of every row in the background.
    pub check_every: Duration,
}

/// How long, how many and how much is kept; the oldest go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Longest time.
    pub ttl: Duration,
    /// Most of them.
    pub max_count: u64,
    /// Most bytes of their texts.
    pub max_bytes: u64,
}

impl LedgerSection {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        if !section.has("path") {
            section.missing("path", None, "");
        }
        let tombstone_ttl_s = section.needed_whole("tombstone_ttl_s", 0..=10 * A_YEAR_S);
        if tombstone_ttl_s < SEGMENT_RETRIES_S {
            let text = "Segment sends refused events again for 4 hours (14400 s); one that is late \
                        may bring back a member that left";
            section.warn("tombstone_ttl_s", text);
        }
        let ledger = Self {
            path: section.text("path").map(PathBuf::from).unwrap_or_default(),
            disk_reserve_bytes: section.needed_whole("disk_reserve_mib", 0..=1_048_576)
                * 1024
                * 1024,
            cache_mib: section.needed_whole("cache_mib", 1..=1_048_576),
            tombstone_ttl: Duration::from_secs(tombstone_ttl_s),
            rejected: Kept {
                ttl: Duration::from_secs(section.needed_whole("rejected_ttl_s", 1..=10 * A_YEAR_S)),
                max_count: section.needed_whole("rejected_max_count", 0..=1_000_000_000),
                max_bytes: section.needed_whole("rejected_max_mib", 0..=1_048_576) * 1024 * 1024,
            },
            parked: Kept {
                ttl: Duration::from_secs(section.needed_whole("parked_ttl_s", 1..=10 * A_YEAR_S)),
                max_count: section.needed_whole("parked_max_count", 1..=1_000_000_000),
                max_bytes: section.needed_whole("parked_max_mib", 1..=1_048_576) * 1024 * 1024,
            },
            max_audiences: usize::try_from(section.needed_whole("max_audiences", 1..=1_000_000))
                .unwrap_or(usize::MAX),
            check_every: Duration::from_secs(section.needed_whole("check_every_s", 1..=A_YEAR_S)),
        };
        section.finish();
        ledger
    }
}

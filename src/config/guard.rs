//! `[destinations.<name>.guard]`: when an audience that changes too much at once is held.

use std::time::Duration;

use super::listeners::A_YEAR_S;
use super::section::Section;
use crate::ledger::GuardLimits;

/// Reads the section of a destination.
pub(super) fn read(mut section: Section<'_>) -> GuardLimits {
    let usual = GuardLimits::default();
    let limits = GuardLimits {
        max_exits_percent: section
            .whole("max_exits_percent", 1..=100)
            .unwrap_or(usual.max_exits_percent),
        max_entries_percent: section.whole("max_entries_percent", 1..=1_000_000),
        min_members: section.whole("min_members", 1..=1_000_000_000).unwrap_or(usual.min_members),
        window: section.whole("window_s", 60..=A_YEAR_S).map_or(usual.window, Duration::from_secs),
    };
    section.finish();
    limits
}

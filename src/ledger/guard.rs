//! The guard of an audience: more than a share of its members leaving within a window holds it, until an operator
//! has looked. Pure: each store counts with it, and keeps it with the audience.
//!
//! The window slides by halves: what is judged are the present half and the one before, so that changes which are
//! further apart than the window are never added up, and those within half of it always are.
//!
//! # What always holds
//! * Only changes by events count. Whoever deletes, retracts or moves members otherwise does not call
//!   [`Guard::count`], and is exempt by that.
//! * It is judged after a whole group of changes, and the order of changes within one does not matter.
//! * A held audience stays held, with its window, until somebody releases it.

use std::fmt;
use std::time::Duration;

use crate::membership::{Membership, Timestamp};

/// From which share of its members on the exits or entries of an audience hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardLimits {
    /// Most exits in a window, in percent of the members at its start.
    pub max_exits_percent: u64,
    /// Most entries in a window, in percent of the members at its start; `None`: any number.
    pub max_entries_percent: Option<u64>,
    /// An audience with fewer members is not judged.
    pub min_members: u64,
    /// The length of the window.
    pub window: Duration,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            max_exits_percent: 50,
            max_entries_percent: None,
            min_members: 1000,
            window: Duration::from_secs(3600),
        }
    }
}

/// Changes in one half of a window; or in all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// When it began, by the ledger's clock.
    pub since: Timestamp,
    /// Members at that time.
    pub members: u64,
    /// The most members there were since, whenever it was judged.
    peak: u64,
    pub exits: u64,
    pub entries: u64,
}

impl Changes {
    const NONE: Self = Self::of(Timestamp::EPOCH, 0);

    const fn of(since: Timestamp, members: u64) -> Self {
        Self { since, members, peak: members, exits: 0, entries: 0 }
    }

    fn exceed(&self, limits: &GuardLimits) -> bool {
        let Self { members, peak, exits, entries, .. } = *self;
        let is_filling = members < limits.min_members;
        // In a first fill, those who came count as members, and whoever left and was followed by another has not
        // made it smaller: where people come and go all the time, that is no damage.
        let of = if is_filling { peak } else { members };
        let exits = if is_filling {
            peak.saturating_sub((members + entries).saturating_sub(exits))
        } else {
            exits
        };
        let is_over = |count: u64, percent: u64| {
            u128::from(count) * 100 > u128::from(of) * u128::from(percent)
        };
        of >= limits.min_members
            && (is_over(exits, limits.max_exits_percent)
                || !is_filling && limits.max_entries_percent.is_some_and(|of| is_over(entries, of)))
    }
}

/// What is known of an audience's changes, and whether it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    present: Changes,
    before: Option<Changes>,
    usual: u64,
    held_since: Option<Timestamp>,
    /// The last change that was counted of those that a store may read again after a kill, by its stamp: they come
    /// in the order of their stamps, and whoever reads them again does not count them twice.
    counted_through: Timestamp,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            present: Changes::NONE,
            before: None,
            usual: 0,
            held_since: None,
            counted_through: Timestamp::EPOCH,
        }
    }
}

impl Guard {
    /// Since when it is held, if it is.
    pub fn held_since(&self) -> Option<Timestamp> {
        self.held_since
    }

    pub fn is_held(&self) -> bool {
        self.held_since.is_some()
    }

    /// The most exits in an earlier window in which it was not held.
    pub fn usual(&self) -> u64 {
        self.usual
    }

    /// The window as it is now.
    pub fn window(&self) -> Changes {
        let Changes { peak, exits, entries, .. } = self.present;
        match self.before {
            None => self.present,
            Some(before) => Changes {
                peak: before.peak.max(peak),
                exits: before.exits + exits,
                entries: before.entries + entries,
                ..before
            },
        }
    }

    /// An event made somebody a member or not, at this stamp; `members`: how many there were before.
    pub fn count(
        &mut self,
        now: Membership,
        at: Timestamp,
        limits: &GuardLimits,
        members: impl FnOnce() -> u64,
    ) {
        if !self.is_held() {
            self.advance(at, limits.window, members);
        }
        // Those that come together are not counted in the order of their stamps.
        let first = self.before.as_mut().unwrap_or(&mut self.present);
        first.since = first.since.min(at);
        match now {
            Membership::Out => self.present.exits += 1,
            Membership::In => self.present.entries += 1,
        }
    }

    /// The changes with stamps up to this one, of those that may be read again, are counted.
    pub fn counted(&mut self, through: Timestamp) {
        self.counted_through = self.counted_through.max(through);
    }

    /// See [`Self::counted`].
    pub fn counted_through(&self) -> Timestamp {
        self.counted_through
    }

    fn advance(&mut self, at: Timestamp, window: Duration, members: impl FnOnce() -> u64) {
        let Changes { since, .. } = self.present;
        let (half, is_new) = (window / 2, since == Timestamp::EPOCH);
        let ends = since.after(half);
        let was_reset = at.after(window) < since; // the clock is another one
        if !is_new && !was_reset && at < ends {
            return;
        }
        self.usual = self.usual.max(self.window().exits);
        let is_next = !is_new && !was_reset && at < ends.after(half);
        self.before = is_next.then_some(self.present);
        self.present = Changes::of(if is_next { ends } else { at }, members());
    }

    /// A group of changes is complete. `true`: it is held from here on.
    pub fn judge(&mut self, at: Timestamp, limits: &GuardLimits) -> bool {
        let Changes { members, peak, exits, entries, .. } = self.present;
        self.present.peak = peak.max((members + entries).saturating_sub(exits));
        let is_held = !self.is_held() && self.window().exceed(limits);
        if is_held {
            self.held_since = Some(at);
        }
        is_held
    }

    /// An operator lets pass what has happened; a new window begins.
    pub fn release(&mut self, at: Timestamp, members: u64) {
        let Self { usual, counted_through, .. } = *self;
        *self = Self {
            present: Changes::of(at, members),
            before: None,
            usual,
            held_since: None,
            counted_through,
        };
    }

    /// Nobody is left of whom anything could be told.
    pub fn empty(&mut self) {
        *self = Self { counted_through: self.counted_through, ..Self::default() };
    }

    /// An operator takes back those who left since the time that is returned. It stays held until that is done;
    /// what comes meanwhile is counted anew.
    pub fn discard(&mut self) -> Timestamp {
        let Changes { since, members, .. } = self.window();
        (self.present, self.before) = (Changes::of(since, members), None);
        since
    }

    /// Everybody whom [`Self::discard`] was about is back. It stays held if too many left meanwhile.
    pub fn taken_back(&mut self, at: Timestamp, members: u64, limits: &GuardLimits) {
        if !self.is_held() || self.window().exceed(limits) {
            return;
        }
        self.release(at, members);
    }

    /// Times in the future are now: the clock was ahead and is set.
    pub fn bring_back(&mut self, now: Timestamp) {
        let times = [Some(&mut self.present), self.before.as_mut()].into_iter().flatten();
        let times = times.map(|changes| &mut changes.since).chain(&mut self.held_since);
        for time in times.chain([&mut self.counted_through]) {
            *time = (*time).min(now);
        }
    }

    /// Parses what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse::<i64>);
        let mut number = || numbers.next()?.ok();
        let mut changes = || {
            let since = Timestamp(number()?);
            let mut count = || number()?.try_into().ok();
            let (members, peak) = (count()?, count()?);
            Some(Changes { since, members, peak, exits: count()?, entries: count()? })
        };
        let (present, before) = (changes()?, changes()?);
        let usual = number()?.try_into().ok()?;
        let (held_since, counted_through) = (Timestamp(number()?), Timestamp(number()?));
        let known = |at: Timestamp| at != Timestamp::EPOCH;
        Some(Self {
            present,
            before: known(before.since).then_some(before),
            usual,
            held_since: known(held_since).then_some(held_since),
            counted_through,
        })
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Changes { since, members, peak, exits, entries } in
            [self.present, self.before.unwrap_or(Changes::NONE)]
        {
            write!(f, "{} {members} {peak} {exits} {entries} ", since.0)?;
        }
        let held_since = self.held_since.unwrap_or(Timestamp::EPOCH);
        write!(f, "{} {} {}", self.usual, held_since.0, self.counted_through.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const START: Timestamp = Timestamp(1_750_000_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.after(Duration::from_secs(seconds))
    }

    /// An audience that applies one change after the other, as a store does.
    struct Audience {
        guard: Guard,
        members: u64,
        limits: GuardLimits,
    }

    impl Audience {
        fn of(members: u64) -> Self {
            Self { guard: Guard::default(), members, limits: GuardLimits::default() }
        }

        /// So many changes, each judged; how many passed before it was held.
        fn change(&mut self, now: Membership, count: u64, seconds: u64) -> u64 {
            for passed in 0..count {
                self.guard.count(now, at(seconds), &self.limits, || self.members);
                match now {
                    Membership::In => self.members += 1,
                    Membership::Out => self.members -= 1,
                }
                self.guard.judge(at(seconds), &self.limits);
                if self.guard.is_held() {
                    return passed;
                }
            }
            count
        }
    }

    #[test]
    fn more_than_the_share_of_the_members_holds_it() {
        let entries = Some(20);
        let limits = GuardLimits { max_entries_percent: entries, ..GuardLimits::default() };
        // members at the start, entries, exits, and whether that is too much
        for (members, entries, exits, expected) in [
            (1000, 0, 500, false),
            (1000, 0, 501, true),
            (999, 0, 999, false),
            (50, 0, 50, false),
            (0, 100_000, 0, false),
            (0, 100_000, 50_000, false),
            (0, 100_000, 50_001, true),
            (1000, 200, 0, false),
            (1000, 201, 0, true),
            (999, 1_000_000, 0, false),
            (u64::MAX / 2, 0, u64::MAX / 4, false),
        ] {
            let peak = members + entries;
            let changes = Changes { since: START, members, peak, exits, entries };
            assert_eq!(changes.exceed(&limits), expected, "{members}: {entries} in, {exits} out");
            let entries_off = GuardLimits::default();
            assert_eq!(changes.exceed(&entries_off), exits > 0 && expected);
        }
    }

    #[test]
    fn what_is_further_apart_than_the_window_is_not_added_up_and_what_is_within_half_of_it_is() {
        for (gap, is_held) in
            [(1, true), (1799, true), (1800, true), (3600, false), (90_000, false)]
        {
            let mut audience = Audience::of(100_000);
            assert_eq!(audience.change(Membership::Out, 30_000, 0), 30_000);
            audience.change(Membership::Out, 30_000, gap);
            assert_eq!(audience.guard.is_held(), is_held, "{gap} s");
        }
    }

    #[test]
    fn an_audience_that_is_emptied_is_held_at_its_share_wherever_in_a_window_that_begins() {
        for begins in [1, 1000, 1795, 1799, 3599, 7000, 100_000] {
            let mut audience = Audience::of(100_000);
            audience.change(Membership::Out, 10, 0);
            let mut passed = 10;
            for second in 0..60 {
                passed += audience.change(Membership::Out, 1500, begins + second);
                if audience.guard.is_held() {
                    break;
                }
            }
            assert!(audience.guard.is_held() && passed <= 50_010, "{begins}: {passed}");
        }
    }

    #[test]
    fn ordinary_streams_are_never_held() {
        // a first fill, in an hour, and growth
        let mut audience = Audience::of(0);
        for minute in 0..60 {
            assert_eq!(audience.change(Membership::In, 2000, minute * 60), 2000);
        }
        // turnover of a tenth a day, most of it within an hour each morning, for a month
        for day in 0..30 {
            for minute in 0..60 {
                let count = audience.members / 600;
                let now = 36_000 + day * 86_400 + minute * 60;
                assert_eq!(audience.change(Membership::Out, count, now), count);
                assert_eq!(audience.change(Membership::In, count, now), count);
            }
        }
        assert!(audience.guard.usual() > 10_000, "{}", audience.guard.usual());
        // a small one may do as it likes
        let mut small = Audience::of(50);
        for hour in 0..100 {
            assert_eq!(small.change(Membership::Out, 50, hour * 60), 50);
            assert_eq!(small.change(Membership::In, 50, hour * 60 + 1), 50);
        }
    }

    #[test]
    fn the_order_within_a_group_does_not_matter() {
        let limits = GuardLimits::default();
        let mut expected = None;
        for turn in 0..4 {
            let mut guard = Guard::default();
            let mut changes: Vec<u64> = (0..2000).collect();
            changes.rotate_left(turn * 500);
            for number in changes {
                let now = if number % 3 == 0 { Membership::Out } else { Membership::In };
                guard.count(now, Timestamp(START.0 + number.cast_signed()), &limits, || 1000);
            }
            assert!(guard.judge(at(1), &limits));
            assert_eq!(guard.window().since, START, "discarding takes back all of them");
            assert_eq!(*expected.get_or_insert(guard), guard);
        }
    }

    #[test]
    fn a_hold_lasts_until_it_is_released_and_a_new_window_begins_then() {
        let mut audience = Audience::of(2000);
        assert_eq!(audience.change(Membership::Out, 2000, 0), 1000);
        let limits = audience.limits;
        for seconds in [5, 90_000] {
            audience.guard.count(Membership::Out, at(seconds), &limits, || 999);
            assert!(!audience.guard.judge(at(seconds), &limits), "it is not news");
        }
        let window = audience.guard.window();
        assert_eq!((window.since, window.members, window.exits), (START, 2000, 1003));
        assert_eq!(audience.guard.held_since(), Some(START));
        let mut discarded = audience.guard;
        assert_eq!(discarded.discard(), START);
        assert_eq!(discarded.discard(), START, "it can be repeated");
        assert!(discarded.is_held(), "until they are back");
        let mut again = discarded;
        (0..1001).for_each(|_| again.count(Membership::Out, at(90_001), &limits, || 2000));
        again.taken_back(at(90_002), 999, &limits);
        assert!(again.is_held(), "too many left meanwhile");
        discarded.taken_back(at(90_001), 2000, &limits);
        audience.guard.release(at(90_001), 997);
        for guard in [discarded, audience.guard] {
            assert!(!guard.is_held());
            assert_eq!((guard.window().exits, guard.usual()), (0, 0), "a hold is not usual");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let limits = GuardLimits { window: HOUR, min_members: 3, ..GuardLimits::default() };
        let mut guard = Guard::default();
        assert_eq!(Guard::parse(&guard.to_string()), Some(guard));
        for seconds in [1, 1900, 1901, 4000, 4001, 4002] {
            guard.count(Membership::Out, at(seconds), &limits, || 5);
            guard.counted(at(seconds));
            guard.judge(at(seconds), &limits);
            assert_eq!(Guard::parse(&guard.to_string()), Some(guard), "{guard}");
        }
        assert!(guard.is_held());
        for damaged in
            ["", "1", "1 2 3", "1 -2 3 4 5 6 7 8 9 10 11 2 3", "1 2 3 4 5 6 7 8 9 10 11 2 x"]
        {
            assert_eq!(Guard::parse(damaged), None, "{damaged}");
        }
    }
}

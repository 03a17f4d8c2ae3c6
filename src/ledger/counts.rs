//! Counts of members, kept up to date with every change of a member.

use std::ops::AddAssign;

use super::Turnover;
use super::member::Member;

/// How many members of an audience are in it, pending and parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub included: u64,
    pub pending: u64,
    pub parked: u64,
}

impl Counts {
    /// The counts of one member: zeros and ones.
    pub fn of(member: Option<&Member>) -> Self {
        let one = |is: fn(&Member) -> bool| u64::from(member.is_some_and(is));
        Self {
            included: one(|member| member.membership.as_bool()),
            pending: one(|member| member.pending_since.is_some()),
            parked: one(Member::is_parked),
        }
    }

    /// Replaces the contribution of some members: `before` is subtracted and `after` added.
    pub fn change(&mut self, before: Self, after: Self) {
        let change = |what: &mut u64, before: u64, after: u64| {
            *what = (*what + after).saturating_sub(before);
        };
        change(&mut self.included, before.included, after.included);
        change(&mut self.pending, before.pending, after.pending);
        change(&mut self.parked, before.parked, after.parked);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.change(Self::default(), more);
    }
}

impl Turnover {
    /// Counts a member that changed from `before` to `after`.
    pub(crate) fn change(&mut self, before: Option<&Member>, after: Option<&Member>) {
        let is_in = |member: &Member| member.membership.as_bool();
        match (before.is_some_and(is_in), after.is_some_and(is_in)) {
            (false, true) => self.joined += 1,
            (true, false) => {
                self.left += 1;
                self.expired += u64::from(after.is_some_and(|after| after.is_expired));
            }
            _ => {}
        }
    }
}

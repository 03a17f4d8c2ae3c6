//! What members count as: how many of an audience are what, and how many enter and leave it.

use std::ops::AddAssign;

use super::Turnover;
use super::member::Member;

/// How many members of an audience are what. Kept with every change of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub included: u64,
    pub pending: u64,
    pub parked: u64,
}

impl Counts {
    /// What one member counts as.
    pub fn of(member: Option<&Member>) -> Self {
        let one = |is: fn(&Member) -> bool| u64::from(member.is_some_and(is));
        Self {
            included: one(|member| member.membership.as_bool()),
            pending: one(|member| member.pending_since.is_some()),
            parked: one(Member::is_parked),
        }
    }

    /// Members counted as this, and count as that now.
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
    /// A member was this, and is that now.
    pub(crate) fn change(&mut self, before: Option<&Member>, after: Option<&Member>) {
        let is_in = |member: &Member| member.membership.as_bool();
        match (before.is_some_and(is_in), after.is_some_and(is_in)) {
            (false, true) => self.joined += 1,
            (true, false) => self.left += 1,
            _ => {}
        }
    }
}

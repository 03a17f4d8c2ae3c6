//! Guards against refusals that concern every member.
//!
//! When many members in a row are refused alone and none is taken in between, the cause is likely not
//! the members: parking them all would move the whole backlog to the parked list. The destination is
//! held instead. If a member is taken after that, it was the members after all, and the next alarm
//! needs twice as many refusals, up to a limit; a batch of several members that is taken restores the
//! original threshold.

use crate::ledger::Batch;

const WATCHFUL: usize = 10;
/// The highest threshold. Refused members are remembered until the alarm, so it also bounds memory
/// ([P6](crate::design::P6)).
const LEAST_WATCHFUL: usize = WATCHFUL << 7;

/// Members that were refused alone, with none taken since.
#[derive(Debug)]
pub(super) struct Guard {
    /// Each with whether it has been parked.
    refused: Vec<(Batch, bool)>,
    threshold: usize,
}

impl Guard {
    pub fn new() -> Self {
        Self { refused: Vec::new(), threshold: WATCHFUL }
    }

    /// A member was refused alone; `is_parked` if for the second time, for which it is parked. `Some`
    /// raises the alarm and holds the members that were parked since a member was last taken: they are
    /// unparked if everybody is refused.
    pub fn refused(&mut self, member: Batch, is_parked: bool) -> Option<Vec<Batch>> {
        // A second refusal of the same member says nothing about the others. If the member is not in
        // the list any more, another was taken since its first refusal.
        let known = self.refused.iter_mut().find(|(other, _)| is_same(other, &member));
        if is_parked || known.is_some() {
            if let Some((_, was_parked)) = known {
                *was_parked |= is_parked;
            }
            return None;
        }
        if self.refused.len() + 1 < self.threshold {
            self.refused.push((member, is_parked));
            return None;
        }
        self.threshold = (self.threshold * 2).min(LEAST_WATCHFUL);
        let refused = std::mem::take(&mut self.refused).into_iter();
        Some(refused.filter_map(|(member, is_parked)| is_parked.then_some(member)).collect())
    }

    /// LaunchDarkly took this many members in one request.
    pub fn taken(&mut self, members: usize) {
        self.refused.clear();
        if members > 1 {
            self.threshold = WATCHFUL;
        }
    }
}

/// Whether both are batches of the same member.
fn is_same(one: &Batch, other: &Batch) -> bool {
    let key = |batch: &Batch| batch.members.first().map(|member| member.context_key.clone());
    one.route.audience == other.route.audience && key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::{ClaimedMember, Route, SOLE_OWNER};
    use crate::membership::{
        AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, Timestamp,
    };

    fn alone(number: usize) -> Batch {
        let route = Route {
            destination: DestinationName::new("production").expect("a name"),
            audience: AudienceId::new("aud_1").expect("not empty"),
            audience_key: AudienceKey::new("vip").expect("not empty"),
            context_kind: ContextKind::new("user").expect("a kind"),
        };
        let member = ClaimedMember {
            context_key: ContextKey::new(&number.to_string()).expect("not empty"),
            membership: Membership::In,
            version: Timestamp(1),
        };
        Batch { route: Arc::new(route), members: vec![member], token: SOLE_OWNER }
    }

    #[test]
    fn each_alarm_needs_twice_as_many_up_to_a_limit() {
        let mut guard = Guard::new();
        let mut refused = (0..).map(alone);
        let (mut alarms, mut count) = (Vec::new(), 0);
        while alarms.len() < 10 {
            let next = refused.next().expect("there is no end");
            count += 1;
            if let Some(parked) = guard.refused(next.clone(), false) {
                assert_eq!(parked.len(), (count - 1) / 2, "those that were parked before");
                alarms.push(std::mem::take(&mut count));
            } else if count % 2 == 0 {
                assert!(guard.refused(next, true).is_none(), "it says nothing new");
            }
        }
        assert_eq!(alarms, [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]);
    }

    #[test]
    fn a_refusal_counts_once_and_a_batch_that_is_taken_makes_it_watchful_again() {
        let mut guard = Guard::new();
        // refused alone: the first nine of ten, each for a second time too, parked for it or not
        for number in 0..9 {
            assert!(guard.refused(alone(number), false).is_none());
            assert!(guard.refused(alone(number), number % 2 == 0).is_none());
        }
        // parked for a second refusal, the first of which was before a member was taken
        assert!(guard.refused(alone(99), true).is_none());
        let parked = guard.refused(alone(9), false).expect("ten members");
        assert_eq!(parked.len(), 5);
        let until_the_alarm = |guard: &mut Guard, first: usize| {
            let mut refused = (first..first + 1000).map(alone);
            let alarm = refused.position(|next| guard.refused(next, false).is_some());
            alarm.expect("it is raised") + 1
        };
        assert_eq!(until_the_alarm(&mut guard, 1000), 20);
        guard.taken(1);
        assert_eq!(
            until_the_alarm(&mut guard, 2000),
            40,
            "one shows only that it is not everybody"
        );
        guard.taken(2);
        assert_eq!(until_the_alarm(&mut guard, 3000), 10);
    }

    #[test]
    fn a_member_is_told_from_its_namesake_in_another_audience() {
        let elsewhere = |number: usize| {
            let batch = alone(number);
            let audience = AudienceId::new("aud_2").expect("not empty");
            Batch { route: Arc::new(Route { audience, ..(*batch.route).clone() }), ..batch }
        };
        let mut guard = Guard::new();
        for number in 0..4 {
            assert!(guard.refused(alone(number), false).is_none());
            assert!(guard.refused(elsewhere(number), false).is_none());
        }
        assert!(guard.refused(alone(4), false).is_none());
        assert!(guard.refused(elsewhere(4), false).is_some(), "ten members");
    }
}

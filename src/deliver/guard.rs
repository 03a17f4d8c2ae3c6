//! The guard against a refusal that is everybody's.
//!
//! When many members in a row are refused alone and none is taken in between, it is not the members:
//! parking them all would empty the backlog into the parked list. The destination is held instead.
//! If a member is taken after that, it was the members after all, and the next alarm needs twice as
//! many, up to a limit; a batch that is taken whole makes the guard as watchful as before.

use crate::ledger::Batch;

const WATCHFUL: usize = 10;
/// Whoever was refused is known until the alarm: it never takes more than so many ([P6](crate::design::P6)).
const LEAST_WATCHFUL: usize = WATCHFUL << 7;

/// Members that were refused alone, with none taken since.
#[derive(Debug)]
pub(super) struct Guard {
    /// Each with whether it was parked.
    refused: Vec<(Batch, bool)>,
    threshold: usize,
}

impl Guard {
    pub fn new() -> Self {
        Self { refused: Vec::new(), threshold: WATCHFUL }
    }

    /// A member was refused alone, and is parked for it if there is no alarm. `Some`: the alarm; these
    /// were parked before and are not to be.
    pub fn refused(&mut self, member: Batch, is_parked: bool) -> Option<Vec<Batch>> {
        // One that is refused again says nothing about the others. If it is not known any more, somebody
        // was taken since it was refused first.
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

/// Both are of one member.
fn is_same(one: &Batch, other: &Batch) -> bool {
    let key = |batch: &Batch| batch.members.first().map(|member| member.context_key.clone());
    one.route.audience == other.route.audience && key(one) == key(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::{ClaimedMember, Route};
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
        Batch { route: Arc::new(route), members: vec![member] }
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
}

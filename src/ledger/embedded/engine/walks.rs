//! Walks: an operator's tasks over all members of an audience, done a slice at a time and no faster than the
//! members are delivered. Progress is persisted, so that a restart continues.

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::membership::ContextKey;

/// Rows in one slice: about a millisecond of the writer's time.
pub(crate) const SLICE: usize = 500;
/// A walk pauses while this many members of the audience wait.
const AHEAD: u64 = 5_000;

/// Does one slice of all walks together: they take turns, so that a slice takes as long for a thousand
/// audiences as for one. `true`: a walk is under way.
pub(crate) fn step(state: &mut State, db: &Database) -> rusqlite::Result<bool> {
    let first = state.schedule.next_walker;
    let all = state.audiences.indices().filter(|index| state.audiences[*index].walk.is_some());
    let (before, mut walked): (Vec<_>, Vec<_>) = all.partition(|index| *index < first);
    walked.extend(before);
    let mut left = SLICE;
    for audience in &walked {
        if left == 0 {
            break;
        }
        state.schedule.next_walker = AudienceIndex(audience.0 + 1);
        let rows = advance(state, db, *audience, left)?;
        left = left.saturating_sub(rows.max(1)); // even an empty slice is work
    }
    Ok(!walked.is_empty())
}

/// Advances a walk by up to `limit` members, unless too many of the audience wait; returns by how many.
fn advance(
    state: &mut State,
    db: &Database,
    audience: AudienceIndex,
    limit: usize,
) -> rusqlite::Result<usize> {
    let known = &state.audiences[audience];
    let Some(mut walk) = known.walk.clone() else { return Ok(0) };
    let takes_back = matches!(walk.task, Task::Reenter { .. });
    // Nobody of a held audience is told but those who pass, so it is no use to wait for others.
    let waits = if known.guard.is_held() {
        known.passing.has_more() && !takes_back
    } else {
        known.counts.pending >= AHEAD
    };
    if waits {
        return Ok(0);
    }
    let slice = members::walk_in(db.connection()?, known.row, &walk.after, limit)?;
    let rows = slice.len();
    for (key, before) in slice {
        let moment = state.moment(audience);
        let next = next(&walk.task, &before, &moment);
        if let Some(key) = ContextKey::new(&key) {
            let place = state.place(audience, key.as_str());
            state.put(db, audience, (&key, place), Some(&before), &next)?;
        }
        walk.after = key;
        walk.visited += 1;
    }
    let is_over = rows < limit;
    state.audiences[audience].walk = (!is_over).then_some(walk);
    if is_over && takes_back {
        state.taken_back(audience);
    }
    state.touch(audience);
    Ok(rows)
}

/// What a walk does to a member. A member that stays is told again if what was told does not count, whatever
/// the task: the walk may have replaced a resync.
fn next(task: &Task, before: &Member, moment: &Moment) -> Next {
    if let Task::Reenter { since, at } = task
        && let Next::Write(after) = member::reenter(before, (*since, *at), moment)
    {
        return Next::Write(after);
    }
    let goes = match task {
        Task::Resync | Task::Reenter { .. } => false,
        Task::Retract { through } => before.version <= *through,
        Task::RetractStale { current } => !current.contains(&before.key_rule),
    };
    if goes {
        member::retract(before, moment)
    } else if before.told.is_some_and(|told| told.at >= moment.told_counts_from) {
        Next::Same
    } else {
        member::reassert(before, moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Timestamp;

    /// A retraction may replace a resync, including the one after a change of environment.
    #[test]
    fn who_stays_is_told_again_if_what_was_told_does_not_count_whatever_the_task() {
        use crate::ledger::member::Told;
        use crate::membership::Membership;
        use std::time::Duration;
        let member = |told_at| Member {
            event_at: Timestamp(1),
            told: Some(Told { membership: Membership::In, at: Timestamp(told_at) }),
            ..Member::at_rest(5)
        };
        let moment = Moment {
            stamp: Timestamp(90),
            told_counts_from: Timestamp(10),
            repeat_window: Duration::from_secs(1),
            unheard_through: Timestamp::EPOCH,
            expires_after: None,
            snapshot_at: Timestamp::EPOCH,
        };
        let stays = [
            Task::Resync,
            Task::RetractStale { current: vec![1] },
            Task::Retract { through: Timestamp(4) },
        ];
        for task in stays {
            assert_eq!(next(&task, &member(10), &moment), Next::Same, "{task:?}: told since");
            let Next::Write(after) = next(&task, &member(9), &moment) else {
                panic!("{task:?}: it is not told again")
            };
            assert_eq!(
                (after.pending_since, after.erase),
                (Some(Timestamp(90)), false),
                "{task:?}"
            );
        }
        let goes =
            [Task::RetractStale { current: vec![2] }, Task::Retract { through: Timestamp(5) }];
        for task in goes {
            let Next::Write(after) = next(&task, &member(10), &moment) else {
                panic!("{task:?}: it stays")
            };
            assert_eq!((after.membership, after.erase), (Membership::Out, true), "{task:?}");
        }
    }
}

//! Walks: what an operator asks for every member of an audience, done a slice at a time and paced by
//! how fast the members are delivered. How far one has come is kept, so that a restart goes on.

use std::fmt;

use rusqlite::Connection;

use super::members;
use super::writer::State;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::membership::Timestamp;

/// Rows in one slice: about a millisecond of the writer's time.
pub(super) const SLICE: usize = 500;
/// A walk adds no more while this many members of the audience wait.
const AHEAD: u64 = 5_000;

/// What is done to each member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Task {
    /// It is told again as it is, unless it was told since the walk began.
    #[default]
    Resync,
    /// It is removed and erased, unless it changed after this.
    Retract { through: Timestamp },
    /// It is removed and erased, unless one of these rules chose its context key.
    RetractStale { current: Vec<u32> },
}

/// A task and the context key it has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    pub task: Task,
    pub after: String,
}

impl Walk {
    pub fn of(task: Task) -> Self {
        Self { task, after: String::new() }
    }

    pub fn restarted(self) -> Self {
        Self::of(self.task)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str, after: Option<String>) -> Option<Self> {
        let mut words = text.split(' ');
        let task = match words.next()? {
            "resync" => Task::Resync,
            "retract" => Task::Retract { through: Timestamp(words.next()?.parse().ok()?) },
            "retract_stale" => Task::RetractStale {
                current: words.map(str::parse).collect::<Result<_, _>>().ok()?,
            },
            _ => return None,
        };
        Some(Self { task, after: after? })
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Task::Resync => f.write_str("resync"),
            Task::Retract { through } => write!(f, "retract {}", through.0),
            Task::RetractStale { current } => {
                f.write_str("retract_stale")?;
                current.iter().try_for_each(|rule| write!(f, " {rule}"))
            }
        }
    }
}

/// One slice of the walks together: they take turns, so that a slice is as short for a thousand
/// audiences as for one. `true`: one is under way.
pub(super) fn step(state: &mut State, db: &Connection) -> rusqlite::Result<bool> {
    let count = state.audiences.list.len();
    let is_walked = |state: &State, index: usize| state.audiences.list[index].walk.is_some();
    let first = state.upkeep.next_walker;
    let in_turn = (first..count).chain(0..first.min(count));
    let walked: Vec<usize> = in_turn.filter(|index| is_walked(state, *index)).collect();
    let mut left = SLICE;
    for audience in &walked {
        if left == 0 {
            break;
        }
        state.upkeep.next_walker = audience + 1;
        let rows = advance(state, db, *audience, left)?;
        left = left.saturating_sub(rows.max(1)); // to find nobody is work too
    }
    Ok(!walked.is_empty())
}

/// Goes on by `limit` members of an audience, unless enough of it wait; by how many it went on.
fn advance(
    state: &mut State,
    db: &Connection,
    audience: usize,
    limit: usize,
) -> rusqlite::Result<usize> {
    let known = &state.audiences.list[audience];
    let Some(Walk { task, mut after }) = known.walk.clone() else { return Ok(0) };
    if known.counts.pending >= AHEAD {
        return Ok(0);
    }
    let slice = members::walk_in(db, known.row, &after, limit)?;
    let rows = slice.len();
    for (key, before) in slice {
        let moment = state.moment(audience);
        let next = task.next(&before, &moment);
        state.put(db, audience, &key, Some(&before), &next)?;
        after = key;
    }
    state.audiences.list[audience].walk = (rows == limit).then_some(Walk { task, after });
    state.touch(audience);
    Ok(rows)
}

impl Task {
    /// What becomes of a member. Who stays is told again if what was told does not count: whatever
    /// the task is, it may have taken the place of a resync.
    fn next(&self, before: &Member, moment: &Moment) -> Next {
        let goes = match self {
            Self::Resync => false,
            Self::Retract { through } => before.version <= *through,
            Self::RetractStale { current } => !current.contains(&before.key_rule),
        };
        if goes {
            member::retract(before, moment)
        } else if before.told.is_some_and(|told| told.at >= moment.told_counts_from) {
            Next::Same
        } else {
            member::reassert(before, moment)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A retraction may take the place of a resync, and of the one after a change of environment.
    #[test]
    fn who_stays_is_told_again_if_what_was_told_does_not_count_whatever_the_task() {
        use crate::ledger::member::Told;
        use crate::membership::Membership;
        use std::time::Duration;
        let member = |told_at| Member {
            membership: Membership::In,
            event_at: Timestamp(1),
            version: Timestamp(5),
            told: Some(Told { membership: Membership::In, at: Timestamp(told_at) }),
            pending_since: None,
            parked_at: None,
            unheard: false,
            erase: false,
            key_rule: 1,
            person: None,
            refused_with: None,
        };
        let moment = Moment {
            stamp: Timestamp(90),
            told_counts_from: Timestamp(10),
            repeat_window: Duration::from_secs(1),
            unheard_through: Timestamp::EPOCH,
        };
        let stays = [
            Task::Resync,
            Task::RetractStale { current: vec![1] },
            Task::Retract { through: Timestamp(4) },
        ];
        for task in stays {
            assert_eq!(task.next(&member(10), &moment), Next::Same, "{task:?}: told since");
            let Next::Write(after) = task.next(&member(9), &moment) else {
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
            let Next::Write(after) = task.next(&member(10), &moment) else {
                panic!("{task:?}: it stays")
            };
            assert_eq!((after.membership, after.erase), (Membership::Out, true), "{task:?}");
        }
    }

    #[test]
    fn what_is_written_of_a_walk_is_read_again() {
        let tasks = [
            Task::Resync,
            Task::Retract { through: Timestamp(17) },
            Task::RetractStale { current: vec![] },
            Task::RetractStale { current: vec![1, 4_000_000_000] },
        ];
        for task in tasks {
            let walk = Walk { task, after: "ada".to_owned() };
            assert_eq!(Walk::parse(&walk.to_string(), Some(walk.after.clone())), Some(walk));
        }
        for damaged in ["", "resynk", "retract", "retract x", "retract_stale x"] {
            assert_eq!(Walk::parse(damaged, Some(String::new())), None, "{damaged}");
        }
    }
}

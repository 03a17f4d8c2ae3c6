//! Walks: what an operator asks for every member of an audience, done a slice at a time and paced by
//! how fast the members are delivered. How far one has come is kept, so that a restart goes on.

use std::fmt;

use super::database::Database;
use super::members;
use super::state::State;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::membership::{ContextKey, Timestamp};

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

impl Task {
    /// The word that people and programs know it by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Retract { .. } => "retract",
            Self::RetractStale { .. } => "retract_stale",
        }
    }
}

/// A task, the context key it has come to, and how much that is. Decides nothing: for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    pub task: Task,
    pub after: String,
    pub since: Timestamp,
    /// Members it has come past.
    pub visited: u64,
    /// Members that were in the audience when it began; those that left are visited too. Zero: it
    /// was not counted.
    pub expected: u64,
}

impl Walk {
    pub fn of(task: Task, since: Timestamp, expected: u64) -> Self {
        Self { task, after: String::new(), since, visited: 0, expected }
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str, after: Option<String>) -> Option<Self> {
        let (text, progress) = text.split_once(';')?;
        let mut words = text.split(' ');
        let task = match words.next()? {
            "resync" => Task::Resync,
            "retract" => Task::Retract { through: Timestamp(words.next()?.parse().ok()?) },
            "retract_stale" => Task::RetractStale {
                current: words.map(str::parse).collect::<Result<_, _>>().ok()?,
            },
            _ => return None,
        };
        let mut numbers = progress.split(' ').map(str::parse);
        let mut number = || numbers.next()?.ok();
        let since = Timestamp(number()?);
        let mut count = || number()?.try_into().ok();
        Some(Self { task, after: after?, since, visited: count()?, expected: count()? })
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.task.name())?;
        match &self.task {
            Task::Resync => {}
            Task::Retract { through } => write!(f, " {}", through.0)?,
            Task::RetractStale { current } => {
                current.iter().try_for_each(|rule| write!(f, " {rule}"))?;
            }
        }
        write!(f, ";{} {} {}", self.since.0, self.visited, self.expected)
    }
}

/// One slice of the walks together: they take turns, so that a slice is as short for a thousand
/// audiences as for one. `true`: one is under way.
pub(super) fn step(state: &mut State, db: &Database) -> rusqlite::Result<bool> {
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
    db: &Database,
    audience: usize,
    limit: usize,
) -> rusqlite::Result<usize> {
    let known = &state.audiences.list[audience];
    let Some(mut walk) = known.walk.clone() else { return Ok(0) };
    if known.counts.pending >= AHEAD {
        return Ok(0);
    }
    let slice = members::walk_in(db, known.row, &walk.after, limit)?;
    let rows = slice.len();
    for (key, before) in slice {
        let moment = state.moment(audience);
        let next = walk.task.next(&before, &moment);
        if let Some(key) = ContextKey::new(&key) {
            let place = state.place(audience, key.as_str());
            state.put(db, audience, (&key, place), Some(&before), &next)?;
        }
        walk.after = key;
        walk.visited += 1;
    }
    state.audiences.list[audience].walk = (rows == limit).then_some(walk);
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
            is_ahead: false,
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
            let after = "ada".to_owned();
            let walk = Walk { after, visited: 7, ..Walk::of(task, Timestamp(17), 9) };
            assert_eq!(Walk::parse(&walk.to_string(), Some(walk.after.clone())), Some(walk));
        }
        for damaged in [
            "",
            "resync",
            "resynk;0 0 0",
            "retract;0 0 0",
            "retract x;0 0 0",
            "retract_stale x;0 0 0",
            "resync;1 -1 0",
        ] {
            assert_eq!(Walk::parse(damaged, Some(String::new())), None, "{damaged}");
        }
    }
}

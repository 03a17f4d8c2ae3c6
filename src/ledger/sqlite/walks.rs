//! Walks: what an operator asks for every member of an audience, done a slice at a time and paced by
//! how fast the members are delivered. How far one has come is kept, so that a restart goes on.

use std::fmt;

use rusqlite::Connection;

use super::members;
use super::writer::State;
use crate::ledger::member::{self, Next};
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

/// One slice of every walk. `true`: one is under way.
pub(super) fn step(state: &mut State, db: &Connection) -> rusqlite::Result<bool> {
    let mut under_way = false;
    for audience in 0..state.audiences.list.len() {
        let known = &state.audiences.list[audience];
        let Some(Walk { task, after }) = known.walk.clone() else { continue };
        under_way = true;
        if known.counts.pending >= AHEAD {
            continue;
        }
        let row = known.row;
        let slice = members::walk(db, (row, &after), SLICE)?;
        let mut reached = None;
        for (_, key, before) in slice.iter().take_while(|(of, _, _)| *of == row) {
            let moment = state.moment(audience);
            let next = match &task {
                Task::Resync
                    if before.told.is_some_and(|told| told.at >= moment.told_counts_from) =>
                {
                    Next::Same
                }
                Task::Resync => member::reassert(before, &moment),
                Task::Retract { through } if before.version > *through => Next::Same,
                Task::RetractStale { current } if current.contains(&before.key_rule) => Next::Same,
                Task::Retract { .. } | Task::RetractStale { .. } => {
                    member::retract(before, &moment)
                }
            };
            state.put(db, audience, key, Some(before), &next)?;
            reached = Some(key.clone());
        }
        state.audiences.list[audience].walk = reached.map(|after| Walk { task, after });
        state.touch(audience);
    }
    Ok(under_way)
}

#[cfg(test)]
mod tests {
    use super::*;

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

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
        let (text, progress) = text.split_once(';').unwrap_or((text, "0 0 0"));
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

/// One slice of every walk. `true`: one is under way.
pub(super) fn step(state: &mut State, db: &Connection) -> rusqlite::Result<bool> {
    let mut under_way = false;
    for audience in 0..state.audiences.list.len() {
        let known = &state.audiences.list[audience];
        let Some(walk) = known.walk.clone() else { continue };
        under_way = true;
        if known.counts.pending >= AHEAD {
            continue;
        }
        let row = known.row;
        let slice = members::walk(db, (row, &walk.after), SLICE)?;
        let mut reached = None;
        let mut visited = walk.visited;
        for (_, key, before) in slice.iter().take_while(|(of, _, _)| *of == row) {
            let moment = state.moment(audience);
            let next = match &walk.task {
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
            visited += 1;
            reached = Some(key.clone());
        }
        state.audiences.list[audience].walk = reached.map(|after| Walk { after, visited, ..walk });
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
            let after = "ada".to_owned();
            let walk = Walk { after, visited: 7, ..Walk::of(task, Timestamp(17), 9) };
            assert_eq!(Walk::parse(&walk.to_string(), Some(walk.after.clone())), Some(walk));
        }
        let of_an_older_version = Walk::parse("resync", Some(String::new()));
        assert_eq!(of_an_older_version, Some(Walk::default()));
        for damaged in ["", "resynk", "retract", "retract x", "retract_stale x", "resync;1 -1 0"] {
            assert_eq!(Walk::parse(damaged, Some(String::new())), None, "{damaged}");
        }
    }
}

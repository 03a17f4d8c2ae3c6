//! A walk as stored with its audience: the task, and how far it has come.

use std::fmt;

use crate::membership::Timestamp;

/// What is done to each member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Task {
    /// The member is told again, unless it was told since the walk began.
    #[default]
    Resync,
    /// The member is removed and erased, unless it changed after this.
    Retract { through: Timestamp },
    /// The member is removed and erased, unless one of these rules chose its context key.
    RetractStale { current: Vec<u32> },
    /// Who left by an event in this time is in again; until it is done the audience is held.
    Reenter { since: Timestamp, at: Timestamp },
}

impl Task {
    /// The name that is stored and shown to people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Retract { .. } => "retract",
            Self::RetractStale { .. } => "retract_stale",
            Self::Reenter { .. } => "reenter",
        }
    }
}

/// A task, the context key that it has reached, and its progress. Progress is only shown, it decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walk {
    pub task: Task,
    pub after: String,
    pub since: Timestamp,
    /// Members that the walk has passed.
    pub visited: u64,
    /// Members in the audience when the walk began; those that left are visited too. Zero: not counted.
    pub expected: u64,
}

impl Walk {
    pub fn of(task: Task, since: Timestamp, expected: u64) -> Self {
        Self { task, after: String::new(), since, visited: 0, expected }
    }

    /// Parses what [`fmt::Display`] writes.
    pub fn parse(text: &str, after: Option<String>) -> Option<Self> {
        let (text, progress) = text.split_once(';')?;
        let mut words = text.split(' ');
        let task = match words.next()? {
            "resync" => Task::Resync,
            "retract" => Task::Retract { through: Timestamp(words.next()?.parse().ok()?) },
            "retract_stale" => Task::RetractStale {
                current: words.map(str::parse).collect::<Result<_, _>>().ok()?,
            },
            "reenter" => {
                let mut stamp = || Some(Timestamp(words.next()?.parse().ok()?));
                Task::Reenter { since: stamp()?, at: stamp()? }
            }
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
            Task::Reenter { since, at } => write!(f, " {} {}", since.0, at.0)?,
            Task::RetractStale { current } => {
                current.iter().try_for_each(|rule| write!(f, " {rule}"))?;
            }
        }
        write!(f, ";{} {} {}", self.since.0, self.visited, self.expected)
    }
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
            Task::Reenter { since: Timestamp(3), at: Timestamp(9) },
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
            "reenter 1;0 0 0",
            "retract_stale x;0 0 0",
            "resync;1 -1 0",
        ] {
            assert_eq!(Walk::parse(damaged, Some(String::new())), None, "{damaged}");
        }
    }
}

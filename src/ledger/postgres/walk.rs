//! A walk as the row of its audience has it.

use tokio_postgres::Row;

use crate::ledger::WalkView;
use crate::ledger::postgres::failure::Failure;
use crate::membership::Timestamp;

/// A task over all members of an audience, and its progress.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub task: Task,
    pub since: Timestamp,
    /// The last context key that was visited.
    pub after: Vec<u8>,
    pub visited: i64,
    pub expected: i64,
}

/// What is done to every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// It is told again.
    Resync,
    /// It is removed, if it has not changed since the walk began.
    Retract,
    /// It is removed if its context key was chosen by none of these rules.
    RetractStale(Vec<i64>),
    /// It is taken back, if it has left since.
    Reenter { since: Timestamp },
}

impl Task {
    /// As it is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Retract => "retract",
            Self::RetractStale(_) => "retract_stale",
            Self::Reenter { .. } => "reenter",
        }
    }
}

impl Walk {
    /// Reads the columns of a walk, which begin at the column `at`.
    pub fn of(row: &Row, at: usize) -> Result<Option<Self>, Failure> {
        let task: Option<&str> = row.try_get(at)?;
        let rules: Option<Vec<i64>> = row.try_get(at + 1)?;
        let task = match task {
            None => return Ok(None),
            Some("resync") => Task::Resync,
            Some("retract") => Task::Retract,
            Some("reenter") => {
                let since = rules.and_then(|of| of.first().copied()).unwrap_or_default();
                Task::Reenter { since: Timestamp(since) }
            }
            Some(_) => Task::RetractStale(rules.unwrap_or_default()),
        };
        Ok(Some(Self {
            task,
            since: Timestamp(row.try_get(at + 2)?),
            after: row.try_get(at + 3)?,
            visited: row.try_get(at + 4)?,
            expected: row.try_get(at + 5)?,
        }))
    }

    pub fn view(&self) -> WalkView {
        WalkView {
            task: self.task.name(),
            since: self.since,
            visited: self.visited.unsigned_abs(),
            expected: self.expected.unsigned_abs(),
        }
    }
}

//! Reconciliations with a snapshot that are under way, and what is left of each: kept until all of it is recorded, so that
//! whoever comes after a process that died goes on.
//!
//! The ledger keeps the order and interprets nothing: what a piece says, and of what, is its writer's. A piece that is
//! recorded twice changes nothing more than one that is recorded once.
//!
//! # What always holds
//! * Of an audience at most one is under way.
//! * A step that is answered is durable. One that comes too late, after a stop for instance, changes nothing.

use async_trait::async_trait;

use super::LedgerError;
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// How far a reconciliation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A process finds out what it changes, and writes it down.
    Staging,
    /// All that it changes is written down, and is recorded piece by piece.
    Staged,
    /// It is to end early; whoever records its pieces ends it.
    Stopping,
    /// All of it is recorded.
    Complete,
    /// It has ended early: what was recorded stays.
    Stopped,
}

impl Stage {
    pub(super) const ALL: [Self; 5] =
        [Self::Staging, Self::Staged, Self::Stopping, Self::Complete, Self::Stopped];
    /// Those of a reconciliation that is under way.
    pub(super) const UNDER_WAY: [Self; 3] = [Self::Staging, Self::Staged, Self::Stopping];

    /// As it is stored.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Staged => "staged",
            Self::Stopping => "stopping",
            Self::Complete => "complete",
            Self::Stopped => "stopped",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        Self::UNDER_WAY.contains(&self)
    }
}

/// Who writes down what a reconciliation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stager {
    /// This process.
    Here,
    /// Another one that is there.
    Elsewhere,
    /// One that is not there any more.
    Gone,
}

/// Members that a reconciliation has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// All of them.
    pub done: u64,
    /// Those that entered.
    pub entered: u64,
    /// Those that left.
    pub left: u64,
}

impl Changed {
    /// These and those.
    #[must_use]
    pub fn and(self, Self { done, entered, left }: Self) -> Self {
        Self { done: self.done + done, entered: self.entered + entered, left: self.left + left }
    }
}

/// A reconciliation that is under way, or has ended a while ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconciliationView {
    /// Its number in the ledger.
    pub id: i64,
    /// The audience's destination.
    pub destination: DestinationName,
    /// The audience.
    pub audience: AudienceId,
    /// How far it is.
    pub stage: Stage,
    /// Who stages it, or did so.
    pub stager: Stager,
    /// What its writer says of it; empty until it is planned.
    pub about: String,
    /// When it began, by the ledger's clock.
    pub since: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// About how many members it changes.
    pub total: u64,
    /// Those that are recorded.
    pub changed: Changed,
}

/// What happens to a reconciliation next.
#[derive(Clone, PartialEq, Eq)]
pub enum ReconciliationStep {
    /// It is known what it is about, how many members it is to change, and which are changed before all else.
    Plan {
        /// What its writer says of it.
        about: String,
        /// How many members it is to change.
        total: u64,
        /// Those that are changed first.
        changed: Changed,
    },
    /// A piece of it is written down: personal data.
    Stage {
        /// Its number; they are recorded in their order.
        no: i64,
        /// What it says.
        body: Vec<u8>,
    },
    /// All of it is written down.
    Staged {
        /// How many members it changes.
        total: u64,
    },
    /// A piece of it is recorded, and goes.
    Applied {
        /// Its number.
        no: i64,
        /// Members that it has changed.
        changed: Changed,
    },
    /// It is to end early.
    Stop,
    /// The same, unless all of it is written down: nobody is at it any more.
    Abandon,
    /// It has ended.
    End {
        /// Whether all of it is recorded.
        is_complete: bool,
    },
    /// Some pieces of one that has ended go. It concerns nobody if there are none.
    Sweep,
    /// One that has ended goes.
    Remove,
}

impl ReconciliationStep {
    /// Pieces that go at once.
    pub(super) const SWEPT: u32 = 20;

    /// When it can happen.
    pub(super) fn from(&self) -> &'static [Stage] {
        use Stage::{Complete, Staged, Staging, Stopped, Stopping};
        match self {
            Self::Plan { .. } | Self::Stage { .. } | Self::Staged { .. } | Self::Abandon => {
                &[Staging]
            }
            Self::Stop => &[Staging, Staged],
            Self::End { is_complete: true } => &[Staged],
            Self::Applied { .. } | Self::End { is_complete: false } => &[Staged, Stopping],
            Self::Sweep | Self::Remove => &[Complete, Stopped],
        }
    }

    /// How far it is then.
    pub(super) fn leads_to(&self) -> Option<Stage> {
        match self {
            Self::Staged { .. } => Some(Stage::Staged),
            Self::Stop | Self::Abandon => Some(Stage::Stopping),
            Self::End { is_complete: true } => Some(Stage::Complete),
            Self::End { is_complete: false } => Some(Stage::Stopped),
            _ => None,
        }
    }
}

impl std::fmt::Debug for ReconciliationStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plan { .. } => "Plan",
            Self::Stage { .. } => "Stage",
            Self::Staged { .. } => "Staged",
            Self::Applied { .. } => "Applied",
            Self::Stop => "Stop",
            Self::Abandon => "Abandon",
            Self::End { .. } => "End",
            Self::Sweep => "Sweep",
            Self::Remove => "Remove",
        })
    }
}

/// The ledger as seen by whoever reconciles.
#[async_trait]
pub trait Reconciliations: Send + Sync {
    /// Begins one of an audience; its number, or `None` if one of that audience is under way.
    async fn begin_reconciliation(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
    ) -> Result<Option<i64>, LedgerError>;

    /// Takes a step; `false`: it has come too late, and nothing is changed.
    async fn step_reconciliation(
        &self,
        id: i64,
        step: ReconciliationStep,
    ) -> Result<bool, LedgerError>;

    /// Those that are under way, and those that have ended and were not removed since, in the order of their numbers.
    async fn reconciliations(&self) -> Result<Vec<ReconciliationView>, LedgerError>;

    /// The piece with the lowest number of one that is staged, and that number; `None`: there is none.
    async fn reconciliation_piece(&self, id: i64) -> Result<Option<(i64, Vec<u8>)>, LedgerError>;
}

//! A reconciliation of an audience with a snapshot.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What the snapshot is of, and how far it may go.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Reconcile {
    /// The audience's id. Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1)]
    pub audience: Option<String>,
    /// When the snapshot was taken: what happened later wins. Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(format = DateTime)]
    pub as_of: Option<String>,
    /// The column with the context keys; if absent, `context_key`, or the identifiers that the mapping takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse if a larger part of the members, in percent, would leave; 20 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 100)]
    pub max_exits: Option<u8>,
    /// Do it although it looks like a mistake.
    #[serde(default)]
    pub yes: bool,
    /// The audience's key, for an audience of which the ledger has no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience_key: Option<String>,
    /// The kind of its members; `user` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_kind: Option<String>,
}

/// Which reconciliation to stop.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReconcileStop {
    /// The audience's id.
    pub audience: String,
}

/// What a snapshot changes. Personal
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Reconciled {
    /// The audience's id.
    pub audience: String,
    /// When the snapshot was taken.
    pub as_of: String,
    /// Lines of the snapshot with data.
    pub lines: u64,
    /// Those of them without a key, which change nothing.
    pub without_key: u64,
    /// Members that enter.
    pub enter: u64,
    /// Members that leave.
    pub leave: u64,
    /// Members that are in already.
    pub stay: u64,
    /// Members that differ, and stay as they are, because the ledger knows something newer.
    pub newer: u64,
    /// Whether this is only what would be done.
    pub dry_run: bool,
    /// Of a dry run: why it would be refused without `yes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The guard holds the audience: nothing of it is told until that is decided.
    #[serde(default)]
    pub held: bool,
    /// Context keys of a few members that enter.
    pub entering: Vec<String>,
    /// Context keys of a few members that leave.
    pub leaving: Vec<String>,
}

/// How far a reconciliation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReconcileStage {
    /// The snapshot is read, compared with the ledger, and what it changes is written down: if the daemon ends now, the
    /// same has to be asked for again.
    Comparing,
    /// What it changes is recorded. This goes on by itself, whichever daemon ends.
    Recording,
    /// It was told to stop.
    Stopping,
    /// All of it is recorded.
    Complete,
    /// It has ended early: what was recorded stays, and the same again does what is left.
    Stopped,
}

impl ReconcileStage {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Comparing | Self::Recording | Self::Stopping)
    }
}

/// Reconciliations of a destination.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReconcileList {
    /// Of an audience at most one is under way.
    pub items: Vec<ReconcileInfo>,
}

/// A reconciliation that is under way, or has ended within the last minute.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReconcileInfo {
    /// The audience's id.
    pub audience: String,
    /// How far it is.
    pub stage: ReconcileStage,
    /// When the snapshot was taken; null until it was compared with the ledger.
    pub as_of: Option<String>,
    /// When it was asked for.
    pub since: String,
    /// When it ended; null if it is under way.
    pub ended_at: Option<String>,
    /// Members that have entered so far.
    pub entered: u64,
    /// Members that have left so far.
    pub left: u64,
}

//! How each destination stands, as `/status` tells it and `cohortd status` reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::whole_millis;
use crate::deliver::Held;
use crate::ledger::Backlog;
use crate::membership::Timestamp;

/// The whole daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether events are accepted.
    pub ready: bool,
    /// By name.
    pub destinations: BTreeMap<String, DestinationStatus>,
}

/// One destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Whether anything but probes is delivered.
    pub state: DestinationState,
    /// Since when an operator has stopped its delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<Timestamp>,
    /// Since when and why it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Members waiting to be claimed; at least so many while a long backlog has not been counted.
    pub waiting: u64,
    /// Milliseconds that the longest waiting one has waited since the daemon started.
    pub oldest_waiting_ms: u64,
    /// Members waiting, by audience id.
    pub audiences: BTreeMap<String, u64>,
}

/// Whether a destination is delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// It is.
    Ok,
    /// Events are kept, and LaunchDarkly is probed until what is wrong is mended.
    Held,
    /// Events are kept, and nothing is delivered until an operator resumes it.
    Paused,
}

/// Why a destination is held.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Since when.
    pub since: Timestamp,
    /// The HTTP status that caused it.
    pub status: u16,
    /// In words, with the remedy.
    pub why: Cow<'static, str>,
    /// LaunchDarkly's id of the answer, for its support.
    pub answer_id: String,
}

impl DestinationStatus {
    /// From what waits and what holds it.
    #[must_use]
    pub fn of(backlog: &[Backlog], held: Option<Held>, paused_since: Option<Timestamp>) -> Self {
        let oldest = backlog.iter().map(|of| whole_millis(of.waiting_since.elapsed())).max();
        let audience = |of: &Backlog| (of.audience.as_str().to_owned(), of.waiting);
        Self {
            state: match (&held, paused_since) {
                (_, Some(_)) => DestinationState::Paused,
                (Some(_), None) => DestinationState::Held,
                (None, None) => DestinationState::Ok,
            },
            paused_since,
            held: held.map(|Held { since, status, why, answer_id }| HeldStatus {
                since,
                status,
                why: why.into(),
                answer_id,
            }),
            waiting: backlog.iter().map(|of| of.waiting).sum(),
            oldest_waiting_ms: oldest.unwrap_or(0),
            audiences: backlog.iter().map(audience).collect(),
        }
    }
}

//! Rejected events as the admin API lists, replays and discards them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::instant;
use crate::ledger::RejectedView;
use crate::operate::access::Power;

/// A rejected event. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RejectedInfo {
    /// Its number in the ledger.
    pub id: i64,
    /// When it arrived.
    pub received_at: String,
    /// The stable reason word.
    pub reason: String,
    /// The reason as a sentence.
    pub detail: String,
    /// The event as it came; invalid UTF-8 is replaced. Absent for a token that may only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl RejectedInfo {
    /// What is shown of an event. Its body contains whatever its sender has put there, so it is shown
    /// to operators only.
    pub(in crate::operate) fn of(view: RejectedView, power: Power) -> Self {
        let body = || String::from_utf8_lossy(&view.body).into_owned();
        Self {
            body: (power >= Power::Operate).then(body),
            id: view.id,
            received_at: instant(view.received_at),
            reason: view.reason,
            detail: view.detail,
        }
    }
}

/// A page of rejected events.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RejectedPage {
    /// The events, the oldest first.
    pub rejected: Vec<RejectedInfo>,
    /// There may be more after the last one.
    pub more: bool,
}

/// Which rejected events are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RejectedQuery {
    /// Only those with larger numbers than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Most items in the answer; 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only those of this person, by Segment's user id. Personal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// Which rejected events are replayed.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Only this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Only events after this number: a replay is done part by part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Also events older than the retention of members that left.
    #[serde(default)]
    pub force: bool,
}

/// What became of the events in a part of a replay.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Recorded now, so no longer kept.
    pub replayed: u64,
    /// Not selected by the present mapping; still kept.
    pub ignored: u64,
    /// Older than the retention of members that left; still kept.
    pub too_old: u64,
    /// Still rejected, with the present reason; still kept.
    pub rejected: Vec<StillRejected>,
    /// Continue the replay after this number; absent if it is finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}

impl Replayed {
    /// The number of events that were processed.
    #[must_use]
    pub fn looked_at(&self) -> u64 {
        self.replayed + self.ignored + self.too_old + self.rejected.len() as u64
    }
}

/// An event that the present mapping cannot read either.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StillRejected {
    /// Its number in the ledger.
    pub id: i64,
    /// The stable reason word, and a sentence.
    pub reason: String,
}

/// Which rejected events are discarded.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectedChange {
    /// Only this event; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
}

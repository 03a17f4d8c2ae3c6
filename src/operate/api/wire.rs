//! What the admin API takes and answers, for the daemon and for the commands that ask it. Times are
//! RFC 3339, UTC.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::ledger::{AudienceView, DestinationView, MemberView, ParkedView, RejectedView};
use crate::membership::Timestamp;

/// A point in time as people and programs read it.
#[must_use]
pub fn instant(timestamp: Timestamp) -> String {
    let instant = jiff::Timestamp::from_microsecond(timestamp.0).unwrap_or_default();
    format!("{instant:.3}")
}

/// What a reload has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Keys that say something else and are applied, and destinations and routes that came or went.
    pub changed: Vec<String>,
    /// Keys that say something else and are applied when the daemon is started again.
    pub needs_restart: Vec<String>,
}

/// A destination that the ledger has rows of.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DestinationInfo {
    /// Its name.
    pub name: String,
    /// Whether it is configured; if not, its rows are only kept.
    pub configured: bool,
    /// Since when an operator has stopped its delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<String>,
    /// Audiences that have members.
    pub audiences: u64,
    /// Members that are in their audience.
    pub included: u64,
    /// Members that wait to be told or are being told.
    pub pending: u64,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Rejected events kept.
    pub rejected: u64,
}

impl From<DestinationView> for DestinationInfo {
    fn from(view: DestinationView) -> Self {
        let DestinationView {
            name,
            configured,
            paused_since,
            audiences,
            included,
            pending,
            pending_since: _,
            parked,
            rejected,
        } = view;
        let paused_since = paused_since.map(instant);
        Self { name, configured, paused_since, audiences, included, pending, parked, rejected }
    }
}

/// An audience with its counts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AudienceInfo {
    /// LaunchDarkly's `cohortId`.
    pub audience: String,
    /// Its latest key.
    pub audience_key: String,
    /// The kind of its members.
    pub context_kind: String,
    /// Members that are in it.
    pub included: u64,
    /// Members that wait to be told or are being told.
    pub pending: u64,
    /// Since when the longest pending one has been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<String>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// When the first of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_since: Option<String>,
    /// What is being done to every member: `resync`, `retract` or `retract_stale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<String>,
    /// How far that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<WalkInfo>,
}

/// How far what is done to every member of an audience has come.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WalkInfo {
    /// When it began, if that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Members it has come past.
    pub done: u64,
    /// How many they will be, about.
    pub total: u64,
}

impl From<AudienceView> for AudienceInfo {
    fn from(view: AudienceView) -> Self {
        Self {
            audience: view.audience,
            audience_key: view.audience_key,
            context_kind: view.context_kind,
            included: view.included,
            pending: view.pending,
            pending_since: view.pending_since.map(instant),
            parked: view.parked,
            parked_since: view.parked_since.map(instant),
            under_way: view.walk.as_ref().map(|walk| walk.task.to_owned()),
            walk: view.walk.map(|walk| WalkInfo {
                since: (walk.since != Timestamp::EPOCH).then(|| instant(walk.since)),
                done: walk.visited,
                total: walk.expected.max(walk.visited),
            }),
        }
    }
}

/// A member. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MemberInfo {
    /// The audience's id.
    pub audience: String,
    /// The audience's latest key.
    pub audience_key: String,
    /// The kind of the audience's members.
    pub context_kind: String,
    /// Who.
    pub context_key: String,
    /// What it should be.
    pub included: bool,
    /// When the membership changed.
    pub event_at: String,
    /// What LaunchDarkly was last told; not there: nothing that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
    /// When it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<String>,
    /// Whether it waits to be told.
    pub pending: bool,
    /// Whether LaunchDarkly refused it alone.
    pub parked: bool,
}

impl From<MemberView> for MemberInfo {
    fn from(view: MemberView) -> Self {
        Self {
            audience: view.audience,
            audience_key: view.audience_key,
            context_kind: view.context_kind,
            context_key: view.context_key,
            included: view.included,
            event_at: instant(view.event_at),
            told: view.told,
            told_at: view.told_at.map(instant),
            pending: view.pending,
            parked: view.parked,
        }
    }
}

/// A parked member. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ParkedInfo {
    /// The audience's id.
    pub audience: String,
    /// Who.
    pub context_key: String,
    /// When it was refused.
    pub parked_at: String,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id`, for its support.
    pub answer_id: String,
}

impl From<ParkedView> for ParkedInfo {
    fn from(view: ParkedView) -> Self {
        Self {
            audience: view.audience,
            context_key: view.context_key,
            parked_at: instant(view.parked_at),
            status: view.status,
            code: view.code,
            message: view.message,
            answer_id: view.answer_id,
        }
    }
}

/// A rejected event. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RejectedInfo {
    /// Its number in the ledger.
    pub id: i64,
    /// When it arrived.
    pub received_at: String,
    /// The stable word.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// The event as it came; what is not UTF-8 is replaced.
    pub body: String,
}

impl From<RejectedView> for RejectedInfo {
    fn from(view: RejectedView) -> Self {
        Self {
            id: view.id,
            received_at: instant(view.received_at),
            reason: view.reason,
            detail: view.detail,
            body: String::from_utf8_lossy(&view.body).into_owned(),
        }
    }
}

/// Which destinations or audiences are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Behind this name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which audiences of a person are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MemberQuery {
    /// Behind this audience …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_audience: Option<String>,
    /// … and this context key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_key: Option<String>,
    /// At most so many; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of a list of parked members, and where the next part begins.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ParkedPage {
    /// In the order of audience and context key.
    pub parked: Vec<ParkedInfo>,
    /// There may be more behind the last one.
    pub more: bool,
}

/// Which parked members are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ParkedQuery {
    /// Of this audience only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Behind this audience …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_audience: Option<String>,
    /// … and this context key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_key: Option<String>,
    /// At most so many; 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of a list of rejected events.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct RejectedPage {
    /// The oldest first.
    pub rejected: Vec<RejectedInfo>,
    /// There may be more behind the last one.
    pub more: bool,
}

/// Which rejected events are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RejectedQuery {
    /// With larger numbers than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// At most so many; 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which parked members are requeued or discarded.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkedChange {
    /// Of this audience; of all, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// This one of the audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_key: Option<String>,
}

/// Which rejected events are replayed.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// This one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Those behind this number: a replay goes on a part at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Also those that are older than the memory of members that left.
    #[serde(default)]
    pub force: bool,
}

/// What became of the events of a replay.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// Recorded now, and no longer kept.
    pub replayed: u64,
    /// The present mapping does not select them; still kept.
    pub ignored: u64,
    /// Older than the memory of members that left; still kept.
    pub too_old: u64,
    /// Still not usable, with the present reason; still kept.
    pub rejected: Vec<StillRejected>,
    /// The replay goes on behind this number; not there: it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}

impl Replayed {
    /// Events that something became of.
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
    /// The stable word and the sentence.
    pub reason: String,
}

/// Which rejected events are discarded.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectedChange {
    /// This one; all, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
}

/// Which audiences are told again.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resync {
    /// This one; all, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// End one that is under way instead.
    #[serde(default)]
    pub stop: bool,
    /// Remove members whose context key came from an older mapping instead.
    #[serde(default)]
    pub retract_stale: bool,
    /// Also where no member is under the present mapping yet.
    #[serde(default)]
    pub force: bool,
}

/// Who is forgotten. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Segment's user id.
    #[schema(min_length = 1)]
    pub user_id: String,
}

/// What is dropped.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// This audience; the whole destination, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// Tell LaunchDarkly first that everybody left.
    #[serde(default)]
    pub retract: bool,
}

/// How many members, events or audiences a change concerned.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// So many.
    pub count: u64,
    /// Audiences that were left alone, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<String>,
}

impl Done {
    pub(super) fn of(count: u64) -> Self {
        Self { count, left_alone: Vec::new() }
    }
}

/// What became of an event, as the webhook says it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventAccount {
    /// 1: it is on disk and will be delivered.
    pub accepted: usize,
    /// 1: no mapping selects it.
    pub ignored: usize,
    /// Why it was rejected, if it was.
    pub rejected: Vec<RejectedOf>,
}

/// A rejection, and the event's place.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RejectedOf {
    /// Always 0: there is one event.
    pub index: usize,
    /// The stable word and the sentence.
    pub reason: String,
}

/// What long work it is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Every member of an audience is told again.
    Resync,
    /// Every member of an audience leaves and is forgotten.
    Retract,
    /// The same for those whom the present mapping did not bring.
    RetractStale,
    /// Rejected events go through the present mapping.
    Replay,
    /// A backlog is worked off.
    Drain,
}

impl Work {
    /// What is done to every member of an audience, by its name.
    pub(super) fn of(task: &str) -> Self {
        match task {
            "retract" => Self::Retract,
            "retract_stale" => Self::RetractStale,
            _ => Self::Resync,
        }
    }
}

/// Long work of a destination.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressList {
    /// The daemon's clock.
    pub now: String,
    /// At most 1000.
    pub items: Vec<ProgressItem>,
}

/// How far long work has come.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressItem {
    /// What it is.
    pub kind: Work,
    /// Of this audience; null where it is of the whole destination.
    pub audience: Option<String>,
    /// So many members or events are through …
    pub done: u64,
    /// … of so many, about.
    pub total: u64,
    /// When it began; of a backlog, since when its longest waiting member has waited.
    pub since: String,
    /// So many a second, lately.
    pub per_second: f64,
    /// Seconds it will take at that pace; null if it stands still.
    pub remaining_s: Option<u64>,
}

/// A change that needs no words: its body is an empty object.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

//! What operators see of the ledger and do to it, outside the flow of events.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::guard::{Changes, Guard};
use super::{LedgerError, Members, Outbox, Reconciliations, Recorder, Recordings, Route};
use crate::counting::{Distribution, PerDestination};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp, UserId};

/// A destination that has rows in the ledger, configured or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its name.
    pub name: String,
    /// Whether it is configured; if not, its rows are only kept.
    pub configured: bool,
    /// Since when an operator has paused its delivery.
    pub paused_since: Option<Timestamp>,
    /// Audiences that have members.
    pub audiences: u64,
    /// Members that are in their audience.
    pub included: u64,
    /// Members that wait to be told or are being told, plus [`Self::unvisited`].
    pub pending: u64,
    /// About how many members walks have still to visit: those of them that are to be told wait too. At least
    /// one as long as there is a walk.
    pub unvisited: u64,
    /// Since when the oldest pending member has waited, by the ledger's clock.
    pub pending_since: Option<Timestamp>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Since when the oldest parked member has been parked.
    pub parked_since: Option<Timestamp>,
    /// Rejected events kept.
    pub rejected: u64,
    /// When the oldest of them arrived.
    pub rejected_since: Option<Timestamp>,
}

/// How many members joined and left an audience: actual changes, repeats not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Members that are in now and were not before.
    pub joined: u64,
    /// Members that were in before and are not now.
    pub left: u64,
    /// How many of those that left did so because their entries have expired.
    pub expired: u64,
}

/// What a store says of itself, for metrics. Each store has facts of its own; none has all of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Bytes of all its files.
    Bytes(u64),
    /// Bytes of the log that are not merged into the tables yet.
    LogBytes(u64),
    /// Bytes that it could still write.
    FreeBytes(u64),
    /// Items of one commit: deltas, kept events, claimed and reported members.
    CommitRows(Distribution),
    /// Seconds that one commit or sync took.
    SyncDuration(Distribution),
}

/// An audience that its guard holds: too many of its members changed within a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldAudience {
    /// LaunchDarkly's `cohortId`.
    pub audience: String,
    /// Its latest key.
    pub audience_key: String,
    /// Since when it is held.
    pub since: Timestamp,
    /// When the window began.
    pub window_since: Timestamp,
    /// Members at the start of the window.
    pub members: u64,
    /// Members that left in the window, by events.
    pub left: u64,
    /// Members that entered in it, by events.
    pub entered: u64,
    /// The most members that left in a window in which it was not held.
    pub usual: u64,
    /// Those who left are being taken back.
    pub is_discarding: bool,
}

impl HeldAudience {
    pub(super) fn of(route: &Route, since: Timestamp, guard: &Guard, is_discarding: bool) -> Self {
        let Changes { since: window_since, members, exits, entries, .. } = guard.window();
        Self {
            audience: route.audience.as_str().to_owned(),
            audience_key: route.audience_key.as_str().to_owned(),
            since,
            window_since,
            members,
            left: exits,
            entered: entries,
            usual: guard.usual(),
            is_discarding,
        }
    }
}

/// An audience with its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudienceView {
    /// LaunchDarkly's `cohortId`.
    pub audience: String,
    /// Its latest key.
    pub audience_key: String,
    /// The kind of its members.
    pub context_kind: String,
    /// Members that are in it.
    pub included: u64,
    /// Members that wait to be told or are being told, plus those that a walk has still to visit.
    pub pending: u64,
    /// Since when the oldest pending member has waited, by the ledger's clock.
    pub pending_since: Option<Timestamp>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Since when the oldest of them has been parked.
    pub parked_since: Option<Timestamp>,
    /// The task over all its members that is under way.
    pub walk: Option<WalkView>,
    /// As of when the latest snapshot of it was: events that are older and arrive now change nobody.
    pub snapshot_at: Option<Timestamp>,
}

/// A task over all members of an audience, and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkView {
    /// `resync`, `retract` or `retract_stale`.
    pub task: &'static str,
    /// When it began; the epoch if that was not stored.
    pub since: Timestamp,
    /// Members visited; the last of them may still wait to be told.
    pub visited: u64,
    /// About how many members it will visit; those that left recently are visited too.
    pub expected: u64,
}

impl WalkView {
    /// About how many members it has still to visit; at least one, as it is under way.
    #[must_use]
    pub fn unvisited(&self) -> u64 {
        self.expected.saturating_sub(self.visited).max(1)
    }
}

/// A member as an operator sees it. Personal data.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The audience's id.
    pub audience: String,
    /// The audience's latest key.
    pub audience_key: String,
    /// The kind of the audience's members.
    pub context_kind: String,
    /// The member's context key.
    pub context_key: String,
    /// Whether it should be in the audience.
    pub included: bool,
    /// The event time of the latest membership.
    pub event_at: Timestamp,
    /// What LaunchDarkly was last told.
    pub told: Option<bool>,
    /// When that was accepted.
    pub told_at: Option<Timestamp>,
    /// Whether it waits to be told.
    pub pending: bool,
    /// Whether LaunchDarkly refused it alone.
    pub parked: bool,
    /// Whether it is out because its entry has expired.
    pub expired: bool,
}

/// What a member of an audience is at present. Personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Standing {
    /// The member.
    pub context_key: ContextKey,
    /// Whether it should be in the audience.
    pub included: bool,
    /// The event time of that.
    pub event_at: Timestamp,
}

/// A parked member as an operator sees it. Personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedView {
    /// The audience's id.
    pub audience: String,
    /// The member's context key.
    pub context_key: String,
    /// When it was refused.
    pub parked_at: Timestamp,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for a request to its support.
    pub answer_id: String,
}

/// Where a list of parked members continues: behind this audience and context key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ParkedAfter {
    /// The audience's id.
    pub audience: String,
    /// The context key. Personal data.
    pub context_key: String,
}

/// A rejected event as an operator sees it. Personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct RejectedView {
    /// Its number in the ledger.
    pub id: i64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The stable identifier of the reason.
    pub reason: String,
    /// The reason in one sentence.
    pub detail: String,
    /// The event as received.
    pub body: Vec<u8>,
}

/// A process that shares the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Its name, another one for each process.
    pub name: String,
    /// Whether it is this process.
    pub is_here: bool,
    /// Its version.
    pub version: String,
    /// A digest of its configuration.
    pub configuration: String,
    /// When it opened the ledger.
    pub started_at: Timestamp,
    /// How long nothing has been heard of it.
    pub silent_for: Duration,
    /// The destinations that it delivers to.
    pub delivers: Vec<String>,
    /// What it last said of itself with [`Operations::say`].
    pub said: Option<String>,
}

/// The operator's verbs. Reads run beside the writer, and decide nothing about delivery.
#[async_trait]
pub trait Operations: Recorder + Reconciliations {
    /// The outbox of a destination, as its courier sees it.
    fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox>;

    /// Whether deliveries of a destination are this process's; always so where the ledger is not shared.
    fn delivers(&self, _destination: &DestinationName) -> bool {
        true
    }

    /// The processes that share the ledger, this one among them; `None`: it is not shared.
    async fn replicas(&self) -> Result<Option<Vec<ReplicaView>>, LedgerError> {
        Ok(None)
    }

    /// Tells whoever shares the ledger what this process sees, in place of what it said before. The ledger does not
    /// interpret it.
    async fn say(&self, _words: String) -> Result<(), LedgerError> {
        Ok(())
    }

    /// What became of deltas since the ledger was opened.
    fn recordings(&self) -> &PerDestination<Recordings>;

    /// What the store says of itself.
    async fn facts(&self) -> Result<Vec<Fact>, LedgerError>;

    /// Every destination that has rows, ordered by name.
    async fn destinations(&self) -> Result<Vec<DestinationView>, LedgerError>;

    /// How many members joined and left since the last call, for the audiences in which any did. For a single
    /// caller: the call resets the numbers.
    fn take_turnover(&self, destination: &DestinationName) -> Vec<(AudienceId, Turnover)>;

    /// The audiences of a destination, configured or not.
    async fn audiences(
        &self,
        destination: &DestinationName,
    ) -> Result<Vec<AudienceView>, LedgerError>;

    /// Every membership of a person: by context key, and by user id where that is not the key.
    async fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> Result<Vec<MemberView>, LedgerError>;

    /// At most `limit` members of an audience behind `after`, in the order of the bytes of their context keys,
    /// those that left and are still remembered too; fewer only if there are no more, and none of an audience
    /// that the ledger does not know.
    ///
    /// The first page (`after` is `None`) has everything that was recorded before the call. A later page may
    /// lack what was recorded after the first one, but nothing that was recorded before it.
    async fn standings(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        after: Option<&ContextKey>,
        limit: u32,
    ) -> Result<Vec<Standing>, LedgerError>;

    /// At most `limit` parked members, of one audience or all.
    async fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> Result<Vec<ParkedView>, LedgerError>;

    /// At most `limit` rejected events with larger ids than `after`, the oldest first; fewer if they are
    /// large, and none only if there is none.
    async fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError>;

    /// At most `limit` rejected events of one person with larger numbers than `after`, the oldest first: those that
    /// [`Self::forget`] would erase.
    async fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError>;

    /// Whether any member that is in the audience has a context key chosen by one of these rules.
    async fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> Result<bool, LedgerError>;

    /// Makes parked members pending again, each in a batch of its own until it is accepted; returns how many
    /// were parked.
    async fn requeue(&self, members: Members) -> Result<u64, LedgerError>;

    /// Erases parked members as if they had never been seen; returns how many were parked.
    async fn discard_parked(&self, members: Members) -> Result<u64, LedgerError>;

    /// Erases rejected events; returns how many there were.
    async fn discard_rejected(
        &self,
        destination: &DestinationName,
        ids: Vec<i64>,
    ) -> Result<u64, LedgerError>;

    /// Forgets what was told of an audience (of all, if `None`), so that every member is told again, a slice
    /// at a time; returns the number of audiences.
    async fn resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Stops a resync where it is.
    async fn stop_resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Removes and erases the members whose context key was chosen by none of these rules, a slice at a time.
    async fn retract_stale(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        current: Vec<u32>,
    ) -> Result<(), LedgerError>;

    /// Removes and erases every member of an audience (of all, if `None`), a slice at a time; returns the
    /// number of audiences. Rejected events stay.
    async fn retract(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// The audiences of a destination that their guards hold: nothing of them is told but who is deleted or retracted.
    fn held_audiences(&self, destination: &DestinationName) -> Vec<HeldAudience>;

    /// Tells what has happened to a held audience (to all, if `None`); returns how many were held.
    async fn release_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Enters the members again that left a held audience (all, if `None`) in its window, a slice at a time, as a
    /// change of now; then it is no longer held. Returns how many were held.
    async fn discard_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Erases an audience (a whole destination, if `None`) without telling LaunchDarkly; the
    /// destination need not be configured.
    async fn erase(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// The note that the previous run of the daemon left, as it was when the ledger was opened.
    fn note(&self) -> Option<&str>;

    /// Leaves a note for the next start, in place of the previous one. The ledger does not interpret it.
    async fn leave_note(&self, note: String) -> Result<(), LedgerError>;

    /// Pauses or resumes the delivery of a destination; events are accepted all the while.
    async fn pause(&self, destination: &DestinationName, paused: bool) -> Result<(), LedgerError>;

    /// Removes a person from every audience of the destination, then erases what is known of them.
    async fn forget(
        &self,
        destination: &DestinationName,
        user_id: UserId,
    ) -> Result<(), LedgerError>;
}

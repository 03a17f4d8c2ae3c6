//! What operators see of the ledger and do to it, beside the flow of events.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Counters, LedgerError, Members, Outbox, Recorder};
use crate::membership::{AudienceId, DestinationName, Timestamp, UserId};

/// A destination that the ledger has rows of, configured or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its name.
    pub name: String,
    /// Whether it is configured: if not, its rows are only kept.
    pub configured: bool,
    /// Since when an operator has stopped its delivery.
    pub paused_since: Option<Timestamp>,
    /// Audiences that have members.
    pub audiences: u64,
    /// Members that are in their audience.
    pub included: u64,
    /// Members that wait to be told or are being told, and [`Self::unvisited`].
    pub pending: u64,
    /// Members that a walk is still to come past, about: those of them that are to be told wait too. At
    /// least one as long as there is a walk.
    pub unvisited: u64,
    /// Since when the longest pending one has been, by the ledger's clock.
    pub pending_since: Option<Timestamp>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Since when the longest parked one is.
    pub parked_since: Option<Timestamp>,
    /// Rejected events kept.
    pub rejected: u64,
    /// When the first of those came.
    pub rejected_since: Option<Timestamp>,
}

/// How many members entered and left an audience: changes of what should be, repeats not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turnover {
    /// Those that are in now and were not before.
    pub joined: u64,
    /// Those that were in before and are not now.
    pub left: u64,
}

/// What the ledger takes of its disk, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes of all its files.
    pub ledger_bytes: u64,
    /// Bytes of what was accepted while the writer was busy, and is not in the tables yet.
    pub journal_bytes: u64,
    /// Bytes that the daemon could still write; `None`: the system does not say.
    pub free_bytes: Option<u64>,
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
    /// Members that wait to be told or are being told, and those that a walk is still to come past.
    pub pending: u64,
    /// Since when the longest pending one has been, by the ledger's clock.
    pub pending_since: Option<Timestamp>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// When the first of them was.
    pub parked_since: Option<Timestamp>,
    /// What is being done to every member.
    pub walk: Option<WalkView>,
}

/// What is being done to every member of an audience, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkView {
    /// `resync`, `retract` or `retract_stale`.
    pub task: &'static str,
    /// When it began; the epoch if that was not written down.
    pub since: Timestamp,
    /// Members it has come past; the last of them may still wait to be told.
    pub visited: u64,
    /// How many they will be, about: those that left lately are visited too.
    pub expected: u64,
}

impl WalkView {
    /// How many it is still to come past, about; at least one, for it is under way.
    #[must_use]
    pub fn unvisited(&self) -> u64 {
        self.expected.saturating_sub(self.visited).max(1)
    }
}

/// A member as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberView {
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
    pub event_at: Timestamp,
    /// What LaunchDarkly was last told.
    pub told: Option<bool>,
    /// When it was.
    pub told_at: Option<Timestamp>,
    /// Whether it waits to be told.
    pub pending: bool,
    /// Whether LaunchDarkly refused it alone.
    pub parked: bool,
}

/// A parked member as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedView {
    /// The audience's id.
    pub audience: String,
    /// Who.
    pub context_key: String,
    /// When it was refused.
    pub parked_at: Timestamp,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id`, for its support.
    pub answer_id: String,
}

/// Where a list of parked members goes on: behind this audience and context key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ParkedAfter {
    /// The audience's id.
    pub audience: String,
    /// The context key. Personal.
    pub context_key: String,
}

/// A rejected event as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct RejectedView {
    /// Its number in the ledger.
    pub id: i64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The stable word.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// The event as it came.
    pub body: Vec<u8>,
}

/// The operator's verbs. Readings happen beside the writer; none may decide what is delivered.
#[async_trait]
pub trait Operations: Recorder {
    /// The members of a destination that wait, as its courier sees them.
    fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox>;

    /// What was done since the ledger was opened.
    fn counters(&self) -> &Counters;

    /// How large it is, and how much larger it may become.
    async fn disk(&self) -> Result<Disk, LedgerError>;

    /// Every destination that has rows, in the order of their names.
    async fn destinations(&self) -> Result<Vec<DestinationView>, LedgerError>;

    /// Who entered and left since this was last asked, of the audiences where anybody did. For one
    /// caller: what was told is not told again.
    fn take_turnover(&self, destination: &DestinationName) -> Vec<(AudienceId, Turnover)>;

    /// The audiences of a destination, configured or not.
    async fn audiences(
        &self,
        destination: &DestinationName,
    ) -> Result<Vec<AudienceView>, LedgerError>;

    /// Every audience of a person: by context key, and by user id where that is not the key.
    async fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> Result<Vec<MemberView>, LedgerError>;

    /// At most `limit` parked members, of one audience or all.
    async fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> Result<Vec<ParkedView>, LedgerError>;

    /// At most `limit` rejected events with larger numbers than `after`, the oldest first; fewer if
    /// they are large, and none only if there is none.
    async fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError>;

    /// The same of those whose person is known to be this one: those that [`Self::forget`] erases.
    async fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError>;

    /// Whether any member that is in the audience has a context key that one of these rules chose.
    async fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> Result<bool, LedgerError>;

    /// Parked members are pending again, each to travel alone until it is taken; how many were
    /// parked.
    async fn requeue(&self, members: Members) -> Result<u64, LedgerError>;

    /// Parked members are erased, as if they had never been seen; how many were parked.
    async fn discard_parked(&self, members: Members) -> Result<u64, LedgerError>;

    /// Rejected events are erased; how many were there.
    async fn discard_rejected(
        &self,
        destination: &DestinationName,
        ids: Vec<i64>,
    ) -> Result<u64, LedgerError>;

    /// Forgets what was told of an audience (of all, if `None`), so that every member is told again,
    /// a slice at a time; how many audiences that concerns.
    async fn resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Ends a resync where it is.
    async fn stop_resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError>;

    /// Removes and erases the members whose context key was chosen by none of these rules, a slice
    /// at a time.
    async fn retract_stale(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        current: Vec<u32>,
    ) -> Result<(), LedgerError>;

    /// Removes and erases every member of an audience (of all, if `None`), a slice at a time; how
    /// many audiences that concerns. Rejected events stay.
    async fn retract(
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

    /// What the daemon left here for its next start, as it was when the ledger was opened.
    fn note(&self) -> Option<&str>;

    /// Leaves a note for the next start in place of the one before. What it says is not the ledger's business.
    async fn leave_note(&self, note: String) -> Result<(), LedgerError>;

    /// Stops the delivery of a destination, or lets it go on; events are accepted all the while.
    async fn pause(&self, destination: &DestinationName, paused: bool) -> Result<(), LedgerError>;

    /// Removes a person from every audience of the destination, then erases what is known of them.
    async fn forget(
        &self,
        destination: &DestinationName,
        user_id: UserId,
    ) -> Result<(), LedgerError>;
}

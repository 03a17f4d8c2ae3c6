//! The [rules](crate::design::architecture::ledger_state) of a member's state: pure functions from its row
//! and an event to the next row. Every store applies these and decides nothing itself.
//!
//! # What always holds
//! * An older event time never changes a value ([P2](crate::design::P2)); an equal one does: the later
//!   arrival wins a tie. A repeated message is not a later arrival.
//! * Where a snapshot said who is in, what is older than it changes nobody, not even who is unknown.
//! * Never told means unknown, not absent: a first "left" is sent.
//! * A pending member stays pending: a value that flips back while a call is out, or after a call whose
//!   answer was lost, is sent again.
//! * Where entries expire, a member is in if its latest event is an entry and that entry has not expired,
//!   whenever the events arrive and whenever somebody looks: expiry leaves the event time as it is, so a
//!   later event, even one that arrives late, decides anew.

use std::time::Duration;

use super::{ClaimedMember, Unheard};
use crate::membership::{Membership, Timestamp};

/// The state of one member. Stamps come from the ledger's own clock, which never runs backwards and never
/// shows the same time twice.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact, and a flag of the row")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Whether it should be in the audience.
    pub membership: Membership,
    /// The event time of the latest membership.
    pub event_at: Timestamp,
    /// Grows with every change of what should be told; `settle`, `release` and `park` compare it.
    pub version: Timestamp,
    /// What LaunchDarkly was last told, and when it was accepted.
    pub told: Option<Told>,
    /// Since when it has been waiting to be told; `None` if there is nothing to tell.
    pub pending_since: Option<Timestamp>,
    /// When LaunchDarkly last refused it alone. Kept until it is accepted: until then it gets batches of its
    /// own.
    pub parked_at: Option<Timestamp>,
    /// A call with it ended without an answer and may still be applied: until it is told once more, some time
    /// after it was accepted.
    pub unheard: bool,
    /// The person is to be forgotten: the row is erased once the removal was told.
    pub erase: bool,
    /// The rule that chose the context key.
    pub key_rule: u32,
    /// Keyed hash of the user id, if that is not the context key itself.
    pub person: Option<[u8; 16]>,
    /// Identifies the half of a refused batch that it belongs to: until it is accepted it shares a batch only
    /// with that half, so that the search for the refused member is not repeated.
    pub refused_with: Option<Timestamp>,
    /// Its event time was ahead of its arrival.
    pub is_ahead: bool,
    /// It is out because its entry has expired; no event said that it left. Set only by [`record`] and
    /// [`expire`].
    pub is_expired: bool,
    /// It was in, and an event said that it left: what an operator can take back ([`reenter`]).
    pub has_left: bool,
}

/// What LaunchDarkly accepted, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub membership: Membership,
    pub at: Timestamp,
}

/// The part of a delta that concerns its member.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub membership: Membership,
    pub event_at: Timestamp,
    pub key_rule: u32,
    pub person: Option<[u8; 16]>,
    /// Its message was recorded before: it counts at the same time, and is not a later arrival.
    pub is_repeat: bool,
}

/// What the rules need to know besides the row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// A fresh stamp: now, and larger than every stamp before it; for a delta from the log, the stamp of its
    /// arrival.
    pub stamp: Timestamp,
    /// What was told before this does not count: the environment changed, or a resync was requested.
    pub told_counts_from: Timestamp,
    /// An equal value that was told less than this ago is not sent again.
    pub repeat_window: Duration,
    /// Members pending since this or earlier may have been in a call whose answer was lost.
    pub unheard_through: Timestamp,
    /// How long after its event time an entry of this audience expires; `None`: never.
    pub expires_after: Option<Duration>,
    /// A snapshot of the whole audience was recorded as of then: what is older has lost to it.
    pub snapshot_at: Timestamp,
}

impl Moment {
    /// Whether an entry of this event time has expired by now.
    pub fn has_expired(&self, event_at: Timestamp) -> bool {
        self.expires_after.is_some_and(|after| event_at.after(after) <= self.stamp)
    }
}

/// What happens to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays as it is.
    Same,
    /// It is written.
    Write(Member),
    /// It is erased.
    Delete,
}

impl Next {
    /// The row afterwards, given the row before.
    pub fn or<'a>(&'a self, before: Option<&'a Member>) -> Option<&'a Member> {
        match self {
            Self::Same => before,
            Self::Write(after) => Some(after),
            Self::Delete => None,
        }
    }

    fn of(before: &Member, after: Member) -> Self {
        if *before == after { Self::Same } else { Self::Write(after) }
    }
}

impl Member {
    fn told_that_counts(&self, moment: &Moment) -> Option<Told> {
        self.told.filter(|told| told.at >= moment.told_counts_from)
    }

    /// Whether it was refused alone and is not being retried.
    pub fn is_parked(&self) -> bool {
        self.parked_at.is_some() && self.pending_since.is_none()
    }

    /// Whether the row only remembers that the member left, and that was told longer ago than `ttl`.
    pub fn is_spent_tombstone(&self, now: Timestamp, ttl: Duration) -> bool {
        let left = self
            .told
            .is_some_and(|told| told.membership == Membership::Out && told.at.after(ttl) <= now);
        left && self.membership == Membership::Out
            && self.pending_since.is_none()
            && !self.unheard
            && self.parked_at.is_none()
    }
}

/// Applies a delta. An entry that has expired by the time it arrives counts as an exit.
pub(crate) fn record(before: Option<&Member>, change: &Change, moment: &Moment) -> Next {
    let is_expired = change.membership == Membership::In && moment.has_expired(change.event_at);
    let membership = if is_expired { Membership::Out } else { change.membership };
    if is_overtaken(before, change, moment) {
        return Next::Same;
    }
    let Some(before) = before else {
        return Next::Write(Member {
            membership,
            event_at: change.event_at,
            version: moment.stamp,
            told: None,
            pending_since: Some(moment.stamp),
            parked_at: None,
            unheard: false,
            erase: false,
            key_rule: change.key_rule,
            person: change.person,
            refused_with: None,
            is_ahead: change.event_at > moment.stamp,
            is_expired,
            has_left: false,
        });
    };
    let flips = before.membership != membership;
    let mut after = before.clone();
    after.membership = membership;
    after.event_at = change.event_at;
    after.key_rule = change.key_rule;
    after.person = change.person.or(before.person);
    after.erase = false;
    // The same time, repeated once it has been reached, was ahead all the same.
    after.is_ahead =
        change.event_at > moment.stamp || (before.is_ahead && change.event_at == before.event_at);
    after.is_expired = is_expired;
    if flips {
        after.version = next_version(before, moment);
        after.has_left = membership == Membership::Out;
    }
    after.has_left &= !is_expired; // nobody is taken back into what would be over
    if after.pending_since.is_none() && must_tell(before, membership, flips, moment) {
        after.pending_since = Some(moment.stamp);
    }
    Next::of(before, after)
}

/// A version grows with every change even if the stamp does not: a delta from the log has the stamp of its
/// arrival, which may be older than that of a deletion applied before it.
fn next_version(before: &Member, moment: &Moment) -> Timestamp {
    moment.stamp.max(Timestamp(before.version.0.saturating_add(1)))
}

/// Whether a delta said nothing new, so that nobody has to be told because of it: the counterpart of telling.
pub(crate) fn is_repeat(
    before: Option<&Member>,
    change: &Change,
    next: &Next,
    moment: &Moment,
) -> bool {
    let told_for_it = |before: &Member| {
        let after = next.or(Some(before));
        let flips = after.is_some_and(|after| after.membership != before.membership);
        let is_pending = after.is_some_and(|after| after.pending_since.is_some());
        flips || is_pending && before.pending_since.is_none()
    };
    !is_overtaken(before, change, moment) && before.is_some_and(|before| !told_for_it(before))
}

/// What a delta has made of a member for its audience's guard: it has entered or left. Whoever is out because an entry
/// has expired has not left.
pub(crate) fn flip_by_event(before: Option<&Member>, after: Option<&Member>) -> Option<Membership> {
    let is_in =
        |member: Option<&Member>| member.is_some_and(|member| member.membership == Membership::In);
    let flips = is_in(before) != is_in(after) && !after.is_some_and(|after| after.is_expired);
    flips.then(|| Membership::from_bool(is_in(after)))
}

/// The same asked for by an operator's snapshot, whose exits were counted and confirmed: nobody takes them back with
/// those of events.
pub(crate) fn confirmed(next: Next) -> Next {
    match next {
        Next::Write(after) => Next::Write(Member { has_left: false, ..after }),
        next => next,
    }
}

/// Whether a delta is older than what is known, or a repeat of it.
pub(crate) fn is_overtaken(before: Option<&Member>, change: &Change, moment: &Moment) -> bool {
    let known_at = before.map(|before| before.event_at);
    change.event_at < moment.snapshot_at
        || known_at > Some(change.event_at)
        || (change.is_repeat && known_at == Some(change.event_at))
}

/// Whether an arriving value has to be sent, for a member that is not pending.
fn must_tell(before: &Member, membership: Membership, flips: bool, moment: &Moment) -> bool {
    if let Some(parked_at) = before.parked_at {
        // Refused alone: an equal value would be refused again, so that waits out the window too.
        return flips || parked_at.after(moment.repeat_window) <= moment.stamp;
    }
    match before.told_that_counts(moment) {
        None => true,
        Some(told) => {
            told.membership != membership || told.at.after(moment.repeat_window) <= moment.stamp
        }
    }
}

/// LaunchDarkly accepted the claimed value. The flag: tell it once more later, because an earlier call
/// without an answer may still be applied after this one.
pub(crate) fn settle(
    before: Option<&Member>,
    claimed: &ClaimedMember,
    moment: &Moment,
) -> (Next, bool) {
    let Some(before) = before else { return (Next::Same, false) };
    let mut after = before.clone();
    after.told = Some(Told { membership: claimed.membership, at: moment.stamp });
    after.parked_at = None;
    after.refused_with = None;
    if before.version != claimed.version {
        return (Next::of(before, after), false);
    }
    let unheard = may_be_unheard(before, moment);
    after.pending_since = None;
    after.unheard = unheard; // whoever is erased meanwhile is told once more too
    if before.erase && !unheard {
        return (Next::Delete, false);
    }
    (Next::of(before, after), unheard)
}

fn may_be_unheard(member: &Member, moment: &Moment) -> bool {
    member.unheard || member.pending_since.is_some_and(|since| since <= moment.unheard_through)
}

/// The claim ended without being accepted; the member stays pending.
pub(crate) fn release(before: Option<&Member>, unheard: Unheard, moment: &Moment) -> Next {
    let Some(before) = before else { return Next::Same };
    let mut after = before.clone();
    match unheard {
        Unheard::No | Unheard::Unsent => {}
        Unheard::Perhaps => after.unheard = true,
        Unheard::NoAndLast => {
            after.unheard = may_be_unheard(before, moment);
            after.pending_since = before.pending_since.map(|_| moment.stamp);
        }
    }
    Next::of(before, after)
}

/// LaunchDarkly refused the claimed value alone. The flag: it is parked now. A member that is to be forgotten
/// and may still be in the segment is parked too, because a person has to know.
pub(crate) fn park(
    before: Option<&Member>,
    claimed: &ClaimedMember,
    moment: &Moment,
) -> (Next, bool) {
    let Some(before) = before else { return (Next::Same, false) };
    let mut after = before.clone();
    after.parked_at = Some(moment.stamp);
    after.refused_with = None;
    if before.version != claimed.version {
        return (Next::of(before, after), false);
    }
    after.unheard = may_be_unheard(before, moment);
    after.pending_since = None;
    // Never told means unknown, except for a member whose entry was refused as well.
    let may_be_in = after.unheard
        || match before.told_that_counts(moment) {
            Some(told) => told.membership == Membership::In,
            None => before.parked_at.is_none(),
        };
    if before.erase && !may_be_in {
        return (Next::Delete, false); // refused for good, and there is nothing to remove
    }
    (Next::of(before, after), true)
}

/// Its batch was refused as a whole and split in halves: from now on it shares a batch only with its half.
pub(crate) fn split(before: &Member, half: Timestamp) -> Next {
    if before.pending_since.is_none() {
        return Next::Same;
    }
    Next::of(before, Member { refused_with: Some(half), ..before.clone() })
}

/// A parked member is to be retried: an operator asks for it, or the cause of the refusal was general and is
/// over.
pub(crate) fn requeue(before: &Member, moment: &Moment) -> Next {
    if !before.is_parked() {
        return Next::Same;
    }
    Next::of(before, Member { pending_since: Some(moment.stamp), ..before.clone() })
}

/// The member is told again as it is: for a resync, or after a call without an answer.
pub(crate) fn reassert(before: &Member, moment: &Moment) -> Next {
    if before.pending_since.is_some() || before.is_parked() {
        return Next::Same;
    }
    Next::of(before, Member { pending_since: Some(moment.stamp), ..before.clone() })
}

/// A member is to be told once more after a call without an answer, and that is the end of it. If it is in a
/// call now, that call may be applied before the unanswered one, so it is told once more after this call.
pub(crate) fn reassert_after_silence(before: &Member, is_called: bool, moment: &Moment) -> Next {
    if is_called {
        return Next::of(before, Member { unheard: true, ..before.clone() });
    }
    match reassert(before, moment) {
        Next::Write(after) => Next::Write(Member { unheard: false, ..after }),
        next => next,
    }
}

/// It was in a call of a process that is not the owner any more: that ended without an answer, unless it was settled.
pub(crate) fn unheard(before: &Member) -> Next {
    let unheard = before.unheard || before.pending_since.is_some();
    Next::of(before, Member { unheard, ..before.clone() })
}

/// A call of an owner of before ended after the next one had taken over, and may have been applied after whatever was
/// told since. The flag: the member rests, and is to be told once more all the same.
pub(crate) fn told_late(before: &Member) -> (Next, bool) {
    let rests = before.pending_since.is_none() && before.parked_at.is_none();
    (Next::of(before, Member { unheard: before.unheard || !rests, ..before.clone() }), rests)
}

/// The member leaves if its entry has expired. The event time stays that of the entry: a renewal that was under
/// way for longer than the entry lasted still brings the member back, and a deletion still finds it.
pub(crate) fn expire(before: &Member, moment: &Moment) -> Next {
    if before.membership == Membership::Out || !moment.has_expired(before.event_at) {
        return Next::Same;
    }
    let mut after = before.clone();
    after.membership = Membership::Out;
    after.is_expired = true;
    after.has_left = false;
    after.is_ahead = false;
    after.version = next_version(before, moment);
    if after.pending_since.is_none() && must_tell(before, Membership::Out, true, moment) {
        after.pending_since = Some(moment.stamp);
    }
    Next::Write(after)
}

/// The person is to be forgotten as of `asked_at`: removed first, then erased.
pub(crate) fn forget(before: &Member, asked_at: Timestamp, moment: &Moment) -> Next {
    let mut after = before.clone();
    after.membership = Membership::Out;
    after.event_at = before.event_at.max(asked_at);
    after.is_ahead &= after.event_at == before.event_at;
    after.is_expired = false;
    after.version = next_version(before, moment);
    after.erase = true;
    after.has_left = false;
    after.pending_since = before.pending_since.or(Some(moment.stamp));
    Next::Write(after)
}

/// An operator removes the member from the audience for good: the row is erased once that was told, or at
/// once if LaunchDarkly knows already.
pub(crate) fn retract(before: &Member, moment: &Moment) -> Next {
    let knows =
        before.told_that_counts(moment).is_some_and(|told| told.membership == Membership::Out)
            && before.membership == Membership::Out
            && before.pending_since.is_none()
            && !before.unheard;
    if knows { Next::Delete } else { forget(before, moment.stamp, moment) }
}

/// An operator takes back an exit that an event brought since `since`, as a change at `at`: what happened later
/// counts ([P2](crate::design::P2)), and so does a snapshot that is newer than the exit and has left it as it is.
pub(crate) fn reenter(
    before: &Member,
    (since, at): (Timestamp, Timestamp),
    moment: &Moment,
) -> Next {
    let has_left = before.has_left && before.membership == Membership::Out && !before.erase;
    let is_confirmed = before.event_at < moment.snapshot_at;
    if !has_left || is_confirmed || before.version < since || before.version > at {
        return Next::Same;
    }
    let mut after = before.clone();
    (after.membership, after.has_left) = (Membership::In, false);
    after.event_at = before.event_at.max(at);
    after.is_ahead &= after.event_at == before.event_at;
    after.version = next_version(before, moment);
    after.pending_since = before.pending_since.or(Some(moment.stamp));
    Next::Write(after)
}

/// An operator gives up on a parked member: it is erased as if it had never been seen.
pub(crate) fn discard(before: &Member) -> Next {
    if before.is_parked() { Next::Delete } else { Next::Same }
}

#[cfg(test)]
impl Member {
    /// One that is in since this time, was told nothing and does not wait either.
    pub fn at_rest(since: i64) -> Self {
        Self {
            membership: Membership::In,
            event_at: Timestamp(since),
            version: Timestamp(since),
            told: None,
            pending_since: None,
            parked_at: None,
            unheard: false,
            erase: false,
            key_rule: 1,
            person: None,
            refused_with: None,
            is_ahead: false,
            is_expired: false,
            has_left: false,
        }
    }
}

#[cfg(test)]
mod tests;

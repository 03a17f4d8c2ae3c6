//! A ledger as rows that no store calls its own: what is carried from one store to another.
//!
//! Each store reads its tables as such rows, a page at a time, and writes such rows into its tables. Numbers of
//! destinations and audiences stay what they were: hashes go by them, and members.
//!
//! # What is not carried
//! * Destinations and audiences that an operator erased and that only wait to be swept away.
//! * Calls that were out: whoever was in one is carried as unheard, and told once more.
//! * What belongs to a store alone: leases, replicas, the journal, marks of claims, counts. They begin anew; counts are
//!   counted.

use std::fmt;

use sha1::{Digest, Sha1};

use super::ParkReason;
use super::hashes::Hash;
use super::member::Member;
use crate::membership::{ContextKey, Timestamp};

/// Why a ledger is not copied while it holds what is left of a reconciliation.
pub(crate) const RECONCILES: &str = "a reconciliation in it is not finished, and would not be carried: start cohortd with this \
     ledger and wait until GET …/reconcile of its API shows none under way, or stop it (POST …/reconcile/stop), and copy then";

/// What a ledger has once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Once {
    /// The largest arrival that was recorded.
    pub arrival: Timestamp,
    /// The key of its hashes.
    pub hash_key: Vec<u8>,
    /// The daemon's note to its next start.
    pub note: Option<String>,
}

/// A destination.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedDestination {
    pub no: i64,
    pub name: String,
    pub environment: String,
    pub paused_since: Option<Timestamp>,
}

/// An audience.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedAudience {
    pub no: i64,
    pub destination_no: i64,
    pub audience_id: String,
    pub audience_key: String,
    pub context_kind: String,
    pub acknowledged: bool,
    pub told_counts_from: Timestamp,
    pub snapshot_at: Timestamp,
    /// As its guard is written; `None`: it has counted nothing.
    pub guard: Option<String>,
    pub walk: Option<CopiedWalk>,
}

/// A task over all members of an audience, and its progress.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedWalk {
    pub task: CopiedTask,
    /// When it began: what happened to a member since then is not undone.
    pub since: Timestamp,
    pub after: String,
    pub visited: u64,
    pub expected: u64,
}

/// What is done to every member.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum CopiedTask {
    Resync,
    Retract,
    RetractStale { current: Vec<u32> },
    Reenter { since: Timestamp },
}

/// A member.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedMember {
    pub audience_no: i64,
    pub context_key: ContextKey,
    pub member: Member,
}

/// What LaunchDarkly said of a parked member.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedParking {
    pub audience_no: i64,
    pub context_key: String,
    pub at: Timestamp,
    pub reason: ParkReason,
}

/// A member that is to be told once more.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedReassertion {
    pub audience_no: i64,
    pub context_key: String,
}

/// A rejected event.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedEvent {
    pub id: i64,
    pub destination_no: i64,
    pub received_at: Timestamp,
    pub event_at: Timestamp,
    pub person: Option<Hash>,
    pub reason: String,
    pub detail: String,
    pub body: Vec<u8>,
}

/// A message that is known again when it is repeated.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedMessage {
    pub hash: Hash,
    pub seen_at: Timestamp,
    pub counts_at: Timestamp,
}

/// The tombstone of a deletion.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CopiedDeletion {
    pub person: Hash,
    pub at: Timestamp,
    pub arrival: Timestamp,
}

/// Rows of one kind.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Rows {
    Destinations(Vec<CopiedDestination>),
    Audiences(Vec<CopiedAudience>),
    Members(Vec<CopiedMember>),
    Parkings(Vec<CopiedParking>),
    Reassertions(Vec<CopiedReassertion>),
    Events(Vec<CopiedEvent>),
    Messages(Vec<CopiedMessage>),
    Deletions(Vec<CopiedDeletion>),
}

/// Rows read together, and where to go on; `None`: nowhere.
pub(crate) struct Page {
    pub rows: Rows,
    pub next: Option<Position>,
}

/// A kind of row, in the order in which they are carried: nothing comes before what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Destinations,
    Audiences,
    Members,
    Parkings,
    Reassertions,
    Events,
    Messages,
    Deletions,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Destinations,
        Self::Audiences,
        Self::Members,
        Self::Parkings,
        Self::Reassertions,
        Self::Events,
        Self::Messages,
        Self::Deletions,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Destinations => "destinations",
            Self::Audiences => "audiences",
            Self::Members => "members",
            Self::Parkings => "reasons of parked members",
            Self::Reassertions => "members to be told once more",
            Self::Events => "rejected events",
            Self::Messages => "remembered messages",
            Self::Deletions => "tombstones of deletions",
        }
    }

    fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// How far a ledger was read: behind this row of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub kind: Kind,
    pub no: i64,
    pub key: Vec<u8>,
}

impl Position {
    /// Before the first row.
    pub fn start() -> Self {
        Self::of(Kind::Destinations)
    }

    fn of(kind: Kind) -> Self {
        Self { kind, no: i64::MIN, key: Vec::new() }
    }

    /// Behind the row with this number and key; where that was the last of its kind, before the next kind.
    pub fn behind(&self, last: Option<(i64, Vec<u8>)>, is_last: bool) -> Option<Self> {
        match last {
            Some((no, key)) if !is_last => Some(Self { kind: self.kind, no, key }),
            _ => self.kind.next().map(Self::of),
        }
    }

    /// Parses what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind: usize = words.next()?.parse().ok()?;
        let no = words.next()?.parse().ok()?;
        let key = hex::decode(words.next()?).ok()?;
        Some(Self { kind: *Kind::ALL.get(kind)?, no, key })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind as usize, self.no, hex::encode(&self.key))
    }
}

/// In place of a position: every row is there.
const ALL: &str = "all";

/// Where an unfinished copy stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Tells it from every other copy. The source has it too, until it changes.
    pub copy: String,
    /// Where to go on; `None`: every row is there.
    pub at: Option<Position>,
}

impl Progress {
    /// Parses what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (copy, at) = text.split_once(' ')?;
        let at = if at == ALL { None } else { Some(Position::parse(at)?) };
        Some(Self { copy: copy.to_owned(), at })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "{} {at}", self.copy),
            None => write!(f, "{} {ALL}", self.copy),
        }
    }
}

/// What is in the place of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing that would be lost.
    Nothing,
    /// A copy that was not finished.
    Unfinished(Progress),
    /// A ledger; a copy that was finished, if it is this.
    Ledger { copy: Option<String> },
}

/// How many rows of each kind there are, and a checksum of them that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub of: [(u64, u128); Kind::ALL.len()],
}

impl Summary {
    pub fn add(&mut self, rows: &Rows) {
        match rows {
            Rows::Destinations(all) => self.each(Kind::Destinations, all),
            Rows::Audiences(all) => self.each(Kind::Audiences, all),
            Rows::Members(all) => self.each(Kind::Members, all),
            Rows::Parkings(all) => self.each(Kind::Parkings, all),
            Rows::Reassertions(all) => self.each(Kind::Reassertions, all),
            Rows::Events(all) => self.each(Kind::Events, all),
            Rows::Messages(all) => self.each(Kind::Messages, all),
            Rows::Deletions(all) => self.each(Kind::Deletions, all),
        }
    }

    fn each(&mut self, kind: Kind, rows: &[impl Row]) {
        let (count, sum) = &mut self.of[kind as usize];
        for row in rows {
            let mut digest = Sum(Sha1::new());
            row.sum(&mut digest);
            let bytes = digest.0.finalize();
            let mut first = [0; 16];
            first.copy_from_slice(&bytes[..16]);
            *count += 1;
            *sum = sum.wrapping_add(u128::from_be_bytes(first));
        }
    }
}

/// Sums up the fields of a row, each with its length: neighbours are not confused.
struct Sum(Sha1);

impl Sum {
    fn number(&mut self, number: i64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    fn time(&mut self, at: Timestamp) -> &mut Self {
        self.number(at.0)
    }

    fn maybe(&mut self, at: Option<Timestamp>) -> &mut Self {
        self.number(i64::from(at.is_some())).number(at.map_or(0, |at| at.0))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len().try_into().unwrap_or(i64::MAX));
        self.0.update(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }
}

/// A row whose every field counts.
trait Row {
    fn sum(&self, sum: &mut Sum);
}

impl Row for CopiedDestination {
    fn sum(&self, sum: &mut Sum) {
        let Self { no, name, environment, paused_since } = self;
        sum.number(*no).text(name).text(environment).maybe(*paused_since);
    }
}

impl Row for CopiedAudience {
    fn sum(&self, sum: &mut Sum) {
        let Self { no, destination_no, audience_id, audience_key, context_kind, .. } = self;
        sum.number(*no).number(*destination_no).text(audience_id).text(audience_key);
        sum.text(context_kind).number(self.acknowledged.into()).time(self.told_counts_from);
        sum.time(self.snapshot_at).text(self.guard.as_deref().unwrap_or_default());
        let Some(CopiedWalk { task, since, after, visited, expected }) = &self.walk else { return };
        match task {
            CopiedTask::Resync => sum.number(1),
            CopiedTask::Retract => sum.number(2),
            CopiedTask::RetractStale { current } => {
                current.iter().fold(sum.number(3), |sum, rule| sum.number(i64::from(*rule)))
            }
            CopiedTask::Reenter { since } => sum.number(4).time(*since),
        };
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        sum.time(*since).text(after).number(count(*visited)).number(count(*expected));
    }
}

impl Row for CopiedMember {
    fn sum(&self, sum: &mut Sum) {
        let Self { audience_no, context_key, member } = self;
        let Member { membership, event_at, version, told, pending_since, parked_at, .. } = member;
        sum.number(*audience_no).text(context_key.as_str()).number(membership.as_bool().into());
        sum.time(*event_at).time(*version).maybe(told.map(|told| told.at));
        sum.number(told.is_some_and(|told| told.membership.as_bool()).into());
        sum.maybe(*pending_since).maybe(*parked_at);
        let Member { unheard, erase, key_rule, person, refused_with, .. } = member;
        sum.number((*unheard).into()).number((*erase).into()).number(i64::from(*key_rule));
        sum.bytes(person.as_ref().map_or(&[], |person| &person[..])).maybe(*refused_with);
        let Member { is_ahead, is_expired, has_left, .. } = member;
        sum.number((*is_ahead).into()).number((*is_expired).into()).number((*has_left).into());
    }
}

impl Row for CopiedParking {
    fn sum(&self, sum: &mut Sum) {
        let Self { audience_no, context_key, at, reason } = self;
        let ParkReason { status, code, message, id } = reason;
        sum.number(*audience_no).text(context_key).time(*at).number((*status).into());
        sum.text(code).text(message).text(id);
    }
}

impl Row for CopiedReassertion {
    fn sum(&self, sum: &mut Sum) {
        sum.number(self.audience_no).text(&self.context_key);
    }
}

impl Row for CopiedEvent {
    fn sum(&self, sum: &mut Sum) {
        let Self { id, destination_no, received_at, event_at, person, reason, detail, body } = self;
        sum.number(*id).number(*destination_no).time(*received_at).time(*event_at);
        sum.bytes(person.as_ref().map_or(&[], |person| &person[..]));
        sum.text(reason).text(detail).bytes(body);
    }
}

impl Row for CopiedMessage {
    fn sum(&self, sum: &mut Sum) {
        let Self { hash, seen_at: _, counts_at } = self; // two of one moment are moved apart where they may not share it
        sum.bytes(hash).time(*counts_at);
    }
}

impl Row for CopiedDeletion {
    fn sum(&self, sum: &mut Sum) {
        let Self { person, at, arrival } = self;
        sum.bytes(person).time(*at).time(*arrival);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_progress_is_read_again() {
        let keys = [(i64::MIN, &b""[..]), (0, b"\0 x"), (7, "ä".as_bytes())];
        let position = |kind| keys.map(|(no, key)| Some(Position { kind, no, key: key.to_vec() }));
        for at in Kind::ALL.into_iter().flat_map(position).chain([None]) {
            let progress = Progress { copy: "c0ffee".to_owned(), at };
            assert_eq!(Progress::parse(&progress.to_string()), Some(progress));
        }
        for damaged in ["", "c0ffee", "c0ffee 9 0 ", "c0ffee 1 x ", "c0ffee 1 0 0", "c0ffee 1 0"] {
            assert_eq!(Progress::parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn every_kind_is_visited_once() {
        let mut kinds = vec![Position::start().kind];
        while let Some(next) = Position::of(*kinds.last().expect("one")).behind(None, true) {
            kinds.push(next.kind);
        }
        assert_eq!(kinds, Kind::ALL);
    }

    #[test]
    fn no_field_of_a_member_is_left_out_of_the_checksum() {
        use crate::ledger::member::Told;
        use crate::membership::Membership;
        let at = Timestamp;
        let plain = Member::at_rest(5);
        let told = |membership, time| Some(Told { membership, at: at(time) });
        let others = [
            Member {
                membership: Membership::from_bool(!plain.membership.as_bool()),
                ..plain.clone()
            },
            Member { event_at: at(77), ..plain.clone() },
            Member { version: at(77), ..plain.clone() },
            Member { told: told(Membership::In, 77), ..plain.clone() },
            Member { told: told(Membership::Out, 77), ..plain.clone() },
            Member { pending_since: Some(at(77)), ..plain.clone() },
            Member { parked_at: Some(at(77)), ..plain.clone() },
            Member { unheard: true, ..plain.clone() },
            Member { erase: true, ..plain.clone() },
            Member { key_rule: 77, ..plain.clone() },
            Member { person: Some([7; 16]), ..plain.clone() },
            Member { refused_with: Some(at(77)), ..plain.clone() },
            Member { is_ahead: true, ..plain.clone() },
            Member { is_expired: true, ..plain.clone() },
            Member { has_left: true, ..plain.clone() },
            plain,
        ];
        let sums: std::collections::BTreeSet<u128> = others
            .iter()
            .map(|member| {
                let context_key = ContextKey::new("ada").expect("not empty");
                let mut summary = Summary::default();
                let member = member.clone();
                summary.add(&Rows::Members(vec![CopiedMember {
                    audience_no: 1,
                    context_key,
                    member,
                }]));
                summary.of[Kind::Members as usize].1
            })
            .collect();
        assert_eq!(sums.len(), others.len());
    }
}

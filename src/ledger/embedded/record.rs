//! The contents of a block: records in the compact `postcard` encoding, one after the other.
//!
//! The head of a record can be read without its body, so that a start learns what is there without decoding all
//! of it. Fields that few requests use follow the body, and are omitted if empty and by earlier versions.

mod audiences;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ledger::embedded::record::audiences::{Audience, Audiences};
use crate::ledger::{Intake, OrderedDeletion, Origin, RejectedEvent};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, DestinationName, Membership,
    MembershipDelta, Message, MessageHash, Timestamp, UserId,
};

/// One record.
#[derive(Debug)]
pub(crate) struct Record {
    pub intake: Intake,
    /// The stamp of its first delta; the others have consecutive stamps.
    pub stamp: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    destination: &'a str,
    arrival: i64,
    stamp: i64,
    deltas: u32,
    #[serde(borrow)]
    audiences: Vec<Audience<'a>>,
    body_bytes: u32,
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    deltas: Vec<Delta<'a>>,
    #[serde(borrow)]
    deletions: Vec<&'a str>,
    #[serde(borrow)]
    rejected: Vec<Rejected<'a>>,
}

/// Fields that few requests use.
#[derive(Serialize, Deserialize)]
struct Rare<'a> {
    /// Messages of deltas whose time depends on their arrival, by position of the delta. A hash followed by
    /// [`BELIEVED`] belongs to a delta whose time is now believed, but may have depended on the arrival when
    /// the message first came.
    #[serde(borrow)]
    messages: Vec<(u32, Cow<'a, [u8]>)>,
    /// One for each deletion.
    #[serde(borrow)]
    deletions: Vec<RareDeletion<'a>>,
    /// For each rejected event, microseconds before the arrival.
    rejected_ages: Vec<i64>,
}

/// Stands behind [`Rare`] if an operator's snapshot asks for the changes. An older version takes no notice of it.
const SNAPSHOT: u8 = 1;

/// The bytes of a hash.
type Hash<'a> = &'a [u8];

/// Appended to the hash of a message that need not be remembered, because its own time is believed.
const BELIEVED: u8 = 1;
const HASH_BYTES: usize = size_of::<MessageHash>();

#[derive(Serialize, Deserialize)]
struct RareDeletion<'a> {
    /// Microseconds before the arrival.
    age: i64,
    #[serde(borrow)]
    message: Option<Hash<'a>>,
    is_unconditional: bool,
    after_deltas: u32,
    after_rejected: u32,
}

#[derive(Serialize, Deserialize)]
struct Delta<'a> {
    /// Index into the audiences of the head.
    audience: u32,
    context_key: &'a str,
    enters: bool,
    /// Microseconds before the arrival.
    age: i64,
    user: User<'a>,
    key_rule: u32,
}

#[derive(Serialize, Deserialize)]
enum User<'a> {
    Unknown,
    /// The context key is the user id.
    IsTheKey,
    Other(&'a str),
}

#[derive(Serialize, Deserialize)]
struct Rejected<'a> {
    reason: &'a str,
    detail: &'a str,
    #[serde(borrow)]
    body: &'a [u8],
    user: Option<&'a str>,
}

/// Appends an intake to `block`; its deltas have consecutive stamps from `stamp` on. `scratch` is a reused
/// buffer.
///
/// `None`: the intake is too large for a record, and the caller has to truncate `block` to its old length.
pub(crate) fn write(
    block: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    intake: &Intake,
    stamp: Timestamp,
) -> Option<()> {
    let mut audiences = Audiences::default();
    let deltas = intake.deltas.iter().map(|delta| {
        let context_key = delta.context_key.as_str();
        Delta {
            audience: audiences.position(delta),
            context_key,
            enters: delta.membership.as_bool(),
            age: intake.arrival.0.wrapping_sub(delta.event_at.0),
            user: match delta.user_id.as_ref().map(UserId::as_str) {
                None => User::Unknown,
                Some(user) if user == context_key => User::IsTheKey,
                Some(user) => User::Other(user),
            },
            key_rule: delta.key_rule,
        }
    });
    let body = Body {
        deltas: deltas.collect(),
        deletions: intake.deletions.iter().map(|of| of.deletion.user_id.as_str()).collect(),
        rejected: intake.rejected.iter().map(rejected).collect(),
    };
    scratch.clear();
    postcard::to_io(&body, &mut *scratch).ok()?;
    let rare = rare(intake)?;
    if !rare.is_empty() || intake.origin == Origin::Snapshot {
        postcard::to_io(&rare, &mut *scratch).ok()?;
    }
    if intake.origin == Origin::Snapshot {
        scratch.push(SNAPSHOT);
    }
    let head = Head {
        destination: intake.destination.as_str(),
        arrival: intake.arrival.0,
        stamp: stamp.0,
        deltas: u32::try_from(intake.deltas.len()).ok()?,
        audiences: audiences.list,
        body_bytes: u32::try_from(scratch.len()).ok()?,
    };
    postcard::to_io(&head, &mut *block).ok()?;
    block.extend_from_slice(scratch);
    Some(())
}

impl Rare<'_> {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.deletions.is_empty() && self.rejected_ages.is_empty()
    }
}

/// `None`: there is too much for a record.
fn rare(intake: &Intake) -> Option<Rare<'_>> {
    let age = |at: Timestamp| intake.arrival.0.wrapping_sub(at.0);
    let named = intake.deltas.iter().zip(0..);
    let messages = named.filter_map(|(delta, at)| {
        let Message { hash: MessageHash(hash), moves } = delta.message.as_ref()?;
        let hash = match moves {
            true => Cow::Borrowed(&hash[..]),
            false => Cow::Owned([&hash[..], &[BELIEVED]].concat()),
        };
        Some((at, hash))
    });
    let deletion = |of: &'_ OrderedDeletion| {
        Some(RareDeletion {
            age: age(of.deletion.event_at),
            message: None,
            is_unconditional: of.is_unconditional,
            after_deltas: u32::try_from(of.after_deltas).ok()?,
            after_rejected: u32::try_from(of.after_rejected).ok()?,
        })
    };
    let mut deletions: Vec<RareDeletion<'_>> = all(intake.deletions.iter().map(deletion))?;
    for (rare, of) in deletions.iter_mut().zip(&intake.deletions) {
        rare.message = of.deletion.message.as_ref().map(|message| &message.0[..]);
    }
    let rejected_ages = intake.rejected.iter().map(|event| age(event.event_at)).collect();
    Some(Rare { messages: messages.collect(), deletions, rejected_ages })
}

fn rejected(event: &RejectedEvent) -> Rejected<'_> {
    Rejected {
        reason: &event.reason,
        detail: &event.detail,
        body: &event.body,
        user: event.user_id.as_ref().map(UserId::as_str),
    }
}

/// Iterates over the records of a block. Stops with an error at one that cannot be decoded, which the
/// checksum of the block should rule out.
#[derive(Debug)]
pub(crate) struct Records<'a>(&'a [u8]);

/// A record cannot be decoded although the checksum of its block matches.
#[derive(Debug, thiserror::Error)]
#[error("a record of the journal cannot be read")]
pub(crate) struct Unreadable;

/// What a start must know of a record before the writer reads it.
#[derive(Debug)]
pub(crate) struct Outline {
    pub destination: DestinationName,
    /// An upper bound of its arrival and its stamps.
    pub latest: Timestamp,
    pub audiences: Vec<(AudienceId, ContextKind)>,
}

impl<'a> Records<'a> {
    pub fn of(block: &'a [u8]) -> Self {
        Self(block)
    }

    fn next_parts(&mut self) -> Result<Option<(Head<'a>, &'a [u8])>, Unreadable> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (head, rest) = postcard::take_from_bytes::<Head<'_>>(self.0).map_err(|_| Unreadable)?;
        let body_bytes = usize::try_from(head.body_bytes).map_err(|_| Unreadable)?;
        let (body, rest) = rest.split_at_checked(body_bytes).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(Some((head, body)))
    }

    /// The head of the next record; skips its body.
    fn next_outline(&mut self) -> Result<Option<Outline>, Unreadable> {
        let Some((head, _)) = self.next_parts()? else { return Ok(None) };
        let audience =
            |of: Audience<'_>| Some((AudienceId::new(of.id)?, ContextKind::new(of.kind)?));
        let audiences = head.audiences.into_iter().map(|of| audience(of).ok_or(Unreadable));
        Ok(Some(Outline {
            destination: DestinationName::new(head.destination).ok_or(Unreadable)?,
            latest: Timestamp(head.arrival.max(head.stamp + i64::from(head.deltas))),
            audiences: audiences.collect::<Result<_, _>>()?,
        }))
    }

    /// The next record; values equal to those of the record before are shared with it.
    pub fn next(&mut self, before: &mut Before) -> Result<Option<Record>, Unreadable> {
        let Some((head, body)) = self.next_parts()? else { return Ok(None) };
        let (body, rare) = postcard::take_from_bytes(body).map_err(|_| Unreadable)?;
        let mut record = record(&head, body, before).ok_or(Unreadable)?;
        if !rare.is_empty() {
            let (rare, rest) = postcard::take_from_bytes(rare).map_err(|_| Unreadable)?;
            if rest.first() == Some(&SNAPSHOT) {
                record.intake.origin = Origin::Snapshot;
            }
            add(&mut record.intake, rare).ok_or(Unreadable)?;
        }
        Ok(Some(record))
    }
}

/// The outlines of all records of a block; `None` if one cannot be decoded.
pub(crate) fn outlines(records: &[u8]) -> Option<Vec<Outline>> {
    let mut records = Records::of(records);
    let mut outlines = Vec::new();
    while let Some(outline) = records.next_outline().ok()? {
        outlines.push(outline);
    }
    Some(outlines)
}

/// Values of the previous record, to be shared: usually they repeat.
#[derive(Debug, Default)]
pub(crate) struct Before {
    destination: Option<DestinationName>,
    audience: Option<(AudienceId, AudienceKey, ContextKind)>,
}

impl Before {
    fn destination(&mut self, name: &str) -> Option<DestinationName> {
        if self.destination.as_ref().is_none_or(|before| before.as_str() != name) {
            self.destination = DestinationName::new(name);
        }
        self.destination.clone()
    }

    fn audience(&mut self, of: Audience<'_>) -> Option<(AudienceId, AudienceKey, ContextKind)> {
        let is_same = self.audience.as_ref().is_some_and(|(id, key, kind)| {
            (id.as_str(), key.as_str(), kind.as_str()) == (of.id, of.key, of.kind)
        });
        if !is_same {
            let (id, key) = (AudienceId::new(of.id)?, AudienceKey::new(of.key)?);
            self.audience = Some((id, key, ContextKind::new(of.kind)?));
        }
        self.audience.clone()
    }
}

fn record(head: &Head<'_>, body: Body<'_>, before: &mut Before) -> Option<Record> {
    let audiences: Vec<(AudienceId, AudienceKey, ContextKind)> =
        all(head.audiences.iter().map(|of| before.audience(*of)))?;
    let delta = |delta: Delta<'_>| {
        let (audience, audience_key, context_kind) =
            audiences.get(usize::try_from(delta.audience).ok()?)?.clone();
        let context_key = ContextKey::new(delta.context_key)?;
        let user_id = match delta.user {
            User::Unknown => None,
            User::IsTheKey => Some(UserId::from(context_key.clone())),
            User::Other(user) => Some(UserId::new(user)?),
        };
        Some(MembershipDelta {
            audience,
            audience_key,
            context_kind,
            context_key,
            membership: Membership::from_bool(delta.enters),
            event_at: Timestamp(head.arrival.wrapping_sub(delta.age)),
            user_id,
            key_rule: delta.key_rule,
            message: None,
        })
    };
    // Defaults for records of earlier versions: deletions count at their arrival, after all other items.
    let (after_deltas, after_rejected) = (body.deltas.len(), body.rejected.len());
    let arrival = Timestamp(head.arrival);
    let deletion = |user_id| {
        Some(OrderedDeletion {
            deletion: Deletion { user_id: UserId::new(user_id)?, event_at: arrival, message: None },
            is_unconditional: false,
            after_deltas,
            after_rejected,
        })
    };
    let rejected = body.rejected.into_iter().map(|event| {
        Some(RejectedEvent {
            reason: Cow::Owned(event.reason.to_owned()),
            detail: event.detail.to_owned(),
            body: event.body.to_vec(),
            user_id: match event.user {
                Some(user) => Some(UserId::new(user)?),
                None => None,
            },
            event_at: arrival,
        })
    });
    let intake = Intake {
        destination: before.destination(head.destination)?,
        arrival,
        deltas: all(body.deltas.into_iter().map(delta))?,
        deletions: all(body.deletions.into_iter().map(deletion))?,
        rejected: all(rejected)?,
        origin: Origin::Events,
    };
    Some(Record { intake, stamp: Timestamp(head.stamp) })
}

/// Applies the fields that few requests use.
fn add(intake: &mut Intake, rare: Rare<'_>) -> Option<()> {
    let at = |age| Timestamp(intake.arrival.0.wrapping_sub(age));
    let hash = |message: Hash<'_>| Some(MessageHash(message.try_into().ok()?));
    if rare.deletions.len() != intake.deletions.len()
        || rare.rejected_ages.len() != intake.rejected.len()
    {
        return None;
    }
    for (position, message) in rare.messages {
        let delta = intake.deltas.get_mut(usize::try_from(position).ok()?)?;
        delta.message = Some(match message.strip_suffix(&[BELIEVED]) {
            Some(message) if message.len() == HASH_BYTES => {
                Message { hash: hash(message)?, moves: false }
            }
            _ => Message { hash: hash(&message)?, moves: true },
        });
    }
    for (deletion, rare) in intake.deletions.iter_mut().zip(rare.deletions) {
        deletion.deletion.event_at = at(rare.age);
        deletion.deletion.message =
            rare.message.map(|message| hash(message).ok_or(())).transpose().ok()?;
        deletion.is_unconditional = rare.is_unconditional;
        deletion.after_deltas = usize::try_from(rare.after_deltas).ok()?;
        deletion.after_rejected = usize::try_from(rare.after_rejected).ok()?;
    }
    for (event, age) in intake.rejected.iter_mut().zip(rare.rejected_ages) {
        event.event_at = at(age);
    }
    Some(())
}

/// Collects all items into a list of exact capacity; `None` if one is missing.
fn all<T>(items: impl ExactSizeIterator<Item = Option<T>>) -> Option<Vec<T>> {
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        list.push(item?);
    }
    Some(list)
}

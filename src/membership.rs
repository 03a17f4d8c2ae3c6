//! The types that every step shares: a member's context key and kind, the audience, and the time of a change.
//!
//! They are parsed once, at the edge; past it a value of these types is known to be valid. Cloning is cheap:
//! short texts are stored inline, and longer ones are reference-counted.

use std::borrow::{Borrow, Cow};
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A point in time: microseconds since the Unix epoch, UTC.
///
/// Microseconds, because Segment's clocks give milliseconds and other sources of events are finer; two
/// changes of one member within the same microsecond are a tie.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// This point moved into the future by `duration`, saturating.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This point moved into the past by `duration`, saturating.
    #[must_use]
    pub fn before(self, duration: std::time::Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long this point lies after `earlier`; zero if it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        let micros = self.0.saturating_sub(earlier.0).max(0);
        std::time::Duration::from_micros(micros.unsigned_abs())
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, redacted: $redacted:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Takes the text as it is; `None` if it is empty.
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                (!text.is_empty()).then(|| Self(text.into()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).ok_or_else(|| serde::de::Error::custom("it is empty"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $redacted { f.write_str("***") } else { fmt::Debug::fmt(&*self.0, f) }
            }
        }
    };
}

text! {
    /// A configured destination: one LaunchDarkly environment. `[a-z0-9_]+` without `__`.
    DestinationName, redacted: false
}
text! {
    /// Segment's stable id of an audience (`computation_id`): LaunchDarkly's `cohortId`.
    AudienceId, redacted: false
}
text! {
    /// Segment's `snake_case` key of an audience (`computation_key`); people read it as a name.
    AudienceKey, redacted: false
}
text! {
    /// What identifies a person (or account, or device) in LaunchDarkly. Personal data: never printed.
    ContextKey, redacted: true
}
text! {
    /// Segment's user id of the person behind a member. Personal data: never printed.
    UserId, redacted: true
}

/// For a rule that takes the user id as the context key: the two share one text.
impl From<ContextKey> for UserId {
    fn from(key: ContextKey) -> Self {
        Self(key.0)
    }
}

/// For a rule that takes the user id as the context key: the two share one text.
impl From<UserId> for ContextKey {
    fn from(user_id: UserId) -> Self {
        Self(user_id.0)
    }
}

impl Borrow<str> for ContextKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AudienceKey {
    /// The name of the segment in LaunchDarkly: first character upper-cased, each `_` a space.
    ///
    /// Named as Segment's hosted integration names it. JavaScript upper-cases the first UTF-16 unit only, so
    /// a first letter outside the basic multilingual plane stays as it is.
    ///
    /// ```
    /// use cohortd::membership::AudienceKey;
    ///
    /// let key = AudienceKey::new("high_value_users").expect("it is not empty");
    /// assert_eq!(key.segment_name(), "High value users");
    /// ```
    #[must_use]
    pub fn segment_name(&self) -> String {
        let mut characters = self.0.chars();
        let mut name = String::with_capacity(self.0.len());
        match characters.next() {
            Some(first) if first.len_utf16() == 1 => name.extend(first.to_uppercase()),
            Some(first) => name.push(first),
            None => {}
        }
        name.push_str(characters.as_str());
        name.replace('_', " ")
    }
}

/// A LaunchDarkly context kind: `[A-Za-z0-9._-]+`, neither `kind` nor `multi`.
///
/// ```
/// use cohortd::membership::ContextKind;
///
/// assert!(ContextKind::new("account").is_some());
/// assert_eq!(ContextKind::new("multi"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextKind(SmolStr);

impl Serialize for ContextKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl ContextKind {
    /// Takes the text if LaunchDarkly's documentation of context kinds allows it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let usable =
            !text.is_empty() && text.chars().all(allowed) && text != "kind" && text != "multi";
        usable.then(|| Self(text.into()))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a member is in the audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Membership {
    /// Entered: the segment includes the context.
    In,
    /// Left: the segment does not include the context.
    Out,
}

impl Membership {
    /// `true` is [`Membership::In`]: Segment and LaunchDarkly both send a boolean.
    #[must_use]
    pub fn from_bool(value: bool) -> Self {
        if value { Self::In } else { Self::Out }
    }

    /// `true` for [`Membership::In`].
    #[must_use]
    pub fn as_bool(self) -> bool {
        self == Self::In
    }
}

/// One context enters or leaves one audience at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipDelta {
    /// The audience's stable id.
    pub audience: AudienceId,
    /// The audience's current key, which gives the segment its name.
    pub audience_key: AudienceKey,
    /// The kind of all members of the audience.
    pub context_kind: ContextKind,
    /// The member.
    pub context_key: ContextKey,
    /// Entered or left.
    pub membership: Membership,
    /// When the membership changed, already limited by the time of arrival ([P2](crate::design::P2)).
    pub event_at: Timestamp,
    /// Segment's user id, if the event had one: a deletion finds the member by it.
    pub user_id: Option<UserId>,
    /// Identifies the rule that chose the context key, so that members keyed by an earlier rule can be
    /// recognised as stale.
    pub key_rule: u32,
    /// Set if the event time depends on the time of arrival, or may have done so when the message first came.
    /// Without it, a message that is posted again would get a later time; with it, the first time is kept.
    pub message: Option<Message>,
}

/// A message that may be delivered more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Identifies the message.
    pub hash: MessageHash,
    /// `true`: its event time depends on when it arrives, so it has to be remembered. `false`: its event time
    /// is believed now, and an earlier time applies only if the message was remembered before.
    pub moves: bool,
}

/// A request to delete a person, as of a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Segment's user id of the person.
    pub user_id: UserId,
    /// When the deletion was requested, never later than its arrival ([P2](crate::design::P2)).
    pub event_at: Timestamp,
    /// Identifies the message, so that one that is posted again keeps the time it had at first.
    pub message: Option<MessageHash>,
}

/// Identifies a message without storing its id, which is chosen by the sender: a hash of the message id, or
/// of the whole event for a deletion without one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageHash(pub [u8; 16]);

impl fmt::Debug for MessageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

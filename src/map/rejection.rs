//! Why an event cannot be applied: the only list of reasons, and the sentence for each
//! ([P7](crate::design::P7)).
//!
//! Sentences name fields and paths of the mapping, never a value of the event ([P8](crate::design::P8)): they
//! are returned to Segment, logged and stored.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ledger::Unrecorded;

/// The stable word for a rejection. Customers filter on it; a word never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// It could not be parsed as JSON.
    Unreadable,
    /// It is larger than any event of Segment may be.
    EventTooLarge,
    /// It is JSON, but not an object.
    NotAnObject,
    /// It is not one of Segment's calls, and no mapping selects it.
    NotAnEvent,
    /// It says nothing about a membership: no `context.personas`, or another computation class.
    NotAnAudience,
    /// A required field of the mapping has no value.
    MissingField,
    /// A field of the mapping has a value that cannot be used.
    InvalidField,
    /// A text that would be stored is longer than the ledger accepts (`super::length`).
    FieldTooLong,
    /// A directive of the mapping cannot be resolved for this event.
    MappingFailed,
    /// The event has none of the identifiers of the context key rule.
    NoContextKey,
    /// The membership value is neither true nor false.
    MembershipUnknown,
    /// The audience already has members of another context kind.
    ContextKindConflict,
    /// The audience is new, and the destination already has the most that it may have.
    TooManyAudiences,
}

impl Reason {
    /// Every reason, for metrics that show zeros and for documentation.
    pub const ALL: [Self; 13] = [
        Self::Unreadable,
        Self::EventTooLarge,
        Self::NotAnObject,
        Self::NotAnEvent,
        Self::NotAnAudience,
        Self::MissingField,
        Self::InvalidField,
        Self::FieldTooLong,
        Self::MappingFailed,
        Self::NoContextKey,
        Self::MembershipUnknown,
        Self::ContextKindConflict,
        Self::TooManyAudiences,
    ];

    /// The word in answers, in metrics and in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable_event",
            Self::EventTooLarge => "event_too_large",
            Self::NotAnObject => "not_an_object",
            Self::NotAnEvent => "not_an_event",
            Self::NotAnAudience => "not_an_audience",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::FieldTooLong => "field_too_long",
            Self::MappingFailed => "mapping_failed",
            Self::NoContextKey => "no_context_key",
            Self::MembershipUnknown => "membership_unknown",
            Self::ContextKindConflict => "context_kind_conflict",
            Self::TooManyAudiences => "too_many_audiences",
        }
    }

    /// Whether the event is stored for a replay, which could succeed once the mapping or the operator's
    /// choice has changed. What is not an event, does not concern an audience, or exceeds Segment's own limit
    /// is only counted: it would drown the rest.
    #[must_use]
    pub fn worth_keeping(self) -> bool {
        !matches!(
            self,
            Self::EventTooLarge | Self::NotAnObject | Self::NotAnEvent | Self::NotAnAudience
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an event cannot be applied. Displays as `word: sentence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The stable word.
    pub reason: Reason,
    /// One sentence for the person who reads it in Segment's Event Delivery view.
    pub detail: String,
}

impl Rejection {
    /// `detail` must not contain a value of the event.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// For an event that could not be parsed, alone or in a batch.
    #[must_use]
    pub fn unreadable() -> Self {
        Self::new(
            Reason::Unreadable,
            "The event is not valid JSON: broken syntax, text that is not Unicode, or nested too \
             deeply. Let Segment send it as application/json.",
        )
    }

    /// For an event whose audience was recorded under another context kind.
    fn context_kind_conflict() -> Self {
        Self::new(
            Reason::ContextKindConflict,
            "The audience already has another context kind, and keeps it until the audience is dropped: do that, \
             or set mapping.context_kind to the one it has.",
        )
    }

    /// For an event that would create more audiences than its destination may have.
    fn too_many_audiences() -> Self {
        Self::new(
            Reason::TooManyAudiences,
            "The audience is new, and the destination has as many as ledger.max_audiences allows: drop one \
             that is no longer needed, or raise the setting.",
        )
    }

    /// Combines the rejections of one event by two mappings: the reason is that of the first, unless only the
    /// other is worth keeping.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (first, second) = if self.worth_keeping() || !other.worth_keeping() {
            (self, other)
        } else {
            (other, self)
        };
        if first == second {
            return first;
        }
        let Self { reason, detail } = first;
        Self { reason, detail: format!("{detail} Another mapping says {second}") }
    }

    /// See [`Reason::worth_keeping`].
    #[must_use]
    pub fn worth_keeping(&self) -> bool {
        self.reason.worth_keeping()
    }
}

impl From<Unrecorded> for Rejection {
    fn from(why: Unrecorded) -> Self {
        match why {
            Unrecorded::OtherKind => Self::context_kind_conflict(),
            Unrecorded::TooManyAudiences => Self::too_many_audiences(),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_snake_case_and_distinct() {
        let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(words.len(), Reason::ALL.len());
        for word in words {
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
        }
    }

    #[test]
    fn only_what_is_not_an_audience_is_not_kept() {
        let dropped: Vec<_> = Reason::ALL.into_iter().filter(|r| !r.worth_keeping()).collect();
        let expected =
            [Reason::EventTooLarge, Reason::NotAnObject, Reason::NotAnEvent, Reason::NotAnAudience];
        assert_eq!(dropped, expected);
    }

    #[test]
    fn displays_as_word_and_sentence() {
        let text = Rejection::unreadable().to_string();
        assert_eq!(
            text,
            "unreadable_event: The event is not valid JSON: broken syntax, text that is not \
             Unicode, or nested too deeply. Let Segment send it as application/json."
        );
    }

    #[test]
    fn the_manual_explains_every_reason() {
        let rows = crate::manual::rows("mapping", "why-an-event-is-rejected");
        let explained: Vec<_> = rows.iter().map(|row| (row[0].trim_matches('`'), row[2])).collect();
        let kept = |reason: Reason| if reason.worth_keeping() { "yes" } else { "no" };
        let expected = Reason::ALL.map(|reason| (reason.as_str(), kept(reason)));
        assert_eq!(explained, expected);
    }
}

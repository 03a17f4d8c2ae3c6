//! Every mapping of one destination: an event goes through each one that selects it.

use serde_json::Value;

use super::coercion::{self, Unfit};
use super::rejection::{Reason, Rejection};
use super::{Mapping, not_an_object};
use crate::membership::{MembershipDelta, Timestamp, UserId};

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It changes memberships.
    Accepted {
        /// One for each mapping that could read it, in the order of the mappings: where two touch
        /// the same member, the later one wins. At least one.
        deltas: Vec<MembershipDelta>,
        /// What the mappings said that select it and could not read it.
        rejection: Option<Rejection>,
    },
    /// A privacy deletion of the person.
    Deletion(UserId),
    /// No mapping selects it.
    Ignored,
    /// It should have changed a membership and cannot.
    Rejected(Rejection),
}

/// The mappings of a destination, in the order in which they are written.
#[derive(Clone, Debug)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// Those that are enabled; without any, every event but a deletion is ignored.
    #[must_use]
    pub fn new(mappings: Vec<Mapping>) -> Self {
        Self(mappings)
    }

    /// The mappings one by one.
    #[must_use]
    pub fn all(&self) -> &[Mapping] {
        &self.0
    }

    /// What becomes of an event that arrived at `arrival`.
    ///
    /// A deletion comes before the subscriptions: none may keep a person's data alive.
    #[must_use]
    pub fn map(&self, event: &Value, arrival: Timestamp) -> Outcome {
        if !event.is_object() {
            return Outcome::Rejected(not_an_object());
        }
        if event.get("type").and_then(Value::as_str) == Some("delete") {
            return deletion(event);
        }
        let mut deltas = Vec::new();
        let mut rejection: Option<Rejection> = None;
        for mapping in &self.0 {
            match mapping.map(event, arrival) {
                Ok(delta) => deltas.extend(delta),
                Err(other) => {
                    rejection = Some(match rejection {
                        Some(rejection) => rejection.and(other),
                        None => other,
                    });
                }
            }
        }
        match (deltas.is_empty(), rejection) {
            (false, rejection) => Outcome::Accepted { deltas, rejection },
            (true, Some(rejection)) => Outcome::Rejected(rejection),
            (true, None) => Outcome::Ignored,
        }
    }
}

impl From<Mapping> for Mappings {
    fn from(mapping: Mapping) -> Self {
        Self(vec![mapping])
    }
}

/// The person an event is about, where Segment itself puts the id: a deletion names it there, so
/// that no mapping may move it.
#[must_use]
pub fn user_id(event: &Value) -> Option<UserId> {
    let text = coercion::text(event.get("userId")?).ok()??;
    UserId::new(&text)
}

fn deletion(event: &Value) -> Outcome {
    let whom = event.get("userId").map_or(Ok(None), coercion::text);
    let (reason, problem) = match whom {
        Ok(text) => match text.as_deref().and_then(UserId::new) {
            Some(user) => return Outcome::Deletion(user),
            None => (Reason::MissingField, "is required and has no value".to_owned()),
        },
        Err(Unfit(found)) => (Reason::InvalidField, format!("must be a text but it is {found}")),
    };
    Outcome::Rejected(Rejection::new(reason, format!("userId {problem} ($.userId).")))
}

//! What must survive a restart: refused requests, and events that came to nothing, as long as nothing better
//! has come since (P7).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Counters;
use super::change::SinceChange;
use super::refused::AtPath;
use crate::json;
use crate::membership::{DestinationName, Timestamp};

/// What one process leaves for the next. It contains nothing personal (P8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remembered {
    /// When this was written, if the process went on afterwards: later events are missing from it.
    left_at: Option<Timestamp>,
    refused: Vec<AtPath>,
    destinations: BTreeMap<String, Events>,
}

/// The same note before its parts are parsed: another version may have written any of them.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Parts {
    left_at: Value,
    refused: Vec<Value>,
    destinations: BTreeMap<String, Value>,
}

/// What became of a destination's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Events {
    has_accepted: bool,
    mappings: u64,
    since_change: SinceChange,
}

impl Remembered {
    /// Parses a note as far as it is understood; also returns how many of its parts were not.
    pub fn read(note: &str) -> Result<(Self, usize), serde_json::Error> {
        let parts: Parts = json::from_str(note)?;
        let told = parts.refused.len() + parts.destinations.len();
        let refused: Vec<AtPath> = parts.refused.into_iter().filter_map(known).collect();
        let destinations = parts.destinations.into_iter();
        let mut whole = 0;
        let destinations: BTreeMap<_, _> = destinations
            .filter_map(|(name, of)| {
                if let Some(events) = known(of.clone()) {
                    whole += 1;
                    return Some((name, events));
                }
                Events::in_part(of).map(|events| (name, events))
            })
            .collect();
        let lost = told - refused.len() - whole;
        let left_at = known(parts.left_at).flatten();
        Ok((Self { left_at, refused, destinations }, lost))
    }

    /// Marks this note as written at `now` by a process that goes on.
    #[must_use]
    pub fn left_at(self, now: Timestamp) -> Self {
        Self { left_at: Some(now), ..self }
    }

    /// This note without what changes at every request. If the outline differs, what people are shown has
    /// changed in kind and not only in number.
    #[must_use]
    pub fn outline(&self) -> Self {
        let of = |(name, events): (&String, &Events)| (name.clone(), events.outline());
        Self {
            left_at: None,
            refused: self.refused.iter().map(AtPath::outline).collect(),
            destinations: self.destinations.iter().map(of).collect(),
        }
    }
}

/// The part, if this version understands it.
fn known<T: for<'a> Deserialize<'a>>(part: Value) -> Option<T> {
    serde_json::from_value(part).ok()
}

impl Events {
    /// Everything but the reason's word, which another version may have added.
    fn in_part(mut events: Value) -> Option<Self> {
        events.get_mut("since_change")?.as_object_mut()?.remove("unkept_reason");
        known(events)
    }

    fn outline(&self) -> Self {
        let SinceChange { begun_at, accepted, ignored, rejected, unkept, .. } = self.since_change;
        let [accepted, ignored, rejected, unkept] =
            [accepted, ignored, rejected, unkept].map(|count| count.min(1));
        let since_change =
            SinceChange { begun_at, accepted, ignored, rejected, unkept, ..SinceChange::default() };
        Self { since_change, ..self.clone() }
    }
}

impl Counters {
    /// The note for the next process.
    #[must_use]
    pub fn remembered(&self, now: Timestamp) -> Remembered {
        let events = |(name, received): (DestinationName, std::sync::Arc<super::Received>)| {
            let since_change = received.since_change();
            // a healthy destination is reduced to that fact: its counts change with every event
            let is_of_use = since_change.ignored + since_change.rejected == 0;
            let begun_at = since_change.begun_at;
            let outline = SinceChange {
                begun_at,
                accepted: since_change.accepted.min(1),
                ..SinceChange::default()
            };
            let events = Events {
                has_accepted: received.has_accepted(),
                mappings: received.change.mappings(),
                since_change: if is_of_use { outline } else { since_change },
            };
            (name.to_string(), events)
        };
        Remembered {
            left_at: None,
            refused: self.refused.remembered(now),
            destinations: self.all().into_iter().map(events).collect(),
        }
    }

    /// Takes over the note of the process before this one. What it says about mappings that are no longer in
    /// use is ignored.
    pub fn carry_on(&self, remembered: Remembered) {
        let noted_at = remembered.left_at;
        self.refused.carry_on(remembered.refused, noted_at);
        for (name, received) in self.all() {
            let Some(events) = remembered.destinations.get(name.as_str()) else { continue };
            received.accepted_before.store(events.has_accepted, Ordering::Relaxed);
            if events.mappings == received.change.mappings() {
                let mut since_change = events.since_change;
                since_change.noted_at = noted_at.or(since_change.noted_at);
                received.change.carry_on(&since_change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events() -> Value {
        let since_change = SinceChange { rejected: 3, ..SinceChange::default() };
        let events = Events { has_accepted: true, mappings: 7, since_change };
        serde_json::to_value(events).expect("names and numbers")
    }

    #[test]
    fn what_is_understood_of_a_note_is_taken() {
        let refused = json!({
            "place": {"path": "/segment/eu", "is_astray": false, "nearest": null, "section": "destinations.eu",
                "destinations": ["eu"]},
            "cause": {"refusal": "Unauthenticated", "doubt": "Signature"},
            "credential": "Signature", "count": 40, "first_at": 1, "last_at": 2, "meant_succeeded_at": null,
        });
        let with = |pointer: &str, word: Value| {
            let mut other = refused.clone();
            *other.pointer_mut(pointer).expect("it is there") = word;
            other
        };
        let (mut odd, mut short) = (events(), events());
        odd["since_change"]["unkept_reason"] = json!("in_a_mood");
        short["since_change"].as_object_mut().expect("it is one").remove("unkept");
        // refused requests and destinations; then how many of each are understood, and how many parts are
        // lost
        let table = [
            (json!([refused]), json!({"eu": events()}), (1, 1), 0),
            (json!([refused, with("/cause/refusal", json!("Bored"))]), json!({}), (1, 0), 1),
            (
                json!([with("/cause/doubt", json!("Mood")), with("/credential", json!("Wink"))]),
                json!({}),
                (0, 0),
                2,
            ),
            (json!([]), json!({"eu": odd, "us": events()}), (0, 2), 1),
            (json!([]), json!({"eu": short}), (0, 1), 0),
            (json!([7]), json!({"eu": "well"}), (0, 0), 2),
        ];
        for (refused, destinations, understood, lost) in table {
            let note =
                json!({"refused": refused, "destinations": destinations, "new": 1}).to_string();
            let (read, missed) = Remembered::read(&note).expect("an object");
            assert_eq!((read.refused.len(), read.destinations.len()), understood, "{note}");
            assert_eq!(missed, lost, "{note}");
            assert!(read.destinations.values().all(|of| of.since_change.rejected == 3), "{note}");
        }
        assert!(Remembered::read("none").is_err());
        assert!(Remembered::read(r#"{"refused":{}}"#).is_err());
        let left = Remembered::default().left_at(Timestamp(7));
        let text = serde_json::to_string(&left).expect("a number");
        assert_eq!(Remembered::read(&text).expect("an object"), (left, 0));
    }
}

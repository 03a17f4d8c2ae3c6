//! What a restart must not make forgotten: requests that were refused and events that were of no use, as long as
//! nothing better has come since (P7).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Counters;
use super::change::SinceChange;
use super::refused::AtPath;
use crate::membership::{DestinationName, Timestamp};

/// What one process leaves for the next. Nothing in it is personal (P8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    refused: Vec<AtPath>,
    destinations: BTreeMap<String, Events>,
}

/// What became of a destination's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Events {
    has_accepted: bool,
    mappings: u64,
    since_change: SinceChange,
}

impl Remembered {
    /// The same without what changes at every request: what somebody would see otherwise in another outline has
    /// changed in kind.
    #[must_use]
    pub fn outline(&self) -> Self {
        let of = |(name, events): (&String, &Events)| (name.clone(), events.outline());
        Self {
            refused: self.refused.iter().map(AtPath::outline).collect(),
            destinations: self.destinations.iter().map(of).collect(),
        }
    }
}

impl Events {
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
    /// What the next process should know.
    #[must_use]
    pub fn remembered(&self, now: Timestamp) -> Remembered {
        let events = |(name, received): (DestinationName, std::sync::Arc<super::Received>)| {
            let since_change = received.since_change();
            // what is well is remembered as such: it would change with every event
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
            refused: self.refused.remembered(now),
            destinations: self.all().into_iter().map(events).collect(),
        }
    }

    /// Takes up what the process before this one left. What it says of other mappings than those in use counts no
    /// longer.
    pub fn carry_on(&self, remembered: Remembered) {
        self.refused.carry_on(remembered.refused);
        for (name, received) in self.all() {
            let Some(events) = remembered.destinations.get(name.as_str()) else { continue };
            received.accepted_before.store(events.has_accepted, Ordering::Relaxed);
            if events.mappings == received.change.mappings() {
                received.change.carry_on(&events.since_change);
            }
        }
    }
}

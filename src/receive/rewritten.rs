//! Detects bodies that were rewritten on their way: the signature is good for another serialisation of the
//! same event.
//!
//! Only a sample is tried, at most once a minute for each door, and only events no larger than Segment's:
//! strangers decide how often a signature is wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::authentication::Presented;
use super::doors::Door;
use super::envelope::{self, Envelope, Unsplittable};
use crate::json;
use crate::map::stringified;

/// Least time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// The size of Segment's [largest event](crate::design::segment::requests).
const LARGEST_BYTES: usize = 32 * 1024;

/// When a body was last sampled, and whether it was rewritten.
#[derive(Debug, Default)]
pub(super) struct Sample(Mutex<(Option<Instant>, bool)>);

impl Sample {
    /// Whether the last sample was rewritten; says so only once.
    pub fn take(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut last.1)
    }

    /// Samples a body whose signature does not match the bytes that arrived, if it is time to.
    pub fn look(
        &self,
        door: &Door,
        presented: &Presented,
        split: &Result<Envelope<'_>, Unsplittable<'_>>,
    ) {
        let Ok(split) = split else { return };
        let now = Instant::now();
        {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.0.is_some_and(|at| now - at < SAMPLE_EVERY) {
                return;
            }
            last.0 = Some(now);
        }
        let first = match split {
            Envelope::Single(event) => Some(*event),
            Envelope::Array(elements) => elements.first().copied(),
        };
        let Some(event) = first.filter(|first| first.len() <= LARGEST_BYTES) else { return };
        let event = envelope::wrapped_event(event).unwrap_or(event);
        let Ok(event) = json::from_slice::<Value>(event) else { return };
        let is_rewritten =
            texts(event).iter().any(|text| door.gate.is_signed(presented, text.as_bytes()));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = is_rewritten;
    }
}

/// Texts that a sender may have signed: as JavaScript writes the event, indented, and with sorted keys.
fn texts(mut event: Value) -> Vec<String> {
    let mut texts: Vec<String> = stringified(&event).into_iter().collect();
    texts.extend(serde_json::to_string_pretty(&event));
    event.sort_all_objects();
    texts.extend(stringified(&event));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_as_its_senders_do() {
        let event = json::from_str(r#"{ "b" : 1.0, "a" : [ "\u00e9\/", {"d":1e21,"c":null} ] }"#);
        let texts = texts(event.expect("JSON"));
        assert_eq!(texts[0], r#"{"b":1,"a":["é/",{"d":1e+21,"c":null}]}"#);
        assert!(texts[1].starts_with("{\n  \"b\": "));
        assert_eq!(texts[2], r#"{"a":["é/",{"c":null,"d":1e+21}],"b":1}"#);
    }
}

//! Whether an event sent to a path that does not exist was meant for one that does: it carries what only a
//! sender to that path knows. Strangers may send to any number of paths; one that is proven like this is kept
//! in preference to theirs.

use std::sync::Arc;

use axum::body::Body;
use http::HeaderMap;

use super::authentication::Presented;
use super::budget::Budget;
use super::doors::{Door, Doors};
use super::sorting::MOST_EVENTS;
use super::{body, envelope};

/// How much of a body is read to find its first event: twice the size of Segment's
/// [largest](crate::design::segment::requests).
const PROVING_BYTES: usize = 64 * 1024;

/// The door that was probably meant, and the credentials of the request for it.
#[derive(Debug)]
pub(super) struct Meant {
    door: Arc<Door>,
    presented: Presented,
}

impl Meant {
    /// `None` if the path resembles no existing one, or if no body could prove anything.
    pub fn by(path: &str, headers: &HeaderMap, doors: &Doors) -> Option<Self> {
        let (_, name) = doors.slip(path)?;
        let door = doors.at(&name).filter(|door| !door.gate.admits_strangers())?;
        let presented = door.gate.inspect(headers)?;
        Some(Self { door, presented })
    }

    /// Reads as much of the body as is needed to find out whether that door would have admitted the request.
    pub async fn is_proven_by(&self, body: &mut Body, budget: &Budget) -> bool {
        let Self { door, presented } = self;
        if door.gate.admits_without_signature(presented) {
            return true;
        }
        let Some(beginning) = body::beginning(body, PROVING_BYTES, budget).await else {
            return false;
        };
        let text = &beginning.bytes[..];
        if beginning.is_whole {
            let split = envelope::split(text, MOST_EVENTS);
            return door.gate.admits(presented, text, &split, &door.extra_fields);
        }
        door.gate.admits_by_first(presented, text, &door.extra_fields) == Some(true)
    }
}

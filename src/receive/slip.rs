//! Whether an event that came to a path nobody has was meant for a path there is: it shows what only the sender of
//! that one knows. A stranger may send to as many paths as there are; what is proven so has a place before all that.

use std::sync::Arc;

use axum::body::Body;
use http::HeaderMap;

use super::authentication::Presented;
use super::budget::Budget;
use super::doors::{Door, Doors};
use super::sorting::MOST_EVENTS;
use super::{body, envelope};

/// Of a body, as much as its first event may be: Segment's [largest](crate::design::segment::requests) has half of it.
const PROVING_BYTES: usize = 64 * 1024;

/// What was probably meant, and what the head of the request shows there.
#[derive(Debug)]
pub(super) struct Meant {
    door: Arc<Door>,
    presented: Presented,
}

impl Meant {
    /// `None`: the path is like none there is, or no body could prove anything.
    pub fn by(path: &str, headers: &HeaderMap, doors: &Doors) -> Option<Self> {
        let (_, name) = doors.slip(path)?;
        let door = doors.at(&name).filter(|door| !door.gate.admits_strangers())?;
        let presented = door.gate.inspect(headers)?;
        Some(Self { door, presented })
    }

    /// Reads as much of the body as is needed to find out whether it would have been let in there.
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

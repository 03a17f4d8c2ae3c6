//! What the admin API answers to an event that it was given.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of an event, as the webhook says it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventAccount {
    /// 1: it is on disk and will be delivered.
    pub accepted: usize,
    /// 1: no mapping selects it.
    pub ignored: usize,
    /// Why it was rejected, if it was.
    pub rejected: Vec<RejectedOf>,
}

/// A rejection, and the event's place.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RejectedOf {
    /// Always 0: there is one event.
    pub index: usize,
    /// The stable word and the sentence.
    pub reason: String,
}

//! The admin API's answer to an event.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of an event, in the form of the webhook's answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EventAccount {
    /// 1 if it is on disk and will be delivered.
    pub accepted: usize,
    /// 1 if no mapping selects it.
    pub ignored: usize,
    /// Why it was rejected, if it was.
    pub rejected: Vec<RejectedOf>,
}

/// A rejection, with the position of the event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RejectedOf {
    /// Always 0, as there is one event.
    pub index: usize,
    /// The stable reason word, and a sentence.
    pub reason: String,
}

//! One event that an operator hands in, taken as if Segment had posted it: the same reading, mapping
//! and ledger, and the same account of it. Who may do so is the caller's to decide.

use std::sync::Arc;

use bytes::Bytes;

use super::answer::Account;
use super::authentication::Credentials;
use super::doors::{Destination, Door, Entrance};
use super::envelope::{self, Envelope};
use super::sorting::{MOST_EVENTS, Share, Sorted};
use crate::ledger::{Intake, Ledger, LedgerError};
use crate::membership::AudienceId;

/// What became of the event; it is durable.
#[derive(Debug)]
pub struct HandedIn {
    /// 1: it is recorded.
    pub accepted: usize,
    /// 1: no mapping selects it.
    pub ignored: usize,
    /// Why it was rejected, as the webhook says it.
    pub rejected: Option<String>,
    /// The audiences it is about.
    pub audiences: Vec<AudienceId>,
}

/// Why nothing became of it.
#[derive(Debug, thiserror::Error)]
pub enum HandInError {
    /// It cannot be read at all.
    #[error("the body is not JSON")]
    NotJson,
    /// It is no event, or several.
    #[error("the body is not one event: a JSON object")]
    NotOneEvent,
    /// It is not durable.
    #[error("the ledger did not take the event")]
    Ledger(#[from] LedgerError),
}

/// Takes one event.
pub async fn hand_in(
    ledger: &dyn Ledger,
    destination: &Arc<Destination>,
    body: &Bytes,
) -> Result<HandedIn, HandInError> {
    let event = match envelope::split(body, MOST_EVENTS) {
        Ok(Envelope::Single(event)) if event.starts_with(b"{") => event,
        Ok(_) => return Err(HandInError::NotOneEvent),
        Err(_) => return Err(HandInError::NotJson),
    };
    let arrival = ledger.arrival();
    let door = a_door_to(destination);
    let mut sorted = Sorted::of(&door);
    sorted.add_raw(&door, body, 0, event, arrival);
    let Sorted { mut shares, mut account, .. } = sorted;
    let share = shares.pop().unwrap_or_default(); // there is one for each destination
    let audiences = share.deltas.iter().map(|delta| delta.audience.clone()).collect();
    if !share.leaves_no_trace() {
        let Share { deltas, origins, deletions, kept: rejected } = share;
        let destination = destination.name.clone();
        let intake =
            Intake { destination: destination.clone(), arrival, deltas, deletions, rejected };
        let conflicts = ledger.record(intake).await?.kind_conflicts;
        let kept = account.reject_kind_conflicts(&[(origins, conflicts)]).pop();
        if let Some(rejected) = kept.filter(|kept| !kept.is_empty()) {
            let (deltas, deletions) = (Vec::new(), Vec::new());
            ledger.record(Intake { destination, arrival, deltas, deletions, rejected }).await?;
        }
    }
    let Account { accepted, ignored, rejected } = account;
    let rejected = rejected.first().map(|(_, rejection)| rejection.to_string());
    Ok(HandedIn { accepted, ignored, rejected, audiences })
}

/// A way in that is nobody else's.
fn a_door_to(destination: &Arc<Destination>) -> Door {
    let entrance = Entrance {
        name: destination.name.to_string(),
        destinations: vec![Arc::clone(destination)],
        credentials: Credentials::default(),
        extra_fields: Vec::new(),
        allowed_sources: Vec::new(),
        allow_batches: false,
        rate: None,
    };
    Door::new(entrance, None)
}

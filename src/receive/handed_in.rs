//! One event submitted by an operator, handled as if Segment had posted it: the same parsing, mapping, ledger
//! and result. The caller decides who may do so.

use bytes::Bytes;

use super::answer::Account;
use super::envelope::{self, Envelope};
use super::sorting::{MOST_EVENTS, Sorted};
use crate::ledger::{LedgerError, Recorder};
use crate::map::Mappings;
use crate::membership::{AudienceId, DestinationName};

/// What became of the event; it is durable.
#[derive(Debug)]
pub struct HandedIn {
    /// 1 if it is recorded.
    pub accepted: usize,
    /// 1 if no mapping selects it.
    pub ignored: usize,
    /// Why it was rejected, in the words of the webhook's answer.
    pub rejected: Option<String>,
    /// The audiences that it concerns.
    pub audiences: Vec<AudienceId>,
}

/// Why the event could not be processed.
#[derive(Debug, thiserror::Error)]
pub enum HandInError {
    /// It is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// It is not an event, or several.
    #[error("the body is not one event (a JSON object)")]
    NotOneEvent,
    /// It could not be made durable.
    #[error("the ledger did not accept the event")]
    Ledger(#[from] LedgerError),
}

/// Processes one event.
pub async fn hand_in(
    ledger: &dyn Recorder,
    destination: &DestinationName,
    mappings: &Mappings,
    body: &Bytes,
) -> Result<HandedIn, HandInError> {
    let event = match envelope::split(body, MOST_EVENTS) {
        Ok(Envelope::Single(event)) if !envelope::is_one_value(event) => {
            return Err(HandInError::NotJson);
        }
        Ok(Envelope::Single(event)) if event.starts_with(b"{") => {
            envelope::wrapped_event(event).unwrap_or(event)
        }
        Ok(_) => return Err(HandInError::NotOneEvent),
        Err(_) => return Err(HandInError::NotJson),
    };
    let arrival = ledger.arrival();
    let mut sorted = Sorted::of(&[mappings]);
    sorted.add_raw(&[mappings], body, 0, event, arrival);
    let (intakes, mut unsure) = sorted.into_intakes([destination], arrival);
    let deltas = intakes.iter().flat_map(|intake| &intake.deltas);
    let audiences = deltas.map(|delta| delta.audience.clone()).collect();
    if !intakes.is_empty() {
        let recorded = ledger.record_all(intakes).await?;
        let kept = unsure.without_conflicts(recorded, body);
        if !kept.is_empty() {
            ledger.record_all(kept).await?;
        }
    }
    let Account { accepted, ignored, rejected } = unsure.account;
    let rejected = rejected.first().map(|(_, rejection)| rejection.to_string());
    Ok(HandedIn { accepted, ignored, rejected, audiences })
}

//! Waits for the end of a reconciliation that is in the ledger, and stops one.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{sleep, timeout};

use super::{applying, stopped};
use crate::ledger::{LedgerError, ReconciliationStep, ReconciliationView, Stage};
use crate::membership::DestinationName;
use crate::operate::api::{Api, Problem};

/// How often it is seen how far a reconciliation is that another replica may record.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one may take to end once it is stopped.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How long a request that ends early takes to say so to the ledger.
const SAYS_WITHIN: Duration = Duration::from_secs(2);

/// Whether this one is under way, of an audience, or of any of the destination.
pub(in crate::operate::api) fn is_of(
    of: &ReconciliationView,
    destination: &DestinationName,
    audience: Option<&str>,
) -> bool {
    of.stage.is_under_way()
        && of.destination == *destination
        && audience.is_none_or(|audience| of.audience.as_str() == audience)
}

async fn found(api: &Api, id: i64) -> Result<Option<ReconciliationView>, LedgerError> {
    Ok(api.ledger.reconciliations().await?.into_iter().find(|of| of.id == id))
}

/// Returns once all of it is recorded, by whomever.
pub(super) async fn complete(api: &Api, id: i64) -> Result<(), Problem> {
    loop {
        let ends = api.reconciling.ends.notified();
        match found(api, id).await {
            Ok(Some(ReconciliationView { stage: Stage::Complete, .. })) => return Ok(()),
            Ok(Some(ReconciliationView { stage: Stage::Stopped, .. })) => return Err(stopped()),
            Ok(None) => {
                let detail = "it has ended while this replica could not look; the log of the one that ended it says how";
                return Err(Problem::new(StatusCode::CONFLICT, detail));
            }
            Err(LedgerError::Closed) => return Err(goes_on()),
            Ok(Some(_)) | Err(_) => {} // a ledger that cannot be read now has it all the same
        }
        tokio::select! {
            () = ends => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// What whoever waits hears when the daemon stops.
pub(super) fn goes_on() -> Problem {
    let detail = "the daemon stops; the ledger has all that is left, which is recorded by another replica, or once the \
                  daemon runs again: it need not be typed again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

/// Ends one that was not written down to its end.
pub(super) async fn give_up(api: &Api, id: i64) {
    let end = async {
        api.ledger.step_reconciliation(id, ReconciliationStep::Stop).await?;
        match found(api, id).await? {
            Some(of) => applying::end(api, &of, false).await,
            None => Ok(()),
        }
    };
    // If this fails, whoever sees that nobody writes it down ends it.
    let _ = timeout(SAYS_WITHIN, end).await;
}

/// Stops the reconciliation of this audience, whoever is at it, and waits until it has ended; whether there was one.
pub(super) async fn stop(
    api: &Api,
    destination: &DestinationName,
    audience: &str,
) -> Result<bool, LedgerError> {
    let was_here = api.reconciling.stop(destination, audience).await;
    let all = api.ledger.reconciliations().await?;
    let Some(of) = all.iter().find(|of| is_of(of, destination, Some(audience))) else {
        return Ok(was_here);
    };
    let has_stopped = api.ledger.step_reconciliation(of.id, ReconciliationStep::Stop).await?;
    api.reconciling.work.notify_one();
    let ending = async {
        while found(api, of.id).await?.is_some_and(|of| of.stage.is_under_way()) {
            sleep(LOOK_EVERY / 4).await;
        }
        Ok::<_, LedgerError>(())
    };
    // Whether it ends in time or not, it has been stopped.
    let _ = timeout(ENDS_WITHIN, ending).await;
    Ok(was_here || has_stopped)
}

//! Shutdown, in the order in which data flows.

use std::time::Duration;

use tokio::task::{self, JoinError};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::failure::Ended;
use super::{Part, Service, ServiceError};
use crate::clock::whole_millis;
use crate::deliver::CourierError;
use crate::ledger::LedgerError;
use crate::operate::logging::chain;
use crate::panics;

/// Reserved from the grace period for closing the ledger.
const CLOSING: Duration = Duration::from_secs(1);

impl Service {
    pub(super) async fn stop(
        mut self,
        drain_delay: Duration,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        let began = Instant::now();
        let deadline = began + self.config.stop.grace_period.saturating_sub(CLOSING);
        // Load balancers that poll the probe need a while to send their requests elsewhere.
        if !drain_delay.is_zero() {
            let _ = timeout(drain_delay, hurry.cancelled()).await;
        }
        self.stop_receiving.cancel();
        let mut first_failure = None;
        let received = self.wait(Part::Receiving, deadline, &hurry, &mut first_failure).await;
        self.stop_delivering.cancel();
        let delivered = self.wait(Part::Delivering, deadline, &hurry, &mut first_failure).await;
        self.stop_watching.cancel();
        // Observers lose no work when cut off, so missing the deadline deserves no warning.
        self.wait(Part::Watching, deadline, &hurry, &mut first_failure).await;
        if !(received && delivered) {
            warn!(
                "the grace period is over: requests and calls in progress were cut off; their senders \
                 retry the requests, and the calls are made again after the next start"
            );
        }
        // `hurry` does not shorten closing: a cleanly closed ledger is what makes the next start quick.
        let unhurried = CancellationToken::new();
        let at_least = Instant::now() + CLOSING;
        let in_grace = began + self.config.stop.grace_period;
        let deadline = if hurry.is_cancelled() { at_least } else { at_least.max(in_grace) };
        // Whatever is left in the ledger's logs by then is left to the next start.
        let empty_logs_by = deadline - CLOSING / 4;
        if timeout_at(deadline, self.ledger.close_by(empty_logs_by)).await.is_err()
            || !self.wait(Part::Writing, deadline, &unhurried, &mut first_failure).await
        {
            warn!("the ledger could not be closed in time; it is consistent all the same");
        }
        let duration_ms = whole_millis(began.elapsed());
        info!(duration_ms, "stopped");
        first_failure.map_or(Ok(()), Err)
    }

    /// Waits until all tasks of a part have ended. `false`: the deadline passed, or `hurry` was cancelled.
    async fn wait(
        &mut self,
        part: Part,
        deadline: Instant,
        hurry: &CancellationToken,
        first_failure: &mut Option<ServiceError>,
    ) -> bool {
        while self.parts.values().any(|of| *of == part) {
            let ended = tokio::select! {
                () = hurry.cancelled() => return false,
                ended = timeout_at(deadline, self.tasks.join_next_with_id()) => match ended {
                    Ok(Some(ended)) => ended,
                    Ok(None) => return true,
                    Err(_) => return false,
                },
            };
            let failure = match self.tick_off(ended) {
                Ok(
                    Ended::Listener(Ok(()))
                    // Who is cut off may meet a closed ledger; a writer that failed says so itself.
                    | Ended::Courier(
                        _,
                        Ok(()) | Err(CourierError::Ledger(LedgerError::Closed)),
                    )
                    | Ended::Exporter
                    | Ended::History
                    | Ended::Saying
                    | Ended::Note
                    | Ended::Reconciling
                    | Ended::Log
                    | Ended::ClockWatch
                    | Ended::Refusals
                    | Ended::Watch
                    | Ended::Writer(Ok(())),
                ) => continue,
                Ok(failed) => failed.unasked(),
                Err(failure) => failure,
            };
            error!(failure = chain(&failure), "a part of the daemon failed while stopping");
            if first_failure.is_none() || matches!(failure, ServiceError::Writer(_)) {
                *first_failure = Some(failure);
            }
        }
        true
    }

    /// Removes an ended task from `parts` and returns its outcome; a panic becomes an error.
    pub(super) fn tick_off(
        &mut self,
        ended: Result<(task::Id, Ended), JoinError>,
    ) -> Result<Ended, ServiceError> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.parts.remove(&id);
        ended.map(|(_, ended)| ended).map_err(|error| match error.try_into_panic() {
            Ok(panic) => ServiceError::Panicked(panics::message(&*panic).to_owned()),
            // Tasks are never cancelled one by one, so the runtime they ran on is gone.
            Err(_) => ServiceError::EndedByItself("the couriers' thread".into()),
        })
    }
}

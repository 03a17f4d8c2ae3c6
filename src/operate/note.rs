//! What the daemon leaves in the ledger for its next start: what was refused and of no use (P7).
//!
//! # What always holds
//! * A kind of trouble that has begun or ended is noted within `LOOK_EVERY`; how often it happened, within
//!   `COUNT_EVERY` and when the daemon stops. Nothing is written while nothing changes.
//! * A note that cannot be read, as that of another version, is as good as none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::json;
use crate::ledger::Operations;
use crate::receive::{Counters, Remembered};

/// Between two looks at what would be noted.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two notes that differ in their counts only.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Gives what was received the note of the process before.
pub fn take_up(ledger: &dyn Operations, received: &Counters) {
    let Some(note) = ledger.note() else { return };
    match json::from_str::<Remembered>(note) {
        Ok(remembered) => received.carry_on(remembered),
        Err(error) => tracing::debug!(%error, "the note of an earlier process cannot be read"),
    }
}

/// Leaves notes until `stop`, and one more then.
pub async fn keep(
    ledger: Arc<dyn Operations>,
    received: Arc<Counters>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = received.remembered(clock.now());
    let mut left_at = Instant::now();
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let now = received.remembered(clock.now());
        let is_due = is_over || left_at.elapsed() >= COUNT_EVERY || now.outline() != left.outline();
        if now != left && is_due {
            // names, numbers and times can be written; a ledger that cannot take them now is tried again
            if let Ok(note) = serde_json::to_string(&now)
                && ledger.leave_note(note).await.is_ok()
            {
                (left, left_at) = (now, Instant::now());
            }
        }
        if is_over {
            return;
        }
    }
}

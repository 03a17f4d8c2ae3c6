//! What the daemon leaves in the ledger for its next start: what was refused and of no use (P7).
//!
//! # What always holds
//! * A kind of trouble that has begun or ended is noted within `LOOK_EVERY`; how often it happened, within
//!   `COUNT_EVERY` and when the daemon stops. Nothing is written while nothing changes.
//! * Of a note of another version what is understood is taken, and what is not is said.
//! * What a process that was killed had left is told with the time when it was left.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Operations;
use crate::receive::{Counters, Remembered};

/// Between two looks at what would be noted.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two notes that differ in their counts only.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Gives what was received the note of the process before; whether all of it is understood.
pub fn take_up(ledger: &dyn Operations, received: &Counters) -> bool {
    let Some(note) = ledger.note() else { return true };
    match Remembered::read(note) {
        Ok((remembered, lost)) => {
            received.carry_on(remembered);
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "an earlier version has left word of what was refused or of no use, and part of it is not understood: \
                     that is forgotten until it happens again"
                );
            }
            lost == 0
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "what an earlier process has left word of, as refused or of no use, cannot be read: it is forgotten \
                 until it happens again"
            );
            false
        }
    }
}

/// Leaves notes until `stop`, and one more then. `is_understood`: so is the one that is there.
pub async fn keep(
    ledger: Arc<dyn Operations>,
    received: Arc<Counters>,
    clock: Arc<dyn Clock>,
    is_understood: bool,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = received.remembered(clock.now());
    let mut left_at = Instant::now();
    // the last one says that nothing came after it, and no part of it is another version's
    let mut is_last = is_understood;
    loop {
        let is_over = tokio::select! {
            () = stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        let now = received.remembered(clock.now());
        let is_due = is_over || left_at.elapsed() >= COUNT_EVERY || now.outline() != left.outline();
        if (now != left && is_due) || (is_over && !is_last) {
            let note = now.clone();
            let note = if is_over { note } else { note.left_at(clock.now()) };
            // names, numbers and times can be written; a ledger that cannot take them now is tried again
            if let Ok(note) = serde_json::to_string(&note)
                && ledger.leave_note(note).await.is_ok()
            {
                (left, left_at, is_last) = (now, Instant::now(), is_over);
            }
        }
        if is_over {
            return;
        }
    }
}

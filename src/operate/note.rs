//! The note that the daemon leaves in the ledger for its next start: refused requests and fruitless
//! events (P7).
//!
//! # What always holds
//! * If a kind of trouble begins or ends, that is noted within `LOOK_EVERY`; changes of its counts,
//!   within `COUNT_EVERY` and when the daemon stops. Nothing is written while nothing changes.
//! * A note of another version is used as far as it is understood, and the log says if some of it is
//!   not.
//! * What a killed process had noted is shown with the time of that note.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Operations;
use crate::receive::{Counters, Remembered};

/// Interval between two looks at what there is to note.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Interval between two notes that differ only in counts.
const COUNT_EVERY: Duration = Duration::from_secs(60);

/// Restores the counters from the note of the previous process; returns whether all of it was
/// understood.
pub fn take_up(ledger: &dyn Operations, received: &Counters) -> bool {
    let Some(note) = ledger.note() else { return true };
    match Remembered::read(note) {
        Ok((remembered, lost)) => {
            received.carry_on(remembered);
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "the record of refused and unusable requests was written by another version \
                     and is only partly understood: the rest is not reported until it happens \
                     again"
                );
            }
            lost == 0
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "the previous process's record of refused and unusable requests cannot be read: \
                 they are not reported until they happen again"
            );
            false
        }
    }
}

/// Keeps the note up to date until `stop`, and writes a last one then. `is_understood` says whether all
/// of the present note was understood.
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
    // whether the note in the ledger is a last one: complete, and with nothing of another version
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
            // the note can always be serialized; if the ledger cannot write now, it is tried again
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

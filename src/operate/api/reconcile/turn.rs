//! One snapshot is read and compared at a time, so that memory is bounded, and it can be stopped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::membership::DestinationName;

/// How long a reconciliation may take to end once it is stopped.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Whose turn it is.
#[derive(Debug)]
pub struct Turn {
    free: Semaphore,
    current: Mutex<Option<Current>>,
    /// Something is to be done for what is under way in the ledger.
    pub(super) work: Notify,
    /// Something has ended there.
    pub(super) ends: Notify,
}

#[derive(Debug)]
struct Current {
    destination: DestinationName,
    audience: String,
    stop: CancellationToken,
    /// Its number in the ledger.
    id: Option<i64>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            free: Semaphore::new(1),
            current: Mutex::new(None),
            work: Notify::new(),
            ends: Notify::new(),
        }
    }
}

impl Turn {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn; `None` while somebody else has it.
    pub(super) fn take(&self, destination: &DestinationName, audience: &str) -> Option<Taken<'_>> {
        let permit = self.free.try_acquire().ok()?;
        let stop = CancellationToken::new();
        let (destination, audience) = (destination.clone(), audience.to_owned());
        *self.current() = Some(Current { destination, audience, stop: stop.clone(), id: None });
        Some(Taken { turn: self, stop, _permit: permit })
    }

    /// Whether one of this audience (of any of the destination, if `None`) is under way.
    pub fn is_taken(&self, destination: &DestinationName, audience: Option<&str>) -> bool {
        self.current().as_ref().is_some_and(|of| {
            of.destination == *destination
                && audience.is_none_or(|audience| of.audience == audience)
        })
    }

    /// Stops the reconciliation of this audience, and waits until it has ended; whether there was one.
    pub(super) async fn stop(&self, destination: &DestinationName, audience: &str) -> bool {
        let stop = {
            let current = self.current();
            let is_it = |of: &&Current| of.destination == *destination && of.audience == audience;
            current.as_ref().filter(is_it).map(|of| of.stop.clone())
        };
        let Some(stop) = stop else { return false };
        stop.cancel();
        // Whether it ends in time or not, it has been stopped.
        let _ = timeout(ENDS_WITHIN, self.free.acquire()).await;
        true
    }
}

/// The turn of one reconciliation, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    turn: &'a Turn,
    stop: CancellationToken,
    _permit: SemaphorePermit<'a>,
}

impl Taken<'_> {
    /// It has this number in the ledger.
    pub fn begun(&self, id: i64) {
        if let Some(current) = &mut *self.turn.current() {
            current.id = Some(id);
        }
    }

    /// Its number in the ledger, if it has one.
    pub fn id(&self) -> Option<i64> {
        self.turn.current().as_ref().and_then(|of| of.id)
    }

    /// Returns once somebody has stopped it.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.turn.current() = None; // the permit goes after that
        self.turn.work.notify_one(); // however it ended, somebody looks what is left of it
    }
}

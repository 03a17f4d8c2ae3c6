//! One snapshot is read and compared at a time, and one more for a dry run, so that memory is bounded; each can be stopped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::membership::DestinationName;

/// How long a reconciliation may take to end once it is stopped.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turn {
    /// Of those that change something.
    real: Place,
    /// Of dry runs: they keep nobody from anything.
    dry: Place,
    /// Something is to be done for what is under way in the ledger.
    pub(super) work: Notify,
    /// Something has ended there.
    pub(super) ends: Notify,
}

/// What one at a time has.
#[derive(Debug)]
struct Place {
    free: Semaphore,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    destination: DestinationName,
    audience: String,
    stop: CancellationToken,
    /// Its number in the ledger.
    id: Option<i64>,
}

impl Default for Place {
    fn default() -> Self {
        Self { free: Semaphore::new(1), current: Mutex::new(None) }
    }
}

impl Place {
    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops what has it, if that is of this audience, and waits until it has ended; whether it was.
    async fn stop(&self, destination: &DestinationName, audience: &str) -> bool {
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

impl Turn {
    /// Takes the turn; `None` while somebody else has it. Dry runs take turns among themselves.
    pub(super) fn take(
        &self,
        destination: &DestinationName,
        audience: &str,
        is_dry: bool,
    ) -> Option<Taken<'_>> {
        let place = if is_dry { &self.dry } else { &self.real };
        let permit = place.free.try_acquire().ok()?;
        let stop = CancellationToken::new();
        let (destination, audience) = (destination.clone(), audience.to_owned());
        *place.current() = Some(Current { destination, audience, stop: stop.clone(), id: None });
        Some(Taken { turn: self, place, stop, _permit: permit })
    }

    /// Whether one of this audience (of any of the destination, if `None`) is under way that changes something.
    pub fn is_taken(&self, destination: &DestinationName, audience: Option<&str>) -> bool {
        self.real.current().as_ref().is_some_and(|of| {
            of.destination == *destination
                && audience.is_none_or(|audience| of.audience == audience)
        })
    }

    /// Stops the reconciliation of this audience, a dry run too, and waits until it has ended; whether there was one.
    pub(super) async fn stop(&self, destination: &DestinationName, audience: &str) -> bool {
        let (real, dry) = tokio::join!(
            self.real.stop(destination, audience),
            self.dry.stop(destination, audience)
        );
        real || dry
    }
}

/// The turn of one reconciliation, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    turn: &'a Turn,
    place: &'a Place,
    stop: CancellationToken,
    _permit: SemaphorePermit<'a>,
}

impl Taken<'_> {
    /// It has this number in the ledger.
    pub fn begun(&self, id: i64) {
        if let Some(current) = &mut *self.place.current() {
            current.id = Some(id);
        }
    }

    /// Its number in the ledger, if it has one.
    pub fn id(&self) -> Option<i64> {
        self.place.current().as_ref().and_then(|of| of.id)
    }

    /// Returns once somebody has stopped it.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.place.current() = None; // the permit goes after that
        self.turn.work.notify_one(); // however it ended, somebody looks what is left of it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dry_run_keeps_nobody_out_and_is_stopped_with_the_audience() {
        let (turn, name) = (Turn::default(), DestinationName::new("eu").expect("a name"));
        let dry = turn.take(&name, "vip", true).expect("nobody has it");
        assert!(turn.take(&name, "other", true).is_none(), "one at a time");
        assert!(!turn.is_taken(&name, None), "it changes nothing");
        let real = turn.take(&name, "vip", false).expect("beside the dry run");
        real.begun(7);
        assert!(turn.take(&name, "other", false).is_none(), "one at a time");
        assert!(turn.is_taken(&name, Some("vip")) && !turn.is_taken(&name, Some("other")));
        assert_eq!((real.id(), dry.id()), (Some(7), None));
        let both = async {
            tokio::join!(real.stopped(), dry.stopped());
            drop((real, dry));
        };
        let (was_there, ()) = tokio::join!(turn.stop(&name, "vip"), both);
        assert!(was_there && !turn.is_taken(&name, None));
        assert!(
            turn.take(&name, "vip", true).is_some() && turn.take(&name, "vip", false).is_some()
        );
    }
}

//! Where heavy work is done: bodies that take more than a moment to read wait for each other here, not for
//! the threads that serve connections.
//!
//! # What always holds
//! * Work has the memory of its body and its turn until it ends, also where the sender has gone meanwhile.
//! * A body waits for bodies of its own size only: whoever sends much delays nobody who sends little
//!   (tests/it/bounds.rs).
//! * Strangers' unpacking waits for strangers only: whoever has shown a credential, or sends plain
//!   text as Segment does, never stands behind it (tests/it/memory.rs).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;
use super::body::Received;

/// A text up to this size is small: a thousand events, as a rule.
pub(super) const SMALL_BYTES: usize = 2 << 20;

/// A text up to this size is of medium size: four thousand events, as a rule.
pub(super) const MEDIUM_BYTES: usize = 16 << 20;

/// The places where heavy work is done.
#[derive(Debug)]
pub(super) struct Heavy {
    /// One permit per core.
    small: Arc<Semaphore>,
    /// Fewer than there are cores, so that one is left for what is smaller.
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
    first_looks: Arc<Semaphore>,
    whole_texts: Arc<Semaphore>,
}

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Reading of bodies, and unpacking for whoever has shown a credential, up to [`SMALL_BYTES`] of text.
    Small,
    /// The same up to [`MEDIUM_BYTES`].
    Medium,
    /// The same beyond that.
    Large,
    /// Unpacking the beginning of a stranger's body, one at a time: a few milliseconds at most.
    FirstLooks,
    /// Hashing all that a stranger's body unpacks to, one at a time.
    WholeTexts,
}

impl Lane {
    /// Where a text of so many bytes is read.
    pub fn for_text(bytes: usize) -> Self {
        if bytes <= SMALL_BYTES {
            Self::Small
        } else if bytes <= MEDIUM_BYTES {
            Self::Medium
        } else {
            Self::Large
        }
    }
}

impl Heavy {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let lane = |turns| Arc::new(Semaphore::new(turns));
        let some = (cores / 2).max(1);
        Self {
            small: lane(cores),
            medium: lane(some),
            large: lane(some),
            first_looks: lane(1),
            whole_texts: lane(1),
        }
    }

    /// Does work on a body when it is its turn. The body may have to make way for others until then, and
    /// is given back with what came of the work.
    pub async fn work<T: Send + 'static>(
        &self,
        lane: Lane,
        mut received: Received,
        by: Instant,
        work: impl FnOnce(&mut Received) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(Received, T), Refusal> {
        let turn = self.turn(lane, &mut received, by).await?;
        received.place.settle()?;
        let working = tokio::task::spawn_blocking(move || {
            let done = work(&mut received);
            drop(turn);
            done.map(|done| (received, done))
        });
        working.await.unwrap_or_else(|failure| {
            tracing::error!(panicked = failure.is_panic(), "a body could not be read");
            Err(Refusal::Unavailable)
        })
    }

    async fn turn(
        &self,
        lane: Lane,
        received: &mut Received,
        by: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let turns = match lane {
            Lane::Small => &self.small,
            Lane::Medium => &self.medium,
            Lane::Large => &self.large,
            Lane::FirstLooks => &self.first_looks,
            Lane::WholeTexts => &self.whole_texts,
        };
        let waiting = timeout_at(by, Arc::clone(turns).acquire_owned());
        tokio::select! {
            () = received.place.has_to_go() => Err(Refusal::Busy),
            turn = waiting => match turn {
                Ok(Ok(turn)) => Ok(turn),
                Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
            },
        }
    }
}

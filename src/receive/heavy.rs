//! Runs heavy work: bodies that take more than a moment to read queue here instead of blocking the threads
//! that serve connections.
//!
//! # What always holds
//! * Work keeps the memory of its body and its permit until it ends, even if the sender is gone meanwhile.
//! * A body waits only for bodies of its own size class: large bodies do not delay small ones
//!   (tests/it/bounds.rs).
//! * Decompression for strangers waits only for other strangers: a sender that has shown a credential, or
//!   sends uncompressed text as Segment does, never queues behind it (tests/it/memory.rs).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;
use super::body::Received;

/// Most bytes of a small text: a thousand events, typically.
pub(super) const SMALL_BYTES: usize = 2 << 20;

/// Most bytes of a medium text: four thousand events, typically.
pub(super) const MEDIUM_BYTES: usize = 16 << 20;

/// The queues for heavy work.
#[derive(Debug)]
pub(super) struct Heavy {
    /// One permit per core.
    small: Arc<Semaphore>,
    /// Half as many permits as there are cores, so that cores are left for smaller work.
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
    first_looks: Arc<Semaphore>,
    whole_texts: Arc<Semaphore>,
}

/// The queues; work waits only for work in the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Parsing, and decompression for senders that have shown a credential, up to [`SMALL_BYTES`] of text.
    Small,
    /// The work of [`Lane::Small`], up to [`MEDIUM_BYTES`] of text.
    Medium,
    /// The work of [`Lane::Small`], beyond [`MEDIUM_BYTES`] of text.
    Large,
    /// Decompressing the beginning of a stranger's body, one at a time: a few milliseconds at most.
    FirstLooks,
    /// Hashing everything that a stranger's body decompresses to, one at a time.
    WholeTexts,
}

impl Lane {
    /// The lane for a text of this many bytes.
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

    /// Runs work on a body when its turn comes. Until then the body may be evicted; it is returned together
    /// with the result.
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
            tracing::error!(
                panicked = failure.is_panic(),
                "the task that was reading a body failed"
            );
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

//! Clocks, so that tests can control time. Nothing else in the crate reads the system clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Timestamp;

/// A source of wall-clock time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present time. It may step in either direction: callers that need order must enforce it.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that may ask the system")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::EPOCH.after(since_epoch)
    }
}

/// How long the machine has been up: a clock that nobody sets. On Linux it includes suspended time.
#[must_use]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    // An error means a time before the boot or a missing clock.
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or(Duration::ZERO)
}

/// Whole milliseconds, as in logs and statuses; saturates.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that stands still until it is moved; clones share the time.
///
/// ```
/// use cohortd::clock::{Clock, ManualClock};
/// use cohortd::membership::Timestamp;
///
/// let clock = ManualClock::at(Timestamp::EPOCH);
/// let seen_by_the_ledger = clock.clone();
/// clock.set(Timestamp(1_750_000_000_000_000));
/// assert_eq!(seen_by_the_ledger.now(), Timestamp(1_750_000_000_000_000));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Sets the time to `now`, which may be earlier: real clocks step back too.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().after(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
/// Interval between two log lines about a condition that outsiders can repeat at will.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Limits the rate of a repeated log line: the first may be written at once, further ones once a
/// minute, each with the count since the one before.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
    /// The count since then.
    unsaid: u64,
}

impl Seldom {
    /// Counts `count` more. `Some` if a line is due, with the count since the last one.
    pub fn more(&mut self, count: u64) -> Option<u64> {
        self.unsaid += count;
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < SAID_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Counts one more; returns whether a line is due, which then counts as written.
    pub fn is_due(&mut self) -> bool {
        self.more(1).is_some()
    }
}

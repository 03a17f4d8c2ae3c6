//! Time, so that tests can move it. Nothing else in the crate asks the system what time it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Timestamp;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The time now. May step in either direction: whoever needs order must enforce it.
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

/// How long the machine has been up, suspensions included: a clock that nobody sets.
#[must_use]
pub fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    // An error is of a time before the boot, or of a clock that there is not.
    Duration::try_from(rustix::time::clock_gettime(clock)).unwrap_or(Duration::ZERO)
}

/// Whole milliseconds, as logs and status give a duration; as many as fit.
#[must_use]
pub fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that stands still until it is moved; clones move together.
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

    /// Shows `now` from here on; backwards is allowed, as it is for real clocks.
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
/// Between two lines of the log about something that goes on at somebody else's pace.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Says when it is time to say something again that goes on, and how much of it there was: at once, and then not
/// more often than once a minute.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
    /// Since then.
    unsaid: u64,
}

impl Seldom {
    /// There was so much more of it: if it is time, how much it is that nothing was said of yet.
    pub fn more(&mut self, count: u64) -> Option<u64> {
        self.unsaid += count;
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < SAID_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Whether it is time; then it counts as said.
    pub fn is_due(&mut self) -> bool {
        self.more(1).is_some()
    }
}

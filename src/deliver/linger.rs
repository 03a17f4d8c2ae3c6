//! How long a change waits for others to share its call. Pure ([P9](crate::design::P9)).
//!
//! Lingering saves calls only if more changes of the same audience arrive in time. A lone change
//! therefore waits only for its duplicates: Segment reports one change as an Identify and a Track call,
//! and once for each identifier of the person. If more changes arrive before the full linger would have
//! ended, calling early has cost one extra call. Early calls are paid from an allowance, so that they
//! add only a few calls whatever the traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::Backlog;
use crate::membership::AudienceId;

/// The duplicates of a change usually arrive within this time.
const TWINS: Duration = Duration::from_millis(80);
/// Each call adds this much to the allowance, …
const SHARE: f64 = 0.04;
/// … each full linger that passes adds this much, so that quiet destinations get some too, …
const PER_LINGER: f64 = 0.1;
/// … and the allowance is never more than this.
const MOST: f64 = 2.0;
/// Calls are scarce if the rate limits want them further apart than the linger divided by this; then
/// every change waits the full linger.
const ROOM: u32 = 10;

/// The allowance for early calls, and the early calls whose cost is not known yet.
#[derive(Debug)]
pub(super) struct Linger {
    /// Early calls that may still be made. Each is paid for at once, and refunded if it turns out to
    /// have added no call.
    allowance: f64,
    counted_at: Option<Instant>,
    /// Audiences that were called early: when, and when the call would have been due after the full
    /// linger.
    early: BTreeMap<AudienceId, (Instant, Instant)>,
}

impl Linger {
    pub fn new() -> Self {
        Self { allowance: MOST, counted_at: None, early: BTreeMap::new() }
    }

    /// Accrues allowance, and settles early calls: refunded if no change arrived before the full linger
    /// had ended, else spent.
    pub fn look(&mut self, now: Instant, linger: Duration, backlog: &[Backlog]) {
        let passed = self.counted_at.map_or(Duration::ZERO, |before| now - before);
        self.counted_at = Some(now);
        if !linger.is_zero() {
            self.allow(passed.as_secs_f64() / linger.as_secs_f64() * PER_LINGER);
        }
        if self.early.is_empty() {
            return;
        }
        for waiting in backlog {
            let Some((called, due)) = self.early.get(&waiting.audience) else { continue };
            if *called < waiting.waiting_since && waiting.waiting_since < *due {
                self.early.remove(&waiting.audience);
            }
        }
        let before = self.early.len();
        self.early.retain(|_, (_, due)| now < *due);
        (self.early.len()..before).for_each(|_| self.allow(1.0));
    }

    /// How long changes wait at present, at most `linger`. `gap` is how far apart the rate limits want
    /// calls to be.
    pub fn now(&self, linger: Duration, gap: Duration) -> Duration {
        let has_room = gap <= linger / ROOM;
        if has_room && self.allowance >= 1.0 { linger.min(TWINS) } else { linger }
    }

    /// A call for waiting changes is being made. `due` is when it would be due after the full linger;
    /// `None` if the batch is full.
    pub fn called(&mut self, audience: &AudienceId, now: Instant, due: Option<Instant>) {
        self.allow(SHARE);
        if let Some(due) = due.filter(|due| now < *due) {
            self.allowance -= 1.0;
            self.early.insert(audience.clone(), (now, due));
        }
    }

    fn allow(&mut self, calls: f64) {
        self.allowance = (self.allowance + calls).min(MOST);
    }
}

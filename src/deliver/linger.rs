//! How long a change waits for company before its call is made. Pure ([P9](crate::design::P9)).
//!
//! Lingering saves calls only where more changes of the same audience come in time. A lone change
//! therefore waits just for its twins: Segment reports it as an Identify and a Track call, and once for each
//! identifier of the person. If more changes come before the linger would have been over, waiting would have
//! saved a call; such calls are bought from an allowance, so that there are only a few more of them than
//! without any haste, whatever the traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::Backlog;
use crate::membership::AudienceId;

/// Within this time the twins of a change have come, as a rule.
const TWINS: Duration = Duration::from_millis(80);
/// The share of all calls that haste may add, …
const SHARE: f64 = 0.04;
/// … calls that it may add beyond that in the time of a linger, where there are few, …
const PER_LINGER: f64 = 0.1;
/// … and calls that it may add at once.
const MOST: f64 = 2.0;
/// A call costs something if the rate limits want calls to be further apart than this part of the linger.
const ROOM: u32 = 10;

/// What haste has cost so far, and may.
#[derive(Debug)]
pub(super) struct Linger {
    /// Calls that haste may still add. One that is made early is paid for at once, and paid back when it has turned out
    /// to be none too many.
    allowance: f64,
    counted_at: Option<Instant>,
    /// Audiences whose call was made early: when, and when it would have been made.
    early: BTreeMap<AudienceId, (Instant, Instant)>,
}

impl Linger {
    pub fn new() -> Self {
        Self { allowance: MOST, counted_at: None, early: BTreeMap::new() }
    }

    /// Finds out which early calls have turned out to be one too many, and which have not.
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

    /// How long changes wait at present, of at most `linger`. `gap`: how far apart the rate limits want calls
    /// to be.
    pub fn now(&self, linger: Duration, gap: Duration) -> Duration {
        let has_room = gap <= linger / ROOM;
        if has_room && self.allowance >= 1.0 { linger.min(TWINS) } else { linger }
    }

    /// A call of changes that wait is made. `due`: when it would have been made without haste; `None` if it
    /// is full.
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

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

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(500);

    fn audience(name: &str) -> AudienceId {
        AudienceId::new(name).expect("not empty")
    }

    fn waiting(name: &str, waiting_since: Instant) -> Backlog {
        Backlog { audience: audience(name), waiting: 1, waiting_since, acknowledged: true }
    }

    fn is_hasty(linger: &Linger) -> bool {
        linger.now(LINGER, Duration::ZERO) < LINGER
    }

    /// Uses up the allowance by two early calls at this time.
    fn exhausted(now: Instant) -> Linger {
        let mut linger = Linger::new();
        linger.look(now, LINGER, &[]);
        for name in ["a", "b"] {
            assert!(is_hasty(&linger));
            linger.called(&audience(name), now, Some(now + LINGER));
        }
        assert!(!is_hasty(&linger));
        linger
    }

    #[test]
    fn an_early_call_is_refunded_when_its_linger_ends_unless_another_change_has_come() {
        let start = Instant::now();
        let (early, due) = (start + Duration::from_millis(200), start + LINGER);
        let late = due - Duration::from_millis(1);
        let cases = [
            ("none came", None, due, true),
            ("it is not over", None, late, false),
            ("one came", Some(early), due, false),
            ("one came at the last moment", Some(late), due, false),
            ("one came when it was over", Some(due), due, true),
        ];
        for (case, came, at, is_refunded) in cases {
            let mut linger = exhausted(start);
            let backlog: Vec<Backlog> =
                came.into_iter().flat_map(|at| ["a", "b"].map(|name| waiting(name, at))).collect();
            linger.look(at, LINGER, &backlog);
            assert_eq!(is_hasty(&linger), is_refunded, "{case}");
        }
    }

    #[test]
    fn time_and_calls_bring_the_allowance_back_slowly() {
        let start = Instant::now();
        let spent = || {
            let mut linger = exhausted(start);
            let since = start + Duration::from_millis(50);
            linger.look(since, LINGER, &[waiting("a", since), waiting("b", since)]);
            linger
        };
        for (lingers, is_back) in [(8, false), (10, true)] {
            let mut linger = spent();
            linger.look(start + LINGER * lingers, LINGER, &[]);
            assert_eq!(is_hasty(&linger), is_back, "after {lingers} lingers");
        }
        for (calls, is_back) in [(20, false), (25, true)] {
            let mut linger = spent();
            (0..calls).for_each(|_| linger.called(&audience("a"), start, None));
            assert_eq!(is_hasty(&linger), is_back, "after {calls} calls");
        }
    }

    #[test]
    fn a_call_that_is_due_is_not_early() {
        let (mut linger, now) = (Linger::new(), Instant::now());
        for _ in 0..3 {
            linger.called(&audience("a"), now, Some(now));
        }
        assert!(is_hasty(&linger));
    }
}

//! A model of LaunchDarkly for simulations: its segments, and all that can go wrong on the way to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::{REQUEST_TIMEOUT, Who};
use crate::clock::{Clock, ManualClock};
use crate::launchdarkly::wire::SyncRequest;
use crate::launchdarkly::{Answer, Api, Fate, Outcome, RateLimits, classify};
use crate::membership::AudienceId;

/// Length of a rate limit window.
const WINDOW: Duration = Duration::from_secs(10);
/// A call is applied before its members are told once more, which is two request timeouts after its end.
const LATEST: Duration = Duration::from_millis(19_990);

/// LaunchDarkly, and all that can go wrong on the way to it.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub clock: ManualClock,
    pub began: Instant,
    pub max_batch: usize,
    pub state: Arc<Mutex<Inside>>,
}

#[derive(Debug)]
pub(super) struct Inside {
    pub chance: StdRng,
    /// The probability that a call meets a fault.
    pub faulty: f64,
    pub segments: BTreeMap<Who, bool>,
    pub refused: BTreeSet<Who>,
    /// Until this time every call is answered with this status.
    pub spell: Option<(Instant, u16)>,
    pub in_flight: BTreeMap<Who, Excuse>,
    /// Members that were in two calls at once, with an excuse.
    pub overlaps: usize,
    /// Calls per window; `None`: unlimited.
    pub limit: Option<u64>,
    pub window: u64,
    pub used: u64,
    pub calls: usize,
    pub rate_limited: usize,
}

impl Inside {
    /// Applies a call as a whole, or not at all.
    fn tell(&mut self, members: &[(Who, bool)]) -> bool {
        if members.iter().any(|(who, _)| self.refused.contains(who)) {
            return false;
        }
        self.segments.extend(members.iter().cloned());
        true
    }
}

fn apply_later(state: &Arc<Mutex<Inside>>, members: Vec<(Who, bool)>, after: Duration) {
    let state = Arc::clone(state);
    tokio::spawn(async move {
        sleep(after).await;
        state.lock().expect("no run panics with it").tell(&members);
    });
}

/// Whether a call may overlap with another of the same member, because its process stood still since it last looked
/// whether it may call: set while that is so.
pub(super) type Excuse = Arc<AtomicBool>;

/// Members in flight, removed again however the call ends. If the courier is killed during the call, or
/// gives it up, the call may still be applied later.
struct Flight {
    state: Arc<Mutex<Inside>>,
    members: Vec<(Who, bool)>,
    excuse: Excuse,
    /// When it is applied, if that is known.
    applied_at: Option<Instant>,
    is_decided: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.state.lock().expect("no run panics with it");
        for (who, _) in &self.members {
            if state.in_flight.get(who).is_some_and(|of| Arc::ptr_eq(of, &self.excuse)) {
                state.in_flight.remove(who);
            }
        }
        let now = Instant::now();
        if !self.is_decided && state.chance.random_bool(0.5) {
            let after = Duration::from_millis(state.chance.random_range(0..10_000));
            self.applied_at = Some(now + after);
        }
        if let Some(at) = self.applied_at {
            // Nothing is applied longer than this after its caller has heard that it is over.
            let after = at.saturating_duration_since(now).min(LATEST);
            apply_later(&self.state, std::mem::take(&mut self.members), after);
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
enum Meets {
    Nothing,
    Status(u16),
    /// The server fails after it has applied the call.
    AppliedThen(u16),
    /// No answer in time; the call is applied after this delay, or never.
    Silence(Option<Duration>),
}

#[async_trait]
impl Api for Model {
    async fn send(&self, _: &AudienceId, body: Bytes) -> Answer {
        self.call(body, Excuse::default()).await
    }
}

impl Model {
    pub async fn call(&self, body: Bytes, excuse: Excuse) -> Answer {
        let request: SyncRequest<'_> = serde_json::from_slice(&body).expect("it is our own");
        let members: Vec<(Who, bool)> = request
            .batch
            .iter()
            .map(|of| ((of.cohort_id.to_string(), of.user_id.to_string()), of.value))
            .collect();
        let (meets, lasts, mut flight) = self.begin(&members, excuse);
        sleep(lasts).await;
        flight.is_decided = true;
        match meets {
            Meets::Nothing => {
                let mut state = self.state.lock().expect("no run panics with it");
                assert!(members.len() <= self.max_batch);
                let taken = state.tell(&members);
                self.answer(&state, if taken { 204 } else { 400 })
            }
            Meets::Status(status) => {
                self.answer(&self.state.lock().expect("no run panics with it"), status)
            }
            Meets::AppliedThen(status) => {
                let mut state = self.state.lock().expect("no run panics with it");
                state.tell(&members);
                self.answer(&state, status)
            }
            Meets::Silence(applied_after) => {
                if applied_after == Some(Duration::ZERO) {
                    self.state.lock().expect("no run panics with it").tell(&members);
                } else {
                    flight.applied_at = applied_after.map(|after| Instant::now() + after);
                }
                sleep(REQUEST_TIMEOUT.saturating_sub(lasts)).await;
                let cause = "timeout".to_owned();
                let outcome = Outcome::Unavailable { cause, fate: Fate::Open, refusal: None };
                Answer { outcome, limits: RateLimits::default(), status: None }
            }
        }
    }
}

impl Model {
    fn begin(&self, members: &[(Who, bool)], excuse: Excuse) -> (Meets, Duration, Flight) {
        let mut state = self.state.lock().expect("no run panics with it");
        state.calls += 1;
        for (who, _) in members {
            if let Some(other) = state.in_flight.insert(who.clone(), Arc::clone(&excuse)) {
                let is_excused = other.load(Ordering::SeqCst) || excuse.load(Ordering::SeqCst);
                assert!(is_excused, "in two requests at once (P3)");
                state.overlaps += 1;
            }
        }
        let takes = Duration::from_millis(state.chance.random_range(5..300));
        let window = self.window();
        if window != state.window {
            (state.window, state.used) = (window, 0);
        }
        state.used += 1;
        let now = Instant::now();
        state.spell.take_if(|(until, _)| *until <= now);
        let faulty = state.faulty;
        let meets = if state.limit.is_some_and(|limit| state.used > limit) {
            state.rate_limited += 1;
            Meets::Status(429)
        } else if let Some((_, status)) = state.spell {
            Meets::Status(status)
        } else if state.chance.random_bool(faulty) {
            meet(&mut state)
        } else {
            Meets::Nothing
        };
        let flight = Flight {
            state: Arc::clone(&self.state),
            members: members.to_vec(),
            excuse,
            applied_at: None,
            is_decided: false,
        };
        (meets, takes, flight)
    }

    /// No faults from here on.
    pub fn be_well(&self) {
        let mut state = self.state.lock().expect("no run panics with it");
        (state.faulty, state.spell) = (0.0, None);
    }

    fn window(&self) -> u64 {
        self.began.elapsed().as_secs() / WINDOW.as_secs()
    }

    /// An answer with this status and the current rate limit headers.
    fn answer(&self, state: &Inside, status: u16) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(limit) = state.limit {
            let next = WINDOW * u32::try_from(self.window() + 1).unwrap_or(u32::MAX);
            let reset = self.clock.now().after(next.saturating_sub(self.began.elapsed()));
            for (name, value) in [
                ("x-ratelimit-global-limit", limit),
                ("x-ratelimit-global-remaining", limit.saturating_sub(state.used)),
                ("x-ratelimit-reset", u64::try_from(reset.0 / 1000).unwrap_or(0)),
            ] {
                headers.insert(name, HeaderValue::from(value));
            }
        }
        let body = br#"{"code":"invalid_request","message":"no","id":"1234"}"#;
        classify(StatusCode::from_u16(status).expect("a status"), &headers, body)
    }
}

fn meet(state: &mut Inside) -> Meets {
    let lasts = Duration::from_millis(state.chance.random_range(1..120_000));
    let late = Duration::from_millis(state.chance.random_range(1..20_000));
    match state.chance.random_range(0..16) {
        0..3 => Meets::Status(503),
        3..5 => Meets::AppliedThen(500),
        5 | 6 => Meets::Status(409),
        7 => Meets::Status(429),
        8 => Meets::Silence(None),
        9 => Meets::Silence(Some(Duration::ZERO)),
        10 => Meets::Silence(Some(REQUEST_TIMEOUT + late)),
        11 => Meets::Status(413),
        which => {
            // It lasts for a while: an outage, a revoked token, an unknown environment or a refusal of
            // everybody.
            let status = [503, 401, 404, 400][which - 12];
            state.spell = Some((Instant::now() + lasts, status));
            Meets::Status(status)
        }
    }
}

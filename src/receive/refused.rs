//! Requests that the public listener refused: all are counted; those that look like Segment's are remembered
//! until their path succeeds again ([P7](crate::design::P7)).
//!
//! Of all 4xx, Segment retries only 429: a wrong secret loses a whole first sync unless somebody notices.
//!
//! # What always holds
//! * A request looks like Segment's if it is sent by POST, PUT or PATCH to an existing path, or to any path
//!   with a credential; or by another method to an existing path with a credential. Nothing else is
//!   remembered or logged: scanners trigger no alarm.
//! * Memory is bounded by the configuration: of the paths that strangers choose, at most [`MOST_ASTRAY`] are
//!   told apart, each of which is a misspelling of a configured name ([P6](crate::design::P6),
//!   [P8](crate::design::P8)). However many they choose, a path that Segment itself was sent to is kept: its
//!   credential proves it.
//! * A connection that begins with a broken header of the PROXY protocol is remembered if one is expected,
//!   since a load balancer writes it, until any request succeeds.
//! * For each remembered path there is at most one log line a minute.
//!
//! tests/it/refused.rs

mod place;
mod shown;
mod wording;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Doors;
use super::answer::Refusal;
use super::proxy_protocol::Malformed;
use crate::membership::{DestinationName, Timestamp};

use place::Place;
pub(super) use place::{At, shortened};
pub use shown::Kind;
pub(super) use shown::{Asked, Doubt};
use wording::Cause;

/// Most non-existing paths that are told apart.
const MOST_ASTRAY: usize = 16;
/// How long a misspelt path needs attention after its last request: nothing can ever succeed there.
const SLIP_FOR: Duration = Duration::from_secs(24 * 3600);
/// A misspelt path needs attention no longer once the path that was probably meant succeeds this much later.
const FIXED_AFTER: Duration = Duration::from_secs(900);
/// How long a path that resembles no existing one needs attention after its last request.
const ELSEWHERE_FOR: Duration = Duration::from_secs(3600);
/// Shown in place of a path that a stranger chose; all of those are counted under it.
const ELSEWHERE: &str = "-";
/// Shown where no path was read.
const ANYWHERE: &str = "*";
/// Least time between two log lines about a path.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// From a refusal to its log line, so that the first line covers more than the first of many requests.
const GATHER: Duration = Duration::from_secs(1);

/// The refused requests at one path that looked like Segment's, since the last success there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPath {
    /// The path; `-` if it must not be shown.
    pub path: String,
    /// The destinations whose events they probably carried.
    pub destinations: Vec<DestinationName>,
    /// The refusal's word, of the last request.
    pub reason: &'static str,
    /// The credential of the last request: `none`, `signature`, `bearer`, `basic` or `other`.
    pub credential: &'static str,
    /// How many requests there were.
    pub count: u64,
    /// Arrival of the first of them.
    pub first_at: Timestamp,
    /// Arrival of the last of them.
    pub last_at: Timestamp,
    /// What is wrong with the last one, in a sentence.
    pub why: String,
    /// What would fix it, in a sentence that names the setting.
    pub remedy: String,
    /// Whether a person has to act. For a path that does not exist this ends once it has been quiet for long
    /// enough, or the path that was meant succeeds.
    pub needs_attention: bool,
    /// When an earlier process, which was killed later, wrote this: whether a request succeeded since then is
    /// not known.
    pub noted_at: Option<Timestamp>,
}

/// How many requests were refused at one path, for one reason, with one credential.
pub type RefusedCount = (String, &'static str, &'static str, u64);

/// All refused requests.
#[derive(Debug, Default)]
pub(super) struct Refused {
    state: Mutex<State>,
    /// The number of paths without a success since; while it is 0, a success has nothing to update.
    open: AtomicUsize,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<(String, &'static str, Kind), u64>,
    paths: BTreeMap<String, AtPath>,
}

/// What is remembered of one path, also across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AtPath {
    place: Place,
    cause: Cause,
    credential: Kind,
    /// Requests since the last success.
    count: u64,
    first_at: Timestamp,
    last_at: Timestamp,
    /// When the path that was probably meant last succeeded.
    meant_succeeded_at: Option<Timestamp>,
    /// Whether a request there carried a credential that is good at the path that was probably meant.
    #[serde(default)]
    is_proven: bool,
    /// See [`RefusedPath::noted_at`].
    #[serde(default)]
    noted_at: Option<Timestamp>,
    /// Requests since the last log line.
    #[serde(skip)]
    unsaid: u64,
    #[serde(skip)]
    said_at: Option<Instant>,
}

impl Refused {
    /// Counts a refused request. Remembers it if it looks like Segment's and will not be retried, or is
    /// retried in vain until somebody acts.
    pub fn note(&self, at: &At<'_>, doors: &Doors, asked: Asked, refusal: Refusal, now: Timestamp) {
        let is_doubted = refusal == Refusal::Unauthenticated;
        let credential = asked.kind(is_doubted);
        let looks_like_segments = if at.is_astray(doors) {
            asked.sends && asked.shows_any()
        } else {
            asked.sends || asked.shows_any()
        };
        let is_passing = matches!(refusal, Refusal::TooMany | Refusal::OriginNotListed);
        let is_final = refusal.status().is_client_error() && !is_passing;
        let needs_somebody = is_final || refusal.is_misled();
        let place = (looks_like_segments && needs_somebody).then(|| at.place(doors));
        let mut state = self.state();
        *state.counts.entry((at.label(), refusal.word(), credential)).or_default() += 1;
        let Some(place) = place else { return };
        let cause = Cause { refusal, doubt: is_doubted.then_some(asked.doubt), malformed: None };
        state.remember(place, cause, credential, asked.is_proven, now);
        self.open.store(state.open(), Ordering::Relaxed);
        drop(state);
        self.news.notify_one();
    }

    /// Counts a connection that was closed because it began with an invalid header of the PROXY protocol. If
    /// one is expected, a load balancer wrote it, and Segment's requests behind it go unheard.
    pub fn note_closed(
        &self,
        malformed: Malformed,
        doors: &Doors,
        is_expected: bool,
        now: Timestamp,
    ) {
        let refusal = Refusal::BadProxyHeader;
        let mut state = self.state();
        let label = (ANYWHERE.to_owned(), refusal.word(), Kind::None);
        *state.counts.entry(label).or_default() += 1;
        if !is_expected {
            return;
        }
        let cause = Cause { refusal, doubt: None, malformed: Some(malformed) };
        state.remember(Place::anywhere(doors), cause, Kind::None, false, now);
        self.open.store(state.open(), Ordering::Relaxed);
        drop(state);
        self.news.notify_one();
    }

    /// A request succeeded at this place.
    pub fn succeeded(&self, at: &At<'_>, now: impl FnOnce() -> Timestamp) {
        if self.open.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(path) = at.path() else { return };
        let mut state = self.state();
        for path in [&path[..], ANYWHERE] {
            if let Some(found) = state.paths.get_mut(path) {
                found.count = 0;
            }
        }
        self.open.store(state.open(), Ordering::Relaxed);
        let (Some(door), now) = (at.door(), now()) else { return };
        for slip in state.paths.values_mut() {
            if slip.place.nearest.as_ref().is_some_and(|nearest| *nearest == *door.name) {
                slip.meant_succeeded_at = Some(now);
            }
        }
    }

    /// Forgets paths that existed and are gone, by `is_there`; paths that never existed stay.
    pub fn keep_paths(&self, is_there: impl Fn(&str) -> bool) {
        let mut state = self.state();
        state.paths.retain(|path, at| at.place.is_astray || path == ANYWHERE || is_there(path));
        self.open.store(state.open(), Ordering::Relaxed);
    }

    /// What has to be kept across a restart.
    pub fn remembered(&self, now: Timestamp) -> Vec<AtPath> {
        let state = self.state();
        let open = state.paths.values().filter(|at| at.count > 0 && !at.is_over(now));
        open.map(|at| AtPath { unsaid: 0, said_at: None, ..at.clone() }).collect()
    }

    /// Takes over what an earlier process remembered, except for paths that were refused since. `noted_at` is
    /// when it wrote this, if it was killed afterwards.
    pub fn carry_on(&self, remembered: Vec<AtPath>, noted_at: Option<Timestamp>) {
        let mut state = self.state();
        for mut at in remembered {
            at.noted_at = noted_at.or(at.noted_at);
            state.paths.entry(at.place.path.clone()).or_insert(at);
        }
        self.open.store(state.open(), Ordering::Relaxed);
    }

    pub fn counts(&self) -> Vec<RefusedCount> {
        let state = self.state();
        let shown = |((path, reason, kind), count): (&(String, &'static str, Kind), &u64)| {
            (path.clone(), *reason, kind.word(), *count)
        };
        state.counts.iter().map(shown).collect()
    }

    pub fn paths(&self, now: Timestamp) -> Vec<RefusedPath> {
        let state = self.state();
        let open = state.paths.iter().filter(|(_, at)| at.count > 0);
        open.map(|(path, at)| at.shown(path, now)).collect()
    }

    /// Logs refusals, until the daemon stops.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.news.notified() => {}
            }
            while self.state().paths.values().any(|at| at.unsaid > 0) {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(GATHER) => self.say(Instant::now()),
                }
                if stop.is_cancelled() {
                    break;
                }
            }
        }
        let mut state = self.state();
        state.paths.iter_mut().for_each(|(path, at)| at.say(path, Instant::now()));
    }

    /// Logs a line about each path that has had none for a minute.
    fn say(&self, now: Instant) {
        let mut state = self.state();
        let is_due = |at: &AtPath| at.said_at.is_none_or(|said_at| now - said_at >= LINE_EVERY);
        for (path, at) in state.paths.iter_mut().filter(|(_, at)| is_due(at)) {
            at.say(path, now);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&self) -> usize {
        self.paths.values().filter(|at| at.count > 0).count()
    }

    fn remember(
        &mut self,
        mut place: Place,
        cause: Cause,
        credential: Kind,
        is_proven: bool,
        at: Timestamp,
    ) {
        let is_new = place.nearest.is_some() && !self.paths.contains_key(&place.path);
        if is_new && !self.has_room(is_proven, at) {
            ELSEWHERE.clone_into(&mut place.path);
            place.nearest = None;
        }
        let path = place.path.clone();
        let found = self.paths.entry(path).or_insert_with(|| AtPath {
            place: place.clone(),
            cause,
            credential,
            count: 0,
            first_at: at,
            last_at: at,
            meant_succeeded_at: None,
            is_proven,
            noted_at: None,
            unsaid: 0,
            said_at: None,
        });
        if found.count == 0 {
            (found.first_at, found.noted_at) = (at, None);
        }
        // a rewritten body is found by sampling, so that finding stays until a success
        let is_still_rewritten = found.count > 0
            && found.cause.doubt == Some(Doubt::Rewritten)
            && cause.doubt == Some(Doubt::Signature);
        if !is_still_rewritten {
            found.cause = cause;
        }
        found.is_proven |= is_proven;
        found.credential = credential;
        found.place = place;
        found.count += 1;
        found.unsaid += 1;
        found.last_at = found.last_at.max(at);
    }

    /// Whether there is room for one more misspelt path. Paths that have been quiet for long are dropped; for
    /// a proven path, so is the latest of an unproven one.
    fn has_room(&mut self, is_proven: bool, now: Timestamp) -> bool {
        self.paths.retain(|path, at| path == ELSEWHERE || !at.is_over(now));
        let slips = self.paths.iter().filter(|(_, at)| at.place.nearest.is_some());
        if slips.clone().count() < MOST_ASTRAY {
            return true;
        }
        let strangers = slips.filter(|(_, at)| is_proven && !at.is_proven);
        let latest = strangers.max_by_key(|(_, at)| at.first_at).map(|(path, _)| path.clone());
        let Some(gone) = latest.and_then(|path| self.paths.remove(&path)) else { return false };
        self.count_elsewhere(gone);
        true
    }

    /// A dropped path is still counted, and logged, among all others.
    fn count_elsewhere(&mut self, gone: AtPath) {
        if let Some(others) = self.paths.get_mut(ELSEWHERE) {
            others.count += gone.count;
            others.unsaid += gone.unsaid;
            others.last_at = others.last_at.max(gone.last_at);
            return;
        }
        let place = Place { path: ELSEWHERE.to_owned(), nearest: None, ..gone.place };
        self.paths.insert(ELSEWHERE.to_owned(), AtPath { place, ..gone });
    }
}

impl AtPath {
    /// This entry without what changes at every request.
    pub fn outline(&self) -> Self {
        let (count, last_at, meant_succeeded_at) = (1, self.first_at, None);
        Self { count, last_at, meant_succeeded_at, ..self.clone() }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        let lasts = if self.place.nearest.is_some() { SLIP_FOR } else { ELSEWHERE_FOR };
        let is_mended =
            self.meant_succeeded_at.is_some_and(|at| self.last_at.after(FIXED_AFTER) <= at);
        self.place.is_astray && (is_mended || self.last_at.after(lasts) <= now)
    }

    fn shown(&self, path: &str, now: Timestamp) -> RefusedPath {
        let (why, remedy) = self.cause.words(&self.place);
        RefusedPath {
            path: path.to_owned(),
            destinations: self.place.destinations.clone(),
            reason: self.cause.refusal.word(),
            credential: self.credential.word(),
            count: self.count,
            first_at: self.first_at,
            last_at: self.last_at,
            why,
            remedy,
            needs_attention: !self.is_over(now),
            noted_at: self.noted_at,
        }
    }

    fn say(&mut self, path: &str, now: Instant) {
        let count = std::mem::take(&mut self.unsaid);
        if count == 0 {
            return;
        }
        self.said_at = Some(now);
        let (why, remedy) = self.cause.words(&self.place);
        let (reason, credential) = (self.cause.refusal.word(), self.credential.word());
        if self.cause.refusal == Refusal::BadProxyHeader {
            tracing::warn!(
                count,
                reason,
                why,
                remedy,
                "connections were closed at their first bytes; Segment retries for a few hours \
                 only"
            );
        } else if self.cause.refusal.is_misled() {
            tracing::warn!(
                path,
                count,
                reason,
                credential,
                why,
                remedy,
                "requests that look like Segment's were refused; Segment retries them for a few \
                 hours only"
            );
        } else {
            tracing::warn!(
                path,
                count,
                reason,
                credential,
                why,
                remedy,
                "requests that look like Segment's were refused; Segment will not retry them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::receive::fake::entrance;

    const NOW: Timestamp = Timestamp(1_750_000_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn doors() -> Doors {
        Doors::new([entrance("production"), entrance("staging")])
    }

    fn asked(method: &Method, header: Option<&'static str>) -> Asked {
        let headers: HeaderMap = header
            .into_iter()
            .map(|name| {
                (name.parse().expect("a header"), http::HeaderValue::from_static("Bearer x"))
            })
            .collect();
        Asked::of(method, &headers)
    }

    fn signed() -> Asked {
        asked(&Method::POST, Some("x-signature"))
    }

    #[test]
    fn what_looks_like_segments_needs_somebody_until_that_path_succeeds() {
        let doors = doors();
        let production = doors.at("production").expect("it is there");
        let at = At::Door(&production, "");
        // request, refusal, whether it is remembered
        let table = [
            (signed(), Refusal::Unauthenticated, true),
            (asked(&Method::PUT, None), Refusal::Unauthenticated, true),
            (asked(&Method::GET, None), Refusal::MethodNotAllowed, false),
            (asked(&Method::GET, Some("authorization")), Refusal::MethodNotAllowed, true),
            (signed(), Refusal::TooLarge, true),
            // Segment retries these
            (signed(), Refusal::TooMany, false),
            (signed(), Refusal::Busy, false),
            (signed(), Refusal::Unavailable, false),
            (signed(), Refusal::Disabled, false),
        ];
        for (asked, refusal, is_remembered) in table {
            let refused = Refused::default();
            refused.note(&at, &doors, asked, refusal, NOW);
            refused.note(&at, &doors, asked, refusal, NOW.after(Duration::from_secs(9)));
            let paths = refused.paths(NOW.after(400 * DAY));
            assert_eq!(!paths.is_empty(), is_remembered, "{asked:?} {refusal:?}");
            assert_eq!(refused.counts()[0].3, 2, "{refusal:?}");
            if let [path] = &paths[..] {
                assert!(path.needs_attention && path.count == 2, "{path:?}");
                assert_eq!((&*path.path, path.first_at), ("/segment/production", NOW));
                assert!(!path.why.is_empty() && !path.remedy.is_empty(), "{path:?}");
                refused
                    .succeeded(&At::Door(&doors.at("staging").expect("it is there"), ""), || NOW);
                assert_eq!(refused.paths(NOW).len(), 1, "another path's success");
                refused.succeeded(&at, || NOW);
                assert_eq!(refused.paths(NOW), []);
            }
        }
    }

    #[test]
    fn a_path_that_nobody_has_counts_for_a_time_and_concerns_whom_it_meant() {
        let (refused, doors) = (Refused::default(), doors());
        for path in ["/segment/prodution", "/hooks"] {
            let (at, unknown) = (At::Astray(path), Refusal::UnknownDestination);
            refused.note(&at, &doors, signed(), unknown, NOW);
            refused.note(&at, &doors, asked(&Method::POST, None), unknown, NOW.after(DAY));
        }
        let [everybodys, productions] = &refused.paths(NOW)[..] else { panic!("two") };
        assert_eq!(everybodys.path, ELSEWHERE);
        assert_eq!((everybodys.destinations.len(), productions.destinations.len()), (2, 1));
        assert_eq!((productions.count, productions.needs_attention), (1, true));
        assert!(productions.remedy.contains("/segment/production"), "{productions:?}");
        let counts =
            |at| refused.paths(at).iter().map(|path| path.needs_attention).collect::<Vec<_>>();
        let second = Duration::from_secs(1);
        assert_eq!(counts(NOW.after(ELSEWHERE_FOR).before(second)), [true, true]);
        assert_eq!(counts(NOW.after(ELSEWHERE_FOR)), [false, true]);
        assert_eq!(counts(NOW.after(DAY).before(second)), [false, true]);
        assert_eq!(counts(NOW.after(DAY)), [false, false]);
    }

    #[test]
    fn a_slip_is_over_once_what_was_meant_takes_requests() {
        let (refused, doors) = (Refused::default(), doors());
        let slip = At::Astray("/segment/prodution");
        refused.note(&slip, &doors, signed(), Refusal::UnknownDestination, NOW);
        let needs_attention = || refused.paths(NOW.after(DAY / 2))[0].needs_attention;
        let succeeds = |name: &str, after: Duration| {
            let door = doors.at(name).expect("it is there");
            refused.succeeded(&At::Door(&door, ""), || NOW.after(after));
            needs_attention()
        };
        assert!(succeeds("staging", FIXED_AFTER), "another one");
        let almost = FIXED_AFTER.checked_sub(Duration::from_millis(1)).expect("it is longer");
        assert!(succeeds("production", almost), "a second source may still be wrong");
        assert!(!succeeds("production", FIXED_AFTER));
    }

    #[test]
    fn what_is_open_is_remembered_over_a_restart() {
        let (refused, doors) = (Refused::default(), doors());
        let door = doors.at("production").expect("it is there");
        for (at, refusal) in [
            (At::Door(&door, ""), Refusal::Unauthenticated),
            (At::Door(&door, "/audiences"), Refusal::BadAudience),
            (At::Astray("/segment/prodution"), Refusal::UnknownDestination),
        ] {
            refused.note(&at, &doors, signed(), refusal, NOW);
        }
        refused.succeeded(&At::Door(&door, "/audiences"), || NOW);
        let text = serde_json::to_string(&refused.remembered(NOW)).expect("names and numbers");
        let next = Refused::default();
        next.carry_on(crate::json::from_str(&text).expect("what was written"), None);
        assert_eq!(next.paths(NOW).len(), 2);
        assert_eq!(next.paths(NOW), refused.paths(NOW));
        next.succeeded(&At::Door(&door, ""), || NOW);
        assert_eq!(next.paths(NOW).len(), 1);
    }

    #[test]
    fn a_broken_header_of_a_load_balancer_needs_somebody_until_any_request_is_taken() {
        let doors = doors();
        for is_expected in [false, true] {
            let refused = Refused::default();
            for malformed in [Malformed::Line, Malformed::Short] {
                refused.note_closed(malformed, &doors, is_expected, NOW);
            }
            let counted = ("*".to_owned(), "bad_proxy_header", "none", 2);
            assert_eq!(refused.counts(), [counted], "strangers' are counted too");
            let paths = refused.paths(NOW);
            assert_eq!(paths.len(), usize::from(is_expected));
            let Some(path) = paths.first() else { continue };
            assert!(path.needs_attention && path.count == 2, "{path:?}");
            assert!(path.why.contains(Malformed::Short.what()), "{path:?}");
            assert!(path.remedy.contains("listen.proxy_protocol"), "{path:?}");
            refused.keep_paths(|_| false);
            assert_eq!(refused.paths(NOW).len(), 1, "a reload changes nothing about it");
            refused.succeeded(&At::Door(&doors.at("staging").expect("it is there"), ""), || NOW);
            assert_eq!(refused.paths(NOW), []);
        }
        let refused = Refused::default();
        let preflight = asked(&Method::OPTIONS, Some("authorization"));
        refused.note(&At::Call("track", None), &doors, preflight, Refusal::OriginNotListed, NOW);
        assert_eq!((refused.counts()[0].3, refused.paths(NOW).len()), (1, 0), "anybody may ask");
    }

    #[test]
    fn what_is_proven_has_a_place_whatever_strangers_send() {
        let (refused, doors) = (Refused::default(), doors());
        let note = |path: &str, is_proven| {
            let asked = Asked { is_proven, ..signed() };
            refused.note(&At::Astray(path), &doors, asked, Refusal::UnknownDestination, NOW);
        };
        (0..100).for_each(|number| note(&format!("/segment/production{number}"), false));
        refused.note(&At::Call("track", None), &doors, signed(), Refusal::NotFound, NOW);
        note("/segment/prodution", true);
        (100..200).for_each(|number| note(&format!("/segment/production{number}"), false));
        let shown = refused.paths(NOW);
        let is_shown = |path: &str| shown.iter().any(|of| of.path == path);
        assert!(is_shown("/segment/prodution") && is_shown("/v1/track"), "{shown:?}");
        assert!(shown.len() == MOST_ASTRAY + 2, "{shown:?}");

        ('a'..='z').for_each(|c| note(&format!("/segment/production{c}"), true));
        let shown = refused.paths(NOW);
        assert_eq!(shown.iter().filter(|of| of.path.starts_with("/segment/")).count(), MOST_ASTRAY);
        assert!(shown.iter().any(|of| of.path == "/segment/prodution"), "the first stay");
    }

    #[test]
    fn strangers_fill_a_few_places() {
        let (refused, doors) = (Refused::default(), doors());
        let note = |path: &str, at| {
            refused.note(&At::Astray(path), &doors, signed(), Refusal::NotFound, at);
        };
        (0..100).for_each(|number| note(&format!("/x{number}"), NOW));
        (0..100).for_each(|number| note(&format!("/segment/production{number}"), NOW));
        let shown = refused.paths(NOW);
        assert_eq!(shown.len(), MOST_ASTRAY + 1);
        let elsewhere = 200 - MOST_ASTRAY as u64;
        assert_eq!((&*shown[0].path, shown[0].count), (ELSEWHERE, elsewhere));
        assert_eq!(refused.counts().len(), 1);
        note("/segment/prodution", NOW.after(DAY));
        let shown = refused.paths(NOW.after(DAY));
        assert!(shown.len() == 2 && shown[1].path == "/segment/prodution", "{shown:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_path_has_a_line_a_minute() {
        let (refused, doors) = (Refused::default(), doors());
        let unsaid = || refused.state().paths.values().map(|at| at.unsaid).sum::<u64>();
        let note = || {
            let at = At::Astray("/hooks");
            refused.note(&at, &doors, signed(), Refusal::NotFound, NOW);
        };
        let stop = CancellationToken::new();
        let seeing = async {
            (0..40).for_each(|_| note());
            sleep(GATHER * 2).await;
            assert_eq!(unsaid(), 0);
            note();
            sleep(GATHER * 50).await;
            assert_eq!(unsaid(), 1, "not yet");
            sleep(GATHER * 15).await;
            assert_eq!(unsaid(), 0);
            note();
            stop.cancel();
        };
        tokio::join!(refused.watch(stop.clone()), seeing);
        assert_eq!(unsaid(), 0, "the rest is said at the end");
    }
}

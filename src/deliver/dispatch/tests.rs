//! The decisions, with a simple ledger and a LaunchDarkly that answers as each test says.

mod lingering;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::launchdarkly::{Answer, Fate, Outcome, RateLimits, Window, classify};
use crate::ledger::{Backlog, ClaimedMember, SOLE_OWNER};
use crate::membership::{AudienceKey, ContextKind, DestinationName, Membership};

const FLOOR: Duration = Duration::from_millis(500);
const CEILING: Duration = Duration::from_secs(30);
const LINGER: Duration = Duration::from_millis(500);

fn policy(max_batch: usize) -> Policy {
    Policy {
        max_body_bytes: 1 << 20,
        max_batch: NonZeroUsize::new(max_batch).expect("not zero"),
        linger: LINGER,
        concurrency: NonZeroUsize::new(4).expect("not zero"),
        min_concurrency: NonZeroUsize::MIN,
        retry_floor: FLOOR,
        retry_ceiling: CEILING,
    }
}

fn id(audience: &str) -> AudienceId {
    AudienceId::new(audience).expect("not empty")
}

fn status(code: u16) -> Answer {
    let status = http::StatusCode::from_u16(code).expect("a status");
    let body = br#"{"code":"invalid_request","message":"no","id":"1234"}"#;
    classify(status, &http::HeaderMap::new(), body)
}

fn unheard() -> Answer {
    let outcome =
        Outcome::Unavailable { cause: "timeout".to_owned(), fate: Fate::Open, refusal: None };
    Answer { outcome, limits: RateLimits::default(), status: None }
}

/// One destination: what is pending, what was parked and what LaunchDarkly took. The clock advances
/// only when there is nothing to do.
struct World {
    dispatch: Dispatch,
    now: Instant,
    pending: BTreeMap<AudienceId, Vec<String>>,
    since: BTreeMap<AudienceId, Instant>,
    acknowledged: BTreeSet<AudienceId>,
    alone: BTreeSet<String>,
    parked: BTreeSet<String>,
    taken: Vec<String>,
    /// Audience and number of members of each call, in order.
    calls: Vec<(String, usize)>,
    unheard: usize,
}

impl World {
    fn new(max_batch: usize) -> Self {
        Self {
            dispatch: Dispatch::new(policy(max_batch)),
            now: Instant::now(),
            pending: BTreeMap::new(),
            since: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            alone: BTreeSet::new(),
            parked: BTreeSet::new(),
            taken: Vec::new(),
            calls: Vec::new(),
            unheard: 0,
        }
    }

    fn add(&mut self, audience: &str, members: impl IntoIterator<Item = String>) -> &mut Self {
        self.since.insert(id(audience), self.now);
        self.pending.entry(id(audience)).or_default().extend(members);
        self
    }

    fn backlog(&self) -> Vec<Backlog> {
        let waiting = self.pending.iter().filter(|(_, members)| !members.is_empty());
        waiting
            .map(|(audience, members)| Backlog {
                audience: audience.clone(),
                waiting: members.len() as u64,
                waiting_since: self.since[audience],
                acknowledged: self.acknowledged.contains(audience),
            })
            .collect()
    }

    /// Carries out the courier's next step, claims included. `Err`: there is nothing to send until this
    /// time.
    fn next(&mut self) -> Result<Batch, Option<Instant>> {
        match self.dispatch.next(self.now, &self.backlog()) {
            Step::Send(batch) => Ok(self.send(batch)),
            Step::Claim { audience, limit } => {
                let waiting = self.pending.get_mut(&audience).expect("only what waits");
                let alone = self.alone.contains(&waiting[0]);
                let fits = waiting.iter().take_while(|who| !self.alone.contains(*who)).count();
                let count = if alone { 1 } else { fits.min(limit.get()) };
                let members = waiting.drain(..count).collect();
                Ok(self.send(batch(&audience, members)))
            }
            Step::ClaimAgain { route, context_key } => {
                let again = vec![context_key.as_str().to_owned()];
                Ok(self.send(batch(&route.audience, again)))
            }
            Step::ClaimTold { .. } => {
                let reports = self.dispatch.nobody_told();
                self.report(reports);
                self.next()
            }
            Step::Wait(until) => Err(until),
        }
    }

    fn send(&mut self, batch: Batch) -> Batch {
        self.calls.push((batch.route.audience.as_str().to_owned(), batch.members.len()));
        self.dispatch.sent(&batch);
        batch
    }

    fn answer(&mut self, batch: Batch, answer: Answer) {
        let now = Now {
            instant: self.now,
            wall: Timestamp(1_750_000_000_000_000),
            took: Duration::ZERO,
            draw: 1.0,
        };
        let reports = self.dispatch.answered(batch, answer, now);
        self.report(reports);
    }

    fn report(&mut self, reports: Vec<Report>) {
        for report in reports {
            match report {
                Report::Settle(batch) => {
                    self.acknowledged.insert(batch.route.audience.clone());
                    for who in names(&batch) {
                        self.alone.remove(&who);
                        self.taken.push(who);
                    }
                }
                Report::Release(batch, unheard) => {
                    self.unheard += usize::from(unheard == Unheard::Perhaps) * batch.members.len();
                    let waiting = self.pending.entry(batch.route.audience.clone()).or_default();
                    let at = if unheard == Unheard::NoAndLast { waiting.len() } else { 0 };
                    waiting.splice(at..at, names(&batch));
                }
                Report::Park(batch, reason) => {
                    assert_eq!(reason.id, "1234");
                    self.parked.extend(names(&batch));
                }
                Report::Split(halves) => {
                    assert!(halves.iter().all(|half| !half.members.is_empty()));
                }
                Report::Unpark(batch) => {
                    for who in names(&batch) {
                        assert!(self.parked.remove(&who));
                        self.alone.insert(who.clone());
                        self.pending.entry(batch.route.audience.clone()).or_default().push(who);
                    }
                }
            }
        }
    }

    /// Answers each call at once and advances the clock when there is nothing to do, until nothing is
    /// pending or `enough` calls were made.
    fn run(&mut self, enough: usize, launchdarkly: impl Fn(&Batch, Instant) -> Answer) {
        while self.calls.len() < enough {
            match self.next() {
                Ok(batch) => {
                    let answer = launchdarkly(&batch, self.now);
                    self.answer(batch, answer);
                }
                Err(Some(until)) => self.now = until,
                Err(None) => return,
            }
        }
    }
}

fn batch(audience: &AudienceId, members: Vec<String>) -> Batch {
    let route = Arc::new(Route {
        destination: DestinationName::new("production").expect("not empty"),
        audience: audience.clone(),
        audience_key: AudienceKey::new("key").expect("not empty"),
        context_kind: ContextKind::new("user").expect("a kind"),
    });
    let member = |who: String| ClaimedMember {
        context_key: ContextKey::new(&who).expect("not empty"),
        membership: Membership::In,
        version: Timestamp(1),
    };
    Batch { route, members: members.into_iter().map(member).collect(), token: SOLE_OWNER }
}

fn names(batch: &Batch) -> Vec<String> {
    batch.members.iter().map(|member| member.context_key.as_str().to_owned()).collect()
}

fn people(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("p{n:04}"))
}

/// Answers 400 to any call that contains one of `bad`.
fn refusing(bad: BTreeSet<String>) -> impl Fn(&Batch, Instant) -> Answer {
    move |batch, _| {
        let refused = names(batch).iter().any(|who| bad.contains(who));
        status(if refused { 400 } else { 204 })
    }
}

#[test]
fn a_batch_goes_when_it_is_full_or_has_lingered() {
    let mut world = World::new(10);
    world.add("a", people(9));
    let began = world.now;
    let due = world.next().expect_err("neither full nor old").expect("somebody waits");
    assert!(due > began && due <= began + LINGER);
    world.add("a", ["late".to_owned()]);
    assert_eq!(world.next().expect("full").members.len(), 10);
}

#[test]
fn with_nothing_wrong_calls_are_the_fewest_possible() {
    let mut world = World::new(1000);
    world.add("a", people(2500)).add("b", people(1)).add("c", people(1000));
    world.run(99, |_, _| status(204));
    assert_eq!(world.calls.len(), 3 + 1 + 1);
    assert_eq!(world.taken.len(), 3501);
}

#[test]
fn audiences_take_turns() {
    let mut world = World::new(10);
    world.add("big", people(100)).add("small", people(10));
    world.run(99, |_, _| status(204));
    let position = world.calls.iter().position(|(audience, _)| audience == "small");
    assert!(position.is_some_and(|position| position <= 1), "{:?}", world.calls);
}

#[test]
fn a_segment_that_is_being_created_has_one_call_and_an_acknowledged_one_has_more() {
    let mut world = World::new(10);
    world.add("a", people(100));
    let first = world.next().expect("due");
    assert_eq!(world.next().expect_err("it is being created"), None);
    world.answer(first, status(204));
    let flights: Vec<_> = std::iter::from_fn(|| world.next().ok()).collect();
    assert_eq!(flights.len(), 4, "as many as the concurrency allows");
}

#[test]
fn one_bad_member_of_a_thousand_is_found_in_few_calls_and_the_rest_is_delivered() {
    for bad in ["p0000", "p0500", "p0999"] {
        let mut world = World::new(1000);
        world.add("a", people(1000));
        world.run(999, refusing([bad.to_owned()].into()));
        assert_eq!(world.parked, [bad.to_owned()].into());
        assert_eq!(world.taken.len(), 999);
        assert!(world.calls.len() <= 22, "{} calls", world.calls.len());
    }
}

#[test]
fn every_bad_member_is_parked_however_they_lie() {
    let runs: [(&str, Vec<usize>); 4] = [
        ("two", vec![3, 197]),
        ("twelve side by side", (40..52).collect()),
        ("every other one", (0..200).step_by(2).collect()),
        ("the first half", (0..100).collect()),
    ];
    for (case, bad) in runs {
        let bad: BTreeSet<_> = bad.into_iter().map(|n| format!("p{n:04}")).collect();
        let mut world = World::new(200);
        world.add("a", people(200)).run(20_000, refusing(bad.clone()));
        assert_eq!(world.parked, bad, "{case}");
        let taken: BTreeSet<_> = world.taken.iter().cloned().collect();
        assert_eq!(taken, people(200).filter(|who| !bad.contains(who)).collect(), "{case}");
        assert_eq!(world.dispatch.standing(), Standing::default(), "{case}: held at the end");
    }
}

#[test]
fn a_refusal_that_is_everybodys_holds_the_destination_and_parks_nobody() {
    let mut world = World::new(100);
    world.add("a", people(40)).add("b", people(40).map(|who| format!("other-{who}")));
    world.run(300, |_, _| status(400));
    assert!(world.parked.is_empty(), "{} parked", world.parked.len());
    let held = world.dispatch.standing().held.expect("held");
    assert_eq!((held.status, held.answer_id.as_str()), (400, "1234"));
    world.run(9999, |_, _| status(204));
    assert_eq!(world.taken.len(), 80);
    assert_eq!(world.dispatch.standing(), Standing::default());
}

#[test]
fn a_refused_token_holds_and_is_probed_ever_more_rarely_up_to_the_ceiling() {
    for code in [401, 403, 404, 405] {
        let mut world = World::new(10);
        world.add("a", people(30)).add("b", people(30));
        let mut times = Vec::new();
        for _ in 0..12 {
            let calls = world.calls.len();
            world.run(calls + 1, |_, _| status(code));
            times.push(world.now);
        }
        let held = world.dispatch.standing().held.expect("held");
        assert_eq!(held.status, code);
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert_eq!(gaps.last(), Some(&CEILING));
        assert_eq!(world.parked.len() + world.taken.len(), 0);
        world.run(999, |_, _| status(204));
        assert_eq!(world.taken.len(), 60);
    }
}

#[test]
fn a_change_ends_a_hold_and_pauses_after_failures() {
    for failure in [401, 404, 405, 409, 503] {
        let mut world = World::new(10);
        world.add("a", people(30));
        world.run(1, |_, _| status(failure));
        assert!(world.next().is_err(), "it waits");
        world.dispatch.change(policy(10), world.now);
        assert_eq!(world.dispatch.standing(), Standing::default());
        world.next().expect("at once");
    }
    let mut world = World::new(10);
    world.add("a", people(30));
    let limits = RateLimits { retry_after: Some(Duration::from_secs(60)), ..RateLimits::default() };
    world.run(1, |_, _| Answer { limits, ..status(429) });
    world.dispatch.change(policy(10), world.now);
    assert!(world.next().is_err(), "what LaunchDarkly has asked for is not over");
}

#[test]
fn a_call_of_before_a_change_cannot_hold_what_was_changed() {
    let mut world = World::new(10);
    world.add("a", people(5));
    world.now += LINGER;
    let before = world.next().expect("they are due");
    world.dispatch.change(policy(10), world.now);
    let reports = world.dispatch.came_back(before.clone(), Unheard::No);
    assert!(matches!(&reports[..], [Report::Release(_, Unheard::No)]), "{reports:?}");
    assert_eq!(world.dispatch.standing(), Standing::default());
    world.add("a", names(&before));
    world.now += LINGER;
    world.run(99, |_, _| status(204));
    assert_eq!(world.taken.len(), 5);
}

#[test]
fn what_was_not_sent_or_was_given_up_is_nobodys_fault() {
    for unheard in [Unheard::Unsent, Unheard::Perhaps] {
        let mut world = World::new(10);
        world.add("a", people(5));
        world.now += LINGER;
        let unsent = world.next().expect("they are due");
        let reports = world.dispatch.came_back(unsent.clone(), unheard);
        assert!(matches!(&reports[..], [Report::Release(_, of)] if *of == unheard), "{reports:?}");
        world.add("a", names(&unsent));
        world.now += LINGER;
        assert_eq!(world.next().expect("without a pause").members.len(), 5);
    }
}

#[test]
fn while_held_one_probe_at_a_time_is_in_flight() {
    let mut world = World::new(10);
    world.add("a", people(90));
    world.run(1, |_, _| status(401));
    world.now += CEILING;
    let probe = world.next().expect("a probe");
    assert_eq!(world.next().expect_err("one at a time"), None);
    world.answer(probe, status(204));
    world.next().expect("on as before");
}

#[test]
fn too_large_halves_the_batches_and_parks_only_what_is_too_large_alone() {
    let mut world = World::new(64);
    world.add("a", people(64));
    world.run(999, |batch, _| {
        let huge = names(batch) == ["p0007"];
        status(if batch.members.len() > 10 || huge { 413 } else { 204 })
    });
    assert!(world.calls.iter().skip(3).all(|(_, members)| *members <= 8), "{:?}", world.calls);
    let mut world = World::new(2);
    world.add("a", people(3));
    world.run(999, |batch, _| {
        status(if names(batch).contains(&"p0001".to_owned()) { 413 } else { 204 })
    });
    assert_eq!(world.parked, ["p0001".to_owned()].into());
    assert_eq!(world.taken, ["p0000", "p0002"]);
}

#[test]
fn rate_limits_pause_the_destination_and_lose_nothing() {
    let mut world = World::new(10);
    world.add("a", people(20)).add("b", people(20));
    let limited = Answer {
        limits: RateLimits { retry_after: Some(Duration::from_secs(7)), ..RateLimits::default() },
        ..status(429)
    };
    let first = world.next().expect("due");
    let began = world.now;
    world.answer(first, limited);
    let until = world.next().expect_err("paused").expect("not for ever");
    assert!(until >= began + Duration::from_secs(7));
    world.run(99, |_, _| status(204));
    assert_eq!(world.taken.len(), 40);
}

#[test]
fn calls_slow_down_before_a_limit_is_used_up() {
    let mut world = World::new(10);
    world.add("a", people(50));
    let wall = 1_750_000_000_000_000;
    let window =
        Window { limit: Some(100), remaining: Some(9), reset: Some(Timestamp(wall + 5_000_000)) };
    let running_low =
        || Answer { limits: RateLimits { route: window, ..RateLimits::default() }, ..status(204) };
    world.run(1, |_, _| running_low());
    let began = world.now;
    world.run(4, |_, _| running_low());
    assert!(world.now - began >= Duration::from_secs(1), "half a second between calls");
}

#[test]
fn an_answer_without_headers_keeps_the_pace_until_the_reset() {
    let mut world = World::new(10);
    world.add("a", people(200));
    let wall = 1_750_000_000_000_000;
    let window =
        Window { limit: Some(100), remaining: Some(10), reset: Some(Timestamp(wall + 5_000_000)) };
    let limits = RateLimits { route: window, ..RateLimits::default() };
    world.run(1, |_, _| Answer { limits, ..status(204) });
    let began = world.now;
    world.run(9, |_, _| status(204));
    assert!(world.now - began >= Duration::from_millis(3500), "half a second between calls");
    world.run(12, |_, _| status(204));
    let reset = world.now;
    world.run(20, |_, _| status(204));
    assert_eq!(world.now, reset, "at the reset it is over");
}

#[test]
fn the_next_window_is_spread_too_until_it_says_what_remains() {
    let mut world = World::new(10);
    world.acknowledged.insert(id("a"));
    world.add("a", people(90));
    let wall = 1_750_000_000_000_000;
    let window =
        Window { limit: Some(2), remaining: Some(0), reset: Some(Timestamp(wall + 3_000_000)) };
    let limits = RateLimits { route: window, ..RateLimits::default() };
    let first = world.next().expect("due");
    world.answer(first, Answer { limits, ..status(204) });
    let reset = world.next().expect_err("nothing remains").expect("not for ever");
    world.now = reset;
    world.next().expect("the window is new");
    let next = world.next().expect_err("two calls a window, and no answer yet");
    assert_eq!(next, Some(reset + Duration::from_secs(5)));
}

#[test]
fn a_conflict_is_the_audiences_own_and_soon_tried_again() {
    let mut world = World::new(10);
    world.add("a", people(10)).add("b", people(10));
    let a = world.next().expect("due");
    let began = world.now;
    world.answer(a, status(409));
    assert_eq!(world.next().expect("b is not concerned").route.audience, id("b"));
    world.run(9, |_, _| status(204));
    assert!(world.now - began <= Duration::from_secs(1));
    assert!(world.taken.len() >= 10);
}

#[test]
fn one_audience_that_fails_delays_no_other_and_several_that_fail_alike_are_the_destination() {
    let mut world = World::new(10);
    world.add("a", people(10)).add("b", people(30));
    world.run(4, |batch, _| status(if batch.route.audience == id("a") { 500 } else { 204 }));
    assert_eq!(world.taken.len(), 30, "b is delivered while a fails");

    let mut world = World::new(10);
    world.add("a", people(10)).add("b", people(10)).add("c", people(10)).add("d", people(10));
    let flights: Vec<_> = std::iter::from_fn(|| world.next().ok()).collect();
    assert_eq!(flights.len(), 4);
    for flight in flights {
        world.answer(flight, unheard());
    }
    assert_eq!(world.unheard, 40, "their members are told once more later");
    world.next().expect_err("the destination backs off");
    world.now += CEILING;
    let probe = world.next().expect("one finds out whether it is over");
    assert_eq!(world.next().expect_err("alone"), None);
    world.answer(probe, status(204));
    world.next().expect("on as before");
}

#[test]
fn hours_of_failure_are_survived_at_the_ceiling_and_then_all_is_delivered() {
    let mut world = World::new(10);
    world.add("a", people(100)).add("b", people(100));
    let began = world.now;
    let over = began + Duration::from_secs(6 * 3600);
    world.run(usize::MAX, |_, now| if now < over { unheard() } else { status(204) });
    assert_eq!(world.taken.len(), 200);
    assert!(world.calls.len() < 20 + 2 * 6 * 3600 / 25, "{} calls", world.calls.len());
    assert!(world.now - over <= 2 * CEILING, "and soon after it is over");
}

#[test]
fn stopping_gives_back_the_halves_that_were_not_sent() {
    let mut world = World::new(8);
    world.add("a", people(8));
    let whole = world.next().expect("full");
    world.answer(whole, status(400));
    let given_back: usize = world
        .dispatch
        .release_parts()
        .iter()
        .map(|report| match report {
            Report::Release(batch, Unheard::No) => batch.members.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(given_back, 8);
}

/// Makes calls without answering any until no more may be in flight; returns them.
fn out_at_once(world: &mut World) -> Vec<Batch> {
    let mut out = Vec::new();
    loop {
        match world.next() {
            Ok(batch) => out.push(batch),
            Err(Some(until)) if out.is_empty() => world.now = until,
            Err(_) => return out,
        }
    }
}

#[test]
fn trouble_halves_the_calls_at_once_and_clean_answers_bring_them_back() {
    let mut world = World::new(1);
    world.acknowledged.insert(id("a"));
    world.add("a", (0..200).map(|member| format!("u{member}")));
    let mut rounds = Vec::new();
    for limited in [false, true, false, false, false, false] {
        let out = out_at_once(&mut world);
        rounds.push(out.len());
        world.now += Duration::from_secs(1);
        for batch in out {
            let answer = status(if limited { 429 } else { 204 });
            world.answer(batch, answer);
        }
    }
    assert_eq!(rounds, [4, 4, 2, 2, 3, 4]);
}

#[test]
fn refused_batches_of_few_audiences_are_kept_in_halves_and_those_of_others_go_back() {
    let mut dispatch = Dispatch::new(policy(10));
    let now = Now {
        instant: Instant::now(),
        wall: Timestamp(1_750_000_000_000_000),
        took: Duration::ZERO,
        draw: 1.0,
    };
    for number in 0..40 {
        let members = vec!["ada".to_owned(), "bob".to_owned()];
        let whole = batch(&id(&format!("audience{number}")), members);
        dispatch.sent(&whole);
        let reports = dispatch.answered(whole, status(400), now);
        assert!(matches!(reports[0], Report::Split(_)), "what was learnt is kept");
        let back = reports.iter().filter(|of| matches!(of, Report::Release(_, Unheard::No)));
        assert_eq!(back.count(), if number < 32 { 0 } else { 2 }, "{number}");
    }
    assert_eq!(dispatch.release_parts().len(), 2 * 32);
}

#[test]
fn a_member_that_is_refused_alone_once_is_asked_again_soon_and_the_others_go_on() {
    let mut world = World::new(10);
    world.add("a", ["odd".to_owned()]);
    world.now += LINGER;
    let first = world.next().expect("it is due");
    world.answer(first, status(400));
    world.add("a", people(3)).add("b", people(10));
    assert!(world.parked.is_empty());
    assert_eq!(world.next().expect("another audience").route.audience, id("b"));
    assert_eq!(world.dispatch.pause_of(&id("a"), world.now), FLOOR);
    let began = world.now;
    world.run(9, |_, _| status(204));
    assert_eq!(world.calls.iter().filter(|(audience, _)| audience == "a").count(), 3);
    assert!(world.taken.contains(&"odd".to_owned()) && world.parked.is_empty());
    assert!(world.now - began <= Duration::from_secs(5));
}

#[test]
fn a_second_refusal_parks_and_anything_else_between_starts_over() {
    let cases: [(&[u16], bool, usize); 4] = [
        (&[400, 400], true, 2),
        (&[400, 204], false, 2),
        (&[400, 503, 400, 204], false, 4),
        (&[422, 409, 400, 400], true, 4),
    ];
    for (answers, is_parked, calls) in cases {
        let mut world = World::new(10);
        world.add("a", ["odd".to_owned()]);
        for _ in 0..calls {
            let number = world.calls.len();
            world.run(number + 1, |_, _| status(answers[number]));
        }
        assert!(matches!(world.next(), Err(None)), "{answers:?}: it is over");
        assert_eq!(world.parked.contains("odd"), is_parked, "{answers:?}");
        assert_eq!(world.taken.is_empty(), is_parked, "{answers:?}");
    }
}

#[test]
fn only_so_many_are_kept_to_be_asked_again_and_the_others_wait_in_the_ledger() {
    let mut dispatch = Dispatch::new(policy(1));
    let now = Now {
        instant: Instant::now(),
        wall: Timestamp(1_750_000_000_000_000),
        took: Duration::ZERO,
        draw: 1.0,
    };
    // a member is taken after each refused one, so that the guard does not raise the alarm
    let mut call = |who: String, code: u16| {
        let alone = batch(&id(&format!("audience of {who}")), vec![who]);
        dispatch.sent(&alone);
        dispatch.answered(alone, status(code), now)
    };
    let mut released = 0;
    for number in 0..1030 {
        let reports = call(format!("odd{number}"), 400);
        released += reports.len();
        call(format!("fine{number}"), 204);
    }
    assert_eq!(released, 6);
    assert_eq!(dispatch.release_parts().len(), 1024);
}

#[test]
fn the_search_for_somebody_who_was_told_begins_anew_where_it_ends() {
    let mut world = World::new(1);
    world.add("a", people(40));
    world.run(10, |_, _| status(400));
    assert!(world.dispatch.suspects(), "ten in a row");
    let mut searched = Vec::new();
    for _ in 0..8 {
        loop {
            match world.dispatch.next(world.now, &world.backlog()) {
                Step::ClaimTold { after } => {
                    searched.push(after.is_some());
                    world.dispatch.nobody_told();
                }
                Step::Wait(until) => world.now = until.expect("it is probed"),
                _ => break,
            }
        }
        let waiting = world.pending.get_mut(&id("a")).expect("they wait").remove(0);
        let probe = world.send(batch(&id("a"), vec![waiting]));
        world.answer(probe, status(400));
    }
    assert!(searched.windows(2).all(|pair| pair != [true, true]), "{searched:?}");
    assert!(searched.contains(&true), "{searched:?}");
}

/// A block of 400 refused members among 2,600 that are taken.
#[test]
fn it_is_not_held_while_somebody_who_was_taken_would_be_taken_again() {
    let bad: BTreeSet<String> = people(3000).skip(1200).take(400).collect();
    let launchdarkly = refusing(bad.clone());
    let mut world = World::new(100);
    world.add("a", people(3000));
    let (mut alarms, mut is_suspected, mut most_parked) = (0, false, 0);
    loop {
        match world.next() {
            Ok(batch) => {
                let answer = launchdarkly(&batch, world.now);
                world.answer(batch, answer);
            }
            Err(Some(until)) => world.now = until,
            Err(None) => break,
        }
        assert_eq!(world.dispatch.standing(), Standing::default());
        let suspects = world.dispatch.hold.is_some();
        alarms += usize::from(suspects && !is_suspected);
        is_suspected = suspects;
        assert!(world.parked.len() >= most_parked, "nobody is unparked for a false alarm");
        most_parked = world.parked.len();
    }
    assert!(alarms > 3, "it was hardly suspected: {alarms} times");
    assert_eq!((world.parked, world.taken.len() - alarms), (bad, 2600));
}

#[test]
fn a_suspicion_that_a_change_or_a_stop_meets_is_not_forgotten() {
    let mut world = World::new(1);
    world.add("a", people(1));
    world.run(1, |_, _| status(204));
    world.add("a", people(40).skip(1));
    let is_suspected = |world: &World| world.dispatch.hold.is_some();
    while !is_suspected(&world) {
        let calls = world.calls.len();
        world.run(calls + 1, |_, _| status(400));
    }
    world.dispatch.change(policy(1), world.now);
    assert!(is_suspected(&world) && world.dispatch.standing().held.is_none());
    let parked = world.parked.len();
    let kept = world.dispatch.give_back();
    let unparked = kept.iter().filter(|report| matches!(report, Report::Unpark(_))).count();
    assert_eq!(unparked, parked);
}

/// Refuses members of `a` until a suspicion arises while a call of `b` is in flight; returns that call.
fn suspicious_beside_a_call(world: &mut World) -> Batch {
    world.add("a", people(40));
    world.add("b", people(1));
    let mut other = None;
    while !world.dispatch.suspects() {
        match world.next() {
            Ok(batch) if batch.route.audience == id("b") => other = Some(batch),
            Ok(batch) => world.answer(batch, status(400)),
            Err(until) => world.now = until.expect("somebody waits"),
        }
    }
    other.expect("both take turns")
}

#[test]
fn whoever_was_on_the_way_before_a_suspicion_is_no_witness_of_it() {
    let mut world = World::new(1);
    let other = suspicious_beside_a_call(&mut world);
    world.answer(other, status(503));
    assert!(world.dispatch.witness.is_none(), "nobody was ever taken");
}

#[test]
fn a_change_has_a_suspicion_looked_into_at_once() {
    let mut world = World::new(1);
    world.add("a", people(1));
    world.run(1, |_, _| status(204));
    let other = suspicious_beside_a_call(&mut world);
    world.dispatch.change(policy(1), world.now);
    world.dispatch.came_back(other, Unheard::No);
    let probe = world.next().expect("at once");
    world.answer(probe, status(400));
    assert!(world.dispatch.standing().held.is_some(), "somebody who was taken is refused");
}

#[test]
fn a_hold_with_nobody_left_to_ask_ends_or_says_what_it_waits_for() {
    for (code, is_over) in [(400, true), (401, false), (404, false)] {
        let mut world = World::new(1);
        world.add("a", people(20));
        while world.dispatch.standing().held.is_none() {
            let calls = world.calls.len();
            world.run(calls + 1, |_, _| status(code));
        }
        world.pending.clear(); // parked, forgotten or dropped in the meantime
        while let Err(Some(until)) = world.next() {
            world.now = until;
        }
        let held = world.dispatch.standing().held;
        assert_eq!(held.is_none(), is_over, "{code}");
        assert!(held.is_none_or(|held| held.reason().contains("the next member that changes")));

        world.add("a", people(3));
        world.now += CEILING;
        let probe = world.next().expect("it is asked at once");
        assert!(is_over || world.dispatch.standing().held.is_some_and(|held| !held.has_no_probe));
        world.answer(probe, status(204));
        world.run(9999, |_, _| status(204));
        assert_eq!((world.taken.len(), world.dispatch.standing()), (3, Standing::default()));
    }
}

#[test]
fn a_hold_with_nobody_who_waits_asks_somebody_who_was_taken() {
    let mut world = World::new(10);
    world.add("a", people(10));
    world.run(1, |_, _| status(401));
    world.pending.clear();
    world.now += CEILING;
    let asked = world.dispatch.next(world.now, &world.backlog());
    assert!(matches!(asked, Step::ClaimTold { after: None }), "{asked:?}");
}

#[test]
fn an_outage_postpones_its_audience_as_retry_after_says_and_the_destination_if_others_fail_too() {
    let asks = || {
        let retry_after = Some(Duration::from_secs(40));
        Answer { limits: RateLimits { retry_after, ..RateLimits::default() }, ..status(503) }
    };
    let mut world = World::new(10);
    world.add("a", people(10)).add("b", people(10)).add("c", people(10));
    let first = world.next().expect("due");
    world.answer(first, asks());
    assert!(world.dispatch.pause_of(&id("a"), world.now) >= Duration::from_secs(40));
    assert_eq!(world.dispatch.pause(world.now), Duration::ZERO);
    let second = world.next().expect("others go on");
    world.answer(second, asks());
    assert!(world.dispatch.pause(world.now) >= Duration::from_secs(40), "several fail alike");
    world.next().expect_err("c waits too");
}

#[test]
fn a_hold_has_the_words_and_what_to_do() {
    for (code, what, names) in [
        (401, "token_refused", "service_token"),
        (403, "not_permitted", "service_token"),
        (404, "unknown_environment", "client_side_id"),
        (405, "unexpected", "base_url"),
    ] {
        let mut world = World::new(10);
        world.add("a", people(10));
        world.run(1, |_, _| status(code));
        let held = world.dispatch.standing().held.expect("held");
        assert_eq!((held.what, held.code.as_str()), (what, "invalid_request"));
        assert_eq!((held.message.as_str(), held.answer_id.as_str()), ("no", "1234"));
        assert!(held.why.contains(names) && !held.remedy.is_empty(), "{held:?}");
    }
}

#[test]
fn an_audience_has_claimed_members_while_they_are_in_a_call_in_parts_or_asked_again() {
    let mut world = World::new(2);
    let has_claimed = |world: &World| world.dispatch.has_claimed(&id("a"));
    world.add("a", people(2)).add("b", people(2));
    assert!(!has_claimed(&world));
    let whole = world.next().expect("full");
    assert!(has_claimed(&world), "in a call");
    world.answer(whole, status(400));
    assert!(has_claimed(&world), "in parts");
    world.run(2, |_, _| status(204)); // b
    let first = world.next().expect("a part");
    world.answer(first, status(204));
    let second = world.next().expect("the other part");
    world.answer(second, status(400));
    assert!(has_claimed(&world), "to be asked again");
    world.run(99, |_, _| status(204));
    assert!(!has_claimed(&world));
    world.add("a", people(2));
    let call = world.next().expect("full");
    world.answer(call, status(409));
    assert!(!has_claimed(&world), "back in the ledger, and only paused");
}

/// Memory does not grow with the audiences that there have ever been.
#[test]
fn an_audience_with_nothing_to_do_is_forgotten() {
    let mut world = World::new(2);
    for (number, answers) in
        [&[204][..], &[503, 204], &[409, 204], &[400, 204, 204]].iter().enumerate()
    {
        world.add(&format!("audience{number}"), people(2));
        for answer in *answers {
            let calls = world.calls.len();
            world.run(calls + 1, |_, _| status(*answer));
        }
        assert!(matches!(world.next(), Err(None)), "{answers:?}");
        assert!(world.dispatch.audiences.is_empty(), "{answers:?}: {:?}", world.dispatch.audiences);
    }
}

#[test]
fn stopping_unparks_whoever_was_parked_on_a_suspicion_and_gives_back_the_rest() {
    let mut world = World::new(4);
    world.add("a", people(4));
    let whole = world.next().expect("full");
    world.answer(whole, status(400));
    let given_back: usize = world.dispatch.give_back().iter().map(Report::members).sum();
    assert_eq!(given_back, 4);
    assert!(world.dispatch.give_back().is_empty());
}

/// A call that is due, however long that takes.
fn next_call(world: &mut World) -> Batch {
    loop {
        match world.next() {
            Ok(batch) => return batch,
            Err(until) => world.now = until.expect("something is due"),
        }
    }
}

#[test]
fn a_probe_that_shows_nothing_is_made_again_with_the_same_member() {
    let mut world = World::new(1);
    world.add("a", ["taken before".to_owned()]);
    world.run(1, |_, _| status(204));
    world.add("a", people(40));
    while !world.dispatch.suspects() {
        let calls = world.calls.len();
        world.run(calls + 1, |_, _| status(400));
    }
    for outage in [503, 429, 503] {
        let probe = next_call(&mut world);
        assert_eq!(names(&probe), ["taken before"]);
        world.answer(probe, status(outage));
        assert!(world.dispatch.suspects(), "neither confirmed nor over");
    }
    let probe = next_call(&mut world);
    assert_eq!(names(&probe), ["taken before"]);
    world.answer(probe, status(204));
    assert!(!world.dispatch.suspects());
}

#[test]
fn whoever_is_to_be_asked_again_first_is_asked_first() {
    let mut dispatch = Dispatch::new(policy(1));
    let instant = Instant::now();
    for (who, draw) in [("ada", 1.0), ("bob", 0.0), ("eve", 0.5)] {
        let alone = batch(&id("a"), vec![who.to_owned()]);
        dispatch.sent(&alone);
        let (wall, took) = (Timestamp(1_750_000_000_000_000), Duration::ZERO);
        dispatch.answered(alone, status(400), Now { instant, wall, took, draw });
    }
    assert_eq!(dispatch.pause_of(&id("a"), instant), FLOOR / 2);
    let state = dispatch.audiences.get_mut(&id("a")).expect("it has suspects");
    let order: Vec<_> = std::iter::from_fn(|| state.next_kept(instant + FLOOR)).collect();
    assert_eq!(order.iter().flat_map(names).collect::<Vec<_>>(), ["bob", "eve", "ada"]);
}

#[test]
fn a_held_destination_is_probed_after_half_of_the_backoff_at_least() {
    for (draw, pause) in [(0.0, FLOOR / 2), (0.5, FLOOR * 3 / 4), (1.0, FLOOR)] {
        let mut dispatch = Dispatch::new(policy(1));
        let instant = Instant::now();
        let call = batch(&id("a"), vec!["ada".to_owned()]);
        dispatch.sent(&call);
        let (wall, took) = (Timestamp(1_750_000_000_000_000), Duration::ZERO);
        dispatch.answered(call, status(401), Now { instant, wall, took, draw });
        assert_eq!(dispatch.pause(instant), pause, "{draw}");
    }
}

#[test]
fn calls_that_failed_together_count_as_one_failure_of_the_destination() {
    let mut world = World::new(10);
    for audience in ["a", "b", "c", "d"] {
        world.add(audience, people(10));
    }
    for call in out_at_once(&mut world) {
        world.answer(call, unheard());
    }
    assert_eq!(world.dispatch.pause(world.now), FLOOR);
    world.now += FLOOR;
    let probe = next_call(&mut world);
    world.answer(probe, unheard());
    assert_eq!(world.dispatch.pause(world.now), FLOOR * 2, "it has failed once more");
}

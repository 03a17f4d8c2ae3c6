//! How long changes wait for others to share their call, measured on streams of changes: calling early
//! for lone changes may add only few calls where lingering saves them.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// The result of a stream: its calls, and the median time from a change to its call.
struct Outcome {
    calls: usize,
    half: Duration,
}

/// Changes of new members, in order: the time since the start, and the audience.
type Stream = Vec<(Duration, usize)>;

impl World {
    /// Makes every call that is due before `until`, and answers it at once.
    fn call_until(&mut self, until: Instant, waits: &mut Vec<Duration>) {
        loop {
            match self.next() {
                Ok(batch) => {
                    let since = self.since.remove(&batch.route.audience).expect("it waited");
                    waits.push(self.now - since);
                    self.answer(batch, status(204));
                }
                Err(Some(at)) if at < until => self.now = self.now.max(at),
                Err(_) => break,
            }
        }
        self.now = until;
    }
}

fn delivered(stream: &Stream) -> Outcome {
    let mut world = World::new(100_000);
    let began = world.now;
    let mut waits = Vec::new();
    for (number, (at, audience)) in stream.iter().enumerate() {
        world.call_until(began + *at, &mut waits);
        let audience = id(&format!("aud_{audience}"));
        world.since.entry(audience.clone()).or_insert(world.now);
        world.pending.entry(audience).or_default().push(format!("member-{number}"));
    }
    let end = world.now + LINGER * 2;
    world.call_until(end, &mut waits);
    assert_eq!(world.taken.len(), stream.len(), "everybody is told");
    waits.sort_unstable();
    Outcome { calls: world.calls.len(), half: waits[waits.len() / 2] }
}

#[expect(clippy::cast_precision_loss, reason = "there are few")]
fn count(number: usize) -> f64 {
    number as f64
}

/// The number of calls if every change waits the full linger.
fn calls_without_haste(stream: &Stream) -> usize {
    let mut due: BTreeMap<usize, Duration> = BTreeMap::new();
    let mut calls = 0;
    for (at, audience) in stream {
        if due.get(audience).is_none_or(|due| due <= at) {
            due.insert(*audience, *at + LINGER);
            calls += 1;
        }
    }
    calls
}

/// Random arrivals: `per_second` on average for `seconds`, each a change of `together` members.
fn by_chance(
    per_second: f64,
    seconds: f64,
    audiences: usize,
    together: usize,
    seed: u64,
) -> Stream {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut stream = Vec::new();
    let mut at = 0.0;
    loop {
        at += -chance.random_range(f64::MIN_POSITIVE..1.0).ln() / per_second;
        if at > seconds {
            return stream;
        }
        let event = (Duration::from_secs_f64(at), chance.random_range(0..audiences));
        stream.extend(std::iter::repeat_n(event, together));
    }
}

fn regular(every: Duration, audiences: usize) -> Stream {
    (0..100).map(|number| (every * number, number as usize % audiences)).collect()
}

#[test]
fn a_lone_change_waits_for_its_twins_only() {
    let second = Duration::from_secs(1);
    for changes in [regular(second, 1), regular(second, 10), by_chance(0.2, 500.0, 1, 2, 1)] {
        let half = delivered(&changes).half;
        assert!(half <= Duration::from_millis(100), "{half:?}");
    }
    let twins = [0, 50, 1000, 1070].map(|ms| (Duration::from_millis(ms), 0)).to_vec();
    assert_eq!(delivered(&twins).calls, 2, "one for each change");
}

#[test]
fn haste_adds_few_calls_to_any_stream() {
    for seed in 0..5 {
        for (per_second, audiences, together) in [
            (0.5, 1, 1),
            (2.0, 1, 1),
            (2.0, 10, 2),
            (8.0, 10, 1),
            (20.0, 1, 1),
            (20.0, 10, 1),
            (40.0, 100, 1),
            (100.0, 10, 3),
        ] {
            let seconds = 600.0 / per_second;
            let stream = by_chance(per_second, seconds, audiences, together, seed);
            let (calls, without) = (delivered(&stream).calls, calls_without_haste(&stream));
            // a share of all calls, one per ten lingers, and the initial allowance
            let most = count(without) * 1.05 + seconds / 5.0 + 3.0;
            assert!(
                count(calls) <= most,
                "{per_second} changes a second of {audiences} audiences, seed {seed}: {calls} calls, {without} \
                 without haste"
            );
        }
    }
}

#[test]
fn near_a_rate_limit_changes_linger() {
    for (remaining, waits) in [(1000, Duration::from_millis(80)), (60, LINGER)] {
        let mut world = World::new(100);
        let reset = Some(Timestamp(1_750_000_000_000_000).after(Duration::from_secs(10)));
        let route = Window { limit: Some(1000), remaining: Some(remaining), reset };
        let limits = RateLimits { route, ..RateLimits::default() };
        let answer = |_: &Batch, _| Answer { limits, ..status(204) };
        world.add("one", ["first".to_owned()]);
        world.run(1, answer);
        world.now += Duration::from_secs(1);
        world.add("one", ["second".to_owned()]);
        let since = world.now;
        world.run(2, answer);
        assert_eq!(world.now - since, waits, "{remaining} calls are left");
    }
}

#[test]
fn a_linger_that_is_shorter_counts() {
    let mut world = World::new(100);
    world.dispatch = Dispatch::new(Policy { linger: Duration::from_millis(20), ..policy(100) });
    let since = world.now;
    world.add("one", ["first".to_owned()]);
    world.run(1, |_, _| status(204));
    assert_eq!(world.now - since, Duration::from_millis(20));
}

#[test]
fn what_changes_during_a_call_of_its_audience_lingers() {
    let mut world = World::new(100);
    world.acknowledged.insert(id("one"));
    world.add("one", ["first".to_owned()]);
    world.now += LINGER;
    world.next().expect("it is due");
    world.add("one", ["second".to_owned()]);
    assert_eq!(world.next().expect_err("the call is out"), Some(world.now + LINGER));
}

#[test]
fn a_full_batch_costs_none_of_the_allowance_for_early_calls() {
    let mut world = World::new(10);
    for _ in 0..3 {
        world.add("one", people(10));
        let full = world.next().expect("at once");
        world.answer(full, status(204));
    }
    world.add("one", ["lone".to_owned()]);
    let since = world.now;
    world.run(4, |_, _| status(204));
    assert_eq!(world.now - since, Duration::from_millis(80), "as the first one does");
}

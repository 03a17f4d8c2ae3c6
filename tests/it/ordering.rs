//! P2: the latest event time wins, whatever the order, number and time of arrivals, and LaunchDarkly ends
//! up with it, whatever it received before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use cohortd::clock::{Clock, ManualClock, SystemClock};
use cohortd::ledger::{
    DestinationSettings, EmbeddedLedger, GuardLimits, Intake, Recorder, Retention, Settings,
};
use cohortd::map::{Mapping, Mappings, Outcome};
use cohortd::membership::Timestamp;
use cohortd::sandbox::{Apply, Fault, Keep, StandIn, View};
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly, production,
};

const NOW_MS: i64 = 1_750_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);
const AUDIENCE: &str = "aud_vip";

async fn post(cohortd: &Cohortd, event: &Value) {
    let (status, answer) = cohortd.post(event).await.expect("an answer");
    assert_eq!(status, 200, "{answer}");
}

fn enters(user: &str, at_ms: i64) -> Value {
    identify(user, "vip", true, at_ms)
}

fn leaves(user: &str, at_ms: i64) -> Value {
    identify(user, "vip", false, at_ms)
}

/// Waits until everything posted before is delivered: the member of an audience that has waited longest is
/// sent first, so a witness that is posted last arrives last.
async fn settled(launchdarkly: &StandIn, cohortd: &Cohortd, witness: &str) {
    post(cohortd, &enters(witness, NOW_MS)).await;
    let arrived = |view: &View<'_>| view.has(ENVIRONMENT, AUDIENCE, witness);
    launchdarkly.until(DEADLINE, arrived).await.expect("the witness arrives");
}

fn is_in(launchdarkly: &StandIn, user: &str) -> bool {
    launchdarkly.segments(ENVIRONMENT)[AUDIENCE].members.contains(user)
}

async fn watched() -> (StandIn, Installation) {
    let launchdarkly = launchdarkly().await;
    launchdarkly.set_keep(Keep::Arrivals);
    let installation = Installation::new(&launchdarkly);
    (launchdarkly, installation)
}

async fn an_equal_value_moves_the_event_time_and_is_not_told_again() {
    let (launchdarkly, installation) = watched().await;
    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS + 10)).await;
    settled(&launchdarkly, &cohortd, "first").await;
    post(&cohortd, &enters("ada", NOW_MS + 30)).await;
    post(&cohortd, &leaves("ada", NOW_MS + 20)).await;
    settled(&launchdarkly, &cohortd, "second").await;
    assert!(is_in(&launchdarkly, "ada"));
    assert_eq!(launchdarkly.arrivals(ENVIRONMENT, AUDIENCE, "ada"), [true]);

    post(&cohortd, &leaves("ada", NOW_MS + 31)).await;
    settled(&launchdarkly, &cohortd, "third").await;
    assert!(!is_in(&launchdarkly, "ada"));
}

async fn a_tie_goes_to_the_later_item_and_to_the_later_request() {
    let (launchdarkly, installation) = watched().await;
    let cohortd = installation.start();
    let at = NOW_MS + 10;
    let batch = [
        enters("ada", at),
        leaves("bob", at),
        leaves("ada", at),
        enters("bob", at),
        enters("cyd", at),
    ];
    assert_eq!(cohortd.post_batch(&batch).await.expect("an answer").0, 200);
    settled(&launchdarkly, &cohortd, "first").await;
    let ins = ["ada", "bob", "cyd"].map(|user| is_in(&launchdarkly, user));
    assert_eq!(ins, [false, true, true]);

    post(&cohortd, &leaves("cyd", at)).await;
    settled(&launchdarkly, &cohortd, "second").await;
    assert!(!is_in(&launchdarkly, "cyd"));
}

async fn a_time_far_ahead_does_not_lock_a_member_and_a_time_a_little_ahead_is_believed() {
    let (launchdarkly, installation) = watched().await;
    let cohortd = installation.start();
    let minute = 60_000;
    let now = SystemClock.now().0 / 1000;
    post(&cohortd, &enters("far", now + 60 * minute)).await;
    let mut received = enters("received", now + 60 * minute);
    received["receivedAt"] = iso(now - 10 * minute).into();
    post(&cohortd, &received).await;
    let mut both_ahead = enters("both", now + 60 * minute);
    both_ahead["receivedAt"] = iso(now + 30 * minute).into();
    post(&cohortd, &both_ahead).await;
    post(&cohortd, &enters("little", now + 4 * minute)).await;

    // a minute before the arrival they are compared with, and after it
    for user in ["far", "both", "received", "little"] {
        post(&cohortd, &leaves(user, now - minute)).await;
    }
    settled(&launchdarkly, &cohortd, "first").await;
    let ins = ["far", "both", "received", "little"].map(|user| is_in(&launchdarkly, user));
    assert_eq!(ins, [true, true, false, true], "arrival, arrival, receivedAt, its own time");

    for user in ["far", "both", "little"] {
        post(&cohortd, &leaves(user, now + minute)).await;
    }
    settled(&launchdarkly, &cohortd, "second").await;
    let ins = ["far", "both", "little"].map(|user| is_in(&launchdarkly, user));
    assert_eq!(ins, [false, false, true]);
}

async fn what_is_old_stays_old_across_restarts() {
    let (launchdarkly, installation) = watched().await;
    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS + 30)).await;
    post(&cohortd, &leaves("bob", NOW_MS + 30)).await;
    settled(&launchdarkly, &cohortd, "first").await;
    assert!(cohortd.stop().0.success());

    let cohortd = installation.start();
    post(&cohortd, &leaves("ada", NOW_MS + 20)).await;
    post(&cohortd, &enters("bob", NOW_MS + 20)).await;
    settled(&launchdarkly, &cohortd, "second").await;
    assert!(is_in(&launchdarkly, "ada") && !is_in(&launchdarkly, "bob"));
    post(&cohortd, &leaves("ada", NOW_MS + 40)).await;
    cohortd.kill();

    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS + 35)).await;
    post(&cohortd, &enters("bob", NOW_MS + 41)).await;
    settled(&launchdarkly, &cohortd, "third").await;
    assert!(!is_in(&launchdarkly, "ada") && is_in(&launchdarkly, "bob"));
}

/// A script that reports when the call of a removal is in flight, and holds it until the test decides its
/// fate.
fn hold_the_first_removal(launchdarkly: &StandIn) -> (watch::Receiver<bool>, mpsc::Sender<Fault>) {
    let (is_out, out) = watch::channel(false);
    let (decide, decided) = mpsc::channel();
    let decided = Mutex::new(decided);
    launchdarkly.script(move |call| {
        let removes = call.members.iter().any(|member| !member.value);
        if !removes || is_out.send_replace(true) {
            return Fault::None;
        }
        let decided = decided.lock().expect("nothing panics");
        let decision = || decided.recv_timeout(DEADLINE).expect("the test decides");
        tokio::task::block_in_place(decision) // other work of this thread moves to another one
    });
    (out, decide)
}

async fn until_out(out: &mut watch::Receiver<bool>) {
    let gone = tokio::time::timeout(DEADLINE, out.wait_for(|out| *out)).await;
    gone.expect("the call is made").expect("the script is there");
}

/// LaunchDarkly was last sent this same value, and still it must be sent again.
async fn a_value_that_flips_back_while_a_call_is_out_is_told_after_it() {
    let (launchdarkly, mut installation) = watched().await;
    installation.set("delivery.request_timeout_ms", "30000");
    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS)).await;
    settled(&launchdarkly, &cohortd, "first").await;

    let (mut out, decide) = hold_the_first_removal(&launchdarkly);
    post(&cohortd, &leaves("ada", NOW_MS + 1)).await;
    until_out(&mut out).await;
    post(&cohortd, &enters("ada", NOW_MS + 2)).await;
    decide.send(Fault::None).expect("the script waits");

    let told = |view: &View<'_>| view.arrivals(ENVIRONMENT, AUDIENCE, "ada") == [true, false, true];
    launchdarkly.until(DEADLINE, told).await.expect("the entry is told again");
    installation.drained().await;
    assert!(is_in(&launchdarkly, "ada"));
    assert_eq!(launchdarkly.arrivals(ENVIRONMENT, AUDIENCE, "ada"), [true, false, true]);
    assert_eq!(launchdarkly.overlaps(), 0);
}

async fn a_call_that_is_applied_after_its_successor_is_put_right() {
    let (launchdarkly, mut installation) = watched().await;
    installation.set("delivery.request_timeout_ms", "1000");
    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS)).await;
    settled(&launchdarkly, &cohortd, "first").await;

    let (mut out, decide) = hold_the_first_removal(&launchdarkly);
    post(&cohortd, &leaves("ada", NOW_MS + 1)).await;
    until_out(&mut out).await;
    post(&cohortd, &enters("ada", NOW_MS + 2)).await;
    // The request times out after 1 s; 2 s after its successor was accepted, its value is sent again.
    let between = Apply::Later(Duration::from_millis(1500));
    decide.send(Fault::Hang { apply: between }).expect("the script waits");

    let told = |view: &View<'_>| view.arrivals(ENVIRONMENT, AUDIENCE, "ada").len();
    let in_the_segment = |view: &View<'_>| view.has(ENVIRONMENT, AUDIENCE, "ada");
    let wrong = |view: &View<'_>| told(view) == 3 && !in_the_segment(view);
    launchdarkly.until(DEADLINE, wrong).await.expect("the removal is applied last");
    let right = |view: &View<'_>| told(view) == 4 && in_the_segment(view);
    launchdarkly.until(DEADLINE, right).await.expect("the entry is told once more");
    installation.drained().await;
    assert_eq!(launchdarkly.arrivals(ENVIRONMENT, AUDIENCE, "ada"), [true, false, true, true]);
    assert_eq!(launchdarkly.overlaps(), 0);
}

/// A value whose call timed out does not count as delivered.
async fn a_value_that_flips_back_after_a_call_that_timed_out_is_told() {
    let (launchdarkly, installation) = watched().await;
    let cohortd = installation.start();
    post(&cohortd, &enters("ada", NOW_MS)).await;
    settled(&launchdarkly, &cohortd, "first").await;

    // The call is applied but not answered, and every later call is refused for a while.
    let mut heard = true;
    launchdarkly.script(move |_| {
        let hangs = std::mem::replace(&mut heard, false);
        if hangs { Fault::Hang { apply: Apply::Now } } else { Fault::status(503) }
    });
    post(&cohortd, &leaves("ada", NOW_MS + 1)).await;
    let refused = |view: &View<'_>| view.calls().unanswered == 1 && view.calls().refused > 0;
    launchdarkly.until(DEADLINE, refused).await.expect("the removal is tried again");
    assert!(!is_in(&launchdarkly, "ada"), "it was applied");
    post(&cohortd, &enters("ada", NOW_MS + 2)).await;
    launchdarkly.behave();
    let has = |view: &View<'_>| view.has(ENVIRONMENT, AUDIENCE, "ada");
    launchdarkly.until(DEADLINE, has).await.expect("the entry is told");
    installation.drained().await;
    assert!(is_in(&launchdarkly, "ada"));
}

/// One run of a ledger, with a clock that the test controls.
struct Life {
    ledger: EmbeddedLedger,
    writer: std::thread::JoinHandle<()>,
}

impl Life {
    fn open(directory: &tempfile::TempDir, clock: &ManualClock) -> Self {
        let kept = Retention { max_age: DAY, max_count: 10, max_bytes: 1 << 20 };
        let settings = Settings {
            path: directory.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: DAY * 7,
            rejected: kept,
            parked: kept,
            max_audiences: 10_000,
            check_every: DAY,
            destinations: vec![DestinationSettings {
                name: production(),
                environment: "one".to_owned(),
                repeat_window: DAY / 24,
                reassert_after: Duration::from_secs(1),
                expires_after: BTreeMap::new(),
                guard: GuardLimits::default(),
            }],
        };
        let opened = EmbeddedLedger::open(settings, Arc::new(clock.clone()));
        let (ledger, writer) = opened.expect("a new ledger can be opened");
        let writer = std::thread::spawn(move || writer.run().expect("the disk takes writes"));
        Self { ledger, writer }
    }

    /// Records an event as `receive` does. Returns its arrival.
    async fn record(&self, event: &Value) -> Timestamp {
        let arrival = self.ledger.arrival();
        let mappings = Mappings::from(Mapping::preset());
        let Outcome::Accepted { deltas, .. } = mappings.map(event, arrival) else {
            panic!("a delta")
        };
        let intake = Intake {
            destination: production(),
            arrival,
            deltas,
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: cohortd::ledger::Origin::Events,
        };
        self.ledger.record(intake).await.expect("the ledger is open");
        arrival
    }

    fn includes(&self, user: &str) -> bool {
        let members = self.ledger.reader().members(&production()).expect("readable");
        members.iter().any(|member| member.context_key == user && member.included)
    }

    async fn close(self) {
        self.ledger.close().await;
        self.writer.join().expect("the writer ends well");
    }
}

/// An event without a time or an id: a repeat of it is a new event.
fn without_a_time(mut event: Value) -> Value {
    let members = event.as_object_mut().expect("an event is an object");
    members.retain(|key, _| key != "timestamp" && key != "messageId");
    event
}

async fn arrival_never_runs_backwards_and_events_without_a_time_keep_their_order() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start = Timestamp(NOW_MS * 1000);
    let clock = ManualClock::at(start);
    let life = Life::open(&directory, &clock);
    assert_eq!(life.record(&without_a_time(enters("ada", 0))).await, start);

    clock.set(Timestamp(start.0 - i64::try_from(DAY.as_micros()).expect("a day is short")));
    assert!(life.record(&without_a_time(leaves("ada", 0))).await >= start);
    assert!(!life.includes("ada"), "what came later wins");
    life.close().await;

    // A start that finds the clock a day behind the recorded arrival.
    let life = Life::open(&directory, &clock);
    assert!(life.record(&without_a_time(enters("ada", 0))).await >= start);
    assert!(life.includes("ada"), "what came later wins, after a restart too");
    // An event's own time is compared with the recorded arrival, not with the clock.
    life.record(&leaves("ada", NOW_MS - 1)).await;
    assert!(life.includes("ada"));
    // The event's time is a day ahead of the clock, but not ahead of the arrival.
    life.record(&leaves("ada", NOW_MS + 60_000)).await;
    assert!(!life.includes("ada"));

    clock.set(start.after(DAY));
    assert_eq!(life.record(&without_a_time(enters("ada", 0))).await, start.after(DAY));
    assert!(life.includes("ada"));
    life.close().await;
}

tests![
    an_equal_value_moves_the_event_time_and_is_not_told_again,
    a_tie_goes_to_the_later_item_and_to_the_later_request,
    a_time_far_ahead_does_not_lock_a_member_and_a_time_a_little_ahead_is_believed,
    what_is_old_stays_old_across_restarts,
    a_value_that_flips_back_while_a_call_is_out_is_told_after_it.workers(4),
    a_call_that_is_applied_after_its_successor_is_put_right.workers(4),
    a_value_that_flips_back_after_a_call_that_timed_out_is_told.workers(4),
    arrival_never_runs_backwards_and_events_without_a_time_keep_their_order,
];

//! What a courier shows of its state, in simulated time: the decisions themselves are tested with
//! [`Dispatch`], and all of it together in [`simulation`](crate::deliver::simulation).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use rand::SeedableRng;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::ManualClock;
use crate::deliver::simulation::{BOUNDS, START, delta, destinations, production};
use crate::launchdarkly::classify;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::{Intake, Operations, Recorder};
use crate::membership::Timestamp;

const DEADLINE: Duration = Duration::from_secs(3600);

/// Answers one call after the other, each after a second; with 204 once all are used up.
#[derive(Debug)]
struct Answers {
    statuses: Mutex<VecDeque<u16>>,
    calls: Mutex<usize>,
}

#[async_trait]
impl Api for Answers {
    async fn send(&self, _: &AudienceId, _: Bytes) -> Answer {
        *self.calls.lock().expect("no test panics with it") += 1;
        let status = self.statuses.lock().expect("no test panics with it").pop_front();
        sleep(Duration::from_secs(1)).await;
        let status = StatusCode::from_u16(status.unwrap_or(204)).expect("a status");
        classify(status, &HeaderMap::new(), b"{}")
    }
}

/// An outbox of a destination that is not always this process's.
#[derive(Debug)]
struct Shared {
    outbox: Arc<dyn Outbox>,
    /// How often the ledger does not answer, and a call may not be made; how long calls may take.
    silences: AtomicUsize,
    refusals: AtomicUsize,
    lasts: Duration,
    /// What was released.
    released: Mutex<Vec<Unheard>>,
}

/// Counts down; whether there was anything to count.
fn is_left(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait]
impl Outbox for Shared {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        if is_left(&self.silences) {
            return Err(LedgerError::Unavailable("no answer".to_owned()));
        }
        self.outbox.backlog().await
    }

    fn news(&self) -> watch::Receiver<()> {
        self.outbox.news()
    }

    fn paused_since(&self) -> Option<Timestamp> {
        None
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        self.outbox.claim(claim).await
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        if let Report::Release(_, unheard) = &report {
            self.released.lock().expect("no test panics with it").push(*unheard);
        }
        self.outbox.report(report).await
    }

    fn may_call(&self, _: &Batch) -> bool {
        !is_left(&self.refusals)
    }

    async fn until_over(&self, _: &Batch) {
        sleep(self.lasts).await;
    }
}

/// A running courier.
struct Running {
    ledger: MemoryLedger,
    answers: Arc<Answers>,
    counters: Arc<Delivered>,
    standing: watch::Receiver<Standing>,
    changes: mpsc::UnboundedSender<Change>,
    stop: CancellationToken,
    courier: JoinHandle<Result<(), CourierError>>,
}

fn policy() -> Policy {
    Policy {
        max_body_bytes: 1 << 20,
        max_batch: NonZeroUsize::new(10).expect("not zero"),
        linger: Duration::from_millis(500),
        concurrency: NonZeroUsize::new(4).expect("not zero"),
        min_concurrency: NonZeroUsize::MIN,
        retry_floor: Duration::from_millis(500),
        retry_ceiling: Duration::from_secs(30),
    }
}

impl Running {
    fn start(policy: Policy, statuses: &[u16]) -> Self {
        Self::start_with(policy, statuses, |outbox| outbox)
    }

    fn start_with(
        policy: Policy,
        statuses: &[u16],
        share: impl FnOnce(Arc<dyn Outbox>) -> Arc<dyn Outbox>,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(START));
        let ledger = MemoryLedger::new(Arc::clone(&clock), BOUNDS, destinations());
        let statuses = Mutex::new(statuses.iter().copied().collect());
        let answers = Arc::new(Answers { statuses, calls: Mutex::new(0) });
        let counters = Arc::<Delivered>::default();
        let courier = Courier::new(
            production(),
            "client-side-id".to_owned(),
            Arc::clone(&answers) as Arc<dyn Api>,
            policy,
            share(ledger.outbox(&production())),
            clock,
            StdRng::seed_from_u64(1),
            Arc::clone(&counters),
        );
        let (standing, changes) = (courier.standing(), courier.changes());
        let stop = CancellationToken::new();
        let courier = tokio::spawn(courier.run(stop.clone()));
        Self { ledger, answers, counters, standing, changes, stop, courier }
    }

    async fn enter(&self, people: usize) {
        let person = |number| delta("aud", &format!("p{number}"), true, START.0);
        let intake = Intake {
            destination: production(),
            arrival: self.ledger.arrival(),
            deltas: (0..people).map(person).collect(),
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        };
        self.ledger.record(intake).await.expect("it takes everything");
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let looked = async {
            while !is_so(self) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, looked).await.expect(what);
    }

    async fn until_taken(&self) {
        self.until("all is taken", |of| of.ledger.is_drained()).await;
    }

    fn calls(&self) -> usize {
        *self.answers.calls.lock().expect("no test panics with it")
    }

    fn is_held(&self) -> bool {
        self.standing.borrow().held.is_some()
    }

    fn is_well(&self) -> bool {
        self.counters.latest().well_since.is_some()
    }

    fn failing(&self) -> usize {
        self.counters.failing_audiences().len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_shown_from_the_refusal_to_the_next_call_that_is_taken() {
    let running = Running::start(policy(), &[401, 401]);
    running.until("nothing is wrong", Running::is_well).await;
    running.enter(1).await;
    running.until("held", Running::is_held).await;
    running.until("not well", |of| !of.is_well()).await;
    let [failing] = &running.counters.failing_audiences()[..] else { panic!("one fails") };
    assert_eq!((failing.what, failing.status), ("token_refused", Some(401)));
    assert!(failing.next_attempt_at > START, "when the next probe is due");
    running.until_taken().await;
    assert!(!running.is_held());
    assert_eq!(running.failing(), 0);
    running.until("well again", Running::is_well).await;
    assert_eq!(running.counters.members.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_destination_is_not_well() {
    let running = Running::start(policy(), &[]);
    running.until("nothing is wrong", Running::is_well).await;
    running.ledger.pause(&production(), true).await.expect("it is paused");
    running.until("not well", |of| !of.is_well()).await;
    running.ledger.pause(&production(), false).await.expect("it is resumed");
    running.until("well again", Running::is_well).await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_well_until_a_member_is_late() {
    let running = Running::start(policy(), &[503; 20]);
    running.until("nothing is wrong", Running::is_well).await;
    let began = Instant::now();
    running.enter(1).await;
    running.until("it fails", |of| of.failing() == 1).await;
    assert!(running.is_well(), "a retry makes nobody late");
    running.until("not well", |of| !of.is_well()).await;
    assert!(began.elapsed() > policy().linger + LATE);
    assert!(!running.is_held());
    running.until_taken().await;
    running.until("well again", Running::is_well).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_applies_at_once_and_a_call_of_before_it_cannot_hold_the_destination() {
    let running = Running::start(policy(), &[401]);
    running.enter(1).await;
    running.until("a call is out", |of| of.calls() == 1).await;
    let answers = Answers { statuses: Mutex::default(), calls: Mutex::new(0) };
    let policy = Policy { linger: Duration::from_secs(2), ..policy() };
    let change = Change { launchdarkly: Arc::new(answers), policy };
    running.changes.send(change).expect("it runs");
    running.until_taken().await;
    assert!(!running.standing.has_changed().expect("it runs"), "it was never held");
    running.until("shown", |of| of.counters.latest().late_after == Duration::from_secs(12)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_forgets_failures() {
    let running = Running::start(policy(), &[409; 99]);
    running.enter(1).await;
    running.until("it fails", |of| of.failing() == 1).await;
    let answers = Answers { statuses: Mutex::default(), calls: Mutex::new(0) };
    let change = Change { launchdarkly: Arc::new(answers), policy: policy() };
    running.changes.send(change).expect("it runs");
    running.until("forgotten", |of| of.failing() == 0).await;
    assert!(!running.ledger.is_drained(), "before the next call");
}

/// A member that was refused once is claimed until it is asked again: it is not in the backlog.
#[tokio::test(start_paused = true)]
async fn an_audience_fails_until_nothing_of_it_waits() {
    let running = Running::start(policy(), &[400, 400]);
    running.enter(1).await;
    running.until("refused once", |of| of.failing() == 1).await;
    running.ledger.pause(&production(), true).await.expect("it is woken");
    running.until("it looks around", |of| !of.is_well()).await;
    running.ledger.pause(&production(), false).await.expect("and goes on");
    running.until("it looks around", Running::is_well).await;
    assert_eq!(running.failing(), 1, "it is to be asked again");
    let parked = |of: &Running| !of.ledger.everybody_parked(&production()).is_empty();
    running.until("parked", parked).await;
    running.until("forgotten", |of| of.failing() == 0).await;
    assert_eq!(running.counters.parked.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_share_a_call_as_its_body_may_carry() {
    for (max_body_bytes, calls) in [(1 << 20, 1), (1, 3)] {
        let running = Running::start(Policy { max_body_bytes, ..policy() }, &[]);
        running.enter(3).await;
        running.until_taken().await;
        assert_eq!(running.calls(), calls, "{max_body_bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_courier_that_stops_gives_back_what_it_keeps() {
    let running = Running::start(policy(), &[400]);
    running.enter(1).await;
    running.until("refused once", |of| of.failing() == 1).await;
    let outbox = running.ledger.outbox(&production());
    assert!(outbox.backlog().await.expect("it is there").is_empty(), "kept to be asked again");
    running.stop.cancel();
    running.courier.await.expect("no panic").expect("no error");
    assert_eq!(outbox.backlog().await.expect("it is there")[0].waiting, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_made_only_where_it_may_be_and_given_up_when_it_may_no_more() {
    let long = Duration::from_secs(9);
    let short = Duration::from_millis(900); // an answer takes a second
    // How often it may not be made, how long it may take; what is released, and the calls in all.
    let rows: [(usize, Duration, &[Unheard], usize); 3] = [
        (0, long, &[], 1),
        (2, long, &[Unheard::Unsent; 2], 1),
        (0, short, &[Unheard::Perhaps; 2], 3),
    ];
    for (refusals, lasts, expected, calls) in rows {
        let mut shared = None;
        let running = Running::start_with(policy(), &[], |outbox| {
            let refusals = AtomicUsize::new(refusals);
            let (silences, released) = (AtomicUsize::new(0), Mutex::default());
            let outbox = Arc::new(Shared { outbox, silences, refusals, lasts, released });
            shared = Some(Arc::clone(&outbox));
            outbox
        });
        let shared = shared.expect("it was made");
        running.enter(1).await;
        let released = || shared.released.lock().expect("no test panics with it").clone();
        running.until("made", |of| of.calls() == calls && released().len() == expected.len()).await;
        assert_eq!(released(), expected, "{refusals} times, {lasts:?}");
        assert_eq!(running.failing(), 0, "LaunchDarkly has not failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_does_not_answer_for_a_while_ends_no_courier() {
    let running = Running::start_with(policy(), &[], |outbox| {
        let (silences, refusals) = (AtomicUsize::new(5), AtomicUsize::new(0));
        Arc::new(Shared { outbox, silences, refusals, lasts: DEADLINE, released: Mutex::default() })
    });
    running.enter(1).await;
    running.until_taken().await;
    assert_eq!(running.calls(), 1);
}

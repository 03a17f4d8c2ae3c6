//! The courier: the task that delivers to one destination. It carries out what [`Dispatch`] decides.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::Policy;
use super::counters::{Delivered, word};
use super::dispatch::{Dispatch, Now, Standing, Step};
use super::failing::Failure;
use super::words::Words;
use crate::clock::{Clock, Seldom, whole_millis};
use crate::launchdarkly::wire::{body_bytes, encode, member_bytes, text_bytes};
use crate::launchdarkly::{Answer, Api, Outcome};
use crate::ledger::{Backlog, Batch, Claim, LedgerError, Measure, Outbox, Report, Room, Unheard};
use crate::membership::{AudienceId, DestinationName};
use crate::panics;

/// Pause between two attempts at a ledger that cannot write.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// A member that waits longer than the linger plus this is late. Calls and a few retries take less.
const LATE: Duration = Duration::from_secs(10);

/// Why a courier ended by itself. Nothing is lost: its claimed members are still pending in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The ledger does not answer any more.
    #[error("the ledger does not answer the courier")]
    Ledger(#[from] LedgerError),
    /// The task of a request panicked, with this message.
    #[error("a delivery panicked: {0}")]
    Flight(String),
}

impl From<JoinError> for CourierError {
    fn from(error: JoinError) -> Self {
        Self::Flight(match error.try_into_panic() {
            Ok(panic) => panics::message(&*panic).to_owned(),
            Err(_) => "it was cancelled".to_owned(),
        })
    }
}

/// New settings for a running courier; the LaunchDarkly environment stays the same.
#[derive(Debug)]
pub struct Change {
    /// The client that makes the calls.
    pub launchdarkly: Arc<dyn Api>,
    /// How calls are batched and paced.
    pub policy: Policy,
}

/// Delivers to one destination until it is told to stop.
#[derive(Debug)]
pub struct Courier {
    destination: DestinationName,
    client_side_id: String,
    launchdarkly: Arc<dyn Api>,
    outbox: Arc<dyn Outbox>,
    clock: Arc<dyn Clock>,
    chance: StdRng,
    dispatch: Dispatch,
    standing: watch::Sender<Standing>,
    counters: Arc<Delivered>,
    late_after: Duration,
    /// Limits how often ledger errors are logged.
    no_claims: Seldom,
    no_answers_kept: Seldom,
    /// Limits how often parked members are logged; counts them in between.
    parkings: Seldom,
    /// Limits how often unavailable calls are logged; counts them in between.
    untaken: Seldom,
    flights: JoinSet<Flown>,
    changes: mpsc::UnboundedReceiver<Change>,
    sender: mpsc::UnboundedSender<Change>,
}

/// A request that has ended.
#[derive(Debug)]
struct Flown {
    /// The client that made the call: a change may have replaced it since.
    launchdarkly: Arc<dyn Api>,
    batch: Batch,
    end: End,
    took: Duration,
}

/// How a request has ended.
#[derive(Debug)]
enum End {
    Answered(Box<Answer>),
    /// It was not made: another process may own the destination.
    Unsent,
    /// It was given up, for the same reason: it may still be applied.
    GivenUp,
}

impl Courier {
    /// A courier that is not running yet; `standing` and `counters` show its state.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of its own, and it is wired once"
    )]
    pub fn new(
        destination: DestinationName,
        client_side_id: String,
        launchdarkly: Arc<dyn Api>,
        policy: Policy,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
        chance: StdRng,
        counters: Arc<Delivered>,
    ) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self {
            late_after: policy.linger + LATE,
            no_claims: Seldom::default(),
            no_answers_kept: Seldom::default(),
            parkings: Seldom::default(),
            untaken: Seldom::default(),
            counters,
            destination,
            client_side_id,
            launchdarkly,
            outbox,
            clock,
            chance,
            dispatch: Dispatch::new(policy),
            standing: watch::Sender::default(),
            flights: JoinSet::new(),
            changes,
            sender,
        }
    }

    /// The sender of configuration changes for this courier. Batches in flight survive a change.
    #[must_use]
    pub fn changes(&self) -> mpsc::UnboundedSender<Change> {
        self.sender.clone()
    }

    /// Watches whether the destination is held.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Runs until `stop`. Requests in flight are finished first: dropping one between its answer and
    /// `settle` would send its batch twice.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), CourierError> {
        let mut news = self.outbox.news();
        self.counters.keep_failing(|_| false); // left by an earlier courier, perhaps of another environment
        while !stop.is_cancelled() {
            while let Some(flown) = self.flights.try_join_next() {
                self.land(flown?).await?;
            }
            while let Ok(change) = self.changes.try_recv() {
                self.change(change);
            }
            news.mark_unchanged();
            let backlog = match self.outbox.backlog().await {
                Err(LedgerError::Unavailable(cause)) => {
                    self.wait_for_the_ledger(&cause, &stop).await;
                    continue;
                }
                backlog => backlog?,
            };
            let is_paused = self.outbox.paused_since().is_some();
            self.show_wellness(is_paused, &backlog);
            self.forget_those_without(&backlog);
            let next = if is_paused {
                Step::Wait(None)
            } else {
                self.dispatch.next(Instant::now(), &backlog)
            };
            self.show_standing();
            let batch = match next {
                Step::Send(batch) => Ok(Some(batch)),
                Step::Claim { audience, limit } => {
                    let room = self.room(limit);
                    self.outbox.claim(Claim::Longest { audience, room }).await
                }
                Step::ClaimAgain { route, context_key } => {
                    self.outbox.claim(Claim::Again { route, context_key }).await
                }
                Step::ClaimTold { after } => {
                    let claimed = self.outbox.claim(Claim::Told { after }).await;
                    if matches!(claimed, Ok(None)) {
                        let reports = self.dispatch.nobody_told();
                        self.report(reports).await?;
                    }
                    claimed
                }
                Step::Wait(until) => {
                    tokio::select! {
                        () = stop.cancelled() => Ok(None),
                        // Cancel safe: nothing is claimed while waiting, so nothing is lost.
                        changed = news.changed() => match changed {
                            Ok(()) => Ok(None),
                            Err(_) => return Err(LedgerError::Closed.into()),
                        },
                        Some(flown) = self.flights.join_next() => {
                            self.land(flown?).await?;
                            Ok(None)
                        }
                        Some(change) = self.changes.recv() => {
                            self.change(change);
                            Ok(None)
                        }
                        () = sleep_until(until) => Ok(None),
                    }
                }
            };
            let batch = match batch {
                Err(LedgerError::Unavailable(cause)) => {
                    self.wait_for_the_ledger(&cause, &stop).await;
                    None
                }
                batch => batch?,
            };
            if let Some(batch) = batch {
                self.send(batch);
            }
        }
        let kept = self.dispatch.give_back();
        self.report(kept).await?;
        while let Some(flown) = self.flights.join_next().await {
            self.land(flown?).await?;
            let kept = self.dispatch.give_back();
            self.report(kept).await?;
        }
        Ok(())
    }

    /// Nothing can be claimed for now: a pause.
    async fn wait_for_the_ledger(&mut self, cause: &str, stop: &CancellationToken) {
        if self.no_claims.is_due() {
            warn!(
                destination.name = %self.destination,
                cause,
                "no batch can be claimed from the ledger"
            );
        }
        tokio::select! { // nothing was claimed, so nothing is lost
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LEDGER_PAUSE) => {}
        }
    }

    fn change(&mut self, Change { launchdarkly, policy }: Change) {
        self.launchdarkly = launchdarkly;
        self.late_after = policy.linger + LATE;
        self.dispatch.change(policy, Instant::now());
        self.counters.keep_failing(|_| false); // the change may have removed the cause
        self.show_standing();
    }

    /// The room of a call of at most this many members.
    fn room(&self, members: NonZeroUsize) -> Room {
        let measure = Measure {
            call: |route| body_bytes("", &route.context_kind),
            member: |route| member_bytes(&route.audience, &route.audience_key.segment_name()),
            key: |key| text_bytes(key.as_str()),
        };
        let most = self.dispatch.max_body_bytes();
        let bytes = most.saturating_sub(text_bytes(&self.client_side_id));
        Room { members, bytes, measure }
    }

    fn send(&mut self, batch: Batch) {
        self.dispatch.sent(&batch);
        self.counters.sent();
        let launchdarkly = Arc::clone(&self.launchdarkly);
        let members = batch.members.iter().map(|member| (&member.context_key, member.membership));
        let body = encode(
            &self.client_side_id,
            &batch.route.context_kind,
            &batch.route.audience,
            &batch.route.audience_key.segment_name(),
            members,
        );
        let outbox = Arc::clone(&self.outbox);
        self.flights.spawn(async move {
            let began = Instant::now();
            // As late as can be: nothing of ours stands between this look and the write.
            let end = if outbox.may_call(&batch) {
                tokio::select! {
                    biased; // what was answered is known, even if the time is over as well
                    answer = launchdarkly.send(&batch.route.audience, body) => {
                        End::Answered(answer.into())
                    }
                    () = outbox.until_over(&batch) => End::GivenUp,
                }
            } else {
                End::Unsent
            };
            Flown { launchdarkly, batch, end, took: began.elapsed() }
        });
    }

    async fn land(&mut self, flown: Flown) -> Result<(), CourierError> {
        let Flown { launchdarkly, batch, end, took } = flown;
        let answer = match end {
            End::Answered(answer) => *answer,
            End::Unsent => return self.came_back(batch, Unheard::Unsent).await,
            End::GivenUp => return self.came_back(batch, Unheard::Perhaps).await,
        };
        let sent = batch.members.iter().map(|member| &member.context_key);
        let words = Words::of(&answer.outcome, sent);
        self.log((&batch, &answer, took), &words);
        let now = Now {
            instant: Instant::now(),
            wall: self.clock.now(),
            took,
            draw: self.chance.random(),
        };
        let members = batch.members.len();
        self.counters.answered(&answer, &words, members, took, now.wall);
        let (audience, outcome) = (batch.route.audience.clone(), answer.outcome.clone());
        let status = answer.status;
        let is_of_before = !Arc::ptr_eq(&launchdarkly, &self.launchdarkly);
        let reports = if is_of_before && answer.outcome.is_of_the_destination() {
            self.dispatch.came_back(batch, Unheard::No)
        } else {
            let was_suspected = self.dispatch.suspects();
            let reports = self.dispatch.answered(batch, answer, now);
            self.show_suspicion(was_suspected);
            self.note(&audience, (&outcome, status, &words), now);
            reports
        };
        self.report(reports).await?;
        self.show_standing();
        Ok(())
    }

    /// A batch was not sent, or its call was given up, because the destination may be another process's.
    async fn came_back(&mut self, batch: Batch, unheard: Unheard) -> Result<(), CourierError> {
        debug!(
            destination.name = %self.destination,
            audience.id = batch.route.audience.as_str(),
            members = batch.members.len(),
            ?unheard,
            "not delivered: another process may own the destination"
        );
        self.counters.came_back();
        let reports = self.dispatch.came_back(batch, unheard);
        self.report(reports).await
    }

    /// Records the failure of an audience, or its end, for the status and the log.
    fn note(
        &self,
        audience: &AudienceId,
        (outcome, status, words): (&Outcome, Option<u16>, &Words),
        now: Now,
    ) {
        self.counters.pause_until(now.wall.after(self.dispatch.pause(now.instant)));
        if matches!(outcome, Outcome::Taken) {
            self.counters.taken(audience);
            return;
        }
        let pause = self.dispatch.pause_of(audience, now.instant);
        let (what, at, next_attempt_at) = (word(outcome), now.wall, now.wall.after(pause));
        let failure = Failure { outcome, what, status, words, at, next_attempt_at };
        let Some(line) = self.counters.failed(audience, failure) else { return };
        warn!(
            destination.name = %self.destination,
            audience.id = audience.as_str(),
            failures = line.failures,
            what = line.what,
            status = line.status,
            code = line.code,
            answer.message = line.message,
            answer.id = line.answer_id,
            next_attempt_s = pause.max(self.dispatch.pause(now.instant)).as_secs(),
            why = line.why,
            remedy = line.remedy,
            "calls for this audience have failed several times in a row: will retry"
        );
    }

    /// Forgets failures of audiences that have nothing pending.
    fn forget_those_without(&self, backlog: &[Backlog]) {
        if !self.counters.is_any_failing() {
            return;
        }
        let waiting: HashSet<&AudienceId> = backlog.iter().map(|of| &of.audience).collect();
        let is_pending = |audience: &AudienceId| {
            waiting.contains(audience) || self.dispatch.has_claimed(audience)
        };
        self.counters.keep_failing(is_pending);
    }

    async fn report(&mut self, reports: Vec<Report>) -> Result<(), CourierError> {
        for report in reports {
            if let Report::Park(batch, reason) = &report
                && let Some(members) = self.parkings.more(batch.members.len() as u64)
            {
                warn!(
                    destination.name = %self.destination,
                    members,
                    audience.id = batch.route.audience.as_str(),
                    status = reason.status, code = reason.code, answer.id = reason.id,
                    "members refused: parked; the latest is shown"
                );
            }
            if let Report::Park(batch, _) = &report {
                self.counters.parked.add(batch.members.len() as u64);
            }
            // Answers are retried until the ledger has written them: nothing else can be delivered
            // until it can write anyway.
            while let Err(error) = self.outbox.report(report.clone()).await {
                let LedgerError::Unavailable(cause) = error else { return Err(error.into()) };
                if self.no_answers_kept.is_due() {
                    warn!(
                        destination.name = %self.destination,
                        cause,
                        "the outcome of a call cannot be recorded in the ledger"
                    );
                }
                tokio::time::sleep(LEDGER_PAUSE).await;
            }
        }
        Ok(())
    }

    fn log(&mut self, (batch, answer, took): (&Batch, &Answer, Duration), words: &Words) {
        let members = batch.members.len();
        let audience = batch.route.audience.as_str();
        let destination = self.destination.as_str();
        let duration_ms = whole_millis(took);
        let status = answer.status;
        match &answer.outcome {
            Outcome::Taken => info!(
                destination.name = destination,
                audience.id = audience,
                members,
                duration_ms,
                status,
                "delivered"
            ),
            Outcome::Unavailable { cause, .. } => {
                if let Some(calls) = self.untaken.more(1) {
                    warn!(
                        destination.name = destination,
                        calls,
                        audience.id = audience,
                        members,
                        duration_ms,
                        status,
                        cause,
                        code = words.code,
                        answer.message = words.message,
                        answer.id = words.answer_id,
                        "LaunchDarkly is unavailable: will retry"
                    );
                }
            }
            outcome => debug!(
                destination.name = destination,
                audience.id = audience,
                members,
                duration_ms,
                status,
                ?outcome,
                "not taken"
            ),
        }
    }

    fn show_wellness(&self, is_paused: bool, backlog: &[Backlog]) {
        let is_held = self.standing.borrow().held.is_some();
        let is_late = |of: &Backlog| of.waiting_since.elapsed() > self.late_after;
        let is_well = !is_paused && !is_held && !backlog.iter().any(is_late);
        self.counters.show_wellness(is_well, self.late_after, self.clock.now());
    }

    /// Logged at debug level only: a suspicion may be over at once.
    fn show_suspicion(&self, was_suspected: bool) {
        if self.dispatch.suspects() && !was_suspected {
            debug!(
                destination.name = %self.destination,
                "many members in a row were refused: finding out whether every member is"
            );
        }
    }

    fn show_standing(&self) {
        let standing = self.dispatch.standing();
        let before = self.standing.borrow().held.clone();
        match (&before, &standing.held) {
            (None, Some(held)) => error!(
                destination.name = %self.destination, status = held.status, what = held.what,
                code = held.code, answer.message = held.message, answer.id = held.answer_id,
                why = held.why, remedy = held.remedy,
                "destination held: events are kept, nothing is delivered until this is fixed"
            ),
            (Some(held), None) => {
                info!(destination.name = %self.destination, status = held.status, "destination no longer held");
            }
            _ => {}
        }
        self.standing.send_if_modified(|shown| {
            let changed = *shown != standing;
            *shown = standing;
            changed
        });
    }
}

/// `None` waits for ever.
async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

//! `cohortd sandbox`: the real daemon between sample traffic and a LaunchDarkly stand-in.
//!
//! Everything listens on loopback, on ports that the system chooses, and the ledger is in a temporary
//! directory. At the end the segments are compared with the traffic.

use std::ffi::OsStr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::acts::{Playbill, Stage};
use super::sender::{PostError, Sender};
use super::show::{self, Glimpse, Places, Scene, Screen, Verdict};
use super::{Account, Sample, StandIn, Traffic, View, differences, sign};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Faults};
use crate::ledger::{LedgerError, Operations};
use crate::membership::{AudienceKey, DestinationName, Timestamp};
use crate::operate::logging;
use crate::secret::Secret;
use crate::service::{Service, ServiceError};

const DESTINATION: &str = "sandbox";
const CLIENT_SIDE_ID: &str = "sandbox-client-side-id";
const SERVICE_TOKEN: &str = "sandbox-service-token";
const SHARED_SECRET: &str = "sandbox-shared-secret";

/// An event to post by hand. Its audience is its own, so that it does not disturb the comparison, and it
/// has no timestamp, so that it counts whenever it is posted.
const BY_HAND: &str = r#"{"type":"identify","userId":"ada","context":{"personas":{"computation_class":"audience","computation_id":"aud_by_hand","computation_key":"beta_testers"}},"traits":{"beta_testers":true}}"#;

/// Pause between two requests of endless traffic: about 16 events a second.
const RHYTHM: Duration = Duration::from_millis(200);
const REDRAW: Duration = Duration::from_secs(1);
/// Number of people in endless traffic: few enough that segments fill up and people come back.
const PEOPLE_TO_WATCH: u32 = 200;
/// Half of the 10 ms between two changes of [`Traffic`]: each change is two events.
const EVENT_PACE_MICROS: u64 = 5000;
/// How long the backlog may stand still before the sandbox stops waiting for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The machine has no temporary directory, no free port on loopback, or no signals.
    #[error("the sandbox cannot be set up")]
    SetUp(#[source] std::io::Error),
    /// The configuration made for it is invalid: the temporary directory has an unusual name.
    #[error("the sandbox cannot be configured")]
    Config(#[source] Faults),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    /// The daemon did not start, or ended by itself.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The daemon did not accept the traffic.
    #[error("the sample traffic cannot be posted")]
    Post(#[from] PostError),
    /// The ledger could not be queried for the progress of delivery.
    #[error("the ledger cannot be read")]
    Ledger(#[from] LedgerError),
    /// Standard output cannot be written to.
    #[error("standard output cannot be written")]
    Output(#[source] std::io::Error),
    /// The daemon did not accept every sample event.
    #[error("only {accepted} of {sent} events were accepted")]
    NotAccepted {
        /// Events posted.
        sent: u64,
        /// Events accepted.
        accepted: u64,
    },
    /// The segments differ from the audiences.
    #[error(
        "the segments differ: {missing} members are missing, and {unexpected} should not be there"
    )]
    Differs {
        /// In an audience and not in its segment.
        missing: usize,
        /// In a segment and not in its audience.
        unexpected: usize,
    },
}

impl SandboxError {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SetUp(_) => 69,
            Self::Service(error) => error.exit_code(),
            _ => 70,
        }
    }
}

/// What the sandbox shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// This many sample events, as fast as they are accepted.
    Events(u64),
    /// Traffic until a signal, with nothing going wrong.
    Calm,
    /// Traffic until a signal, with one act of trouble after the other.
    Acts,
}

/// Runs the daemon against a stand-in for LaunchDarkly until all events are delivered, or until SIGINT or
/// SIGTERM. A second signal skips waiting for the backlog to be delivered.
pub async fn run(program: Program) -> Result<(), SandboxError> {
    match Box::pin(show_all(program)).await {
        // the reader has closed the pipe (`cohortd sandbox | head`)
        Err(SandboxError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(())
        }
        result => result,
    }
}

async fn show_all(program: Program) -> Result<(), SandboxError> {
    let mut signals = Signals::new().map_err(SandboxError::SetUp)?;
    let directory = tempfile::tempdir().map_err(SandboxError::SetUp)?;
    let account = Account {
        client_side_id: CLIENT_SIDE_ID.to_owned(),
        service_token: Secret::new(SERVICE_TOKEN),
    };
    let standin = StandIn::start(vec![account]).await.map_err(SandboxError::SetUp)?;
    let config =
        configuration(&directory, &standin.url(), program).map_err(SandboxError::Config)?;
    let logging = logging::init(&config.log).map_err(SandboxError::SetUp)?;
    let _flushed = logging.lines.flush_at_end();
    let service = Service::start(config).await?;
    let mut session = Session::new(program, standin, &service)?;
    let stop = CancellationToken::new();
    // never cut short: the stand-in answers at once
    let mut serving = pin!(service.serve(stop.clone(), CancellationToken::new()));
    let shown = tokio::select! {
        ended = &mut serving => {
            ended?;
            unreachable!("it serves until it is told to stop")
        }
        shown = session.show(&mut signals) => shown,
    };
    stop.cancel();
    serving.await?;
    session.conclude(&shown?)
}

/// The configuration of a daemon on loopback. Except for addresses and paths it is like an operator's.
fn configuration(
    directory: &TempDir,
    launchdarkly: &Url,
    program: Program,
) -> Result<Config, Faults> {
    // the sandbox itself shows what goes wrong on purpose
    let level = if program == Program::Acts { "off" } else { "warn" };
    let ledger = directory.path().join("ledger");
    let variables: [(&str, &OsStr); 10] = [
        ("COHORTD_LISTEN__ADDRESS", "127.0.0.1:0".as_ref()),
        ("COHORTD_ADMIN__ADDRESS", "127.0.0.1:0".as_ref()),
        ("COHORTD_LEDGER__PATH", ledger.as_ref()),
        ("COHORTD_LOG__FORMAT", "pretty".as_ref()),
        ("COHORTD_LOG__LEVEL", level.as_ref()),
        // short retries, so that nobody has to watch a long pause
        ("COHORTD_DELIVERY__RETRY_CEILING_MS", "2000".as_ref()),
        ("COHORTD_DESTINATIONS__SANDBOX__SEGMENT__SHARED_SECRETS", SHARED_SECRET.as_ref()),
        ("COHORTD_DESTINATIONS__SANDBOX__LAUNCHDARKLY__CLIENT_SIDE_ID", CLIENT_SIDE_ID.as_ref()),
        ("COHORTD_DESTINATIONS__SANDBOX__LAUNCHDARKLY__SERVICE_TOKEN", SERVICE_TOKEN.as_ref()),
        ("COHORTD_DESTINATIONS__SANDBOX__LAUNCHDARKLY__BASE_URL", launchdarkly.as_str().as_ref()),
    ];
    Config::load_from(None, variables)
}

/// How many people the traffic is about, and the time at which it begins. It begins in the past so that it
/// ends about now, because events with times in the future are not believed.
fn scope(events: Option<u64>, now: Timestamp) -> (u32, Timestamp) {
    let Some(events) = events else { return (PEOPLE_TO_WATCH, now) };
    let people = u32::try_from((events / 10).clamp(20, 20_000)).unwrap_or(u32::MAX);
    let span = i64::try_from(events.saturating_mul(EVENT_PACE_MICROS)).unwrap_or(i64::MAX);
    (people, Timestamp(now.0.saturating_sub(span).max(0)))
}

/// A running show.
struct Session {
    standin: StandIn,
    ledger: Arc<dyn Operations>,
    destination: DestinationName,
    sender: Sender,
    program: Program,
    /// The acts still to be shown.
    playbill: Playbill,
    screen: Screen,
    began: Instant,
    ended: Option<Instant>,
}

impl Session {
    fn new(program: Program, standin: StandIn, service: &Service) -> Result<Self, SandboxError> {
        let events = if let Program::Events(events) = program { Some(events) } else { None };
        let playbill = match program {
            Program::Acts => Playbill::of_acts(&standin),
            Program::Calm | Program::Events(_) => Playbill::empty(),
        };
        let url = |address, path: &str| {
            Url::parse(&format!("http://{address}{path}")).expect("a socket address makes a URL")
        };
        let webhook = url(service.public_address, &format!("/segment/{DESTINATION}"));
        let secret = Secret::new(SHARED_SECRET);
        let mut screen = Screen::new();
        let introduction = show::introduction(&Places {
            webhook: &webhook,
            dashboard: &url(service.admin_address, "/"),
            admin: service.admin_address,
            launchdarkly: &standin.url(),
            shared_secret: SHARED_SECRET,
            event: BY_HAND,
            signature: &sign(&secret, BY_HAND.as_bytes()),
        });
        screen.say(&introduction).map_err(SandboxError::Output)?;
        let (people, from) = scope(events, SystemClock.now());
        let traffic = Traffic::new(rand::random(), people, from);
        Ok(Self {
            standin,
            ledger: service.ledger.operations(),
            destination: DestinationName::new(DESTINATION).expect("not empty"),
            sender: Sender::new(traffic, events, webhook, secret).map_err(SandboxError::Client)?,
            program,
            playbill,
            screen,
            began: Instant::now(),
            ended: None,
        })
    }

    /// Posts everything, shows the progress, and waits until everything is delivered.
    async fn show(&mut self, signals: &mut Signals) -> Result<Verdict, SandboxError> {
        let mut redraw = every(REDRAW);
        let is_endless = !matches!(self.program, Program::Events(_));
        let mut rhythm = is_endless.then(|| every(RHYTHM));
        while !self.sender.is_done() {
            let (may_post, awaits_answers) = (self.sender.may_post(), self.sender.awaits_answers());
            tokio::select! { // cancel safe: branches that lose lose nothing
                _ = redraw.tick() => self.draw().await?,
                () = signals.next() => {
                    if self.sender.has_stopped() {
                        return self.give_up().await;
                    }
                    self.sender.stop();
                    // undone first, so that everything can be delivered before the comparison
                    self.playbill.break_off(&self.standin);
                }
                () = sleep_until(self.playbill.change_at()), if self.playbill.goes_on() => {
                    self.change().await?;
                }
                () = beat(&mut rhythm), if may_post => self.sender.post(),
                answered = self.sender.answered(), if awaits_answers => answered?,
            }
        }
        // The ledger announces new work but not the end of it, so its backlog is polled.
        let mut ask = every(Duration::from_millis(20));
        let (mut seen, mut moved) = (None, Instant::now());
        loop {
            tokio::select! {
                _ = redraw.tick() => self.draw().await?,
                () = signals.next() => return self.give_up().await,
                _ = ask.tick() => {
                    let pending = self.pending().await?;
                    let progress = Some((pending, self.standin.calls().total));
                    if progress != seen {
                        (seen, moved) = (progress, Instant::now());
                    }
                    if pending == 0 || moved.elapsed() > PATIENCE {
                        break;
                    }
                }
            }
        }
        self.ended = Some(Instant::now());
        self.draw().await?;
        let truth = self.sender.traffic().truth();
        Ok(Verdict::Compared(differences(truth, &self.standin.segments(CLIENT_SIDE_ID))))
    }

    /// Begins the next act, or ends the present one.
    async fn change(&mut self) -> Result<(), SandboxError> {
        let stage = Stage {
            standin: &self.standin,
            ledger: &*self.ledger,
            destination: &self.destination,
            sender: &mut self.sender,
            screen: &mut self.screen,
        };
        self.playbill.change(stage).await
    }

    /// Members that are pending, in flight ones included.
    async fn pending(&self) -> Result<u64, SandboxError> {
        let audiences = self.ledger.audiences(&self.destination).await?;
        Ok(audiences.iter().map(|audience| audience.pending).sum())
    }

    async fn give_up(&mut self) -> Result<Verdict, SandboxError> {
        self.ended = Some(Instant::now());
        let waiting = self.pending().await?;
        Ok(Verdict::NotCompared { waiting })
    }

    async fn draw(&mut self) -> Result<(), SandboxError> {
        let backlog = self.ledger.outbox(&self.destination).backlog().await?;
        let waiting = backlog.iter().map(|audience| audience.waiting).sum();
        let scene = self.scene(waiting);
        self.screen.draw(&scene).map_err(SandboxError::Output)
    }

    fn scene(&self, waiting: u64) -> Scene {
        let (calls, segments) = self.standin.look(|view| (view.calls(), glimpses(view)));
        let latest = self.sender.latest().map(|event| {
            let verb = if event.entered { "entered" } else { "left" };
            format!("{} {verb} {}", event.user_id, name(event.audience))
        });
        let elapsed = self.ended.unwrap_or_else(Instant::now) - self.began;
        Scene { elapsed, posted: self.sender.posted(), calls, waiting, latest, segments }
    }

    /// Prints how it ended, once the daemon has stopped.
    fn conclude(&mut self, verdict: &Verdict) -> Result<(), SandboxError> {
        let summary = show::summary(&self.scene(0), verdict);
        self.screen.say(&summary).map_err(SandboxError::Output)?;
        let Verdict::Compared(differences) = verdict else { return Ok(()) };
        if !differences.is_empty() {
            return Err(SandboxError::Differs {
                missing: differences.iter().map(|difference| difference.missing).sum(),
                unexpected: differences.iter().map(|difference| difference.unexpected).sum(),
            });
        }
        let posted = self.sender.posted();
        if posted.accepted != posted.events {
            let (sent, accepted) = (posted.events, posted.accepted);
            return Err(SandboxError::NotAccepted { sent, accepted });
        }
        Ok(())
    }
}

/// The name of a sample audience's segment.
fn name(audience_id: &str) -> String {
    [Sample::HIGH_VALUE_CUSTOMERS, Sample::CART_ABANDONERS]
        .into_iter()
        .find(|sample| sample.id == audience_id)
        .and_then(|sample| AudienceKey::new(sample.key))
        .map_or_else(|| audience_id.to_owned(), |key| key.segment_name())
}

fn glimpses(view: &View<'_>) -> Vec<Glimpse> {
    let segments = view.segments(CLIENT_SIDE_ID).into_iter().flatten();
    let glimpse = |(_, segment): (_, &super::SegmentState)| Glimpse {
        name: segment.name.clone(),
        members: segment.members.len(),
        some: segment.members.iter().take(2).cloned().collect(),
    };
    segments.map(glimpse).collect()
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits for the next tick; returns at once without a rhythm.
async fn beat(rhythm: &mut Option<Interval>) {
    if let Some(rhythm) = rhythm {
        rhythm.tick().await;
    }
}

/// SIGINT (Ctrl-C) and SIGTERM (which stops a container).
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! { // cancel safe: the stream keeps a signal that arrives between two waits
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_traffic_ends_now_however_much_it_is() {
        let now = Timestamp(1_750_000_000_000_000);
        assert_eq!(scope(None, now), (PEOPLE_TO_WATCH, now));
        assert_eq!(scope(Some(0), now), (20, now));
        assert_eq!(scope(Some(1_000_000), now), (20_000, Timestamp(now.0 - 5_000_000_000)));
        assert_eq!(scope(Some(u64::MAX), now).1, Timestamp(0));
    }
}

//! The daemon: opens everything, spawns everything, stops everything in the order of the flow.
//!
//! # What always holds
//! * Only this file spawns tasks that live as long as the daemon, all into one set. One that ends by
//!   itself ends the daemon with a failing exit code: half a service is worse than none.
//! * Stopping goes in the order of the flow (P10): not ready, after the drain delay stop accepting, finish
//!   requests in flight, let couriers finish theirs, close the ledger (tests/it/shutdown.rs). The admin listener
//!   goes on until the couriers have finished, so that probes and people see what is under way.
//! * What the grace period cuts off is pending in the ledger, not lost.

mod supervisor;
mod wiring;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::{Clock, SystemClock, whole_millis};
use crate::config::Config;
use crate::deliver::{self, CourierError};
use crate::launchdarkly::ClientError;
use crate::ledger::{OpenError, Operations, SqliteLedger, WriterFailure};
use crate::membership::DestinationName;
use crate::operate::admin;
use crate::operate::logging::chain;
use crate::operate::sources::Sources;
use crate::operate::telemetry::{self, Exporter};
use crate::receive::{self, Readiness};

use supervisor::Supervisor;
use wiring::Traces;

/// Kept back from the grace period for closing the ledger.
const CLOSING: Duration = Duration::from_secs(1);

/// Why the daemon did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The ledger cannot be used.
    #[error("the ledger cannot be opened")]
    Open(#[from] OpenError),
    /// A destination's client cannot be built.
    #[error("destination {destination} cannot be delivered to")]
    Client {
        /// Which destination.
        destination: DestinationName,
        /// Why.
        #[source]
        source: ClientError,
    },
    /// The client of the collector cannot be built.
    #[error("telemetry cannot be sent")]
    Telemetry(#[source] reqwest::Error),
    /// The operating system does not let the daemon listen for signals.
    #[error("signals cannot be received")]
    Signals(#[source] std::io::Error),
    /// The ledger's writer ended.
    #[error("the ledger's writer failed")]
    Writer(#[source] WriterFailure),
    /// A courier ended.
    #[error("the courier of {destination} failed")]
    Courier {
        /// Whose.
        destination: DestinationName,
        /// Why.
        #[source]
        source: CourierError,
    },
    /// A listener ended.
    #[error("a listener failed")]
    Listener(#[source] std::io::Error),
    /// A task ended although nobody told it to.
    #[error("{0} ended by itself")]
    EndedByItself(String),
    /// A task panicked.
    #[error("a task panicked")]
    Panicked(#[source] JoinError),
}

impl ServiceError {
    /// The exit code of the process: 69 something it needs is taken or missing, 70 an internal
    /// fault or a damaged ledger.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } | Self::Open(OpenError::InUse(_) | OpenError::Directory { .. }) => 69,
            _ => 70,
        }
    }
}

/// What a task is there for; the order in which they are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Receiving,
    Delivering,
    Watching,
    Writing,
}

/// A task that has ended.
#[derive(Debug)]
enum Ended {
    Listener(std::io::Result<()>),
    Courier(DestinationName, Result<(), CourierError>),
    Writer(Result<(), WriterFailure>),
    Exporter,
}

impl Ended {
    /// What it means if nobody has asked the task to end.
    fn unasked(self) -> ServiceError {
        match self {
            Self::Listener(Err(error)) => ServiceError::Listener(error),
            Self::Listener(Ok(())) => ServiceError::EndedByItself("a listener".into()),
            Self::Courier(destination, Err(source)) => {
                ServiceError::Courier { destination, source }
            }
            Self::Courier(destination, Ok(())) => {
                ServiceError::EndedByItself(format!("the courier of {destination}"))
            }
            Self::Writer(Err(error)) => ServiceError::Writer(error),
            Self::Writer(Ok(())) => ServiceError::EndedByItself("the ledger's writer".into()),
            Self::Exporter => ServiceError::EndedByItself("the exporter of telemetry".into()),
        }
    }
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Service {
    /// Where the public listener is.
    pub public_address: SocketAddr,
    /// Where the admin listener is.
    pub admin_address: SocketAddr,
    /// The ledger, to look at.
    pub ledger: Arc<SqliteLedger>,
    tasks: JoinSet<Ended>,
    /// Of the tasks that have not ended.
    parts: HashMap<task::Id, Part>,
    readiness: Readiness,
    stop_receiving: CancellationToken,
    stop_delivering: CancellationToken,
    stop_watching: CancellationToken,
    grace_period: Duration,
    drain_delay: Duration,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let hurry = CancellationToken::new();
    // Listened to before anything is opened, so that a signal is never met by the default action.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let supervisor = Supervisor::of_this_process();
    let service = Service::start(config).await?;
    supervisor.ready();
    let serving = service.serve(stop.clone(), hurry.clone());
    let signals = async {
        loop {
            tokio::select! { // a signal that is not waited for is kept by its stream
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                hurry.cancel();
            } else {
                supervisor.stopping();
            }
            stop.cancel();
        }
    };
    tokio::select! {
        result = serving => result,
        () = signals => unreachable!("the loop above has no end"),
        () = supervisor.keep_alive() => unreachable!("nor has this one"),
    }
}

impl Service {
    /// Opens and spawns everything; the listeners accept when this returns.
    pub async fn start(config: Config) -> Result<Self, ServiceError> {
        let began = Instant::now();
        raise_open_files();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let public = bind(config.listen.address).await?;
        let admin = bind(config.admin.address).await?;
        let admin_address = admin.local_addr().map_err(ServiceError::Listener)?;
        let (ledger, writer) =
            SqliteLedger::open(wiring::ledger_settings(&config), Arc::clone(&clock))?;
        let ledger = Arc::new(ledger);
        let (received, delivered) = <(Arc<receive::Counters>, Arc<deliver::Counters>)>::default();
        let (exporter, traces) = match &config.telemetry {
            None => (None, None),
            Some(telemetry) => {
                let (exporter, tracer) = Exporter::new(telemetry, Arc::clone(&clock))
                    .map_err(ServiceError::Telemetry)?;
                (Some(exporter), Some(Traces::new(tracer)))
            }
        };
        let traces = traces.as_ref();
        let couriers = wiring::couriers(&config, &ledger, &clock, &delivered, traces)?;

        let mut tasks = JoinSet::new();
        let mut parts = HashMap::new();
        let task = tasks.spawn_blocking(move || Ended::Writer(writer.run()));
        parts.insert(task.id(), Part::Writing);
        let stop_delivering = CancellationToken::new();
        let mut standings = Vec::new();
        for (destination, courier) in couriers {
            standings.push((destination.clone(), courier.standing()));
            let stop = stop_delivering.clone();
            let task =
                tasks.spawn(async move { Ended::Courier(destination, courier.run(stop).await) });
            parts.insert(task.id(), Part::Delivering);
        }

        let readiness = Readiness::default();
        let stop_receiving = CancellationToken::new();
        let stop_watching = CancellationToken::new();
        let limits = wiring::limits(&config);
        let public_address = announce("public", &public)?;
        announce("admin", &admin)?;
        let state = wiring::public_state(&config, &ledger, &readiness, &received, traces);
        let mut router = receive::router(state);
        if let Some(traces) = traces {
            router = telemetry::traced(router, traces.tracer.clone());
        }
        let listener = receive::serve(public, router, limits, stop_receiving.clone());
        let task = tasks.spawn(async move { Ended::Listener(listener.await) });
        parts.insert(task.id(), Part::Receiving);
        let sources = Arc::new(Sources {
            ledger: Arc::clone(&ledger) as Arc<dyn Operations>,
            standings,
            readiness: readiness.clone(),
            received,
            delivered,
            started_at: clock.now(),
            clock,
        });
        if let Some(exporter) = exporter {
            let exporting = exporter.run(Arc::clone(&sources), stop_watching.clone());
            let task = tasks.spawn(async move {
                exporting.await;
                Ended::Exporter
            });
            parts.insert(task.id(), Part::Watching);
        }
        let state = wiring::admin_state(&config, &sources);
        let router = admin::router(state, wiring::api(&config, &ledger));
        let listener = receive::serve(admin, router, limits, stop_watching.clone());
        let task = tasks.spawn(async move { Ended::Listener(listener.await) });
        parts.insert(task.id(), Part::Watching);

        readiness.ready();
        let duration_ms = whole_millis(began.elapsed());
        info!(
            version = env!("CARGO_PKG_VERSION"),
            destinations = config.destinations.len(),
            duration_ms,
            "ready"
        );
        Ok(Self {
            public_address,
            admin_address,
            ledger,
            tasks,
            parts,
            readiness,
            stop_receiving,
            stop_delivering,
            stop_watching,
            grace_period: config.stop.grace_period,
            drain_delay: config.stop.drain_delay,
        })
    }

    /// Serves until `stop`, then stops in the order of the flow; `hurry` cuts the grace period short.
    pub async fn serve(
        mut self,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        let failure = tokio::select! {
            () = stop.cancelled() => None,
            // A task that is waited for stays in the set if this wait is given up.
            ended = self.tasks.join_next_with_id() => Some(match ended {
                Some(ended) => self.tick_off(ended).map_or_else(|failure| failure, Ended::unasked),
                None => ServiceError::EndedByItself("everything".into()),
            }),
        };
        match &failure {
            None => info!(grace_period_ms = whole_millis(self.grace_period), "stopping"),
            Some(failure) => {
                error!(failure = chain(failure), "stopping, because a part of the daemon is gone");
            }
        }
        let drain_delay = if failure.is_none() { self.drain_delay } else { Duration::ZERO };
        match (failure, self.stop(drain_delay, hurry).await) {
            // Whoever met the closed ledger may have ended first; why it closed is what matters.
            (_, Err(cause @ ServiceError::Writer(_))) => Err(cause),
            (Some(failure), _) => Err(failure),
            (None, stopped) => stopped,
        }
    }

    async fn stop(
        mut self,
        drain_delay: Duration,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        let began = Instant::now();
        let deadline = began + self.grace_period.saturating_sub(CLOSING);
        self.readiness.not_ready("stopping");
        // Whoever looks at the probe needs a while to send its requests elsewhere.
        let _ = timeout(drain_delay, hurry.cancelled()).await;
        self.stop_receiving.cancel();
        let mut first_failure = None;
        let received = self.wait(Part::Receiving, deadline, &hurry, &mut first_failure).await;
        self.stop_delivering.cancel();
        let delivered = self.wait(Part::Delivering, deadline, &hurry, &mut first_failure).await;
        self.stop_watching.cancel();
        // Nobody's work is cut off with it, so its end in time is not worth a warning.
        self.wait(Part::Watching, deadline, &hurry, &mut first_failure).await;
        if !(received && delivered) {
            warn!(
                "the grace period is over: what was under way will be sent again after the next start"
            );
        }
        // Closing takes no part in the hurry: it is what makes the next start a clean one.
        let (deadline, unhurried) = (Instant::now() + CLOSING, CancellationToken::new());
        if timeout_at(deadline, self.ledger.close()).await.is_err()
            || !self.wait(Part::Writing, deadline, &unhurried, &mut first_failure).await
        {
            warn!("the ledger is still being closed; it is consistent all the same");
        }
        let duration_ms = whole_millis(began.elapsed());
        info!(duration_ms, "stopped");
        first_failure.map_or(Ok(()), Err)
    }

    /// Waits until the tasks of a part have ended. `false`: not in time.
    async fn wait(
        &mut self,
        part: Part,
        deadline: Instant,
        hurry: &CancellationToken,
        first_failure: &mut Option<ServiceError>,
    ) -> bool {
        while self.parts.values().any(|of| *of == part) {
            let ended = tokio::select! {
                () = hurry.cancelled() => return false,
                ended = timeout_at(deadline, self.tasks.join_next_with_id()) => match ended {
                    Ok(Some(ended)) => ended,
                    Ok(None) => return true,
                    Err(_) => return false,
                },
            };
            let failure = match self.tick_off(ended) {
                Ok(
                    Ended::Listener(Ok(()))
                    | Ended::Courier(_, Ok(()))
                    | Ended::Writer(Ok(()))
                    | Ended::Exporter,
                ) => continue,
                Ok(failed) => failed.unasked(),
                Err(failure) => failure,
            };
            error!(failure = chain(&failure), "a part of the daemon failed while stopping");
            if first_failure.is_none() || matches!(failure, ServiceError::Writer(_)) {
                *first_failure = Some(failure);
            }
        }
        true
    }

    fn tick_off(
        &mut self,
        ended: Result<(task::Id, Ended), JoinError>,
    ) -> Result<Ended, ServiceError> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.parts.remove(&id);
        ended.map(|(_, ended)| ended).map_err(ServiceError::Panicked)
    }
}

/// As many open files as the system lets us have: each connection is one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files could not be raised");
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|source| ServiceError::Bind { address, source })
}

fn announce(name: &'static str, listener: &TcpListener) -> Result<SocketAddr, ServiceError> {
    let address = listener.local_addr().map_err(ServiceError::Listener)?;
    info!(listener = name, %address, "listening");
    Ok(address)
}

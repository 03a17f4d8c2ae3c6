//! The daemon: opens everything, spawns everything, stops everything in the order of the flow.
//!
//! # What always holds
//! * Only this file spawns tasks that live as long as the daemon, all into one set. One that ends by
//!   itself ends the daemon with a failing exit code: half a service is worse than none.
//! * Stopping goes in the order of the flow (P10): not ready, stop accepting, finish requests in
//!   flight, let couriers finish theirs, close the ledger (tests/it/shutdown.rs).
//! * What the grace period cuts off is pending in the ledger, not lost.

mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::deliver::CourierError;
use crate::launchdarkly::ClientError;
use crate::ledger::{OpenError, SqliteLedger, WriterFailure};
use crate::membership::DestinationName;
use crate::operate::admin;
use crate::receive::{self, Readiness};

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

/// A task that has ended.
#[derive(Debug)]
enum Ended {
    Listener(std::io::Result<()>),
    Courier(DestinationName, Result<(), CourierError>),
    Writer(Result<(), WriterFailure>),
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
    readiness: Readiness,
    stop_receiving: CancellationToken,
    stop_delivering: CancellationToken,
    grace_period: Duration,
}

/// Runs the daemon until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let hurry = CancellationToken::new();
    // Listened to before anything is opened, so that a signal is never met by the default action.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let service = Service::start(config).await?;
    let serving = service.serve(stop.clone(), hurry.clone());
    let signals = async {
        loop {
            tokio::select! { // a signal that is not waited for is kept by its stream
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                hurry.cancel();
            }
            stop.cancel();
        }
    };
    tokio::select! {
        result = serving => result,
        () = signals => unreachable!("the loop above has no end"),
    }
}

impl Service {
    /// Opens and spawns everything; the listeners accept when this returns.
    pub async fn start(config: Config) -> Result<Self, ServiceError> {
        let began = Instant::now();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let public = bind(config.listen.address).await?;
        let admin = bind(config.admin.address).await?;
        let admin_address = admin.local_addr().map_err(ServiceError::Listener)?;
        let (ledger, writer) =
            SqliteLedger::open(wiring::ledger_settings(&config), Arc::clone(&clock))?;
        let ledger = Arc::new(ledger);
        let couriers = wiring::couriers(&config, &ledger, &clock)?;

        let mut tasks = JoinSet::new();
        tasks.spawn_blocking(move || Ended::Writer(writer.run()));
        let stop_delivering = CancellationToken::new();
        let mut standings = Vec::new();
        for (destination, courier) in couriers {
            standings.push((destination.clone(), courier.standing()));
            let stop = stop_delivering.clone();
            tasks.spawn(async move { Ended::Courier(destination, courier.run(stop).await) });
        }

        let readiness = Readiness::default();
        let stop_receiving = CancellationToken::new();
        let limits = wiring::limits(&config);
        let router = receive::router(wiring::public_state(&config, &ledger, &readiness));
        let public_address = listen("public", public, router, limits, &stop_receiving, &mut tasks)?;
        let router = admin::router(wiring::admin_state(&config, &ledger, standings, &readiness));
        listen("admin", admin, router, limits, &stop_receiving, &mut tasks)?;

        readiness.ready();
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
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
            readiness,
            stop_receiving,
            stop_delivering,
            grace_period: config.stop.grace_period,
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
            ended = self.tasks.join_next() => Some(match ended {
                Some(Ok(ended)) => ended.unasked(),
                Some(Err(error)) => ServiceError::Panicked(error),
                None => ServiceError::EndedByItself("everything".into()),
            }),
        };
        match &failure {
            None => info!(grace_period_ms = self.grace_period.as_millis(), "stopping"),
            Some(failure) => error!(%failure, "stopping, because a part of the daemon is gone"),
        }
        let stopped = self.stop(hurry).await;
        match failure {
            Some(failure) => Err(failure),
            None => stopped,
        }
    }

    async fn stop(mut self, hurry: CancellationToken) -> Result<(), ServiceError> {
        let began = Instant::now();
        let deadline = began + self.grace_period.saturating_sub(CLOSING);
        self.readiness.not_ready("stopping");
        self.stop_receiving.cancel();
        let mut first_failure = None;
        let listener = |ended: &Ended| matches!(ended, Ended::Listener(_));
        let received = self.wait(2, listener, deadline, &hurry, &mut first_failure).await;
        self.stop_delivering.cancel();
        let courier = |ended: &Ended| matches!(ended, Ended::Courier(..));
        let delivered = self.wait(usize::MAX, courier, deadline, &hurry, &mut first_failure).await;
        if !(received && delivered) {
            warn!(
                "the grace period is over: what was under way will be sent again after the next start"
            );
        }
        // Closing takes no part in the hurry: it is what makes the next start a clean one.
        if timeout_at(Instant::now() + CLOSING, self.ledger.close()).await.is_err() {
            warn!("the ledger is still being closed; it is consistent all the same");
        }
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(duration_ms, "stopped");
        first_failure.map_or(Ok(()), Err)
    }

    /// Waits until `most` tasks of a kind, or all but the writer, have ended. `false`: not in time.
    async fn wait(
        &mut self,
        most: usize,
        kind: impl Fn(&Ended) -> bool,
        deadline: Instant,
        hurry: &CancellationToken,
        first_failure: &mut Option<ServiceError>,
    ) -> bool {
        let mut seen = 0;
        while seen < most && self.tasks.len() > 1 {
            let ended = tokio::select! {
                () = hurry.cancelled() => return false,
                ended = timeout_at(deadline, self.tasks.join_next()) => match ended {
                    Ok(Some(ended)) => ended,
                    Ok(None) => return true,
                    Err(_) => return false,
                },
            };
            let failure = match ended {
                Ok(ended) => {
                    seen += usize::from(kind(&ended));
                    match ended {
                        Ended::Listener(Ok(())) | Ended::Courier(_, Ok(())) => None,
                        failed => Some(failed.unasked()),
                    }
                }
                Err(error) => Some(ServiceError::Panicked(error)),
            };
            if let Some(failure) = failure {
                error!(%failure, "a part of the daemon failed while stopping");
                first_failure.get_or_insert(failure);
            }
        }
        true
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|source| ServiceError::Bind { address, source })
}

fn listen(
    name: &'static str,
    listener: TcpListener,
    router: axum::Router,
    limits: receive::Limits,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Ended>,
) -> Result<SocketAddr, ServiceError> {
    let address = listener.local_addr().map_err(ServiceError::Listener)?;
    info!(listener = name, %address, "listening");
    let stop = stop.clone();
    tasks.spawn(
        async move { Ended::Listener(receive::serve(listener, router, limits, stop).await) },
    );
    Ok(address)
}

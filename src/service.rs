//! The daemon: opens everything, spawns everything, stops everything in the order of the flow.
//!
//! # What always holds
//! * Only this module spawns tasks that live as long as the daemon, all into one set. One that ends by
//!   itself ends the daemon with a failing exit code: half a service is worse than none. So does a thread,
//!   of the ledger, of the couriers or of the log (tests/it/threads.rs).
//! * Stopping goes in the order of the flow ([P10](crate::design::P10)): not ready, after the drain delay stop accepting,
//!   finish requests in flight, let couriers finish theirs, close the ledger (tests/it/shutdown.rs).
//!   The admin listener goes on until the couriers have finished, so that probes and people see what is under way.
//! * What the grace period cuts off is pending in the ledger, not lost.
//! * A new configuration is taken as a whole or not at all, and no request fails for it
//!   (`reload`; tests/it/reload.rs).

mod clock_watch;
mod courier_thread;
mod couriers;
mod failure;
mod occasions;
mod reload;
mod stopping;
mod supervisor;
mod waiting;
mod wiring;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock::{Clock, SystemClock, whole_millis};
use crate::config::Config;
use crate::current::Current;
use crate::deliver;
use crate::ledger::{SqliteLedger, Writer};
use crate::membership::DestinationName;
use crate::operate::access::Tokens;
use crate::operate::actions::Environment;
use crate::operate::admin;
use crate::operate::api::Reloads;
use crate::operate::configuration::Configuration;
use crate::operate::history::History;
use crate::operate::logging::{Lines, chain};
use crate::operate::note;
use crate::operate::sources::Sources;
use crate::operate::telemetry;
use crate::receive::tls::Certificates;
use crate::receive::{self, Doors, PublicState, Readiness};

pub use failure::{ServiceError, of_ledger};
pub use occasions::Origin;

use courier_thread::CourierThread;
use couriers::Running;
use failure::Ended;
use occasions::{Occasion, Occasions};
use supervisor::Supervisor;
use wiring::Traces;

/// Connections that may wait to be accepted, if the system allows so many. A newcomer that finds no room
/// comes again after a second, which is too late for a probe.
const WAITING_CONNECTIONS: u32 = 4096;

/// What a task is there for; the order in which they are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Receiving,
    Delivering,
    Watching,
    Writing,
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
    clock: Arc<dyn Clock>,
    /// As it is applied: what needs a restart is not, whatever its fingerprints say.
    config: Config,
    tasks: JoinSet<Ended>,
    /// Of the tasks that have not ended.
    parts: HashMap<task::Id, Part>,
    couriers: BTreeMap<DestinationName, Running>,
    courier_thread: CourierThread,
    /// What a reload replaces while others read it.
    shown: Shown,
    /// What was received and delivered since the start.
    received: Arc<receive::Counters>,
    delivered: Arc<deliver::Counters>,
    /// All that the process before this one has noted.
    is_note_understood: bool,
    /// If there is a collector for them.
    traces: Option<Traces>,
    /// What is logged.
    lines: Lines,
    /// What the last reading of the configuration came to.
    configuration: Configuration,
    /// Of the listeners that speak TLS, by the listener's name.
    certificates: Vec<(&'static str, Certificates)>,
    readiness: Readiness,
    stop_receiving: CancellationToken,
    stop_delivering: CancellationToken,
    stop_watching: CancellationToken,
}

/// What the listeners see of the configuration.
#[derive(Debug)]
struct Shown {
    doors: Doors,
    tokens: Current<Tokens>,
    standings: Current<wiring::Standings>,
    configured: Current<wiring::ConfiguredByName>,
    entries: Current<wiring::EntriesByName>,
    environments: Current<Vec<Environment>>,
}

/// Runs the daemon until SIGTERM or SIGINT, and reads its configuration again whenever there is reason.
pub async fn run(config: Config, origin: Origin) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let hurry = CancellationToken::new();
    // Listened to before anything is opened, so that a signal is never met by the default action.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(ServiceError::Signals)?;
    let (reloads, asked) = Reloads::channel();
    let supervisor = Supervisor::of_this_process();
    let serving = async {
        let (began, clock): (_, Arc<dyn Clock>) = (Instant::now(), Arc::new(SystemClock));
        let listeners = Listeners::open(&config)?;
        let waiting = || supervisor.ready_but("waiting for space on the disk of the ledger");
        let ledger = waiting::for_ledger(&config, &listeners, &clock, waiting, &stop).await?;
        let Some(ledger) = ledger else { return Ok(()) };
        let lines = origin.logging.lines.clone();
        let service = Service::open(config, reloads, (began, clock), listeners, ledger, lines)?;
        supervisor.ready();
        let occasions = Occasions::new(origin, hangups, asked);
        service.serve_on(Some(occasions), stop.clone(), hurry.clone()).await
    };
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
    /// Opens and spawns everything, within the runtime that this is called in; the listeners accept when
    /// this returns. The configuration stays as it is.
    pub fn start(config: Config) -> Result<Self, ServiceError> {
        let (reloads, _) = Reloads::channel();
        let (began, clock): (_, Arc<dyn Clock>) = (Instant::now(), Arc::new(SystemClock));
        let listeners = Listeners::open(&config)?;
        let ledger = SqliteLedger::open(wiring::ledger_settings(&config), Arc::clone(&clock))?;
        let lines = Lines::default();
        Self::open(config, reloads, (began, clock), listeners, ledger, lines)
    }

    fn open(
        config: Config,
        reloads: Reloads,
        (began, clock): (Instant, Arc<dyn Clock>),
        listeners: Listeners,
        (ledger, writer): (SqliteLedger, Writer),
        lines: Lines,
    ) -> Result<Self, ServiceError> {
        let open_files = raise_open_files();
        let Listeners { public, public_tls, public_address, admin, admin_tls, admin_address } =
            listeners;
        let ledger = Arc::new(ledger);
        let (exporter, traces) = wiring::telemetry(&config, &clock)?;
        let enabled = config.destinations.iter().filter(|destination| destination.enabled);
        let clients = enabled
            .map(|of| Ok((of.clone(), wiring::client(of, traces.as_ref())?)))
            .collect::<Result<Vec<_>, ServiceError>>()?;

        let courier_thread = CourierThread::start().map_err(ServiceError::CourierThread)?;
        let mut tasks = JoinSet::new();
        let mut parts = HashMap::new();
        let task = tasks.spawn_blocking(move || Ended::Writer(writer.run()));
        parts.insert(task.id(), Part::Writing);
        let readiness = Readiness::default();
        let [public_limits, admin_limits] = wiring::listener_limits(&config, open_files);
        let (received, delivered) = <(Arc<receive::Counters>, Arc<deliver::Counters>)>::default();
        let certificates = [("public", &public_tls), ("admin", &admin_tls)].into_iter();
        let certificates = certificates
            .filter_map(|(name, tls)| tls.clone().map(|certificates| (name, certificates)));
        let mut service = Self {
            public_address,
            admin_address,
            ledger: Arc::clone(&ledger),
            configuration: Configuration::started(clock.now()),
            certificates: certificates.collect(),
            clock,
            shown: Shown {
                doors: Doors::new(wiring::entrances(&config, &received)),
                tokens: Current::new(wiring::tokens(&config)),
                standings: Current::new(Vec::new()),
                configured: Current::new(wiring::configured(&config)),
                entries: Current::new(wiring::entries(&config)),
                environments: Current::new(wiring::environments(&config)),
            },
            received: Arc::clone(&received),
            is_note_understood: true,
            delivered,
            traces,
            tasks,
            parts,
            lines,
            couriers: BTreeMap::new(),
            courier_thread,
            readiness: readiness.clone(),
            stop_receiving: CancellationToken::new(),
            stop_delivering: CancellationToken::new(),
            stop_watching: CancellationToken::new(),
            config,
        };
        service.remember();
        for (destination, client) in clients {
            service.start_courier(&destination, client);
        }
        service.show_standings();

        let doors = service.shown.doors.clone();
        let ledger = wiring::ledger(&service);
        let state = PublicState::new(doors, ledger, public_limits, readiness, received);
        for (_, certificates) in service.certificates.clone() {
            let watch = certificates.watch(service.stop_watching.clone());
            service.spawn(Part::Watching, async move {
                watch.await;
                Ended::Watch
            });
        }
        let (mut front, stop) = (receive::front(state), service.stop_receiving.clone());
        if let Some(traces) = &service.traces {
            let scheme = if public_tls.is_some() { "https" } else { "http" };
            front = front.behind(|router| telemetry::traced(router, traces.tracer.clone(), scheme));
        }
        let listener = receive::serve(public, front, public_limits, public_tls, stop);
        service.spawn(Part::Receiving, async move { Ended::Listener(listener.await) });
        let sources = Arc::new(wiring::sources(&service));
        if let Some(exporter) = exporter {
            let exporting = exporter.run(Arc::clone(&sources), service.stop_watching.clone());
            service.spawn(Part::Watching, async move {
                exporting.await;
                Ended::Exporter
            });
        }
        let state = wiring::admin_state(&service, &sources);
        let history = Arc::new(History::default());
        let api = wiring::api(&service, &history, reloads);
        let router = admin::router(state, api, wiring::actions(&service));
        let stop = service.stop_watching.clone();
        let listener = receive::serve(admin, router, admin_limits, admin_tls, stop);
        service.spawn(Part::Watching, async move { Ended::Listener(listener.await) });
        service.watch_over(history, sources);

        service.readiness.ready();
        let duration_ms = whole_millis(began.elapsed());
        info!(
            version = env!("CARGO_PKG_VERSION"),
            destinations = service.config.destinations.len(),
            duration_ms,
            "ready"
        );
        Ok(service)
    }

    /// What was received before, as far as it says something about what is configured now.
    fn remember(&mut self) {
        for of in &self.config.destinations {
            let mappings = wiring::mappings(&self.config, &of.name);
            self.received.of(&of.name).mappings_changed(mappings, self.clock.now());
        }
        self.is_note_understood = note::take_up(&*self.ledger, &self.received);
        self.received.keep_doors(&reload::names_of_doors(&self.config));
    }

    /// Spawns what looks and changes nothing that is delivered: at the numbers of each step, at the clocks, at the log.
    fn watch_over(&mut self, history: Arc<History>, sources: Arc<Sources>) {
        let logging = Arc::clone(&sources.refusals).watch();
        self.spawn(Part::Watching, async move {
            logging.await;
            Ended::Refusals
        });
        let logging = Arc::clone(&sources.received).watch(self.stop_watching.clone());
        self.spawn(Part::Watching, async move {
            logging.await;
            Ended::Refusals
        });
        let sampling = history.watch(sources, self.stop_watching.clone());
        self.spawn(Part::Watching, async move {
            sampling.await;
            Ended::History
        });
        let stop = self.stop_watching.clone();
        let (ledger, received) = (Arc::clone(&self.ledger), Arc::clone(&self.received));
        let clock = Arc::clone(&self.clock);
        let noting = note::keep(ledger, received, clock, self.is_note_understood, stop);
        self.spawn(Part::Watching, async move {
            noting.await;
            Ended::Note
        });
        let watching = clock_watch::watch(self, self.stop_watching.clone());
        self.spawn(Part::Watching, async move {
            watching.await;
            Ended::ClockWatch
        });
        let (lines, stop) = (self.lines.clone(), self.stop_watching.clone());
        self.spawn(Part::Watching, async move {
            stop.run_until_cancelled(lines.ended()).await;
            Ended::Log
        });
    }

    /// Serves until `stop`, then stops in the order of the flow; `hurry` cuts the grace period short.
    pub async fn serve(
        self,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        self.serve_on(None, stop, hurry).await
    }

    /// The same, with a new configuration on every occasion.
    async fn serve_on(
        mut self,
        mut occasions: Option<Occasions>,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        let failure = loop {
            let occasion = tokio::select! {
                () = stop.cancelled() => break None,
                // A task that is waited for stays in the set if this wait is given up.
                ended = self.tasks.join_next_with_id() => break Some(match ended {
                    Some(ended) => {
                        self.tick_off(ended).map_or_else(|failure| failure, Ended::unasked)
                    }
                    None => ServiceError::EndedByItself("everything".into()),
                }),
                occasion = next_of(occasions.as_mut()) => occasion,
            };
            let Some(occasions) = &mut occasions else { continue };
            tokio::select! {
                // Couriers that the reload has stopped would be stopped now anyway.
                () = stop.cancelled() => break None,
                reloaded = self.reload(occasions, occasion) => match reloaded {
                    Ok(()) => {}
                    Err(failure) => break Some(failure),
                }
            }
        };
        // Before a word is said of it: whoever reads that may ask the probe.
        self.readiness.not_ready("stopping");
        match &failure {
            None => {
                let grace_period_ms = whole_millis(self.config.stop.grace_period);
                info!(grace_period_ms, "stopping");
            }
            Some(failure) => {
                error!(failure = chain(failure), "stopping, because a part of the daemon is gone");
            }
        }
        let drain_delay =
            if failure.is_none() { self.config.stop.drain_delay } else { Duration::ZERO };
        match (failure, self.stop(drain_delay, hurry).await) {
            // Whoever met the closed ledger may have ended first; why it closed is what matters.
            (_, Err(cause @ ServiceError::Writer(_))) => Err(cause),
            (Some(failure), _) => Err(failure),
            (None, stopped) => stopped,
        }
    }

    fn spawn(
        &mut self,
        part: Part,
        task: impl Future<Output = Ended> + Send + 'static,
    ) -> task::Id {
        let id = match part {
            Part::Delivering => self.tasks.spawn_on(task, self.courier_thread.runtime()),
            Part::Receiving | Part::Watching | Part::Writing => self.tasks.spawn(task),
        }
        .id();
        self.parts.insert(id, part);
        id
    }
}

/// Without occasions there is never one.
async fn next_of(occasions: Option<&mut Occasions>) -> Occasion {
    match occasions {
        Some(occasions) => occasions.next().await,
        None => std::future::pending().await,
    }
}

/// As many open files as the system lets us have: each connection is one. Returns how many.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What the daemon listens on, bound and announced.
#[derive(Debug)]
struct Listeners {
    public: TcpListener,
    public_tls: Option<Certificates>,
    public_address: SocketAddr,
    admin: TcpListener,
    admin_tls: Option<Certificates>,
    admin_address: SocketAddr,
}

impl Listeners {
    fn open(config: &Config) -> Result<Self, ServiceError> {
        let public_tls = wiring::certificates(config.listen.tls.as_ref())?;
        let admin_tls = wiring::certificates(config.admin.tls.as_ref())?;
        let (public, admin) = (
            bind("listen.address", config.listen.address)?,
            bind("admin.address", config.admin.address)?,
        );
        Ok(Self {
            public_address: announce("public", &public)?,
            public,
            public_tls,
            admin_address: announce("admin", &admin)?,
            admin,
            admin_tls,
        })
    }
}

fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServiceError> {
    let listen = || bound(address)?.listen(WAITING_CONNECTIONS);
    listen().map_err(|source| ServiceError::Bind { key, address, source })
}

fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a restart does not wait for the connections of before
    socket.bind(address)?;
    Ok(socket)
}

/// Whether a start could listen there. Nobody is kept from it: the address is let go of at once, and nothing is
/// accepted.
pub fn try_address(key: &'static str, address: SocketAddr) -> Result<(), ServiceError> {
    bound(address).map(drop).map_err(|source| ServiceError::Bind { key, address, source })
}

fn announce(name: &'static str, listener: &TcpListener) -> Result<SocketAddr, ServiceError> {
    let address = listener.local_addr().map_err(ServiceError::Listener)?;
    info!(listener = name, %address, "listening");
    Ok(address)
}

//! The daemon: opens everything, spawns everything, and stops everything in the order in which data flows.
//!
//! # What always holds
//! * Only this module spawns tasks that live as long as the daemon, all into one set. If one of them ends
//!   by itself, the daemon ends with a failing exit code: half a service is worse than none. The same goes
//!   for the threads of the ledger, the couriers and the log (tests/it/threads.rs).
//! * Stopping follows the data flow ([P10](crate::design::P10)): report not ready, stop accepting after the
//!   drain delay, finish requests in flight, let couriers finish theirs, close the ledger
//!   (tests/it/shutdown.rs). The admin listener stays up until the couriers have finished, so that probes
//!   and operators can watch.
//! * What the grace period cuts off is pending in the ledger, not lost.
//! * A new configuration is applied as a whole or not at all, and no request fails because of it (`reload`;
//!   tests/it/reload.rs).

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
use crate::ledger::{Obstacle, Store, StoreWriter};
use crate::membership::DestinationName;
use crate::operate::access::Tokens;
use crate::operate::actions::Environment;
use crate::operate::admin;
use crate::operate::api::reconcile;
use crate::operate::api::{Api, Reloads};
use crate::operate::configuration::Configuration;
use crate::operate::history::History;
use crate::operate::logging::{Lines, chain};
use crate::operate::note;
use crate::operate::sources::Sources;
use crate::operate::telemetry;
use crate::operate::whole;
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

/// The accept backlog, if the system allows one this large. A connection attempt that finds it full is
/// retried by the client's TCP stack only after a second, which is too late for a probe.
const WAITING_CONNECTIONS: u32 = 4096;

/// What a task does, in the order in which tasks are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Receiving,
    Delivering,
    Watching,
    Writing,
}

/// A running daemon.
#[derive(Debug)]
pub struct Service {
    /// The address that the public listener is bound to.
    pub public_address: SocketAddr,
    /// The address that the admin listener is bound to.
    pub admin_address: SocketAddr,
    /// The ledger, for inspection.
    pub ledger: Store,
    clock: Arc<dyn Clock>,
    /// The configuration of the last reload that applied something. Its values of keys that need a restart
    /// may be new and not in effect; their fingerprints are the old ones.
    config: Config,
    tasks: JoinSet<Ended>,
    /// The part that each running task belongs to.
    parts: HashMap<task::Id, Part>,
    couriers: BTreeMap<DestinationName, Running>,
    courier_thread: CourierThread,
    /// Replaced by a reload while listeners read it.
    shown: Shown,
    /// What was received since the start, continued from what the previous process noted.
    received: Arc<receive::Counters>,
    delivered: Arc<deliver::Counters>,
    /// Whether everything that the previous process noted in the ledger could be read.
    is_note_understood: bool,
    /// Set if a collector for traces is configured.
    traces: Option<Traces>,
    /// The queue of lines on their way to the log.
    lines: Lines,
    /// The outcome of the last reading of the configuration.
    configuration: Configuration,
    /// Certificates of the listeners that speak TLS, with the listener's name.
    certificates: Vec<(&'static str, Certificates)>,
    readiness: Readiness,
    stop_receiving: CancellationToken,
    stop_delivering: CancellationToken,
    stop_watching: CancellationToken,
}

/// The parts of the configuration that listeners read.
#[derive(Debug)]
struct Shown {
    doors: Doors,
    tokens: Current<Tokens>,
    standings: Current<wiring::Standings>,
    configured: Current<wiring::ConfiguredByName>,
    entries: Current<wiring::EntriesByName>,
    environments: Current<Vec<Environment>>,
}

/// Runs the daemon until SIGTERM or SIGINT; reloads its configuration on SIGHUP, on request, and when its
/// files change.
pub async fn run(config: Config, origin: Origin) -> Result<(), ServiceError> {
    let stop = CancellationToken::new();
    let hurry = CancellationToken::new();
    // Registered before anything is opened, so that no signal meets its default action, which is to kill
    // the process.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServiceError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServiceError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(ServiceError::Signals)?;
    let (reloads, asked) = Reloads::channel();
    let supervisor = Supervisor::of_this_process();
    let serving = async {
        let (began, clock): (_, Arc<dyn Clock>) = (Instant::now(), Arc::new(SystemClock));
        let listeners = Listeners::open(&config)?;
        let waiting =
            |obstacle: &Obstacle| supervisor.ready_but(&format!("waiting: {}", obstacle.words()));
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
            tokio::select! { // cancel safe: the stream keeps a signal that arrives between two waits
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
    /// Opens and spawns everything on the current runtime; both listeners accept connections when this
    /// returns. The configuration is never reloaded.
    pub async fn start(config: Config) -> Result<Self, ServiceError> {
        let (reloads, _) = Reloads::channel();
        let (began, clock): (_, Arc<dyn Clock>) = (Instant::now(), Arc::new(SystemClock));
        let listeners = Listeners::open(&config)?;
        let ledger = Store::open(wiring::ledger_settings(&config), Arc::clone(&clock)).await?;
        let lines = Lines::default();
        Self::open(config, reloads, (began, clock), listeners, ledger, lines)
    }

    fn open(
        config: Config,
        reloads: Reloads,
        (began, clock): (Instant, Arc<dyn Clock>),
        listeners: Listeners,
        (ledger, writer): (Store, StoreWriter),
        lines: Lines,
    ) -> Result<Self, ServiceError> {
        let open_files = raise_open_files();
        let Listeners { public, public_tls, public_address, admin, admin_tls, admin_address } =
            listeners;
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
            ledger: ledger.clone(),
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
        let ledger = wiring::recorder(&service);
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
        let api = Arc::new(wiring::api(&service, &history, reloads));
        service.keep_reconciling(Arc::clone(&api));
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

    /// Spawns the task that records what is left of reconciliations.
    fn keep_reconciling(&mut self, api: Arc<Api>) {
        let recording = reconcile::applying::keep_recording(api);
        self.spawn(Part::Watching, async move {
            recording.await;
            Ended::Reconciling
        });
    }

    /// Restores from the ledger what the previous process noted about received events, as far as it
    /// concerns the present configuration.
    fn remember(&mut self) {
        for of in &self.config.destinations {
            let mappings = wiring::mappings(&self.config, &of.name);
            self.received.of(&of.name).mappings_changed(mappings, self.clock.now());
        }
        self.is_note_understood = match &self.ledger {
            Store::Embedded(ledger) => note::take_up(&**ledger, &self.received),
            // The note is of any replica: whoever took it up would count what another has counted.
            Store::Shared(_) => true,
        };
        self.received.keep_doors(&reload::names_of_doors(&self.config));
    }

    /// Spawns the tasks that only observe: the counters of each step, the clocks and the log.
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
        if matches!(self.ledger, Store::Shared(_)) {
            let saying = whole::keep_saying(Arc::clone(&sources), self.stop_watching.clone());
            self.spawn(Part::Watching, async move {
                saying.await;
                Ended::Saying
            });
        }
        let sampling = history.watch(sources, self.stop_watching.clone());
        self.spawn(Part::Watching, async move {
            sampling.await;
            Ended::History
        });
        let stop = self.stop_watching.clone();
        let (ledger, received) = (self.ledger.operations(), Arc::clone(&self.received));
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

    /// Like [`serve`](Self::serve), and reloads the configuration on every occasion.
    async fn serve_on(
        mut self,
        mut occasions: Option<Occasions>,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), ServiceError> {
        let failure = loop {
            let occasion = tokio::select! {
                () = stop.cancelled() => break None,
                // Cancel safe: tasks stay in the set if another branch wins.
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
                // A reload may be cancelled halfway: couriers that it has stopped would be stopped now
                // anyway.
                () = stop.cancelled() => break None,
                reloaded = self.reload(occasions, occasion) => match reloaded {
                    Ok(()) => {}
                    Err(failure) => break Some(failure),
                }
            }
        };
        // Set before the log line below: whoever reads that line may query the probe at once.
        self.readiness.not_ready("stopping");
        match &failure {
            None => {
                let grace_period_ms = whole_millis(self.config.stop.grace_period);
                info!(grace_period_ms, "stopping");
            }
            Some(failure) => {
                error!(
                    failure = chain(failure),
                    "stopping, because a part of the daemon has failed"
                );
            }
        }
        let drain_delay =
            if failure.is_none() { self.config.stop.drain_delay } else { Duration::ZERO };
        match (failure, self.stop(drain_delay, hurry).await) {
            // A task that found the ledger closed may have failed first; the error that closed it is the
            // cause.
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

/// Pends for ever without occasions.
async fn next_of(occasions: Option<&mut Occasions>) -> Occasion {
    match occasions {
        Some(occasions) => occasions.next().await,
        None => std::future::pending().await,
    }
}

/// Raises the soft limit of open files to the hard limit, as each connection is an open file. Returns the
/// new limit.
fn raise_open_files() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit on open files (RLIMIT_NOFILE) could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The listeners: bound, and their addresses logged.
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

//! Builds each step's settings and parts from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Service, ServiceError};
use crate::clock::Clock;
use crate::config::{self, Config, LedgerPlace, SegmentSection};
use crate::counting::Count;
use crate::deliver::{Courier, Standing};
use crate::launchdarkly::{Api as LaunchDarkly, Client};
use crate::ledger::{
    DatabaseSettings, DestinationSettings, Recorder, Replica, Settings, SharedSettings,
    StoreSettings,
};
use crate::membership::DestinationName;
use crate::operate::access::Tokens;
use crate::operate::actions::{Actions, Environment};
use crate::operate::admin::AdminState;
use crate::operate::api::progress::Courses;
use crate::operate::api::reconcile::turn::Turn;
use crate::operate::api::{Api, Reloads};
use crate::operate::entries::{self, Entry};
use crate::operate::explain::Configured;
use crate::operate::history::History;
use crate::operate::refusals::Refusals;
use crate::operate::sources::Sources;
use crate::operate::telemetry::{self, Exporter, TracedApi, TracedLedger, Tracer, Untold};
use crate::receive::tls::{Certificates, TlsFiles, told};
use crate::receive::{self, Destination, Entrance, Limits, Rate};

/// How many request timeouts after an unanswered call its members are told again. By then a late duplicate
/// of that call has arrived.
const REASSERT_AFTER_TIMEOUTS: u32 = 2;

/// Most connections open at once on the admin listener, which serves a few people and programs.
const ADMIN_CONNECTIONS: usize = 256;

pub(super) type Standings = Vec<(DestinationName, watch::Receiver<Standing>)>;
pub(super) type EntriesByName = BTreeMap<DestinationName, Vec<Entry>>;
pub(super) type ConfiguredByName = BTreeMap<DestinationName, Arc<Configured>>;

/// Wraps parts in tracing if there is a collector for traces.
#[derive(Debug)]
pub(super) struct Traces {
    pub tracer: Tracer,
    untold: Untold,
}

impl Traces {
    pub fn new(tracer: Tracer) -> Self {
        Self { tracer, untold: Untold::default() }
    }

    fn around(&self, client: Client, of: &config::Destination) -> Arc<dyn LaunchDarkly> {
        let client = Arc::new(client.in_traces(telemetry::traceparent));
        let url = client.url().clone();
        let (tracer, untold) = (self.tracer.clone(), self.untold.clone());
        Arc::new(TracedApi::new(client, of.name.clone(), url, tracer, untold))
    }
}

/// The exporter of telemetry and the source of traces, if a collector is configured.
pub(super) fn telemetry(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<(Option<Exporter>, Option<Traces>), ServiceError> {
    let Some(telemetry) = &config.telemetry else { return Ok((None, None)) };
    let (exporter, tracer) =
        Exporter::new(telemetry, Arc::clone(clock)).map_err(ServiceError::Telemetry)?;
    Ok((Some(exporter), Some(Traces::new(tracer))))
}

/// The ledger as `receive` sees it, wrapped in tracing if enabled.
pub(super) fn recorder(service: &Service) -> Arc<dyn Recorder> {
    let ledger = service.ledger.recorder();
    match &service.traces {
        None => ledger,
        Some(Traces { tracer, untold }) => {
            Arc::new(TracedLedger::new(ledger, tracer.clone(), untold.clone()))
        }
    }
}

/// Identifies the LaunchDarkly environment that a destination's calls go to.
pub(super) fn environment(destination: &config::Destination) -> String {
    let endpoint = &destination.launchdarkly;
    format!("{} {}", endpoint.base_url, endpoint.client_side_id)
}

pub(super) fn destinations(config: &Config) -> Vec<DestinationSettings> {
    let of = |destination: &config::Destination| DestinationSettings {
        name: destination.name.clone(),
        environment: environment(destination),
        repeat_window: destination.delivery.repeat_window,
        reassert_after: destination.delivery.request_timeout * REASSERT_AFTER_TIMEOUTS,
        expires_after: destination.expires_after.clone(),
        guard: destination.guard,
    };
    config.destinations.iter().map(of).collect()
}

pub(super) fn ledger_settings(config: &Config) -> StoreSettings {
    let ledger = &config.ledger;
    match &ledger.place {
        LedgerPlace::Directory(directory) => StoreSettings::Embedded(Settings {
            path: config::absolute(&directory.path),
            disk_reserve_bytes: ledger.disk_reserve_bytes,
            cache_kib: u32::try_from(ledger.cache_mib.saturating_mul(1024)).unwrap_or(u32::MAX),
            tombstone_ttl: ledger.tombstone_ttl,
            rejected: ledger.rejected,
            parked: ledger.parked,
            max_audiences: ledger.max_audiences,
            check_every: ledger.check_every,
            destinations: destinations(config),
        }),
        LedgerPlace::Database(address) => StoreSettings::Shared(Box::new(SharedSettings {
            database: DatabaseSettings {
                address: (**address).clone(),
                connections: ledger.connections,
                statement_timeout: ledger.statement_timeout,
            },
            replica: replica(config),
            lease_ttl: ledger.lease_ttl,
            tombstone_ttl: ledger.tombstone_ttl,
            rejected: ledger.rejected,
            parked: ledger.parked,
            max_audiences: ledger.max_audiences,
            destinations: destinations(config),
        })),
    }
}

/// This process among those that share the ledger. Of the configuration only that counts which has to be the same
/// everywhere.
fn replica(config: &Config) -> Replica {
    let is_common = |key: &str| {
        let sections = ["destinations", "delivery", "routes", "ledger"];
        let places = ["ledger.url", "ledger.url_file", "ledger.connections"];
        sections.iter().any(|section| is_at_or_below(key, section)) && !places.contains(&key)
    };
    let configuration = format!("{:016x}", config.fingerprints.digest(is_common));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Replica::here(&host, configuration)
}

/// A directory for files that are needed for a while: on the ledger's disk, if it has one.
fn scratch(config: &Config) -> PathBuf {
    match &config.ledger.place {
        LedgerPlace::Directory(directory) => directory.path.clone(),
        LedgerPlace::Database(_) => std::env::temp_dir(),
    }
}

/// The client that makes a destination's calls.
pub(super) fn client(
    destination: &config::Destination,
    traces: Option<&Traces>,
) -> Result<Arc<dyn LaunchDarkly>, ServiceError> {
    let delivery = &destination.delivery;
    let (timeout, connections) = (delivery.request_timeout, delivery.policy.concurrency.get());
    let client = Client::new(destination.launchdarkly.endpoint(timeout, connections));
    let client = client.map_err(|source| {
        let destination = destination.name.clone();
        ServiceError::Client { destination, source }
    })?;
    Ok(match traces {
        None => Arc::new(client),
        Some(traces) => traces.around(client, destination),
    })
}

pub(super) fn courier(
    destination: &config::Destination,
    client: Arc<dyn LaunchDarkly>,
    service: &Service,
) -> Courier {
    Courier::new(
        destination.name.clone(),
        destination.launchdarkly.client_side_id.clone(),
        client,
        destination.delivery.policy.clone(),
        service.ledger.outbox(&destination.name),
        Arc::clone(&service.clock),
        rand::make_rng(),
        service.delivered.of(&destination.name),
    )
}

/// The certificates of a listener, if it speaks TLS.
pub(super) fn certificates(files: Option<&TlsFiles>) -> Result<Option<Certificates>, ServiceError> {
    let open = |files: &TlsFiles| Certificates::open(files.clone());
    files.map(open).transpose().map_err(|faults| ServiceError::Tls(told(&faults)))
}

/// The limits of the public and the admin listener, given the limit of open files.
pub(super) fn listener_limits(config: &Config, open_files: u64) -> [Limits; 2] {
    let limits = config.listen.limits;
    // five eighths for the public listener, one for admin; the rest for the ledger, LaunchDarkly and
    // connections being closed
    let eighth = usize::try_from(open_files / 8).unwrap_or(usize::MAX);
    let public = limits.max_connections.min(eighth.saturating_mul(5));
    if public < limits.max_connections {
        tracing::warn!(
            open_files,
            connections = public,
            "listen.max_connections needs more open files than the system allows (RLIMIT_NOFILE)"
        );
    }
    let admin = ADMIN_CONNECTIONS.min(eighth);
    [
        Limits { max_connections: public, ..limits },
        Limits { max_connections: admin, proxy_protocol: false, ..limits },
    ]
}

/// The paths that events are posted to: one for each destination with a `segment` section, and one for each
/// route.
pub(super) fn entrances(config: &Config, received: &receive::Counters) -> Vec<Entrance> {
    let behind = |of: &config::Destination| Destination {
        name: of.name.clone(),
        enabled: of.enabled,
        mappings: of.mappings.clone(),
        counters: received.of(&of.name),
    };
    let all: BTreeMap<&DestinationName, Arc<Destination>> =
        config.destinations.iter().map(|of| (&of.name, Arc::new(behind(of)))).collect();
    let own = config.destinations.iter().filter_map(|of| {
        let destinations = all.get(&of.name).cloned().into_iter().collect();
        Some(entrance(of.name.as_str(), of.segment.as_ref()?, destinations))
    });
    let routes = config.routes.iter().map(|of| {
        let destinations = of.destinations.iter().filter_map(|name| all.get(name).cloned());
        entrance(&of.name, &of.segment, destinations.collect())
    });
    own.chain(routes).collect()
}

fn entrance(name: &str, segment: &SegmentSection, destinations: Vec<Arc<Destination>>) -> Entrance {
    Entrance {
        name: name.to_owned(),
        destinations,
        credentials: segment.credentials.clone(),
        extra_fields: segment.extra_fields.clone(),
        allowed_sources: segment.allowed_sources.clone(),
        cors_origins: segment.cors_origins.clone(),
        allow_batches: segment.allow_batches,
        corrects_clocks_behind: segment.correct_clocks_behind,
        rate: segment.max_requests_per_s.map(Rate::a_second),
    }
}

pub(super) fn tokens(config: &Config) -> Tokens {
    Tokens { operate: config.admin.tokens.clone(), read: config.admin.read_tokens.clone() }
}

pub(super) fn configured(config: &Config) -> ConfiguredByName {
    config.destinations.iter().map(|of| (of.name.clone(), Arc::new(of.into()))).collect()
}

pub(super) fn entries(config: &Config) -> EntriesByName {
    let names = config.destinations.iter().map(|of| &of.name);
    names.map(|name| (name.clone(), entries::of(config, name))).collect()
}

/// A number that changes whenever a destination's mappings do.
pub(super) fn mappings(config: &Config, name: &DestinationName) -> u64 {
    config.fingerprints.digest(|key| decides_mappings(key, name))
}

/// Whether a key of the configuration decides how a destination's events become deltas.
pub(super) fn decides_mappings(key: &str, name: &DestinationName) -> bool {
    let keys = ["mapping", "mapping_file", "subscribe"];
    keys.iter().any(|of| is_at_or_below(key, &format!("destinations.{name}.{of}")))
}

/// Whether `key` is `path` or lies below it.
pub(super) fn is_at_or_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

pub(super) fn environments(config: &Config) -> Vec<Environment> {
    let of = |destination: &config::Destination| Environment {
        destination: destination.name.clone(),
        enabled: destination.enabled,
        launchdarkly: destination.launchdarkly.clone(),
        request_timeout: destination.delivery.request_timeout,
    };
    config.destinations.iter().map(of).collect()
}

pub(super) fn sources(service: &Service) -> Sources {
    Sources {
        ledger: service.ledger.operations(),
        standings: service.shown.standings.clone(),
        entries: service.shown.entries.clone(),
        readiness: service.readiness.clone(),
        received: Arc::clone(&service.received),
        delivered: Arc::clone(&service.delivered),
        lines: service.lines.clone(),
        configuration: service.configuration.clone(),
        certificates: service.certificates.clone(),
        refusals: Arc::new(Refusals::new(service.stop_watching.clone())),
        started_at: service.clock.now(),
        not_ok_at: std::sync::Mutex::default(),
        seen: std::sync::Mutex::default(),
        unread: Count::default(),
        clock: Arc::clone(&service.clock),
    }
}

pub(super) fn admin_state(service: &Service, sources: &Arc<Sources>) -> AdminState {
    AdminState {
        tokens: service.shown.tokens.clone(),
        sources: Arc::clone(sources),
        segment_app: service.config.admin.segment_app,
    }
}

pub(super) fn actions(service: &Service) -> Actions {
    let ledger = service.ledger.operations();
    Actions { ledger, environments: service.shown.environments.clone() }
}

pub(super) fn api(service: &Service, history: &Arc<History>, reloads: Reloads) -> Api {
    Api {
        ledger: service.ledger.operations(),
        delivered: Arc::clone(&service.delivered),
        destinations: service.shown.configured.clone(),
        tombstone_ttl: service.config.ledger.tombstone_ttl,
        scratch: scratch(&service.config),
        stopping: service.stop_receiving.clone(),
        history: Arc::clone(history),
        courses: Courses::default(),
        reconciling: Turn::default(),
        reloads,
    }
}

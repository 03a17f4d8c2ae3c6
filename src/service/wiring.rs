//! From the configuration to the parts: what each step is given of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{ServiceError, Shown};
use crate::clock::Clock;
use crate::config::{self, Config, Kept, SegmentSection};
use crate::deliver::{Courier, Policy, Standing};
use crate::launchdarkly::Client;
use crate::ledger::{DestinationSettings, Ledger, Operations, Retention, Settings, SqliteLedger};
use crate::membership::DestinationName;
use crate::operate::actions::{Actions, Environment};
use crate::operate::admin::AdminState;
use crate::operate::api::progress::Courses;
use crate::operate::api::{Api, Reloads};
use crate::operate::explain::Configured;
use crate::receive::{Credential, Credentials, Destination, Entrance, Limits, Rate, Readiness};
use crate::secret::Secret;

/// A late duplicate of an unanswered call has had this many request timeouts to arrive.
const REASSERT_AFTER_TIMEOUTS: u32 = 2;

pub(super) type Tokens = Vec<Secret>;
pub(super) type Standings = Vec<(DestinationName, watch::Receiver<Standing>)>;
pub(super) type DestinationsByName = BTreeMap<DestinationName, Arc<Configured>>;

/// The environment that a destination's tellings go to.
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
    };
    config.destinations.iter().map(of).collect()
}

pub(super) fn ledger_settings(config: &Config) -> Settings {
    let kept =
        |Kept { ttl, max_count, max_bytes }| Retention { max_age: ttl, max_count, max_bytes };
    Settings {
        path: config.ledger.path.clone(),
        disk_reserve_bytes: config.ledger.disk_reserve_bytes,
        cache_kib: u32::try_from(config.ledger.cache_mib.saturating_mul(1024)).unwrap_or(u32::MAX),
        tombstone_ttl: config.ledger.tombstone_ttl,
        rejected: kept(config.ledger.rejected),
        parked: kept(config.ledger.parked),
        check_every: config.ledger.check_every,
        destinations: destinations(config),
    }
}

/// What makes the calls of a destination.
pub(super) fn client(destination: &config::Destination) -> Result<Arc<Client>, ServiceError> {
    let delivery = &destination.delivery;
    let (timeout, connections) = (delivery.request_timeout, delivery.concurrency.get());
    let client = Client::new(destination.launchdarkly.endpoint(timeout, connections));
    client.map(Arc::new).map_err(|source| {
        let destination = destination.name.clone();
        ServiceError::Client { destination, source }
    })
}

pub(super) fn policy(destination: &config::Destination) -> Policy {
    let delivery = &destination.delivery;
    Policy {
        max_batch: delivery.max_batch,
        linger: delivery.linger,
        concurrency: delivery.concurrency,
        min_concurrency: delivery.min_concurrency,
        retry_floor: delivery.retry_floor,
        retry_ceiling: delivery.retry_ceiling,
    }
}

pub(super) fn courier(
    destination: &config::Destination,
    client: Arc<Client>,
    ledger: &Arc<SqliteLedger>,
    clock: &Arc<dyn Clock>,
) -> Courier {
    Courier::new(
        destination.name.clone(),
        destination.launchdarkly.client_side_id.clone(),
        client,
        policy(destination),
        Arc::clone(ledger) as Arc<dyn Ledger>,
        Arc::clone(clock),
        rand::make_rng(),
    )
}

pub(super) fn limits(config: &Config) -> Limits {
    Limits {
        body_limit_bytes: config.listen.body_limit_bytes,
        body_budget_bytes: config.listen.body_budget_bytes,
        header_timeout: config.listen.header_timeout,
        body_timeout: config.listen.body_timeout,
        answer_timeout: config.listen.answer_timeout,
        max_connections: config.listen.max_connections,
        max_requests: config.listen.max_requests,
        trusted_proxies: config.listen.trusted_proxies,
    }
}

/// The paths that events are posted to: those of the destinations, and those of the routes.
pub(super) fn entrances(config: &Config) -> Vec<Entrance> {
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

fn behind(destination: &config::Destination) -> Destination {
    Destination {
        name: destination.name.clone(),
        enabled: destination.enabled,
        mappings: destination.mappings.clone(),
    }
}

fn entrance(name: &str, segment: &SegmentSection, destinations: Vec<Arc<Destination>>) -> Entrance {
    let credential = |credential: &config::Credential| match credential {
        config::Credential::Signature => Credential::Signature,
        config::Credential::Bearer => Credential::Bearer,
        config::Credential::WriteKey => Credential::WriteKey,
    };
    Entrance {
        name: name.to_owned(),
        destinations,
        credentials: Credentials {
            shared_secrets: segment.shared_secrets.clone(),
            bearer_tokens: segment.bearer_tokens.clone(),
            write_keys: segment.write_keys.clone(),
            require: segment.require.iter().map(credential).collect(),
            allow_unauthenticated: segment.allow_unauthenticated,
        },
        extra_fields: segment.extra_fields.clone(),
        allowed_sources: segment.allowed_sources.clone(),
        allow_batches: segment.allow_batches,
        rate: segment.max_requests_per_s.map(Rate::a_second),
    }
}

pub(super) fn destinations_by_name(config: &Config) -> DestinationsByName {
    let of = |destination: &config::Destination| {
        (destination.name.clone(), Arc::new(destination.into()))
    };
    config.destinations.iter().map(of).collect()
}

pub(super) fn admin_state(
    config: &Config,
    shown: &Shown,
    ledger: &Arc<SqliteLedger>,
    readiness: &Readiness,
) -> AdminState {
    AdminState {
        tokens: shown.tokens.clone(),
        ledger: Arc::clone(ledger) as Arc<dyn Operations>,
        standings: shown.standings.clone(),
        readiness: readiness.clone(),
        segment_app: config.admin.segment_app,
    }
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

pub(super) fn actions(shown: &Shown, ledger: &Arc<SqliteLedger>) -> Actions {
    let ledger = Arc::clone(ledger) as Arc<dyn Operations>;
    Actions { ledger, environments: shown.environments.clone() }
}

pub(super) fn api(
    config: &Config,
    shown: &Shown,
    ledger: &Arc<SqliteLedger>,
    reloads: Reloads,
) -> Api {
    Api {
        ledger: Arc::clone(ledger) as Arc<dyn Operations>,
        destinations: shown.destinations.clone(),
        tombstone_ttl: config.ledger.tombstone_ttl,
        reloads,
        courses: Courses::default(),
    }
}

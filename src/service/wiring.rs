//! From the configuration to the parts: what each step is given of it.

use std::sync::Arc;

use url::Url;

use super::ServiceError;
use crate::clock::Clock;
use crate::config::{self, Config, Kept};
use crate::deliver::{self, Courier, Policy};
use crate::launchdarkly::{Api, Client};
use crate::ledger::{DestinationSettings, Ledger, Operations, Retention, Settings, SqliteLedger};
use crate::membership::DestinationName;
use crate::operate::admin::AdminState;
use crate::operate::api;
use crate::operate::sources::Sources;
use crate::operate::telemetry::{self, TracedApi, TracedLedger, Tracer, Untold};
use crate::receive::{
    self, Credential, Credentials, Destination, Limits, PublicState, Rate, Readiness,
};

/// A late duplicate of an unanswered call has had this many request timeouts to arrive.
const REASSERT_AFTER_TIMEOUTS: u32 = 2;

/// What is wrapped around the parts where there is a collector for traces.
pub(super) struct Traces {
    pub tracer: Tracer,
    untold: Untold,
}

impl Traces {
    pub fn new(tracer: Tracer) -> Self {
        Self { tracer, untold: Untold::default() }
    }

    fn around(&self, client: Client, name: &DestinationName, base_url: &Url) -> Arc<dyn Api> {
        let client = Arc::new(client.in_traces(telemetry::traceparent));
        let host = base_url.host_str().unwrap_or_default();
        let (tracer, untold) = (self.tracer.clone(), self.untold.clone());
        Arc::new(TracedApi::new(client, name.clone(), host, tracer, untold))
    }
}

pub(super) fn ledger_settings(config: &Config) -> Settings {
    let of = |destination: &config::Destination| {
        let endpoint = &destination.launchdarkly;
        DestinationSettings {
            name: destination.name.clone(),
            environment: format!("{} {}", endpoint.base_url, endpoint.client_side_id),
            repeat_window: destination.delivery.repeat_window,
            reassert_after: destination.delivery.request_timeout * REASSERT_AFTER_TIMEOUTS,
        }
    };
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
        destinations: config.destinations.iter().map(of).collect(),
    }
}

/// One courier for each destination that is enabled.
pub(super) fn couriers(
    config: &Config,
    ledger: &Arc<SqliteLedger>,
    clock: &Arc<dyn Clock>,
    delivered: &deliver::Counters,
    traces: Option<&Traces>,
) -> Result<Vec<(DestinationName, Courier)>, ServiceError> {
    let enabled = config.destinations.iter().filter(|destination| destination.enabled);
    enabled
        .map(|destination| {
            let name = destination.name.clone();
            let delivery = &destination.delivery;
            let launchdarkly = &destination.launchdarkly;
            let connections = delivery.concurrency.get();
            let client = Client::new(launchdarkly.endpoint(delivery.request_timeout, connections))
                .map_err(|source| ServiceError::Client { destination: name.clone(), source })?;
            let client: Arc<dyn Api> = match traces {
                None => Arc::new(client),
                Some(traces) => traces.around(client, &name, &launchdarkly.base_url),
            };
            let policy = Policy {
                max_batch: delivery.max_batch,
                linger: delivery.linger,
                concurrency: delivery.concurrency,
                min_concurrency: delivery.min_concurrency,
                retry_floor: delivery.retry_floor,
                retry_ceiling: delivery.retry_ceiling,
            };
            let courier = Courier::new(
                name.clone(),
                launchdarkly.client_side_id.clone(),
                client,
                policy,
                Arc::clone(ledger) as Arc<dyn Ledger>,
                Arc::clone(clock),
                rand::make_rng(),
                delivered.of(&name),
            );
            Ok((name, courier))
        })
        .collect()
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

pub(super) fn public_state(
    config: &Config,
    ledger: &Arc<SqliteLedger>,
    readiness: &Readiness,
    received: &Arc<receive::Counters>,
    traces: Option<&Traces>,
) -> PublicState {
    let of = |destination: &config::Destination| {
        let segment = &destination.segment;
        let credential = |credential: &config::Credential| match credential {
            config::Credential::Signature => Credential::Signature,
            config::Credential::Bearer => Credential::Bearer,
        };
        Destination {
            name: destination.name.clone(),
            enabled: destination.enabled,
            mappings: destination.mappings.clone(),
            credentials: Credentials {
                shared_secrets: segment.shared_secrets.clone(),
                bearer_tokens: segment.bearer_tokens.clone(),
                require: segment.require.iter().map(credential).collect(),
                allow_unauthenticated: segment.allow_unauthenticated,
            },
            write_keys: segment.write_keys.clone(),
            extra_fields: segment.extra_fields.clone(),
            allowed_sources: segment.allowed_sources.clone(),
            allow_batches: segment.allow_batches,
            rate: segment.max_requests_per_s.map(Rate::a_second),
        }
    };
    let mut ledger = Arc::clone(ledger) as Arc<dyn Ledger>;
    if let Some(Traces { tracer, untold }) = traces {
        ledger = Arc::new(TracedLedger::new(ledger, tracer.clone(), untold.clone()));
    }
    let destinations = config.destinations.iter().map(of);
    let received = Arc::clone(received);
    PublicState::new(destinations, ledger, limits(config), readiness.clone(), received)
}

pub(super) fn admin_state(config: &Config, sources: &Arc<Sources>) -> AdminState {
    AdminState { tokens: config.admin.tokens.clone(), sources: Arc::clone(sources) }
}

pub(super) fn api(config: &Config, ledger: &Arc<SqliteLedger>) -> api::Api {
    let mappings = config.destinations.iter();
    api::Api {
        ledger: Arc::clone(ledger) as Arc<dyn Operations>,
        mappings: mappings.map(|of| (of.name.clone(), of.mappings.clone())).collect(),
        tombstone_ttl: config.ledger.tombstone_ttl,
    }
}

//! A new configuration while the daemon runs, taken as a whole or not at all.
//!
//! # What always holds
//! * A configuration with a fault changes nothing, and all of its faults are in the log
//!   (tests/it/reload.rs).
//! * Requests in flight finish under the configuration they came in with, and none fails.
//! * A destination's courier is told of its change and goes on; one that delivers elsewhere from now on,
//!   or not at all, has finished its calls before the ledger forgets what was told (P3, P4).
//! * What cannot be changed while the daemon runs is named, and stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::occasions::{Occasion, Occasions};
use super::wiring::Traces;
use super::{Service, ServiceError, wiring};
use crate::config::{Config, Destination};
use crate::deliver::Change;
use crate::launchdarkly::Api;
use crate::ledger::LedgerError;
use crate::membership::DestinationName;
use crate::operate::api::wire::Reloaded;
use crate::operate::logging::chain;

/// Between two attempts at a ledger that cannot take writes.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// What is applied while the daemon runs; a key is one of these or below it. All others need a restart.
const APPLIED: [&str; 7] = [
    "admin.tokens",
    "admin.tokens_file",
    "delivery",
    "destinations",
    "log.level",
    "routes",
    "stop",
];

impl Service {
    /// Reads the configuration and takes it, if it is good. An error ends the daemon.
    pub(super) async fn reload(
        &mut self,
        occasions: &mut Occasions,
        occasion: Occasion,
    ) -> Result<(), ServiceError> {
        let reason = match &occasion {
            Occasion::Hangup => "SIGHUP",
            Occasion::FilesChanged => "its files have changed",
            Occasion::Asked(_) => "an operator asks",
        };
        debug!(reason, "the configuration is read again");
        let taken = match occasions.read().await {
            Ok(config) => self.take(config, occasions).await?,
            Err(problems) => Err(problems),
        };
        if let Err(problems) = &taken {
            error!(%problems, "the configuration is not taken: the one before stays");
        }
        if let Occasion::Asked(asked) = occasion {
            let _ = asked.send(taken); // whoever asked may have gone
        }
        Ok(())
    }

    /// `Ok(Err(_))`: it is not taken, and why.
    async fn take(
        &mut self,
        mut config: Config,
        occasions: &Occasions,
    ) -> Result<Result<Reloaded, String>, ServiceError> {
        let changed = self.config.fingerprints.changed(&config.fingerprints);
        let (applied, needs_restart): (BTreeSet<_>, BTreeSet<_>) =
            changed.into_iter().partition(|key| is_applied(key));
        let plan = match Plan::of(&self.config, &config, &applied, self.traces.as_ref()) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(chain(&error))),
        };
        let reloaded = Reloaded {
            changed: summary(&self.config, &config, &applied),
            needs_restart: needs_restart.into_iter().collect(),
        };
        for warning in config.warnings.iter().filter(|new| !self.config.warnings.contains(new)) {
            warn!("{warning}");
        }
        if !applied.is_empty() {
            if !self.carry_out(plan, &config).await? {
                return Ok(Err("the ledger is closed".to_owned()));
            }
            occasions.levels.set(&config.log.level);
            // What needs a restart is as it was, and is named again next time.
            config.fingerprints.adopt(&self.config.fingerprints, |key| !is_applied(key));
            self.config = config;
            info!(changed = reloaded.changed.join(", "), "configuration reloaded");
        }
        if !reloaded.needs_restart.is_empty() {
            let keys = reloaded.needs_restart.join(", ");
            warn!(keys, "these keys have changed too, and need a restart");
        } else if applied.is_empty() {
            debug!("the configuration is as it was");
        }
        Ok(Ok(reloaded))
    }

    /// `false`: the ledger is gone, and the daemon is about to end.
    async fn carry_out(&mut self, plan: Plan, config: &Config) -> Result<bool, ServiceError> {
        self.stop_couriers(&plan.stop).await?;
        let mut is_told = false;
        while let Err(error) = self.ledger.configure(wiring::destinations(config)).await {
            let LedgerError::Unavailable(cause) = error else { return Ok(false) };
            if !std::mem::replace(&mut is_told, true) {
                warn!(cause, "the new configuration waits until the ledger can take writes");
            }
            tokio::time::sleep(LEDGER_PAUSE).await;
        }
        for (destination, client) in plan.start {
            self.start_courier(&destination, client);
        }
        for (destination, launchdarkly) in plan.change {
            if let Some(courier) = self.couriers.get(&destination.name) {
                let policy = wiring::policy(&destination);
                // An error means that it has ended, which is dealt with where it is waited for.
                let _ = courier.changes.send(Change { launchdarkly, policy });
            }
        }
        self.shown.doors.replace(wiring::entrances(config, &self.received));
        self.shown.tokens.set(config.admin.tokens.clone());
        self.shown.configured.set(wiring::configured(config));
        self.shown.environments.set(wiring::environments(config));
        self.show_standings();
        Ok(true)
    }
}

fn is_applied(key: &str) -> bool {
    APPLIED.iter().any(|applied| is_at_or_below(key, applied))
}

fn is_at_or_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What becomes of the couriers. Whatever can fail has been done.
#[derive(Debug, Default)]
struct Plan {
    stop: Vec<DestinationName>,
    start: Vec<(Destination, Arc<dyn Api>)>,
    change: Vec<(Destination, Arc<dyn Api>)>,
}

impl Plan {
    fn of(
        old: &Config,
        new: &Config,
        changed: &BTreeSet<String>,
        traces: Option<&Traces>,
    ) -> Result<Self, ServiceError> {
        let mut plan = Self::default();
        let ran = |name: &DestinationName| {
            old.destination(name.as_str()).filter(|destination| destination.enabled)
        };
        for destination in new.destinations.iter().filter(|destination| destination.enabled) {
            let prepared =
                || wiring::client(destination, traces).map(|client| (destination.clone(), client));
            let path = format!("destinations.{}.launchdarkly", destination.name);
            match ran(&destination.name) {
                None => plan.start.push(prepared()?),
                Some(old) if wiring::environment(old) != wiring::environment(destination) => {
                    plan.stop.push(destination.name.clone());
                    plan.start.push(prepared()?);
                }
                Some(old) => {
                    let is_other = old.delivery != destination.delivery
                        || changed.iter().any(|key| is_at_or_below(key, &path));
                    if is_other {
                        plan.change.push(prepared()?);
                    }
                }
            }
        }
        let runs = |name: &DestinationName| {
            new.destination(name.as_str()).is_some_and(|destination| destination.enabled)
        };
        let ended = old.destinations.iter().filter(|old| old.enabled && !runs(&old.name));
        plan.stop.extend(ended.map(|destination| destination.name.clone()));
        Ok(plan)
    }
}

/// The keys that have changed; of a destination or route that came or went, that it did.
fn summary(old: &Config, new: &Config, changed: &BTreeSet<String>) -> Vec<String> {
    let paths = |config: &Config| -> BTreeSet<String> {
        let destinations = config.destinations.iter().map(|of| format!("destinations.{}", of.name));
        let routes = config.routes.iter().map(|of| format!("routes.{}", of.name));
        destinations.chain(routes).collect()
    };
    let (before, after) = (paths(old), paths(new));
    let added = after.difference(&before).map(|path| (path, "added"));
    let removed = before.difference(&after).map(|path| (path, "removed"));
    let whole: Vec<(&String, &str)> = added.chain(removed).collect();
    let is_of_one = |key: &&String| whole.iter().any(|(path, _)| is_at_or_below(key, path));
    let keys = changed.iter().filter(|key| !is_of_one(key)).cloned();
    whole.iter().map(|(path, what)| format!("{path} ({what})")).chain(keys).collect()
}

//! A new configuration while the daemon runs, applied as a whole or not at all.
//!
//! # What always holds
//! * A configuration with a fault changes nothing. All of its faults are logged, and shown until one
//!   without faults is read (tests/it/reload.rs).
//! * Requests in flight finish under the configuration they arrived under, and none fails.
//! * The courier of a changed destination is sent the change and keeps running. A courier whose environment
//!   changes, or whose destination is disabled or removed, finishes its calls before the ledger forgets
//!   what LaunchDarkly was told ([P3](crate::design::P3), [P4](crate::design::P4)).
//! * Keys that cannot change while the daemon runs are named and keep their old values.
//! * No reload opens the admin listener to strangers
//!   (`tests::tokens_stay_until_the_listener_has_moved_to_a_loopback_address`).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::occasions::{NotTaken, Occasion, Occasions};
use super::wiring::{Traces, is_at_or_below};
use super::{Service, ServiceError, wiring};
use crate::config::{Config, Destination};
use crate::deliver::Change;
use crate::launchdarkly::Api;
use crate::ledger::LedgerError;
use crate::membership::DestinationName;
use crate::operate::api::wire::Reloaded;
use crate::operate::logging::chain;

/// Pause between two attempts to configure a ledger that cannot take writes.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

/// The keys that can change while the daemon runs; a key counts if it is one of these or below one. All
/// others need a restart.
const APPLIED: [&str; 9] = [
    "admin.read_tokens",
    "admin.read_tokens_file",
    "admin.tokens",
    "admin.tokens_file",
    "delivery",
    "destinations",
    "log.level",
    "routes",
    "stop",
];

/// The keys among them that hold the tokens of the admin listener.
const TOKENS: [&str; 4] =
    ["admin.read_tokens", "admin.read_tokens_file", "admin.tokens", "admin.tokens_file"];

impl Service {
    /// Reads the configuration and applies it if it has no faults. An error ends the daemon.
    pub(super) async fn reload(
        &mut self,
        occasions: &mut Occasions,
        occasion: Occasion,
    ) -> Result<(), ServiceError> {
        let reason = match &occasion {
            Occasion::Hangup => "SIGHUP",
            Occasion::FilesChanged => "its files have changed",
            Occasion::Asked(_) => "an operator asked",
        };
        debug!(reason, "reloading the configuration");
        let taken = match occasions.read().await {
            Ok(config) => self.take(config, occasions).await?,
            Err(not_taken) => Err(not_taken),
        };
        let now = self.clock.now();
        match &taken {
            Ok(reloaded) => self.configuration.read(!reloaded.changed.is_empty(), now),
            Err(NotTaken { text: problems, faults }) => {
                error!(%problems, "configuration refused: the previous one stays in effect");
                self.configuration.refused(occasions.file(), faults.clone(), now);
            }
        }
        if let Occasion::Asked(asked) = occasion {
            let _ = asked.send(taken.map_err(|not_taken| not_taken.text)); // the caller may have gone
        }
        Ok(())
    }

    /// `Ok(Err(_))`: the configuration was rejected, and why.
    async fn take(
        &mut self,
        mut config: Config,
        occasions: &Occasions,
    ) -> Result<Result<Reloaded, NotTaken>, ServiceError> {
        let Changes { applied, needs_restart } =
            Changes::between(&self.config, &mut config, self.admin_address);
        let plan = match Plan::of(&self.config, &config, &applied, self.traces.as_ref()) {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(NotTaken::for_cause(chain(&error)))),
        };
        let reloaded = Reloaded {
            changed: summary(&self.config, &config, &applied),
            needs_restart: needs_restart.into_iter().collect(),
        };
        for warning in config.warnings.iter().filter(|new| !self.config.warnings.contains(new)) {
            warn!("{warning}");
        }
        if !applied.is_empty() {
            if !self.carry_out(plan, &config, &applied).await? {
                return Ok(Err(NotTaken::for_cause("the ledger is closed")));
            }
            occasions.levels.set(&config.log.level);
            self.config = config;
            info!(changed = reloaded.changed.join(", "), "configuration reloaded");
        }
        if !reloaded.needs_restart.is_empty() {
            let keys = reloaded.needs_restart.join(", ");
            warn!(keys, "some changed keys take effect only after a restart");
        } else if applied.is_empty() {
            debug!("the configuration is unchanged");
        }
        Ok(Ok(reloaded))
    }

    /// `false`: the ledger is closed, and the daemon is about to end.
    async fn carry_out(
        &mut self,
        plan: Plan,
        config: &Config,
        changed: &BTreeSet<String>,
    ) -> Result<bool, ServiceError> {
        self.stop_couriers(&plan.stop).await?;
        let mut is_told = false;
        while let Err(error) = self.ledger.configure(wiring::destinations(config)).await {
            let LedgerError::Unavailable(cause) = error else { return Ok(false) };
            if !std::mem::replace(&mut is_told, true) {
                warn!(cause, "the new configuration takes effect once the ledger can take writes");
            }
            tokio::time::sleep(LEDGER_PAUSE).await;
        }
        for (destination, client) in plan.start {
            self.start_courier(&destination, client);
        }
        for (destination, launchdarkly) in plan.change {
            if let Some(courier) = self.couriers.get(&destination.name) {
                let policy = destination.delivery.policy.clone();
                // An error means that the courier has ended; the main loop deals with that.
                let _ = courier.changes.send(Change { launchdarkly, policy });
            }
        }
        self.shown.doors.replace(wiring::entrances(config, &self.received));
        self.received.keep_doors(&names_of_doors(config));
        for of in config.destinations.iter().filter(|of| maps_otherwise(&of.name, changed)) {
            let mappings = wiring::mappings(config, &of.name);
            self.received.of(&of.name).mappings_changed(mappings, self.clock.now());
        }
        self.shown.tokens.set(wiring::tokens(config));
        self.shown.configured.set(wiring::configured(config));
        self.shown.entries.set(wiring::entries(config));
        self.shown.environments.set(wiring::environments(config));
        self.show_standings();
        Ok(true)
    }
}

/// The keys whose values differ.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    applied: BTreeSet<String>,
    needs_restart: BTreeSet<String>,
}

impl Changes {
    /// The changes for a daemon whose admin listener is bound to `admin`. Keys that need a restart keep
    /// their old fingerprints in `new`, so that the next reload names them again.
    fn between(old: &Config, new: &mut Config, admin: SocketAddr) -> Self {
        // A listener that is to move to a loopback address needs its tokens until it has moved, at the next
        // restart.
        let keeps_tokens = new.admin.tokens.is_empty() && !admin.ip().to_canonical().is_loopback();
        if keeps_tokens {
            new.admin.tokens.clone_from(&old.admin.tokens);
            new.admin.read_tokens.clone_from(&old.admin.read_tokens);
        }
        let is_applied = |key: &String| {
            APPLIED.iter().any(|applied| is_at_or_below(key, applied))
                && !(keeps_tokens && TOKENS.contains(&key.as_str()))
        };
        let changed = old.fingerprints.changed(&new.fingerprints);
        let (applied, needs_restart): (BTreeSet<_>, BTreeSet<_>) =
            changed.into_iter().partition(is_applied);
        new.fingerprints.adopt(&old.fingerprints, |key| needs_restart.contains(key));
        Self { applied, needs_restart }
    }
}

/// The names that may follow `/segment/` in a path.
pub(super) fn names_of_doors(config: &Config) -> BTreeSet<&str> {
    let destinations = config.destinations.iter().filter(|of| of.segment.is_some());
    let routes = config.routes.iter().map(|of| of.name.as_str());
    destinations.map(|of| of.name.as_str()).chain(routes).collect()
}

/// Whether the changed keys include one that decides how this destination's events become deltas.
fn maps_otherwise(name: &DestinationName, changed: &BTreeSet<String>) -> bool {
    changed.iter().any(|key| wiring::decides_mappings(key, name))
}

/// What the reload does to the couriers. Every fallible step, such as building clients, is already done.
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

/// What has changed, for the log: the keys, or just the section if a destination or route was added or
/// removed.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    const DESTINATION: &str = "[destinations.eu.segment]\nshared_secrets = [\"s\"]\n\
        [destinations.eu.launchdarkly]\nclient_side_id = \"id\"\nservice_token = \"t\"\n";

    type Keys<'a> = &'a [&'a str];

    fn read(toml: &str) -> Config {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("cohortd.toml");
        std::fs::write(&file, toml.to_owned() + DESTINATION).expect("it is ours");
        Source::locate(Some(&file)).read().config.expect("it is good")
    }

    /// Both keys are validated together in the new configuration, but only one of them is applied.
    #[test]
    fn tokens_stay_until_the_listener_has_moved_to_a_loopback_address() {
        let public = "[admin]\naddress = \"192.0.2.1:8081\"\ntokens = [\"one\"]\n";
        let others = public.replace("one", "two");
        let local = "[admin]\naddress = \"127.0.0.1:8081\"\n";
        let (away, here) = ("192.0.2.1:8081", "127.0.0.1:8081");
        let (moves, tokens) = ("admin.address", "admin.tokens");
        // bound address, before, after; applied keys, keys that need a restart, number of tokens in effect
        // afterwards
        let table: [(&str, &str, &str, Keys<'_>, Keys<'_>, usize); 4] = [
            (away, public, local, &[], &[moves, tokens], 1),
            (away, public, &others, &[tokens], &[], 1),
            (here, local, public, &[tokens], &[moves], 1),
            (here, public, local, &[tokens], &[moves], 0), // was to become public and has not yet
        ];
        for (listener, before, after, applied, needs_restart, open_it) in table {
            let (before, mut after) = (read(before), read(after));
            let of = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
            let expected = Changes { applied: of(applied), needs_restart: of(needs_restart) };
            let listener = listener.parse().expect("an address");
            assert_eq!(Changes::between(&before, &mut after, listener), expected);
            assert_eq!(after.admin.tokens.len(), open_it, "{expected:?}");
            let again = before.fingerprints.changed(&after.fingerprints);
            assert_eq!(again, expected.applied, "the rest is as it was");
        }
    }
}

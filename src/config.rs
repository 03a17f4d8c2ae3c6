//! Configuration: three layers, read into sections, checked into types that cannot be wrong.
//!
//! The embedded `config/default.toml`, then a TOML file, then environment variables
//! (`COHORTD_LISTEN__ADDRESS`): the later layer wins. Past [`Config::load`] nothing is checked again.
//!
//! # What always holds
//! * All faults are reported at once, by key path, before a port or a file of the ledger is opened
//!   (tests/it/config.rs).
//! * Unknown keys are faults: a misspelt key must not silently mean its default.
//! * No fault, warning or `Debug` holds a secret (P8).

mod delivery;
mod destination;
mod faults;
mod launchdarkly;
mod layers;
mod ledger;
mod listeners;
mod log;
mod mapping;
mod secrets;
mod section;
mod segment;
mod telemetry;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

pub use self::delivery::Delivery;
pub use self::destination::Destination;
pub use self::faults::{Fault, Faults};
pub use self::launchdarkly::LaunchDarklySection;
pub use self::ledger::{Kept, LedgerSection};
pub use self::listeners::{Admin, Listen};
pub use self::log::{Log, LogFormat, Stop};
pub use self::segment::{Credential, SegmentSection};
pub use self::telemetry::Telemetry;

use self::faults::Report;
use self::section::Section;

/// Everything the daemon is told by its operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public listener.
    pub listen: Listen,
    /// The operator's listener.
    pub admin: Admin,
    /// Where and how the ledger is kept.
    pub ledger: LedgerSection,
    /// What is logged and how.
    pub log: Log,
    /// How the daemon ends.
    pub stop: Stop,
    /// The collector that traces and metrics are sent to, if there is one.
    pub telemetry: Option<Telemetry>,
    /// At least one, sorted by name; those that are not enabled too.
    pub destinations: Vec<Destination>,
    /// What is legal but risky; to be said once at start-up.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the configuration of this process: `file`, else the file `COHORTD_CONFIG` names, else
    /// `./cohortd.toml` if there is one, else none; and the environment of the process.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: Option<&Path>) -> Result<Self, Faults> {
        Self::load_from(layers::locate(file).as_deref(), std::env::vars_os())
    }

    /// Reads the configuration from exactly this file and this environment.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_from<N: Into<OsString>, V: Into<OsString>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Faults> {
        let report = Report::default();
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let (tree, complete) = layers::merge(file, environment, &report);
        let mut root = Section::root(tree, complete, &report);

        let listen = Listen::read(root.section("listen"));
        let admin = Admin::read(root.section("admin"), &listen);
        let ledger = LedgerSection::read(root.section("ledger"));
        let log = Log::read(root.section("log"));
        let stop = Stop::read(root.section("stop"));
        let telemetry = Telemetry::read(root.section("telemetry"));
        let delivery = Delivery::read(root.section("delivery"), None);
        let destinations = destination::read_all(&mut root, &delivery);
        root.finish();

        let warnings = report.finish()?;
        Ok(Self { listen, admin, ledger, log, stop, telemetry, destinations, warnings })
    }

    /// The destination of that name.
    #[must_use]
    pub fn destination(&self, name: &str) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name.as_str() == name)
    }
}

/// Where the daemon listens, whatever else may be wrong with the configuration: a container's
/// health check runs without the daemon's secrets.
///
/// # Errors
/// What is wrong with `listen.address` itself.
pub fn listen_address(file: Option<&Path>) -> Result<SocketAddr, Faults> {
    // What is wrong elsewhere is the daemon's to report.
    let elsewhere = Report::default();
    let (tree, _) = layers::merge(layers::locate(file).as_deref(), std::env::vars_os(), &elsewhere);
    let report = Report::default();
    let address = listeners::address(&mut Section::root(tree, true, &report).section("listen"));
    report.finish().map(|_| address)
}

#[cfg(test)]
mod tests;

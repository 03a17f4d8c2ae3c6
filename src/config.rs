//! Configuration: merges three layers, reads them into sections, and checks them into types that cannot
//! hold an invalid value.
//!
//! The embedded `config/default.toml`, then a TOML file, then environment variables
//! (`COHORTD_LISTEN__ADDRESS`): the later layer wins. Past [`Config::load`] nothing is checked again.
//!
//! # What always holds
//! * All faults are reported at once, by key path, before a port or a file of the ledger is opened
//!   (tests/it/config.rs).
//! * Unknown keys are faults: a misspelt key must not silently mean its default.
//! * No fault, warning or `Debug` holds a secret ([P8](crate::design::P8)).

mod delivery;
mod destination;
#[cfg(test)]
mod documented;
mod exposure;
mod faults;
mod fingerprint;
mod guard;
mod launchdarkly;
mod layers;
mod ledger;
mod listeners;
mod log;
mod mapping;
mod route;
mod secrets;
mod section;
mod segment;
mod source;
mod telemetry;
mod tls;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use config::ValueKind;

pub use self::delivery::Delivery;
pub use self::destination::Destination;
pub use self::faults::{Fault, Faults};
pub use self::fingerprint::Fingerprints;
pub use self::launchdarkly::LaunchDarklySection;
pub use self::ledger::{LedgerDirectory, LedgerPlace, LedgerSection};
pub use self::listeners::{Access, Admin, Listen};
pub use self::log::{Log, LogFormat, Stop};
pub use self::mapping::Expiries;
pub use self::route::Route;
pub use self::segment::SegmentSection;
pub use self::source::{Files, ReadFrom, Reading, Source, absolute, quoted};
pub use self::telemetry::Telemetry;

use self::faults::Report;
use self::layers::Merged;
use self::section::Section;
use crate::receive::tls::TlsFiles;

/// The whole configuration of the daemon, checked.
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
    /// How the daemon stops.
    pub stop: Stop,
    /// The collector that traces and metrics are sent to, if there is one.
    pub telemetry: Option<Telemetry>,
    /// At least one, sorted by name; includes disabled ones.
    pub destinations: Vec<Destination>,
    /// Sorted by name.
    pub routes: Vec<Route>,
    /// Settings that are valid but risky; printed once at start-up.
    pub warnings: Vec<String>,
    /// Hashes that show which keys differ between two configurations.
    pub fingerprints: Fingerprints,
}

impl Config {
    /// Reads the configuration of this process: the file that [`Source::locate`] finds, and the
    /// environment of the process.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: Option<&Path>) -> Result<Self, Faults> {
        Source::locate(file).read().config
    }

    /// Reads the configuration from exactly this file and this environment.
    ///
    /// ```
    /// use cohortd::config::Config;
    ///
    /// let environment = [("COHORTD_LISTEN__ADDRESS", "nowhere"), ("COHORTD_DELIVERY__MAX_BATCH", "0")];
    /// let faults = Config::load_from(None, environment).expect_err("it is wrong").to_string();
    /// // all of them at once, those of what is missing too
    /// for key in ["listen.address", "delivery.max_batch", "destinations"] {
    ///     assert!(faults.contains(key), "{faults}");
    /// }
    /// ```
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_from<N: Into<OsString>, V: Into<OsString>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Faults> {
        Self::read(&Source::exactly(file), environment).config
    }

    fn read<N: Into<OsString>, V: Into<OsString>>(
        source: &Source,
        environment: impl IntoIterator<Item = (N, V)>,
    ) -> Reading {
        let report = Report::default();
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let Merged { tree, complete, .. } = layers::merge(source, environment, &report, None);
        let from = report.from();
        report.fingerprint(&section::json(ValueKind::Table(tree.clone())));
        let mut root = Section::root(tree, complete, &report);

        let listen = Listen::read(root.section("listen"));
        let admin = Admin::read(root.section("admin"), listen.address);
        let ledger = LedgerSection::read(root.section("ledger"));
        let log = Log::read(root.section("log"));
        let stop = Stop::read(root.section("stop"));
        let telemetry = Telemetry::read(root.section("telemetry"));
        let delivery = Delivery::read(root.section("delivery"), None);
        let routes = route::read_all(&mut root);
        let is_routed = |name: &str| route::is_routed(&routes, name);
        let destinations = destination::read_all(&mut root, &delivery, is_routed);
        let routes = route::resolve(routes, &destinations, &root);
        root.finish();

        let (files, fingerprints) = report.gathered();
        let config = report.finish().map(|warnings| Self {
            listen,
            admin,
            ledger,
            log,
            stop,
            telemetry,
            destinations,
            routes,
            warnings,
            fingerprints,
        });
        Reading { config, files, from }
    }

    /// The destination with that name.
    #[must_use]
    pub fn destination(&self, name: &str) -> Option<&Destination> {
        self.destinations.iter().find(|destination| destination.name.as_str() == name)
    }

    /// The route with that name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }
}

/// A listener as a client needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address it is bound to.
    pub address: SocketAddr,
    /// The files of its TLS, if it speaks TLS; they may be unusable.
    pub tls: Option<TlsFiles>,
}

/// The public and the admin listener, whatever else is wrong with the configuration: a container's health
/// check runs without the daemon's secrets.
///
/// # Errors
/// Faults of the addresses and of the files' names themselves.
pub fn listeners(file: Option<&Path>) -> Result<[Listener; 2], Faults> {
    let source = Source::locate(file);
    let report = Report::default();
    let listener = |name: &'static str| {
        // Other faults are for the daemon to report.
        let elsewhere = Report::default();
        let merged = layers::merge(&source, std::env::vars_os(), &elsewhere, Some(name));
        report.reads(&source);
        let mut root = Section::root(merged.tree, true, &report);
        let mut section = root.section(name);
        let address = listeners::address(&mut section);
        let speaks_tls = section.has("tls");
        let tls = speaks_tls.then(|| tls::files(&mut section.section("tls"))).flatten();
        Listener { address, tls }
    };
    let both = ["listen", "admin"].map(listener);
    report.finish().map(|_| both)
}

#[cfg(test)]
mod tests;

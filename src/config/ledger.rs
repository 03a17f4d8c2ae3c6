//! `[ledger]`: where the durable state is kept and how much of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value};

use super::faults::{Faults, Report};
use super::layers::{self, Merged};
use super::listeners::A_YEAR_S;
use super::secrets;
use super::section::{Named, Section};
use super::source::{ReadFrom, Source};
use crate::ledger::{DatabaseAddress, Retention};

/// How long Segment [retries](crate::design::segment::requests) a refused event.
const SEGMENT_RETRIES_S: u64 = 4 * 3600;

/// Where and how the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerSection {
    /// Where it is.
    pub place: LedgerPlace,
    /// While less disk space is free than this, events are answered 503. Zero uses all space. Of a directory.
    pub disk_reserve_bytes: u64,
    /// Memory for SQLite's page cache and for the memtable, in MiB. Of a directory.
    pub cache_mib: u64,
    /// How long the row of a member that has left is kept after LaunchDarkly was told.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept for a replay; a count of 0 keeps none.
    pub rejected: Retention,
    /// Which parked members are kept.
    pub parked: Retention,
    /// Most audiences of a destination. A destination that already has more keeps them, but takes no new
    /// ones.
    pub max_audiences: usize,
    /// Time between two background checks that read every row. Of a directory.
    pub check_every: Duration,
    /// How long a replica that is silent keeps its destinations. Of a database.
    pub lease_ttl: Duration,
    /// Most connections to the database.
    pub connections: usize,
    /// Longest time of a statement of the database.
    pub statement_timeout: Duration,
}

/// Where the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerPlace {
    /// A directory of this machine.
    Directory(LedgerDirectory),
    /// A database that replicas share.
    Database(Box<DatabaseAddress>),
}

/// The directory of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerDirectory {
    /// The directory, which holds nothing but the ledger.
    pub path: PathBuf,
    /// Where the path led when relative paths were relative to the working directory, if that is elsewhere.
    pub once: Option<PathBuf>,
}

impl LedgerPlace {
    fn of(section: &mut Section<'_>) -> Self {
        let is_database = section.has("url") || section.has("url_file");
        if is_database && section.is_blank("path") {
            section.discard("path"); // takes back the directory that an image or a unit names
        }
        if is_database && section.has("path") {
            section.fault(
                "path",
                None,
                "is set, and so is a database (url): a ledger has one place; an empty one takes back what an image or a \
                 unit sets",
            );
            section.discard("path");
        }
        section.know(["path", "url"]);
        if is_database && let Some(address) = read_url(section) {
            return Self::Database(Box::new(address));
        }
        if !is_database && !section.has("path") {
            section.missing("path", None, "");
        }
        let named = section.path("path");
        let once = named.as_ref().and_then(Named::once);
        let path = named.map(|named| named.path).unwrap_or_default();
        Self::Directory(LedgerDirectory { path, once })
    }

    /// Reads the place of the ledger and nothing else, whatever is wrong with the rest; beside it, where it was read.
    ///
    /// # Errors
    /// It cannot be known: the file cannot be read, and what it does not say may not be guessed; nor what a key was
    /// meant to be that there is not.
    pub fn read(file: Option<&Path>) -> Result<(Self, ReadFrom), Faults> {
        let source = Source::locate(file);
        let report = Report::default();
        let Merged { tree, complete, salvaged } =
            layers::merge(&source, std::env::vars_os(), &report, Some("ledger"));
        let from = report.from().only_of("ledger");
        let unknown = Self::unknown_keys(tree.clone());
        let mut section = Section::root(tree, true, &report).section("ledger");
        let is_of_the_environment =
            ["path", "url", "url_file"].iter().any(|key| section.is_of_the_environment(key));
        let is_set = is_of_the_environment || salvaged;
        let place = Self::of(&mut section);
        let is_good = section.is_clean();
        drop(section);
        let read = report.finish().err().filter(|_| !is_good || !complete && !is_set);
        match read.or(unknown.err()) {
            Some(faults) => Err(faults.of(from)),
            None => Ok((place, from)),
        }
    }

    fn unknown_keys(tree: Map<String, Value>) -> Result<(), Faults> {
        let report = Report::of_unknown_keys();
        let mut root = Section::root(tree, true, &report);
        root.tell_mistaken("ledger");
        LedgerSection::read(root.section("ledger"));
        drop(root);
        report.finish().map(|_| ())
    }
}

/// The database's address; `None` if it is faulty.
fn read_url(section: &mut Section<'_>) -> Option<DatabaseAddress> {
    let (url, key) = secrets::text(section, ("url", "url_file"))?;
    let parsed = DatabaseAddress::parse(&url).and_then(|address| {
        address.check_files()?;
        Ok(address)
    });
    if secrets::is_placeholder(&url) {
        section.warn(key, "holds the placeholder from the documentation; replace it with your own");
    }
    match parsed {
        Ok(address) => {
            if address.is_exposed() {
                section.warn(
                    key,
                    "has sslmode=disable and a host that is not this machine: the password and the events cross the \
                     network in the clear",
                );
            }
            Some(address)
        }
        Err(problem) => {
            section.fault(key, None, problem);
            None
        }
    }
}

impl LedgerSection {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let place = LedgerPlace::of(&mut section);
        let tombstone_ttl_s = section.needed_whole("tombstone_ttl_s", 0..=10 * A_YEAR_S);
        if tombstone_ttl_s < SEGMENT_RETRIES_S {
            let text = "Segment retries refused events for 4 hours (14400 s); a late one may \
                        bring back a member that left";
            section.warn("tombstone_ttl_s", text);
        }
        let ledger = Self {
            place,
            disk_reserve_bytes: section.needed_whole("disk_reserve_mib", 0..=1_048_576)
                * 1024
                * 1024,
            cache_mib: section.needed_whole("cache_mib", 1..=1_048_576),
            tombstone_ttl: Duration::from_secs(tombstone_ttl_s),
            rejected: Retention {
                max_age: Duration::from_secs(
                    section.needed_whole("rejected_ttl_s", 1..=10 * A_YEAR_S),
                ),
                max_count: section.needed_whole("rejected_max_count", 0..=1_000_000_000),
                max_bytes: section.needed_whole("rejected_max_mib", 0..=1_048_576) * 1024 * 1024,
            },
            parked: Retention {
                max_age: Duration::from_secs(
                    section.needed_whole("parked_ttl_s", 1..=10 * A_YEAR_S),
                ),
                max_count: section.needed_whole("parked_max_count", 1..=1_000_000_000),
                max_bytes: section.needed_whole("parked_max_mib", 1..=1_048_576) * 1024 * 1024,
            },
            max_audiences: usize::try_from(section.needed_whole("max_audiences", 1..=1_000_000))
                .unwrap_or(usize::MAX),
            check_every: Duration::from_secs(section.needed_whole("check_every_s", 1..=A_YEAR_S)),
            lease_ttl: Duration::from_secs(section.needed_whole("lease_ttl_s", 1..=3600)),
            connections: usize::try_from(section.needed_whole("connections", 2..=1000))
                .unwrap_or(usize::MAX),
            statement_timeout: Duration::from_millis(
                section.needed_whole("statement_timeout_ms", 100..=600_000),
            ),
        };
        section.finish();
        ledger
    }
}

//! Before anybody but a daemon reads the ledger: its log is looked at, and what a daemon that was
//! killed has left in the journal is merged, so that everything that was accepted is in the tables.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::SystemClock;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::reserve;
use crate::ledger::embedded::opening::interrupted;
use crate::ledger::embedded::opening::lock::Lock;
use crate::ledger::embedded::opening::open;
use crate::ledger::embedded::settings::Retention;
use crate::ledger::embedded::settings::Settings;
use crate::ledger::embedded::tables::connections;
use crate::ledger::embedded::tables::meta;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::schema;
use crate::ledger::embedded::tables::soundness;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::wal;
use crate::ledger::embedded::wal::ANSWERED;

/// How long a daemon that has the ledger is waited for; it merges some 100,000 changes a second.
const MERGED_WITHIN: Duration = Duration::from_secs(60);
/// A daemon that merges nothing for so long does not come to it.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether there was a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// There is one, or there was none.
    Undisturbed,
    /// It has ended while it was waited for; what it left was merged without it.
    DaemonEnded,
}

/// Returns when everything that was accepted before is in the tables, whether a daemon has the ledger
/// or not.
pub(crate) fn prepare(directory: &Path) -> Result<Prepared, OpenError> {
    prepared(directory).map_err(|error| error.on(directory))
}

fn prepared(directory: &Path) -> Result<Prepared, OpenError> {
    if !names::database(directory).exists() && !interrupted::is_under_way(directory) {
        return Ok(Prepared::Undisturbed);
    }
    match take(directory) {
        // Others are restoring, and what stands there is neither the old ledger nor the new one.
        Err(error) if interrupted::is_under_way(directory) => Err(error),
        Err(OpenError::InUse(_)) => wait_for_daemon(directory),
        // Whoever may not write here reads what is there, if that is all.
        Err(error @ OpenError::Directory { .. }) => {
            is_merged(directory)?.then_some(Prepared::Undisturbed).ok_or(error)
        }
        taken => taken.map(|_| Prepared::Undisturbed),
    }
}

/// Takes the lock of a ledger, with everything that was accepted before in its tables.
pub(crate) fn take(directory: &Path) -> Result<Lock, OpenError> {
    loop {
        let lock = open::lock(directory)?;
        soundness::log(&names::database(directory))?;
        if is_merged(directory)? {
            return Ok(lock);
        }
        drop(lock); // for the writer that merges
        merge(directory)?;
    }
}

/// Whether nothing waits in the journal. Nobody may be appending to it.
fn is_merged(directory: &Path) -> Result<bool, OpenError> {
    if !wal::exist(directory) {
        return Ok(true);
    }
    let db = connections::open_to_read(&names::database(directory))?;
    Ok(open::scan(directory, &db)?.blocks.is_empty())
}

/// Nothing is configured, so that nothing is forgotten and nobody is told.
fn merge(directory: &Path) -> Result<(), OpenError> {
    let all = Retention { max_age: Duration::MAX, max_count: u64::MAX, max_bytes: u64::MAX };
    let settings = Settings {
        path: directory.to_owned(),
        disk_reserve_bytes: 0,
        cache_kib: 8192,
        tombstone_ttl: Duration::MAX,
        rejected: all,
        parked: all,
        max_audiences: usize::MAX,
        check_every: Duration::MAX,
        destinations: Vec::new(),
    };
    let (_ledger, writer) = EmbeddedLedger::open(settings, Arc::new(SystemClock))?;
    Ok(writer.merge_all()?)
}

fn wait_for_daemon(directory: &Path) -> Result<Prepared, OpenError> {
    let answered = wal::answered(&directory.join(ANSWERED));
    let db = connections::open_to_read(&names::database(directory))?;
    let began = Instant::now();
    let (mut merged, mut merged_at) = (meta::merged(&db)?, began);
    while schema::version(&db)? == VERSION && merged < answered {
        if merged_at.elapsed() > STALLED_AFTER {
            let free_mib = reserve::free_bytes(directory).unwrap_or_default() >> 20;
            return Err(OpenError::Stalled { path: directory.to_owned(), free_mib });
        }
        if began.elapsed() > MERGED_WITHIN {
            return Err(OpenError::Merging(directory.to_owned()));
        }
        if let Ok(lock) = open::lock(directory) {
            drop((lock, db)); // nobody merges any more
            prepared(directory)?;
            return Ok(Prepared::DaemonEnded);
        }
        std::thread::sleep(LOOK_EVERY);
        let now = meta::merged(&db)?;
        if now > merged {
            (merged, merged_at) = (now, Instant::now());
        }
    }
    Ok(Prepared::Undisturbed)
}

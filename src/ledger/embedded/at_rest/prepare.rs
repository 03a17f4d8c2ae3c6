//! Prepares a ledger for a reader other than the daemon: checks SQLite's log, and merges what a killed daemon
//! has left in the ledger's own log, so that everything that was accepted is in the tables.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::SystemClock;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::embedded::directory::{names, reserve};
use crate::ledger::embedded::opening::lock::Lock;
use crate::ledger::embedded::opening::{interrupted, open};
use crate::ledger::embedded::settings::{Retention, Settings};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tables::{connections, meta, schema, soundness};
use crate::ledger::embedded::wal::{self, ANSWERED};

/// How long to wait for a running daemon to merge; it merges about 100,000 changes a second.
const MERGED_WITHIN: Duration = Duration::from_secs(60);
/// A daemon that makes no progress for this long is considered stalled.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// How often its progress is polled.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether the daemon ended while it was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// It is still running, or there was none.
    Undisturbed,
    /// It ended meanwhile, and what it had left was merged here.
    DaemonEnded,
}

/// Returns when everything accepted before this call is in the tables, with or without a running daemon.
pub(crate) fn prepare(directory: &Path) -> Result<Prepared, OpenError> {
    prepared(directory).map_err(|error| error.on(directory))
}

fn prepared(directory: &Path) -> Result<Prepared, OpenError> {
    if !names::database(directory).exists() && !interrupted::is_under_way(directory) {
        return Ok(Prepared::Undisturbed);
    }
    match take(directory) {
        // A restore is under way: the directory holds neither the old ledger nor the new one.
        Err(error) if interrupted::is_under_way(directory) => Err(error),
        Err(OpenError::InUse(_)) => wait_for_daemon(directory),
        // Without permission to write here the ledger can still be read, if nothing waits to be merged.
        Err(error @ OpenError::Directory { .. }) => {
            is_merged(directory)?.then_some(Prepared::Undisturbed).ok_or(error)
        }
        taken => taken.map(|_| Prepared::Undisturbed),
    }
}

/// Takes the lock of a ledger once everything accepted before is in its tables.
pub(crate) fn take(directory: &Path) -> Result<Lock, OpenError> {
    loop {
        let lock = open::lock(directory)?;
        soundness::log(&names::database(directory))?;
        if is_merged(directory)? {
            return Ok(lock);
        }
        drop(lock); // the writer that merges takes it
        merge(directory)?;
    }
}

/// Whether nothing waits in the log. The caller makes sure that nobody appends to it.
fn is_merged(directory: &Path) -> Result<bool, OpenError> {
    if !wal::exist(directory) {
        return Ok(true);
    }
    let db = connections::open_to_read(&names::database(directory))?;
    Ok(open::scan(directory, &db)?.blocks.is_empty())
}

/// Merges the log into the tables. No destination is configured, so nothing expires and nothing is sent.
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
            drop((lock, db)); // the daemon has ended
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

//! One end of a copy: a ledger that is read as rows of no store's own, or a new one that is made of such rows.
//!
//! # What always holds
//! * Nobody else has the directory: its lock is held from the beginning to the end.
//! * The place of a copy is refused by everybody else until the copy is finished, and how far it is stands in the same
//!   transaction as its rows.
//! * The source has the mark of its copy for as long as nobody has opened it to write.

mod reading;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::ledger::copied::{Found, Once, Progress};
use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::remove_if_there;
use crate::ledger::embedded::directory::owner::Owner;
use crate::ledger::embedded::ids::DestinationRowId;
use crate::ledger::embedded::opening::lock::Lock;
use crate::ledger::embedded::opening::{interrupted, open};
use crate::ledger::embedded::tables::audiences::{self, AudienceRow};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tables::{
    checksum, connections, meta, reconciliations, schema, soundness,
};
use crate::ledger::embedded::wal;
use crate::membership::{DestinationName, Timestamp};

/// A directory that a ledger is copied from or to.
pub(crate) struct DirectoryCopy {
    directory: PathBuf,
    db: Connection,
    /// Those that are not being erased.
    destinations: BTreeMap<i64, DestinationName>,
    audiences: BTreeMap<i64, AudienceRow>,
    /// Given back when the connection is closed.
    _lock: Lock,
}

impl DirectoryCopy {
    /// Opens the ledger that is to be copied; damage is found now, but for that of members.
    ///
    /// # Errors
    /// There is none, it is damaged, or a daemon has it.
    pub fn source(directory: &Path) -> Result<Self, OpenError> {
        Self::whole(directory).map_err(|error| error.on(directory))
    }

    fn whole(directory: &Path) -> Result<Self, OpenError> {
        if !interrupted::is_there(directory) {
            return Err(OpenError::Missing(directory.to_owned()));
        }
        let lock = prepare::take(directory)?;
        let database = names::database(directory);
        let found = schema::version(&connections::open_to_read(&database)?)?;
        if found == 0 {
            return Err(OpenError::Missing(directory.to_owned())); // no start has created its tables yet
        }
        if found < VERSION {
            open::open(directory, CACHE_KIB)?;
        }
        let copy = Self::with(lock, directory, to_write(&database)?)?;
        soundness::few_rows(&copy.db)?;
        if reconciliations::is_any_staged(&copy.db)? {
            return Err(OpenError::Reconciling);
        }
        Ok(copy)
    }

    /// Opens the place of a copy. If a ledger is there, nothing is changed.
    ///
    /// # Errors
    /// A daemon has it, it is somebody else's, or it cannot be used.
    pub fn target(directory: &Path) -> Result<(Self, Found), OpenError> {
        Self::empty_or_begun(directory).map_err(|error| error.on(directory))
    }

    fn empty_or_begun(directory: &Path) -> Result<(Self, Found), OpenError> {
        let mut lock = open::lock(directory)?;
        let database = names::database(directory);
        if fs::metadata(&database).is_ok_and(|file| file.len() > 0) {
            soundness::header(&database)?;
            soundness::log(&database)?;
            let (db, version) = connections::open_any_to_read(&database)?;
            let of_copy = |name| {
                if version > 0 { meta::of_copy(&db, name) } else { Ok(None) }
            };
            if let Some(text) = of_copy(meta::UNFINISHED_COPY)? {
                let progress = Progress::parse(&text);
                let progress = progress
                    .ok_or_else(|| checksum::corrupt("how far the copy is cannot be read"))?;
                if version < VERSION {
                    return Err(OpenError::Older { found: version });
                }
                drop(db);
                let copy = Self::with(lock, directory, to_write(&database)?)?;
                return Ok((copy, Found::Unfinished(progress)));
            }
            let copy = of_copy(meta::FINISHED_COPY)?;
            if wal::exist(directory) && !open::scan(directory, &db)?.blocks.is_empty()
                || version > 0 && has_rows(&db)?
            {
                return Ok((Self::bare(lock, directory, db), Found::Ledger { copy }));
            }
            drop((db, lock));
            lock = prepare::take(directory)?;
        }
        let owner = Owner::of(directory).ok();
        let (db, _) = open::open(directory, CACHE_KIB)?;
        db.execute_batch("PRAGMA wal_autocheckpoint = 4000")?;
        let made = interrupted::files().map(|name| directory.join(name));
        for file in made.filter(|file| file.exists()) {
            // Root may copy for the user who runs the daemon.
            let _ = owner.as_ref().map(|owner| owner.take(&file));
        }
        let found = if has_rows(&db)? { Found::Ledger { copy: None } } else { Found::Nothing };
        Ok((Self::with(lock, directory, db)?, found))
    }

    fn bare(lock: Lock, directory: &Path, db: Connection) -> Self {
        let directory = directory.to_owned();
        let (destinations, audiences) = (BTreeMap::new(), BTreeMap::new());
        Self { directory, db, destinations, audiences, _lock: lock }
    }

    fn with(lock: Lock, directory: &Path, db: Connection) -> Result<Self, OpenError> {
        let mut copy = Self::bare(lock, directory, db);
        copy.know()?;
        Ok(copy)
    }

    /// Reads the destinations and audiences that there are now.
    fn know(&mut self) -> rusqlite::Result<()> {
        let all: Vec<(i64, String)> = self
            .db
            .prepare("SELECT id, name FROM destination WHERE dropped = 0")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        self.destinations.clear();
        self.audiences.clear();
        for (id, name) in all {
            let name = audiences::stored(DestinationName::new(&name))?;
            let of = audiences::of_destination(&self.db, DestinationRowId(id), &name)?;
            self.audiences.extend(of.into_iter().map(|row| (row.id.0, row)));
            self.destinations.insert(id, name);
        }
        Ok(())
    }

    /// The copy whose mark it has as its source.
    pub fn mark(&self) -> Result<Option<String>, OpenError> {
        Ok(meta::of_copy(&self.db, meta::SOURCE_OF_COPY)?)
    }

    /// Makes it the source of this copy, or of none.
    pub fn set_mark(&self, copy: Option<&str>) -> Result<(), OpenError> {
        Ok(meta::keep_of_copy(&self.db, meta::SOURCE_OF_COPY, copy)?)
    }

    /// What it has once.
    pub fn once(&self) -> Result<Once, OpenError> {
        Ok(Once {
            arrival: Timestamp(meta::arrival(&self.db)?),
            hash_key: meta::blob(&self.db, "person_key")?,
            note: meta::note(&self.db)?,
        })
    }

    /// Begins a copy here.
    pub fn begin(&mut self, progress: &Progress, once: &Once) -> Result<(), OpenError> {
        // The key of the hashes seals the journal too: what is left of an old one is all in the tables.
        for name in wal::FILES.into_iter().chain([wal::ANSWERED]) {
            remove_if_there(&self.directory.join(name))?;
        }
        let tx = self.db.unchecked_transaction()?;
        tx.execute("DELETE FROM destination", [])?;
        meta::keep_arrival(&tx, once.arrival.0)?;
        meta::keep_person_key(&tx, &once.hash_key)?;
        if let Some(note) = &once.note {
            meta::keep_note(&tx, note)?;
        }
        meta::keep_of_copy(&tx, meta::UNFINISHED_COPY, Some(&progress.to_string()))?;
        tx.commit()?;
        Ok(self.know()?)
    }

    /// From now on it is a ledger as every other.
    pub fn finish(&mut self, copy: &str) -> Result<(), OpenError> {
        let tx = self.db.unchecked_transaction()?;
        meta::keep_of_copy(&tx, meta::UNFINISHED_COPY, None)?;
        meta::keep_of_copy(&tx, meta::FINISHED_COPY, Some(copy))?;
        tx.commit()?;
        Ok(self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
    }
}

/// Most memory for pages of the database, in KiB.
const CACHE_KIB: u32 = 65_536;

/// A connection that writes.
fn to_write(database: &Path) -> Result<Connection, OpenError> {
    let db = Connection::open(database)?;
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY;"
    ))?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// Whether there is anything in it that would be lost.
fn has_rows(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM audience) OR EXISTS (SELECT 1 FROM member) OR EXISTS (SELECT 1 FROM rejected)
             OR EXISTS (SELECT 1 FROM forgotten)",
        [],
        |row| row.get(0),
    )
}

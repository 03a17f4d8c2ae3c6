//! The shared ledger: PostgreSQL, and any number of replicas that write to it.
//!
//! Every replica records what reaches it. Deliveries of a destination are made by the one that holds its lease. The
//! rules of a member are those of every store ([`member`](super::member)): rows are read, put through them, and written
//! under the condition that nobody has written them since.
//!
//! # What always holds
//! * A request is answered only after its transaction is committed, with `synchronous_commit` on.
//! * What an owner writes of deliveries carries the token of its lease: whoever has lost it changes nothing.
//! * A claim is in the database before its call is made, so that the next owner knows who may have been in one.
//! * A batch carries the token under which it was claimed: what is reported of it counts in that reign only, also in the
//!   process that has lost the lease and taken it again. A call of it that ended later is told once more by the owner.

mod address;
mod calls;
mod changes;
mod claims;
mod copying;
mod exporting;
mod failure;
mod fronts;
mod guarding;
mod guesses;
mod horizon;
mod hosts;
mod intake;
mod keeper;
mod leases;
mod locks;
mod members;
mod operations;
mod outbox;
mod pausing;
mod places;
mod pool;
mod presence;
mod reconciling;
mod recording;
mod rows;
mod schema;
mod session;
mod settings;
mod shared;
mod stamps;
mod tls;
mod upkeep;
mod views;
mod walk;
mod walks;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio_postgres::types::Type;

use super::hashes::HashKey;
use super::pieces::{self, Piece};
use super::{Burden, DestinationSettings, Intake, LedgerError, Obstacle, Recorded, Recorder};
use crate::clock::Clock;
use crate::membership::Timestamp;
use horizon::Horizon;
use pool::{Pool, transact};
use recording::Queue;
use shared::{Handle, Shared};
use stamps::Stamps;

pub use address::DatabaseAddress;
pub(crate) use copying::DatabaseCopy;
pub use exporting::export_shared;
pub(crate) use failure::Failure;
pub use keeper::Keeper;
pub use settings::{DatabaseSettings, Replica, SharedSettings};

/// The handle that the rest of the daemon holds; shared by many tasks.
#[derive(Debug)]
pub struct PostgresLedger {
    shared: Handle,
    queue: Queue,
    horizon: Arc<Horizon>,
    /// The note of the previous run, as read when the ledger was opened.
    note: Option<String>,
}

/// What is read once, when the ledger is opened.
struct Found {
    hash_key: Vec<u8>,
    latest: i64,
    note: Option<String>,
}

impl PostgresLedger {
    /// Connects, brings the tables to the present version, and takes the leases that are free. Nothing goes on until
    /// [`Keeper::run`] runs.
    ///
    /// # Errors
    /// The database cannot be reached, or is not one that can be used: the text says what to do.
    pub async fn open(
        settings: SharedSettings,
        clock: Arc<dyn Clock>,
        follows_database: bool,
    ) -> Result<(Self, Keeper), LedgerError> {
        let pool = Pool::new(settings.database.clone());
        while transact!(pool, |tx, _attempt| schema::step(&tx, schema::STEPS))? {}
        let found = transact!(pool, |tx, _attempt| async {
            schema::can_be_used(&tx).await?;
            let value = async |name: &str| -> Result<Option<Vec<u8>>, Failure> {
                let sql = "SELECT value FROM cohortd WHERE name = $1";
                let row = tx.first(sql, &[(&name, Type::TEXT)]).await?;
                row.map(|row| Ok(row.try_get(0)?)).transpose()
            };
            let sql = "SELECT greatest((SELECT max(arrival) FROM change),
                 (SELECT convert_from(value, 'UTF8')::int8 FROM cohortd WHERE name = 'arrival'))";
            let latest: Option<i64> =
                tx.first(sql, &[]).await?.map_or(Ok(None), |row| row.try_get(0))?;
            let note = value("note").await?.and_then(|note| String::from_utf8(note).ok());
            let hash_key = value("hash_key").await?.unwrap_or_default();
            Ok(Found { hash_key, latest: latest.unwrap_or_default(), note })
        })?;
        let Found { hash_key, latest, note } = found;
        let stamps = Stamps::new(clock);
        stamps.note(Timestamp(latest));
        stamps.note_stamp(Timestamp(latest));
        let destinations = settings.destinations.clone();
        let shared = Arc::new(Shared::new(settings, pool, stamps, HashKey::new(hash_key)));
        let (queue, waiting) = recording::queue();
        let horizon = Arc::new(Horizon::default());
        let keeper =
            Keeper::new(Arc::clone(&shared), waiting, Arc::clone(&horizon), follows_database);
        let ledger = Self { shared, queue, horizon, note };
        ledger.configure(destinations).await?;
        Ok((ledger, keeper))
    }

    /// See [`Store::configure`](super::Store::configure).
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        keeper::configure(&self.shared, destinations).await?;
        Ok(())
    }

    /// Records what is queued, hands over the leases, and closes the connections. Every later call fails.
    pub async fn close(&self) {
        recording::close(&self.shared, &self.queue);
        keeper::stop(&self.shared).await;
    }
}

/// What a start would find in a database; nothing is changed there.
///
/// # Errors
/// Why it could not be used, and what to do.
pub async fn look_at(settings: DatabaseSettings) -> Result<String, String> {
    let pool = Pool::new(settings);
    let looked: Result<String, Failure> = transact!(pool, |tx, _attempt| schema::look(&tx));
    looked.map_err(|failure| failure.to_string())
}

#[async_trait]
impl Recorder for PostgresLedger {
    fn arrival(&self) -> Timestamp {
        self.shared.stamps.arrival()
    }

    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        for intake in &intakes {
            self.shared.destination(&intake.destination)?;
        }
        if intakes.iter().map(Intake::bytes).sum::<usize>() <= pieces::MOST_BYTES {
            return self.queue.record(intakes).await;
        }
        let mut all = vec![Recorded::default(); intakes.len()];
        for Piece { intake, of, first_delta } in pieces::pieces(intakes) {
            for recorded in self.queue.record(vec![intake]).await? {
                all[of].add(recorded, first_delta);
            }
        }
        Ok(all)
    }

    fn obstacle(&self) -> Option<Obstacle> {
        self.shared.obstacle().map(Obstacle::Database)
    }

    fn burden(&self) -> Option<Burden> {
        self.horizon.burden()
    }

    fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, has_postgresql))]
mod tests;

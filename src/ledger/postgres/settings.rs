//! Settings of the shared ledger.

use std::time::Duration;

use crate::ledger::postgres::address::DatabaseAddress;
use crate::ledger::{DestinationSettings, Retention};

/// Settings of a ledger on PostgreSQL.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// Where the database is, and how it is reached.
    pub database: DatabaseSettings,
    /// Who this process is among the replicas.
    pub replica: Replica,
    /// How long a replica that is silent keeps its destinations.
    pub lease_ttl: Duration,
    /// How long a member that left, and was told so, is remembered.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept; the oldest go first.
    pub rejected: Retention,
    /// Which parked members are kept; the oldest go first.
    pub parked: Retention,
    /// Most audiences of a destination; one that already has more keeps them.
    pub max_audiences: usize,
    /// The destinations that are configured, until [`Store::configure`](crate::ledger::Store::configure)
    /// replaces them.
    pub destinations: Vec<DestinationSettings>,
}

/// A process among those that share a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Is another one for each process.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A digest of its configuration: replicas of one configuration have the same.
    pub configuration: String,
}

impl Replica {
    /// This process, on a machine of this name.
    #[must_use]
    pub fn here(host: &str, configuration: String) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { name: format!("{host}-{:08x}", rand::random::<u32>()), version, configuration }
    }
}

/// Where the database is, and how it is reached.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// What `ledger.url` says.
    pub address: DatabaseAddress,
    /// Most connections at a time.
    pub connections: usize,
    /// Longest time of a statement.
    pub statement_timeout: Duration,
}

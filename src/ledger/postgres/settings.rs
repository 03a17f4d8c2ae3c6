//! Settings of the shared ledger.

use std::time::Duration;

use crate::ledger::{DestinationSettings, Retention};

/// Settings of a ledger on PostgreSQL.
#[derive(Clone)]
pub struct SharedSettings {
    /// Where the database is, and how it is reached.
    pub database: DatabaseSettings,
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

/// Where the database is, and how it is reached.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// Hosts, user, password, name of the database.
    pub config: tokio_postgres::Config,
    /// Most connections at a time.
    pub connections: usize,
    /// Longest time of a statement.
    pub statement_timeout: Duration,
}

impl std::fmt::Debug for SharedSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedSettings")
            .field("destinations", &self.destinations)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseSettings").finish_non_exhaustive()
    }
}

//! The tables of SQLite, row by row: what is written in them, how they came to be so, and connections to them. Whoever
//! stands above asks for rows; only what is done to a whole ledger at rest has statements of its own.

pub(crate) mod audiences;
pub(crate) mod checksum;
pub(crate) mod connections;
pub(crate) mod counted;
pub(crate) mod database;
pub(crate) mod destinations;
pub(crate) mod dropped;
pub(crate) mod members;
pub(crate) mod messages;
pub(crate) mod meta;
pub(crate) mod migration;
pub(crate) mod open_error;
pub(crate) mod parked;
pub(crate) mod persons;
pub(crate) mod reader;
pub(crate) mod reassertions;
pub(crate) mod reconciliations;
pub(crate) mod rejected;
mod row_ids;
pub(crate) mod schema;
pub(crate) mod soundness;
pub(crate) mod sqlite_log;
pub(crate) mod version;
pub(crate) mod walk;

//! The rules applied to members and audiences: record, report, claim, operate, upkeep. It starts no thread and opens no
//! file: the storey above gives it a connection and a turn.

pub(crate) mod audience;
pub(crate) mod audiences;
pub(crate) mod claims;
pub(crate) mod configure;
pub(crate) mod counting;
pub(crate) mod deletions;
pub(crate) mod erasure;
pub(crate) mod expiry;
pub(crate) mod freeing;
pub(crate) mod guarding;
pub(crate) mod kinds;
pub(crate) mod operated;
pub(crate) mod pace;
pub(crate) mod passing;
pub(crate) mod record;
pub(crate) mod report;
pub(crate) mod rows;
pub(crate) mod schedule;
pub(crate) mod shared;
pub(crate) mod stamps;
pub(crate) mod state;
pub(crate) mod sweep;
pub(crate) mod unclaim;
pub(crate) mod upkeep;
pub(crate) mod walks;

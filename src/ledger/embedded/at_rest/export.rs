//! Exports every member of a ledger, with or without a running daemon.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Connection;

use crate::ledger::ParkReason;
use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::engine::walks::SLICE;
use crate::ledger::embedded::ids::DestinationRowId;
use crate::ledger::embedded::tables::audiences::{self, AudienceRow};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tables::{connections, members, parked, schema};
use crate::ledger::member::{Member, Told};
use crate::membership::{DestinationName, Timestamp};

/// A member with everything that is known of it. Personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ExportedMember {
    /// The destination's name.
    pub destination: String,
    /// The audience's id.
    pub audience_id: String,
    /// The audience's latest key.
    pub audience_key: String,
    /// The kind of the audience's contexts.
    pub context_kind: String,
    /// The member's context key.
    pub context_key: String,
    /// Whether it should be in the audience.
    pub included: bool,
    /// The event time of the latest membership.
    pub event_at: Timestamp,
    /// Whether it waits to be told to LaunchDarkly.
    pub pending: bool,
    /// What LaunchDarkly was last told, and when.
    pub told: Option<(bool, Timestamp)>,
    /// Why it is parked, if it is.
    pub parked: Option<ExportedParking>,
}

/// LaunchDarkly's answer when it refused a member. Personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct ExportedParking {
    /// The HTTP status.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for a request to its support.
    pub id: String,
}

/// Hands every member to `each` until it breaks; a snapshot of one moment, in constant memory. `None` if
/// there is no such destination.
pub fn export<B>(
    directory: &Path,
    destination: Option<&str>,
    mut each: impl FnMut(ExportedMember) -> ControlFlow<B>,
) -> Result<Option<ControlFlow<B>>, OpenError> {
    prepare::prepare(directory)?;
    let db = connections::open_to_read(&names::database(directory))?;
    let found = schema::version(&db)?;
    if found < VERSION {
        return Err(OpenError::Older { found });
    }
    // One read transaction: what is written meanwhile is not seen.
    let db = db.unchecked_transaction()?;
    let known: Vec<(DestinationRowId, String)> = db
        .prepare("SELECT id, name FROM destination WHERE dropped = 0 ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let is_wanted = |name: &str| destination.is_none_or(|only| only == name);
    if destination.is_some() && !known.iter().any(|(_, name)| is_wanted(name)) {
        return Ok(None);
    }
    for (id, name) in known {
        if !is_wanted(&name) {
            continue;
        }
        let Some(name) = DestinationName::new(&name) else { continue };
        for audience in audiences::of_destination(&db, id, &name)? {
            let mut after = String::new();
            loop {
                let slice = members::walk_in(&db, audience.id, &after, SLICE)?;
                let Some((last, _)) = slice.last() else { break };
                after.clone_from(last);
                for (key, member) in &slice {
                    let next = each(exported(&db, &audience, key, member)?);
                    if next.is_break() {
                        return Ok(Some(next));
                    }
                }
            }
        }
    }
    Ok(Some(ControlFlow::Continue(())))
}

fn exported(
    db: &Connection,
    audience: &AudienceRow,
    key: &str,
    member: &Member,
) -> rusqlite::Result<ExportedMember> {
    let route = &audience.route;
    let counts = |told: &Told| told.at >= audience.told_counts_from;
    let parked = if member.is_parked() { parked::load(db, audience.id, key)? } else { None };
    Ok(ExportedMember {
        destination: route.destination.to_string(),
        audience_id: route.audience.as_str().to_owned(),
        audience_key: route.audience_key.as_str().to_owned(),
        context_kind: route.context_kind.as_str().to_owned(),
        context_key: key.to_owned(),
        included: member.membership.as_bool(),
        event_at: member.event_at,
        pending: member.pending_since.is_some(),
        told: member.told.filter(counts).map(|told| (told.membership.as_bool(), told.at)),
        parked: parked.map(|(_, ParkReason { status, code, message, id })| ExportedParking {
            status,
            code,
            message,
            id,
        }),
    })
}

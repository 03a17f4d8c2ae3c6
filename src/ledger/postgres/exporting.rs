//! Exports every member, beside running replicas: as of one moment, in constant memory.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::address::DatabaseAddress;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Pool, Tx};
use crate::ledger::postgres::rows::{COLUMNS, Stored, damaged, text};
use crate::ledger::postgres::schema;
use crate::ledger::postgres::settings::DatabaseSettings;
use crate::ledger::{ExportedMember, ExportedParking};
use crate::membership::DestinationName;

/// Members read at once.
const SLICE: i64 = 1000;
/// Longest time of a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Hands every member to `each` until it breaks. `None` if there is no such destination.
///
/// # Errors
/// Why the database cannot be read, and what to do.
pub async fn export_shared<B>(
    address: DatabaseAddress,
    destination: Option<&str>,
    mut each: impl FnMut(ExportedMember) -> ControlFlow<B>,
) -> Result<Option<ControlFlow<B>>, String> {
    let (connections, statement_timeout) = (1, STATEMENT_TIMEOUT);
    let settings = DatabaseSettings { address, connections, statement_timeout };
    let pool = Pool::new(settings).for_reading();
    // Not again after a failure: what was handed out would come twice.
    let exported = async {
        let tx = pool.begin().await?;
        // Whoever takes the lines may take their time.
        tx.batch("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        let exported = export(&tx, destination, &mut each).await?;
        tx.commit().await?;
        Ok(exported)
    };
    exported.await.map_err(|failure: Failure| failure.to_string())
}

async fn export<B>(
    tx: &Tx,
    destination: Option<&str>,
    each: &mut impl FnMut(ExportedMember) -> ControlFlow<B>,
) -> Result<Option<ControlFlow<B>>, Failure> {
    if schema::usable(tx).await?.is_none() {
        return Err(Failure::Unavailable(schema::NOT_THERE.to_owned()));
    }
    let mut known = Vec::new();
    for row in tx.query("SELECT no, name FROM destination ORDER BY no", &[]).await? {
        let (no, name): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
        known.push((no, DestinationName::new(name).ok_or_else(damaged)?));
    }
    if let Some(only) = destination {
        known.retain(|(_, name)| name.as_str() == only);
        if known.is_empty() {
            return Ok(None);
        }
    }
    for (no, name) in known {
        for place in Place::all(tx, &name, no).await? {
            let mut after = Vec::new();
            loop {
                let (members, last) = slice(tx, &place, &after).await?;
                for member in members {
                    let next = each(member);
                    if next.is_break() {
                        return Ok(Some(next));
                    }
                }
                let Some(last) = last else { break };
                after = last;
            }
        }
    }
    Ok(Some(ControlFlow::Continue(())))
}

/// Members of an audience behind a context key, and the last of these keys.
async fn slice(
    tx: &Tx,
    place: &Place,
    after: &Vec<u8>,
) -> Result<(Vec<ExportedMember>, Option<Vec<u8>>), Failure> {
    let sql = format!(
        "SELECT {COLUMNS}, p.status, p.code, p.message, p.answer_id FROM member m
         LEFT JOIN parked p ON p.audience_no = m.audience_no AND p.context_key = m.context_key
         WHERE m.audience_no = $1 AND m.context_key > $2 ORDER BY m.context_key LIMIT $3"
    );
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&place.no, Type::INT4), (after, Type::BYTEA), (&SLICE, Type::INT8)];
    let rows = tx.query(&sql, &params).await?;
    let last = rows.last().map(|row| row.try_get(1)).transpose()?;
    let mut members = Vec::with_capacity(rows.len());
    for row in &rows {
        let Stored { context_key, member, .. } = Stored::of(row, 0)?;
        let word =
            |column| -> Result<String, Failure> { text(row.try_get(column)?).ok_or_else(damaged) };
        let status: Option<i32> = row.try_get(12)?;
        let parked = match status.filter(|_| member.is_parked()) {
            None => None,
            Some(status) => Some(ExportedParking {
                status: u16::try_from(status).map_err(|_| damaged())?,
                code: word(13)?,
                message: word(14)?,
                id: word(15)?,
            }),
        };
        let told = member.told.filter(|told| told.at >= place.told_counts_from);
        members.push(ExportedMember {
            destination: place.route.destination.to_string(),
            audience_id: place.route.audience.as_str().to_owned(),
            audience_key: place.route.audience_key.as_str().to_owned(),
            context_kind: place.route.context_kind.as_str().to_owned(),
            context_key: context_key.as_str().to_owned(),
            included: member.membership.as_bool(),
            event_at: member.event_at,
            pending: member.pending_since.is_some(),
            told: told.map(|told| (told.membership.as_bool(), told.at)),
            parked,
        });
    }
    Ok((members, last))
}

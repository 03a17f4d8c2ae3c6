//! Reads a snapshot from the body of a request, as it arrives, and sorts its keys on disk.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::beside::blocking;
use super::target::Target;
use crate::ledger::Fact;
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::reading::{Fault, Layout, Read, Reader};
use crate::operate::reconcile::spool::{Sorter, Spool};

/// How long the next piece of a snapshot may take.
pub(super) const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory in which keys are sorted.
const SORTING_BYTES: usize = 16 << 20;
/// Bytes of a snapshot that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Reads the snapshot and sorts its keys on disk.
pub(super) async fn spooled(
    api: &Api,
    target: &Target,
    body: &mut Body,
) -> Result<(Read, Spool), Problem> {
    let (identifiers, is_user_id) = target.identifiers();
    let layout = Layout {
        column: target.column.clone(),
        identifiers,
        is_user_id,
        audience_key: target.audience_key.as_str().to_owned(),
    };
    let directory = api.scratch.clone();
    let sorter = blocking(move || Sorter::new(&directory, SORTING_BYTES)).await?;
    let mut both = (Reader::new(layout), sorter.map_err(Fault::Disk)?);
    let mut ends = false;
    while !ends {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES && !ends {
            match next_bytes(body).await? {
                Some(bytes) => piece.extend_from_slice(&bytes),
                None => ends = true,
            }
        }
        let runs = both.1.runs();
        both = blocking(move || {
            let (mut reader, mut sorter) = both;
            reader.feed(&piece, &mut |key, user_id| sorter.add(key, user_id))?;
            Ok::<_, Fault>((reader, sorter))
        })
        .await??;
        if both.1.runs() > runs && !has_room(api).await? {
            let detail =
                "the disk of the ledger has no room to sort the snapshot; nothing was done";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
    }
    let read = blocking(move || {
        let (reader, mut sorter) = both;
        let read = reader.finish(&mut |key, user_id| sorter.add(key, user_id))?;
        Ok::<_, Fault>((read, sorter.finish()?))
    });
    Ok(read.await??)
}

/// The next bytes of the snapshot; `None` at its end.
async fn next_bytes(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        match timeout(PIECE_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Ok(Some(Err(_))) => {
                return Err(Problem::new(StatusCode::BAD_REQUEST, "the snapshot was cut off"));
            }
            Err(_) => {
                let detail = "the snapshot did not arrive in time";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
        }
    }
}

/// Whether the disk has room for more keys: the ledger needs its own.
pub(super) async fn has_room(api: &Api) -> Result<bool, Problem> {
    let facts = api.ledger.facts().await?;
    let free = facts.iter().find_map(|fact| match fact {
        Fact::FreeBytes(bytes) => Some(*bytes),
        _ => None,
    });
    let enough = free.is_none_or(|bytes| bytes > 4 * SORTING_BYTES as u64);
    Ok(enough && api.ledger.obstacle().is_none())
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let status = match fault {
            Fault::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Problem::new(status, format!("{fault}; nothing was done"))
    }
}

//! Reads every row again in the background, so that damage on the disk is found before the row is needed. It
//! reads a slice at a time with pauses in between: it blocks nobody, and checkpoints of SQLite's log can
//! proceed.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::{Connection, ToSql, params};

use crate::ledger::embedded::commit::command::Command;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::{checksum, connections, members, soundness};
use crate::ledger::embedded::threads;
use crate::ledger::member::Member;

/// Members in one slice.
const SLICE: usize = 1000;
/// Pause between two slices: 10 million members take a quarter of an hour.
const PAUSE: Duration = Duration::from_millis(90);
/// Upper bound of the time from the start to the first check.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(crate) struct BackgroundCheck(
    #[expect(dead_code, reason = "held to be dropped")] SyncSender<()>,
);

impl BackgroundCheck {
    /// Starts the thread, which reports damage to the writer.
    pub fn start(
        directory: &Path,
        every: Duration,
        writer: Sender<Command>,
    ) -> rusqlite::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let db = connections::open_reader(directory)?;
        let of_a_panic = writer.clone();
        let check = move || {
            if let Err(damage) = check_until(&stopped, &db, every) {
                let _ = writer.send(Command::Damaged(damage)); // it may have ended
            }
        };
        let failed = move |panicked: threads::Panicked| {
            let _ = of_a_panic.send(Command::Failed(panicked.into())); // as above
        };
        threads::start("check", check, failed)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Self(stop))
    }
}

/// Checks until it is stopped. An error is damage; what could not be read for another reason is read again
/// next time.
fn check_until(stopped: &Receiver<()>, db: &Connection, every: Duration) -> rusqlite::Result<()> {
    let wait = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
    let mut next = every.min(FIRST_AFTER);
    while wait(next) {
        next = every;
        match check_all(db, &wait) {
            Err(error) if checksum::is_damage(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the ledger could not be checked in the background");
            }
            Ok(Some(members)) => {
                tracing::debug!(
                    members,
                    "background check passed: every row of the ledger matches its checksum"
                );
            }
            Ok(None) => return Ok(()),
        }
    }
    Ok(())
}

/// The number of members; `None` if it was stopped.
fn check_all(db: &Connection, wait: &impl Fn(Duration) -> bool) -> rusqlite::Result<Option<usize>> {
    let mut after = (AudienceRowId(i64::MIN), String::new());
    let mut rows = 0_usize;
    loop {
        let slice = members::walk(db, (after.0, &after.1), SLICE)?;
        for (audience, key, member) in &slice {
            is_in_its_indexes(db, *audience, key, member)?;
        }
        rows += slice.len();
        let Some((audience, key, _)) = slice.into_iter().next_back() else { break };
        after = (audience, key);
        if !wait(PAUSE) {
            return Ok(None);
        }
    }
    soundness::few_rows(db)?;
    Ok(Some(rows))
}

/// A pending member that is missing from the index of pending members would never be told, and one missing
/// from the index of persons would outlive a deletion.
fn is_in_its_indexes(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
    member: &Member,
) -> rusqlite::Result<()> {
    let is_in = |index: &str, column: &str, value: &dyn ToSql| {
        let found = |source: &str, column: &str| {
            db.prepare_cached(&format!(
                "SELECT EXISTS (SELECT 1 FROM {source}
                 WHERE {column} = ?1 AND audience = ?2 AND context_key = ?3)"
            ))?
            .query_row(params![value, audience, key], |row| row.get::<_, bool>(0))
        };
        // It may have changed between the two queries, so the row is read again; the plus keeps SQLite from
        // using the index.
        if found(&format!("member INDEXED BY {index}"), column)?
            || !found("member", &format!("+{column}"))?
        {
            return Ok(());
        }
        Err(checksum::damage(&format!("the index {index}")))
    };
    if let Some(since) = member.pending_since {
        is_in("member_pending", "pending_since", &since.0)?;
    }
    if let Some(person) = &member.person {
        is_in("member_person", "person", person)?;
    }
    Ok(())
}

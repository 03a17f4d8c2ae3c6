//! Who keeps the database from removing rows that are gone.
//!
//! A row that was deleted or changed stays in its table and its indices as long as any transaction may still see it. One
//! that is open for long, of a backup, a report or a session that was forgotten, keeps all of them, whatever it reads; so
//! does one that was prepared, or the slot of a standby that is away. Replicas cannot do anything about it but say so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::Burden;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::{Pool, Tx, transact};
use crate::membership::Timestamp;

/// How often it is looked for. Times are as long as a replica has seen them, so that nothing has to be allowed to it.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A backup of a ledger may take that long, and does no harm worth speaking of.
const LONG: Duration = Duration::from_secs(600);

/// Who was found, and since when.
#[derive(Debug, Default)]
pub(crate) struct Horizon(Mutex<Option<Seen>>);

#[derive(Debug)]
struct Seen {
    oldest: Oldest,
    since: Timestamp,
    from: Instant,
    /// When it was last there. While the database cannot be asked, nothing is known of it.
    until: Instant,
}

/// The oldest transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Oldest {
    /// `session`, `standby`, `prepared` or `slot`.
    kind: String,
    /// The process of a session or of a standby's connection, or the name of a slot.
    name: String,
    user: String,
    application: String,
    /// Rows that were gone since this transaction are kept.
    xid: String,
}

impl Horizon {
    /// Looks at the database; `now` is the ledger's clock.
    pub async fn look(&self, pool: &Pool, now: Timestamp) -> Result<(), Failure> {
        let oldest = transact!(pool, |tx, _attempt| oldest(&tx))?;
        self.note(oldest, now);
        Ok(())
    }

    fn note(&self, oldest: Option<Oldest>, now: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = Instant::now();
        match &mut *seen {
            Some(seen) if Some(&seen.oldest) == oldest.as_ref() => seen.until = here,
            _ => *seen = oldest.map(|oldest| Seen { oldest, since: now, from: here, until: here }),
        }
    }

    /// What it is, if it has lasted for long.
    pub fn burden(&self) -> Option<Burden> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { oldest, since, from, until } = seen.as_ref()?;
        let lasts = *until - *from;
        (lasts >= LONG).then(|| oldest.described(*since, lasts))
    }
}

impl Oldest {
    fn described(&self, since: Timestamp, lasts: Duration) -> Burden {
        let Self { kind, name, user, application, xid: _ } = self;
        let minutes = lasts.as_secs() / 60;
        let (who, remedy) = match kind.as_str() {
            "session" => (
                format!(
                    "a transaction in the database of the ledger is open for {minutes} minutes or longer (process {name}, \
                     user {user}, application {application})"
                ),
                format!(
                    "if it is not a backup that ends soon, have the database end it: SELECT pg_terminate_backend({name}); \
                     idle_in_transaction_session_timeout of its user ends those that are forgotten"
                ),
            ),
            "standby" => (
                format!(
                    "a transaction on a standby of the database ({application}, hot_standby_feedback) is open for {minutes} \
                     minutes or longer"
                ),
                "end it there, or turn hot_standby_feedback off on that standby; to end its connection would only stop \
                 the replication"
                    .to_owned(),
            ),
            "slot" => (
                format!(
                    "the replication slot {name} of the database has not moved for {minutes} minutes or longer"
                ),
                format!("let its standby go on, or SELECT pg_drop_replication_slot('{name}')"),
            ),
            _ => (
                format!(
                    "a transaction of user {user} was prepared in the database of the ledger, and is open for {minutes} \
                     minutes or longer"
                ),
                "COMMIT PREPARED or ROLLBACK PREPARED with its gid in pg_prepared_xacts".to_owned(),
            ),
        };
        let why = format!(
            "{who}: PostgreSQL keeps every row that was deleted or changed since, so that the ledger grows, and becomes \
             slower until that has ended"
        );
        Burden { why, remedy, since }
    }
}

/// The oldest transaction of anybody else. Others that are open keep what it keeps, because it was open when they began;
/// of these, the one whose own number is the oldest is meant. Of another user's, the server tells little more than whose
/// it is. Those that vacuum keep nothing, and those of the server's own have no user. What a standby without a slot needs
/// is shown as if it were its connection's.
async fn oldest(tx: &Tx) -> Result<Option<Oldest>, Failure> {
    let sql = "SELECT kind, coalesce(name, ''), coalesce(of, ''), coalesce(application, ''), xid FROM (
             SELECT CASE WHEN datname IS NULL THEN 'standby' ELSE 'session' END AS kind, pid::text AS name,
                 usename::text AS of, application_name AS application,
                 CASE WHEN age(backend_xid) >= age(backend_xmin) OR backend_xmin IS NULL THEN backend_xid ELSE backend_xmin END::text AS xid,
                 greatest(age(backend_xid), age(backend_xmin)) AS age,
                 age(backend_xid) IS DISTINCT FROM greatest(age(backend_xid), age(backend_xmin)) AS is_anothers
             FROM pg_stat_activity
             WHERE usename IS NOT NULL AND pid <> pg_backend_pid()
                 AND (datname = current_database() OR datname IS NULL)
                 AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum)
             UNION ALL
             SELECT 'prepared', gid, owner::text, '', transaction::text, age(transaction), false
             FROM pg_prepared_xacts WHERE database = current_database()
             UNION ALL
             SELECT 'slot', slot_name::text, '', '', xmin::text, age(xmin), true
             FROM pg_replication_slots WHERE xmin IS NOT NULL
         ) of WHERE age IS NOT NULL ORDER BY age DESC, is_anothers, kind, name LIMIT 1";
    let Some(row) = tx.first(sql, &[]).await? else { return Ok(None) };
    Ok(Some(Oldest {
        kind: row.try_get(0)?,
        name: row.try_get(1)?,
        user: row.try_get(2)?,
        application: row.try_get(3)?,
        xid: row.try_get(4)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, xid: &str) -> Oldest {
        let text = str::to_owned;
        let (name, user, application) = (text("77"), text("ann"), text("psql"));
        Oldest { kind: text(kind), name, user, application, xid: text(xid) }
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_rows_for_long_is_named_with_what_to_do() {
        let horizon = Horizon::default();
        for (kind, who, what) in [
            (
                "session",
                "10 minutes or longer (process 77, user ann, application psql)",
                "pg_terminate_backend(77)",
            ),
            ("standby", "on a standby of the database (psql,", "end it there"),
            ("slot", "the replication slot 77", "pg_drop_replication_slot('77')"),
            ("prepared", "of user ann was prepared", "ROLLBACK PREPARED"),
        ] {
            // As many short ones, one after the other, as one likes.
            for xid in ["5", "6"] {
                horizon.note(Some(of(kind, xid)), Timestamp(1));
                tokio::time::advance(LONG / 2).await;
            }
            horizon.note(Some(of(kind, "6")), Timestamp(2));
            assert_eq!(horizon.burden(), None);
            tokio::time::advance(LONG / 2).await;
            assert_eq!(horizon.burden(), None, "nobody has seen it since");
            horizon.note(Some(of(kind, "6")), Timestamp(3));
            let burden = horizon.burden().expect("it has lasted for long");
            assert!(burden.why.contains(who) && burden.remedy.contains(what), "{burden:?}");
            assert_eq!(burden.since, Timestamp(1));
        }
        horizon.note(None, Timestamp(3));
        assert_eq!(horizon.burden(), None);
    }
}

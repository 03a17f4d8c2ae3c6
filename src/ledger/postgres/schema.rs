//! The tables, and how they come to be.
//!
//! # What always holds
//! * Each version is made of the one before it by a step, in a transaction of its own that also notes the version: one
//!   process does it, the others wait, and whoever is killed meanwhile leaves the version before.
//! * A step only adds: tables, columns with a constant default, small indices. So replicas of the version before work on
//!   beside those of this one, and what only they need goes a version later. A replica refuses what is two versions
//!   newer than its own.
//! * A step does not wait long for others that use a table: whoever wants the table after it waits for both.
//!
//! Texts that outsiders choose are `bytea`: a context key may hold any character, also one that `text` does not take,
//! and bytes are in the same order on every machine.

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::failure::{Failure, LACKS_RIGHTS};
use crate::ledger::postgres::pool::Tx;

/// What makes each version, the first one of nothing.
pub(crate) type Steps<'a> = &'a [&'a str];

/// The steps that this program knows.
pub(crate) const STEPS: Steps<'_> = &[TABLES];

/// How long a step waits for a lock, in milliseconds: a fraction of what Segment waits for an answer.
const STEP_WAITS_MS: u32 = 1000;

/// Locks the version of the tables for a transaction. Any number that nobody else in the database locks will do.
const VERSION_LOCK: i64 = 0x636f_686f_7274_6400;

/// Version 1.
///
/// A member's queue row is a row of its own, so that an update of a member touches no index: `member` has only the one
/// of its key, and a small one for those whose key is not their user id. Counts are sums of what each transaction has
/// changed, so that transactions do not wait for each other.
const TABLES: &str = "
CREATE TABLE cohortd (name text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE destination (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    environment text NOT NULL,
    paused_since int8
);
CREATE TABLE lease (
    destination_no int4 PRIMARY KEY REFERENCES destination ON DELETE CASCADE,
    owner text NOT NULL,
    process int8 NOT NULL,
    token int8 NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE TABLE replica (
    name text PRIMARY KEY,
    version text NOT NULL,
    configuration text NOT NULL,
    started_at int8 NOT NULL,
    seen_at timestamptz NOT NULL,
    said text
);
CREATE TABLE audience (
    no int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination_no int4 NOT NULL REFERENCES destination ON DELETE CASCADE,
    audience_id bytea NOT NULL,
    audience_key bytea NOT NULL,
    context_kind bytea NOT NULL,
    acknowledged bool NOT NULL DEFAULT false,
    told_counts_from int8 NOT NULL DEFAULT 0,
    is_erased bool NOT NULL DEFAULT false,
    members int8 NOT NULL DEFAULT 0,
    included int8 NOT NULL DEFAULT 0,
    pending int8 NOT NULL DEFAULT 0,
    parked int8 NOT NULL DEFAULT 0,
    snapshot_at int8 NOT NULL DEFAULT 0,
    guard text,
    is_held bool NOT NULL DEFAULT false,
    walk text,
    walk_rules int8[],
    walk_since int8,
    walk_after bytea,
    walk_visited int8,
    walk_expected int8,
    front int8
);
CREATE UNIQUE INDEX audience_by_id ON audience (destination_no, audience_id) WHERE NOT is_erased;
CREATE INDEX audience_that_is_walked ON audience (destination_no) WHERE walk IS NOT NULL;
CREATE INDEX audience_that_is_held ON audience (destination_no) WHERE is_held;
CREATE TABLE member (
    event_at int8 NOT NULL,
    version int8 NOT NULL,
    told_at int8,
    pending_since int8,
    parked_at int8,
    refused_with int8,
    audience_no int4 NOT NULL,
    flags int4 NOT NULL,
    revision int4 NOT NULL,
    key_rule int8 NOT NULL,
    person bytea,
    context_key bytea NOT NULL,
    PRIMARY KEY (audience_no, context_key)
) WITH (fillfactor = 85);
CREATE INDEX member_by_person ON member (person) WHERE person IS NOT NULL;
CREATE TABLE pending (
    audience_no int4 NOT NULL,
    since int8 NOT NULL,
    context_key bytea NOT NULL,
    passes_guard bool NOT NULL
);
CREATE INDEX pending_by_age ON pending (audience_no, since);
CREATE INDEX pending_that_passes ON pending (audience_no, since) WHERE passes_guard;
CREATE TABLE change (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination_no int4 NOT NULL,
    audience_no int4 NOT NULL,
    members int8 NOT NULL,
    included int8 NOT NULL,
    pending int8 NOT NULL,
    parked int8 NOT NULL,
    arrival int8 NOT NULL
);
CREATE INDEX change_by_audience ON change (audience_no);
CREATE INDEX change_by_destination ON change (destination_no, id);
CREATE TABLE call_out (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination_no int4 NOT NULL REFERENCES destination ON DELETE CASCADE,
    token int8 NOT NULL,
    audience_no int4 NOT NULL,
    audience_id bytea NOT NULL,
    context_keys bytea[] NOT NULL,
    is_late bool NOT NULL DEFAULT false
);
ALTER TABLE call_out ALTER context_keys SET STORAGE EXTERNAL;
CREATE TABLE reassertion (
    audience_no int4 NOT NULL,
    context_key bytea NOT NULL,
    PRIMARY KEY (audience_no, context_key)
);
CREATE TABLE parked (
    audience_no int4 NOT NULL,
    context_key bytea NOT NULL,
    parked_at int8 NOT NULL,
    status int4 NOT NULL,
    code bytea NOT NULL,
    message bytea NOT NULL,
    answer_id bytea NOT NULL,
    PRIMARY KEY (audience_no, context_key)
);
CREATE INDEX parked_by_age ON parked (parked_at);
CREATE TABLE rejected (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination_no int4 NOT NULL REFERENCES destination ON DELETE CASCADE,
    received_at int8 NOT NULL,
    event_at int8 NOT NULL,
    person bytea,
    reason text NOT NULL,
    detail text NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX rejected_by_destination ON rejected (destination_no, id);
CREATE INDEX rejected_by_person ON rejected (person) WHERE person IS NOT NULL;
CREATE TABLE message (
    destination_no int4 NOT NULL REFERENCES destination ON DELETE CASCADE,
    hash bytea NOT NULL,
    seen_at int8 NOT NULL,
    counts_at int8 NOT NULL,
    PRIMARY KEY (destination_no, hash)
);
CREATE INDEX message_by_age ON message (seen_at);
CREATE TABLE deleted (
    destination_no int4 NOT NULL REFERENCES destination ON DELETE CASCADE,
    person bytea NOT NULL,
    at int8 NOT NULL,
    arrival int8 NOT NULL,
    PRIMARY KEY (destination_no, person)
);
CREATE TABLE reconciliation (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination text NOT NULL,
    audience_id bytea NOT NULL,
    replica text NOT NULL,
    process int8 NOT NULL,
    stage text NOT NULL,
    about bytea NOT NULL,
    since int8 NOT NULL,
    ended_at int8,
    total int8 NOT NULL,
    done int8 NOT NULL,
    entered int8 NOT NULL,
    gone int8 NOT NULL
);
CREATE UNIQUE INDEX reconciliation_that_is_under_way ON reconciliation (destination, audience_id) WHERE ended_at IS NULL;
CREATE TABLE reconciliation_piece (
    reconciliation int8 NOT NULL REFERENCES reconciliation ON DELETE CASCADE,
    no int8 NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (reconciliation, no)
);
INSERT INTO cohortd VALUES ('version', '\\x31'), ('arrival', '\\x30');
INSERT INTO cohortd SELECT 'hash_key', decode(md5(gen_random_uuid()::text) || md5(gen_random_uuid()::text), 'hex');
";

/// Where a ledger should be, there is none.
pub(crate) const NOT_THERE: &str = "there is no ledger in the database: see that the URL, and the search_path of its user, lead to it";

/// The version of the tables, if there are any; an error, if they cannot be used.
pub(crate) async fn usable(tx: &Tx) -> Result<Option<i32>, Failure> {
    let Some(version) = stored_version(tx).await? else { return Ok(None) };
    check_version(version, STEPS)?;
    copies(tx).await?;
    Ok(Some(version))
}

/// What is there, in words.
pub(crate) async fn look(tx: &Tx) -> Result<String, Failure> {
    if let Some(version) = usable(tx).await? {
        let sql = "SELECT has_table_privilege('member', 'SELECT') AND has_table_privilege('member', 'INSERT')
             AND has_table_privilege('member', 'UPDATE') AND has_table_privilege('member', 'DELETE')";
        let may: bool = tx.first(sql, &[]).await?.map_or(Ok(false), |row| row.try_get(0))?;
        if !may {
            return Err(Failure::Unavailable(LACKS_RIGHTS.to_owned()));
        }
        let is_older = usize::try_from(version).is_ok_and(|version| version < STEPS.len());
        let then = if is_older { ", of an older version; the first start upgrades it" } else { "" };
        return Ok(format!("there is one{then}"));
    }
    let sql = "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let may: bool = tx.first(sql, &[]).await?.map_or(Ok(false), |row| row.try_get(0))?;
    if may {
        Ok("none yet; the first start creates it".to_owned())
    } else {
        Err(Failure::Unavailable(LACKS_RIGHTS.to_owned()))
    }
}

/// The version of the tables; `None` if there are none.
async fn stored_version(tx: &Tx) -> Result<Option<i32>, Failure> {
    let there = tx.first("SELECT to_regclass('cohortd') IS NOT NULL", &[]).await?;
    if !there.map_or(Ok(false), |row| row.try_get(0))? {
        return Ok(None);
    }
    let sql = "SELECT convert_from(value, 'UTF8')::int4 FROM cohortd WHERE name = 'version'";
    Ok(tx.first(sql, &[]).await?.map(|row| row.try_get(0)).transpose()?)
}

fn check_version(version: i32, steps: Steps<'_>) -> Result<(), Failure> {
    let newest = steps.len() + 1;
    if usize::try_from(version).is_ok_and(|version| version <= newest) {
        return Ok(());
    }
    Err(Failure::Unavailable(format!(
        "the tables of the ledger are of version {version}: this program knows {} and works with {newest} at most; \
         start a newer one",
        steps.len(),
    )))
}

/// Brings the tables one version further; `false`: they are at least of the version of this program.
pub(crate) async fn step(tx: &Tx, steps: Steps<'_>) -> Result<bool, Failure> {
    lock(tx).await?;
    let version = stored_version(tx).await?;
    if let Some(version) = version {
        check_version(version, steps)?;
        copies(tx).await?;
    }
    let at = version.unwrap_or_default();
    let step = usize::try_from(at).ok().and_then(|at| steps.get(at));
    let Some(step) = step else { return Ok(false) };
    tx.batch(&format!("SET LOCAL lock_timeout = {STEP_WAITS_MS}")).await?;
    tx.batch(step).await?;
    let sql =
        "UPDATE cohortd SET value = convert_to($1::int4::text, 'UTF8') WHERE name = 'version'";
    tx.execute(sql, &[(&(at + 1), Type::INT4)]).await?;
    Ok(true)
}

/// Waits until nobody else makes, changes or begins to use the tables.
async fn lock(tx: &Tx) -> Result<(), Failure> {
    tx.batch(&format!("SELECT pg_advisory_xact_lock({VERSION_LOCK})")).await
}

/// Waits until nobody else makes, changes or begins to use the tables; whether there are any, of a version that can be
/// copied.
pub(crate) async fn is_there(tx: &Tx) -> Result<bool, Failure> {
    lock(tx).await?;
    let Some(version) = stored_version(tx).await? else { return Ok(false) };
    check_version(version, STEPS)?;
    if usize::try_from(version).is_ok_and(|version| version < STEPS.len()) {
        return Err(Failure::Unavailable(
            "the tables of the ledger are of an older version: start this program on them once, which upgrades them"
                .to_owned(),
        ));
    }
    Ok(true)
}

/// Makes the tables, which are not there.
pub(crate) async fn make(tx: &Tx) -> Result<(), Failure> {
    while step(tx, STEPS).await? {}
    Ok(())
}

/// In `cohortd`: a copy that is made here and is not finished, and how far it is.
pub(crate) const UNFINISHED_COPY: &str = "copy_unfinished";
/// The copy that was made here and was finished.
pub(crate) const FINISHED_COPY: &str = "copy_finished";
/// The copy that is made from here, and until when it is known to be under way, in microseconds. It goes when a replica
/// begins to use the tables.
pub(crate) const SOURCE_OF_COPY: &str = "copy_source";

/// Makes sure that a replica may begin to use the tables, and that none does meanwhile without a copy knowing.
pub(crate) async fn can_be_used(tx: &Tx) -> Result<(), Failure> {
    tx.batch(&format!("SELECT pg_advisory_xact_lock_shared({VERSION_LOCK})")).await?;
    stored_version(tx).await?.map_or(Ok(()), |version| check_version(version, STEPS))?;
    copies(tx).await?;
    let sql = "DELETE FROM cohortd WHERE name = $1";
    tx.execute(sql, &[(&SOURCE_OF_COPY, Type::TEXT)]).await.map(|_| ())
}

/// An error if these tables are being copied, or are a copy that is not finished.
async fn copies(tx: &Tx) -> Result<(), Failure> {
    let sql = "SELECT name FROM cohortd WHERE CASE name WHEN $1 THEN true
             WHEN $2 THEN split_part(convert_from(value, 'UTF8'), ' ', 2)::int8
                 > (extract(epoch FROM clock_timestamp()) * 1000000)::int8
             ELSE false END";
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&UNFINISHED_COPY, Type::TEXT), (&SOURCE_OF_COPY, Type::TEXT)];
    match tx.first(sql, &params).await? {
        None => Ok(()),
        Some(row) if row.try_get::<_, &str>(0)? == UNFINISHED_COPY => {
            Err(Failure::Unavailable(
                "the ledger there is a copy that is not finished: run the same `cohortd ledger copy` again, which goes on \
                 where it was, or empty the schema"
                    .to_owned(),
            ))
        }
        Some(_) => Err(Failure::Unavailable(
            "the ledger there is being copied by `cohortd ledger copy`: it can be used once that has ended; a copy that \
             was killed keeps it for half a minute"
                .to_owned(),
        )),
    }
}

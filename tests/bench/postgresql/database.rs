//! The server of the benchmark: databases on it, and what it takes of the machine.

use std::path::Path;
use std::time::Instant;

use tokio_postgres::NoTls;
use tokio_postgres::types::FromSql;

use super::server::{Database, Server, beside};
use crate::workbench::count;

/// Hundredths of a second of CPU, as the system counts them.
const TICKS: f64 = 100.0;

/// The members of a ledger, of whom LaunchDarkly was told: of its only audience, which has one already.
const FILL: &str = "
INSERT INTO member (event_at, version, told_at, audience_no, flags, revision, key_rule, context_key)
SELECT of.event_at, of.version, of.version, of.audience_no, 3, 0, of.key_rule,
    convert_to('user_' || substr(md5(number::text), 1, 16), 'UTF8')
FROM (SELECT * FROM member LIMIT 1) of, generate_series(1, $1::int8) number;
INSERT INTO change (destination_no, audience_no, members, included, pending, parked, arrival)
SELECT destination_no, no, $1, $1, 0, 0, 0 FROM audience;";

/// The server, and whoever looks at it.
pub struct Bench {
    server: Server,
}

/// What the database has used since this was made.
pub struct Meter<'a> {
    bench: &'a Bench,
    began: Instant,
    wal: f64,
    ticks: u64,
}

/// What the database has used.
pub struct Used {
    pub wal_bytes: f64,
    /// Of one processor.
    pub cpu_percent: f64,
}

impl Bench {
    pub fn new(server: Server) -> Self {
        Self { server }
    }

    /// An empty database; nothing that was written before is still to be checkpointed.
    pub fn empty(&self) -> Database {
        let database = self.server.database();
        let all = database.clone();
        beside(async move { all.run("CHECKPOINT").await });
        database
    }

    pub fn meter(&self) -> Meter<'_> {
        Meter { bench: self, began: Instant::now(), wal: self.wal(), ticks: self.ticks() }
    }

    fn wal(&self) -> f64 {
        self.read("SELECT (pg_current_wal_lsn() - '0/0')::float8")
    }

    /// Of all its processes that run now.
    fn ticks(&self) -> u64 {
        let file: String = self.read("SELECT pg_read_file('postmaster.pid')");
        let server = file.lines().next().expect("the process is in the first line");
        let processes = std::fs::read_dir("/proc").expect("a Linux").flatten();
        processes.filter_map(|process| ticks_of(&process.path(), server)).sum()
    }

    fn read<T>(&self, sql: &'static str) -> T
    where
        T: for<'a> FromSql<'a> + Send + 'static,
    {
        let config = self.server.everything().config();
        beside(async move {
            let (client, connection) = config.connect(NoTls).await.expect("the server is there");
            let driver = tokio::spawn(connection);
            let row = client.query_one(sql, &[]).await.expect("it can be read");
            driver.abort();
            row.get(0)
        })
    }
}

/// Of a process that is this one or its child.
fn ticks_of(process: &Path, server: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The second field, the name, is in parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let is_ours = process.file_name()?.to_str()? == server || *fields.get(1)? == server;
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    is_ours.then_some(())?;
    Some(ticks(11)? + ticks(12)?)
}

impl Meter<'_> {
    pub fn read(self) -> Used {
        let (elapsed, ticks) = (self.began.elapsed(), self.bench.ticks() - self.ticks);
        let cpu_percent = count(ticks) / TICKS / elapsed.as_secs_f64() * 100.0;
        Used { wal_bytes: self.bench.wal() - self.wal, cpu_percent }
    }
}

/// Puts so many members into the ledger of a daemon that has stopped.
pub fn fill(database: &Database, members: u64) {
    let database = database.clone();
    beside(async move {
        database.run(&FILL.replace("$1", &members.to_string())).await;
        for table in ["member", "pending", "change"] {
            database.run(&format!("VACUUM ANALYZE {table}")).await;
        }
        database.run("CHECKPOINT").await;
    });
}

/// Gives back the disk.
pub fn remove(database: &Database) {
    let database = database.clone();
    let sql = "DO $$ BEGIN EXECUTE 'DROP SCHEMA ' || current_schema || ' CASCADE'; END $$";
    beside(async move { database.run(sql).await });
}

//! The promises, held with the ledger in a database: the tests of the embedded one once more, except those about its
//! files.

#[path = "../postgresql/server.rs"]
pub(super) mod server;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cohortd::ledger::{MemberView, ParkedView, RejectedView};
use cohortd::membership::Timestamp;
use rustix::process::Signal;
use tokio::time::{interval, timeout};
use tokio_postgres::{NoTls, Row};

use crate::harness::{DEADLINE, send};
use crate::runner::Test;
use crate::{
    convergence, crash_recovery, database_faults, encrypted, gone_on, handed_on, isolation,
    ordering, outage, pooler, reactions, replicas, secrecy, shutdown, way_in,
};
use server::Server;

/// What the names of these tests begin with.
pub const PREFIX: &str = "postgresql::";

/// Those that are about the files of the embedded ledger, or change its clock by hand.
const OF_FILES: [&str; 3] = [
    "arrival_never_runs_backwards_and_events_without_a_time_keep_their_order",
    "a_ledger_that_cannot_write_ends_the_daemon_with_70",
    "a_configuration_that_cannot_be_used_is_described_without_its_secrets",
];

pub fn tests() -> Vec<Test> {
    let files = [
        convergence::tests(),
        crash_recovery::tests(),
        database_faults::tests(),
        encrypted::tests(),
        gone_on::tests(),
        handed_on::tests(),
        isolation::tests(),
        ordering::tests(),
        outage::tests(),
        pooler::tests(),
        reactions::tests(),
        secrecy::tests(),
        replicas::tests(),
        shutdown::tests(),
        way_in::tests(),
    ];
    let of_both = |test: &Test| !OF_FILES.iter().any(|name| test.is(name));
    files.into_iter().flatten().filter(of_both).map(Test::on_postgresql).collect()
}

/// Whether the running test has its ledger in a database.
pub fn is_wanted() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with(PREFIX))
}

/// The server that all tests share.
static SERVER: OnceLock<Server> = OnceLock::new();

/// The URL of a database on a server of its own.
pub fn database_of_its_own() -> String {
    database_with(&["autovacuum=off"])
}

/// The URL of a database on a server of its own, with these settings.
pub fn database_with(settings: &[&str]) -> String {
    Server::start(&std::env::temp_dir(), settings).database().url()
}

/// The socket of the server of a database.
pub fn socket(url: &str) -> PathBuf {
    let (_, rest) = url.split_once("host=").expect("it has one");
    Path::new(rest.split('&').next().expect("a directory")).join(".s.PGSQL.5432")
}

/// The URL of a database that is reached through these ports of this machine.
pub fn url_through(url: &str, ports: &[u16]) -> String {
    let directory = socket(url);
    let directory = directory.parent().expect("it is in one").display();
    let all = |of: fn(&u16) -> String| ports.iter().map(of).collect::<Vec<_>>().join(",");
    let (hosts, ports) = (all(|_| "127.0.0.1".to_owned()), all(u16::to_string));
    url.replace(&format!("host={directory}"), &format!("host={hosts}&port={ports}"))
}

/// Ends the server of a database as a crash would; returns once it has begun again.
pub async fn crash(url: &str) {
    let client = connect(url).await;
    let file = client.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await;
    let file: String = file.expect("its owner may").get(0);
    let server = file.lines().next().and_then(|pid| pid.parse().ok()).expect("a process");
    send(Signal::QUIT, server);
    let is_another = async || {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let row = client.query_one("SELECT pg_read_file('postmaster.pid')", &[]).await.ok()?;
        Some(row.get::<_, String>(0) != file)
    };
    let beginning = async {
        let mut looks = interval(Duration::from_millis(10));
        while is_another().await != Some(true) {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, beginning).await.expect("it begins again");
}

/// Each has a name of its own for its connections, by which the server knows them.
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The URL of a new database.
pub fn new_database() -> String {
    let settings = ["max_connections=400", "autovacuum=off"];
    let server = SERVER.get_or_init(|| Server::start(&std::env::temp_dir(), &settings));
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    format!("{}&application_name=replicas_{number}", server.database().url())
}

/// Ends every connection of the daemons of a database.
pub async fn terminate_all(url: &str) {
    let (_, name) = url.rsplit_once("application_name=").expect("it has a name");
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = $1 AND pid <> pg_backend_pid()";
    connect(url).await.execute(sql, &[&name]).await.expect("its owner may");
}

/// Ends every connection to the server of a database.
pub async fn terminate_everybody(url: &str) {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    connect(url).await.execute(sql, &[]).await.expect("its owner may");
}

/// Runs statements in a database.
pub async fn run(url: &str, sql: &str) {
    connect(url).await.batch_execute(sql).await.expect("its owner may");
}

/// The number that a query asks for.
pub async fn number(url: &str, sql: &str) -> i64 {
    connect(url).await.query_one(sql, &[]).await.expect("its owner may").get(0)
}

/// A connection.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.expect("the server is there");
    tokio::spawn(connection);
    client
}

/// Waits until nothing is left to deliver.
pub async fn drained(url: &str) {
    let client = connect(url).await;
    let sql = "SELECT (SELECT count(*) FROM pending) + (SELECT count(*) FROM reassertion) + (SELECT count(*) FROM call_out)
        + (SELECT count(*) FROM audience WHERE walk IS NOT NULL AND NOT is_erased)
        + (SELECT count(*) FROM reconciliation WHERE ended_at IS NULL)";
    let left = async || client.query_one(sql, &[]).await.expect("it can be read").get::<_, i64>(0);
    let looking = async {
        let mut looks = interval(Duration::from_millis(10));
        while left().await != 0 {
            looks.tick().await;
        }
    };
    let in_time = timeout(DEADLINE, looking).await;
    assert!(in_time.is_ok(), "{} left: pending, in a call, or to be told again", left().await);
}

/// Every member in the ledger.
pub async fn members(url: &str) -> Vec<MemberView> {
    let sql = "SELECT convert_from(a.audience_id, 'UTF8'), convert_from(a.audience_key, 'UTF8'),
            convert_from(a.context_kind, 'UTF8'), convert_from(m.context_key, 'UTF8'), m.flags, m.event_at,
            CASE WHEN m.told_at > a.told_counts_from THEN m.told_at END, m.pending_since IS NOT NULL, m.parked_at IS NOT NULL
        FROM member m JOIN audience a ON a.no = m.audience_no WHERE NOT a.is_erased
        ORDER BY a.audience_id, m.context_key";
    let rows = connect(url).await.query(sql, &[]).await.expect("it can be read");
    let view = |row: &Row| {
        let (flags, told_at): (i32, Option<i64>) = (row.get(4), row.get(6));
        MemberView {
            audience: row.get(0),
            audience_key: row.get(1),
            context_kind: row.get(2),
            context_key: row.get(3),
            included: flags & 1 != 0,
            event_at: Timestamp(row.get(5)),
            told: told_at.map(|_| flags & 2 != 0),
            told_at: told_at.map(Timestamp),
            pending: row.get(7),
            parked: row.get(8),
            expired: flags & 32 != 0,
        }
    };
    rows.iter().map(view).collect()
}

/// The parked members in the ledger.
pub async fn parked(url: &str) -> Vec<ParkedView> {
    let sql = "SELECT convert_from(a.audience_id, 'UTF8'), convert_from(p.context_key, 'UTF8'), p.parked_at, p.status,
            convert_from(p.code, 'UTF8'), convert_from(p.message, 'UTF8'), convert_from(p.answer_id, 'UTF8')
        FROM parked p JOIN audience a ON a.no = p.audience_no WHERE NOT a.is_erased
        ORDER BY a.audience_id, p.context_key";
    let rows = connect(url).await.query(sql, &[]).await.expect("it can be read");
    let view = |row: &Row| ParkedView {
        audience: row.get(0),
        context_key: row.get(1),
        parked_at: Timestamp(row.get(2)),
        status: u16::try_from(row.get::<_, i32>(3)).expect("a status"),
        code: row.get(4),
        message: row.get(5),
        answer_id: row.get(6),
    };
    rows.iter().map(view).collect()
}

/// The rejected events in the ledger.
pub async fn rejected(url: &str) -> Vec<RejectedView> {
    let sql = "SELECT id, received_at, reason, detail, body FROM rejected ORDER BY id";
    let rows = connect(url).await.query(sql, &[]).await.expect("it can be read");
    let view = |row: &Row| RejectedView {
        id: row.get(0),
        received_at: Timestamp(row.get(1)),
        reason: row.get(2),
        detail: row.get(3),
        body: row.get(4),
    };
    rows.iter().map(view).collect()
}

//! A server of PostgreSQL for the tests of this process: in a directory of its own, reached through a socket in it, and
//! gone with the process.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_postgres::{Config, NoTls};

/// As long as a server takes to begin, on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running server.
pub(super) struct Server {
    directory: PathBuf,
    databases: AtomicU32,
}

/// A schema of it, which is as good as a database of one's own, and made sooner.
#[derive(Clone)]
pub(super) struct Database {
    directory: PathBuf,
    schema: String,
}

/// Where the programs of PostgreSQL are.
const PROGRAMS: &str = env!("POSTGRESQL_PROGRAMS");

static OF_ALL: OnceLock<Server> = OnceLock::new();

/// Runs the server until nobody holds the other end of its input, and removes what it has left.
const KEEPER: &str = r#"
    "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=400 -c autovacuum=off > "$2/log" 2>&1 &
    cat > /dev/null
    kill -QUIT $!
    wait $!
    rm -rf "$2"
"#;

impl Server {
    /// The server of every test of this process.
    pub fn of_all() -> &'static Self {
        OF_ALL.get_or_init(Self::start)
    }

    fn start() -> Self {
        let programs = Path::new(PROGRAMS);
        let directory =
            tempfile::Builder::new().prefix("cohortd-pg").tempdir().expect("a directory").keep();
        let user = ordinary_user(&directory);
        let command = |program: &Path| {
            let mut command = Command::new(program);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command.current_dir(&directory).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let mut initdb = command(&programs.join("initdb"));
        let made = initdb
            .args(["--auth=trust", "--username=cohortd", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(directory.join("data"))
            .status();
        assert!(made.expect("initdb runs").success(), "initdb fails");
        let mut keeper = command(Path::new("/bin/sh"));
        let keeper =
            keeper.args(["-c", KEEPER, "sh"]).arg(programs).arg(&directory).stdin(Stdio::piped());
        // Its input stays open as long as this process lives: nobody takes it out of the child.
        std::mem::forget(keeper.spawn().expect("sh runs"));
        let server = Self { directory, databases: AtomicU32::new(0) };
        server.wait();
        server
    }

    fn wait(&self) {
        let began = std::time::Instant::now();
        let socket = self.directory.join(".s.PGSQL.5432");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < DEADLINE, "the server does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ready = Database { directory: self.directory.clone(), schema: "public".to_owned() };
        super::beside(async move {
            while ready.config().connect(NoTls).await.is_err() {
                assert!(began.elapsed() < DEADLINE, "the server does not begin");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// A new schema.
    pub fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::SeqCst);
        let all = Database { directory: self.directory.clone(), schema: "public".to_owned() };
        let schema = format!("ledger_{number}");
        let sql = format!("CREATE SCHEMA {schema}");
        super::beside(async move { all.run(&sql).await });
        Database { directory: self.directory.clone(), schema }
    }
}

impl Database {
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        let options = format!("-c search_path={}", self.schema);
        config.host_path(&self.directory).user("cohortd").dbname("postgres").options(options);
        config
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        let (client, connection) = self.config().connect(NoTls).await.expect("the server is there");
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.expect("it can be done");
        driver.abort();
    }

    /// What does not agree in the tables.
    pub async fn faults(&self) -> Vec<String> {
        let (client, connection) = self.config().connect(NoTls).await.expect("the server is there");
        let driver = tokio::spawn(connection);
        let sql = "
            SELECT 'members of ' || a.no FROM audience a
                WHERE NOT is_erased AND a.members + coalesce((SELECT sum(members) FROM change WHERE audience_no = a.no), 0)
                    <> (SELECT count(*) FROM member WHERE audience_no = a.no)
            UNION ALL SELECT 'included of ' || a.no FROM audience a
                WHERE NOT is_erased AND a.included + coalesce((SELECT sum(included) FROM change WHERE audience_no = a.no), 0)
                    <> (SELECT count(*) FROM member WHERE audience_no = a.no AND flags & 1 = 1)
            UNION ALL SELECT 'pending of ' || a.no FROM audience a
                WHERE NOT is_erased AND a.pending + coalesce((SELECT sum(pending) FROM change WHERE audience_no = a.no), 0)
                    <> (SELECT count(*) FROM member WHERE audience_no = a.no AND pending_since IS NOT NULL)
            UNION ALL SELECT 'parked of ' || a.no FROM audience a
                WHERE NOT is_erased AND a.parked + coalesce((SELECT sum(parked) FROM change WHERE audience_no = a.no), 0)
                    <> (SELECT count(*) FROM member WHERE audience_no = a.no AND parked_at IS NOT NULL
                        AND pending_since IS NULL)
            UNION ALL SELECT 'a queue row without its member in ' || p.audience_no FROM pending p
                JOIN audience a ON a.no = p.audience_no AND NOT a.is_erased
                LEFT JOIN member m ON m.audience_no = p.audience_no AND m.context_key = p.context_key
                WHERE m.pending_since IS DISTINCT FROM p.since
            UNION ALL SELECT 'a member without its queue row in ' || m.audience_no FROM member m
                JOIN audience a ON a.no = m.audience_no AND NOT a.is_erased
                WHERE m.pending_since IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pending p
                    WHERE p.audience_no = m.audience_no AND p.since = m.pending_since
                        AND p.context_key = m.context_key)";
        let rows = client.query(sql, &[]).await.expect("it can be read");
        driver.abort();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// A server refuses to run as root: it gets the user of the system's own servers, or nobody.
fn ordinary_user(directory: &Path) -> Option<(u32, u32)> {
    let owner = fs::metadata(directory).expect("it is there").uid();
    if owner != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("every system has users");
    let ids = |name: &str| -> Option<(u32, u32)> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).expect("an ordinary user");
    chown(directory, Some(uid), Some(gid)).expect("root may");
    Some((uid, gid))
}

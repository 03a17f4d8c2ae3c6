//! A server of PostgreSQL for tests and benchmarks: in a directory of its own, reached through a socket in it, and gone
//! with this process.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

/// Where the programs of PostgreSQL are; nobody asks where there are none.
pub(crate) const PROGRAMS: Option<&str> = option_env!("POSTGRESQL_PROGRAMS");

/// Runs the server until nobody holds the other end of its input, and removes what it has left. A server that ends before
/// is started again.
pub(crate) const KEEPER: &str = r#"
    programs="$1" directory="$2"
    shift 2
    while :; do
        "$programs/postgres" -D "$directory/data" -k "$directory" -c listen_addresses= "$@" >> "$directory/log" 2>&1
    done &
    cat > /dev/null
    kill $!
    read -r server < "$directory/data/postmaster.pid" && kill -QUIT "$server"
    while kill -0 "$server" 2> /dev/null; do sleep 0.05; done
    rm -rf "$directory"
"#;

impl Server {
    /// Starts one in a new directory within this one, with these settings beside its defaults.
    pub fn start(within: &Path, settings: &[&str]) -> Self {
        let programs = Path::new(PROGRAMS.expect("there are some"));
        let directory = tempfile::Builder::new().prefix("cohortd-pg").tempdir_in(within);
        let directory = directory.expect("a directory").keep();
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
        keeper.args(["-c", KEEPER, "sh"]).arg(programs).arg(&directory).stdin(Stdio::piped());
        keeper.args(settings.iter().flat_map(|setting| ["-c", setting]));
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
        let ready = self.everything();
        beside(async move {
            while ready.config().connect(NoTls).await.is_err() {
                assert!(began.elapsed() < DEADLINE, "the server does not begin");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    /// Where no schema is chosen.
    pub fn everything(&self) -> Database {
        Database { directory: self.directory.clone(), schema: "public".to_owned() }
    }

    /// A new schema.
    pub fn database(&self) -> Database {
        let number = self.databases.fetch_add(1, Ordering::SeqCst);
        let all = self.everything();
        let schema = format!("ledger_{number}");
        let sql = format!("CREATE SCHEMA {schema}");
        beside(async move { all.run(&sql).await });
        Database { directory: self.directory.clone(), schema }
    }
}

impl Database {
    /// Where it is, for a configuration.
    pub fn url(&self) -> String {
        let (directory, schema) = (self.directory.display(), &self.schema);
        format!(
            "postgres:///postgres?user=cohortd&host={directory}&options=-c%20search_path%3D{schema}"
        )
    }

    pub fn config(&self) -> Config {
        self.url().parse().expect("it is good")
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) {
        let (client, connection) = self.config().connect(NoTls).await.expect("the server is there");
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.expect("it can be done");
        driver.abort();
    }
}

/// Runs something on a runtime of its own: whoever asks is not asynchronous.
pub(super) fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a small runtime").block_on(work)
    };
    std::thread::spawn(run).join().expect("it does not panic")
}

/// A server refuses to run as root: it gets the user of the system's own servers, or nobody.
pub(crate) fn ordinary_user(directory: &Path) -> Option<(u32, u32)> {
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

//! Two servers of PostgreSQL: a primary that confirms nothing before its standby has it, and that standby.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::time::{Duration, interval, timeout};

use crate::harness::DEADLINE;
use crate::postgresql::{self, server};

/// The URLs of the same schema on both.
pub struct Pair {
    pub primary: String,
    pub standby: String,
}

impl Pair {
    /// Starts both, and returns once the primary waits for its standby.
    pub async fn start() -> Self {
        let primary = tokio::task::spawn_blocking(postgresql::database_of_its_own).await;
        let primary = primary.expect("it begins");
        let socket = postgresql::socket(&primary);
        let from = socket.parent().expect("it is in one").to_owned();
        let of = from.clone();
        let to = tokio::task::spawn_blocking(move || copy(&of)).await.expect("it is copied");
        let (before, after) = (from.display().to_string(), to.display().to_string());
        let pair = Self { standby: primary.replace(&before, &after), primary };
        pair.begins().await;
        postgresql::run(&pair.primary, "ALTER SYSTEM SET synchronous_standby_names = 'second'")
            .await;
        postgresql::run(&pair.primary, "SELECT pg_reload_conf()").await;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let waits = async {
            let mut looks = interval(Duration::from_millis(20));
            while postgresql::number(&pair.primary, sql).await == 0 {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, waits).await.expect("the standby is there in time");
        pair
    }

    /// Waits until the standby can be asked.
    async fn begins(&self) {
        let begins = async {
            let mut looks = interval(Duration::from_millis(20));
            while tokio_postgres::connect(&self.standby, tokio_postgres::NoTls).await.is_err() {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, begins).await.expect("the standby begins in time");
    }

    /// The URL of both, with the old primary first or last.
    pub fn both(&self, primary_first: bool) -> String {
        let directory = |url: &str| {
            let socket = postgresql::socket(url);
            let directory = socket.parent().expect("it is in one").display().to_string();
            directory.replace('/', "%2F")
        };
        let (primary, standby) = (directory(&self.primary), directory(&self.standby));
        let hosts = if primary_first {
            format!("{primary},{standby}")
        } else {
            format!("{standby},{primary}")
        };
        let (_, options) = self.primary.split_once("&options=").expect("it has them");
        format!("postgres://cohortd@{hosts}/postgres?options={options}")
    }

    /// The standby takes writes from now on. The old primary is not told.
    pub async fn promote(&self) {
        postgresql::run(&self.standby, "SELECT pg_promote()").await;
    }
}

/// A copy of a running server, which follows it.
fn copy(primary: &Path) -> PathBuf {
    let programs = Path::new(server::PROGRAMS.expect("there are some"));
    let directory = tempfile::Builder::new().prefix("cohortd-pg").tempdir();
    let directory = directory.expect("a directory").keep();
    let user = server::ordinary_user(&directory);
    let command = |program: &Path| {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&directory).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let from = format!("host={} user=cohortd application_name=second", primary.display());
    let copied = command(&programs.join("pg_basebackup"))
        .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname", &from, "-D"])
        .arg(directory.join("data"))
        .status();
    assert!(copied.expect("pg_basebackup runs").success(), "pg_basebackup fails");
    let mut keeper = command(Path::new("/bin/sh"));
    keeper.args(["-c", server::KEEPER, "sh"]).arg(programs).arg(&directory);
    keeper.args(["-c", "autovacuum=off"]).stdin(Stdio::piped());
    // As for every server of these tests.
    std::mem::forget(keeper.spawn().expect("sh runs"));
    directory
}

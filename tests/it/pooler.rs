//! A pooler in transaction mode between replicas and their database: `PgBouncer`, whatever version is installed. Run with
//! the ledger in a database, see `postgresql`.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{interval, timeout};

use crate::fleet::{Fleet, REPLICAS};
use crate::harness::DEADLINE;
use crate::needs::{PGBOUNCER, program};
use crate::postgresql::{self, server};

/// The pooler, with a socket in a directory of its own.
struct Pooler {
    child: Child,
    directory: tempfile::TempDir,
}

impl Pooler {
    /// In front of the server of a database, for this user.
    fn start(url: &str, user: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = directory.path();
        let socket = postgresql::socket(url);
        let host = socket.parent().expect("it is in one").display();
        let program = program("pgbouncer").expect("it is installed");
        let version = Command::new(&program).arg("--version").output().expect("it runs").stdout;
        let version = String::from_utf8(version).expect("text");
        let minor = version.split('.').nth(1).and_then(|number| number.trim().parse().ok());
        // Statements that it keeps from one transaction to the next: it can since 1.21.
        let kept = if minor.is_some_and(|minor: u32| minor >= 21) {
            "max_prepared_statements = 200"
        } else {
            ""
        };
        note!("{version}");
        let settings = format!(
            "[databases]\npostgres = host={host} dbname=postgres\n[pgbouncer]\nunix_socket_dir = {0}\n\
             listen_port = 6432\nauth_type = trust\nauth_file = {0}/users\npool_mode = transaction\n\
             default_pool_size = 6\nmax_client_conn = 200\nlogfile = {0}/log\n{kept}\n",
            place.display()
        );
        std::fs::write(place.join("users"), format!("\"{user}\" \"\"\n")).expect("it is ours");
        std::fs::write(place.join("pgbouncer.ini"), settings).expect("it is ours");
        let mut command = Command::new(program);
        if let Some((uid, gid)) = server::ordinary_user(place) {
            command.uid(uid).gid(gid);
        }
        command.arg("-q").arg("pgbouncer.ini").current_dir(place);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("it can be started"), directory }
    }

    /// Where it is, for a configuration; returns once it lets this user in.
    async fn url(&self, user: &str) -> String {
        let place = self.directory.path().display();
        let url = format!("postgres:///postgres?user={user}&host={place}&port=6432");
        let begins = async {
            let mut looks = interval(Duration::from_millis(20));
            while tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err() {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, begins).await.expect("it begins in time");
        url
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

async fn replicas_work_through_a_pooler_in_transaction_mode() {
    let url = postgresql::new_database();
    // A pooler passes on no options: the role has the schema.
    let (_, schema) = url.split_once("search_path%3D").expect("it has one");
    let schema = schema.split('&').next().expect("a name");
    let user = format!("pooled_{schema}");
    let sql = format!(
        "CREATE ROLE {user} LOGIN; ALTER SCHEMA {schema} OWNER TO {user}; ALTER ROLE {user} SET search_path = {schema}"
    );
    postgresql::run(&url, &sql).await;
    let pooler = Pooler::start(&url, &user);
    let ways = vec![pooler.url(&user).await; REPLICAS];
    let fleet = Fleet::start_through(&ways, &url, &[], 41).await;
    let began = std::time::Instant::now();
    fleet.more(200).await;
    note!("200 requests in {} ms", began.elapsed().as_millis());
    for replica in &fleet.replicas {
        let failed = replica.log().into_iter().find(|line| line.contains("26000"));
        assert_eq!(failed, None);
    }
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

tests![replicas_work_through_a_pooler_in_transaction_mode.workers(4).needs(&PGBOUNCER)];

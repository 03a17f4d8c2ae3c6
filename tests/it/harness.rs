//! Runs the real daemon as a process with its own ledger, against a LaunchDarkly stand-in in this process.
//! The system chooses the ports; waits are for events, with deadlines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cohortd::clock::SystemClock;
use cohortd::ledger::{
    EmbeddedLedger, MemberView, Operations, ParkedAfter, ParkedView, RejectedView, Retention,
    Settings, Writer,
};
use cohortd::membership::DestinationName;
use cohortd::sandbox::{Account, StandIn, sign};
use cohortd::secret::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::needs::program;
use crate::postgresql;

/// Longer than anything takes on a busy machine; a test that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Polling interval for what cannot notify of changes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The client-side ID of the one destination, `production`.
pub const ENVIRONMENT: &str = "64f0c0ffee";
/// Its service token.
pub const SERVICE_TOKEN: &str = "api-planted-service-token";
/// Its shared secret.
pub const SHARED_SECRET: &str = "planted-shared-secret";

/// A stand-in with the account that [`Cohortd`] delivers to.
pub async fn launchdarkly() -> StandIn {
    launchdarkly_with(&[]).await
}

/// Like [`launchdarkly`], with additional accounts: client-side IDs and their tokens.
pub async fn launchdarkly_with(others: &[(&str, &str)]) -> StandIn {
    let all = [(ENVIRONMENT, SERVICE_TOKEN)].into_iter().chain(others.iter().copied());
    let accounts = all.map(|(client_side_id, token)| Account {
        client_side_id: client_side_id.to_owned(),
        service_token: Secret::new(token),
    });
    StandIn::start(accounts.collect()).await.expect("a port on loopback is free")
}

/// The daemon's configuration and ledger, across restarts.
pub struct Installation {
    pub directory: tempfile::TempDir,
    /// The URL of the database that the ledger is in, unless it is in the directory.
    pub database: Option<String>,
    variables: BTreeMap<String, String>,
    client: reqwest::Client,
}

/// The outcome of a command.
pub struct Typed {
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub complaint: String,
}

impl Typed {
    /// Its standard output, if it succeeded.
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.complaint);
        self.out
    }
}

/// A running daemon.
pub struct Cohortd {
    child: Child,
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    client: reqwest::Client,
}

/// A sender that acts as Segment towards the public listener.
#[derive(Clone)]
pub struct Poster {
    public: SocketAddr,
    client: reqwest::Client,
}

impl Installation {
    /// An installation that delivers to `launchdarkly`, with short delays so that tests are quick.
    pub fn new(launchdarkly: &StandIn) -> Self {
        // An error means that another test has installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .pool_max_idle_per_host(0) // a killed daemon leaves no connection to reuse
            .build();
        let mut installation = Self {
            directory,
            database: postgresql::is_wanted().then(postgresql::new_database),
            variables: BTreeMap::new(),
            client: client.expect("a plain client can be built"),
        };
        let ledger = installation.ledger_path().display().to_string();
        let place = match installation.database.clone() {
            None => ("ledger.path", ledger),
            Some(url) => ("ledger.url", url),
        };
        let base_url = launchdarkly.url().to_string();
        for (key, value) in [
            ("listen.address", "127.0.0.1:0"),
            ("admin.address", "127.0.0.1:0"),
            (place.0, &*place.1),
            ("ledger.lease_ttl_s", "2"),
            ("log.level", "debug"),
            ("delivery.linger_ms", "20"),
            ("delivery.request_timeout_ms", "400"),
            ("delivery.retry_floor_ms", "20"),
            ("delivery.retry_ceiling_ms", "200"),
            ("destinations.production.segment.shared_secrets", SHARED_SECRET),
            ("destinations.production.launchdarkly.client_side_id", ENVIRONMENT),
            ("destinations.production.launchdarkly.service_token", SERVICE_TOKEN),
            ("destinations.production.launchdarkly.base_url", &base_url),
        ] {
            installation.set(key, value);
        }
        installation
    }

    /// Sets a configuration key, by its dotted path, through the environment.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        let name = format!("COHORTD_{}", key.to_uppercase().replace('.', "__"));
        self.variables.insert(name, value.to_owned());
        self
    }

    /// Undoes [`Installation::set`].
    pub fn unset(&mut self, key: &str) -> &mut Self {
        let name = format!("COHORTD_{}", key.to_uppercase().replace('.', "__"));
        self.variables.remove(&name);
        self
    }

    /// Writes the configuration file. Keys that were set take precedence.
    pub fn write_config(&self, toml: &str) {
        self.write("cohortd.toml", toml);
    }

    /// Writes a file to the folder that relative paths of the configuration refer to; replaces an existing
    /// one.
    pub fn write(&self, name: &str, text: &str) {
        let beside = self.directory.path().join(format!("{name}.new"));
        std::fs::write(&beside, text).expect("it is ours");
        std::fs::rename(beside, self.directory.path().join(name)).expect("it is ours");
    }

    pub fn ledger_path(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    /// The daemon's command line, for tests that wrap it in something.
    pub fn command(&self) -> Command {
        self.wrapped(&[])
    }

    /// The daemon run by `wrapper` (such as a tracer), which is given its command line.
    pub fn wrapped(&self, wrapper: &[&str]) -> Command {
        let daemon = [env!("CARGO_BIN_EXE_cohortd"), "run"];
        let words: Vec<&str> = wrapper.iter().copied().chain(daemon).collect();
        let mut command = Command::new(found(words[0]));
        command.args(&words[1..]).env_clear().envs(&self.variables);
        command.current_dir(self.directory.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts the daemon and returns once it is ready.
    pub fn start(&self) -> Cohortd {
        self.start_as(self.command())
    }

    /// Like [`start`](Self::start), for a command from [`Installation::wrapped`].
    pub fn start_as(&self, command: Command) -> Cohortd {
        self.start_until(command, "ready")
    }

    /// Starts the daemon, and returns once it has logged a message that begins like this.
    pub fn start_until(&self, mut command: Command, message: &str) -> Cohortd {
        let mut child = command.spawn().expect("the daemon can be started");
        let stderr = child.stderr.take().expect("its log is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, arrived) = mpsc::channel();
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                kept.lock().expect("no reader panics").push(line.clone());
                let _ = lines.send(line); // the receiver is gone once the daemon is ready
            }
        });
        let (mut public, mut admin) = (None, None);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = arrived.recv_timeout(left) else {
                let log = log.lock().expect("no reader panics").join("\n");
                panic!("the daemon did not become ready:\n{log}");
            };
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            let address = || line["address"].as_str().and_then(|text| text.parse().ok());
            match (line["message"].as_str(), line["listener"].as_str()) {
                (Some("listening"), Some("public")) => public = address(),
                (Some("listening"), Some("admin")) => admin = address(),
                (Some(said), _) if said.starts_with(message) => break,
                _ => {}
            }
        }
        Cohortd {
            child,
            public: public.expect("it said where its public listener is"),
            admin: admin.expect("it said where its admin listener is"),
            log,
            reader: Some(reader),
            client: self.client.clone(),
        }
    }

    /// A command with the configuration of the installation, run by `wrapper`.
    pub fn typing(&self, wrapper: &[String], arguments: &[&str]) -> Command {
        let mut command = Command::new(found(&wrapper[0]));
        command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_cohortd")).args(arguments);
        command.env_clear().envs(&self.variables).current_dir(self.directory.path());
        command
    }

    /// Starts a daemon that logs to `log`, which the harness does not read. Returns once the daemon is
    /// ready.
    pub async fn start_unread(&self, log: impl Into<Stdio>) -> Cohortd {
        let child = self.command().stderr(log).spawn().expect("the daemon can be started");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (log, client) = (Arc::default(), self.client.clone());
        let mut cohortd =
            Cohortd { child, public: nowhere, admin: nowhere, log, reader: None, client };
        let becoming_ready = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                let [one, other] = listening(cohortd.pid())[..] else { continue };
                for (public, admin) in [(one, other), (other, one)] {
                    (cohortd.public, cohortd.admin) = (public, admin);
                    let status = self.client.get(format!("http://{admin}/status")).send().await;
                    if status.is_ok_and(|answer| answer.status() == 200)
                        && cohortd.readyz().await == Some(200)
                    {
                        return;
                    }
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, becoming_ready).await;
        assert!(in_time.is_ok(), "the daemon did not become ready");
        cohortd
    }

    /// An operator's command with the installation's configuration; `admin` is the admin listener of the
    /// daemon to ask.
    pub fn line(&self, admin: Option<SocketAddr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cohortd"));
        command.args(arguments).env_clear().envs(&self.variables);
        if let Some(admin) = admin {
            command.env("COHORTD_ADMIN__ADDRESS", admin.to_string());
        }
        command.current_dir(self.directory.path());
        command
    }

    /// Runs such a command to its end.
    pub fn types(&self, admin: Option<SocketAddr>, arguments: &[&str]) -> Typed {
        let output = self.line(admin, arguments).output().expect("the binary runs");
        let text = |bytes| String::from_utf8(bytes).expect("it writes text");
        Typed {
            code: output.status.code().expect("it ends by itself"),
            out: text(output.stdout),
            complaint: text(output.stderr),
        }
    }

    /// Waits until the ledger of a running daemon has nothing left to deliver: no member is pending or in
    /// flight, no reassertion is due later, no operation on a whole audience is running, and no answered
    /// request is in the journal alone.
    pub async fn drained(&self) {
        if let Some(url) = &self.database {
            return postgresql::drained(url).await;
        }
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let path = self.ledger_path().join("ledger.db");
        let db = rusqlite::Connection::open_with_flags(path, flags).expect("the ledger is there");
        // The number of the last answered block, in little-endian byte order.
        let answered = std::fs::read(self.ledger_path().join("journal-answered"));
        let answered = answered.unwrap_or_default().first_chunk().copied().unwrap_or_default();
        let answered = u64::from_le_bytes(answered);
        let left = || -> rusqlite::Result<(u64, u64)> {
            db.query_row(
                "SELECT (SELECT count(*) FROM member WHERE pending_since IS NOT NULL),
                     (SELECT count(*) FROM reassertion)
                         + (SELECT count(*) FROM audience WHERE walk IS NOT NULL)
                         + (SELECT count(*) FROM reconciliation WHERE ended_at IS NULL)
                         + (SELECT max(?1 - value, 0) FROM meta WHERE name = 'merged')",
                [answered],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        };
        let looking = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            while left().expect("the ledger can be read") != (0, 0) {
                looks.tick().await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, looking).await;
        assert!(in_time.is_ok(), "pending, and to be told again or merged: {:?}", left());
    }

    /// The parked members in the ledger of a stopped daemon.
    pub async fn parked(&self) -> Vec<ParkedView> {
        if let Some(url) = &self.database {
            return postgresql::parked(url).await;
        }
        let all = ParkedAfter::default();
        let parked = self.ledger().reader().parked(&production(), None, &all, 10_000);
        parked.expect("the ledger can be read")
    }

    /// The rejected events in the ledger of a stopped daemon.
    pub async fn rejected(&self) -> Vec<RejectedView> {
        match &self.database {
            None => {
                self.ledger().reader().rejected(&production(), 0, 10_000).expect("it can be read")
            }
            Some(url) => postgresql::rejected(url).await,
        }
    }

    /// Every member in the ledger of a stopped daemon.
    pub async fn members(&self) -> Vec<MemberView> {
        match &self.database {
            None => self.ledger().reader().members(&production()).expect("the ledger can be read"),
            Some(url) => postgresql::members(url).await,
        }
    }

    /// Opens the ledger of a stopped daemon, for inspection.
    pub fn ledger(&self) -> EmbeddedLedger {
        self.opened().0
    }

    /// Replaces the note that the daemon left in the ledger for its next start.
    pub async fn replace_note(&self, replaced: impl FnOnce(&str) -> String) {
        let (ledger, writer) = self.opened();
        let writing = tokio::task::spawn_blocking(move || writer.run());
        let note = replaced(ledger.note().expect("there is one"));
        ledger.leave_note(note).await.expect("there is space");
        ledger.close().await;
        writing.await.expect("it does not panic").expect("it ends well");
    }

    fn opened(&self) -> (EmbeddedLedger, Writer) {
        let week = Duration::from_secs(604_800);
        let kept = Retention { max_age: week, max_count: 1_000_000, max_bytes: 1 << 30 };
        let settings = Settings {
            path: self.ledger_path(),
            disk_reserve_bytes: 0,
            cache_kib: 2048,
            tombstone_ttl: week,
            rejected: kept,
            parked: kept,
            max_audiences: 10_000,
            check_every: Duration::from_secs(86_400),
            destinations: Vec::new(),
        };
        EmbeddedLedger::open(settings, Arc::new(SystemClock)).expect("the ledger can be opened")
    }
}

impl Cohortd {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A sender for use in another task.
    pub fn poster(&self) -> Poster {
        Poster { public: self.public, client: self.client.clone() }
    }

    /// The daemon's memory in KiB, as the kernel reports it: `VmRSS:` is the present, `VmHWM:` the peak.
    pub fn memory_kib(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line of it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Posts a body with its signature; `None` if there was no answer.
    pub async fn post_raw(
        &self,
        body: impl Into<reqwest::Body>,
        signature: String,
    ) -> Option<reqwest::Response> {
        let url = format!("http://{}/segment/production", self.public);
        self.client.post(url).header("x-signature", signature).body(body).send().await.ok()
    }

    /// Posts a body signed over `signed`; `None` if there was no answer.
    pub async fn post_signed(&self, body: String, signed: &str) -> Option<(u16, Value)> {
        self.poster().post_to("production", body, signed).await
    }

    /// Like [`post_signed`](Self::post_signed), to another destination with the same shared secret.
    pub async fn post_to(
        &self,
        destination: &str,
        body: String,
        signed: &str,
    ) -> Option<(u16, Value)> {
        self.poster().post_to(destination, body, signed).await
    }

    /// Posts one event as Segment's webhooks do.
    pub async fn post(&self, event: &Value) -> Option<(u16, Value)> {
        self.poster().post(event).await
    }

    /// Posts a batch of events as Segment's batching webhooks do: signed over the first.
    pub async fn post_batch(&self, events: &[Value]) -> Option<(u16, Value)> {
        self.poster().post_batch(events).await
    }

    /// The status of a probe on the admin listener.
    pub async fn readyz(&self) -> Option<u16> {
        self.probe("/readyz").await
    }

    /// What the probe says, and its status.
    pub async fn ready(&self) -> (u16, String) {
        let asked = self.client.get(format!("http://{}/readyz", self.admin)).send();
        let answer = asked.await.expect("the admin listener answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self) {
        self.until_readyz(200).await;
    }

    /// Waits until it is not ready.
    pub async fn until_unready(&self) {
        self.until_readyz(503).await;
    }

    async fn until_readyz(&self, status: u16) {
        let looking = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            while self.readyz().await != Some(status) {
                looks.tick().await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, looking).await;
        assert!(in_time.is_ok(), "its probe does not become {status}");
    }

    /// The status of the answer to a path on the admin listener.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(self.admin).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.split(' ').nth(1)?.parse().ok()
    }

    /// The admin listener's `/status`.
    pub async fn status(&self) -> Value {
        let url = format!("http://{}/status", self.admin);
        let answer = self.client.get(url).send().await.expect("the admin listener answers");
        answer.json().await.expect("status is JSON")
    }

    /// The admin listener's `/metrics`, in Prometheus's own format or as `OpenMetrics`.
    pub async fn metrics(&self, accept: &str) -> (String, String) {
        let url = format!("http://{}/metrics", self.admin);
        let asked = self.client.get(url).header("accept", accept).send();
        let answer = asked.await.expect("the admin listener answers");
        assert_eq!(answer.status(), 200);
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        (kind, answer.text().await.expect("metrics are text"))
    }

    /// Waits until `/status` satisfies `holds`.
    pub async fn until_status(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        let looking = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            while !holds(&status) {
                looks.tick().await;
                status = self.status().await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, looking).await;
        assert!(in_time.is_ok(), "the status is never as wanted, but {status}");
        status
    }

    /// Waits until a line with this message was logged.
    pub async fn until_logged(&self, message: &str) -> Value {
        let found = || {
            let lines = self.log();
            let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            parsed.into_iter().find(|line| line["message"] == message)
        };
        let looking = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                if let Some(line) = found() {
                    return line;
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, looking).await;
        in_time.unwrap_or_else(|_| panic!("never logged: {message}"))
    }

    /// Every log line so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no reader panics").clone()
    }

    /// How many lines with this message were logged so far.
    pub fn count_logged(&self, message: &str) -> usize {
        let quoted = format!("\"message\":\"{message}\"");
        self.log().iter().filter(|line| line.contains(&quoted)).count()
    }

    /// Waits for a log line with this message.
    pub async fn logged(&self, message: &str) {
        let quoted = format!("\"message\":\"{message}\"");
        let deadline = Instant::now() + DEADLINE;
        while !self.log().iter().any(|line| line.contains(&quoted)) {
            assert!(Instant::now() < deadline, "it never logged {message:?}");
            tokio::time::sleep(Duration::from_millis(5)).await; // there is no notification to wait for
        }
    }

    /// Kills the daemon with SIGKILL, which it cannot prepare for.
    pub fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is our child");
    }

    pub fn signal(&self, signal: Signal) {
        send(signal, self.pid());
    }

    /// Stops the daemon with SIGTERM. Returns its exit status and its whole log.
    pub fn stop(self) -> (ExitStatus, Vec<String>) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until the daemon ends by itself. Returns its exit status and its whole log.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + DEADLINE;
        // The thread that reads the log ends when the daemon does.
        let reader = self.reader.take();
        loop {
            let is_read = reader.as_ref().is_none_or(std::thread::JoinHandle::is_finished);
            let ended = self.child.try_wait().expect("it is our child");
            if let Some(status) = ended.filter(|_| is_read) {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Poster {
    /// The same sender, to what listens there.
    pub fn to(&self, public: SocketAddr) -> Self {
        Self { public, client: self.client.clone() }
    }

    /// Posts a body signed over `signed`; `None` if there was no answer.
    pub async fn post_signed(&self, body: String, signed: &str) -> Option<(u16, Value)> {
        self.post_to("production", body, signed).await
    }

    /// Like [`post_signed`](Self::post_signed), to another destination with the same shared secret.
    pub async fn post_to(
        &self,
        destination: &str,
        body: String,
        signed: &str,
    ) -> Option<(u16, Value)> {
        self.post_as(SHARED_SECRET, destination, body, signed).await
    }

    /// Like [`post_to`](Self::post_to), signed with another shared secret.
    pub async fn post_as(
        &self,
        secret: &str,
        destination: &str,
        body: String,
        signed: &str,
    ) -> Option<(u16, Value)> {
        let url = format!("http://{}/segment/{destination}", self.public);
        let signature = sign(&Secret::new(secret), signed.as_bytes());
        let answer =
            self.client.post(url).header("x-signature", signature).body(body).send().await.ok()?;
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// Posts one event as Segment's webhooks do.
    pub async fn post(&self, event: &Value) -> Option<(u16, Value)> {
        let body = event.to_string();
        self.post_signed(body.clone(), &body).await
    }

    /// Posts a batch of events as Segment's batching webhooks do: signed over the first.
    pub async fn post_batch(&self, events: &[Value]) -> Option<(u16, Value)> {
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        self.post_signed(format!("[{}]", texts.join(",")), texts.first().map_or("[]", |t| t)).await
    }
}

impl Drop for Cohortd {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

/// The path of a program, for processes that get no `PATH`.
fn found(name: &str) -> PathBuf {
    program(name).unwrap_or_else(|| name.into())
}

/// Sends a signal. The process must not have been waited for, so that its ID cannot have been reused.
pub fn send(signal: Signal, pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the number of a process");
    kill_process(pid, signal).expect("it is our child");
}

/// The loopback addresses that a process listens on, from Linux' list of its sockets.
fn listening(pid: u32) -> Vec<SocketAddr> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open: Vec<String> = open
        .filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.display().to_string()))
        .collect();
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let port = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, .., inode] = words.get(..10)? else { return None };
        let is_its = *state == "0A" && open.contains(&format!("socket:[{inode}]"));
        let port = local.split_once(':').filter(|_| is_its)?.1;
        u16::from_str_radix(port, 16).ok()
    };
    sockets.lines().filter_map(port).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// The name of the one destination.
pub fn production() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

/// An Identify event: `user` enters or leaves `audience` at `at_ms`, in milliseconds since the epoch.
pub fn identify(user: &str, audience: &str, enters: bool, at_ms: i64) -> Value {
    json!({
        "type": "identify",
        "messageId": format!("{user}-{audience}-{at_ms}"),
        "userId": user,
        "timestamp": iso(at_ms),
        "context": {"personas": {
            "computation_class": "audience",
            "computation_id": format!("aud_{audience}"),
            "computation_key": audience,
        }},
        "traits": {audience: enters},
    })
}

/// A time in milliseconds since the epoch, in Segment's format.
pub fn iso(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).expect("a time of our days");
    format!("{at:.3}")
}

//! The real daemon as a process with its usual settings, and what it and the system tell about it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cohortd::membership::DestinationName;
use cohortd::sandbox::Account;
use cohortd::secret::Secret;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use url::Url;

use crate::load;
use crate::workbench::count;

/// To be ready.
const START: Duration = Duration::from_secs(60);
/// Nothing else takes so long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(3600);
/// Between two looks at what the ledger shows.
const LOOK: Duration = Duration::from_millis(20);
/// Whoever writes nothing for so long is at rest; and how long that is waited for.
const QUIET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE_TOKEN: &str = "api-planted-service-token";
const SHARED_SECRET: &str = "planted-shared-secret";

/// What requests are signed with.
pub fn shared_secret() -> Secret {
    Secret::new(SHARED_SECRET)
}

/// The first of the destinations, or the only one.
pub const DESTINATION: &str = "production_0";

/// The name of each of them.
pub fn name(destination: u32) -> String {
    format!("production_{destination}")
}

/// [`DESTINATION`], for the ledger.
pub fn destination() -> DestinationName {
    DestinationName::new(DESTINATION).expect("a name")
}

/// The account that a destination delivers to.
pub fn account(destination: u32) -> Account {
    let client_side_id = client_side_id(destination);
    Account { client_side_id, service_token: Secret::new(SERVICE_TOKEN) }
}

/// What the ledger remembers of where the tellings of [`DESTINATION`] went.
pub fn environment(launchdarkly: &Url) -> String {
    format!("{launchdarkly} {}", client_side_id(0))
}

fn client_side_id(destination: u32) -> String {
    format!("64f0c0ffee{destination}")
}

/// The configuration and the ledger, over all lives of the daemon.
pub struct Installation {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// One life of the daemon.
pub struct Daemon {
    child: Child,
    /// Where Segment posts to.
    pub public: SocketAddr,
    admin: SocketAddr,
    /// From the start of the process to its word that it is ready.
    pub ready_after: Duration,
}

/// Of the process.
pub struct Memory {
    pub resident_mb: f64,
    pub peak_mb: f64,
}

/// What the ledger shows of all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub included: u64,
    pub pending: u64,
}

/// What the system counted of the process since it started.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Threads that were woken after they had waited.
    pub wake_ups: u64,
    /// Hundredths of a second of CPU, as the system counts them.
    pub ticks: u64,
}

impl Installation {
    /// With one destination.
    pub fn new(launchdarkly: &Url) -> Self {
        Self::with_destinations(1, launchdarkly)
    }

    /// Beside the build: a real disk, where the system's temporary directory may be memory.
    pub fn with_destinations(destinations: u32, launchdarkly: &Url) -> Self {
        let directory = Self::directory();
        let ledger = directory.path().join("ledger").display().to_string();
        Self::of(directory, ("PATH", ledger), destinations, launchdarkly)
    }

    /// With one destination, and a ledger in a database.
    #[cfg(has_postgresql)]
    pub fn on_database(url: &str, launchdarkly: &Url) -> Self {
        Self::of(Self::directory(), ("URL", url.to_owned()), 1, launchdarkly)
    }

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        directory.expect("cargo made this directory")
    }

    fn of(
        directory: tempfile::TempDir,
        (key, place): (&str, String),
        destinations: u32,
        launchdarkly: &Url,
    ) -> Self {
        let mut variables = vec![
            ("COHORTD_LISTEN__ADDRESS".to_owned(), "127.0.0.1:0".to_owned()),
            ("COHORTD_ADMIN__ADDRESS".to_owned(), "127.0.0.1:0".to_owned()),
            (format!("COHORTD_LEDGER__{key}"), place),
        ];
        for number in 0..destinations {
            for (key, value) in [
                ("SEGMENT__SHARED_SECRETS", SHARED_SECRET.to_owned()),
                ("LAUNCHDARKLY__CLIENT_SIDE_ID", client_side_id(number)),
                ("LAUNCHDARKLY__SERVICE_TOKEN", SERVICE_TOKEN.to_owned()),
                ("LAUNCHDARKLY__BASE_URL", launchdarkly.to_string()),
            ] {
                let key = format!("COHORTD_DESTINATIONS__PRODUCTION_{number}__{key}");
                variables.push((key, value));
            }
        }
        Self { directory, variables }
    }

    /// With another setting, by the name of its environment variable behind the prefix.
    pub fn with(mut self, key: &str, value: &impl ToString) -> Self {
        self.variables.push((format!("COHORTD_{key}"), value.to_string()));
        self
    }

    /// Where its ledger is.
    pub fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    /// The same with a copy of its ledger, which is on the disk when this returns. No daemon may run.
    pub fn copy(&self, launchdarkly: &Url) -> Self {
        let copy = Self::new(launchdarkly);
        std::fs::create_dir(copy.ledger()).expect("the directory is new");
        for entry in std::fs::read_dir(self.ledger()).expect("it is there") {
            let entry = entry.expect("it can be read");
            let to = copy.ledger().join(entry.file_name());
            std::fs::copy(entry.path(), &to).expect("there is space");
            let written = std::fs::File::open(to).and_then(|file| file.sync_all());
            written.expect("there is space");
        }
        copy
    }

    /// Starts the daemon and returns once it is ready.
    pub fn start(&self) -> Daemon {
        self.start_in(None)
    }

    /// The same in a control group, by the file that takes its processes.
    pub fn start_in(&self, group: Option<&Path>) -> Daemon {
        let daemon = env!("CARGO_BIN_EXE_cohortd");
        let mut command = Command::new("sh");
        if let Some(group) = group {
            let enter = format!("echo $$ > {} && exec {daemon} run", group.display());
            command.args(["-c", &enter]);
        } else {
            command = Command::new(daemon);
            command.arg("run");
        }
        command.env_clear().envs(self.variables.iter().map(|(key, value)| (key, value)));
        command.current_dir(self.directory.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().expect("the daemon can be started");
        let stderr = child.stderr.take().expect("its log is piped");
        let (lines, arrived) = mpsc::channel();
        // reads until the daemon ends, so that it never waits for its log to be taken
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                let _ = lines.send((Instant::now(), line)); // nobody listens once it is ready
            }
        });
        let mut log = Vec::new();
        let (mut public, mut admin) = (None, None);
        let ready = loop {
            let left = START.saturating_sub(began.elapsed());
            let Ok((at, text)) = arrived.recv_timeout(left) else {
                panic!("the daemon did not become ready:\n{}", log.join("\n"));
            };
            let line: Value = cohortd::json::from_str(&text).unwrap_or_default();
            log.push(text);
            let address = || line["address"].as_str()?.parse().ok();
            match (line["message"].as_str(), line["listener"].as_str()) {
                (Some("listening"), Some("public")) => public = address(),
                (Some("listening"), Some("admin")) => admin = address(),
                (Some("ready"), _) => break at,
                _ => {}
            }
        };
        let said = "it said where it listens";
        let (public, admin) = (public.expect(said), admin.expect(said));
        Daemon { child, public, admin, ready_after: ready.duration_since(began) }
    }
}

impl Daemon {
    /// `cohortd reconcile` of an audience with a snapshot: a file of context keys, one a line.
    pub fn reconcile(&self, audience: &str, snapshot: &Path) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cohortd"));
        command.args(["reconcile", DESTINATION, audience, "--yes", "--file"]).arg(snapshot);
        command.args(["--url", &format!("http://{}", self.admin)]);
        command.env_clear().stdout(Stdio::null());
        command.spawn().expect("the command can be started")
    }

    /// `cohortd pause` of its only destination.
    #[cfg(has_postgresql)]
    pub fn pause(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cohortd"));
        command.args(["pause", DESTINATION, "--url", &format!("http://{}", self.admin)]);
        let ended = command.env_clear().stdout(Stdio::null()).status();
        assert!(ended.expect("the command can be started").success(), "it cannot be paused");
    }

    /// What the ledger shows now, over all destinations.
    pub fn counts(&self) -> Counts {
        let path = "/api/v1/destinations";
        let mut stream = TcpStream::connect(self.admin).expect("the daemon listens");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the daemon reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the daemon answers");
        let body = load::whole_body(&answer).expect("a whole answer");
        let destinations: Value = cohortd::json::from_slice(&answer[body..]).expect("JSON");
        let destinations = destinations.as_array().expect("a list of destinations");
        let sum =
            |field: &str| destinations.iter().map(|of| of[field].as_u64().expect("a count")).sum();
        Counts { included: sum("included"), pending: sum("pending") }
    }

    /// Waits until what the ledger shows is as it should be.
    pub fn until(&self, holds: impl Fn(Counts) -> bool) {
        let began = Instant::now();
        loop {
            let counts = self.counts();
            if holds(counts) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "the ledger still shows {counts:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until LaunchDarkly was told everything.
    pub fn until_settled(&self) {
        self.until(|counts| counts.included > 0 && counts.pending == 0);
    }

    /// Waits until it writes nothing any more, but not for long: somebody may be telling it news.
    pub fn until_quiet(&self) {
        let began = Instant::now();
        let (mut written, mut since) = (self.written_bytes(), Instant::now());
        while since.elapsed() < QUIET && began.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
            let now = self.written_bytes();
            if now != written {
                (written, since) = (now, Instant::now());
            }
        }
    }

    /// Now, and at most since the start.
    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let mb = |name| count(field(&status, name) * 1024) / 1e6;
        Memory { resident_mb: mb("VmRSS:"), peak_mb: mb("VmHWM:") }
    }

    /// Handed to the storage layer since the start.
    pub fn written_bytes(&self) -> u64 {
        field(&self.proc("io"), "write_bytes:")
    }

    /// What it has done since the start, over all threads that still run.
    pub fn effort(&self) -> Effort {
        let threads = Path::new("/proc").join(self.child.id().to_string()).join("task");
        let threads = std::fs::read_dir(threads).expect("the daemon runs, and is ours");
        let wake_ups = threads
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok())
            .map(|status| field(&status, "voluntary_ctxt_switches:"))
            .sum();
        let stat = self.proc("stat");
        // utime and stime, the 14th and 15th; the second, its name, is in parentheses
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Effort { wake_ups, ticks }
    }

    fn proc(&self, file: &str) -> String {
        let path = Path::new("/proc").join(self.child.id().to_string()).join(file);
        std::fs::read_to_string(path).expect("the daemon runs, and is ours")
    }

    /// SIGTERM: the end that leaves nothing to do.
    pub fn stop(mut self) {
        let process = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process has an id"), Signal::TERM).expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// SIGKILL: the end that nothing can prepare for.
    pub fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended long ago
        let _ = self.child.wait();
    }
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("the system tells it")
}

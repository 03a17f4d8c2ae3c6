//! The real daemon as a process with its usual settings, and what the system tells about it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cohortd::sandbox::Account;
use cohortd::secret::Secret;
use serde_json::Value;
use url::Url;

const DEADLINE: Duration = Duration::from_secs(60);
const ENVIRONMENT: &str = "64f0c0ffee";
const SERVICE_TOKEN: &str = "api-planted-service-token";
const SHARED_SECRET: &str = "planted-shared-secret";

/// What requests are signed with.
pub fn shared_secret() -> Secret {
    Secret::new(SHARED_SECRET)
}

/// The account that the daemon delivers to.
pub fn account() -> Account {
    let client_side_id = ENVIRONMENT.to_owned();
    Account { client_side_id, service_token: Secret::new(SERVICE_TOKEN) }
}

/// What the ledger remembers of where its tellings went.
pub fn environment(launchdarkly: &Url) -> String {
    format!("{launchdarkly} {ENVIRONMENT}")
}

/// The configuration and the ledger, over all lives of the daemon.
pub struct Installation {
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

/// One life of the daemon.
pub struct Daemon {
    child: Child,
    /// Where Segment posts to.
    pub public: SocketAddr,
    /// From the start of the process to its word that it is ready.
    pub ready_after: Duration,
}

/// Of the process.
pub struct Memory {
    pub resident_mib: f64,
    pub peak_mib: f64,
}

impl Installation {
    /// Beside the build: a real disk, where the system's temporary directory may be memory.
    pub fn new(launchdarkly: &Url) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let directory = directory.expect("cargo made this directory");
        let ledger = directory.path().join("ledger").display().to_string();
        let variables = vec![
            ("COHORTD_LISTEN__ADDRESS", "127.0.0.1:0".to_owned()),
            ("COHORTD_ADMIN__ADDRESS", "127.0.0.1:0".to_owned()),
            ("COHORTD_LEDGER__PATH", ledger),
            ("COHORTD_DESTINATIONS__PRODUCTION__SEGMENT__SHARED_SECRETS", SHARED_SECRET.to_owned()),
            (
                "COHORTD_DESTINATIONS__PRODUCTION__LAUNCHDARKLY__CLIENT_SIDE_ID",
                ENVIRONMENT.to_owned(),
            ),
            (
                "COHORTD_DESTINATIONS__PRODUCTION__LAUNCHDARKLY__SERVICE_TOKEN",
                SERVICE_TOKEN.to_owned(),
            ),
            ("COHORTD_DESTINATIONS__PRODUCTION__LAUNCHDARKLY__BASE_URL", launchdarkly.to_string()),
        ];
        Self { directory, variables }
    }

    /// Where its ledger is.
    pub fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
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
        let mut public = None;
        let ready = loop {
            let left = DEADLINE.saturating_sub(began.elapsed());
            let Ok((at, text)) = arrived.recv_timeout(left) else {
                panic!("the daemon did not become ready:\n{}", log.join("\n"));
            };
            let line: Value = serde_json::from_str(&text).unwrap_or_default();
            log.push(text);
            match (line["message"].as_str(), line["listener"].as_str()) {
                (Some("listening"), Some("public")) => {
                    public = line["address"].as_str().map(str::parse);
                }
                (Some("ready"), _) => break at,
                _ => {}
            }
        };
        let public = public.expect("it said where it listens").expect("an address");
        Daemon { child, public, ready_after: ready.duration_since(began) }
    }
}

impl Daemon {
    /// Now, and at most since the start.
    pub fn memory(&self) -> Memory {
        let status = self.proc("status");
        let mib = |name| kib_of(&status, name) / 1024.0;
        Memory { resident_mib: mib("VmRSS:"), peak_mib: mib("VmHWM:") }
    }

    /// Handed to the storage layer since the start.
    pub fn written_mib(&self) -> f64 {
        let io = self.proc("io");
        let bytes = field(&io, "write_bytes:");
        let kib = u32::try_from(bytes / 1024).expect("less than 4 TiB");
        f64::from(kib) / 1024.0
    }

    fn proc(&self, file: &str) -> String {
        let path = Path::new("/proc").join(self.child.id().to_string()).join(file);
        std::fs::read_to_string(path).expect("the daemon runs, and is ours")
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

fn kib_of(status: &str, name: &str) -> f64 {
    f64::from(u32::try_from(field(status, name)).expect("less than 4 TiB"))
}

fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("the system tells it")
}

//! Replicas behind the load balancer whose configuration is delivered with the daemon. Run with the ledger in a
//! database, see `postgresql`.

use std::fs::read_to_string;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::{interval, timeout};

use crate::fleet::{Fleet, REPLICAS, truth};
use crate::harness::{Cohortd, DEADLINE};
use crate::needs::{HAPROXY, program};
use crate::postgresql;

/// `HAProxy` as it is configured for replicas, except for where it finds them.
struct Haproxy {
    child: Child,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Haproxy {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        fcntl_setfd(&listener, FdFlags::empty()).expect("it can be inherited");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/haproxy/haproxy.cfg");
        let config = read_to_string(config).expect("it is there");
        let (events, operators) = config.split_once("# The dashboard").expect("operators follow");
        assert!(operators.contains("listen operators"));
        let servers: Vec<String> = (0..=REPLICAS)
            .map(|number| format!("    server replica{number} 127.0.0.1:1 disabled"))
            .collect();
        let lines = events.lines().map(|line| {
            if line.trim_start().starts_with("server-template") {
                servers.join("\n")
            } else if line.trim_start().starts_with("bind") {
                format!("    bind fd@{}", listener.as_raw_fd())
            } else {
                line.to_owned()
            }
        });
        let control = directory.path().join("control");
        let control = format!("global\n    stats socket {} level admin", control.display());
        let text: Vec<String> = std::iter::once(control).chain(lines).collect();
        let text = text.join("\n") + "\n";
        std::fs::write(directory.path().join("haproxy.cfg"), text).expect("it is ours");
        let child = Command::new(program("haproxy").expect("it is installed"))
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be started");
        Self { child, directory, address }
    }

    fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn asks(&self, line: &str) -> String {
        let mut control = UnixStream::connect(self.control()).expect("it listens");
        writeln!(control, "{line}").expect("it reads");
        let mut answer = String::new();
        control.read_to_string(&mut answer).expect("it answers");
        answer
    }

    /// Has it find a replica in this place, and waits until it has found it ready.
    async fn finds(&self, place: usize, replica: &Cohortd) {
        let begun = async {
            let mut looks = interval(Duration::from_millis(20));
            while UnixStream::connect(self.control()).is_err() {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, begun).await.expect("it begins in time");
        let server = format!("replicas/replica{place}");
        let (address, port) = (replica.public.ip(), replica.public.port());
        self.asks(&format!("set server {server} addr {address} port {port}"));
        self.asks(&format!("enable server {server}"));
        let is_up = || {
            self.asks("show stat").lines().any(|line| {
                line.starts_with(&format!("replicas,replica{place},")) && line.contains(",UP,")
            })
        };
        let up = async {
            let mut looks = interval(Duration::from_millis(20));
            while !is_up() {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, up).await.expect("it is found ready in time");
    }

    fn forgets(&self, place: usize) {
        self.asks(&format!("disable server replicas/replica{place}"));
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

async fn a_rolling_restart_behind_the_load_balancer_refuses_no_request() {
    let url = postgresql::new_database();
    // Longer than the load balancer takes to notice, as the manual says.
    let settings = [("stop.drain_delay_ms", "3000")];
    let mut fleet = Fleet::start_through(&vec![url.clone(); REPLICAS], &url, &settings, 31).await;
    let haproxy = Haproxy::start();
    for (place, replica) in fleet.replicas.iter().enumerate() {
        haproxy.finds(place, replica).await;
    }
    fleet.show(vec![fleet.replicas[0].poster().to(haproxy.address)]);
    fleet.more(60).await;
    let before = truth(&fleet.truth).refused;
    for restarted in 0..REPLICAS {
        let began = Instant::now();
        let new = fleet.installation.start();
        haproxy.finds((restarted + REPLICAS) % (REPLICAS + 1), &new).await;
        let old = fleet.replicas.remove(0);
        let (status, _) = tokio::task::spawn_blocking(|| old.stop()).await.expect("it ends");
        assert!(status.success());
        haproxy.forgets(restarted % (REPLICAS + 1));
        fleet.replicas.push(new);
        note!("one was replaced after {} ms", began.elapsed().as_millis());
        fleet.more(20).await;
    }
    assert_eq!(truth(&fleet.truth).refused, before, "every request is taken");
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
    drop(haproxy);
}

tests![a_rolling_restart_behind_the_load_balancer_refuses_no_request.workers(4).needs(&HAPROXY),];

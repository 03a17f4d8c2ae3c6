//! The notifications that systemd receives (`Type=notify`, `WatchdogSec=`): ready, alive, stopping.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::harness::{Cohortd, DEADLINE, Installation, launchdarkly};

/// Systemd's end of the socket.
struct Systemd {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Systemd {
    fn listening_at(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("the path is new");
        socket.set_read_timeout(Some(DEADLINE)).expect("it is not zero");
        Self { socket, heard: Vec::new() }
    }

    /// Receives until this many messages begin like this.
    fn hears(&mut self, beginning: &str, times: usize) {
        let count =
            |heard: &[String]| heard.iter().filter(|text| text.starts_with(beginning)).count();
        while count(&self.heard) < times {
            let mut message = [0; 512];
            let length = self.socket.recv(&mut message);
            let length = length.unwrap_or_else(|_| panic!("no {beginning}: {:?}", self.heard));
            self.heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
        }
    }
}

fn started(installation: &Installation, socket: &str, watchdog_us: &str) -> Cohortd {
    let mut command = installation.command();
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", watchdog_us);
    installation.start_as(command)
}

async fn systemd_hears_that_it_is_ready_alive_and_stopping_in_this_order() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let path = installation.directory.path().join("notify");
    let mut systemd = Systemd::listening_at(&path);
    let cohortd = started(&installation, &path.display().to_string(), "100000");
    systemd.hears("READY=1", 1);
    systemd.hears("WATCHDOG=1", 3);
    cohortd.signal(Signal::TERM);
    systemd.hears("STOPPING=1", 1);
    assert!(cohortd.wait().0.success());
    let at = |beginning: &str| systemd.heard.iter().position(|text| text.starts_with(beginning));
    assert_eq!(at("READY=1"), Some(0), "{:?}", systemd.heard);
    assert!(at("READY=1") < at("STOPPING=1"), "{:?}", systemd.heard);
}

async fn whoever_does_not_listen_does_not_keep_it_from_running() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let nobody = installation.directory.path().join("nobody");
    let cohortd = started(&installation, &nobody.display().to_string(), "100000");
    cohortd.logged("NOTIFY_SOCKET cannot be used: the service manager is not notified").await;
    assert!(cohortd.stop().0.success());
}

tests![
    systemd_hears_that_it_is_ready_alive_and_stopping_in_this_order,
    whoever_does_not_listen_does_not_keep_it_from_running,
];

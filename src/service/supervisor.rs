//! Tells a supervisor such as systemd that the daemon is ready, alive or stopping.
//!
//! The protocol of `sd_notify(3)`: one datagram for each message, sent to the socket named by
//! `NOTIFY_SOCKET`. Without that variable nothing is sent (tests/it/supervision.rs).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// The process that started the daemon and supervises it.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// Half of the supervisor's watchdog timeout: the daemon is killed if it is silent for twice as long.
    alive_every: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that the environment names, if any.
    pub fn of_this_process() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let variable = |name| std::env::var(name).ok();
        // The variables may be inherited, and the watchdog meant for another process.
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|text| text.parse().ok());
        let alive_every = micros.map(|micros| Duration::from_micros(micros) / 2);
        match connect(&name) {
            Ok(socket) => Self { socket: Some(socket), alive_every },
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager is not notified");
                Self::default()
            }
        }
    }

    /// Reports that start-up is complete.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=running");
    }

    /// Reports that the process is up but cannot do its work yet. It counts as ready, because otherwise a
    /// start that waits for a person would time out and be restarted.
    pub fn ready_but(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// Reports that shutdown has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    /// Sends keep-alive messages periodically; pends for ever if there is no watchdog. It runs on the async
    /// runtime, so that a runtime that hangs falls silent.
    pub async fn keep_alive(&self) {
        let every = self.alive_every.filter(|every| !every.is_zero());
        let Some(every) = every else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    /// Sends a message. An error is only logged: an unreachable supervisor is no reason to end.
    fn say(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            warn!(%error, "the service manager could not be notified");
        }
    }
}

/// Connects to `name`: a path, or behind an `@` the name of an abstract Linux socket.
fn connect(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)?
        }
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

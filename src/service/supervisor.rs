//! What a supervisor such as systemd is told: that the daemon is ready, lives, and stops.
//!
//! The protocol of `sd_notify(3)`: one datagram a message, to the socket that `NOTIFY_SOCKET` names. With
//! no such variable there is nobody to tell, and nothing happens (tests/it/supervision.rs).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// Whoever started the daemon and watches it.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// It kills a daemon that says nothing for twice as long.
    alive_every: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names, if it does.
    pub fn of_this_process() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let variable = |name| std::env::var(name).ok();
        // The watchdog may be another process's.
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros = variable("WATCHDOG_USEC").filter(|_| ours).and_then(|text| text.parse().ok());
        let alive_every = micros.map(|micros| Duration::from_micros(micros) / 2);
        match connect(&name) {
            Ok(socket) => Self { socket: Some(socket), alive_every },
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET cannot be used: the supervisor is told nothing");
                Self::default()
            }
        }
    }

    /// Start-up is over.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=running");
    }

    /// It is up, and cannot do its work yet: waiting for a person would only have it restarted.
    pub fn ready_but(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    /// Says again and again that the daemon lives; for ever, if nobody wants to know. It is said by a
    /// task, so that a runtime that no longer turns is silent.
    pub async fn keep_alive(&self) {
        let every = self.alive_every.filter(|every| !every.is_zero());
        let Some(every) = every else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    /// A supervisor that does not listen is not worth an ending.
    fn say(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            warn!(%error, "the supervisor could not be told");
        }
    }
}

/// A path, or behind an `@` a name that is in no file system.
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

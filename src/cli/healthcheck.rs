//! `cohortd healthcheck`: asks the daemon of this host whether it is ready, for containers whose
//! images have no HTTP client. Needs no secrets: of the configuration only `listen.address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{Exit, complain, to_the_daemon, unreached};
use crate::config::listen_address;

/// Container platforms call every few seconds; a daemon that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends well if the daemon says that it is ready, else says why not.
pub async fn healthcheck(file: Option<&Path>) -> Exit {
    let address = match listen_address(file) {
        Ok(address) => reachable(address),
        Err(faults) => {
            complain(&faults.to_string());
            return Exit::BadUsage;
        }
    };
    match ask(address).await {
        Ok(()) => Exit::Done,
        Err(why) => {
            complain(&format!("not ready: http://{address}/healthz: {why}"));
            Exit::Unavailable
        }
    }
}

async fn ask(address: SocketAddr) -> Result<(), String> {
    let client = to_the_daemon(PATIENCE).map_err(unreached)?;
    let answer = client.get(format!("http://{address}/healthz")).send().await.map_err(unreached)?;
    if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
}

/// Who listens everywhere is asked at home.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_at_home() {
        let cases = [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ];
        for (listening, asked) in cases {
            let listening = listening.parse().expect("the table has addresses");
            assert_eq!(reachable(listening).to_string(), asked);
        }
    }
}

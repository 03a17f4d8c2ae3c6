//! `cohortd healthcheck`: asks the daemon on this host whether it is ready, for containers whose images
//! have no HTTP client. It needs no secrets: it reads only the listeners from the configuration.
//!
//! It asks the public listener, or the admin listener if only the public one demands client certificates.
//! The listener's certificate is not verified: nothing secret is sent, and an expired certificate must not
//! get a healthy daemon restarted.

use std::path::Path;
use std::time::Duration;

use super::reaching::{Reached, Trust, reach};
use super::{Exit, complain, unreached};
use crate::config::{Listener, listeners};

/// Container platforms probe every few seconds; a daemon that takes longer is unhealthy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Exits with success if the daemon reports that it is ready; otherwise prints why not.
pub async fn healthcheck(file: Option<&Path>) -> Exit {
    let [public, admin] = match listeners(file) {
        Ok(listeners) => listeners,
        Err(faults) => {
            complain(&faults.to_string());
            return Exit::BadUsage;
        }
    };
    let demands =
        |listener: &Listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let asked = if demands(&public) && !demands(&admin) { admin } else { public };
    let not_ready = |at: &str, why: &str| {
        complain(&format!("not ready: {at}healthz: {why}"));
        Exit::Unavailable
    };
    match reach(asked.address, asked.tls.as_ref(), Trust::Address, PATIENCE) {
        Ok(reached) => match ask(&reached).await {
            Ok(()) => Exit::Done,
            Err(why) => not_ready(reached.url.as_str(), &why),
        },
        Err(why) => not_ready(&format!("{}/", asked.address), &why),
    }
}

async fn ask(Reached { client, url }: &Reached) -> Result<(), String> {
    let answer = client.get(format!("{url}healthz")).send().await.map_err(unreached)?;
    if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
}

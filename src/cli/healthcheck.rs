//! `cohortd healthcheck`: asks the daemon of this host whether it is ready, for containers whose
//! images have no HTTP client. Needs no secrets: of the configuration only where the listeners are.
//!
//! The public listener is asked; if that demands client certificates, the admin listener. Whose
//! certificate is shown does not matter: nothing secret is sent, and a certificate that waits to be
//! mended must not end a daemon that is well.

use std::path::Path;
use std::time::Duration;

use super::reaching::{Reached, Trust, reach};
use super::{Exit, complain, unreached};
use crate::config::{Listener, listeners};

/// Container platforms call every few seconds; a daemon that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends well if the daemon says that it is ready, else says why not.
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

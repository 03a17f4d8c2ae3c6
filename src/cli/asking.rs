//! Flags common to the operators' commands: which daemon to ask, and the format of the answer.
//!
//! These commands read only `[admin]` of the configuration, so that they work while the rest of it is
//! broken, and for people who may not read the daemon's secrets. With `--url` they work from anywhere.

use std::path::Path;

use clap::Args;
use url::Url;

use super::complain;
use super::daemon::{Daemon, Silent};
use crate::config::Access;

const VARIABLE: &str = "COHORTD_ADMIN_URL";
const URL_HELP: &str = "Ask the admin listener at this URL [env: COHORTD_ADMIN_URL] \
                        [default: admin.address of the configuration]";

/// Who is asked.
#[derive(Args, Clone, Debug)]
pub struct Asking {
    // Read in `url`, so that an empty environment variable counts as unset. Not parsed by clap, whose error
    // message would quote a password in it.
    #[arg(long, value_name = "URL", help = URL_HELP)]
    url: Option<String>,
    /// Print the daemon's answer as JSON, for programs
    #[arg(long)]
    pub json: bool,
}

impl Asking {
    /// The daemon to ask.
    pub(super) fn daemon(&self, file: Option<&Path>) -> Result<Daemon, Silent> {
        let url = self.url()?;
        let access = Access::read(file);
        match &access.unknown {
            // Where it is asked is known, and what it is shown may be.
            Some(faults) if url.is_some() => complain(&faults.to_string()),
            Some(faults) => return Err(Silent::usage(faults.to_string())),
            None => {}
        }
        access.unread.iter().for_each(|faults| complain(&faults.to_string()));
        if let (None, Some(guessed), Ok(address)) = (&url, access.guessed, &access.address) {
            complain(&format!("{guessed}: asking {address}"));
        }
        Daemon::of(&access, url)
    }

    fn url(&self) -> Result<Option<Url>, Silent> {
        if let Some(text) = &self.url {
            return parse(text)
                .map(Some)
                .map_err(|problem| Silent::usage(format!("--url {problem}")));
        }
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => parse(&text)
                .map(Some)
                .map_err(|problem| Silent::usage(format!("{VARIABLE} {problem}"))),
            _ => Ok(None),
        }
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let expected = "expected the URL of the admin listener, as in http://127.0.0.1:8081";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {expected}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("is not an http or https URL; {expected}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains a user name or password, and the daemon accepts neither".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_an_admin_listener_is_told_with_what_would_be() {
        for good in ["http://127.0.0.1:8081", "https://ops.example.com/cohortd/"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:8081", "localhost:8081", "ftp://x", "", "http://u:p@x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

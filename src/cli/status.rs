//! `cohortd status`: asks the running daemon how each destination stands.
//!
//! Ends with 0 if all is well, 69 if the daemon cannot be reached or accepts nothing, and 75 if a
//! destination is held or behind.

use std::io::{Result, Write};
use std::time::Duration;

use clap::Args;
use http::StatusCode;

use super::healthcheck::reachable;
use super::{Exit, complain, instant, to_the_daemon, unreached};
use crate::config::Config;
use crate::operate::status::{DestinationState, DestinationStatus, Status};

/// The daemon is on this host, as a rule.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Args, Clone, Debug)]
pub struct StatusCommand {
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
    /// A destination is behind if a member has waited for more than so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    behind_s: u64,
}

/// Why there is no status.
enum Silent {
    /// It answered, and wants another token.
    Refused,
    Unreached(String),
}

impl StatusCommand {
    /// Prints how each destination stands.
    pub async fn status(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let url = format!("http://{}/status", reachable(config.admin.address));
        let text = match ask(&url, config).await {
            Ok(text) => text,
            Err(Silent::Refused) => {
                complain(&format!("cohortd status: {url} wants another one of admin.tokens"));
                return Ok(Exit::BadUsage);
            }
            Err(Silent::Unreached(why)) => {
                complain(&format!("cohortd status: {url}: {why}; is the daemon running?"));
                return Ok(Exit::Unavailable);
            }
        };
        let Ok(status) = serde_json::from_str::<Status>(&text) else {
            complain(&format!("cohortd status: {url} does not answer as cohortd does"));
            return Ok(Exit::Unavailable);
        };
        if self.json {
            writeln!(out, "{}", text.trim_end())?;
        } else {
            self.print(&status, out)?;
        }
        let needs_somebody = |of: &DestinationStatus| of.held.is_some() || self.is_behind(of);
        Ok(if !status.ready {
            Exit::Unavailable
        } else if status.destinations.values().any(needs_somebody) {
            Exit::Behind
        } else {
            Exit::Done
        })
    }

    fn is_behind(&self, of: &DestinationStatus) -> bool {
        of.oldest_waiting_ms > self.behind_s.saturating_mul(1000)
    }

    fn print(&self, status: &Status, out: &mut impl Write) -> Result<()> {
        if !status.ready {
            writeln!(out, "NOT READY: no events are accepted; the log says why\n")?;
        }
        let names = status.destinations.keys().map(String::len).max().unwrap_or(0).max(11);
        writeln!(
            out,
            "{:<names$}  {:<7}  {:>9}  {:>10}",
            "destination", "state", "waiting", "longest"
        )?;
        for (name, of) in &status.destinations {
            let state = match of.state {
                DestinationState::Held => "held",
                DestinationState::Ok if self.is_behind(of) => "behind",
                DestinationState::Ok => "ok",
            };
            let longest = if of.waiting == 0 {
                "-".to_owned()
            } else {
                format!("{:.1} s", Duration::from_millis(of.oldest_waiting_ms).as_secs_f64())
            };
            writeln!(out, "{name:<names$}  {state:<7}  {:>9}  {longest:>10}", of.waiting)?;
        }
        for (name, of) in &status.destinations {
            if let Some(held) = &of.held {
                let (since, why) = (instant(held.since), &held.why);
                write!(out, "\n{name} is held since {since}, status {}: {why}", held.status)?;
                if held.answer_id.is_empty() {
                    writeln!(out)?;
                } else {
                    writeln!(out, " (LaunchDarkly's id {})", held.answer_id)?;
                }
            }
        }
        Ok(())
    }
}

async fn ask(url: &str, config: &Config) -> std::result::Result<String, Silent> {
    let silent = |error| Silent::Unreached(unreached(error));
    let client = to_the_daemon(PATIENCE).map_err(silent)?;
    let mut question = client.get(url);
    if let Some(token) = config.admin.tokens.first() {
        question = question.bearer_auth(token.expose());
    }
    let answer = question.send().await.map_err(silent)?;
    match answer.status() {
        StatusCode::OK => answer.text().await.map_err(silent),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Silent::Refused),
        status => Err(Silent::Unreached(format!("it answered {status}"))),
    }
}

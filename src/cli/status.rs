//! `cohortd status`: asks the running daemon how each destination stands.
//!
//! Ends with 0 if all is well, 69 if the daemon cannot be reached or accepts nothing, and 75 if a
//! destination is held or behind.

use std::io::{Result, Write};
use std::time::Duration;

use clap::Args;

use super::daemon::{Answer, Daemon};
use super::{Exit, instant};
use crate::config::Config;
use crate::operate::api::wire::Nothing;
use crate::operate::status::{DestinationState, DestinationStatus, Status};

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

impl StatusCommand {
    /// Prints how each destination stands.
    pub async fn status(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let asked = async { Daemon::of(config)?.get(&["status"], &Nothing {}).await };
        let Answer { text, value: status } = match asked.await {
            Ok(answer) => answer,
            Err(silent) => return Ok(silent.complain("status")),
        };
        let status: Status = status;
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
                DestinationState::Paused => "paused",
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
            if let Some(since) = of.paused_since {
                let since = instant(since);
                writeln!(
                    out,
                    "\n{name} is paused since {since}: cohortd resume {name} lets it go on"
                )?;
            }
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

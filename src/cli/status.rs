//! `cohortd status`: asks the running daemon how each destination stands.
//!
//! Ends with 0 if all is well, 69 if the daemon cannot be reached or accepts nothing, and 75 if a
//! destination is held or behind, or the clock of the ledger is ahead.

use std::io::{Result, Write};
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::daemon::{Answer, Daemon};
use super::table::table;
use crate::config::Config;
use crate::operate::api::wire::Nothing;
use crate::operate::status::{
    ClockStatus, DestinationState, DestinationStatus, HeldStatus, LastError, Status,
};

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
        } else if status.clock.is_some() || status.destinations.values().any(needs_somebody) {
            Exit::Behind
        } else {
            Exit::Done
        })
    }

    /// Whatever the reason: a paused destination that is forgotten is behind too.
    fn is_behind(&self, of: &DestinationStatus) -> bool {
        of.oldest_pending_ms > self.behind_s.saturating_mul(1000)
    }

    fn print(&self, status: &Status, out: &mut impl Write) -> Result<()> {
        if !status.ready {
            let why = status.objection.as_deref().unwrap_or("the log says why");
            writeln!(out, "NOT READY: {why}; Segment retries for hours what is not accepted\n")?;
        }
        let rows: Vec<[String; 8]> =
            status.destinations.iter().map(|(name, of)| self.row(name, of)).collect();
        let heading = [
            "destination",
            "state",
            "since",
            "#pending",
            "#longest",
            "#parked",
            "last delivered",
            "last event",
        ];
        table(out, heading, &rows)?;
        if let Some(ClockStatus { ahead_ms, why }) = &status.clock {
            writeln!(out, "\nTHE CLOCK IS WRONG, by {} s: {why}", ahead_ms / 1000)?;
        }
        if status.log_lines_dropped > 0 {
            let lines = status.log_lines_dropped;
            writeln!(
                out,
                "\n{lines} log lines could not be written: nobody reads the log, or its disk is full"
            )?;
        }
        for (name, of) in &status.destinations {
            say(name, of, out)?;
        }
        Ok(())
    }

    fn row(&self, name: &str, of: &DestinationStatus) -> [String; 8] {
        let state = match of.state {
            DestinationState::Ok | DestinationState::CatchingUp if self.is_behind(of) => "behind",
            DestinationState::CatchingUp => "catching up",
            state => state.word(),
        };
        let longest = Duration::from_millis(of.oldest_pending_ms).as_secs_f64();
        let or_dash = |time: &Option<String>| match time.as_deref() {
            // whole seconds are enough for people
            Some(time) => time.split_once('.').map_or(time, |(whole, _)| whole).replace('T', " "),
            None => "-".to_owned(),
        };
        [
            name.to_owned(),
            state.to_owned(),
            or_dash(&of.since),
            of.pending.to_string(),
            if of.pending == 0 { "-".to_owned() } else { format!("{longest:.1} s") },
            of.parked.to_string(),
            or_dash(&of.last_success_at),
            or_dash(&of.last_event_at),
        ]
    }
}

/// What there is to explain about a destination, with the remedy.
fn say(name: &str, of: &DestinationStatus, out: &mut impl Write) -> Result<()> {
    let support = |id: &str| {
        if id.is_empty() { String::new() } else { format!(" (LaunchDarkly's id {id})") }
    };
    if let Some(since) = &of.paused_since {
        writeln!(out, "\n{name} is paused since {since}: cohortd resume {name} lets it go on")?;
    }
    if let Some(HeldStatus { since, status, why, answer_id }) = &of.held {
        let id = support(answer_id);
        writeln!(out, "\n{name} is held since {since}, status {status}: {why}{id}")?;
    }
    let is_troubled = of.held.is_none() && of.state != DestinationState::Ok;
    if let Some(LastError { at, what, status, cause, answer_id }) =
        of.last_error.as_ref().filter(|_| is_troubled)
    {
        let status = status.map(|status| format!(", status {status}")).unwrap_or_default();
        let cause = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        let id = support(answer_id);
        writeln!(out, "\n{name}: the last call that failed ended {at}, {what}{status}{cause}{id}")?;
    }
    if of.parked > 0 {
        writeln!(
            out,
            "\n{name}: cohortd parked list {name} shows whom LaunchDarkly refuses, and why"
        )?;
    }
    if of.deletions_outlived > 0 {
        writeln!(
            out,
            "\n{name}: deletions left {} entries in place that were stamped ahead of their arrival; \
             cohortd forget {name} USER_ID removes a person all the same",
            of.deletions_outlived
        )?;
    }
    Ok(())
}

//! `cohortd status`: prints the state of each destination of the running daemon.
//!
//! Exits with 0 if nothing is urgent, 69 if the daemon cannot be reached or is not ready, and 75 if a
//! destination is held or behind, or the clock of the ledger is ahead.

use std::io::{IsTerminal, Result, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::asking::Asking;
use super::daemon::{Answer, Daemon, Silent};
use super::table::table;
use super::{Exit, instant};
use crate::clock::{Clock, SystemClock};
use crate::operate::api::wire::Nothing;
use crate::operate::configuration::ConfigurationStatus;
use crate::operate::entries::Entry;
use crate::operate::status::{
    ClockStatus, DestinationStatus, LastError, ReplicaStatus, Status, Unconfigured,
};
use crate::operate::verdict::{Concern, ConcernKind, DestinationState};

/// Moves to the top left and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Most names of ignored events that are printed.
const IGNORED_NAMED: usize = 5;

/// What is asked.
#[derive(Args, Clone, Debug)]
pub struct StatusCommand {
    /// Print it again every two seconds, or this many, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    #[command(flatten)]
    asking: Asking,
    /// Also exit with 75 if a member has waited for more than this many seconds, whatever the state
    #[arg(long, value_name = "SECONDS")]
    behind_s: Option<u64>,
}

impl StatusCommand {
    /// Prints the state of each destination.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let daemon = match self.asking.daemon(file) {
            Ok(daemon) => daemon,
            Err(silent) => return Ok(silent.complain("status")),
        };
        let Some(seconds) = self.watch else {
            return match ask(&daemon).await {
                Ok(answer) => self.say(&answer, out),
                Err(silent) => Ok(silent.complain("status")),
            };
        };
        let watching = async {
            loop {
                // Errors do not end the loop: a daemon may be restarting.
                let answer = ask(&daemon).await;
                self.head(out)?;
                match answer {
                    Ok(answer) => drop(self.say(&answer, out)?),
                    Err(silent) => drop(silent.complain("status")),
                }
                out.flush()?;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        };
        tokio::select! {
            ended = watching => ended,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }

    /// Prints the time above each status; on a terminal it first clears the previous one.
    fn head(&self, out: &mut impl Write) -> Result<()> {
        if self.asking.json {
            return Ok(());
        }
        let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
        writeln!(out, "{clear}\n{}", or_dash(Some(&instant(SystemClock.now()))))
    }

    fn say(
        &self,
        Answer { text, value: status }: &Answer<Status>,
        out: &mut impl Write,
    ) -> Result<Exit> {
        if self.asking.json {
            writeln!(out, "{}", text.trim_end())?;
        } else {
            self.print(status, out)?;
        }
        let is_urgent = |of: &DestinationStatus| of.state.is_trouble() || self.is_behind(of);
        Ok(if !status.ready {
            Exit::Unavailable
        } else if status.clock.is_some() || status.destinations.values().any(is_urgent) {
            Exit::Behind
        } else {
            Exit::Done
        })
    }

    fn is_behind(&self, of: &DestinationStatus) -> bool {
        let allowed = self.behind_s.map(|seconds| seconds.saturating_mul(1000));
        allowed.is_some_and(|allowed| of.oldest_pending_ms > allowed)
    }

    fn print(&self, status: &Status, out: &mut impl Write) -> Result<()> {
        if !status.ready {
            let why = status.objection.as_deref().unwrap_or("the log says why");
            writeln!(out, "NOT READY: {why}; Segment retries for hours what is not accepted\n")?;
        }
        let rows: Vec<[String; 10]> =
            status.destinations.iter().map(|(name, of)| self.row(name, of)).collect();
        let heading = [
            "destination",
            "state",
            "since",
            "#pending",
            "#longest",
            "#parked",
            "#rejected",
            "#refused",
            "last delivered",
            "last event",
        ];
        table(out, heading, &rows)?;
        if !status.replicas.is_empty() {
            print_replicas(status, out)?;
        }
        if let Some(ClockStatus { ahead_ms, why }) = &status.clock {
            writeln!(out, "\nTHE CLOCK IS WRONG, by {} s: {why}", ahead_ms / 1000)?;
        }
        if let Some(refused) = &status.configuration {
            say_refused(refused, out)?;
        }
        if status.log_lines_dropped > 0 {
            let lines = status.log_lines_dropped;
            writeln!(
                out,
                "\n{lines} log lines could not be written: nobody reads the log, or its disk is full"
            )?;
        }
        for Unconfigured { name, included, pending, remedy } in &status.unconfigured {
            writeln!(
                out,
                "\n{name} IS NOT CONFIGURED any more: {included} of its members are kept, and \
                 {pending} wait for delivery\n  what to do: {remedy}"
            )?;
        }
        status.destinations.iter().try_for_each(|(name, of)| say(name, of, out))
    }

    fn row(&self, name: &str, of: &DestinationStatus) -> [String; 10] {
        let is_behind = self.is_behind(of) && of.state != DestinationState::Paused;
        let state =
            if is_behind && !of.state.is_trouble() { DestinationState::Behind } else { of.state };
        let longest = Duration::from_millis(of.oldest_pending_ms).as_secs_f64();
        let refused: u64 = of.refused.iter().map(|of| of.count).sum();
        [
            name.to_owned(),
            state.word().to_owned(),
            or_dash(of.since.as_deref()),
            of.pending.to_string(),
            if of.pending == 0 { "-".to_owned() } else { format!("{longest:.1} s") },
            of.parked.to_string(),
            of.rejected.to_string(),
            refused.to_string(),
            or_dash(of.last_success_at.as_deref()),
            or_dash(of.last_event_at.as_deref()),
        ]
    }
}

/// Who shares the ledger, and what is wrong with them as a whole.
fn print_replicas(status: &Status, out: &mut impl Write) -> Result<()> {
    let row = |of: &ReplicaStatus| {
        let delivers = if of.delivers.is_empty() { "-".to_owned() } else { of.delivers.join(", ") };
        let this = if of.answers { " (answers)" } else { "" };
        [
            format!("{}{this}", of.name),
            of.version.clone(),
            of.configuration.clone(),
            or_dash(Some(&of.started_at)),
            format!("{:.1} s ago", Duration::from_millis(of.silent_ms).as_secs_f64()),
            delivers,
        ]
    };
    let rows: Vec<[String; 6]> = status.replicas.iter().map(row).collect();
    writeln!(out)?;
    table(out, ["replica", "version", "configuration", "since", "heard of", "delivers"], &rows)?;
    status
        .replicas_differ
        .iter()
        .try_for_each(|what| writeln!(out, "\nTHE REPLICAS NEED ATTENTION: {what}"))
}

async fn ask(daemon: &Daemon) -> std::result::Result<Answer<Status>, Silent> {
    daemon.get(&["status"], &Nothing {}).await
}

/// A time rounded down to whole seconds, or a dash if there is none.
fn or_dash(time: Option<&str>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    time.split_once('.').map_or(time, |(whole, _)| whole).replace('T', " ")
}

/// Reports that the configuration on disk was rejected and is not the one in effect.
fn say_refused(refused: &ConfigurationStatus, out: &mut impl Write) -> Result<()> {
    let ConfigurationStatus { refused_since, file, faults } = refused;
    let file = file.as_deref().unwrap_or("from the environment");
    let since = or_dash(Some(refused_since));
    writeln!(
        out,
        "\nTHE CONFIGURATION ON DISK IS REFUSED since {since}, and the previous one stays in \
         effect ({file}):"
    )?;
    faults.iter().try_for_each(|fault| writeln!(out, "  {fault}"))?;
    writeln!(
        out,
        "  cohortd check shows the same faults; the file is read again once it has changed"
    )
}

/// Explains the concerns of a destination, with their remedies.
fn say(name: &str, of: &DestinationStatus, out: &mut impl Write) -> Result<()> {
    // concerns of the ledger are printed once, for all destinations
    let is_of_ledger = |kind| matches!(kind, ConcernKind::NoSpace | ConcernKind::ClockAhead);
    for Concern { since, why, remedy, .. } in of.concerns.iter().filter(|of| !is_of_ledger(of.kind))
    {
        let since = since.as_deref();
        let since =
            since.map(|since| format!(" since {}", or_dash(Some(since)))).unwrap_or_default();
        writeln!(out, "\n{name}{since}: {why}\n  what to do: {remedy}")?;
    }
    if of.concerns.iter().any(|of| of.kind == ConcernKind::OnlyIgnored) {
        let named = of.ignored_events.iter().take(IGNORED_NAMED);
        let named: Vec<_> = named.map(|of| format!("{} ({})", of.name, of.count)).collect();
        writeln!(out, "  ignored so far: {}", named.join(", "))?;
    }
    if !of.setup.is_empty() {
        writeln!(out, "\n{name} waits for its first event. Enter in Segment:")?;
        for entry in &of.setup {
            writeln!(out, "  https://YOUR-PUBLIC-ADDRESS{}, {}", entry.path, in_words(entry))?;
        }
    }
    let is_told = of
        .concerns
        .iter()
        .any(|of| matches!(of.kind, ConcernKind::Held | ConcernKind::AudienceFailing));
    let is_well = matches!(of.state, DestinationState::Ok | DestinationState::Waiting);
    if let Some(LastError { at, what, status, cause, message, answer_id }) =
        of.last_error.as_ref().filter(|_| !is_told && (!is_well || of.pending > 0))
    {
        let status = status.map(|status| format!(", status {status}")).unwrap_or_default();
        let words = [cause, message]
            .map(|words| if words.is_empty() { String::new() } else { format!(": {words}") });
        let id = if answer_id.is_empty() {
            String::new()
        } else {
            format!(" (LaunchDarkly's id {answer_id})")
        };
        let [cause, message] = words;
        writeln!(
            out,
            "\n{name}: the last failed call ended {}, {what}{status}{cause}{message}{id}",
            or_dash(Some(at))
        )?;
    }
    if of.entries_expired > 0 {
        writeln!(
            out,
            "\n{name}: {} members left since the start because their entries have expired",
            of.entries_expired
        )?;
    }
    if of.deletions_outlived > 0 {
        writeln!(
            out,
            "\n{name}: deletions did not undo {} entries whose event time is ahead of their \
             arrival; cohortd forget {name} USER_ID removes a person all the same",
            of.deletions_outlived
        )?;
    }
    Ok(())
}

/// The credentials that a request to an entry must carry.
fn in_words(entry: &Entry) -> String {
    match (&entry.credentials[..], entry.demands_all) {
        ([], _) => "which requires no credential".to_owned(),
        (all, true) => format!("which requires {}", all.join(" and ")),
        (any, false) => format!("which requires {}", any.join(", or ")),
    }
}

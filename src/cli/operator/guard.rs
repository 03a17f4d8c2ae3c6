//! `cohortd guard`: audiences of which too many members changed at once.

use std::io::{Result, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::lists::all_held;
use super::{Told, destination_and_audience, ends, json, json_of, many, of, print_dry_run};
use crate::cli::Exit;
use crate::cli::asking::Asking;
use crate::cli::consent::Consent;
use crate::cli::daemon::{Answer, Daemon};
use crate::cli::table::table;
use crate::operate::api::wire::{Done, GuardInfo, Held};

/// What to do with held audiences.
#[derive(Args, Clone, Debug)]
pub struct GuardCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Print them: how many members changed, since when, and what is usual
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Tell LaunchDarkly what has happened
    Release {
        #[command(flatten)]
        which: Which,
    },
    /// Enter those who left again; LaunchDarkly is told nothing else
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// The destination; not needed if there is only one
    #[arg(value_name = "DESTINATION")]
    first: Option<String>,
    /// Only this audience, by its id; all that are held without it
    #[arg(value_name = "AUDIENCE")]
    second: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Which {
    /// The destination, the audience, and what is held of them.
    async fn held(&self, daemon: &Daemon) -> Told<(String, Option<String>, Vec<GuardInfo>)> {
        let (first, second) = (self.first.as_ref(), self.second.as_ref());
        let (name, audience) = destination_and_audience(daemon, first, second).await?;
        let mut held = all_held(daemon, &name).await?;
        held.retain(|of| audience.as_ref().is_none_or(|audience| *audience == of.audience));
        Ok((name, audience, held))
    }
}

impl GuardCommand {
    /// Runs the subcommand.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let (name, told) = match &self.what {
            What::List { which } => ("guard list", list(which, file, out).await),
            What::Release { which } => ("guard release", release(which, file, out).await),
            What::Discard { which, consent } => {
                ("guard discard", discard(which, *consent, file, out).await)
            }
        };
        ends(name, told)
    }
}

async fn list(which: &Which, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
    let daemon = which.asking.daemon(file)?;
    let (name, _, held) = which.held(&daemon).await?;
    Ok(if which.asking.json {
        json_of(&held, out)
    } else if held.is_empty() {
        writeln!(out, "{name}: the guard holds no audience")
    } else {
        let rows: Vec<_> = held.into_iter().map(row).collect();
        let heading = [
            "audience",
            "id",
            "held since",
            "#members",
            "#left",
            "#entered",
            "in the time from",
            "#usually left",
            "under way",
        ];
        table(out, heading, &rows)
    })
}

fn row(info: GuardInfo) -> [String; 9] {
    [
        info.audience_key,
        info.audience,
        info.since,
        info.members.to_string(),
        info.left.to_string(),
        info.entered.to_string(),
        info.window_since,
        info.usual.to_string(),
        if info.discarding { "discard" } else { "-" }.to_owned(),
    ]
}

async fn release(which: &Which, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
    let daemon = which.asking.daemon(file)?;
    let (name, audience, _) = which.held(&daemon).await?;
    let words = "released: LaunchDarkly is told what has happened";
    change(&daemon, which, "release", (&name, audience), words, out).await
}

async fn discard(
    which: &Which,
    consent: Consent,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let daemon = which.asking.daemon(file)?;
    let (name, audience, held) = which.held(&daemon).await?;
    if consent.dry_run || consent.is_asked_for() {
        let left = held.iter().map(|of| of.left).sum();
        let words = format!(
            "{name}: {} left {} and would be entered again",
            many(left, "member"),
            many(held.len() as u64, "held audience")
        );
        if consent.dry_run {
            return Ok(print_dry_run(held.len() as u64, &words, which.asking.json, out));
        }
        consent.ask(&words)?;
    }
    let words = "discarded: those who left are entered again";
    change(&daemon, which, "discard", (&name, audience), words, out).await
}

async fn change(
    daemon: &Daemon,
    which: &Which,
    verb: &str,
    (name, audience): (&str, Option<String>),
    words: &str,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let answer: Answer<Done> = daemon.post(&of(name, &["guard", verb]), &Held { audience }).await?;
    Ok(if which.asking.json {
        json(&answer, out)
    } else if answer.value.count == 0 {
        writeln!(out, "{name}: nothing is held there, and nothing was done")
    } else {
        writeln!(out, "{name}: {} held audience(s) {words}", answer.value.count)
    })
}

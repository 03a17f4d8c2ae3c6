//! `cohortd parked`: members that LaunchDarkly refused.

use std::io::{Result, Write};

use clap::{Args, Subcommand};

use super::{Told, ends, json, named, of};
use crate::cli::Exit;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::table::table;
use crate::config::Config;
use crate::operate::api::wire::{Done, ParkedChange, ParkedInfo, ParkedPage, ParkedQuery};

/// What to do with parked members.
#[derive(Args, Clone)]
pub struct ParkedCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone)]
enum What {
    /// Print them with LaunchDarkly's words and the id its support asks for
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Try them again, each alone
    Requeue {
        #[command(flatten)]
        which: Which,
    },
    /// Give them up: forget them until Segment sends another change
    Discard {
        #[command(flatten)]
        which: Which,
        /// Needed if neither an audience nor a key is given
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args, Clone)]
struct Which {
    /// Of this destination; not needed if there is only one
    destination: Option<String>,
    /// Of this audience, by its id
    #[arg(long, value_name = "ID")]
    audience: Option<String>,
    /// This one of the audience
    #[arg(long, value_name = "CONTEXT_KEY", requires = "audience")]
    key: Option<String>,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl ParkedCommand {
    /// Does it.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let (name, told) = match &self.what {
            What::List { which } => ("parked list", list(which, config, out).await),
            What::Requeue { which } => {
                let words = "are tried again, each alone";
                ("parked requeue", change(which, "requeue", words, config, out).await)
            }
            What::Discard { which, all } => {
                let told = if *all || which.audience.is_some() {
                    change(which, "discard", "are forgotten", config, out).await
                } else {
                    let usage = "say which: --audience ID [--key CONTEXT_KEY], or --all";
                    Err(Silent::usage(usage))
                };
                ("parked discard", told)
            }
        };
        ends(name, told)
    }
}

async fn list(which: &Which, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
    let name = named(config, which.destination.as_ref())?;
    let daemon = Daemon::of(&config.admin)?;
    let mut query = ParkedQuery { audience: which.audience.clone(), ..ParkedQuery::default() };
    query.limit = Some(1000);
    let mut rows = Vec::new();
    loop {
        let answer: Answer<ParkedPage> = daemon.get(&of(&name, &["parked"]), &query).await?;
        let page = answer.value;
        if let Some(last) = page.parked.last() {
            query.after_audience = Some(last.audience.clone());
            query.after_key = Some(last.context_key.clone());
        }
        let wanted =
            |info: &ParkedInfo| which.key.as_ref().is_none_or(|key| *key == info.context_key);
        for info in page.parked.into_iter().filter(wanted) {
            if which.json {
                if let Err(error) = line(&info, out) {
                    return Ok(Err(error));
                }
            } else {
                rows.push(row(info));
            }
        }
        if !page.more {
            break;
        }
    }
    Ok(if which.json {
        Ok(())
    } else if rows.is_empty() {
        writeln!(out, "{name}: LaunchDarkly has refused nobody")
    } else {
        let heading =
            ["audience", "context key", "refused at", "#status", "code", "message", "answer id"];
        table(out, heading, &rows)
    })
}

/// One line of JSON each: a list may be long.
fn line(info: &ParkedInfo, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, info)?;
    writeln!(out)
}

fn row(info: ParkedInfo) -> [String; 7] {
    let ParkedInfo { audience, context_key, parked_at, status, code, message, answer_id } = info;
    [audience, context_key, parked_at, status.to_string(), code, message, answer_id]
}

async fn change(
    which: &Which,
    verb: &str,
    words: &str,
    config: &Config,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let name = named(config, which.destination.as_ref())?;
    let what = ParkedChange { audience: which.audience.clone(), context_key: which.key.clone() };
    let daemon = Daemon::of(&config.admin)?;
    let answer: Answer<Done> = daemon.post(&of(&name, &["parked", verb]), &what).await?;
    Ok(if which.json {
        json(&answer, out)
    } else {
        writeln!(out, "{name}: {} parked member(s) {words}", answer.value.count)
    })
}

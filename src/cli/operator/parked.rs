//! `cohortd parked`: members that LaunchDarkly refused.

use std::io::{Result, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::{Told, destination_and_audience, ends, json, many, named, of, print_dry_run};
use crate::cli::Exit;
use crate::cli::asking::Asking;
use crate::cli::consent::Consent;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::table::table;
use crate::operate::api::wire::{Done, ParkedChange, ParkedInfo, ParkedPage, ParkedQuery};

/// What to do with parked members.
#[derive(Args, Clone)]
pub struct ParkedCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone)]
enum What {
    /// Print them with LaunchDarkly's messages and the ids that its support asks for
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
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args, Clone)]
struct Which {
    /// The destination; not needed if there is only one
    #[arg(value_name = "DESTINATION")]
    first: Option<String>,
    /// Only members of this audience, by its id
    #[arg(value_name = "AUDIENCE", conflicts_with = "audience")]
    second: Option<String>,
    /// The same, as an option
    #[arg(long, value_name = "ID")]
    audience: Option<String>,
    /// Only this member of the audience, by its context key
    #[arg(long, value_name = "CONTEXT_KEY")]
    key: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl Which {
    async fn named(&self, daemon: &Daemon) -> Told<(String, Option<String>)> {
        let first = self.first.as_ref();
        let which = if let Some(audience) = &self.audience {
            (named(daemon, first).await?, Some(audience.clone()))
        } else {
            destination_and_audience(daemon, first, self.second.as_ref()).await?
        };
        if self.key.is_some() && which.1.is_none() {
            return Err(Silent::usage("--key needs its audience: --audience ID"));
        }
        Ok(which)
    }
}

impl ParkedCommand {
    /// Runs the subcommand.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let (name, told) = match &self.what {
            What::List { which } => ("parked list", list(which, file, out).await),
            What::Requeue { which } => {
                let words = "are tried again, each alone";
                ("parked requeue", requeue(which, words, file, out).await)
            }
            What::Discard { which, all, consent } => {
                ("parked discard", discard(which, *all, *consent, file, out).await)
            }
        };
        ends(name, told)
    }
}

async fn list(which: &Which, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
    let daemon = which.asking.daemon(file)?;
    let (name, audience) = which.named(&daemon).await?;
    let (mut rows, mut printed) = (Vec::new(), Ok(()));
    each(&daemon, &name, audience, which.key.as_ref(), |info| {
        if which.asking.json {
            printed = line(&info, out);
        } else {
            rows.push(row(info));
        }
        printed.is_ok()
    })
    .await?;
    if printed.is_err() {
        return Ok(printed);
    }
    Ok(if which.asking.json {
        Ok(())
    } else if rows.is_empty() {
        writeln!(out, "{name}: LaunchDarkly has refused no member")
    } else {
        let heading =
            ["audience", "context key", "refused at", "#status", "code", "message", "answer id"];
        table(out, heading, &rows)
    })
}

/// Prints a member as one line of JSON, as a list may be long.
fn line(info: &ParkedInfo, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, info)?;
    writeln!(out)
}

fn row(info: ParkedInfo) -> [String; 7] {
    let ParkedInfo { audience, context_key, parked_at, status, code, message, answer_id } = info;
    [audience, context_key, parked_at, status.to_string(), code, message, answer_id]
}

/// Passes each parked member to `look` until it returns `false`.
async fn each(
    daemon: &Daemon,
    name: &str,
    audience: Option<String>,
    key: Option<&String>,
    mut look: impl FnMut(ParkedInfo) -> bool,
) -> Told<()> {
    let mut query = ParkedQuery { audience, limit: Some(1000), ..ParkedQuery::default() };
    loop {
        let answer: Answer<ParkedPage> = daemon.get(&of(name, &["parked"]), &query).await?;
        let page = answer.value;
        if let Some(last) = page.parked.last() {
            query.after_audience = Some(last.audience.clone());
            query.after_key = Some(last.context_key.clone());
        }
        let wanted = |info: &ParkedInfo| key.is_none_or(|key| *key == info.context_key);
        let goes_on = page.parked.into_iter().filter(wanted).all(&mut look);
        if !page.more || !goes_on {
            return Ok(());
        }
    }
}

async fn requeue(
    which: &Which,
    words: &str,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let daemon = which.asking.daemon(file)?;
    let (name, audience) = which.named(&daemon).await?;
    change(&daemon, which, "requeue", (&name, audience), words, out).await
}

async fn discard(
    which: &Which,
    all: bool,
    consent: Consent,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let vague = || Silent::usage("say which ones: --audience ID [--key CONTEXT_KEY], or --all");
    if !all && which.first.is_none() && which.audience.is_none() {
        return Err(vague());
    }
    let daemon = which.asking.daemon(file)?;
    let (name, audience) = which.named(&daemon).await?;
    if !all && audience.is_none() {
        return Err(vague());
    }
    if consent.dry_run || which.key.is_none() && consent.is_asked_for() {
        let mut count = 0;
        each(&daemon, &name, audience.clone(), which.key.as_ref(), |_| {
            count += 1;
            true
        })
        .await?;
        let them = many(count, "parked member");
        let words = format!("{name}: {them}, to be forgotten until Segment sends another change");
        if consent.dry_run {
            return Ok(print_dry_run(count, &words, which.asking.json, out));
        }
        consent.ask(&words)?;
    }
    change(&daemon, which, "discard", (&name, audience), "are forgotten", out).await
}

async fn change(
    daemon: &Daemon,
    which: &Which,
    verb: &str,
    (name, audience): (&str, Option<String>),
    words: &str,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let what = ParkedChange { audience, context_key: which.key.clone() };
    let answer: Answer<Done> = daemon.post(&of(name, &["parked", verb]), &what).await?;
    Ok(if which.asking.json {
        json(&answer, out)
    } else {
        writeln!(out, "{name}: {} parked member(s) {words}", answer.value.count)
    })
}

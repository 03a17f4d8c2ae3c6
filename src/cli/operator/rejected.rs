//! `cohortd rejected`: events that could not be mapped.

use std::io::{Result, Write};

use clap::{Args, Subcommand};

use super::{Told, ends, json, named, of};
use crate::cli::Exit;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::table::table;
use crate::config::Config;
use crate::operate::api::wire::{
    Done, RejectedChange, RejectedInfo, RejectedPage, RejectedQuery, Replay, Replayed,
};

/// What to do with rejected events.
#[derive(Args, Clone, Debug)]
pub struct RejectedCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Print them with their reasons; --json also prints the events
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Send them through the present mapping; those that it takes are kept no longer
    Replay {
        #[command(flatten)]
        of: Of,
        /// Only this one, by its number
        #[arg(long, value_name = "NUMBER")]
        id: Option<i64>,
        /// Also those that are older than the memory of members that left, and may bring one back
        #[arg(long)]
        force: bool,
    },
    /// Keep them no longer
    Discard {
        #[command(flatten)]
        of: Of,
        /// Only this one, by its number
        #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
        id: Option<i64>,
        /// Every one
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args, Clone, Debug)]
struct Of {
    /// Of this destination; not needed if there is only one
    destination: Option<String>,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl RejectedCommand {
    /// Does it.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let (name, told) = match &self.what {
            What::List { of } => ("rejected list", list(of, config, out).await),
            What::Replay { of, id, force } => {
                ("rejected replay", replay(of, *id, *force, config, out).await)
            }
            What::Discard { id: None, all: false, .. } => {
                let words = "say which: --id NUMBER, or --all";
                ("rejected discard", Err(Silent::usage(words)))
            }
            What::Discard { of, id, .. } => {
                ("rejected discard", discard(of, *id, config, out).await)
            }
        };
        ends(name, told)
    }
}

async fn list(of_what: &Of, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
    let name = named(config, of_what.destination.as_ref())?;
    let daemon = Daemon::of(config)?;
    let mut query = RejectedQuery { after: None, limit: Some(500) };
    let mut rows = Vec::new();
    loop {
        let answer: Answer<RejectedPage> = daemon.get(&of(&name, &["rejected"]), &query).await?;
        let page = answer.value;
        query.after = page.rejected.last().map(|info| info.id).or(query.after);
        for info in page.rejected {
            if of_what.json {
                // One line each: a list may be long.
                let printed = serde_json::to_writer(&mut *out, &info).map_err(std::io::Error::from);
                if let Err(error) = printed.and_then(|()| writeln!(out)) {
                    return Ok(Err(error));
                }
            } else {
                let RejectedInfo { id, received_at, reason, detail, .. } = info;
                rows.push([id.to_string(), received_at, reason, detail]);
            }
        }
        if !page.more {
            break;
        }
    }
    Ok(if of_what.json {
        Ok(())
    } else if rows.is_empty() {
        writeln!(out, "{name}: no rejected event is kept")
    } else {
        table(out, ["#number", "received at", "reason", "what to do"], &rows)
    })
}

async fn replay(
    of_what: &Of,
    id: Option<i64>,
    force: bool,
    config: &Config,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let name = named(config, of_what.destination.as_ref())?;
    let daemon = Daemon::of(config)?;
    let mut all = Replayed::default();
    let mut after = None;
    loop {
        let what = Replay { id, after, force };
        let answer: Answer<Replayed> =
            daemon.post(&of(&name, &["rejected", "replay"]), &what).await?;
        let part = answer.value;
        all.replayed += part.replayed;
        all.ignored += part.ignored;
        all.too_old += part.too_old;
        all.rejected.extend(part.rejected);
        after = part.next_after;
        if after.is_none() {
            break;
        }
    }
    if of_what.json {
        let text = serde_json::to_string(&all).map_err(|_| Silent::usage("no JSON"))?;
        return Ok(writeln!(out, "{text}"));
    }
    Ok(print(&name, &all, out))
}

fn print(name: &str, all: &Replayed, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{name}: {} event(s) replayed and no longer kept", all.replayed)?;
    if all.ignored > 0 {
        writeln!(out, "{} kept: the present mapping does not select them", all.ignored)?;
    }
    if all.too_old > 0 {
        writeln!(
            out,
            "{} kept: older than the memory of members that left (ledger.tombstone_ttl_s), so that \
             they may bring one back; --force replays them",
            all.too_old
        )?;
    }
    if !all.rejected.is_empty() {
        writeln!(out, "{} kept: the present mapping cannot read them either", all.rejected.len())?;
        let row = |one: &crate::operate::api::wire::StillRejected| {
            [one.id.to_string(), one.reason.clone()]
        };
        let rows: Vec<_> = all.rejected.iter().map(row).collect();
        table(out, ["#number", "reason"], &rows)?;
    }
    Ok(())
}

async fn discard(
    of_what: &Of,
    id: Option<i64>,
    config: &Config,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let name = named(config, of_what.destination.as_ref())?;
    let daemon = Daemon::of(config)?;
    let path = of(&name, &["rejected", "discard"]);
    let answer: Answer<Done> = daemon.post(&path, &RejectedChange { id }).await?;
    Ok(if of_what.json {
        json(&answer, out)
    } else {
        writeln!(out, "{name}: {} rejected event(s) no longer kept", answer.value.count)
    })
}

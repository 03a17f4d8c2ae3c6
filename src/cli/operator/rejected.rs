//! `cohortd rejected`: events that could not be mapped.

use std::io::{Result, Write};
use std::path::Path;

use clap::{Args, Subcommand};

use super::{
    Told, all_destinations, ends, json, json_of, many, named, not_among, of, print_dry_run,
};
use crate::cli::Exit;
use crate::cli::asking::Asking;
use crate::cli::consent::Consent;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::follow::{Bar, Followed};
use crate::cli::table::table;
use crate::operate::api::wire::{
    Done, Nothing, ProgressList, RejectedChange, RejectedInfo, RejectedPage, RejectedQuery, Replay,
    Replayed, Work,
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
    /// Apply the present mapping to them; those that it accepts are no longer kept
    Replay {
        #[command(flatten)]
        of: Of,
        /// Only this one, by its number
        #[arg(long, value_name = "NUMBER")]
        id: Option<i64>,
        /// Also replay events older than `ledger.tombstone_ttl_s`, which may bring back a member that left since
        #[arg(long)]
        force: bool,
        /// Show the progress until LaunchDarkly has been told too
        #[arg(long)]
        wait: bool,
    },
    /// Discard them: they cannot be replayed afterwards
    Discard {
        #[command(flatten)]
        of: Of,
        /// Only this one, by its number
        #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
        id: Option<i64>,
        /// Every one
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Args, Clone, Debug)]
struct Of {
    /// The destination; not needed if there is only one
    destination: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl RejectedCommand {
    /// Runs the subcommand.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let (name, told) = match &self.what {
            What::List { of } => ("rejected list", list(of, file, out).await),
            What::Replay { of, id, force, wait } => {
                ("rejected replay", replay(of, *id, *force, *wait, file, out).await)
            }
            What::Discard { id: None, all: false, .. } => {
                let words = "say which ones: --id NUMBER, or --all";
                ("rejected discard", Err(Silent::usage(words)))
            }
            What::Discard { of, id, consent, .. } => {
                ("rejected discard", discard(of, *id, *consent, file, out).await)
            }
        };
        ends(name, told)
    }
}

async fn list(of_what: &Of, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
    let daemon = of_what.asking.daemon(file)?;
    let name = named(&daemon, of_what.destination.as_ref()).await?;
    let mut query = RejectedQuery { limit: Some(500), ..RejectedQuery::default() };
    let mut rows = Vec::new();
    loop {
        let answer: Answer<RejectedPage> = daemon.get(&of(&name, &["rejected"]), &query).await?;
        let page = answer.value;
        query.after = page.rejected.last().map(|info| info.id).or(query.after);
        for info in page.rejected {
            if of_what.asking.json {
                // One line per event, as a list may be long.
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
    Ok(if of_what.asking.json {
        Ok(())
    } else if rows.is_empty() {
        writeln!(out, "{name}: no rejected event is kept")
    } else {
        table(out, ["#number", "received at", "reason", "what to do"], &rows)
    })
}

/// How many are kept of a person.
pub(super) async fn count_of(daemon: &Daemon, name: &str, user_id: &str) -> Told<u64> {
    let user_id = Some(user_id.to_owned());
    let mut query = RejectedQuery { after: None, limit: Some(500), user_id };
    let mut count = 0;
    loop {
        let page = daemon.get::<RejectedPage>(&of(name, &["rejected"]), &query).await?.value;
        count += page.rejected.len() as u64;
        query.after = page.rejected.last().map(|info| info.id).or(query.after);
        if !page.more {
            return Ok(count);
        }
    }
}

async fn replay(
    of_what: &Of,
    id: Option<i64>,
    force: bool,
    wait: bool,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let daemon = of_what.asking.daemon(file)?;
    let name = named(&daemon, of_what.destination.as_ref()).await?;
    let mut all = Replayed::default();
    let parts = each_part(&daemon, &name, Replay { id, after: None, force }, &mut all);
    let ended = tokio::select! {
        ended = parts => ended,
        _ = tokio::signal::ctrl_c() => Err(Silent::interrupted(
            "interrupted: what was not replayed is kept; the same command continues with it",
        )),
    };
    let done = all.looked_at() > 0;
    // Print what was done, even if the replay failed in the middle.
    let printed = match (done || ended.is_ok(), of_what.asking.json) {
        (false, _) => Ok(()),
        (_, true) => json_of(&all, out),
        (_, false) => print(&name, &all, out),
    };
    ended?;
    if wait && printed.is_ok() {
        let followed = Followed { daemon: &daemon, destination: &name, audience: None, work: None };
        followed.to_its_end().await?;
    }
    Ok(printed)
}

/// Replays all events, one part for each request, and adds up the outcomes in `all`.
async fn each_part(daemon: &Daemon, name: &str, mut what: Replay, all: &mut Replayed) -> Told<()> {
    let path = of(name, &["rejected", "replay"]);
    let mut bar = None;
    loop {
        let part = daemon.post::<Replayed>(&path, &what).await?.value;
        all.replayed += part.replayed;
        all.ignored += part.ignored;
        all.too_old += part.too_old;
        all.rejected.extend(part.rejected);
        what.after = part.next_after;
        if what.after.is_none() {
            return Ok(());
        }
        let done = all.looked_at();
        let path = of(name, &["progress"]);
        let known = daemon.get::<ProgressList>(&path, &Nothing {}).await?.value;
        let total =
            known.items.iter().find(|item| item.kind == Work::Replay).map(|item| item.total);
        bar.get_or_insert_with(Bar::new).show(done, total.unwrap_or(done), "");
    }
}

fn print(name: &str, all: &Replayed, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{name}: {} event(s) replayed and no longer kept", all.replayed)?;
    if all.ignored > 0 {
        writeln!(out, "{} kept: the present mapping does not select them", all.ignored)?;
    }
    if all.too_old > 0 {
        writeln!(
            out,
            "{} kept: older than ledger.tombstone_ttl_s, so a replay may bring back a member that \
             left since; --force replays them",
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
    consent: Consent,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Told<Result<()>> {
    let daemon = of_what.asking.daemon(file)?;
    let name = named(&daemon, of_what.destination.as_ref()).await?;
    if consent.dry_run || id.is_none() && consent.is_asked_for() {
        let count = if let Some(id) = id {
            // Whether it exists.
            let path = of(&name, &["rejected"]);
            let query =
                RejectedQuery { after: Some(id.saturating_sub(1)), limit: Some(1), user_id: None };
            let found: Answer<RejectedPage> = daemon.get(&path, &query).await?;
            u64::from(found.value.rejected.first().is_some_and(|event| event.id == id))
        } else {
            let known = all_destinations(&daemon).await?;
            let found = known.iter().find(|info| info.name == name);
            found.ok_or_else(|| not_among(&name, &known))?.rejected
        };
        let words = format!("{name}: {}, to be discarded", many(count, "rejected event"));
        if consent.dry_run {
            return Ok(print_dry_run(count, &words, of_what.asking.json, out));
        }
        consent.ask(&words)?;
    }
    let path = of(&name, &["rejected", "discard"]);
    let answer: Answer<Done> = daemon.post(&path, &RejectedChange { id }).await?;
    Ok(if of_what.asking.json {
        json(&answer, out)
    } else {
        writeln!(out, "{name}: {} rejected event(s) discarded", answer.value.count)
    })
}

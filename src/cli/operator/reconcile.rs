//! `cohortd reconcile`: a file becomes the truth of an audience at its time.

mod following;
mod pieces;

use std::fs::File;
use std::io::{self, IsTerminal, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::following::Followed;
use self::pieces::Pieces;
use super::lists::all_destinations;
use super::{Told, ends, json, json_of, many, named, of};
use crate::cli::asking::Asking;
use crate::cli::daemon::{Answer, Silent};
use crate::cli::{Exit, complain};
use crate::membership::Timestamp;
use crate::operate::api::wire::{Reconcile, ReconcileInfo, Reconciled, instant};

const COLUMN_HELP: &str = "The column with the context keys as they stand; else context_key, or the \
                           identifiers that the mapping takes";

/// Reconciles an audience with a file.
#[derive(Args, Clone, Debug)]
#[command(allow_missing_positional = true)]
pub struct ReconcileCommand {
    /// The audience's destination; not needed if there is only one
    destination: Option<String>,
    /// The audience's id
    audience: String,
    /// CSV, JSON lines or one context key a line; `-`: standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_name = "NAME", help = COLUMN_HELP)]
    column: Option<String>,
    /// When the file was true: what happened later wins. Default: when it was last modified; needed with `-`
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Refuse if more members than this would leave
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    max_exits: u8,
    /// Do it although it looks like a mistake
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// The audience's key, if the ledger has no members of it yet
    #[arg(long, value_name = "KEY")]
    audience_key: Option<String>,
    /// The kind of its members, if the ledger has none of it yet; default: user
    #[arg(long, value_name = "KIND")]
    context_kind: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl ReconcileCommand {
    /// Sends the file to the daemon, and shows the progress until the changes are recorded.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("reconcile", self.reconcile(file, out).await)
    }

    async fn reconcile(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        let (as_of, body) = self.opened()?;
        let all_sent = Arc::clone(&body.all_sent);
        let daemon = self.asking.daemon(file)?;
        if self.destination.is_none() {
            let known = all_destinations(&daemon).await?;
            if known.iter().any(|info| info.name == self.audience) {
                let words =
                    format!("{} is a destination: name the audience after it", self.audience);
                return Err(Silent::usage(words));
            }
        }
        let name = named(&daemon, self.destination.as_ref()).await?;
        let query = Reconcile {
            audience: Some(self.audience.clone()),
            as_of: Some(as_of.clone()),
            column: self.column.clone(),
            dry_run: self.dry_run,
            max_exits: Some(self.max_exits),
            yes: self.yes,
            audience_key: self.audience_key.clone(),
            context_kind: self.context_kind.clone(),
        };
        let path = of(&name, &["reconcile"]);
        let followed = Followed::new(&daemon, &name, (&self.audience, &as_of)).await?;
        let work = async {
            let answer: Told<Answer<Reconciled>> = tokio::select! {
                answer = daemon.upload(&path, &query, reqwest::Body::wrap(body)) => answer,
                never = followed.show() => match never {},
            };
            match answer {
                Err(lost) if lost.is_of_the_daemon() && !self.dry_run => {
                    if all_sent.load(Ordering::Relaxed) {
                        followed.to_its_end(lost).await.map(Ended::Without)
                    } else {
                        Err(lost.after(
                            "the daemon had not got all of the file, so nothing of it was done; type the same again: ",
                        ))
                    }
                }
                answer => answer.map(Ended::With),
            }
        };
        let ended = tokio::select! {
            ended = work => ended?,
            told = told_to_end() => {
                told.map_err(|error| Silent::usage(format!("signals cannot be heard: {error}")))?;
                if self.dry_run {
                    return Err(Silent::interrupted("nothing was done, as --dry-run says"));
                }
                return Err(followed.stop().await);
            }
        };
        Ok(match ended {
            Ended::With(answer) if self.asking.json => json(&answer, out),
            Ended::With(answer) => print(&name, &answer.value, out),
            Ended::Without(info) if self.asking.json => json_of(&info, out),
            Ended::Without(info) => print_ended(&name, &info, out),
        })
    }

    /// The file, and as of when it is.
    fn opened(&self) -> Told<(String, Pieces)> {
        let shown = self.file.display();
        if self.file == Path::new("-") {
            let Some(as_of) = self.as_of.clone() else {
                let words = "say as of when standard input is true: --as-of TIME, as in \
                             2026-01-31T12:00:00Z; what happened later wins";
                return Err(Silent::usage(words));
            };
            if io::stdin().is_terminal() {
                complain("reading keys from the terminal, until Ctrl-D");
            }
            return Ok((as_of, Pieces::of(io::stdin(), None)));
        }
        let cannot = |error| Silent::usage(format!("{shown} cannot be read: {error}"));
        let file = File::open(&self.file).map_err(cannot)?;
        let about = file.metadata().map_err(cannot)?;
        if about.is_dir() {
            return Err(Silent::usage(format!("{shown} is a directory")));
        }
        let size = about.is_file().then_some(about.len());
        let as_of = if let Some(as_of) = &self.as_of {
            as_of.clone()
        } else {
            let modified = about.modified().map_err(cannot)?;
            let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let as_of = instant(Timestamp::EPOCH.after(modified));
            complain(&format!("as of {as_of}, when {shown} was last modified"));
            as_of
        };
        Ok((as_of, Pieces::of(file, size)))
    }
}

/// How all of it was recorded.
enum Ended {
    /// With an answer.
    With(Answer<Reconciled>),
    /// The answer was lost, and the ledger tells.
    Without(ReconcileInfo),
}

/// Returns when somebody presses Ctrl-C, or ends the command otherwise.
async fn told_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

fn print_ended(name: &str, info: &ReconcileInfo, out: &mut impl Write) -> Result<()> {
    let ReconcileInfo { audience, as_of, entered, left, .. } = info;
    let as_of = as_of.as_deref().unwrap_or_default();
    complain("the daemon that was asked has ended, and the reconcile has gone on without it");
    writeln!(
        out,
        "{name}, {audience}, as of {as_of}: {} entered, {left} left",
        many(*entered, "member")
    )?;
    print_next(name, out)
}

fn print_next(name: &str, out: &mut impl Write) -> Result<()> {
    writeln!(out, "recorded, and delivered next; `cohortd audiences {name}` shows what waits")
}

fn print(name: &str, done: &Reconciled, out: &mut impl Write) -> Result<()> {
    let Reconciled { audience, enter, leave, stay, newer, .. } = done;
    let verb = if done.dry_run { " would" } else { "" };
    writeln!(
        out,
        "{name}, {audience}, as of {}: {}{verb} enter, {leave}{verb} leave, {stay} stay, {newer} changed later and stay \
         as they are",
        done.as_of,
        many(*enter, "member"),
    )?;
    if done.without_key > 0 {
        writeln!(out, "{} of {} lines have no key", done.without_key, done.lines)?;
    }
    if done.held {
        writeln!(
            out,
            "the guard holds the audience: nothing of it is told until `cohortd guard release` or `discard`"
        )?;
    }
    if !done.dry_run {
        return print_next(name, out);
    }
    for (what, keys) in [("enter", &done.entering), ("leave", &done.leaving)] {
        if !keys.is_empty() {
            writeln!(out, "would {what}, for example: {}", keys.join(", "))?;
        }
    }
    if let Some(refusal) = &done.refusal {
        writeln!(out, "it would be refused: {refusal}")?;
    }
    writeln!(out, "nothing was done, as --dry-run says")
}

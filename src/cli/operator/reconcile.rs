//! `cohortd reconcile`: a file becomes the truth of an audience at its time.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Result, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use clap::Args;
use hyper::body::{Body, Frame, SizeHint};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep};

use super::lists::all_destinations;
use super::{Told, ends, json, many, named, of};
use crate::cli::asking::Asking;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::follow::{Bar, in_words};
use crate::cli::{Exit, complain};
use crate::membership::Timestamp;
use crate::operate::api::wire::{
    Done, Nothing, ProgressList, Reconcile, ReconcileStop, Reconciled, Work, instant,
};

/// Bytes that are read from the file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 4;
/// Time between two looks at the progress.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a daemon that has answered before may say nothing until it counts as gone: longer than a restart.
const GONE_AFTER: Duration = Duration::from_secs(10);

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
            as_of: Some(as_of),
            column: self.column.clone(),
            dry_run: self.dry_run,
            max_exits: Some(self.max_exits),
            yes: self.yes,
            audience_key: self.audience_key.clone(),
            context_kind: self.context_kind.clone(),
        };
        let path = of(&name, &["reconcile"]);
        let seen = Cell::new(false);
        let work = async {
            let answer = tokio::select! {
                answer = daemon.upload(&path, &query, reqwest::Body::wrap(body)) => answer,
                never = self.show(&daemon, &name, &seen) => match never {},
            };
            match answer {
                Err(lost) if lost.is_of_the_daemon() && all_sent.load(Ordering::Relaxed) => {
                    self.follow(&daemon, &name, (lost, &seen)).await.map(|()| None)
                }
                answer => answer.map(Some),
            }
        };
        let answer: Option<Answer<Reconciled>> = tokio::select! {
            answer = work => answer?,
            ended = told_to_end() => {
                ended.map_err(|error| Silent::usage(format!("signals cannot be heard: {error}")))?;
                return Err(self.stop(&daemon, &name).await);
            }
        };
        let Some(answer) = answer else { return Ok(Ok(())) };
        if self.asking.json {
            return Ok(json(&answer, out));
        }
        Ok(print(&name, &answer.value, out))
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

    /// Ends it where it is, whoever is at it; what to say.
    async fn stop(&self, daemon: &Daemon, name: &str) -> Silent {
        let what = ReconcileStop { audience: self.audience.clone() };
        let stopped: Told<Answer<Done>> =
            daemon.post(&of(name, &["reconcile", "stop"]), &what).await;
        Silent::interrupted(if stopped.is_ok() {
            "stopped; what was recorded stays, and the same command does what is left"
        } else {
            "the daemon cannot be asked to stop: if all was sent, it goes on by itself once it runs; `progress` of the API \
             shows that, and POST …/reconcile/stop ends it"
        })
    }

    /// Shows how far the daemon is, without end.
    async fn show(
        &self,
        daemon: &Daemon,
        name: &str,
        seen: &Cell<bool>,
    ) -> std::convert::Infallible {
        let mut bar = Bar::new();
        loop {
            sleep(LOOK_EVERY).await;
            // Whoever cannot be asked now says so in the answer to the request itself.
            let _ = self.look(daemon, name, (&mut bar, seen)).await;
        }
    }

    /// Looks how far it is; whether it goes on by itself.
    async fn look(
        &self,
        daemon: &Daemon,
        name: &str,
        (bar, seen): (&mut Bar, &Cell<bool>),
    ) -> Told<bool> {
        let path = of(name, &["progress"]);
        let Answer { value, .. } = daemon.get::<ProgressList>(&path, &Nothing {}).await?;
        let mine = value.items.iter().find(|item| {
            item.kind == Work::Reconcile && item.audience.as_ref() == Some(&self.audience)
        });
        if let Some(item) = mine {
            seen.set(true);
            let left = item.remaining_s.map(|left| format!("about {} left", in_words(left)));
            bar.show(item.done, item.total, &left.unwrap_or_default());
        }
        Ok(mine.is_some())
    }

    /// The answer was lost, or the daemon stops: returns once nothing is under way any more.
    async fn follow(
        &self,
        daemon: &Daemon,
        name: &str,
        (lost, seen): (Silent, &Cell<bool>),
    ) -> Told<()> {
        let mut bar = Bar::new();
        let mut answered = Instant::now();
        loop {
            match self.look(daemon, name, (&mut bar, seen)).await {
                Ok(true) => answered = Instant::now(),
                Ok(false) if seen.get() => {
                    complain(
                        "the daemon that was asked has ended, and the reconcile has gone on without it, and is over; its last \
                         line in the log, \"audience reconciled with a snapshot\", says whether it is complete",
                    );
                    return Ok(());
                }
                Ok(false) => {
                    return Err(lost.after(
                        "it is not under way: it has ended already, or never began, and the same again does what is left: ",
                    ));
                }
                Err(_) if answered.elapsed() < GONE_AFTER => {}
                Err(_) => {
                    return Err(lost.after(if seen.get() {
                        "it goes on by itself once the daemon runs again, or at another replica; `progress` of the API shows \
                         how far it is: "
                    } else {
                        "if the ledger had all that it changes, it goes on by itself once the daemon runs again; `progress` of \
                         the API shows whether it does, and if not, type the same again: "
                    }));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Returns when somebody presses Ctrl-C, or ends the command otherwise.
async fn told_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
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
        return writeln!(
            out,
            "recorded, and delivered next; `cohortd audiences {name}` shows what waits"
        );
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

/// A file as the body of a request, read by a thread of its own.
struct Pieces {
    coming: mpsc::Receiver<io::Result<Bytes>>,
    left: Option<u64>,
    /// Set once there is nothing more to send.
    all_sent: Arc<AtomicBool>,
}

impl Pieces {
    fn of(mut from: impl Read + Send + 'static, size: Option<u64>) -> Self {
        let (to, coming) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match from.read(&mut piece) {
                    Ok(0) => return,
                    Ok(bytes) => {
                        piece.truncate(bytes);
                        Ok(piece.into())
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if to.blocking_send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self { coming, left: size, all_sent: Arc::default() }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = std::task::ready!(self.coming.poll_recv(context));
        if let (Some(Ok(piece)), Some(left)) = (&next, &mut self.left) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        if next.is_none() || self.left == Some(0) {
            self.all_sent.store(true, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

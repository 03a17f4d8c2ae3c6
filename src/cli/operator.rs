//! The operator's commands, which use the admin API of the running daemon.

mod guard;
mod lists;
mod parked;
mod reconcile;
mod rejected;
mod removing;

use std::io::{Result, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

pub use guard::GuardCommand;
pub(super) use lists::all_audiences;
use lists::all_destinations;
pub use lists::{AudiencesCommand, MemberCommand};
pub use parked::ParkedCommand;
pub use reconcile::ReconcileCommand;
pub use rejected::RejectedCommand;
pub use removing::{DropCommand, ForgetCommand};

use super::Exit;
use super::asking::Asking;
use super::daemon::{Answer, Daemon, Silent};
use super::follow::Followed;
use crate::operate::api::wire::{DestinationInfo, Done, Nothing, Resync, Work};

const API: [&str; 3] = ["api", "v1", "destinations"];

/// The API path of something that belongs to a destination.
pub(super) fn of<'a>(destination: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    API.into_iter().chain([destination]).chain(rest.iter().copied()).collect()
}

/// What a command prints, or why it failed.
type Told<T> = std::result::Result<T, Silent>;

fn ends(command: &str, told: Told<Result<()>>) -> Result<Exit> {
    match told {
        Ok(printed) => printed.map(|()| Exit::Done),
        Err(silent) => Ok(silent.complain(command)),
    }
}

fn json<T>(answer: &Answer<T>, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", answer.text.trim_end())
}

/// Prints a value that was assembled from several answers.
fn json_of(value: &impl Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// The outcome of a dry run, for programs.
#[derive(Serialize)]
struct DryRun {
    /// As the daemon would count it.
    count: u64,
    dry_run: bool,
}

/// Prints that nothing was done because of `--dry-run`.
fn print_dry_run(count: u64, words: &str, json: bool, out: &mut impl Write) -> Result<()> {
    if json {
        return json_of(&DryRun { count, dry_run: true }, out);
    }
    writeln!(out, "{words}; nothing was done, as --dry-run says")
}

/// The destination that was named; without a name, the only one.
async fn named(daemon: &Daemon, name: Option<&String>) -> Told<String> {
    match name {
        Some(name) => Ok(name.clone()),
        None => the_only_one(&all_destinations(daemon).await?),
    }
}

/// The only configured destination. If none is configured, the only one in the ledger.
fn the_only_one(known: &[DestinationInfo]) -> Told<String> {
    let configured: Vec<_> = known.iter().filter(|info| info.configured).collect();
    let only = match (&configured[..], known) {
        ([only], _) => Some(*only),
        ([], [only]) => Some(only),
        _ => None,
    };
    match only {
        Some(only) => Ok(only.name.clone()),
        None => Err(Silent::usage(format!("say which destination: {}", names(known)))),
    }
}

fn not_among(name: &str, known: &[DestinationInfo]) -> Silent {
    Silent::usage(format!("there is no destination {name}; there are: {}", names(known)))
}

fn names(known: &[DestinationInfo]) -> String {
    known.iter().map(|info| info.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// `[DESTINATION] [AUDIENCE]`: a single name that is no destination is an audience of the only destination.
async fn destination_and_audience(
    daemon: &Daemon,
    first: Option<&String>,
    second: Option<&String>,
) -> Told<(String, Option<String>)> {
    let Some(first) = first else { return Ok((named(daemon, None).await?, second.cloned())) };
    if second.is_some() {
        return Ok((first.clone(), second.cloned()));
    }
    let known = all_destinations(daemon).await?;
    if known.iter().any(|info| info.name == *first) {
        return Ok((first.clone(), None));
    }
    let Ok(only) = the_only_one(&known) else {
        let words = format!(
            "there is no destination {first}; there are: {}; an audience needs its destination before it",
            names(&known)
        );
        return Err(Silent::usage(words));
    };
    if !all_audiences(daemon, &only).await?.iter().any(|of| of.audience == *first) {
        let words = format!(
            "there is no audience {first}; `cohortd audiences` lists them with their ids; nor is it a \
             destination; there are: {}",
            names(&known)
        );
        return Err(Silent::usage(words));
    }
    Ok((only, Some(first.clone())))
}

/// `[DESTINATION] KEY`: if the only argument is the name of a destination, the key was forgotten.
async fn destination_and_person(
    daemon: &Daemon,
    destination: Option<&String>,
    person: &str,
) -> Told<String> {
    if let Some(destination) = destination {
        return Ok(destination.clone());
    }
    let known = all_destinations(daemon).await?;
    if known.iter().any(|info| info.name == person) {
        let words = format!(
            "{person} is a destination: name the person after it; if {person} is a person, name a \
             destination before it"
        );
        return Err(Silent::usage(words));
    }
    the_only_one(&known)
}

fn many(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Tells members again.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command line")]
pub struct ResyncCommand {
    /// The audience's destination; not needed if there is only one
    #[arg(value_name = "DESTINATION")]
    first: Option<String>,
    /// The audience's id
    #[arg(value_name = "AUDIENCE")]
    second: Option<String>,
    /// Every audience
    #[arg(long, conflicts_with = "second")]
    all: bool,
    /// The destination, if it is not named before the audience
    #[arg(long, value_name = "NAME", hide = true, conflicts_with = "second")]
    destination: Option<String>,
    /// Stop a running resync
    #[arg(long, conflicts_with = "retract_stale")]
    stop: bool,
    /// Remove members whose context key or kind came from an older mapping; of every audience, if
    /// none is named
    #[arg(long)]
    retract_stale: bool,
    /// With --retract-stale: even if no member has arrived under the present mapping yet
    #[arg(long, requires = "retract_stale")]
    force: bool,
    /// Show the progress until LaunchDarkly has been told; Ctrl-C stops the display, not the work
    #[arg(long, conflicts_with = "stop")]
    wait: bool,
    #[command(flatten)]
    asking: Asking,
}

const WHICH: &str = "name an audience by its id, or use --all";

impl ResyncCommand {
    /// Starts or stops the resync.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("resync", self.start(file, out).await)
    }

    async fn start(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        if self.first.is_none() && !self.all && !self.retract_stale {
            return Err(Silent::usage(WHICH));
        }
        let daemon = self.asking.daemon(file)?;
        let (name, audience) = self.which(&daemon).await?;
        let what = Resync {
            audience: audience.clone(),
            stop: self.stop,
            retract_stale: self.retract_stale,
            force: self.force,
        };
        let answer: Answer<Done> = daemon.post(&of(&name, &["resync"]), &what).await?;
        if let Err(error) = self.print(&name, &answer, out) {
            return Ok(Err(error));
        }
        if self.wait {
            let work = if self.retract_stale { Work::RetractStale } else { Work::Resync };
            let audience = audience.as_deref();
            let work = Some(work);
            Followed { daemon: &daemon, destination: &name, audience, work }.to_its_end().await?;
        }
        Ok(Ok(()))
    }

    async fn which(&self, daemon: &Daemon) -> Told<(String, Option<String>)> {
        let which = match (&self.destination, &self.first) {
            (Some(destination), audience) => (destination.clone(), audience.clone()),
            (None, first) => {
                destination_and_audience(daemon, first.as_ref(), self.second.as_ref()).await?
            }
        };
        if which.1.is_none() && !self.all && !self.retract_stale {
            return Err(Silent::usage(WHICH));
        }
        if which.1.is_some() && self.all {
            return Err(Silent::usage("an audience and --all exclude each other"));
        }
        Ok(which)
    }

    fn print(&self, name: &str, answer: &Answer<Done>, out: &mut impl Write) -> Result<()> {
        if self.asking.json {
            return json(answer, out);
        }
        let Done { count, left_alone } = &answer.value;
        let what = match (self.stop, self.retract_stale) {
            (true, _) => "no resync of them is running any more",
            (_, true) => "stale members are being removed",
            _ => "every member is sent to LaunchDarkly again, as fast as its limits allow",
        };
        let shows = format!("; `cohortd audiences {name}` shows the progress");
        let shows = if self.wait || self.stop { "" } else { &shows };
        writeln!(out, "{name}: {count} audience(s): {what}{shows}")?;
        left_alone.iter().try_for_each(|line| writeln!(out, "left alone: {line}"))
    }
}

/// Stops or starts delivery.
#[derive(Args, Clone, Debug)]
pub struct SteerCommand {
    /// The destination; not needed if there is only one. Events are accepted all the while
    destination: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

impl SteerCommand {
    /// Sends the request; `verb` is `pause` or `resume`.
    pub async fn run(&self, verb: &str, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends(verb, self.steer(verb, file, out).await)
    }

    async fn steer(
        &self,
        verb: &str,
        file: Option<&Path>,
        out: &mut impl Write,
    ) -> Told<Result<()>> {
        let daemon = self.asking.daemon(file)?;
        let name = named(&daemon, self.destination.as_ref()).await?;
        let answer: Answer<Done> = daemon.post(&of(&name, &[verb]), &Nothing {}).await?;
        Ok(match (self.asking.json, verb) {
            (true, _) => json(&answer, out),
            (_, "pause") => writeln!(
                out,
                "{name}: nothing is delivered until `cohortd resume {name}`; events are kept, and \
                 the pause survives restarts"
            ),
            _ => writeln!(out, "{name}: delivery resumed"),
        })
    }
}

//! The operator's verbs, through the admin API of the running daemon.

mod lists;
mod parked;
mod rejected;

use std::io::{Result, Write};

use clap::{ArgGroup, Args};
use serde::Serialize;

pub(super) use lists::all_audiences;
pub use lists::{AudiencesCommand, MemberCommand};
pub use parked::ParkedCommand;
pub use rejected::RejectedCommand;

use super::daemon::{Answer, Daemon, Silent};
use super::follow::Followed;
use super::{Exit, destination};
use crate::config::Config;
use crate::operate::api::wire::{Done, Drop, Forget, Nothing, Resync, Work};

const API: [&str; 3] = ["api", "v1", "destinations"];

/// The path of something of a destination.
pub(super) fn of<'a>(destination: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    API.into_iter().chain([destination]).chain(rest.iter().copied()).collect()
}

/// What was typed, or the only one that is configured.
fn named(config: &Config, name: Option<&String>) -> std::result::Result<String, Silent> {
    match name {
        Some(name) => Ok(name.clone()),
        None => Ok(destination(config, None).map_err(Silent::usage)?.name.to_string()),
    }
}

/// What a command prints, or why it cannot.
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

/// What was put together from several answers.
fn json_of(value: &impl Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// Tells members again.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("which").required(true).multiple(true))]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command line")]
pub struct ResyncCommand {
    /// The audience's id
    #[arg(group = "which")]
    audience: Option<String>,
    /// Every audience
    #[arg(long, group = "which", conflicts_with = "audience")]
    all: bool,
    /// Of this destination; not needed if there is only one
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// End a resync that is under way
    #[arg(long, conflicts_with = "retract_stale")]
    stop: bool,
    /// Remove members whose context key or kind came from an older mapping; of every audience, if
    /// none is named
    #[arg(long, group = "which")]
    retract_stale: bool,
    /// With --retract-stale: even if no member has come under the present mapping yet
    #[arg(long, requires = "retract_stale")]
    force: bool,
    /// Show how far it is until LaunchDarkly has been told; Ctrl-C ends the showing, not the work
    #[arg(long, conflicts_with = "stop")]
    wait: bool,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl ResyncCommand {
    /// Asks for it.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends("resync", self.start(config, out).await)
    }

    async fn start(&self, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        let name = named(config, self.destination.as_ref())?;
        let what = Resync {
            audience: self.audience.clone(),
            stop: self.stop,
            retract_stale: self.retract_stale,
            force: self.force,
        };
        let daemon = Daemon::of(&config.admin)?;
        let answer: Answer<Done> = daemon.post(&of(&name, &["resync"]), &what).await?;
        if let Err(error) = self.print(&name, &answer, out) {
            return Ok(Err(error));
        }
        if self.wait {
            let work = if self.retract_stale { Work::RetractStale } else { Work::Resync };
            let audience = self.audience.as_deref();
            let work = Some(work);
            Followed { daemon: &daemon, destination: &name, audience, work }.to_its_end().await?;
        }
        Ok(Ok(()))
    }

    fn print(&self, name: &str, answer: &Answer<Done>, out: &mut impl Write) -> Result<()> {
        if self.json {
            return json(answer, out);
        }
        let Done { count, left_alone } = &answer.value;
        let what = match (self.stop, self.retract_stale) {
            (true, _) => "no resync of them is under way now",
            (_, true) => "stale members are being removed",
            _ => "every member is told again, as fast as LaunchDarkly allows",
        };
        let shows = format!("; `cohortd audiences {name}` shows how far it is");
        let shows = if self.wait || self.stop { "" } else { &shows };
        writeln!(out, "{name}: {count} audience(s): {what}{shows}")?;
        left_alone.iter().try_for_each(|line| writeln!(out, "left alone: {line}"))
    }
}

/// Stops or starts delivery.
#[derive(Args, Clone, Debug)]
pub struct SteerCommand {
    /// Whose delivery; events are accepted all the while
    destination: String,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl SteerCommand {
    /// Asks for it; `verb` is `pause` or `resume`.
    pub async fn run(&self, verb: &str, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends(verb, self.steer(verb, config, out).await)
    }

    async fn steer(&self, verb: &str, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        let name = &self.destination;
        let daemon = Daemon::of(&config.admin)?;
        let answer: Answer<Done> = daemon.post(&of(name, &[verb]), &Nothing {}).await?;
        Ok(match (self.json, verb) {
            (true, _) => json(&answer, out),
            (_, "pause") => writeln!(
                out,
                "{name}: nothing is delivered until `cohortd resume {name}`; events are kept, also \
                 across restarts"
            ),
            _ => writeln!(out, "{name}: delivery goes on"),
        })
    }
}

/// Forgets a person.
#[derive(Args, Clone)]
pub struct ForgetCommand {
    /// Of which destination
    destination: String,
    /// Segment's user id
    user_id: String,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl ForgetCommand {
    /// Asks for it.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends("forget", self.forget(config, out).await)
    }

    async fn forget(&self, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        let who = Forget { user_id: self.user_id.clone() };
        let name = &self.destination;
        let daemon = Daemon::of(&config.admin)?;
        let answer: Answer<Done> = daemon.post(&of(name, &["forget"]), &who).await?;
        if self.json {
            return Ok(json(&answer, out));
        }
        Ok(writeln!(
            out,
            "{name}: the person is taken out of every audience; what is known of them is erased as \
             soon as LaunchDarkly has been told"
        ))
    }
}

/// Drops rows.
#[derive(Args, Clone, Debug)]
pub struct DropCommand {
    /// Whose rows; it need not be configured any more
    destination: String,
    /// Only this audience, by its id
    audience: Option<String>,
    /// Tell LaunchDarkly first that everybody left
    #[arg(long)]
    retract: bool,
    /// With --retract: show how far it is until everybody is gone; Ctrl-C ends the showing, not the
    /// work
    #[arg(long, requires = "retract")]
    wait: bool,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl DropCommand {
    /// Asks for it.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends("drop", self.drop_rows(config, out).await)
    }

    async fn drop_rows(&self, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        let what = Drop { audience: self.audience.clone(), retract: self.retract };
        let name = &self.destination;
        let daemon = Daemon::of(&config.admin)?;
        let answer: Answer<Done> = daemon.post(&of(name, &["drop"]), &what).await?;
        let printed = if self.json { json(&answer, out) } else { self.print(out) };
        if let Err(error) = printed {
            return Ok(Err(error));
        }
        if self.wait {
            let (audience, work) = (self.audience.as_deref(), Some(Work::Retract));
            Followed { daemon: &daemon, destination: name, audience, work }.to_its_end().await?;
        }
        Ok(Ok(()))
    }

    fn print(&self, out: &mut impl Write) -> Result<()> {
        let name = &self.destination;
        let whose =
            self.audience.as_ref().map_or_else(|| name.clone(), |id| format!("{name}, {id}"));
        let how = if self.retract {
            "members leave their segments and are forgotten as soon as LaunchDarkly has been told"
        } else {
            "forgotten; LaunchDarkly's segments stay as they are"
        };
        writeln!(out, "{whose}: {how}")
    }
}

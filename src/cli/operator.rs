//! The operator's verbs, through the admin API of the running daemon.

mod parked;
mod rejected;

use std::io::{Result, Write};

use clap::{ArgGroup, Args};
use serde::Serialize;

pub use parked::ParkedCommand;
pub use rejected::RejectedCommand;

use super::daemon::{Answer, Daemon, Silent};
use super::table::table;
use super::{Exit, destination};
use crate::config::Config;
use crate::operate::api::wire::{
    AudienceInfo, DestinationInfo, Done, Drop, Forget, MemberInfo, Nothing, Resync,
};

const API: [&str; 3] = ["api", "v1", "destinations"];

fn of<'a>(destination: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
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

fn dash(text: Option<&String>) -> String {
    text.cloned().unwrap_or_else(|| "-".to_owned())
}

/// Lists audiences.
#[derive(Args, Clone, Debug)]
pub struct AudiencesCommand {
    /// Its audiences; without it, those of every destination that the ledger knows
    destination: Option<String>,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

/// An audience and whose it is.
#[derive(Serialize)]
struct Listed {
    destination: String,
    configured: bool,
    #[serde(flatten)]
    audience: AudienceInfo,
}

impl AudiencesCommand {
    /// Prints the list.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends("audiences", self.list(config, out).await)
    }

    async fn list(&self, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        let daemon = Daemon::of(config)?;
        let known: Answer<Vec<DestinationInfo>> = daemon.get(&API, &Nothing {}).await?;
        let wanted = |info: &DestinationInfo| {
            self.destination.as_ref().is_none_or(|name| *name == info.name)
        };
        let known: Vec<DestinationInfo> = known.value.into_iter().filter(wanted).collect();
        if let (Some(name), []) = (&self.destination, &known[..]) {
            return Err(Silent::usage(format!("there is no destination {name}")));
        }
        let mut listed = Vec::new();
        for DestinationInfo { name, configured, .. } in &known {
            let path = of(name, &["audiences"]);
            let answer: Answer<Vec<AudienceInfo>> = daemon.get(&path, &Nothing {}).await?;
            let of_this =
                |audience| Listed { destination: name.clone(), configured: *configured, audience };
            listed.extend(answer.value.into_iter().map(of_this));
        }
        if self.json {
            let text = serde_json::to_string(&listed).map_err(|_| Silent::usage("no JSON"))?;
            return Ok(writeln!(out, "{text}"));
        }
        Ok(print_audiences(&known, &listed, out))
    }
}

fn print_audiences(
    known: &[DestinationInfo],
    listed: &[Listed],
    out: &mut impl Write,
) -> Result<()> {
    if listed.is_empty() {
        writeln!(out, "no audience has members")?;
    } else {
        let rows: Vec<_> = listed.iter().map(audience_row).collect();
        let heading = [
            "destination",
            "audience",
            "id",
            "kind",
            "#members",
            "#pending",
            "pending since",
            "#parked",
            "parked since",
            "under way",
        ];
        table(out, heading, &rows)?;
    }
    for info in known {
        let name = &info.name;
        if !info.configured {
            writeln!(
                out,
                "\n{name} is not configured: rows are kept; cohortd ledger rename moves them, cohortd \
                 drop {name} forgets them"
            )?;
        }
        if let Some(since) = &info.paused_since {
            writeln!(out, "\n{name} is paused since {since}")?;
        }
        if info.rejected > 0 {
            writeln!(
                out,
                "\n{name} keeps {} rejected event(s): cohortd rejected list {name}",
                info.rejected
            )?;
        }
    }
    Ok(())
}

fn audience_row(Listed { destination, audience: info, .. }: &Listed) -> [String; 10] {
    [
        destination.clone(),
        info.audience_key.clone(),
        info.audience.clone(),
        info.context_kind.clone(),
        info.included.to_string(),
        info.pending.to_string(),
        dash(info.pending_since.as_ref()),
        info.parked.to_string(),
        dash(info.parked_since.as_ref()),
        dash(info.under_way.as_ref()),
    ]
}

/// Shows a person.
#[derive(Args, Clone)]
pub struct MemberCommand {
    /// Whose audiences
    destination: String,
    /// The context key, or Segment's user id
    key: String,
    /// Print what the daemon says, for programs
    #[arg(long)]
    json: bool,
}

impl MemberCommand {
    /// Prints every audience of the person.
    pub async fn run(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        ends("member", self.show(config, out).await)
    }

    async fn show(&self, config: &Config, out: &mut impl Write) -> Told<Result<()>> {
        if matches!(self.key.as_str(), "" | "." | "..") {
            let words =
                "a key that is empty or only dots cannot be asked for: see `cohortd ledger export`";
            return Err(Silent::usage(words));
        }
        let path = of(&self.destination, &["members", &self.key]);
        let daemon = Daemon::of(config)?;
        let answer: Answer<Vec<MemberInfo>> = daemon.get(&path, &Nothing {}).await?;
        if self.json {
            return Ok(json(&answer, out));
        }
        if answer.value.is_empty() {
            return Ok(writeln!(out, "{} knows nobody of that key or user id", self.destination));
        }
        let rows: Vec<_> = answer.value.iter().map(member_row).collect();
        let heading = [
            "audience",
            "id",
            "kind",
            "key",
            "should be",
            "since",
            "LaunchDarkly knows",
            "told at",
        ];
        Ok(table(out, heading, &rows))
    }
}

fn member_row(info: &MemberInfo) -> [String; 8] {
    let word = |included| if included { "in" } else { "out" };
    let knows = info.told.map_or("nothing", word);
    let knows = match (info.parked, info.pending) {
        (true, _) => format!("{knows} (refused: parked)"),
        (_, true) => format!("{knows} (waits)"),
        _ => knows.to_owned(),
    };
    [
        info.audience_key.clone(),
        info.audience.clone(),
        info.context_kind.clone(),
        info.context_key.clone(),
        word(info.included).to_owned(),
        info.event_at.clone(),
        knows,
        dash(info.told_at.as_ref()),
    ]
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
        let daemon = Daemon::of(config)?;
        let answer: Answer<Done> = daemon.post(&of(&name, &["resync"]), &what).await?;
        if self.json {
            return Ok(json(&answer, out));
        }
        let Done { count, left_alone } = &answer.value;
        let what = match (self.stop, self.retract_stale) {
            (true, _) => "no resync of them is under way now",
            (_, true) => "stale members are being removed",
            _ => "every member is told again, as fast as LaunchDarkly allows",
        };
        let printed = writeln!(
            out,
            "{name}: {count} audience(s): {what}; `cohortd audiences {name}` shows how far it is"
        );
        Ok(printed.and_then(|()| {
            left_alone.iter().try_for_each(|line| writeln!(out, "left alone: {line}"))
        }))
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
        let daemon = Daemon::of(config)?;
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
        let daemon = Daemon::of(config)?;
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
        let daemon = Daemon::of(config)?;
        let answer: Answer<Done> = daemon.post(&of(name, &["drop"]), &what).await?;
        if self.json {
            return Ok(json(&answer, out));
        }
        let whose =
            self.audience.as_ref().map_or_else(|| name.clone(), |id| format!("{name}, {id}"));
        let how = if self.retract {
            "members leave their segments and are forgotten as soon as LaunchDarkly has been told"
        } else {
            "forgotten; LaunchDarkly's segments stay as they are"
        };
        Ok(writeln!(out, "{whose}: {how}"))
    }
}

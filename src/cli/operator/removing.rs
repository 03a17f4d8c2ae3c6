//! `cohortd forget` and `cohortd drop`: removals that cannot be undone.

use std::io::{Result, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::lists::{all_audiences, all_members};
use super::rejected::count_of;
use super::{
    Told, destination_and_audience, destination_and_person, ends, json, json_of, many, of,
    print_dry_run,
};
use crate::cli::Exit;
use crate::cli::asking::Asking;
use crate::cli::consent::Consent;
use crate::cli::daemon::{Answer, Silent};
use crate::cli::follow::Followed;
use crate::operate::api::wire::{AudienceInfo, Done, Drop, Forget, Work};

/// Forgets a person.
#[derive(Args, Clone)]
#[command(allow_missing_positional = true)]
pub struct ForgetCommand {
    /// The destination; not needed if there is only one
    destination: Option<String>,
    /// Segment's user id
    user_id: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    asking: Asking,
}

impl ForgetCommand {
    /// Asks the daemon to forget the person.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("forget", self.forget(file, out).await)
    }

    async fn forget(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        let daemon = self.asking.daemon(file)?;
        let who = self.user_id.as_str();
        let name = destination_and_person(&daemon, self.destination.as_ref(), who).await?;
        if self.consent.dry_run || self.consent.is_asked_for() {
            let mut known: Vec<_> =
                all_members(&daemon, &name, who).await?.into_iter().map(|of| of.audience).collect();
            known.dedup(); // they come in the order of their audiences
            let count = known.len() as u64;
            let rejected = count_of(&daemon, &name, who).await?;
            if self.consent.dry_run && self.asking.json {
                return Ok(json_of(&DryForget { count, rejected, dry_run: true }, out));
            }
            let known = if count == 0 {
                "nobody with that user id is known in any audience".to_owned()
            } else {
                format!("the person is known in {}: {}", many(count, "audience"), known.join(", "))
            };
            let kept = match rejected {
                0 => "no rejected event of theirs is kept".to_owned(),
                1 => "1 rejected event of theirs is kept".to_owned(),
                more => format!("{more} rejected events of theirs are kept"),
            };
            let words = format!("{name}: {known}; {kept}");
            if self.consent.dry_run {
                let would = "; all of that would be erased, and older events that arrive late \
                             would not count";
                return Ok(print_dry_run(count, &(words + would), false, out));
            }
            self.consent.ask(&format!(
                "{words}. The person is removed from LaunchDarkly's segments, and all of this is \
                 erased for good"
            ))?;
        }
        let what = Forget { user_id: self.user_id.clone() };
        let answer: Answer<Done> = daemon.post(&of(&name, &["forget"]), &what).await?;
        if self.asking.json {
            return Ok(json(&answer, out));
        }
        Ok(match answer.value.count {
            0 => writeln!(
                out,
                "{name}: nobody with that user id is known in any audience; older events that \
                 arrive late will not count, and rejected events of theirs are erased"
            ),
            count => writeln!(
                out,
                "{name}: the person was known in {}; their data is erased as soon as LaunchDarkly \
                 has been told that they left",
                many(count, "audience")
            ),
        })
    }
}

/// What would be done.
#[derive(Serialize)]
struct DryForget {
    /// Audiences, as the daemon would count them.
    count: u64,
    /// Rejected events.
    rejected: u64,
    dry_run: bool,
}

/// Drops rows.
#[derive(Args, Clone, Debug)]
pub struct DropCommand {
    /// The destination; it may be one that is no longer configured. Not needed before an audience if there is
    /// only one
    #[arg(value_name = "DESTINATION")]
    first: Option<String>,
    /// Only this audience, by its id
    #[arg(value_name = "AUDIENCE")]
    second: Option<String>,
    /// First remove all members from their segments in LaunchDarkly
    #[arg(long)]
    retract: bool,
    /// With --retract: show the progress until everybody is gone; Ctrl-C stops the display, not the work
    #[arg(long, requires = "retract")]
    wait: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    asking: Asking,
}

impl DropCommand {
    /// Asks the daemon to drop the rows.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("drop", self.drop_rows(file, out).await)
    }

    async fn drop_rows(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        let (first, second) = (self.first.as_ref(), self.second.as_ref());
        let is_harmless = self.consent.dry_run || self.consent.is_asked_for() || self.consent.yes;
        if first.is_none() && !is_harmless {
            // `drop $AUDIENCE` with an empty variable would mean the whole destination.
            let words = "say what to drop: an audience by its id, or the destination for all of \
                         it; --yes alone means all of it";
            return Err(Silent::usage(words));
        }
        let daemon = self.asking.daemon(file)?;
        let (name, audience) = destination_and_audience(&daemon, first, second).await?;
        if self.consent.dry_run || self.consent.is_asked_for() {
            let known = all_audiences(&daemon, &name).await?;
            let concerned: Vec<&AudienceInfo> = known
                .iter()
                .filter(|of| audience.as_ref().is_none_or(|only| *only == of.audience))
                .collect();
            if let Some(audience) = audience.as_ref().filter(|_| concerned.is_empty()) {
                let words =
                    format!("there is no audience {audience}; `cohortd audiences` lists them");
                return Err(Silent::usage(words));
            }
            let count = concerned.len() as u64;
            let members = concerned.iter().map(|of| of.included).sum();
            let what = format!(
                "{}: {}",
                many(count, "audience"),
                self.done_to(&format!(
                    "{} in {}",
                    many(members, "member"),
                    if count == 1 { "it" } else { "them" }
                ))
            );
            let what = format!("{}: {what}", shown(&name, audience.as_ref()));
            if self.consent.dry_run {
                return Ok(print_dry_run(count, &what, self.asking.json, out));
            }
            self.consent.ask(&what)?;
        }
        let what = Drop { audience: audience.clone(), retract: self.retract };
        let answer: Answer<Done> = daemon.post(&of(&name, &["drop"]), &what).await?;
        let printed = if self.asking.json {
            json(&answer, out)
        } else {
            writeln!(out, "{}: {}", shown(&name, audience.as_ref()), self.done_to("members"))
        };
        if let Err(error) = printed {
            return Ok(Err(error));
        }
        if self.wait {
            let (audience, work) = (audience.as_deref(), Some(Work::Retract));
            Followed { daemon: &daemon, destination: &name, audience, work }.to_its_end().await?;
        }
        Ok(Ok(()))
    }

    fn done_to(&self, members: &str) -> String {
        if self.retract {
            format!(
                "{members} leave their segments and are forgotten as soon as LaunchDarkly has been told"
            )
        } else {
            format!("{members} are forgotten; LaunchDarkly's segments stay as they are")
        }
    }
}

fn shown(name: &str, audience: Option<&String>) -> String {
    audience.map_or_else(|| name.to_owned(), |id| format!("{name}, {id}"))
}

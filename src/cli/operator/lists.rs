//! `cohortd audiences` and `cohortd member`: lists of what the ledger holds, put together from pages.

use std::io::{Result, Write};
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{API, Told, dash, destination_and_person, ends, json_of, not_among, of};
use crate::cli::Exit;
use crate::cli::asking::Asking;
use crate::cli::daemon::{Answer, Daemon, Silent};
use crate::cli::table::table;
use crate::operate::api::wire::{
    AudienceInfo, DestinationInfo, GuardInfo, ListQuery, MemberInfo, MemberQuery,
};

/// Items on a page.
const PAGE: u32 = 1000;

/// Fetches all pages of a list; `after` makes the query for the page that follows an item.
async fn all_parts<T: DeserializeOwned, Q: Serialize>(
    daemon: &Daemon,
    path: &[&str],
    mut query: Q,
    after: impl Fn(&T) -> Q,
) -> Told<Vec<T>> {
    let mut all = Vec::new();
    loop {
        let part: Answer<Vec<T>> = daemon.get(path, &query).await?;
        let is_last = part.value.len() < PAGE as usize;
        all.extend(part.value);
        match all.last() {
            Some(last) if !is_last => query = after(last),
            _ => return Ok(all),
        }
    }
}

fn page_after(after: Option<&String>) -> ListQuery {
    ListQuery { after: after.cloned(), limit: Some(PAGE) }
}

pub(super) async fn all_destinations(daemon: &Daemon) -> Told<Vec<DestinationInfo>> {
    all_parts(daemon, &API, page_after(None), |last: &DestinationInfo| page_after(Some(&last.name)))
        .await
}

/// The audiences of a destination, sorted by audience key.
pub(in crate::cli) async fn all_audiences(
    daemon: &Daemon,
    destination: &str,
) -> Told<Vec<AudienceInfo>> {
    let path = of(destination, &["audiences"]);
    let after = |last: &AudienceInfo| page_after(Some(&last.audience));
    let mut known = all_parts(daemon, &path, page_after(None), after).await?;
    known.sort_by(|one, other| one.audience_key.cmp(&other.audience_key));
    Ok(known)
}

/// The audiences of a destination that the guard holds.
pub(super) async fn all_held(daemon: &Daemon, destination: &str) -> Told<Vec<GuardInfo>> {
    let path = of(destination, &["guard"]);
    let after = |last: &GuardInfo| page_after(Some(&last.audience));
    all_parts(daemon, &path, page_after(None), after).await
}

/// Lists audiences.
#[derive(Args, Clone, Debug)]
pub struct AudiencesCommand {
    /// The destination; without it, every destination that the ledger knows
    destination: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// An audience with its destination.
#[derive(Serialize)]
struct Listed {
    destination: String,
    configured: bool,
    #[serde(flatten)]
    audience: AudienceInfo,
}

impl AudiencesCommand {
    /// Prints the list.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("audiences", self.list(file, out).await)
    }

    async fn list(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        let daemon = self.asking.daemon(file)?;
        let mut known = all_destinations(&daemon).await?;
        if let Some(name) = &self.destination {
            if !known.iter().any(|info| info.name == *name) {
                return Err(not_among(name, &known));
            }
            known.retain(|info| info.name == *name);
        }
        let mut listed = Vec::new();
        for DestinationInfo { name, configured, .. } in &known {
            let audiences = all_audiences(&daemon, name).await?;
            let of_this =
                |audience| Listed { destination: name.clone(), configured: *configured, audience };
            listed.extend(audiences.into_iter().map(of_this));
        }
        if self.asking.json {
            return Ok(json_of(&listed, out));
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
    listed.iter().try_for_each(|of| print_expiry(of, out))?;
    listed.iter().try_for_each(|of| print_failing(of, out))?;
    for info in known {
        let name = &info.name;
        if !info.configured {
            writeln!(
                out,
                "\n{name} is not configured: its rows are kept; cohortd ledger rename moves them, \
                 cohortd drop {name} deletes them"
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

/// Prints how long the entries of an audience last.
fn print_expiry(Listed { destination, audience, .. }: &Listed, out: &mut impl Write) -> Result<()> {
    let Some(after_s) = audience.expires_after_s else { return Ok(()) };
    let id = &audience.audience;
    writeln!(
        out,
        "\n{destination}, audience {id}: entries expire {after_s} s after their event time"
    )
}

/// Prints why calls for an audience fail, and when the next attempt is due.
fn print_failing(
    Listed { destination, audience, .. }: &Listed,
    out: &mut impl Write,
) -> Result<()> {
    let Some(of) = &audience.failing else { return Ok(()) };
    writeln!(
        out,
        "\n{destination}, audience {}, {} failures {}since {}: {}\n  what to do: {}\n  next attempt: {}",
        of.audience,
        of.failures,
        if of.partly_taken { "among calls that succeeded, " } else { "in a row " },
        of.since,
        of.sentence(),
        of.remedy,
        of.next_attempt_at
    )
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
        under_way(info),
    ]
}

/// The operation under way; or that the guard holds the audience.
fn under_way(info: &AudienceInfo) -> String {
    match (&info.under_way, &info.walk, &info.held_since) {
        (Some(what), Some(walk), _) => format!("{what}: {} of {}", walk.done, walk.total),
        (None, _, Some(since)) => format!("held by the guard since {since}"),
        (what, ..) => dash(what.as_ref()),
    }
}

/// Everything known of a person, sorted by audience.
pub(super) async fn all_members(
    daemon: &Daemon,
    destination: &str,
    key: &str,
) -> Told<Vec<MemberInfo>> {
    if matches!(key, "" | "." | "..") {
        let words =
            "a key that is empty or only dots cannot be looked up: see `cohortd ledger export`";
        return Err(Silent::usage(words));
    }
    let path = of(destination, &["members", key]);
    let first = MemberQuery { limit: Some(PAGE), ..MemberQuery::default() };
    let after = |last: &MemberInfo| MemberQuery {
        after_audience: Some(last.audience.clone()),
        after_key: Some(last.context_key.clone()),
        limit: Some(PAGE),
    };
    all_parts(daemon, &path, first, after).await
}

/// Shows a person.
#[derive(Args, Clone)]
#[command(allow_missing_positional = true)]
pub struct MemberCommand {
    /// The destination; not needed if there is only one
    destination: Option<String>,
    /// The context key, or Segment's user id
    key: String,
    #[command(flatten)]
    asking: Asking,
}

impl MemberCommand {
    /// Prints every audience of the person.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        ends("member", self.show(file, out).await)
    }

    async fn show(&self, file: Option<&Path>, out: &mut impl Write) -> Told<Result<()>> {
        let daemon = self.asking.daemon(file)?;
        let name = destination_and_person(&daemon, self.destination.as_ref(), &self.key).await?;
        let found = all_members(&daemon, &name, &self.key).await?;
        if self.asking.json {
            return Ok(json_of(&found, out));
        }
        if found.is_empty() {
            return Ok(writeln!(out, "{name} knows nobody with that key or user id"));
        }
        let rows: Vec<_> = found.iter().map(member_row).collect();
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
        match &info.expires_at {
            Some(at) if info.included => format!("in until {at}"),
            Some(at) => format!("out (expired at {at})"),
            None if info.expired => "out (expired)".to_owned(),
            None => word(info.included).to_owned(),
        },
        info.event_at.clone(),
        knows,
        dash(info.told_at.as_ref()),
    ]
}

//! `POST …/reconcile`: brings an audience to what a snapshot says ([`crate::operate::reconcile`]).
//!
//! All of it happens within the request: whoever breaks it off ends it, and the same request again does what
//! is left.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::wire::{Reconcile, Reconciled, instant};
use super::{Api, Asked, Destination, Problem};
use crate::json::Json;
use crate::ledger::{Fact, Intake, LedgerError, Origin, Standing};
use crate::map::ContextKeyRule;
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, MembershipDelta,
    Timestamp, UserId,
};
use crate::operate::reconcile::comparison::{Finding, compare};
use crate::operate::reconcile::reading::{Fault, Layout, Read, Reader};
use crate::operate::reconcile::spool::{Merged, Sorter, Spool};
use crate::receive::Peer;

/// How long the next piece of a snapshot may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory in which keys are sorted.
const SORTING_BYTES: usize = 16 << 20;
/// Bytes of a snapshot that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Members in one page of the ledger.
const PAGE: u32 = 2000;
/// Changes that are recorded together.
const SLICE: usize = 1000;
/// No change is recorded while this many members of the audience wait: ordinary delivery goes first.
const AHEAD: u64 = 5000;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Context keys shown as examples.
const EXAMPLES: usize = 5;
/// Exits that need no confirmation, in percent of the members.
const MAX_EXITS_PERCENT: u8 = 20;
/// An earlier time is a mistake: an event's would not be believed either.
const EARLIEST: Timestamp = Timestamp(1_262_304_000_000_000);
/// One at a time, so that memory is bounded.
static TURN: Semaphore = Semaphore::const_new(1);

/// Makes a snapshot the truth of an audience at its time. Personal
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/reconcile",
    operation_id = "reconcile",
    params(Reconcile),
    request_body(content = String, content_type = "application/octet-stream",
        description = "CSV, JSON lines, or one context key a line"),
    responses(
        (status = 200, description = "It is recorded, or would be, and is delivered next", body = Reconciled),
        (status = 400, description = "The query has an unknown parameter, an invalid value, or lacks one; or \
                                      the body was cut off"),
        (status = 409, description = "It looks like a mistake and `yes` is not set, another one is under way, \
                                      or the audience cannot take it"),
        (status = 415, description = "The Content-Type of the body is not application/octet-stream"),
        (status = 422, description = "The snapshot cannot be read; the problem says where"),
    )
)]
pub(super) async fn reconcile(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(asked): Asked<Reconcile>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Result<Json<Reconciled>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/octet-stream")) {
        let detail = "a snapshot needs Content-Type: application/octet-stream";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let mut body = request.into_body();
    let stopping = api.stopping.clone();
    let from = peer.map(|Extension(Peer(address))| address);
    let answer = tokio::select! {
        answer = carried_out(&api, name, &asked, from, &mut body) => answer,
        () = stopping.cancelled() => {
            let detail = "the daemon stops; type the same again once it runs, and what is left is done";
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
    };
    if answer.is_err() {
        // Read to its end, so that its sender sees the answer.
        while let Ok(Some(Ok(_))) = timeout(PIECE_TIMEOUT, body.frame()).await {}
    }
    answer.map(Json)
}

fn bad(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem::new(status, detail)
}

async fn carried_out(
    api: &Api,
    name: DestinationName,
    asked: &Reconcile,
    from: Option<IpAddr>,
    body: &mut Body,
) -> Result<Reconciled, Problem> {
    let _turn = TURN.try_acquire().map_err(|_| {
        bad(StatusCode::CONFLICT, "another reconcile is under way; try again when it has ended")
    })?;
    let target = Target::of(api, name, asked).await?;
    let (read, spool) = target.spooled(api, body).await?;
    let plan = target.planned(api, &spool).await?;
    let refusal = plan.refusal(asked.max_exits.unwrap_or(MAX_EXITS_PERCENT));
    let refusal = refusal.filter(|_| !asked.yes);
    if let Some(refusal) = refusal.as_ref().filter(|_| !asked.dry_run) {
        return Err(bad(StatusCode::CONFLICT, format!("{refusal}; nothing was done")));
    }
    if !asked.dry_run {
        target.apply(api, &spool, &plan, from).await?;
    }
    Ok(Reconciled {
        audience: target.audience.as_str().to_owned(),
        as_of: instant(target.as_of),
        lines: read.lines,
        without_key: read.without_key,
        enter: plan.enter,
        leave: plan.leave,
        stay: plan.stay,
        newer: plan.newer,
        dry_run: asked.dry_run,
        refusal,
        entering: plan.entering,
        leaving: plan.leaving,
    })
}

/// The audience, and how its members are made.
struct Target {
    destination: DestinationName,
    audience: AudienceId,
    audience_key: AudienceKey,
    context_kind: ContextKind,
    as_of: Timestamp,
    key_rule: u32,
    column: Option<String>,
    /// The snapshot is older than the ledger remembers who left.
    is_forgotten: bool,
}

impl Target {
    async fn of(
        api: &Api,
        destination: DestinationName,
        asked: &Reconcile,
    ) -> Result<Self, Problem> {
        let lacks = |what: &str| bad(StatusCode::BAD_REQUEST, format!("the query lacks {what}"));
        let unfit = |what: &str| bad(StatusCode::UNPROCESSABLE_ENTITY, what);
        let audience = asked.audience.as_deref().ok_or_else(|| lacks("audience"))?;
        let audience =
            AudienceId::new(audience).ok_or_else(|| unfit("an audience id must not be empty"))?;
        let as_of = asked.as_of.as_deref().ok_or_else(|| lacks("as_of"))?;
        let as_of: jiff::Timestamp = as_of.parse().map_err(|_| {
            bad(StatusCode::BAD_REQUEST, "as_of is no time, as in 2026-01-31T12:00:00Z")
        })?;
        let as_of = Timestamp(as_of.as_microsecond());
        if asked.max_exits.is_some_and(|percent| percent > 100) {
            return Err(bad(StatusCode::BAD_REQUEST, "max_exits is a percentage: from 0 to 100"));
        }
        let now = api.ledger.arrival();
        if as_of > now {
            return Err(unfit("as_of lies in the future: it would undo what happens until then"));
        }
        if as_of < EARLIEST {
            return Err(unfit("as_of lies before 2010"));
        }
        let configured = api.configured(&destination)?;
        let views = api.ledger.audiences(&destination).await?;
        let view = views.into_iter().find(|view| view.audience == audience.as_str());
        if view
            .as_ref()
            .and_then(|view| view.walk.as_ref())
            .is_some_and(|walk| walk.task == "retract")
        {
            return Err(LedgerError::Retracting(audience).into());
        }
        let (key, kind) = match &view {
            Some(view) => (Some(view.audience_key.as_str()), view.context_kind.as_str()),
            None => {
                (asked.audience_key.as_deref(), asked.context_kind.as_deref().unwrap_or("user"))
            }
        };
        let Some(key) = key else {
            let detail = format!(
                "the ledger has no members of {}: `cohortd audiences` lists whom it knows; for a new audience \
                 give its key too (--audience-key), and its context kind if that is not user (--context-kind)",
                audience.as_str()
            );
            return Err(bad(StatusCode::NOT_FOUND, detail));
        };
        let audience_key =
            AudienceKey::new(key).ok_or_else(|| unfit("an audience key must not be empty"))?;
        let context_kind = ContextKind::new(kind)
            .ok_or_else(|| unfit("this is no context kind of LaunchDarkly"))?;
        let key_rule = configured.mappings.key_rules(&audience_key).first().copied().unwrap_or(0);
        let is_forgotten = as_of < now.before(api.tombstone_ttl);
        let column = asked.column.clone();
        Ok(Self {
            destination,
            audience,
            audience_key,
            context_kind,
            as_of,
            key_rule,
            column,
            is_forgotten,
        })
    }

    /// The identifiers that the mapping's rule takes, and whether a key may be a user id.
    fn identifiers(&self) -> (&'static [&'static str], bool) {
        let rule = ContextKeyRule::ALL
            .into_iter()
            .find(|rule| u32::from(rule.number()) == self.key_rule & 0xff)
            .unwrap_or(ContextKeyRule::UserIdOnly);
        match rule {
            ContextKeyRule::UserIdOnly => (&["user_id"], true),
            ContextKeyRule::EmailOnly => (&["email"], false),
            ContextKeyRule::UserIdThenEmail => (&["user_id", "email"], true),
            ContextKeyRule::UserIdThenAnonymousId => (&["user_id", "anonymous_id"], true),
            ContextKeyRule::UserIdThenEmailThenAnonymousId => {
                (&["user_id", "email", "anonymous_id"], true)
            }
        }
    }

    /// Reads the snapshot and sorts its keys on disk.
    async fn spooled(&self, api: &Api, body: &mut Body) -> Result<(Read, Spool), Problem> {
        let (identifiers, is_user_id) = self.identifiers();
        let layout = Layout {
            column: self.column.clone(),
            identifiers,
            is_user_id,
            audience_key: self.audience_key.as_str().to_owned(),
        };
        let directory = api.ledger_path.clone();
        let sorter = blocking(move || Sorter::new(&directory, SORTING_BYTES)).await?;
        let mut both = (Reader::new(layout), sorter.map_err(Fault::Disk)?);
        let mut ends = false;
        while !ends {
            let mut piece = Vec::new();
            while piece.len() < PIECE_BYTES && !ends {
                match next_bytes(body).await? {
                    Some(bytes) => piece.extend_from_slice(&bytes),
                    None => ends = true,
                }
            }
            let runs = both.1.runs();
            both = blocking(move || {
                let (mut reader, mut sorter) = both;
                reader.feed(&piece, &mut |key, user_id| sorter.add(key, user_id))?;
                Ok::<_, Fault>((reader, sorter))
            })
            .await??;
            if both.1.runs() > runs {
                has_room(api).await?;
            }
        }
        let read = blocking(move || {
            let (reader, mut sorter) = both;
            let read = reader.finish(&mut |key, user_id| sorter.add(key, user_id))?;
            Ok::<_, Fault>((read, sorter.finish()?))
        });
        Ok(read.await??)
    }

    async fn planned(&self, api: &Api, spool: &Spool) -> Result<Plan, Problem> {
        let mut plan = Plan { is_forgotten: self.is_forgotten, ..Plan::default() };
        let mut walk = Walk::begin(spool)?;
        while let Some(findings) = walk.next(api, self).await? {
            for finding in &findings {
                plan.count(finding);
            }
        }
        Ok(plan)
    }

    /// Records the changes, as fast as they are delivered.
    async fn apply(
        &self,
        api: &Api,
        spool: &Spool,
        plan: &Plan,
        from: Option<IpAddr>,
    ) -> Result<(), Problem> {
        let mut applied = Applied { of: self, api, from, enter: 0, leave: 0, is_whole: false };
        let total = plan.enter + plan.leave;
        let outbox = api.ledger.outbox(&self.destination);
        let mut walk = Walk::begin(spool)?;
        let mut deltas = Vec::new();
        let mut goes_on = true;
        while goes_on {
            match walk.next(api, self).await? {
                Some(findings) => {
                    deltas.extend(findings.into_iter().filter_map(|finding| self.delta(finding)));
                }
                None => goes_on = false,
            }
            while deltas.len() >= SLICE || (!goes_on && !deltas.is_empty()) {
                let rest = deltas.split_off(deltas.len().min(SLICE));
                let slice = std::mem::replace(&mut deltas, rest);
                loop {
                    applied.show(total);
                    let backlog = outbox.backlog().await?;
                    let own = backlog.iter().find(|of| of.audience == self.audience);
                    if own.is_none_or(|of| of.waiting < AHEAD) {
                        break;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                self.record(api, slice, &mut applied).await?;
            }
        }
        applied.is_whole = true;
        Ok(())
    }

    async fn record(
        &self,
        api: &Api,
        deltas: Vec<MembershipDelta>,
        applied: &mut Applied<'_>,
    ) -> Result<(), Problem> {
        let enter = deltas.iter().filter(|delta| delta.membership.as_bool()).count() as u64;
        let leave = deltas.len() as u64 - enter;
        let intake = Intake {
            destination: self.destination.clone(),
            arrival: api.ledger.arrival(),
            deltas,
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: Origin::Snapshot,
        };
        let recorded = api.ledger.record(intake).await?;
        if !recorded.kind_conflicts.is_empty() {
            let detail = "the audience has another context kind: give it with --context-kind";
            return Err(bad(StatusCode::CONFLICT, detail));
        }
        if !recorded.without_place.is_empty() {
            let detail = "the destination has as many audiences as ledger.max_audiences allows";
            return Err(bad(StatusCode::CONFLICT, detail));
        }
        (applied.enter, applied.leave) = (applied.enter + enter, applied.leave + leave);
        Ok(())
    }

    fn delta(&self, finding: Finding) -> Option<MembershipDelta> {
        let (context_key, user_id, membership) = match finding {
            Finding::Enters(entry) => {
                let user_id = entry.user_id.as_deref().and_then(UserId::new);
                (ContextKey::new(&entry.key)?, user_id, Membership::In)
            }
            Finding::Leaves(context_key) => (context_key, None, Membership::Out),
            Finding::Stays | Finding::Newer { .. } => return None,
        };
        Some(MembershipDelta {
            audience: self.audience.clone(),
            audience_key: self.audience_key.clone(),
            context_kind: self.context_kind.clone(),
            context_key,
            membership,
            event_at: self.as_of,
            user_id,
            key_rule: self.key_rule,
            message: None,
        })
    }
}

/// What was recorded so far. Its end is logged, however it comes, in one line.
struct Applied<'a> {
    of: &'a Target,
    api: &'a Api,
    from: Option<IpAddr>,
    enter: u64,
    leave: u64,
    is_whole: bool,
}

impl Applied<'_> {
    fn show(&self, total: u64) {
        let Target { destination, audience, .. } = self.of;
        let clock = self.api.ledger.arrival();
        self.api.courses.reconciled(
            destination,
            audience,
            Some((self.enter + self.leave, total)),
            clock,
        );
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let Target { destination, audience, as_of, .. } = self.of;
        self.api.courses.reconciled(destination, audience, None, Timestamp::EPOCH);
        let from = self.from.map(|address| address.to_string());
        super::audit!(
            destination,
            "audience reconciled with a snapshot",
            audience = audience.as_str(),
            as_of = instant(*as_of),
            entered = self.enter,
            left = self.leave,
            complete = self.is_whole,
            from = from
        );
    }
}

/// What the snapshot would change.
#[derive(Default)]
struct Plan {
    enter: u64,
    leave: u64,
    stay: u64,
    newer: u64,
    newer_in: u64,
    entering: Vec<String>,
    leaving: Vec<String>,
    is_forgotten: bool,
}

impl Plan {
    fn count(&mut self, finding: &Finding) {
        let (count, examples, key) = match finding {
            Finding::Enters(entry) => {
                (&mut self.enter, Some(&mut self.entering), entry.key.as_str())
            }
            Finding::Leaves(key) => (&mut self.leave, Some(&mut self.leaving), key.as_str()),
            Finding::Stays => (&mut self.stay, None, ""),
            Finding::Newer { is_in } => {
                self.newer_in += u64::from(*is_in);
                (&mut self.newer, None, "")
            }
        };
        *count += 1;
        if let Some(examples) = examples.filter(|examples| examples.len() < EXAMPLES) {
            examples.push(key.to_owned());
        }
    }

    /// Why it looks like a mistake, if it does.
    fn refusal(&self, max_exits: u8) -> Option<String> {
        let included = self.leave + self.stay + self.newer_in;
        let named = self.enter + self.stay;
        if included > 0 && self.stay.saturating_mul(100) < included.min(named) {
            return Some(format!(
                "of {included} members in the ledger and {named} in the file, {} are in both: this looks like \
                 another audience's file, another column or another kind of key; --yes does it all the same",
                self.stay
            ));
        }
        if self.leave.saturating_mul(100) > included.saturating_mul(max_exits.into()) {
            return Some(format!(
                "{} of {included} members would leave, more than {max_exits} %: look at a --dry-run, then \
                 raise --max-exits or use --yes",
                self.leave
            ));
        }
        (self.is_forgotten && self.enter > 0).then(|| {
            format!(
                "the file is older than the ledger remembers who left (ledger.tombstone_ttl_s), so some of \
                 the {} that would enter may have left since; --yes does it all the same",
                self.enter
            )
        })
    }
}

/// Snapshot and ledger, side by side.
struct Walk {
    snapshot: Peekable<Merged>,
    page: VecDeque<Standing>,
    after: Option<ContextKey>,
    ledger_ended: bool,
    is_over: bool,
}

impl Walk {
    fn begin(spool: &Spool) -> Result<Self, Problem> {
        let snapshot = spool.read().map_err(Fault::Disk)?.peekable();
        let page = VecDeque::new();
        Ok(Self { snapshot, page, after: None, ledger_ended: false, is_over: false })
    }

    /// The next findings; `None` at the end.
    async fn next(&mut self, api: &Api, of: &Target) -> Result<Option<Vec<Finding>>, Problem> {
        if self.is_over {
            return Ok(None);
        }
        if self.page.is_empty() && !self.ledger_ended {
            let Target { destination, audience, .. } = of;
            let after = self.after.as_ref();
            let page = api.ledger.standings(destination, audience, after, PAGE).await?;
            self.ledger_ended = page.len() < PAGE as usize;
            self.after = page.last().map(|last| last.context_key.clone());
            self.page = page.into();
        }
        // At most a few pieces of the file are read from the page cache or the disk: short, but a thread's time.
        let (as_of, ended) = (of.as_of, self.ledger_ended);
        let snapshot = std::mem::replace(&mut self.snapshot, Merged::none().peekable());
        let page = std::mem::take(&mut self.page);
        let compared = blocking(move || {
            let (mut snapshot, mut page, mut found) = (snapshot, page, Vec::new());
            let is_over = compare(&mut snapshot, (&mut page, ended), as_of, SLICE, &mut found)?;
            Ok::<_, io::Error>((snapshot, page, found, is_over))
        });
        let (snapshot, page, found, is_over) = compared.await?.map_err(Fault::Disk)?;
        (self.snapshot, self.page, self.is_over) = (snapshot, page, is_over);
        Ok(Some(found))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|_| {
        bad(StatusCode::SERVICE_UNAVAILABLE, "the comparison with the ledger was broken off")
    })
}

/// The next bytes of the snapshot; `None` at its end.
async fn next_bytes(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    loop {
        match timeout(PIECE_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Ok(Some(Err(_))) => {
                return Err(bad(StatusCode::BAD_REQUEST, "the snapshot was cut off"));
            }
            Err(_) => {
                let detail = "the snapshot did not arrive in time";
                return Err(bad(StatusCode::REQUEST_TIMEOUT, detail));
            }
        }
    }
}

/// Whether the disk has room for more keys: the ledger needs its own.
async fn has_room(api: &Api) -> Result<(), Problem> {
    let facts = api.ledger.facts().await?;
    let free = facts.iter().find_map(|fact| match fact {
        Fact::FreeBytes(bytes) => Some(*bytes),
        _ => None,
    });
    let enough = free.is_none_or(|bytes| bytes > 4 * SORTING_BYTES as u64);
    if enough && api.ledger.takes_writes() {
        return Ok(());
    }
    let detail = "the disk of the ledger has no room to sort the snapshot; nothing was done";
    Err(bad(StatusCode::SERVICE_UNAVAILABLE, detail))
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let status = match fault {
            Fault::Disk(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        bad(status, format!("{fault}; nothing was done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_mistake_is_refused_with_the_reason() {
        let plan =
            |enter, leave, stay, newer_in| Plan { enter, leave, stay, newer_in, ..Plan::default() };
        let rows = [
            (plan(5, 0, 0, 0), 20, ""),
            (plan(0, 20, 80, 0), 20, ""),
            (plan(0, 21, 79, 0), 20, "21 of 100 members would leave, more than 20 %"),
            (plan(0, 21, 69, 10), 21, ""),
            (plan(0, 1, 99, 0), 0, "1 of 100 members would leave"),
            (plan(1000, 1000, 9, 0), 100, "9 are in both"),
            (plan(1000, 1000, 11, 0), 100, ""),
            (plan(0, 3, 0, 0), 100, ""),
            (
                Plan { is_forgotten: true, ..plan(1, 0, 9, 0) },
                20,
                "older than the ledger remembers",
            ),
            (Plan { is_forgotten: true, ..plan(0, 1, 9, 0) }, 20, ""),
        ];
        for (plan, max_exits, expected) in rows {
            let said = plan.refusal(max_exits).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        }
    }
}

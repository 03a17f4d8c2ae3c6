//! The audience of a reconciliation, and what is asked of it, checked.

use std::net::IpAddr;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::json;
use crate::ledger::{Changed, LedgerError, ReconciliationView};
use crate::map::ContextKeyRule;
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, MembershipDelta,
    Timestamp, UserId,
};
use crate::operate::api::wire::{Reconcile, instant};
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::comparison::Finding;

/// An earlier time is a mistake: an event's would not be believed either.
const EARLIEST: Timestamp = Timestamp(1_262_304_000_000_000);

/// The audience, and how its members are made.
pub(super) struct Target {
    pub destination: DestinationName,
    pub audience: AudienceId,
    pub audience_key: AudienceKey,
    pub context_kind: ContextKind,
    pub as_of: Timestamp,
    pub key_rule: u32,
    pub column: Option<String>,
    /// The snapshot is older than the ledger remembers who left.
    pub is_forgotten: bool,
    /// Entries expire, so whoever stays has entered anew.
    pub renews: bool,
    /// The address of who asked.
    pub from: Option<String>,
}

/// What is kept of it in the ledger.
#[derive(Serialize, Deserialize)]
struct About {
    audience_key: String,
    context_kind: String,
    as_of: i64,
    key_rule: u32,
    from: Option<String>,
}

impl Target {
    pub async fn of(
        api: &Api,
        destination: DestinationName,
        asked: &Reconcile,
        from: Option<IpAddr>,
    ) -> Result<Self, Problem> {
        let lacks =
            |what: &str| Problem::new(StatusCode::BAD_REQUEST, format!("the query lacks {what}"));
        let unfit = |what: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what);
        let audience = asked.audience.as_deref().ok_or_else(|| lacks("audience"))?;
        let audience =
            AudienceId::new(audience).ok_or_else(|| unfit("an audience id must not be empty"))?;
        let as_of = asked.as_of.as_deref().ok_or_else(|| lacks("as_of"))?;
        let as_of: jiff::Timestamp = as_of.parse().map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "as_of is no time, as in 2026-01-31T12:00:00Z")
        })?;
        let as_of = Timestamp(as_of.as_microsecond());
        if asked.max_exits.is_some_and(|percent| percent > 100) {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "max_exits is a percentage: from 0 to 100",
            ));
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
        if let Some(snapshot_at) = view.as_ref().and_then(|view| view.snapshot_at)
            && as_of < snapshot_at
        {
            let detail = format!(
                "the audience follows a file of {} already, and this one is older: it can change nothing",
                instant(snapshot_at)
            );
            return Err(Problem::new(StatusCode::CONFLICT, detail));
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
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        };
        let audience_key =
            AudienceKey::new(key).ok_or_else(|| unfit("an audience key must not be empty"))?;
        let context_kind = ContextKind::new(kind)
            .ok_or_else(|| unfit("this is no context kind of LaunchDarkly"))?;
        let key_rule = configured.mappings.key_rules(&audience_key).first().copied().unwrap_or(0);
        let is_forgotten = as_of < now.before(api.tombstone_ttl);
        let column = asked.column.clone();
        let renews = configured.expires_after.contains_key(&audience_key);
        Ok(Self {
            destination,
            audience,
            audience_key,
            context_kind,
            as_of,
            key_rule,
            column,
            is_forgotten,
            renews,
            from: from.map(|address| address.to_string()),
        })
    }

    /// What is to be kept of it in the ledger.
    pub fn about(&self) -> Result<String, Problem> {
        let about = About {
            audience_key: self.audience_key.as_str().to_owned(),
            context_kind: self.context_kind.as_str().to_owned(),
            as_of: self.as_of.0,
            key_rule: self.key_rule,
            from: self.from.clone(),
        };
        serde_json::to_string(&about)
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    /// What was kept of it in the ledger; `None`: it is not planned yet, or is not understood.
    pub fn kept(view: &ReconciliationView) -> Option<Self> {
        let about: About = json::from_str(&view.about).ok()?;
        Some(Self {
            destination: view.destination.clone(),
            audience: view.audience.clone(),
            audience_key: AudienceKey::new(&about.audience_key)?,
            context_kind: ContextKind::new(&about.context_kind)?,
            as_of: Timestamp(about.as_of),
            key_rule: about.key_rule,
            column: None,
            is_forgotten: false,
            renews: true, // who stays is kept only then
            from: about.from,
        })
    }

    /// How many members these findings change.
    pub fn changed_by(&self, findings: &[Finding]) -> Changed {
        let mut changed = Changed::default();
        for finding in findings {
            changed.done += u64::from(self.is_changed_by(finding));
            changed.entered += u64::from(matches!(finding, Finding::Enters(_)));
            changed.left += u64::from(matches!(finding, Finding::Leaves(_)));
        }
        changed
    }

    /// The identifiers that the mapping's rule takes, and whether a key may be a user id.
    pub fn identifiers(&self) -> (&'static [&'static str], bool) {
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

    /// Whether the ledger has to change for it.
    pub fn is_changed_by(&self, finding: &Finding) -> bool {
        match finding {
            Finding::Enters(_) | Finding::Leaves(_) => true,
            Finding::Stays { is_older, .. } => self.renews && *is_older,
            Finding::StaysOut(_) | Finding::Newer { .. } => false,
        }
    }

    /// What the snapshot says of one member.
    pub fn delta(&self, finding: &Finding) -> Option<MembershipDelta> {
        let entry = match finding {
            Finding::Enters(entry) | Finding::Stays { entry, .. } => Some(entry),
            Finding::Leaves(_) | Finding::StaysOut(_) | Finding::Newer { .. } => None,
        };
        let (context_key, membership) = match finding {
            Finding::Enters(entry) | Finding::Stays { entry, .. } => {
                (ContextKey::new(&entry.key)?, Membership::In)
            }
            Finding::Leaves(key) | Finding::StaysOut(key) => (key.clone(), Membership::Out),
            Finding::Newer { key, is_in } => (key.clone(), Membership::from_bool(!is_in)),
        };
        Some(MembershipDelta {
            audience: self.audience.clone(),
            audience_key: self.audience_key.clone(),
            context_kind: self.context_kind.clone(),
            context_key,
            membership,
            event_at: self.as_of,
            user_id: entry.and_then(|entry| entry.user_id.as_deref()).and_then(UserId::new),
            key_rule: self.key_rule,
            message: None,
        })
    }
}

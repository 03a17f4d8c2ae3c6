//! What the tasks and handles of one replica share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::since_boot;
use crate::counting::{Histogram, PerDestination};
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::hashes::HashKey;
use crate::ledger::postgres::members::{Changes, MemberKey};
use crate::ledger::postgres::pool::Pool;
use crate::ledger::postgres::settings::SharedSettings;
use crate::ledger::postgres::stamps::Stamps;
use crate::ledger::{DestinationSettings, HeldAudience, LedgerError, Recordings, Turnover};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// What the tasks and handles of one replica share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: SharedSettings,
    /// Identifies this process among the replicas.
    pub replica: String,
    pub pool: Pool,
    pub stamps: Stamps,
    pub hashes: HashKey,
    pub recordings: PerDestination<Recordings>,
    pub commit_rows: Histogram,
    pub commit_duration: Histogram,
    /// Whether the database takes writes, as far as is known.
    pub takes_writes: AtomicBool,
    /// It is being closed: nothing new begins.
    pub closing: CancellationToken,
    /// A task has failed.
    pub has_failed: AtomicBool,
    /// Every task has ended.
    pub is_stopped: Notify,
    known: Mutex<HashMap<DestinationName, Known>>,
}

/// A destination that is configured, or was since the start.
#[derive(Debug)]
pub(crate) struct Known {
    pub no: i32,
    pub settings: DestinationSettings,
    pub is_configured: bool,
    pub paused_since: Option<Timestamp>,
    pub lease: Option<Lease>,
    pub claims: Claims,
    pub news: watch::Sender<()>,
    /// Since it was last taken.
    pub turnover: HashMap<AudienceId, Turnover>,
    /// Who is to be told once more, and when.
    pub reassertions: Vec<(Instant, MemberKey)>,
    /// Audiences that are held, when somebody last looked.
    pub held: Vec<HeldAudience>,
}

/// The right to deliver to a destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// Grows with every owner.
    pub token: i64,
    /// Until when it lasts, by the time since boot.
    pub until: Duration,
}

/// Who is in which call.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    members: HashMap<(AudienceId, ContextKey), Claimed>,
    /// How many members of a call have not been reported.
    calls: HashMap<i64, usize>,
}

/// A member in a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub audience_no: i32,
    pub call: i64,
}

impl Claims {
    /// These are in a call.
    pub fn add(&mut self, audience: &AudienceId, keys: Vec<ContextKey>, claimed: Claimed) {
        *self.calls.entry(claimed.call).or_default() += keys.len();
        for key in keys {
            self.members.insert((audience.clone(), key), claimed);
        }
    }

    /// A member is reported.
    pub fn remove(&mut self, audience: &AudienceId, key: &ContextKey) {
        let Some(Claimed { call, .. }) = self.members.remove(&(audience.clone(), key.clone()))
        else {
            return;
        };
        if let Some(left) = self.calls.get_mut(&call) {
            *left = left.saturating_sub(1);
        }
        self.calls.retain(|_, left| *left > 0);
    }

    /// In which call a member is.
    pub fn of(&self, audience: &AudienceId, key: &ContextKey) -> Option<Claimed> {
        self.members.get(&(audience.clone(), key.clone())).copied()
    }

    /// The calls that are over once these members are reported.
    pub fn over_with<'a>(
        &self,
        audience: &AudienceId,
        keys: impl Iterator<Item = &'a ContextKey>,
    ) -> Vec<i64> {
        let mut left = self.calls.clone();
        for claimed in keys.filter_map(|key| self.of(audience, key)) {
            left.entry(claimed.call).and_modify(|left| *left = left.saturating_sub(1));
        }
        left.into_iter().filter(|(_, left)| *left == 0).map(|(call, _)| call).collect()
    }

    pub fn contains(&self, audience: &AudienceId, key: &ContextKey) -> bool {
        self.members.contains_key(&(audience.clone(), key.clone()))
    }

    /// Everybody in a call.
    pub fn all(&self) -> impl Iterator<Item = (&AudienceId, &ContextKey, Claimed)> {
        self.members.iter().map(|((audience, key), claimed)| (audience, key, *claimed))
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Shared {
    pub fn new(
        settings: SharedSettings,
        replica: String,
        pool: Pool,
        stamps: Stamps,
        hashes: HashKey,
    ) -> Self {
        Self {
            settings,
            replica,
            pool,
            stamps,
            hashes,
            recordings: PerDestination::default(),
            commit_rows: Histogram::of_sizes(),
            commit_duration: Histogram::of_durations(),
            takes_writes: AtomicBool::new(true),
            closing: CancellationToken::new(),
            has_failed: AtomicBool::new(false),
            is_stopped: Notify::new(),
            known: Mutex::default(),
        }
    }

    pub fn known(&self) -> MutexGuard<'_, HashMap<DestinationName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number and settings of a destination that is configured, or was since the start.
    pub fn destination(
        &self,
        name: &DestinationName,
    ) -> Result<(i32, DestinationSettings), LedgerError> {
        let known = self.known();
        let of = known.get(name).ok_or_else(|| LedgerError::UnknownDestination(name.clone()))?;
        Ok((of.no, of.settings.clone()))
    }

    /// The same, if it is configured.
    pub fn configured(
        &self,
        name: &DestinationName,
    ) -> Result<(i32, DestinationSettings), LedgerError> {
        let known = self.known();
        let of = known.get(name).filter(|of| of.is_configured);
        let of = of.ok_or_else(|| LedgerError::UnknownDestination(name.clone()))?;
        Ok((of.no, of.settings.clone()))
    }

    /// The token of a lease that lasts.
    pub fn token(&self, name: &DestinationName) -> Option<i64> {
        let lease = self.known().get(name)?.lease?;
        (since_boot() < lease.until).then_some(lease.token)
    }

    /// Couriers of a destination are told that there may be something new.
    pub fn wake(&self, name: &DestinationName) {
        if let Some(of) = self.known().get(name) {
            of.news.send_replace(());
        }
    }

    /// Counts what a committed transaction has changed.
    pub fn count(
        &self,
        name: &DestinationName,
        changes: &Changes,
        audiences: &HashMap<i32, AudienceId>,
    ) {
        let mut expired = 0;
        if let Some(of) = self.known().get_mut(name) {
            for (no, change) in changes {
                let (Some(id), turnover) = (audiences.get(no), change.turnover) else { continue };
                expired += turnover.expired;
                if turnover != Turnover::default() {
                    let sum = of.turnover.entry(id.clone()).or_default();
                    sum.joined += turnover.joined;
                    sum.left += turnover.left;
                    sum.expired += turnover.expired;
                }
            }
        }
        self.recordings.of(name).expired.add(expired);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Notes whether the database does what it is asked.
    pub fn note<T>(&self, done: &Result<T, Failure>) {
        let works = !matches!(done, Err(Failure::Unavailable(_) | Failure::Lost(_)));
        self.takes_writes.store(works, Ordering::SeqCst);
    }

    /// Since when a destination is paused: couriers are told if that has changed.
    pub fn is_paused(&self, name: &DestinationName, since: Option<i64>) {
        let mut known = self.known();
        let Some(of) = known.get_mut(name) else { return };
        let since = since.map(Timestamp);
        if of.paused_since != since {
            of.paused_since = since;
            of.news.send_replace(());
        }
    }
}

/// A handle of what is shared.
pub(crate) type Handle = Arc<Shared>;

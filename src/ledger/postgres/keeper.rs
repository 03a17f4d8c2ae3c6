//! What a replica does all the time: it records what is queued, renews its leases, looks for what other replicas have
//! done, and does its upkeep.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_postgres::types::Type;
use tracing::{info, warn};

use crate::clock::Seldom;
use crate::ledger::DestinationSettings;
use crate::ledger::error::WriterFailure;
use crate::ledger::lease;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::guarding;
use crate::ledger::postgres::horizon::{self, Horizon};
use crate::ledger::postgres::leases;
use crate::ledger::postgres::locks::{Lock, holds};
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::presence;
use crate::ledger::postgres::recording::Waiting;
use crate::ledger::postgres::rows::damaged;
use crate::ledger::postgres::shared::{Handle, Known, Shared};
use crate::ledger::postgres::upkeep;
use crate::membership::{DestinationName, Timestamp};

/// How often a replica looks for what others have done.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is seen whether another host of the database was promoted.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);
/// How often couriers look, whatever is seen.
const WAKE_EVERY: Duration = Duration::from_secs(2);
/// How long the last words to the database may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The tasks of a replica.
#[derive(Debug)]
pub struct Keeper {
    shared: Handle,
    waiting: Arc<Waiting>,
    horizon: Arc<Horizon>,
    /// Whether the ledger's clock is that of the database.
    follows_database: bool,
}

impl Keeper {
    pub(crate) fn new(
        shared: Handle,
        waiting: Waiting,
        horizon: Arc<Horizon>,
        follows_database: bool,
    ) -> Self {
        Self { shared, waiting: Arc::new(waiting), horizon, follows_database }
    }

    /// Runs until the ledger is closed.
    ///
    /// # Errors
    /// A task has panicked.
    pub async fn run(self) -> Result<(), WriterFailure> {
        let Self { shared, waiting, horizon, follows_database } = self;
        let mut tasks = tokio::task::JoinSet::new();
        for is_second in [false, true] {
            let (shared, waiting) = (Arc::clone(&shared), Arc::clone(&waiting));
            tasks.spawn(async move { waiting.record_all(&shared, is_second).await });
        }
        let of = Arc::clone(&shared);
        tasks.spawn(async move { of.keep_telling().await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { renew_leases(&of).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { take_leases(&of).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { look(&of, follows_database).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { tidy(&of).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { presence::keep_saying(&of).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { look_around(&of).await });
        let of = Arc::clone(&shared);
        tasks.spawn(async move { look_back(&of, &horizon).await });
        // Those that wait for a database that does not answer are not waited for.
        while let Some(Some(ended)) = shared.closed.run_until_cancelled(tasks.join_next()).await {
            if let Err(panic) = ended {
                shared.has_failed.store(true, Ordering::SeqCst);
                return Err(WriterFailure::new("running", panic));
            }
        }
        shared.is_stopped.notify_one();
        Ok(())
    }
}

/// Nothing that takes its time stands between two renewals.
async fn renew_leases(shared: &Shared) {
    let mut often = interval(lease::interval(shared.settings.lease_ttl));
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Seldom::default();
    while shared.comes(&mut often).await {
        let renewed = leases::renew(shared).await;
        if let Err(failure) = renewed
            && said.is_due()
        {
            warn!(error = %failure, "leases cannot be renewed");
        }
    }
}

async fn take_leases(shared: &Shared) {
    let mut often = interval(lease::interval(shared.settings.lease_ttl));
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Seldom::default();
    while shared.comes(&mut often).await {
        if let Err(failure) = leases::take_free(shared).await
            && said.is_due()
        {
            warn!(error = %failure, "leases cannot be taken");
        }
    }
}

async fn tidy(shared: &Shared) {
    let mut ticks = interval(LOOK_EVERY);
    let (mut place, mut slow) = (HashMap::new(), Instant::now());
    let mut said = Seldom::default();
    while shared.comes(&mut ticks).await {
        let mut done = upkeep::often(shared).await;
        if done.is_ok() && slow.elapsed() > upkeep_pause(shared) {
            done = upkeep::seldom(shared, &mut place).await;
            slow = Instant::now();
        }
        if let Err(failure) = done
            && !matches!(failure, Failure::Stale)
            && said.is_due()
        {
            warn!(error = %failure, "the ledger's upkeep waits");
        }
    }
}

/// The pause between two slices of a sweep: short where entries expire.
fn upkeep_pause(shared: &Shared) -> Duration {
    let expires = shared.known().values().any(|of| !of.settings.expires_after.is_empty());
    if expires { LOOK_EVERY } else { LOOK_EVERY * 10 }
}

/// Looks for what other replicas have done, and at the clock of the database.
async fn look(shared: &Shared, follows_database: bool) {
    let mut ticks = interval(LOOK_EVERY);
    let (mut seen, mut woken) = (HashMap::new(), Instant::now());
    while shared.comes(&mut ticks).await {
        let _what_was_done_since_is_seen = shared.looking.lock().await;
        let here = shared.stamps.here();
        let looked = transact!(shared.pool, |tx, _attempt| glance(&tx));
        let Ok(glance) = looked else { continue }; // whoever records or renews says it
        if follows_database {
            let there = shared.stamps.here();
            let asked_at = Timestamp(here.0 + (there.0 - here.0) / 2);
            shared.stamps.follow(glance.clock, asked_at);
        }
        let _ = guarding::look(shared).await; // as above
        let is_time = woken.elapsed() > WAKE_EVERY;
        if is_time {
            woken = Instant::now();
        }
        let names: Vec<(DestinationName, i32)> =
            shared.known().iter().map(|(name, of)| (name.clone(), of.no)).collect();
        for (name, no) in names {
            let Some((paused, news)) = glance.of.get(&no) else {
                register_again(shared, &name).await;
                continue;
            };
            shared.is_paused(&name, *paused);
            if seen.insert(no, *news) != Some(*news) || is_time {
                shared.wake(&name);
            }
        }
    }
}

/// Looks at all hosts of the database, where there are several.
async fn look_around(shared: &Shared) {
    let mut ticks = interval(LOOK_AROUND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shared.comes(&mut ticks).await {
        tokio::select! {
            () = shared.closing.cancelled() => {}
            () = shared.pool.look_around() => {}
        }
    }
}

/// Looks for who keeps rows that are gone.
async fn look_back(shared: &Shared, horizon: &Horizon) {
    let mut ticks = interval(horizon::LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shared.comes(&mut ticks).await {
        let now = shared.stamps.arrival();
        let _ = horizon.look(&shared.pool, now).await; // whoever records or renews says it
    }
}

/// What can be seen at a glance: the clock, and of each destination whether it is paused and the changes of its counts.
struct Glance {
    clock: Timestamp,
    of: HashMap<i32, (Option<i64>, (i64, i64))>,
}

async fn glance(tx: &Tx) -> Result<Glance, Failure> {
    let sql = "SELECT d.no, d.paused_since, c.count, c.last, (extract(epoch FROM clock_timestamp()) * 1000000)::int8
         FROM destination d CROSS JOIN LATERAL (
             SELECT count(*), coalesce(max(id), 0) AS last FROM change WHERE destination_no = d.no
         ) c";
    let mut glance = Glance { clock: Timestamp::EPOCH, of: HashMap::new() };
    for row in tx.query(sql, &[]).await? {
        glance.of.insert(row.try_get(0)?, (row.try_get(1)?, (row.try_get(2)?, row.try_get(3)?)));
        glance.clock = Timestamp(row.try_get(4)?);
    }
    Ok(glance)
}

/// Makes sure that there is a destination; its number, and since when it is paused.
async fn register(
    shared: &Shared,
    settings: &DestinationSettings,
) -> Result<(i32, Option<i64>), Failure> {
    let name = settings.name.as_str();
    transact!(shared.pool, |tx, _attempt| async {
        let sql =
            "INSERT INTO destination (name, environment) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tx.execute(sql, &[(&name, Type::TEXT), (&settings.environment, Type::TEXT)]).await?;
        let sql = "SELECT no, paused_since FROM destination WHERE name = $1";
        let row = tx.first(sql, &[(&name, Type::TEXT)]).await?.ok_or_else(damaged)?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    })
}

/// A destination that this replica has configured was dropped by one that has not: it begins anew.
async fn register_again(shared: &Shared, name: &DestinationName) {
    let Ok((_, settings)) = shared.configured(name) else { return };
    let Ok((no, _)) = register(shared, &settings).await else { return }; // the next look tries again
    if let Some(of) = shared.known().get_mut(name)
        && of.has_number(no, shared.settings.lease_ttl)
    {
        warn!(destination = %name, "another replica, which does not have it configured, has dropped this destination: it begins anew");
    }
}

/// Replaces the configured destinations.
pub(crate) async fn configure(
    shared: &Shared,
    destinations: Vec<DestinationSettings>,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for settings in destinations {
        let (no, paused) = register(shared, &settings).await?;
        let _ = shared.recordings.of(&settings.name); // zeros are shown too
        found.push((no, paused, settings));
    }
    {
        let mut known = shared.known();
        known.values_mut().for_each(|of| of.is_configured = false);
        for (no, paused, settings) in &found {
            let ttl = shared.settings.lease_ttl;
            let new = || Known::new(*no, settings.clone(), *paused, ttl);
            let of = known.entry(settings.name.clone()).or_insert_with(new);
            of.has_number(*no, ttl);
            (of.settings, of.is_configured) = (settings.clone(), true);
        }
    }
    for (no, _, settings) in &found {
        let Some(token) = shared.token(&settings.name) else { continue };
        transact!(shared.pool, |tx, _attempt| async {
            Lock::Exclusive.hold(&tx, *no).await?;
            holds(&tx, *no, token).await?;
            leases::follow_environment(shared, &tx, (&settings.name, *no), settings).await
        })?;
        shared.wake(&settings.name);
    }
    leases::take_free(shared).await?;
    guarding::look(shared).await
}

/// Waits for the tasks to end, and says goodbye to the database. Whether that is finished or cut off, nothing goes on
/// after it.
pub(crate) async fn stop(shared: &Shared) {
    let _closed = shared.closed.clone().drop_guard();
    let ended: &Notify = &shared.is_stopped;
    let _ = timeout(LAST_WORDS, ended.notified()).await; // what is not committed by then was not answered either
    if let Ok(Ok(())) = timeout(LAST_WORDS, leases::hand_over(shared)).await {
        info!("the leases are handed over");
    } else {
        warn!("the leases could not be handed over: others take over once they have run out");
    }
    shared.pool.close();
}

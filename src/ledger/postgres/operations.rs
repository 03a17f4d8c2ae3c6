//! What operators see and do. Any replica answers for the whole; what is done to every member is left to the owner of
//! the destination.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};

use crate::counting::PerDestination;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::postgres::PostgresLedger;
use crate::ledger::postgres::calls;
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::guarding;
use crate::ledger::postgres::locks::Lock;
use crate::ledger::postgres::members::{Changes, MemberKey, Members as Rows};
use crate::ledger::postgres::outbox;
use crate::ledger::postgres::pausing;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::presence;
use crate::ledger::postgres::reconciling;
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::upkeep;
use crate::ledger::postgres::views;
use crate::ledger::postgres::walk::Task;
use crate::ledger::postgres::walks;
use crate::ledger::{
    AudienceView, DestinationView, Fact, HeldAudience, Intake, LedgerError, MemberView, Members,
    Operations, Outbox, ParkedAfter, ParkedView, Recorder, Recordings, RejectedView, ReplicaView,
    Standing, Turnover,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, UserId};

impl PostgresLedger {
    /// Puts these members through a rule; how many it changed.
    async fn each_of(
        &self,
        members: &Members,
        rule: fn(&Member, &Moment) -> Next,
    ) -> Result<u64, LedgerError> {
        let shared = &self.shared;
        let name = &members.destination;
        let Ok((no, settings)) = shared.destination(name) else { return Ok(0) };
        let change = async |tx: &Tx,
                            attempt: u32|
               -> Result<(u64, Changes, HashMap<i32, AudienceId>), Failure> {
            Lock::at(attempt).hold(tx, no).await?;
            let place = Place::one(tx, name, no, &members.audience).await?;
            let Some(place) = place else { return Ok((0, Changes::default(), HashMap::new())) };
            let keys = members.context_keys.iter().map(|key| (place.no, key.clone()));
            let keys: BTreeSet<MemberKey> = keys.collect();
            let mut rows = Rows::default();
            rows.load(tx, keys.clone()).await?;
            let mut count = 0;
            for key in &keys {
                let Some(before) = rows.get(key) else { continue };
                let next = rule(before, &place.moment(shared, &settings));
                count += u64::from(next != Next::Same);
                rows.put(key, next);
            }
            let changes = rows.flush(tx).await?;
            changes::write_any(shared, tx, no, &changes).await?;
            Ok((count, changes, HashMap::from([(place.no, place.route.audience.clone())])))
        };
        let (count, changes, audiences) =
            transact!(shared.pool, |tx, attempt| change(&tx, attempt))?;
        shared.count(name, &changes, &audiences);
        shared.wake(name);
        Ok(count)
    }

    /// Does something to an audience of a configured destination, or to all of them; how many these are.
    async fn each(
        &self,
        name: &DestinationName,
        only: Option<&AudienceId>,
        act: Act,
    ) -> Result<u64, LedgerError> {
        let shared = &self.shared;
        let (no, _) = shared.configured(name)?;
        let each = async |tx: &Tx| -> Result<u64, Failure> {
            Lock::Exclusive.hold(tx, no).await?;
            let places = these(tx, name, no, only).await?;
            if matches!(act, Act::Start(Task::Resync | Task::RetractStale(_)) | Act::Discard) {
                let is_retracted = |place: &&Place| {
                    place.walk.as_ref().is_some_and(|walk| walk.task == Task::Retract)
                };
                if let Some(place) = places.iter().find(is_retracted) {
                    return Err(LedgerError::Retracting(place.route.audience.clone()).into());
                }
            }
            let mut done = 0;
            for place in &places {
                done += u64::from(act.on(shared, tx, place).await?);
            }
            Ok(done)
        };
        let done = transact!(shared.pool, |tx, _attempt| each(&tx))?;
        let _no_look_is_under_way = shared.looking.lock().await;
        guarding::look(shared).await?;
        shared.wake(name);
        Ok(done)
    }

    async fn stored(&self, tx: &Tx, name: &DestinationName) -> Result<i32, Failure> {
        let sql = "SELECT no FROM destination WHERE name = $1";
        let row = tx.first(sql, &[(&name.as_str(), Type::TEXT)]).await?;
        let row = row.ok_or_else(|| LedgerError::UnknownDestination(name.clone()))?;
        Ok(row.try_get(0)?)
    }
}

/// What is done to audiences.
enum Act {
    Start(Task),
    StopResync,
    Release,
    Discard,
}

impl Act {
    /// Does it; whether it concerned the audience.
    async fn on(&self, shared: &Shared, tx: &Tx, place: &Place) -> Result<bool, Failure> {
        match self {
            Self::Start(task) => {
                if *task == Task::Retract {
                    guarding::release(shared, tx, place).await?;
                }
                walks::start(shared, tx, place, task).await?;
            }
            Self::StopResync => walks::stop_resync(tx, place).await?,
            Self::Release => return guarding::release(shared, tx, place).await,
            Self::Discard => {
                let mut guard = place.guard;
                if !guard.is_held() {
                    return Ok(false);
                }
                let since = guard.discard();
                guarding::write(tx, place.no, &guard).await?;
                walks::start(shared, tx, place, &Task::Reenter { since }).await?;
            }
        }
        Ok(true)
    }
}

async fn these(
    tx: &Tx,
    name: &DestinationName,
    no: i32,
    only: Option<&AudienceId>,
) -> Result<Vec<Place>, Failure> {
    let has_members = |place: &Place| place.members > 0;
    let Some(id) = only else {
        return Ok(Place::all(tx, name, no).await?.into_iter().filter(has_members).collect());
    };
    match Place::one(tx, name, no, id).await?.filter(has_members) {
        Some(place) => Ok(vec![place]),
        None if calls::are_out(tx, no, id).await? => Ok(Vec::new()), // it was erased meanwhile
        None => Err(LedgerError::UnknownAudience(id.clone()).into()),
    }
}

#[async_trait]
impl Operations for PostgresLedger {
    fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        outbox::of(&self.shared, destination)
    }

    fn recordings(&self) -> &PerDestination<Recordings> {
        &self.shared.recordings
    }

    async fn facts(&self) -> Result<Vec<Fact>, LedgerError> {
        let mut facts = vec![
            Fact::CommitRows(self.shared.commit_rows.read()),
            Fact::SyncDuration(self.shared.commit_duration.read()),
        ];
        facts.extend(views::bytes(&self.shared).await.map(Fact::Bytes));
        Ok(facts)
    }

    async fn destinations(&self) -> Result<Vec<DestinationView>, LedgerError> {
        let mut views = views::destinations(&self.shared).await?;
        let known = self.shared.known();
        for view in &mut views {
            let of = DestinationName::new(&view.name).and_then(|name| known.get(&name));
            view.configured = of.is_some_and(|of| of.is_configured);
        }
        views.retain(|view| view.configured || view.audiences > 0 || view.rejected > 0);
        Ok(views)
    }

    fn take_turnover(&self, destination: &DestinationName) -> Vec<(AudienceId, Turnover)> {
        let mut known = self.shared.known();
        let turnover = known.get_mut(destination).map(|of| std::mem::take(&mut of.turnover));
        turnover.into_iter().flatten().collect()
    }

    async fn audiences(
        &self,
        destination: &DestinationName,
    ) -> Result<Vec<AudienceView>, LedgerError> {
        let read = async |tx: &Tx| -> Result<Vec<AudienceView>, Failure> {
            let no = self.stored(tx, destination).await?;
            views::audiences(&self.shared, tx, destination, no).await
        };
        Ok(transact!(self.shared.looks, |tx, _attempt| read(&tx))?)
    }

    async fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> Result<Vec<MemberView>, LedgerError> {
        let read = async |tx: &Tx| -> Result<Vec<MemberView>, Failure> {
            let no = self.stored(tx, destination).await?;
            let person = self.shared.hashes.person(no.into(), key);
            views::member(tx, (destination, no), key, &person).await
        };
        Ok(transact!(self.shared.looks, |tx, _attempt| read(&tx))?)
    }

    async fn standings(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        after: Option<&ContextKey>,
        limit: u32,
    ) -> Result<Vec<Standing>, LedgerError> {
        let read = views::standings;
        Ok(transact!(self.shared.pool, |tx, _attempt| read(
            &tx,
            destination,
            audience,
            after,
            limit
        ))?)
    }

    async fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> Result<Vec<ParkedView>, LedgerError> {
        let read = views::parked;
        Ok(transact!(self.shared.pool, |tx, _attempt| read(
            &tx,
            destination,
            audience,
            after,
            limit
        ))?)
    }

    async fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        let read = views::rejected;
        Ok(transact!(self.shared.looks, |tx, _attempt| read(&tx, destination, None, after, limit))?)
    }

    async fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        let read = async |tx: &Tx| -> Result<Vec<RejectedView>, Failure> {
            let no = match self.stored(tx, destination).await {
                Err(Failure::Refused(_)) => return Ok(Vec::new()),
                no => no?,
            };
            let person = self.shared.hashes.person(no.into(), user_id.as_str());
            views::rejected(tx, destination, Some(&person), after, limit).await
        };
        Ok(transact!(self.shared.looks, |tx, _attempt| read(&tx))?)
    }

    async fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> Result<bool, LedgerError> {
        let rules: Vec<i64> = rules.iter().map(|rule| i64::from(*rule)).collect();
        let (name, id) = (destination.as_str(), audience.as_str().as_bytes());
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&name, Type::TEXT), (&id, Type::BYTEA), (&rules, Type::INT8_ARRAY)];
        let sql = "SELECT 1 FROM destination d JOIN audience a ON a.destination_no = d.no AND NOT a.is_erased
             JOIN member m ON m.audience_no = a.no
             WHERE d.name = $1 AND a.audience_id = $2 AND m.flags & 1 = 1 AND m.key_rule = ANY($3) LIMIT 1";
        let row = transact!(self.shared.pool, |tx, _attempt| tx.first(sql, &params))?;
        Ok(row.is_some())
    }

    async fn requeue(&self, members: Members) -> Result<u64, LedgerError> {
        self.each_of(&members, member::requeue).await
    }

    async fn discard_parked(&self, members: Members) -> Result<u64, LedgerError> {
        self.each_of(&members, |before, _| member::discard(before)).await
    }

    async fn discard_rejected(
        &self,
        destination: &DestinationName,
        ids: Vec<i64>,
    ) -> Result<u64, LedgerError> {
        let discard = async |tx: &Tx| -> Result<u64, Failure> {
            let no = self.stored(tx, destination).await?;
            let sql = "DELETE FROM rejected WHERE destination_no = $1 AND id = ANY($2)";
            tx.execute(sql, &[(&no, Type::INT4), (&ids, Type::INT8_ARRAY)]).await
        };
        Ok(transact!(self.shared.pool, |tx, _attempt| discard(&tx))?)
    }

    async fn resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.each(destination, audience, Act::Start(Task::Resync)).await
    }

    async fn stop_resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.each(destination, audience, Act::StopResync).await
    }

    async fn retract_stale(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        current: Vec<u32>,
    ) -> Result<(), LedgerError> {
        let task = Task::RetractStale(current.into_iter().map(i64::from).collect());
        self.each(destination, Some(audience), Act::Start(task)).await.map(|_| ())
    }

    async fn retract(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.each(destination, audience, Act::Start(Task::Retract)).await
    }

    fn held_audiences(&self, destination: &DestinationName) -> Vec<HeldAudience> {
        self.shared.known().get(destination).map(|of| of.held.clone()).unwrap_or_default()
    }

    async fn release_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.each(destination, audience, Act::Release).await
    }

    async fn discard_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.each(destination, audience, Act::Discard).await
    }

    async fn erase(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let shared = &self.shared;
        let is_known = shared.destination(destination).is_ok();
        let erase = async |tx: &Tx| -> Result<u64, Failure> {
            let no = self.stored(tx, destination).await?;
            Lock::Exclusive.hold(tx, no).await?;
            reconciling::stop(tx, destination, audience).await?;
            let places = these(tx, destination, no, audience).await?;
            let numbers: Vec<i32> = places.iter().map(|place| place.no).collect();
            let sql = "UPDATE audience SET is_erased = true, walk = NULL WHERE no = ANY($1)";
            tx.execute(sql, &[(&numbers, Type::INT4_ARRAY)]).await?;
            if audience.is_none() {
                tx.execute("DELETE FROM rejected WHERE destination_no = $1", &[(&no, Type::INT4)])
                    .await?;
            }
            Ok(if is_known || audience.is_some() { places.len() as u64 } else { 1 })
        };
        let erased = transact!(shared.pool, |tx, _attempt| erase(&tx))?;
        if let Some(of) = shared.known().get_mut(destination) {
            of.turnover.retain(|id, _| audience.is_some_and(|audience| audience != id));
        }
        if !is_known {
            transact!(shared.pool, |tx, _attempt| upkeep::empty_unknown(&tx, destination))?;
        }
        shared.wake(destination);
        Ok(erased)
    }

    fn delivers(&self, destination: &DestinationName) -> bool {
        self.shared.token(destination).is_some()
    }

    async fn replicas(&self) -> Result<Option<Vec<ReplicaView>>, LedgerError> {
        Ok(Some(presence::everybody(&self.shared).await?))
    }

    async fn say(&self, words: String) -> Result<(), LedgerError> {
        Ok(presence::tell(&self.shared, &words).await?)
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    async fn leave_note(&self, note: String) -> Result<(), LedgerError> {
        let sql = "INSERT INTO cohortd VALUES ('note', convert_to($1, 'UTF8'))
             ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        transact!(self.shared.pool, |tx, _attempt| tx.execute(sql, &[(&note, Type::TEXT)]))?;
        Ok(())
    }

    async fn pause(&self, destination: &DestinationName, paused: bool) -> Result<(), LedgerError> {
        let (no, _) = self.shared.configured(destination)?;
        Ok(pausing::pause(&self.shared, (destination, no), paused).await?)
    }

    async fn forget(
        &self,
        destination: &DestinationName,
        user_id: UserId,
    ) -> Result<(), LedgerError> {
        self.record(Intake::to_forget(destination, self.arrival(), user_id)).await.map(|_| ())
    }
}

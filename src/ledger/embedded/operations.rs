//! Operator verbs of the embedded ledger: reads beside the writer, changes through it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::counting::PerDestination;
use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::embedded::commit::command::{Asked, Command};
use crate::ledger::embedded::engine::guarding::Decision;
use crate::ledger::embedded::engine::operated::Operation;
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::embedded::tables::{checksum, reader};
use crate::ledger::{
    AudienceView, DestinationView, Fact, HeldAudience, Intake, LedgerError, MemberView, Members,
    Operations, Outbox, ParkedAfter, ParkedView, Recorder, Recordings, RejectedView, Standing,
    Turnover,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, UserId};

/// How long a read waits for earlier answered requests to reach the tables.
const MERGED_WITHIN: Duration = Duration::from_millis(500);

impl EmbeddedLedger {
    /// Runs a read on a blocking thread. Damage that it finds ends the writer, and with it the daemon.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&reader::Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        // Earlier answered requests should be visible; if that takes too long, reads what is in the tables.
        let _ = tokio::time::timeout(MERGED_WITHIN, self.caught_up()).await;
        self.read_tables(read).await
    }

    /// Like [`Self::read`], without waiting for what is not in the tables yet.
    pub(crate) async fn read_tables<T: Send + 'static>(
        &self,
        read: impl FnOnce(&reader::Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let reader = Arc::clone(&self.reader);
        let found = tokio::task::spawn_blocking(move || read(&reader)).await;
        match found.map_err(|_| LedgerError::Closed)? {
            Ok(found) => Ok(found),
            Err(error) if checksum::is_damage(&error) => {
                // An error means that the writer has ended already.
                let _ = self.commands.send(Command::Damaged(error));
                Err(LedgerError::Closed)
            }
            Err(error) => Err(LedgerError::Unavailable(error.to_string())),
        }
    }

    /// Counts of each destination if the tables are not up to date: of everything answered so far or, if that
    /// takes too long, as of now. Empty if the writer cannot say: on a full disk the tables are all there is.
    async fn counted(&self) -> Vec<Counted> {
        if !self.shared.is_behind() {
            return Vec::new();
        }
        for all in [true, false] {
            let counted = self.ask(|reply| Command::Count { all, reply });
            if let Ok(counted) = tokio::time::timeout(MERGED_WITHIN, counted).await {
                return counted.unwrap_or_default();
            }
        }
        Vec::new()
    }

    pub(crate) async fn operate(&self, operation: Operation) -> Result<u64, LedgerError> {
        self.ask(|reply| Command::Operate(Asked::new(operation, reply))).await
    }
}

#[async_trait]
impl Operations for EmbeddedLedger {
    fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        self.outbox_of(destination)
    }

    fn recordings(&self) -> &PerDestination<Recordings> {
        &self.shared.recordings
    }

    async fn facts(&self) -> Result<Vec<Fact>, LedgerError> {
        let mut facts = self.read_tables(reader::Reader::facts).await?;
        facts.extend([
            Fact::LogBytes(self.shared.log.unmerged_bytes()),
            Fact::CommitRows(self.shared.commit_rows.read()),
            Fact::SyncDuration(self.shared.sync.read()),
        ]);
        Ok(facts)
    }

    async fn destinations(&self) -> Result<Vec<DestinationView>, LedgerError> {
        let counted = self.counted().await;
        let mut found = self.read_tables(move |reader| reader.destinations(&counted)).await?;
        let published = self.shared.published();
        for view in &mut found {
            let of = published.iter().find(|(name, _)| name.as_str() == view.name);
            view.configured = of.is_some_and(|(_, of)| of.configured);
        }
        // One that is no longer configured and has nothing left is left out.
        found.retain(|view| view.configured || view.audiences > 0 || view.rejected > 0);
        Ok(found)
    }

    fn take_turnover(&self, destination: &DestinationName) -> Vec<(AudienceId, Turnover)> {
        let mut published = self.shared.published.lock().unwrap_or_else(PoisonError::into_inner);
        let of = published.get_mut(destination);
        of.map(|of| of.turnover.drain().collect()).unwrap_or_default()
    }

    async fn audiences(
        &self,
        destination: &DestinationName,
    ) -> Result<Vec<AudienceView>, LedgerError> {
        let name = destination.clone();
        let found = self.read(move |reader| reader.audiences(&name)).await?;
        found.ok_or_else(|| LedgerError::UnknownDestination(destination.clone()))
    }

    async fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> Result<Vec<MemberView>, LedgerError> {
        let (name, key) = (destination.clone(), key.to_owned());
        let found = self.read(move |reader| reader.member(&name, &key)).await?;
        found.ok_or_else(|| LedgerError::UnknownDestination(destination.clone()))
    }

    async fn standings(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        after: Option<&ContextKey>,
        limit: u32,
    ) -> Result<Vec<Standing>, LedgerError> {
        if after.is_none() {
            self.caught_up().await?; // however long it takes: changes are decided by this
        }
        let (destination, audience, after) =
            (destination.clone(), audience.clone(), after.cloned());
        self.read_tables(move |reader| {
            reader.standings(&destination, &audience, after.as_ref(), limit)
        })
        .await
    }

    async fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> Result<Vec<ParkedView>, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        let after = after.clone();
        self.read(move |reader| reader.parked(&destination, audience.as_ref(), &after, limit)).await
    }

    async fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        let destination = destination.clone();
        self.read(move |reader| reader.rejected(&destination, after, limit)).await
    }

    async fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        let (destination, user_id) = (destination.clone(), user_id.clone());
        self.read(move |reader| reader.rejected_of(&destination, &user_id, after, limit)).await
    }

    async fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> Result<bool, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.clone());
        let rules = rules.to_vec();
        self.read(move |reader| reader.any_under_rules(&destination, &audience, &rules)).await
    }

    async fn forget(
        &self,
        destination: &DestinationName,
        user_id: UserId,
    ) -> Result<(), LedgerError> {
        self.record(Intake::to_forget(destination, self.arrival(), user_id)).await?;
        // The request is durable and will be applied; wait a moment, so that the operator sees the effect.
        let _ = tokio::time::timeout(MERGED_WITHIN, self.caught_up()).await;
        Ok(())
    }

    async fn requeue(&self, members: Members) -> Result<u64, LedgerError> {
        self.operate(Operation::Requeue(members)).await
    }

    async fn discard_parked(&self, members: Members) -> Result<u64, LedgerError> {
        self.operate(Operation::Discard(members)).await
    }

    async fn discard_rejected(
        &self,
        destination: &DestinationName,
        ids: Vec<i64>,
    ) -> Result<u64, LedgerError> {
        let destination = destination.clone();
        self.operate(Operation::DiscardRejected { destination, ids }).await
    }

    async fn resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        self.operate(Operation::Walk { destination, audience, task: Task::Resync }).await
    }

    async fn stop_resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        self.operate(Operation::StopResync { destination, audience }).await
    }

    async fn retract_stale(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        current: Vec<u32>,
    ) -> Result<(), LedgerError> {
        let (destination, audience) = (destination.clone(), Some(audience.clone()));
        let task = Task::RetractStale { current };
        self.operate(Operation::Walk { destination, audience, task }).await.map(|_| ())
    }

    async fn retract(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        self.operate(Operation::Retract { destination, audience }).await
    }

    fn held_audiences(&self, destination: &DestinationName) -> Vec<HeldAudience> {
        let published = self.shared.published();
        let held = published.get(destination).map(|of| of.held.values().cloned().collect());
        held.unwrap_or_default()
    }

    async fn release_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        let decision = Decision::Release;
        self.operate(Operation::Guard { destination, audience, decision }).await
    }

    async fn discard_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        let decision = Decision::Discard;
        self.operate(Operation::Guard { destination, audience, decision }).await
    }

    async fn erase(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.cloned());
        self.operate(Operation::Drop { destination, audience }).await
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    async fn leave_note(&self, note: String) -> Result<(), LedgerError> {
        self.operate(Operation::LeaveNote(note)).await.map(|_| ())
    }

    async fn pause(&self, destination: &DestinationName, paused: bool) -> Result<(), LedgerError> {
        let destination = destination.clone();
        self.operate(Operation::Pause { destination, paused }).await.map(|_| ())
    }
}

//! The outbox of one destination: the backlog is read from what the writer has published, and every other
//! call is a command to the writer.

use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::ledger::embedded::commit::command::{Asked, Command, ask};
use crate::ledger::embedded::engine::claims::Wanted;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::{Backlog, Batch, Claim, LedgerError, Outbox, Report};
use crate::membership::{DestinationName, Timestamp};

/// The outbox of one destination.
#[derive(Debug)]
pub(crate) struct DestinationOutbox {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    destination: DestinationName,
}

impl DestinationOutbox {
    pub fn new(
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
        destination: DestinationName,
    ) -> Self {
        Self { shared, commands, destination }
    }
}

#[async_trait]
impl Outbox for DestinationOutbox {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        let published = self.shared.published();
        let of = published.get(&self.destination);
        let of = of.ok_or_else(|| LedgerError::UnknownDestination(self.destination.clone()))?;
        Ok(of.backlog.values().cloned().collect())
    }

    fn news(&self) -> watch::Receiver<()> {
        let published = self.shared.published();
        published.get(&self.destination).map_or_else(|| watch::channel(()).1, |of| of.news.clone())
    }

    fn paused_since(&self) -> Option<Timestamp> {
        self.shared.published().get(&self.destination)?.paused_since
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        let destination = self.destination.clone();
        if !self.shared.published().contains_key(&destination) {
            return Err(LedgerError::UnknownDestination(destination));
        }
        let wanted = Wanted { destination, claim };
        ask(&self.commands, |reply| Command::Claim(Asked::new(wanted, reply))).await
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        ask(&self.commands, |reply| Command::Report(report, reply)).await
    }
}

//! What is left of reconciliations: written by the writer, read beside it.

use async_trait::async_trait;

use crate::ledger::embedded::EmbeddedLedger;
use crate::ledger::embedded::engine::operated::Operation;
use crate::ledger::embedded::tables::reconciliations;
use crate::ledger::{LedgerError, ReconciliationStep, ReconciliationView, Reconciliations};
use crate::membership::{AudienceId, DestinationName};

#[async_trait]
impl Reconciliations for EmbeddedLedger {
    async fn begin_reconciliation(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
    ) -> Result<Option<i64>, LedgerError> {
        let (destination, audience) = (destination.clone(), audience.clone());
        let process = self.process;
        let begin = Operation::BeginReconciliation { destination, audience, process };
        let id = self.operate(begin).await?.cast_signed();
        Ok((id > 0).then_some(id))
    }

    async fn step_reconciliation(
        &self,
        id: i64,
        step: ReconciliationStep,
    ) -> Result<bool, LedgerError> {
        Ok(self.operate(Operation::StepReconciliation { id, step }).await? > 0)
    }

    async fn reconciliations(&self) -> Result<Vec<ReconciliationView>, LedgerError> {
        let process = self.process;
        self.read_tables(move |reader| reader.with(|db| reconciliations::all(db, process))).await
    }

    async fn reconciliation_piece(&self, id: i64) -> Result<Option<(i64, Vec<u8>)>, LedgerError> {
        self.read_tables(move |reader| reader.with(|db| reconciliations::piece(db, id))).await
    }
}

//! The model of what is left of reconciliations.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::ledger::memory::MemoryLedger;
use crate::ledger::memory::begun::Begun;
use crate::ledger::memory::state::State;
use crate::ledger::{
    Changed, LedgerError, ReconciliationStep, ReconciliationView, Reconciliations, Stage, Stager,
};
use crate::membership::{AudienceId, DestinationName};

#[async_trait]
impl Reconciliations for MemoryLedger {
    async fn begin_reconciliation(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
    ) -> Result<Option<i64>, LedgerError> {
        self.shared.change(|state| {
            if !state.known(destination)?.is_configured {
                return Err(LedgerError::UnknownDestination(destination.clone()));
            }
            let since = state.stamps.fresh();
            let Begun { last, all } = &mut state.reconciliations;
            let is_it = |of: &ReconciliationView| {
                of.stage.is_under_way()
                    && of.destination == *destination
                    && of.audience == *audience
            };
            if all.values().any(|(of, _)| is_it(of)) {
                return Ok(None);
            }
            *last += 1;
            let view = ReconciliationView {
                id: *last,
                destination: destination.clone(),
                audience: audience.clone(),
                stage: Stage::Staging,
                stager: Stager::Here,
                about: String::new(),
                since,
                ended_at: None,
                total: 0,
                changed: Changed::default(),
            };
            all.insert(*last, (view, BTreeMap::new()));
            Ok(Some(*last))
        })
    }

    async fn step_reconciliation(
        &self,
        id: i64,
        step: ReconciliationStep,
    ) -> Result<bool, LedgerError> {
        Ok(self.shared.change(|state| take(state, id, step)))
    }

    async fn reconciliations(&self) -> Result<Vec<ReconciliationView>, LedgerError> {
        let state = self.shared.state();
        Ok(state.reconciliations.all.values().map(|(of, _)| of.clone()).collect())
    }

    async fn reconciliation_piece(&self, id: i64) -> Result<Option<(i64, Vec<u8>)>, LedgerError> {
        let state = self.shared.state();
        let of = state.reconciliations.all.get(&id).filter(|(of, _)| of.stage == Stage::Staged);
        Ok(of
            .and_then(|(_, pieces)| pieces.first_key_value())
            .map(|(no, body)| (*no, body.clone())))
    }
}

fn take(state: &mut State, id: i64, step: ReconciliationStep) -> bool {
    let now = state.stamps.fresh();
    let found = state.reconciliations.all.get_mut(&id);
    let Some((of, pieces)) = found.filter(|(of, _)| step.from().contains(&of.stage)) else {
        return false;
    };
    of.stage = step.leads_to().unwrap_or(of.stage);
    match step {
        ReconciliationStep::Plan { about, total, changed } => {
            (of.about, of.total, of.changed) = (about, total, changed);
        }
        ReconciliationStep::Stage { no, body } => drop(pieces.insert(no, body)),
        ReconciliationStep::Staged { total } => of.total = total,
        ReconciliationStep::Applied { no, changed } => {
            if pieces.remove(&no).is_none() {
                return false;
            }
            of.changed = of.changed.and(changed);
        }
        ReconciliationStep::Stop | ReconciliationStep::Abandon => {}
        ReconciliationStep::End { .. } => of.ended_at = Some(now),
        ReconciliationStep::Sweep => {
            let swept = pieces.len().min(ReconciliationStep::SWEPT as usize);
            (0..swept).for_each(|_| drop(pieces.pop_first()));
            return swept > 0;
        }
        ReconciliationStep::Remove => drop(state.reconciliations.all.remove(&id)),
    }
    true
}

//! Reconciliations that were begun.

use std::collections::BTreeMap;

use crate::ledger::{ReconciliationView, Stage, Stager};
use crate::membership::{AudienceId, DestinationName};

/// Those that were begun, each with its pieces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun {
    pub last: i64,
    pub all: BTreeMap<i64, (ReconciliationView, BTreeMap<i64, Vec<u8>>)>,
}

impl Begun {
    /// Another process begins.
    pub fn restart(&mut self) {
        self.all.values_mut().for_each(|(of, _)| of.stager = Stager::Gone);
    }

    /// Stops those of an audience, or of a whole destination.
    pub fn stop(&mut self, destination: &DestinationName, audience: Option<&AudienceId>) {
        for (of, _) in self.all.values_mut() {
            let is_it = of.destination == *destination
                && audience.is_none_or(|audience| of.audience == *audience);
            if is_it && of.stage.is_under_way() {
                of.stage = Stage::Stopping;
            }
        }
    }
}

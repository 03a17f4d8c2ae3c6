//! Which kind the members of an audience have, as far as it is promised: by a row, or by a delta that
//! is appended and not merged yet. An audience has one kind, and whoever sends another is told so at
//! once, not when it is merged.

use std::collections::HashMap;

use crate::ledger::Intake;
use crate::membership::{AudienceId, ContextKind, DestinationName};

/// The audience has another kind, or may have.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct OtherKind;

/// The kinds of all audiences.
#[derive(Debug, Default)]
pub(in super::super) struct Kinds(HashMap<DestinationName, HashMap<AudienceId, Promised>>);

#[derive(Debug)]
struct Promised {
    kind: ContextKind,
    /// The last block with a delta of it.
    block: u64,
}

impl Kinds {
    /// Notes what a row or a block says.
    pub fn note(
        &mut self,
        destination: &DestinationName,
        audience: &AudienceId,
        kind: &ContextKind,
        block: u64,
    ) {
        let of = self.0.entry(destination.clone()).or_default();
        of.insert(audience.clone(), Promised { kind: kind.clone(), block });
    }

    /// Promises the kinds of these deltas, which go into `block`: all of them or none.
    pub fn promise(&mut self, intakes: &[Intake], block: u64) -> Result<(), OtherKind> {
        for intake in intakes {
            let known = self.0.get(&intake.destination);
            let mut seen: HashMap<&AudienceId, &ContextKind> = HashMap::new();
            let mut last: Option<(&AudienceId, &ContextKind)> = None;
            for delta in &intake.deltas {
                let (audience, kind) = (&delta.audience, &delta.context_kind);
                if last == Some((audience, kind)) {
                    continue;
                }
                last = Some((audience, kind));
                let known = known.and_then(|known| known.get(audience)).map(|of| &of.kind);
                if known.unwrap_or(seen.entry(audience).or_insert(kind)) != kind {
                    return Err(OtherKind);
                }
            }
        }
        for intake in intakes {
            let of = self.0.entry(intake.destination.clone()).or_default();
            let mut last: Option<&AudienceId> = None;
            for delta in &intake.deltas {
                if last == Some(&delta.audience) {
                    continue;
                }
                last = Some(&delta.audience);
                if let Some(promised) = of.get_mut(&delta.audience) {
                    promised.block = block;
                } else {
                    let kind = delta.context_kind.clone();
                    of.insert(delta.audience.clone(), Promised { kind, block });
                }
            }
        }
        Ok(())
    }

    /// Nothing came of a block.
    pub fn take_back(&mut self, block: u64) {
        for promised in self.0.values_mut().flat_map(HashMap::values_mut) {
            if promised.block == block {
                promised.block = 0;
            }
        }
    }

    /// Makes this the kind of an audience that has no row of a member, unless a block behind `merged`
    /// promises another.
    pub fn settle(
        &mut self,
        destination: &DestinationName,
        audience: &AudienceId,
        kind: &ContextKind,
        merged: u64,
    ) -> Result<(), OtherKind> {
        let of = self.0.entry(destination.clone()).or_default();
        match of.get_mut(audience) {
            Some(promised) if promised.kind == *kind => Ok(()),
            Some(promised) if promised.block > merged => Err(OtherKind),
            _ => {
                of.insert(audience.clone(), Promised { kind: kind.clone(), block: merged });
                Ok(())
            }
        }
    }
}

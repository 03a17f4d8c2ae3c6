//! Which kind the members of an audience have, as far as it is promised: by a row, or by a delta that
//! is appended and not merged yet. An audience has one kind, and whoever sends another is told so at
//! once, not when it is merged.

use hashbrown::HashMap;

use crate::ledger::Intake;
use crate::membership::{AudienceId, ContextKind, DestinationName};

/// The audience has another kind, or may have.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct OtherKind;

/// The kinds of all audiences.
#[derive(Debug, Default)]
pub(in super::super) struct Kinds {
    known: HashMap<DestinationName, HashMap<AudienceId, Promised>>,
    /// The last block that the writer has read.
    read: u64,
    /// Audiences that have deltas in blocks behind it.
    unread: Vec<(DestinationName, AudienceId)>,
}

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
        let of = self.known.entry(destination.clone()).or_default();
        of.insert(audience.clone(), Promised { kind: kind.clone(), block });
        if block > self.read {
            self.unread.push((destination.clone(), audience.clone()));
        }
    }

    /// The writer has read the blocks up to this one.
    pub fn has_read(&mut self, block: u64) {
        self.read = block;
        let known = &self.known;
        self.unread.retain(|(destination, audience)| {
            let of = known.get(destination).and_then(|of| of.get(audience));
            of.is_some_and(|of| of.block > block)
        });
    }

    /// The audiences that have deltas in blocks that the writer has not read.
    pub fn unread(&self) -> &[(DestinationName, AudienceId)] {
        &self.unread
    }

    /// Promises the kinds of these deltas, which go into `block`: all of them or none.
    pub fn promise(&mut self, intakes: &[Intake], block: u64) -> Result<(), OtherKind> {
        for intake in intakes {
            let known = self.known.get(&intake.destination);
            let mut seen: HashMap<&AudienceId, &ContextKind> = HashMap::new();
            let mut last: Option<(&AudienceId, &ContextKind)> = None;
            for delta in &intake.deltas {
                let (audience, kind) = (&delta.audience, &delta.context_kind);
                if last == Some((audience, kind)) {
                    continue;
                }
                last = Some((audience, kind));
                let known = known.and_then(|known| known.get(audience)).map(|of| &of.kind);
                if known.unwrap_or_else(|| seen.entry(audience).or_insert(kind)) != kind {
                    return Err(OtherKind);
                }
            }
        }
        for intake in intakes {
            let of = self.known.entry(intake.destination.clone()).or_default();
            let mut last: Option<&AudienceId> = None;
            for delta in &intake.deltas {
                if last == Some(&delta.audience) {
                    continue;
                }
                last = Some(&delta.audience);
                let before = if let Some(promised) = of.get_mut(&delta.audience) {
                    std::mem::replace(&mut promised.block, block)
                } else {
                    let kind = delta.context_kind.clone();
                    of.insert(delta.audience.clone(), Promised { kind, block });
                    0
                };
                if before <= self.read {
                    self.unread.push((intake.destination.clone(), delta.audience.clone()));
                }
            }
        }
        Ok(())
    }

    /// Nothing came of a block.
    pub fn take_back(&mut self, block: u64) {
        for promised in self.known.values_mut().flat_map(HashMap::values_mut) {
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
        let of = self.known.entry(destination.clone()).or_default();
        match of.get_mut(audience) {
            Some(promised) if promised.kind == *kind => Ok(()),
            Some(promised) if promised.block > merged => Err(OtherKind),
            _ => {
                let block = merged.min(self.read); // there is nothing to read of it
                of.insert(audience.clone(), Promised { kind: kind.clone(), block });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{AudienceKey, ContextKey, Membership, MembershipDelta, Timestamp};

    fn intake(audiences: &[&str]) -> Intake {
        let delta = |audience: &&str| MembershipDelta {
            audience: AudienceId::new(audience).expect("not empty"),
            audience_key: AudienceKey::new(audience).expect("not empty"),
            context_kind: ContextKind::new("user").expect("a kind"),
            context_key: ContextKey::new("ada").expect("not empty"),
            membership: Membership::In,
            event_at: Timestamp(1),
            user_id: None,
            key_rule: 1,
        };
        Intake {
            destination: DestinationName::new("production").expect("a name"),
            arrival: Timestamp(1),
            deltas: audiences.iter().map(delta).collect(),
            deletions: Vec::new(),
            rejected: Vec::new(),
        }
    }

    #[test]
    fn it_is_known_of_which_audiences_something_is_not_read() {
        let mut kinds = Kinds::default();
        let unread = |kinds: &Kinds| -> Vec<String> {
            kinds.unread().iter().map(|(_, audience)| audience.as_str().to_owned()).collect()
        };
        assert_eq!(kinds.promise(&[intake(&["a", "b", "a"])], 1), Ok(()));
        assert_eq!(kinds.promise(&[intake(&["b", "c"])], 2), Ok(()));
        assert_eq!(unread(&kinds), ["a", "b", "c"], "each once");
        kinds.has_read(1);
        assert_eq!(unread(&kinds), ["b", "c"]);
        assert_eq!(kinds.promise(&[intake(&["a"])], 3), Ok(()));
        assert_eq!(unread(&kinds), ["b", "c", "a"]);
        kinds.take_back(3);
        kinds.has_read(2);
        assert_eq!(unread(&kinds), [""; 0]);
    }
}

//! The context kind of every audience, as promised by its row or by a delta in an unmerged block. An audience
//! has one kind, and a sender that uses another must be told at once, not when the block is merged. For the
//! same reason the limit on audiences is enforced here: these are all audiences that a destination has, or
//! will have once the log is merged.

use hashbrown::HashMap;

use crate::ledger::{Intake, Route, Unrecorded};
use crate::membership::{AudienceId, ContextKind, DestinationName};

/// The kinds of all audiences.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// Most audiences of a destination; one that already has more keeps them.
    most: usize,
    known: HashMap<DestinationName, HashMap<AudienceId, Promised>>,
    /// The last block that the writer has read.
    read: u64,
    /// Audiences that have deltas in unread blocks.
    unread: Vec<(DestinationName, AudienceId)>,
}

#[derive(Debug)]
struct Promised {
    kind: ContextKind,
    /// The last block with a delta for the audience.
    block: u64,
    /// The block that introduced the audience; 0 if it has a row.
    first: u64,
}

impl Kinds {
    /// `most`: audiences allowed for each destination; the blocks up to `read` are read.
    pub fn new(most: usize, read: u64) -> Self {
        Self { most, known: HashMap::new(), read, unread: Vec::new() }
    }

    /// Records the kind of an audience from its row (block 0) or from a block.
    pub fn note(
        &mut self,
        destination: &DestinationName,
        audience: &AudienceId,
        kind: &ContextKind,
        block: u64,
    ) {
        let of = self.known.entry(destination.clone()).or_default();
        let first = of.get(audience).map_or(block, |before| before.first);
        of.insert(audience.clone(), Promised { kind: kind.clone(), block, first });
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

    /// The audiences that have deltas in unread blocks.
    pub fn unread(&self) -> &[(DestinationName, AudienceId)] {
        &self.unread
    }

    /// Promises the kinds of these deltas, which go into `block`, and places to the audiences that are new:
    /// all of them or none.
    pub fn promise(&mut self, intakes: &[Intake], block: u64) -> Result<(), Unrecorded> {
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
                    return Err(Unrecorded::OtherKind);
                }
            }
            if !seen.is_empty() && known.map_or(0, HashMap::len) + seen.len() > self.most {
                return Err(Unrecorded::TooManyAudiences);
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
                    let promised = Promised { kind, block, first: block };
                    of.insert(delta.audience.clone(), promised);
                    0
                };
                if before <= self.read {
                    self.unread.push((intake.destination.clone(), delta.audience.clone()));
                }
            }
        }
        Ok(())
    }

    /// The block was not written: its promises are withdrawn.
    pub fn take_back(&mut self, block: u64) {
        for of in self.known.values_mut() {
            of.retain(|_, promised| {
                if promised.block == block {
                    promised.block = block - 1; // an earlier block may have a delta for it too
                }
                promised.first != block
            });
        }
    }

    /// Starts over after a rollback with the audiences of `rows`, and those with a delta in a block behind
    /// `merged`.
    pub fn start_over<'a>(&mut self, rows: impl Iterator<Item = &'a Route>, merged: u64) {
        for of in self.known.values_mut() {
            of.retain(|_, promised| promised.block > merged);
        }
        for Route { destination, audience, context_kind: kind, .. } in rows {
            let of = self.known.entry(destination.clone()).or_default();
            let known = of.entry(audience.clone());
            known.and_modify(|promised| promised.first = 0).or_insert_with(|| Promised {
                kind: kind.clone(),
                block: 0,
                first: 0,
            });
        }
    }

    /// The audience no longer has a row: frees its place, unless a block behind `merged` has a delta for it.
    pub fn forget(&mut self, route: &Route, merged: u64) {
        if let Some(of) = self.known.get_mut(&route.destination)
            && of.get(&route.audience).is_some_and(|promised| promised.block <= merged)
        {
            of.remove(&route.audience);
        }
    }

    /// Settles the kind of an audience without members, unless a block behind `merged` promises another kind,
    /// or the destination has no place for the audience.
    pub fn settle(
        &mut self,
        destination: &DestinationName,
        audience: &AudienceId,
        kind: &ContextKind,
        merged: u64,
    ) -> Result<(), Unrecorded> {
        let of = self.known.entry(destination.clone()).or_default();
        let has_place = of.len() < self.most;
        match of.get_mut(audience) {
            Some(promised) if promised.kind == *kind => {
                promised.first = 0; // it has a row from now on
                Ok(())
            }
            Some(promised) if promised.block > merged => Err(Unrecorded::OtherKind),
            None if !has_place => Err(Unrecorded::TooManyAudiences),
            _ => {
                let block = merged.min(self.read); // no unread block has a delta for it
                of.insert(audience.clone(), Promised { kind: kind.clone(), block, first: 0 });
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
            message: None,
        };
        Intake {
            destination: DestinationName::new("production").expect("a name"),
            arrival: Timestamp(1),
            deltas: audiences.iter().map(delta).collect(),
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        }
    }

    #[test]
    fn what_is_promised_stays_so_when_nothing_comes_of_a_later_block() {
        let mut kinds = Kinds::new(9, 0);
        let [one] = &intake(&["a"]).deltas[..] else { panic!("one was made") };
        assert_eq!(kinds.promise(&[intake(&["a"])], 1), Ok(()));
        assert_eq!(kinds.promise(&[intake(&["a"])], 2), Ok(()));
        kinds.take_back(2);
        let destination = DestinationName::new("production").expect("a name");
        let device = ContextKind::new("device").expect("a kind");
        let mut settle = |merged| kinds.settle(&destination, &one.audience, &device, merged);
        assert_eq!(settle(0), Err(Unrecorded::OtherKind), "block 1 was answered and is not merged");
        assert_eq!(settle(1), Ok(()));
    }

    #[test]
    fn it_is_known_of_which_audiences_something_is_not_read() {
        let mut kinds = Kinds::new(9, 0);
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

    /// At most two audiences. Columns: the step, and the audiences known after it.
    #[test]
    fn a_new_audience_needs_a_place_and_a_known_one_has_it() {
        let (destination, kind) =
            (intake(&[]).destination, ContextKind::new("user").expect("a kind"));
        let id = |audience: &str| AudienceId::new(audience).expect("not empty");
        let route = |audience: &str| Route {
            destination: destination.clone(),
            audience: id(audience),
            audience_key: AudienceKey::new("vip").expect("not empty"),
            context_kind: kind.clone(),
        };
        let known = |kinds: &Kinds| -> Vec<String> {
            let of = kinds.known.get(&destination).into_iter().flat_map(HashMap::keys);
            let mut known: Vec<_> = of.map(|audience| audience.as_str().to_owned()).collect();
            known.sort();
            known
        };
        let too_many = Err(Unrecorded::TooManyAudiences);
        let mut kinds = Kinds::new(2, 0);
        assert_eq!(kinds.promise(&[intake(&["a", "b", "c"])], 1), too_many, "all or none");
        assert_eq!(known(&kinds), [""; 0]);
        assert_eq!(kinds.promise(&[intake(&["a"])], 1), Ok(()));
        assert_eq!(kinds.promise(&[intake(&["a", "b"])], 2), Ok(()));
        assert_eq!(kinds.promise(&[intake(&["c", "a"])], 3), too_many);
        kinds.take_back(2); // the disk was full
        assert_eq!(known(&kinds), ["a"]);
        assert_eq!(kinds.settle(&destination, &id("b"), &kind, 0), Ok(()), "through the writer");
        assert_eq!(kinds.settle(&destination, &id("c"), &kind, 0), too_many);
        kinds.has_read(1);
        assert_eq!(kinds.settle(&destination, &id("a"), &kind, 0), Ok(()), "it was promised");
        kinds.forget(&route("a"), 0);
        assert_eq!(known(&kinds), ["a", "b"], "a block still has it");
        kinds.forget(&route("a"), 1);
        assert_eq!(known(&kinds), ["b"], "it was dropped");
        assert_eq!(kinds.promise(&[intake(&["c", "b"])], 3), Ok(()));
        kinds.start_over([route("a")].iter(), 2);
        assert_eq!(known(&kinds), ["a", "b", "c"], "as many as there are, should they be more");
        assert_eq!(kinds.promise(&[intake(&["a", "c"])], 4), Ok(()), "those go on");
        assert_eq!(kinds.promise(&[intake(&["d"])], 4), too_many);
    }
}

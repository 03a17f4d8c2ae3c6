//! One dirty member, in half the bytes of a [`Member`]: very many are held.

use std::hash::BuildHasher;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::memtable::key::Key;
use crate::ledger::member::{Member, Told};
use crate::membership::{ContextKey, Membership, Timestamp};

/// What the row is, and what the member is now.
#[derive(Debug)]
pub(crate) struct Slot {
    pub key: Key,
    event_at: Timestamp,
    version: Timestamp,
    told_at: Timestamp,
    pending_since: Timestamp,
    key_rule: u32,
    flags: u16,
    rare: Option<Box<Rare>>,
}

/// What must be known of a stored row to update it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The row has the same `pending_since` as the member now, or neither is pending.
    pub keeps_since: bool,
}

/// Fields that few members have.
#[derive(Debug)]
struct Rare {
    parked_at: Option<Timestamp>,
    person: Option<[u8; 16]>,
    refused_with: Option<Timestamp>,
}

// The stored row …
const HAS_ROW: u16 = 1;
const ROW_IS_IN: u16 = 1 << 1;
const ROW_IS_PENDING: u16 = 1 << 2;
const ROW_IS_PARKED: u16 = 1 << 3;
const OF_THE_ROW: u16 = HAS_ROW | ROW_IS_IN | ROW_IS_PENDING | ROW_IS_PARKED;
// … and the member as it is now.
const IS_THERE: u16 = 1 << 4;
const IS_IN: u16 = 1 << 5;
const IS_TOLD: u16 = 1 << 6;
const TOLD_IN: u16 = 1 << 7;
const IS_PENDING: u16 = 1 << 8;
const UNHEARD: u16 = 1 << 9;
const ERASE: u16 = 1 << 10;
/// A flush has already left it to the next one once.
const WAS_KEPT: u16 = 1 << 11;
const HAS_LEFT: u16 = 1 << 12;
/// Its `pending_since` is that of the row.
const KEEPS_SINCE: u16 = 1 << 13;
const AHEAD: u16 = 1 << 14;
const EXPIRED: u16 = 1 << 15;

const _: () = assert!(size_of::<Option<Slot>>() == 72, "as `MEMBER_BYTES` takes it to be");

fn flag(flag: u16, is_set: bool) -> u16 {
    if is_set { flag } else { 0 }
}

impl Slot {
    /// A member whose stored row is `before`.
    pub fn new(key: &ContextKey, before: Option<&Member>, now: Option<&Member>) -> Self {
        let counts = Counts::of(before);
        let pending_since = before.and_then(|before| before.pending_since);
        let mut slot = Self {
            key: Key::of(key),
            event_at: Timestamp::EPOCH,
            version: Timestamp::EPOCH,
            told_at: Timestamp::EPOCH,
            pending_since: pending_since.unwrap_or(Timestamp::EPOCH),
            key_rule: 0,
            flags: flag(HAS_ROW, before.is_some())
                | flag(ROW_IS_IN, counts.included > 0)
                | flag(ROW_IS_PENDING, counts.pending > 0)
                | flag(ROW_IS_PARKED, counts.parked > 0)
                | flag(IS_PENDING, pending_since.is_some())
                | KEEPS_SINCE,
            rare: None,
        };
        slot.set(now);
        slot
    }

    /// The hash of its key.
    pub fn hash(&self, hasher: &impl BuildHasher) -> u64 {
        self.key.show(|key| hasher.hash_one(key))
    }

    /// Sets what the member is now; `None`: deleted.
    pub fn set(&mut self, now: Option<&Member>) {
        let keeps_since =
            self.has(KEEPS_SINCE) && now.and_then(|now| now.pending_since) == self.pending_since();
        self.flags &= OF_THE_ROW | WAS_KEPT;
        self.flags |= flag(KEEPS_SINCE, keeps_since);
        self.rare = None;
        let Some(now) = now else { return };
        // Destructured, so that a new field cannot be forgotten here.
        let Member {
            membership,
            event_at,
            version,
            told,
            pending_since,
            parked_at,
            unheard,
            erase,
            key_rule,
            person,
            refused_with,
            is_ahead,
            is_expired,
            has_left,
        } = *now;
        (self.event_at, self.version, self.key_rule) = (event_at, version, key_rule);
        self.told_at = told.map_or(Timestamp::EPOCH, |told| told.at);
        self.pending_since = pending_since.unwrap_or(Timestamp::EPOCH);
        self.flags |= IS_THERE
            | flag(IS_IN, membership.as_bool())
            | flag(IS_TOLD, told.is_some())
            | flag(TOLD_IN, told.is_some_and(|told| told.membership.as_bool()))
            | flag(IS_PENDING, pending_since.is_some())
            | flag(UNHEARD, unheard)
            | flag(ERASE, erase)
            | flag(AHEAD, is_ahead)
            | flag(EXPIRED, is_expired)
            | flag(HAS_LEFT, has_left);
        let is_rare = parked_at.is_some() || person.is_some() || refused_with.is_some();
        self.rare = is_rare.then(|| Box::new(Rare { parked_at, person, refused_with }));
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What the member is now; `None`: deleted.
    pub fn now(&self) -> Option<Member> {
        let rare = self.rare.as_deref();
        self.has(IS_THERE).then(|| Member {
            membership: Membership::from_bool(self.has(IS_IN)),
            event_at: self.event_at,
            version: self.version,
            told: self.has(IS_TOLD).then(|| Told {
                membership: Membership::from_bool(self.has(TOLD_IN)),
                at: self.told_at,
            }),
            pending_since: self.pending_since(),
            parked_at: rare.and_then(|rare| rare.parked_at),
            unheard: self.has(UNHEARD),
            erase: self.has(ERASE),
            key_rule: self.key_rule,
            person: rare.and_then(|rare| rare.person),
            refused_with: rare.and_then(|rare| rare.refused_with),
            is_ahead: self.has(AHEAD),
            is_expired: self.has(EXPIRED),
            has_left: self.has(HAS_LEFT),
        })
    }

    pub fn pending_since(&self) -> Option<Timestamp> {
        self.has(IS_PENDING).then_some(self.pending_since)
    }

    /// Whether the member has no row yet.
    pub fn is_new(&self) -> bool {
        self.flags & (HAS_ROW | IS_THERE) == IS_THERE
    }

    /// What must be known of the stored row to update it, if there is one.
    pub fn row(&self) -> Option<Row> {
        self.has(HAS_ROW).then(|| Row { keeps_since: self.has(KEEPS_SINCE) })
    }

    /// What the row will count as.
    pub fn counts(&self) -> Counts {
        Counts::of(self.now().as_ref())
    }

    /// What the stored row counts as.
    pub fn row_counts(&self) -> Counts {
        let one = |flag| u64::from(self.has(flag));
        Counts {
            included: one(ROW_IS_IN),
            pending: one(ROW_IS_PENDING),
            parked: one(ROW_IS_PARKED),
        }
    }

    /// Whether a flush should leave it to the next one: it is pending and will change again soon. `true` only
    /// once.
    pub fn is_kept(&mut self) -> bool {
        let is_kept = self.has(IS_PENDING) && !self.has(WAS_KEPT);
        self.flags |= flag(WAS_KEPT, is_kept);
        is_kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seeds;

    fn member() -> impl Strategy<Value = Member> {
        let stamp = || any::<i64>().prop_map(Timestamp);
        let maybe = || proptest::option::of(any::<i64>().prop_map(Timestamp));
        let told = proptest::option::of((any::<bool>(), stamp()));
        // Few values, so that equal ones are frequent.
        let since = proptest::option::of((0..2_i64).prop_map(Timestamp));
        let some = (any::<bool>(), stamp(), stamp(), told, since, maybe());
        let flags = any::<(bool, bool, bool, bool, bool)>();
        let others = (flags, any::<u32>(), any::<Option<[u8; 16]>>(), maybe());
        (some, others).prop_map(|(some, others)| {
            let (is_in, event_at, version, told, pending_since, parked_at) = some;
            let ((unheard, erase, is_ahead, is_expired, has_left), key_rule, person, refused_with) =
                others;
            Member {
                membership: Membership::from_bool(is_in),
                event_at,
                version,
                told: told.map(|(told, at)| Told { membership: Membership::from_bool(told), at }),
                pending_since,
                parked_at,
                unheard,
                erase,
                key_rule,
                person,
                refused_with,
                is_ahead,
                is_expired,
                has_left,
            }
        })
    }

    proptest! {
        #![proptest_config(seeds::kept_in("tests/seeds/slot.txt"))]

        #[test]
        fn a_member_is_what_it_was(
            row in proptest::option::of(member()),
            states in proptest::collection::vec(proptest::option::of(member()), 1..5),
        ) {
            let key = ContextKey::new("ada").expect("not empty");
            let mut slot = Slot::new(&key, row.as_ref(), row.as_ref());
            for state in &states {
                slot.set(state.as_ref());
                slot.is_kept();
                prop_assert_eq!(&slot.now(), state);
                let pending_since = state.as_ref().and_then(|state| state.pending_since);
                prop_assert_eq!(slot.pending_since(), pending_since);
            }
            let is_there = states.last().is_some_and(Option::is_some);
            prop_assert_eq!(slot.is_new(), row.is_none() && is_there);
            prop_assert_eq!(slot.row_counts(), Counts::of(row.as_ref()));
            let since = |member: Option<&Member>| member.and_then(|member| member.pending_since);
            let keeps_since = states.iter().all(|of| since(of.as_ref()) == since(row.as_ref()));
            prop_assert_eq!(slot.row(), row.map(|_| Row { keeps_since }));
        }
    }
}

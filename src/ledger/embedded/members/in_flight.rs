//! The members of an audience that are in flight: claimed by a courier and not reported yet.

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

use crate::ledger::member::Member;
use crate::membership::ContextKey;

/// The members in flight, with the rows of those that have not changed since they were claimed: these are
/// settled without reading the row again.
#[derive(Debug, Default)]
pub(crate) struct InFlight(HashTable<One>);

#[derive(Debug)]
struct One {
    /// The hash of the key.
    hash: u64,
    key: ContextKey,
    row: Option<Box<Member>>,
}

impl InFlight {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, hash: u64, key: &ContextKey) -> bool {
        self.0.find(hash, |one| one.key == *key).is_some()
    }

    pub fn insert(&mut self, hash: u64, key: ContextKey, row: Option<Member>) {
        self.remove(hash, &key);
        let one = One { hash, key, row: row.map(Box::new) };
        self.0.insert_unique(hash, one, |one| one.hash);
    }

    /// `false`: the member was not in flight.
    pub fn remove(&mut self, hash: u64, key: &ContextKey) -> bool {
        self.0.find_entry(hash, |one| one.key == *key).map(OccupiedEntry::remove).is_ok()
    }

    /// Takes the row as it was claimed, unless it may have changed.
    pub fn take_row(&mut self, hash: u64, key: &ContextKey) -> Option<Member> {
        let one = self.0.find_mut(hash, |one| one.key == *key)?;
        one.row.take().map(|row| *row)
    }

    /// The row has changed: forgets the claimed one.
    pub fn changed(&mut self, hash: u64, key: &ContextKey) {
        if let Some(one) = self.0.find_mut(hash, |one| one.key == *key) {
            one.row = None;
        }
    }

    /// The same members, without their rows.
    pub fn without_rows(mut self) -> Self {
        self.0.iter_mut().for_each(|one| one.row = None);
        self
    }
}

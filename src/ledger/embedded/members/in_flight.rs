//! Who of an audience is in flight: in a batch that a courier has and has not reported.

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

use crate::ledger::member::Member;
use crate::membership::ContextKey;

/// Members in a batch, and the rows of those of whom nothing has changed since: the answer to a call is
/// then written without a look.
#[derive(Debug, Default)]
pub(crate) struct InFlight(HashTable<One>);

#[derive(Debug)]
struct One {
    /// Of the key.
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

    /// `false`: it was not there.
    pub fn remove(&mut self, hash: u64, key: &ContextKey) -> bool {
        self.0.find_entry(hash, |one| one.key == *key).map(OccupiedEntry::remove).is_ok()
    }

    /// The row as it was claimed, once, unless it may be another one now.
    pub fn take_row(&mut self, hash: u64, key: &ContextKey) -> Option<Member> {
        let one = self.0.find_mut(hash, |one| one.key == *key)?;
        one.row.take().map(|row| *row)
    }

    /// The row is another one now.
    pub fn changed(&mut self, hash: u64, key: &ContextKey) {
        if let Some(one) = self.0.find_mut(hash, |one| one.key == *key) {
            one.row = None;
        }
    }

    /// The same members, of whose rows nothing is known.
    pub fn without_rows(mut self) -> Self {
        self.0.iter_mut().for_each(|one| one.row = None);
        self
    }
}

//! The members of an audience that are in flight: claimed by a courier and not reported yet.

use hashbrown::HashMap;

use crate::ledger::member::Member;
use crate::membership::ContextKey;

/// The members in flight, with the rows of those that have not changed since they were claimed: these are
/// settled without reading the row again.
#[derive(Debug, Default)]
pub(crate) struct InFlight(HashMap<ContextKey, Option<Box<Member>>>);

impl InFlight {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, key: &ContextKey) -> bool {
        self.0.contains_key(key)
    }

    pub fn insert(&mut self, key: ContextKey, row: Option<Member>) {
        self.0.insert(key, row.map(Box::new));
    }

    pub fn remove(&mut self, key: &ContextKey) {
        self.0.remove(key);
    }

    /// Takes the row as it was claimed, unless it may have changed.
    pub fn take_row(&mut self, key: &ContextKey) -> Option<Member> {
        self.0.get_mut(key)?.take().map(|row| *row)
    }

    /// The row has changed: forgets the claimed one.
    pub fn changed(&mut self, key: &ContextKey) {
        if let Some(row) = self.0.get_mut(key) {
            *row = None;
        }
    }

    /// The same members, without their rows.
    pub fn without_rows(mut self) -> Self {
        self.0.values_mut().for_each(|row| *row = None);
        self
    }
}

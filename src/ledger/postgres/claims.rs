//! Who is in which call of this process, and what they were when it was made.

use std::collections::HashMap;

use crate::ledger::postgres::rows::Stored;
use crate::membership::{AudienceId, ContextKey};

/// Who is in which call.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    members: HashMap<(AudienceId, ContextKey), Claimed>,
    /// How many members of a call have not been reported.
    calls: HashMap<i64, usize>,
}

/// A member in a call.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// As it was when the call was made.
    pub row: Stored,
    pub call: i64,
    /// Of the reign in which it was claimed.
    pub token: i64,
}

impl Claims {
    /// These are in a call.
    pub fn add(&mut self, audience: &AudienceId, rows: Vec<Stored>, call: i64, token: i64) {
        *self.calls.entry(call).or_default() += rows.len();
        for row in rows {
            let key = (audience.clone(), row.context_key.clone());
            self.members.insert(key, Claimed { row, call, token });
        }
    }

    /// A member is reported that was claimed under this token.
    pub fn remove(&mut self, audience: &AudienceId, key: &ContextKey, token: i64) {
        if self.of(audience, key).is_none_or(|claimed| claimed.token != token) {
            return; // it is in a call of another reign
        }
        let Some(Claimed { call, .. }) = self.members.remove(&(audience.clone(), key.clone()))
        else {
            return;
        };
        if let Some(left) = self.calls.get_mut(&call) {
            *left = left.saturating_sub(1);
        }
        self.calls.retain(|_, left| *left > 0);
    }

    /// In which call a member is.
    pub fn of(&self, audience: &AudienceId, key: &ContextKey) -> Option<&Claimed> {
        self.members.get(&(audience.clone(), key.clone()))
    }

    /// The calls that are over once these members are reported.
    pub fn over_with<'a>(
        &self,
        audience: &AudienceId,
        keys: impl Iterator<Item = &'a ContextKey>,
    ) -> Vec<i64> {
        let mut left = self.calls.clone();
        for claimed in keys.filter_map(|key| self.of(audience, key)) {
            left.entry(claimed.call).and_modify(|left| *left = left.saturating_sub(1));
        }
        left.into_iter().filter(|(_, left)| *left == 0).map(|(call, _)| call).collect()
    }

    pub fn contains(&self, audience: &AudienceId, key: &ContextKey) -> bool {
        self.members.contains_key(&(audience.clone(), key.clone()))
    }

    /// Everybody in a call.
    pub fn all(&self) -> impl Iterator<Item = (&AudienceId, &Claimed)> {
        self.members.iter().map(|((audience, _), claimed)| (audience, claimed))
    }

    /// The calls that are out.
    pub fn calls(&self) -> Vec<i64> {
        self.calls.keys().copied().collect()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

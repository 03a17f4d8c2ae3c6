//! Members that have changed and whose rows are written later, together.
//!
//! While the writer is behind, a member changes several times within a moment: it arrives, is claimed
//! and is told. What was merged from the journal need not be written before it leaves the journal, and
//! what was told need not be written at once: whoever is told twice is told the same. So the rows of
//! many changes are written once, in the order of the table.
//!
//! # What always holds
//! * Whoever reads the rows themselves has them written first ([`Unwritten::write_all`]): only what
//!   looks up one member, or asks who waits, finds them here.
//! * A block leaves the journal with the transaction that writes the last member it has changed (P1,
//!   tests/it/faults.rs). After a crash it is merged again, and ends the same.
//! * Members of which a call was made are known by the mark of their audience, which is written with
//!   the claim: what was heard of the call since may be lost.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::members;
use crate::ledger::member::{Member, Next};
use crate::membership::Timestamp;

/// They are written after so long: until then nothing leaves the journal.
const AT_THE_LATEST: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Changed {
    /// Its row.
    before: Option<Box<Member>>,
    /// What that is to be.
    now: Option<Box<Member>>,
}

/// What is not written yet.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// When there are so many they are written.
    most: usize,
    members: HashMap<i64, HashMap<Arc<str>, Changed>>,
    count: usize,
    /// Those who are pending, by the row of their audience and since when.
    pending: BTreeSet<(i64, Timestamp, Arc<str>)>,
    /// Since the first of them has changed.
    since: Option<Instant>,
    /// What changes now is written later.
    pub is_open: bool,
}

impl Unwritten {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            members: HashMap::new(),
            count: 0,
            pending: BTreeSet::new(),
            since: None,
            is_open: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it is time to write them.
    pub fn is_due(&self) -> bool {
        self.count >= self.most || self.since.is_some_and(|since| since.elapsed() >= AT_THE_LATEST)
    }

    /// The member, if it is here or has a row.
    pub fn load(
        &self,
        db: &Connection,
        audience: i64,
        key: &str,
    ) -> rusqlite::Result<Option<Member>> {
        match self.changed(audience, key) {
            Some(changed) => Ok(changed.now.as_deref().cloned()),
            None => members::load(db, audience, key),
        }
    }

    fn changed(&self, audience: i64, key: &str) -> Option<&Changed> {
        if self.count == 0 { None } else { self.members.get(&audience)?.get(key) }
    }

    /// Makes a member what the rules decided, now or later.
    pub fn store(
        &mut self,
        db: &Connection,
        audience: i64,
        key: &str,
        before: Option<&Member>,
        next: &Next,
    ) -> rusqlite::Result<()> {
        if !self.is_open {
            return members::store(db, audience, key, before, next);
        }
        let now = match next {
            Next::Same => return Ok(()),
            Next::Write(after) => Some(after),
            Next::Delete => None,
        };
        let of = self.members.entry(audience).or_default();
        let known = of.remove_entry(key);
        let (key, before) = if let Some((key, Changed { before, now: was })) = known {
            if let Some(since) = was.and_then(|was| was.pending_since) {
                self.pending.remove(&(audience, since, Arc::clone(&key)));
            }
            (key, before)
        } else {
            self.count += 1;
            self.since.get_or_insert_with(Instant::now);
            (Arc::from(key), before.cloned().map(Box::new))
        };
        if let Some(since) = now.and_then(|now| now.pending_since) {
            self.pending.insert((audience, since, Arc::clone(&key)));
        }
        of.insert(key, Changed { before, now: now.cloned().map(Box::new) });
        Ok(())
    }

    /// Shows the members of an audience that are pending since later than `after` to `visit`, the
    /// longest pending first, until it has seen enough (`false`); of those who have only a row, if
    /// there can be such.
    pub fn visit_pending(
        &self,
        db: &Connection,
        audience: i64,
        after: Timestamp,
        has_rows: bool,
        mut visit: impl FnMut(&str, &Member) -> bool,
    ) -> rusqlite::Result<()> {
        let mut here = self
            .pending
            .range((audience, Timestamp(after.0 + 1), Arc::from(""))..)
            .take_while(|(of, ..)| *of == audience)
            .filter_map(|(_, since, key)| {
                Some((*since, key, self.changed(audience, key)?.now.as_deref()?))
            })
            .peekable();
        let mut has_enough = false;
        if has_rows {
            members::visit_pending(db, audience, after, |key, row| {
                let since = row.pending_since.unwrap_or(after);
                while let Some((_, key, member)) = here.next_if(|(earlier, ..)| *earlier < since) {
                    if !visit(key, member) {
                        has_enough = true;
                        return false;
                    }
                }
                // Of whom both is known the row is not the truth any more.
                has_enough = self.changed(audience, key).is_none() && !visit(key, row);
                !has_enough
            })?;
        }
        if !has_enough {
            for (_, key, member) in here {
                if !visit(key, member) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes the rows of all; the audiences that they are of.
    pub fn write_all(&mut self, db: &Connection) -> rusqlite::Result<Vec<i64>> {
        let mut audiences: Vec<i64> = self.members.keys().copied().collect();
        audiences.sort_unstable();
        for audience in &audiences {
            let Some(of) = self.members.remove(audience) else { continue };
            let mut of: Vec<_> = of.into_iter().collect();
            of.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            for (key, Changed { before, now }) in of {
                let before = before.as_deref();
                let next = match now {
                    Some(now) if before != Some(&*now) => Next::Write(*now),
                    None if before.is_some() => Next::Delete,
                    _ => Next::Same,
                };
                members::store(db, *audience, &key, before, &next)?;
            }
        }
        self.forget();
        Ok(audiences)
    }

    /// Nothing of it counts: the journal is read again.
    pub fn forget(&mut self) {
        *self = Self { is_open: self.is_open, ..Self::new(self.most) };
    }
}

//! What a plain map knows: the promises as they are written, without the rules that the stores share.

use std::collections::BTreeMap;

use crate::ledger::intake::MESSAGE_KEPT;
use crate::membership::Timestamp;

/// Of which destination and audience, and who.
pub(super) type Who = (String, String, String);

/// What should be of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    pub included: bool,
    /// When that became so; the beginning of time if nobody remembers.
    pub at: i64,
    /// Which rule chose its key.
    pub rule: u32,
    /// It was removed, and erased since or soon: LaunchDarkly need not know of it.
    pub is_removed: bool,
}

/// A delta or a deletion of a request.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Changes {
        audience: String,
        key: String,
        /// Whose.
        user: String,
        enters: bool,
        at: i64,
        rule: u32,
        /// Its message, and whether its time depends on its arrival.
        message: Option<(u8, bool)>,
        /// If not, its message counts as known all the same.
        is_recorded: bool,
    },
    Deletes {
        user: String,
        at: i64,
    },
}

/// The map.
#[derive(Default)]
pub(super) struct Plain {
    pub members: BTreeMap<Who, Truth>,
    /// Since when a person of a destination is deleted.
    deleted: BTreeMap<(String, String), i64>,
    /// When a message of a destination came first, and when it counts.
    messages: BTreeMap<(String, u8), (i64, i64)>,
}

impl Plain {
    /// What happens in one request to a destination, one item after the other.
    pub fn take(&mut self, destination: &str, happenings: &[Happening], arrival: i64) {
        let kept = Timestamp(arrival).before(MESSAGE_KEPT).0;
        self.messages.retain(|_, (seen_at, _)| *seen_at > kept);
        let mut known = self.messages.clone();
        for happening in happenings {
            match happening.clone() {
                Happening::Changes {
                    audience,
                    key,
                    user,
                    enters,
                    at,
                    rule,
                    message,
                    is_recorded,
                } => {
                    let (mut at, mut is_repeat) = (at, false);
                    if let Some((hash, moves)) = message {
                        let hash = (destination.to_owned(), hash);
                        is_repeat = known.contains_key(&hash);
                        if moves {
                            self.messages.entry(hash.clone()).or_insert((arrival, at));
                        }
                        at = self.messages.get(&hash).map_or(at, |(_, counts_at)| *counts_at);
                    }
                    let deleted = self.deleted.get(&(destination.to_owned(), user));
                    if !is_recorded
                        || deleted.is_some_and(|since| at < *since || (is_repeat && at == *since))
                    {
                        continue;
                    }
                    let truth = Truth { included: enters, at, rule, is_removed: false };
                    let who = (destination.to_owned(), audience, key);
                    let stored = self.members.entry(who).or_insert(truth);
                    if at > stored.at || (at == stored.at && !is_repeat) {
                        *stored = Truth { is_removed: !enters && stored.is_removed, ..truth };
                    }
                }
                Happening::Deletes { user, at } => {
                    self.delete(destination, &user, at, at);
                    known = self.messages.clone();
                }
            }
        }
    }

    /// An operator deletes somebody.
    pub fn forget(&mut self, destination: &str, user: &str, arrival: i64) {
        let theirs = self.members.iter().filter(|(who, _)| is_of(who, destination, user));
        let latest = theirs.map(|(_, truth)| truth.at.saturating_add(1)).max();
        self.delete(destination, user, arrival, i64::MAX);
        let since = self.deleted.get_mut(&(destination.to_owned(), user.to_owned()));
        let since = since.expect("it is there now");
        *since = (*since).max(latest.unwrap_or(arrival));
    }

    fn delete(&mut self, destination: &str, user: &str, at: i64, through: i64) {
        let person = (destination.to_owned(), user.to_owned());
        let since = self.deleted.entry(person).or_insert(at);
        *since = (*since).max(at);
        for (who, truth) in &mut self.members {
            if is_of(who, destination, user) && truth.at <= through {
                truth.remove(at);
            }
        }
    }

    /// Whose rows are gone is not remembered.
    pub fn forget_times(&mut self, is_gone: impl Fn(&Who) -> bool) {
        for (who, truth) in &mut self.members {
            if is_gone(who) {
                truth.at = i64::MIN;
            }
        }
    }
}

impl Truth {
    /// An operator takes back that it has left.
    pub fn reenter(&mut self, at: i64) {
        *self = Self { included: true, at: self.at.max(at), is_removed: false, ..*self };
    }

    pub fn remove(&mut self, at: i64) {
        *self = Self { included: false, at: self.at.max(at), is_removed: true, ..*self };
    }
}

/// Whether a member is of a person: under the user id, or under the mail address.
fn is_of((of, _, key): &Who, destination: &str, user: &str) -> bool {
    of == destination && key.split('@').next() == Some(user)
}

//! Logs concerns that no other line reports: that rejected events are kept or not kept, that all events
//! are ignored or rejected, that members are late ([P7](crate::design::P7)). Each is logged when it
//! begins, but no more often than [`QUIET`], whatever a sender does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Concern, ConcernKind};
use crate::membership::Timestamp;

/// Shortest time between two lines about one kind of concern of one destination.
const QUIET: Duration = Duration::from_secs(600);

/// The concerns that were logged.
#[derive(Debug, Default)]
pub struct Announced {
    said: BTreeMap<(String, ConcernKind), Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// When it was last logged.
    at: Timestamp,
    /// Whether it has lasted ever since.
    lasts: bool,
}

impl Announced {
    /// The concerns to log now: those that have begun since their last line, if that line is at least
    /// [`QUIET`] ago.
    pub fn news<'a>(
        &mut self,
        destination: &str,
        concerns: &'a [Concern],
        now: Timestamp,
    ) -> Vec<&'a Concern> {
        for ((of, kind), said) in &mut self.said {
            if of == destination {
                said.lasts &= concerns.iter().any(|concern| concern.kind == *kind);
            }
        }
        let has_no_line = |concern: &&Concern| {
            use ConcernKind::{Late, NotKept, OnlyIgnored, OnlyRejected, Rejected};
            matches!(concern.kind, Late | NotKept | OnlyIgnored | OnlyRejected | Rejected)
        };
        let mut is_new = |concern: &&Concern| {
            let key = (destination.to_owned(), concern.kind);
            let before = self.said.get(&key);
            let is_new = before.is_none_or(|said| !said.lasts && said.at.after(QUIET) <= now);
            if is_new {
                self.said.insert(key, Said { at: now, lasts: true });
            }
            is_new
        };
        concerns.iter().filter(has_no_line).filter(|concern| is_new(concern)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern(kind: ConcernKind) -> Concern {
        let text = String::new;
        Concern { kind, count: 1, since: None, why: text(), remedy: text(), manual: text() }
    }

    #[test]
    fn each_is_said_when_it_begins_and_seldom() {
        use ConcernKind::{Late, Parked, Rejected};
        let mut announced = Announced::default();
        let rows: [(u64, &[ConcernKind], &[ConcernKind]); 10] = [
            (0, &[], &[]),
            (5, &[Rejected, Parked], &[Rejected]),
            (10, &[Rejected], &[]),
            (700, &[Rejected], &[]),
            (705, &[], &[]),
            (710, &[Rejected, Late], &[Rejected, Late]),
            (715, &[Rejected], &[]),
            (720, &[Rejected, Late], &[]),
            (1305, &[Rejected, Late], &[]),
            (1310, &[Rejected, Late], &[Late]),
        ];
        for (second, kinds, expected) in rows {
            let concerns: Vec<_> = kinds.iter().copied().map(concern).collect();
            let now = Timestamp(1_800_000_000_000_000).after(Duration::from_secs(second));
            let news = announced.news("eu", &concerns, now);
            let news: Vec<_> = news.into_iter().map(|concern| concern.kind).collect();
            assert_eq!(news, expected, "after {second} s");
        }
        let other = [concern(Rejected)];
        assert_eq!(announced.news("us", &other, Timestamp(1_800_000_000_000_000)).len(), 1);
    }
}

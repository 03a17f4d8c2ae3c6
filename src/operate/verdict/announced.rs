//! What the log says of concerns that no line of their own step tells: that events are kept as rejected, that all
//! are ignored or rejected, that members are late (P7). Each is said when it begins, and not more often than
//! [`QUIET`], whatever a sender does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Concern, ConcernKind};
use crate::membership::Timestamp;

/// Between two lines about one kind of concern of one destination.
const QUIET: Duration = Duration::from_secs(600);

/// What was said last.
#[derive(Debug, Default)]
pub struct Announced {
    /// Since when it is so, as far as it still is, and when that was said.
    said: BTreeMap<(String, ConcernKind), Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Timestamp,
    /// It is still so.
    lasts: bool,
}

impl Announced {
    /// Those that are new since the last look at this destination, and are to be said.
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
            use ConcernKind::{Late, OnlyIgnored, OnlyRejected, Rejected};
            matches!(concern.kind, Late | OnlyIgnored | OnlyRejected | Rejected)
        };
        let mut is_new = |concern: &&Concern| {
            let key = (destination.to_owned(), concern.kind);
            let before = self.said.get(&key).copied();
            let is_said = before.is_some_and(|said| said.lasts || now < said.at.after(QUIET));
            let at = before.filter(|_| is_said).map_or(now, |said| said.at);
            self.said.insert(key, Said { at, lasts: true });
            !is_said
        };
        concerns.iter().filter(has_no_line).filter(|concern| is_new(concern)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern(kind: ConcernKind) -> Concern {
        let text = String::new;
        Concern { kind, count: 1, since: None, why: text(), remedy: text() }
    }

    #[test]
    fn each_is_said_when_it_begins_and_seldom() {
        use ConcernKind::{Late, Parked, Rejected};
        let mut announced = Announced::default();
        let rows: [(u64, &[ConcernKind], &[ConcernKind]); 8] = [
            (0, &[], &[]),
            (5, &[Rejected, Parked], &[Rejected]),
            (10, &[Rejected], &[]),
            (700, &[Rejected], &[]),
            (705, &[], &[]),
            (710, &[Rejected, Late], &[Rejected, Late]),
            (715, &[Rejected], &[]),
            (720, &[Rejected, Late], &[]),
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

//! How many members entered and left each audience, minute by minute.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ledger::Turnover;
use crate::membership::{AudienceId, Timestamp};

/// Minutes that are kept.
pub const MINUTES: usize = 60;
/// Most audiences watched per destination. A further one is watched only when a quiet one has been
/// dropped.
const MOST: usize = 2000;

/// The last hour of one audience, minute by minute; the present minute is the last.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AudienceHistory {
    /// Members that entered, in each minute.
    pub joined: Vec<u64>,
    /// Members that left, in each minute.
    pub left: Vec<u64>,
}

/// The audiences of a destination that changed in the last hour.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    by_id: BTreeMap<AudienceId, Minutes>,
    /// The minute at which old entries were last removed.
    swept: i64,
}

/// The minutes in which members entered or left, the oldest first.
type Minutes = VecDeque<(i64, Turnover)>;

impl Audiences {
    pub fn add(&mut self, now: Timestamp, turnover: Vec<(AudienceId, Turnover)>) {
        let minute = minute(now);
        if self.swept != minute {
            self.swept = minute;
            self.by_id.retain(|_, minutes| {
                while minutes.front().is_some_and(|(of, _)| is_over(*of, minute)) {
                    minutes.pop_front();
                }
                !minutes.is_empty()
            });
        }
        for (audience, Turnover { joined, left, expired }) in turnover {
            if self.by_id.len() >= MOST && !self.by_id.contains_key(&audience) {
                continue;
            }
            let minutes = self.by_id.entry(audience).or_default();
            match minutes.back_mut() {
                // After the clock was set back, counts go to the latest minute so far.
                Some((last, sum)) if *last >= minute => {
                    sum.joined += joined;
                    sum.left += left;
                    sum.expired += expired;
                }
                _ => minutes.push_back((minute, Turnover { joined, left, expired })),
            }
        }
    }

    pub fn show(&self, now: Timestamp) -> BTreeMap<String, AudienceHistory> {
        let last = minute(now);
        let of = |(audience, minutes): (&AudienceId, &Minutes)| {
            let mut shown = AudienceHistory { joined: vec![0; MINUTES], left: vec![0; MINUTES] };
            for (at, Turnover { joined, left, .. }) in
                minutes.iter().filter(|of| !is_over(of.0, last))
            {
                let ago = usize::try_from(last - at).unwrap_or(0);
                shown.joined[MINUTES - 1 - ago] += joined;
                shown.left[MINUTES - 1 - ago] += left;
            }
            (audience.as_str().to_owned(), shown)
        };
        self.by_id.iter().map(of).collect()
    }
}

fn minute(at: Timestamp) -> i64 {
    at.0.div_euclid(60_000_000)
}

fn is_over(of: i64, now: i64) -> bool {
    usize::try_from(now - of).is_ok_and(|ago| ago >= MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp(minute * 60_000_000 + 1)
    }

    fn one(audience: &str, joined: u64, left: u64) -> Vec<(AudienceId, Turnover)> {
        vec![(AudienceId::new(audience).expect("not empty"), Turnover { joined, left, expired: 0 })]
    }

    #[test]
    fn a_minute_sums_up_and_an_hour_later_it_is_gone() {
        let mut audiences = Audiences::default();
        audiences.add(at(100), one("vip", 2, 0));
        audiences.add(at(100), one("vip", 1, 1));
        audiences.add(at(99), one("vip", 1, 0)); // the clock was set back
        audiences.add(at(102), one("vip", 0, 5));
        let vip = &audiences.show(at(102))["vip"];
        assert_eq!((&vip.joined[57..], &vip.left[57..]), (&[4, 0, 0][..], &[1, 0, 5][..]));
        let vip = &audiences.show(at(160))["vip"];
        assert_eq!((vip.joined.iter().sum::<u64>(), vip.left.iter().sum::<u64>()), (0, 5));
        audiences.add(at(162), Vec::new());
        assert!(audiences.show(at(162)).is_empty() && audiences.by_id.is_empty());
    }

    #[test]
    fn past_the_cap_an_audience_waits_for_a_quiet_one() {
        let mut audiences = Audiences::default();
        for number in 0..MOST + 5 {
            audiences.add(at(1), one(&number.to_string(), 1, 0));
        }
        assert_eq!(audiences.show(at(1)).len(), MOST);
        for minute in 2..200 {
            audiences.add(at(minute), one("0", 1, 0));
        }
        assert_eq!(audiences.by_id.len(), 1);
        assert!(audiences.by_id.values().all(|minutes| minutes.len() <= MINUTES));
        audiences.add(at(200), one("late", 1, 0));
        assert!(audiences.show(at(200)).contains_key("late"));
    }
}

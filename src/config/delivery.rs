//! `[delivery]` and `[destinations.<name>.delivery]`: how batches are made and sent.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::listeners::{A_YEAR_MS, A_YEAR_S};
use super::section::Section;
use crate::clock::whole_millis;
use crate::deliver::Policy;

/// The most members that LaunchDarkly's two public integrations [send in a
/// request](crate::design::launchdarkly::synced_segments).
const PUBLIC_INTEGRATIONS_SEND: usize = 1000;

const KIB: u64 = 1024;

/// How batches are made and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How it is delivered to.
    pub policy: Policy,
    /// A value sent less than this ago is not sent again; with zero every repeat is sent.
    pub repeat_window: Duration,
    /// Timeout of a request, from its start to the end of its answer.
    pub request_timeout: Duration,
}

impl Delivery {
    /// Reads a section. A destination's section inherits what it does not set from `[delivery]`.
    pub(super) fn read(mut section: Section<'_>, inherited: Option<&Self>) -> Self {
        let count = |count: NonZeroUsize| count.get() as u64;
        let sets_a_wait =
            ["linger_ms", "retry_floor_ms", "retry_ceiling_ms"].iter().any(|key| section.has(key));
        let sets_the_least = section.has("min_concurrency");
        let mut number = |key, range, inherited: Option<u64>| match inherited {
            Some(inherited) => section.whole(key, range).unwrap_or(inherited),
            None => section.needed_whole(key, range),
        };
        let max_batch =
            number("max_batch", 1..=100_000, inherited.map(|d| count(d.policy.max_batch)));
        let kib = inherited.map(|d| d.policy.max_body_bytes as u64 / KIB);
        let max_body = number("max_body_kib", 1..=1_048_576, kib);
        let linger =
            number("linger_ms", 0..=A_YEAR_MS, inherited.map(|d| whole_millis(d.policy.linger)));
        let concurrency =
            number("concurrency", 1..=1000, inherited.map(|d| count(d.policy.concurrency)));
        let least =
            number("min_concurrency", 1..=1000, inherited.map(|d| count(d.policy.min_concurrency)));
        let repeat_window =
            number("repeat_window_s", 0..=A_YEAR_S, inherited.map(|d| d.repeat_window.as_secs()));
        let mut wait = |key, inherited: Option<Duration>| {
            Duration::from_millis(number(key, 1..=A_YEAR_MS, inherited.map(whole_millis)))
        };
        let delivery = Self {
            policy: Policy {
                max_batch: non_zero(max_batch),
                max_body_bytes: usize::try_from(max_body * KIB).unwrap_or(usize::MAX),
                linger: Duration::from_millis(linger),
                concurrency: non_zero(concurrency),
                min_concurrency: non_zero(least),
                retry_floor: wait("retry_floor_ms", inherited.map(|d| d.policy.retry_floor)),
                retry_ceiling: wait("retry_ceiling_ms", inherited.map(|d| d.policy.retry_ceiling)),
            },
            repeat_window: Duration::from_secs(repeat_window),
            request_timeout: wait("request_timeout_ms", inherited.map(|d| d.request_timeout)),
        };
        if sets_a_wait && section.is_clean() && section.is_clean_elsewhere("delivery") {
            delivery.check_waits(&section);
        }
        if sets_the_least
            && section.is_clean()
            && delivery.policy.min_concurrency > delivery.policy.concurrency
        {
            let problem = format!("is above concurrency ({})", delivery.policy.concurrency);
            section.fault(
                "min_concurrency",
                Some(delivery.policy.min_concurrency.to_string()),
                problem,
            );
        }
        let max_batch_is_new =
            inherited.is_none_or(|d| d.policy.max_batch != delivery.policy.max_batch);
        if max_batch_is_new && delivery.policy.max_batch.get() > PUBLIC_INTEGRATIONS_SEND {
            let text = "LaunchDarkly's public integrations send at most 1000 members a request; \
                        larger ones may be refused";
            section.warn("max_batch", text);
        }
        section.finish();
        delivery
    }

    fn check_waits(&self, section: &Section<'_>) {
        let (floor, ceiling) =
            (self.policy.retry_floor.as_millis(), self.policy.retry_ceiling.as_millis());
        if ceiling < floor {
            let problem = format!("is below retry_floor_ms ({floor})");
            section.fault("retry_ceiling_ms", Some(ceiling.to_string()), problem);
        }
        if self.policy.linger > self.policy.retry_ceiling {
            let text = "a change waits longer for its batch to fill than for the slowest retry \
                        (retry_ceiling_ms)";
            section.warn("linger_ms", text);
        }
    }
}

/// Never zero: the range of such keys starts at one.
fn non_zero(count: u64) -> NonZeroUsize {
    usize::try_from(count).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

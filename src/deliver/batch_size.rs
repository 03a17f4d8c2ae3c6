//! How many members a request may carry: halved after a 413, and raised again slowly. Pure.
//!
//! LaunchDarkly does not document the
//! [largest request it accepts](crate::design::launchdarkly::synced_segments); the limit may depend on
//! the length of the context keys.

use std::num::NonZeroUsize;

/// Full batches that must be taken before a larger one is tried, so that at most about one call in 100
/// is refused.
const TAKEN_BEFORE_LARGER: u32 = 100;

/// The present limit, never above the configured one.
#[derive(Debug)]
pub(super) struct BatchSize {
    most: NonZeroUsize,
    now: NonZeroUsize,
    /// Full batches taken at the present size.
    taken: u32,
}

impl BatchSize {
    pub fn new(most: NonZeroUsize) -> Self {
        Self { most, now: most, taken: 0 }
    }

    /// Another limit is configured; a limit lowered by a 413 stays.
    pub fn change(&mut self, most: NonZeroUsize) {
        self.now = if self.now == self.most { most } else { self.now.min(most) };
        self.most = most;
    }

    /// Most members of a request.
    pub fn now(&self) -> NonZeroUsize {
        self.now
    }

    /// A request with this many members was too large.
    pub fn too_large(&mut self, members: usize) {
        let half = NonZeroUsize::new(members / 2).unwrap_or(NonZeroUsize::MIN);
        self.now = self.now.min(half);
        self.taken = 0;
    }

    /// A request with this many members was taken.
    pub fn taken(&mut self, members: usize) {
        if members < self.now.get() || self.now == self.most {
            return;
        }
        self.taken += 1;
        if self.taken == TAKEN_BEFORE_LARGER {
            self.now = self.now.saturating_mul(NonZeroUsize::MIN.saturating_add(1)).min(self.most);
            self.taken = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_at_once_and_comes_back_slowly() {
        let mut size = BatchSize::new(NonZeroUsize::new(1000).expect("not zero"));
        size.taken(1000);
        for (too_large, now) in [(1000, 500), (1000, 500), (500, 250), (3, 1), (1, 1)] {
            size.too_large(too_large);
            assert_eq!(size.now().get(), now, "after {too_large} were too large");
        }
        let mut size = BatchSize::new(NonZeroUsize::new(1000).expect("not zero"));
        size.too_large(600);
        let mut after = |batches: u32, members: usize| {
            (0..batches).for_each(|_| size.taken(members));
            size.now().get()
        };
        assert_eq!(after(99, 300), 300);
        assert_eq!(after(1000, 299), 300, "a batch that is not full shows nothing");
        assert_eq!(after(1, 300), 600);
        assert_eq!(after(100, 600), 1000, "never more than configured");
        let mut changed = |most| {
            size.change(NonZeroUsize::new(most).expect("not zero"));
            size.now().get()
        };
        assert_eq!((changed(2000), changed(500)), (2000, 500));
        size.too_large(400);
        let mut changed = |most| {
            size.change(NonZeroUsize::new(most).expect("not zero"));
            size.now().get()
        };
        assert_eq!((changed(1000), changed(100), changed(1000)), (200, 100, 1000));
    }
}

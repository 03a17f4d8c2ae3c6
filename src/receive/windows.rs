//! What may arrive on an HTTP/2 connection before somebody reads it: its receive windows.
//!
//! A sender at a distance gets one window through in a round trip, so that narrow ones make a large batch
//! slow: 4.5 MB in 64 KiB a round trip of 100 ms take seven seconds, and Segment waits for five. Wide ones come
//! out of a share of the budget of the bodies ([P6](crate::design::P6)): each connection reserves its own before it is told
//! of it, for as long as it is open, and those that come once the share is used up have narrow ones
//! (tests/it/distant.rs, tests/it/memory.rs).

use super::budget::{Budget, WindowReservation};

/// The windows of a connection, and of each stream of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub connection_bytes: u32,
    pub stream_bytes: u32,
}

/// Ten megabytes a second at 100 ms.
pub(super) const WIDE: Windows =
    Windows { connection_bytes: 4 * 1024 * 1024, stream_bytes: 1024 * 1024 };

/// As HTTP/2 begins by itself: a sender has them before it is told anything.
pub(super) const NARROW: Windows = Windows { connection_bytes: 64 * 1024, stream_bytes: 64 * 1024 };

/// Room for wide windows, if there is any left.
pub(super) fn reserve_wide(budget: &Budget) -> Option<WindowReservation> {
    budget.reserve_window(WIDE.connection_bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_connections_have_wide_windows_and_the_largest_body_fits_beside_them() {
        const MIB: usize = 1 << 20;
        // limit of a body, budget, connections with wide windows
        let table = [(128, 256, 4), (16, 256, 7), (128, 512, 12), (224, 256, 1), (256, 256, 0)];
        for (limit, bytes, connections) in table {
            let budget = Budget::new(10, bytes * MIB, limit * MIB);
            let held: Vec<_> = std::iter::from_fn(|| reserve_wide(&budget)).collect();
            assert_eq!(held.len(), connections, "{limit} {bytes}");
            assert!(budget.reserve_whole(limit * MIB).is_ok());
        }
    }
}

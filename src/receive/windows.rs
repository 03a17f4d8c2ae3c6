//! The receive windows of HTTP/2 connections: how much may arrive before it is read.
//!
//! A distant sender gets one window through per round trip, so that narrow windows make a large batch slow:
//! 4.5 MB, at 64 KiB per round trip of 100 ms, take seven seconds, and Segment waits for five. Wide windows
//! are taken from a share of the body budget ([P6](crate::design::P6)): each connection reserves its own
//! before it announces it, for as long as it is open, and connections that come once the share is used up
//! have narrow windows (tests/it/distant.rs, tests/it/memory.rs).

use super::budget::{Budget, WindowReservation};

/// The window of a connection, and of each of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Windows {
    pub connection_bytes: u32,
    pub stream_bytes: u32,
}

/// At a round trip of 100 ms, ten megabytes a second on one stream.
pub(super) const WIDE: Windows =
    Windows { connection_bytes: 4 * 1024 * 1024, stream_bytes: 1024 * 1024 };

/// HTTP/2's initial windows, which a sender has before it is told anything.
pub(super) const NARROW: Windows = Windows { connection_bytes: 64 * 1024, stream_bytes: 64 * 1024 };

/// Reserves room for wide windows, if any is left.
pub(super) fn reserve_wide(budget: &Budget) -> Option<WindowReservation> {
    budget.reserve_window(WIDE.connection_bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_connections_have_wide_windows_and_the_largest_body_fits_beside_them() {
        const MIB: usize = 1 << 20;
        // body limit, budget, number of connections with wide windows
        let table = [(128, 256, 4), (16, 256, 7), (128, 512, 12), (224, 256, 1), (256, 256, 0)];
        for (limit, bytes, connections) in table {
            let budget = Budget::new(10, bytes * MIB, limit * MIB);
            let held: Vec<_> = std::iter::from_fn(|| reserve_wide(&budget)).collect();
            assert_eq!(held.len(), connections, "{limit} {bytes}");
            assert!(budget.reserve_whole(limit * MIB).is_ok());
        }
    }
}

//! Sample traffic.

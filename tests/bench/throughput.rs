//! Durable throughput, measured.
fn main() {}

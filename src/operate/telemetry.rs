//! Telemetry: traces and metrics by OTLP over HTTP, if `[telemetry]` names a collector.
//!
//! The steps know nothing of it: the public router, the ledger that `receive` sees and the client that
//! a courier calls are wrapped. Without a collector nothing is wrapped, so there is no overhead. Why
//! there is [no SDK](crate::design::decisions::own_otlp).
//!
//! # How a trace continues behind the ledger
//! Many requests are delivered in one call, and one request in several calls. A call continues the
//! trace of the latest request that touched its audience and has not been delivered yet, and links to
//! up to `MOST_LINKS` other such requests. LaunchDarkly therefore receives a `traceparent` of a trace
//! that a sender began. If a call is not taken, its traces are handed to the next one. Requests
//! received before a restart belong to no trace any more.
//!
//! # What always holds
//! * Attributes are names of destinations, IDs of audiences, statuses, existing paths, LaunchDarkly's
//!   URLs and counts. Nothing personal, and no header but `traceparent`, is read or sent
//!   ([P8](crate::design::P8); tests/it/telemetry.rs). `tracestate` is not passed on, as its content is
//!   up to the senders.
//! * What the collector does not take is dropped and counted; nothing waits for it
//!   ([P6](crate::design::P6)).

mod context;
mod delivering;
mod export;
mod otlp;
mod receiving;
mod spans;

pub use context::traceparent;
pub use delivering::{TracedApi, Untold};
pub use export::Exporter;
pub use receiving::{TracedLedger, traced};
pub use spans::Tracer;

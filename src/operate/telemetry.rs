//! Telemetry: traces and metrics for a collector, by OTLP over HTTP, where `[telemetry]` names one.
//!
//! Steps know nothing of it: the public router is wrapped, and so are the ledger that receiving sees and
//! the client that a courier calls. Without a collector nothing is wrapped, and nothing is paid. Why there is
//! [no SDK](crate::design::decisions::own_otlp).
//!
//! # How a trace goes on behind the ledger
//! Many requests are told in one call, and a request in several. A call goes on with the trace of the latest
//! request that touched its audience and was not told before, and is linked to up to `MOST_LINKS` others:
//! so the `traceparent` that LaunchDarkly gets is of a trace that a sender began. A call that was not taken hands
//! them on to its successor. What was received before a restart belongs to no trace any more.
//!
//! # What always holds
//! * Attributes are names of destinations, ids of audiences, statuses, paths there are, URLs of LaunchDarkly and
//!   counts; nothing personal and no header but `traceparent` is read or sent
//!   ([P8](crate::design::P8); tests/it/telemetry.rs). `tracestate` is not passed on: its content is the senders'.
//! * What the collector does not take is dropped and counted; nobody waits for it ([P6](crate::design::P6)).

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

//! LaunchDarkly: the HTTP client for the endpoint that fills synced segments, and the JSON it sends.
//!
//! This module decides nothing: [`Api::send`] makes one call and returns its result as an [`Answer`];
//! `deliver` decides when to call and what to do next. [`CredentialsCheck`] checks the credentials
//! beforehand.
//!
//! # What always holds
//! * The service token goes to the configured host only: no redirect is followed and no proxy but
//!   the configured one is used ([P8](crate::design::P8)).
//! * A call ends within the request timeout, whatever the server does.
//! * The meaning of an answer is a pure function of its status, headers and body
//!   ([P9](crate::design::P9)).
//! # What does not
//! Calls are not retried here. If the future of a call is dropped, the call may or may not be applied.

mod answer;
pub mod calls;
mod client;
mod connection;
mod credentials;
mod limits;
pub mod wire;

pub use answer::{Answer, Fate, Outcome, Refusal, classify};
pub use client::{Api, Client, Endpoint};
pub use connection::ClientError;
pub use credentials::{CredentialsCheck, Verdict};
pub use limits::{RateLimits, Window};

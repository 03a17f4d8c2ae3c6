//! LaunchDarkly: the HTTP client and the JSON it speaks, for the endpoint that fills synced segments.
//!
//! Nothing here decides: [`Api::send`] makes one call and says in an [`Answer`] what became of
//! it; when to call and what to do next is `deliver`'s. [`Credentials`] asks beforehand.
//!
//! # What always holds
//! * The service token goes to the configured host only: no redirect is followed and no proxy but
//!   the configured one is used ([P8](crate::design::P8)).
//! * A call ends within the request timeout, whatever the other side does.
//! * What an answer means is a pure function of status, headers and body ([P9](crate::design::P9)).
//! # What does not
//! A call is not repeated here. Dropping the future of a call leaves open whether it is applied.

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
pub use credentials::{Credentials, Verdict};
pub use limits::{RateLimits, Window};

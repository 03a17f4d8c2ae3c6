//! The design, for those who read or change the code: what is promised, what both neighbours send and
//! take, how the house is built, and why some things are the way they are. There is no code in here.
//!
//! Code refers to these pages: a promise by its number ([`Promise`]), a fact about a neighbour by the
//! section of its page ([`segment`], [`launchdarkly`]).

mod promises;

pub use promises::Promise;

#[doc = include_str!("design/segment.md")]
pub mod segment {}

#[doc = include_str!("design/launchdarkly.md")]
pub mod launchdarkly {}

#[doc = include_str!("design/architecture.md")]
pub mod architecture {}

#[doc = include_str!("design/glossary.md")]
pub mod glossary {}

#[doc = include_str!("design/decisions.md")]
pub mod decisions {}

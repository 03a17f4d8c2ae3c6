//! The threads that make things durable: requests are grouped into transactions, or appended to the log while
//! the writer is busy; dirty members are flushed on a thread of their own.

pub(crate) mod append;
pub(crate) mod background_check;
pub(crate) mod checkpoint;
pub(crate) mod command;
pub(crate) mod emptying;
pub(crate) mod flushing;
pub(crate) mod group;
pub(crate) mod reading;
pub(crate) mod space;
pub(crate) mod writer;

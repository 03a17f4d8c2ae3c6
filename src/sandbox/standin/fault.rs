//! The faults that can be injected into a call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::launchdarkly::wire::SyncMember;

/// A script: called once for each well-formed call.
pub(super) type Script = Box<dyn FnMut(&Incoming<'_>) -> Fault + Send>;

/// A call as a script sees it, before it is checked.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The number of the call, counted from 1.
    pub call_number: u64,
    /// The `environmentId` of the call.
    pub client_side_id: &'a str,
    /// The cohort id of its first member; empty if there is none.
    pub audience: &'a str,
    /// Its members.
    pub members: &'a [SyncMember<'a>],
}

/// What goes wrong. A call is checked before it is applied; one that LaunchDarkly would refuse changes
/// nothing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answered like this without being applied.
    Answer {
        /// Any status.
        status: u16,
        /// In addition to the usual ones.
        headers: Vec<(String, String)>,
        /// The usual error body if `None`.
        body: Option<String>,
    },
    /// Answered like this although the call is applied.
    AnswerAfterApply {
        /// Any status.
        status: u16,
        /// In addition to the usual ones.
        headers: Vec<(String, String)>,
        /// The usual error body if `None`.
        body: Option<String>,
    },
    /// Never answered; lasts until the client gives up.
    Hang {
        /// Whether and when the call is applied.
        apply: Apply,
    },
    /// The connection is closed without an answer.
    Reset {
        /// Whether and when the call is applied.
        apply: Apply,
    },
    /// The headers of an answer, then a body that never ends. Applied if the status is a 2xx.
    EndlessBody {
        /// Any status that has a body.
        status: u16,
        /// Bytes in each chunk.
        chunk_bytes: usize,
        /// Time between two chunks; not zero.
        every: Duration,
    },
}

impl Fault {
    /// A plain answer with this status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: None }
    }
}

/// Whether and when an unanswered call is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// It is not applied.
    No,
    /// It is applied at once.
    Now,
    /// It is applied after this delay, whether or not the client still waits: a late duplicate.
    Later(Duration),
}

/// A response body that never ends.
pub(super) struct Endless {
    chunk: Bytes,
    ticks: Interval,
}

impl Endless {
    pub(super) fn new(chunk_bytes: usize, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { chunk: vec![b' '; chunk_bytes].into(), ticks }
    }
}

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        ready!(self.ticks.poll_tick(context));
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

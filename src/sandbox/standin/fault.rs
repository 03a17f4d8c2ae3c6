//! What can be made to go wrong with a call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::launchdarkly::wire::SyncMember;

/// A script: asked once for each call that could be read.
pub(super) type Script = Box<dyn FnMut(&Incoming<'_>) -> Fault + Send>;

/// A call that a script decides about, before it is judged.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// Counts the calls of this stand-in, from 1.
    pub call_number: u64,
    /// The environment it names.
    pub client_side_id: &'a str,
    /// The cohort id of its first member; empty if there is none.
    pub audience: &'a str,
    /// Its members.
    pub members: &'a [SyncMember<'a>],
}

/// What goes wrong. What is "applied" is judged first, and a call that LaunchDarkly would refuse
/// changes nothing.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// This answer, and nothing is applied.
    Answer {
        /// Any status.
        status: u16,
        /// Beside the usual ones.
        headers: Vec<(String, String)>,
        /// The usual error body if absent.
        body: Option<String>,
    },
    /// This answer, though the call is applied.
    AnswerAfterApply {
        /// Any status.
        status: u16,
        /// Beside the usual ones.
        headers: Vec<(String, String)>,
        /// The usual error body if absent.
        body: Option<String>,
    },
    /// No answer until the client gives up.
    Hang {
        /// What becomes of the call.
        apply: Apply,
    },
    /// The connection is closed without an answer.
    Reset {
        /// What becomes of the call.
        apply: Apply,
    },
    /// The headers of an answer, and then a body without end. Applied if the status is a 2xx.
    EndlessBody {
        /// Any status that has a body.
        status: u16,
        /// Bytes that come at once.
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

/// What becomes of a call without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Nothing.
    No,
    /// It is applied.
    Now,
    /// It is applied after this time, whether or not the client still waits: a late duplicate.
    Later(Duration),
}

/// A body that never ends.
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

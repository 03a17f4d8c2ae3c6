//! One request and its answer on a connection: enforces the timeout of the body, and tells the connection
//! about the progress of both.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::connections::Connection;

/// From the head of a request to the end of its answer, which is when this is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    connection: Arc<Connection>,
    number: u64,
    is_answered: bool,
}

impl Exchange {
    pub fn begin(connection: Arc<Connection>) -> Self {
        let number = connection.begin();
        Self { connection, number, is_answered: false }
    }

    /// There is an answer, which from now on waits to be taken.
    pub fn answer(mut self, body: Body) -> Answer {
        self.is_answered = true;
        self.connection.completed();
        self.offer(Some(Instant::now()));
        Answer { body, exchange: self }
    }

    /// The sender of the request is authenticated.
    pub fn prove(&self) {
        self.connection.prove();
    }

    fn offer(&self, since: Option<Instant>) {
        self.connection.progress().offer(self.number, since);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the task of a request panicked; the sender of the request will retry");
        }
        self.connection.ended(self.number, self.is_answered);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    exchange: Exchange,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // being polled again means that the piece before was taken
        self.exchange.offer(frame.is_ready().then(Instant::now));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive in time")]
pub(super) struct TooSlow;

/// A body that fails with [`TooSlow`] if it does not arrive within `limit`.
pub(super) fn in_time<B>(body: B, limit: Duration, connection: Option<Arc<Connection>>) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    if body.is_end_stream() {
        if let Some(connection) = connection {
            connection.completed();
        }
        return Body::new(body);
    }
    Body::new(InTime { body, end: Box::pin(sleep(limit)), connection })
}

struct InTime<B> {
    body: B,
    end: Pin<Box<Sleep>>,
    /// Told when the body is complete.
    connection: Option<Arc<Connection>>,
}

impl<B> HttpBody for InTime<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.end.as_mut().poll(context));
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow))));
        };
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(connection) = self.connection.take()
        {
            connection.completed();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

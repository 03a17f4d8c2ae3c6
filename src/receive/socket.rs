//! A socket that returns bytes already read first, tells its connection when the peer accepts no more bytes,
//! and yields to other tasks where HTTP/2 may be spoken: its reader goes on as long as there is data, and
//! there may always be more control frames. Of HTTP/1 no more is read than somebody waits for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connections::Connection;

/// Most bytes read before other tasks get their turn.
const TURN_BYTES: usize = 64 * 1024;

pub(super) struct Socket {
    stream: TcpStream,
    /// Bytes that were already read from the stream.
    ahead: Bytes,
    connection: Arc<Connection>,
    is_blocked: bool,
    /// Whether it yields; decided by the first bytes.
    takes_turns: Option<bool>,
    /// Bytes read in this turn.
    read_bytes: usize,
}

impl Socket {
    pub fn new(stream: TcpStream, ahead: Bytes, connection: Arc<Connection>) -> Self {
        let mut socket =
            Self { stream, ahead, connection, is_blocked: false, takes_turns: None, read_bytes: 0 };
        socket.takes_turns = takes_turns(&socket.ahead);
        socket
    }

    fn note<T>(&mut self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_pending() != self.is_blocked {
            self.is_blocked = outcome.is_pending();
            self.connection.progress().block(self.is_blocked.then(Instant::now));
        }
        outcome
    }
}

/// Whether a connection that begins like this may speak HTTP/2: by its preface (RFC 9113, 3.4), or inside
/// TLS. `None` if there are no bytes yet.
fn takes_turns(beginning: &[u8]) -> Option<bool> {
    const HANDSHAKE: u8 = 0x16; // RFC 8446, 5.1
    let first = *beginning.first()?;
    let preface = b"PRI";
    let seen = &beginning[..beginning.len().min(preface.len())];
    Some(first == HANDSHAKE || preface.starts_with(seen))
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..taken]);
            self.ahead.advance(taken);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new(); // frees the buffer
                // read on at once: usually that completes the request
                if buffer.remaining() > 0
                    && let Poll::Ready(Err(error)) =
                        Pin::new(&mut self.stream).poll_read(context, buffer)
                {
                    return Poll::Ready(Err(error));
                }
            }
            return Poll::Ready(Ok(()));
        }
        if self.read_bytes >= TURN_BYTES && self.takes_turns == Some(true) {
            self.read_bytes = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.takes_turns = self.takes_turns.or_else(|| takes_turns(&buffer.filled()[before..]));
        self.read_bytes = match outcome {
            Poll::Ready(_) => self.read_bytes + buffer.filled().len() - before,
            Poll::Pending => 0,
        };
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// A TCP stream has no buffer to flush.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_http_2_takes_turns() {
        let table: [(&[u8], Option<bool>); 8] = [
            (b"", None),
            (b"PRI * HTTP/2.0", Some(true)),
            (b"P", Some(true)),
            (b"PR", Some(true)),
            (b"\x16\x03\x01", Some(true)),
            (b"POST /segment/production HTTP/1.1", Some(false)),
            (b"PUT / HTTP/1.1", Some(false)),
            (b"GET / HTTP/1.1", Some(false)),
        ];
        for (beginning, expected) in table {
            assert_eq!(takes_turns(beginning), expected, "{beginning:?}");
        }
    }
}

//! A file as the body of a request.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes that are read from the file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that are read ahead.
const AHEAD: usize = 4;

/// The file, read by a thread of its own.
pub(super) struct Pieces {
    coming: mpsc::Receiver<io::Result<Bytes>>,
    left: Option<u64>,
    /// Set once there is nothing more to send.
    pub all_sent: Arc<AtomicBool>,
}

impl Pieces {
    pub fn of(mut from: impl Read + Send + 'static, size: Option<u64>) -> Self {
        let (to, coming) = mpsc::channel(AHEAD);
        std::thread::spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match from.read(&mut piece) {
                    Ok(0) => return,
                    Ok(bytes) => {
                        piece.truncate(bytes);
                        Ok(piece.into())
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if to.blocking_send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self { coming, left: size, all_sent: Arc::default() }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = std::task::ready!(self.coming.poll_recv(context));
        if let (Some(Ok(piece)), Some(left)) = (&next, &mut self.left) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        if next.is_none() || self.left == Some(0) {
            self.all_sent.store(true, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

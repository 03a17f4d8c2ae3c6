//! The queue of log lines, and the thread that writes them.
//!
//! # What always holds
//! * Logging never blocks: a reader that has stopped reading delays no request
//!   ([P5](crate::design::P5)).
//! * A line that cannot be written is dropped and counted: the disk is full, the reader is gone, or the
//!   queue is full (`tests/it/log_lines.rs`).
//! * At most twice [`MOST_BYTES`] are buffered ([P6](crate::design::P6)).
//! * Lines logged before a panic or before the process ends are written first, unless that takes longer
//!   than [`PATIENCE`].

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use crate::counting::Count;

/// Most bytes in the queue, and most bytes being written.
const MOST_BYTES: usize = 512 << 10;
/// Most capacity of an idle buffer.
const KEPT_BYTES: usize = 16 << 10;
/// How long a panic or the end of the process waits for earlier lines.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two attempts to write to a full non-blocking pipe.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// The queue of log lines. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signals the thread that there are lines.
    come: Condvar,
    /// Signals [`Lines::flush`] that all lines are written.
    written: Condvar,
    dropped: Count,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines, one after the other.
    bytes: Vec<u8>,
    /// Whether the thread waits for lines.
    is_waiting: bool,
    /// Whether the lines taken last are still being written.
    is_writing: bool,
    /// Whether the thread has ended.
    has_ended: bool,
}

impl Lines {
    /// Starts the thread, which writes to standard error. Errors: the thread cannot be started.
    pub(super) fn to_stderr() -> io::Result<Self> {
        Self::start(Stderr)
    }

    fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let writer = Writer { lines: lines.clone(), sink, is_torn: false, reported: 0 };
        thread::Builder::new().name("log".into()).spawn(move || writer.run())?;
        Ok(lines)
    }

    /// Lines that could not be written since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Waits until the thread has ended, which should never happen.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Waits until all lines so far are written, but no longer than [`PATIENCE`].
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut queue = self.lock();
        while (queue.is_writing || !queue.bytes.is_empty()) && !queue.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.written.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns a guard that flushes when it is dropped, at the end of the process.
    #[must_use]
    pub fn flush_at_end(&self) -> FlushAtEnd {
        FlushAtEnd(self.clone())
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.has_ended || queue.bytes.len() + line.len() > MOST_BYTES {
            drop(queue);
            self.0.dropped.one();
            return;
        }
        queue.bytes.extend_from_slice(line);
        let is_waiting = std::mem::take(&mut queue.is_waiting);
        drop(queue);
        if is_waiting {
            self.0.come.notify_one();
        }
    }

    /// Waits for lines and swaps all of them into `taken`, which must be empty.
    fn take(&self, taken: &mut Vec<u8>) {
        let mut queue = self.lock();
        queue.is_writing = false;
        if queue.bytes.is_empty() {
            self.0.written.notify_all();
        }
        while queue.bytes.is_empty() {
            queue.is_waiting = true;
            queue = self.0.come.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        (queue.is_waiting, queue.is_writing) = (false, true);
        std::mem::swap(taken, &mut queue.bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    /// The subscriber writes one whole line at a time. Never fails: dropped lines are counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// See [`Lines::flush_at_end`].
#[derive(Debug)]
pub struct FlushAtEnd(Lines);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// The thread that writes the lines.
#[derive(Debug)]
struct Writer<S> {
    lines: Lines,
    sink: S,
    /// Whether the last written line is incomplete.
    is_torn: bool,
    /// How many dropped lines have been reported in the log.
    reported: u64,
}

impl<S: Write> Writer<S> {
    fn run(mut self) {
        let mut taken = Vec::new();
        loop {
            self.lines.take(&mut taken);
            let is_written = self.write(&taken);
            taken.clear();
            taken.shrink_to(KEPT_BYTES);
            let dropped = self.lines.dropped();
            if is_written && dropped > self.reported {
                let lines = dropped - self.reported;
                self.reported = dropped;
                tracing::warn!(lines, "log lines could not be written, and are lost");
            }
        }
    }

    /// Returns `false` if some lines could not be written; they are counted.
    fn write(&mut self, lines: &[u8]) -> bool {
        if self.is_torn && self.write_all(b"\n").is_ok() {
            self.is_torn = false;
        }
        let Err(left) = self.write_all(lines) else { return true };
        let (written, left) = lines.split_at(lines.len() - left);
        self.is_torn |= written.last().is_some_and(|last| *last != b'\n');
        let lost = left.split(|byte| *byte == b'\n').count() - 1; // one more part than newlines
        self.lines.0.dropped.add(lost as u64);
        false
    }

    /// The error is the number of bytes that could not be written.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(0) => return Err(bytes.len()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The reader is slow. Meanwhile the queue buffers lines while it has room.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN),
                Err(_) => return Err(bytes.len()),
            }
        }
        Ok(())
    }
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.lines.lock().has_ended = true;
        self.lines.0.written.notify_all();
        self.lines.0.ended.cancel();
    }
}

/// Standard error without the standard library's lock, so that a blocked write does not block other
/// writers.
#[derive(Debug)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A sink whose writes have the given outcomes in turn; a successful write takes at most that many
    /// bytes, which the test can see.
    struct Scripted {
        outcomes: Receiver<io::Result<usize>>,
        seen: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let outcome = self.outcomes.recv().expect("the script goes on as long as the test");
            let written = outcome?.min(bytes.len());
            self.seen.send(bytes[..written].to_vec()).expect("the test looks");
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted() -> (Lines, Sender<io::Result<usize>>, Receiver<Vec<u8>>) {
        let ((script, outcomes), (sink, sees)) = (channel(), channel());
        let lines = Lines::start(Scripted { outcomes, seen: sink }).expect("there is a thread");
        (lines, script, sees)
    }

    fn until(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "it never is so");
            thread::yield_now();
        }
    }

    fn next(sees: &Receiver<Vec<u8>>) -> String {
        let bytes = sees.recv_timeout(Duration::from_secs(60)).expect("it is written");
        String::from_utf8(bytes).expect("it is text")
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_a_torn_one_is_ended() {
        let (lines, script, sees) = scripted();
        let say = |outcome| script.send(outcome).expect("the thread goes on");
        let failure = |kind: ErrorKind| Err(kind.into());
        lines.push(b"one\n");
        say(failure(ErrorKind::Interrupted));
        say(failure(ErrorKind::WouldBlock)); // is retried
        say(Ok(2));
        say(failure(ErrorKind::StorageFull));
        assert_eq!(next(&sees), "on");
        until(|| lines.dropped() == 1);
        lines.push(b"two\n");
        say(failure(ErrorKind::BrokenPipe)); // not even the newline that ends the torn line
        say(failure(ErrorKind::BrokenPipe));
        until(|| lines.dropped() == 2);
        lines.push(b"three\n");
        say(Ok(1));
        say(Ok(99));
        assert_eq!((next(&sees), next(&sees)), ("\n".to_owned(), "three\n".to_owned()));
        assert_eq!(lines.dropped(), 2);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_has_stopped_and_what_waits_is_bounded() {
        let (lines, script, sees) = scripted();
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let most = 2 * MOST_BYTES / line.len();
        for _ in 0..most + 10 {
            lines.push(&line);
        }
        assert!(lines.dropped() >= 10, "{}", lines.dropped());
        assert!(lines.lock().bytes.capacity() <= 2 * MOST_BYTES);
        let began = Instant::now();
        lines.flush();
        assert!(began.elapsed() >= PATIENCE, "it has waited, and has given up");
        // What stayed in the queue is complete, and is written once the reader reads again.
        let kept = most + 10 - usize::try_from(lines.dropped()).expect("a small number");
        let mut read = 0;
        while read < kept {
            script.send(Ok(usize::MAX)).expect("the thread goes on");
            read += next(&sees).len() / line.len();
        }
        assert_eq!(read, kept);
    }

    #[test]
    fn a_flush_returns_when_all_is_written() {
        let (lines, script, sees) = scripted();
        lines.push(b"last words\n");
        script.send(Ok(usize::MAX)).expect("the thread goes on");
        lines.flush();
        assert_eq!(sees.try_recv().as_deref(), Ok(&b"last words\n"[..]));
    }

    #[tokio::test]
    async fn a_thread_that_ends_says_so_and_what_is_logged_then_is_counted() {
        let (lines, script, _) = scripted();
        drop(script); // makes the thread panic
        lines.push(b"never written\n");
        tokio::time::timeout(Duration::from_secs(60), lines.ended()).await.expect("it has ended");
        lines.push(b"never written\n");
        lines.flush();
        assert_eq!(lines.dropped(), 1);
    }
}

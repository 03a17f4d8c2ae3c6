//! The body of a request: read whole, within a time and a size, out of a budget that all bodies in
//! flight share (P6).
//!
//! A declared length is reserved before the first byte is read; a body of unknown length reserves
//! as it grows. Nothing ever waits for the budget, so bodies cannot block each other: what does not
//! fit is answered 503 and comes again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Limits;
use super::answer::Refusal;

/// The unit of the budget: permits are counted in 32 bits, bytes may be more.
const UNIT_BYTES: usize = 1024;

/// How much of a refused body is read so that the sender hears the refusal: closing a connection
/// with unread bytes resets it, and Segment retries a reset for hours.
const DISCARDED_BYTES: usize = 256 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// What all bodies in flight may hold together.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }

    fn reserve(&self) -> Reservation {
        Reservation { budget: self.clone(), permit: None }
    }
}

/// A part of the budget; dropping it gives the part back.
#[derive(Debug)]
struct Reservation {
    budget: Budget,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Makes sure that at least `bytes` are reserved.
    fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| Refusal::Busy)?;
        let more = Arc::clone(&self.budget.0)
            .try_acquire_many_owned(missing)
            .map_err(|_| Refusal::Busy)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// A whole body and its place in the budget, which ends with this value.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    reservation: Reservation,
}

impl Received {
    /// Charges what was made of the body to the budget too: an array of tiny elements grows a
    /// hundredfold when it is read.
    pub(super) fn charge(&mut self, more_bytes: usize) -> Result<(), Refusal> {
        self.reservation.grow_to(self.bytes.len() + more_bytes)
    }
}

/// Reads a body.
pub(super) async fn read(
    body: &mut Body,
    limits: &Limits,
    budget: &Budget,
) -> Result<Received, Refusal> {
    let declared = body.size_hint().exact();
    let declared = declared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut reservation = budget.reserve();
    if let Some(declared) = declared {
        if declared > limits.body_limit_bytes {
            return Err(Refusal::TooLarge);
        }
        reservation.grow_to(declared)?;
    }
    let collecting = collect(body, declared, limits.body_limit_bytes, &mut reservation);
    let bytes =
        timeout(limits.body_timeout, collecting).await.map_err(|_| Refusal::BodyTimeout)??;
    Ok(Received { bytes, reservation })
}

/// A body that came in one piece, as most do, is not copied.
async fn collect(
    body: &mut Body,
    declared: Option<usize>,
    limit_bytes: usize,
    reservation: &mut Reservation,
) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut all: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else {
            continue; // trailers
        };
        let length = first.len() + all.len() + piece.len();
        if length > limit_bytes {
            return Err(Refusal::TooLarge);
        }
        reservation.grow_to(length)?;
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve_exact(declared.unwrap_or(length));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Reads a little of a body whose request is refused, and drops it.
///
/// Not if the sender waits for a `100 Continue`: it has sent nothing and needs nothing.
pub async fn discard(headers: &HeaderMap, body: &mut Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let reading = async {
        let mut left = DISCARDED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, reading).await; // best effort
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::fake::{LIMITS, pieces, stalled};

    const TIGHT: Limits = Limits { body_limit_bytes: 10, ..LIMITS };

    async fn read_all(body: Body, limits: &Limits, budget: &Budget) -> Result<Bytes, Refusal> {
        let mut body = body;
        read(&mut body, limits, budget).await.map(|received| received.bytes)
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        let budget = Budget::new(1 << 20);
        let table = [
            (Body::empty(), Ok("")),
            (Body::from("0123456789"), Ok("0123456789")),
            (Body::from("0123456789a"), Err(Refusal::TooLarge)),
            (pieces(&["01234", "", "56789"]), Ok("0123456789")),
            (pieces(&["0123456789"]), Ok("0123456789")),
            (pieces(&["01", "23", "45"]), Ok("012345")),
            (pieces(&["01234", "56789", "a"]), Err(Refusal::TooLarge)),
        ];
        for (body, expected) in table {
            let read = read_all(body, &TIGHT, &budget).await;
            assert_eq!(read, expected.map(|text: &str| Bytes::from_static(text.as_bytes())));
        }
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let sent = Bytes::from(vec![7; 10]);
        let read = read_all(Body::from(sent.clone()), &TIGHT, &Budget::new(1 << 20)).await;
        assert_eq!(read.expect("small enough").as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn bodies_in_flight_share_the_budget_and_give_it_back() {
        let budget = Budget::new(4 * UNIT_BYTES);
        let whole = || Body::from(vec![b' '; 3 * UNIT_BYTES]);
        let part = "x".repeat(UNIT_BYTES);
        let held = read(&mut whole(), &LIMITS, &budget).await.expect("the budget is free");

        assert_eq!(read_all(whole(), &LIMITS, &budget).await, Err(Refusal::Busy), "declared");
        let growing = || pieces(&[&part, "y"]);
        assert_eq!(read_all(growing(), &LIMITS, &budget).await, Err(Refusal::Busy), "growing");
        let fits = read_all(Body::from(part.clone()), &LIMITS, &budget).await;
        assert!(fits.is_ok(), "a refused one holds nothing");

        let mut held = held;
        assert_eq!(held.charge(2 * UNIT_BYTES), Err(Refusal::Busy), "what was made of a body");
        assert_eq!(held.charge(UNIT_BYTES), Ok(()));
        drop(held);
        assert!(read_all(whole(), &LIMITS, &budget).await.is_ok());
        assert_eq!(budget.0.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_times_out_and_gives_its_budget_back() {
        let budget = Budget::new(4 * UNIT_BYTES);
        let started = tokio::time::Instant::now();
        let read = read_all(stalled("{"), &LIMITS, &budget).await;
        assert_eq!(read, Err(Refusal::BodyTimeout));
        assert_eq!(started.elapsed(), LIMITS.body_timeout);
        assert_eq!(budget.0.available_permits(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_is_discarded_for_a_moment_only() {
        let started = tokio::time::Instant::now();
        discard(&HeaderMap::new(), &mut stalled("x")).await;
        assert_eq!(started.elapsed(), DISCARD_TIMEOUT);

        let mut endless = pieces(&vec!["0123456789abcdef"; DISCARDED_BYTES]);
        discard(&HeaderMap::new(), &mut endless).await;
        assert!(endless.frame().await.is_some(), "not read to the end");
    }
}

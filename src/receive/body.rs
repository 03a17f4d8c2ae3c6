//! Reads the body of a request completely, within a size limit and a budget shared by all requests in flight
//! ([P6](crate::design::P6)). The timeout is the listener's.
//!
//! Bytes are reserved as they arrive, not as they are announced: an announcement costs nothing. A compressed
//! body is read as it was sent; `unpacking` does the rest.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::Limits;
use super::answer::Refusal;
use super::budget::{Budget, Eviction, Reservation};
use super::exchange::TooSlow;

/// How much of a refused body is read, so that the sender gets the refusal: closing a connection with unread
/// bytes resets it, and Segment retries a reset for hours.
const DISCARDED_BYTES: usize = 256 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How much must have arrived before more than this is reserved because of an announced length.
const BELIEVED_BYTES: usize = 1024 * 1024;

/// Least growth of the buffer of a body of unknown length.
const LEAST_GROWTH_BYTES: usize = 16 * 1024;

/// A complete body and its place in the budget, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) place: Place,
}

/// The place in the budget of a body, and of what is made of it.
#[derive(Debug)]
pub(super) struct Place {
    held_bytes: usize,
    reservation: Reservation,
    /// Resolves if the body is evicted; `None` while it cannot be.
    eviction: Option<Eviction>,
}

impl Place {
    /// Reserves more bytes for something about to be made of the body: an array of tiny elements grows a
    /// hundredfold when it is parsed.
    pub(super) fn charge(&mut self, more_bytes: usize) -> Result<(), Refusal> {
        self.held_bytes += more_bytes;
        self.reservation.grow_to(self.held_bytes)
    }

    /// Gives back some of the reserved bytes.
    pub(super) fn discharge(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        self.reservation.shrink_to(self.held_bytes);
    }

    /// From here on the body cannot be evicted. Fails if it has been evicted already.
    pub(super) fn settle(&mut self) -> Result<(), Refusal> {
        self.eviction = None;
        self.reservation.settle()
    }

    /// From here on the body may be evicted, until it is settled.
    pub(super) fn make_way(&mut self) {
        if let Some(eviction) = self.reservation.make_way() {
            self.eviction = Some(eviction);
        }
    }

    /// Returns when the body has been evicted; never if it cannot be.
    pub(super) async fn has_to_go(&mut self) {
        if let Some(eviction) = &mut self.eviction
            && eviction.await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Reads a body as it was sent. It may be evicted until it is [settled](Place::settle), unless it was
/// complete at once.
pub(super) async fn read(
    body: &mut Body,
    limits: &Limits,
    budget: &Budget,
) -> Result<Received, Refusal> {
    let declared = body.size_hint().exact();
    let declared = declared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if declared.is_some_and(|bytes| bytes > limits.body_limit_bytes) {
        return Err(Refusal::TooLarge);
    }
    // most bodies arrive together with the head: then there is no wait, and no eviction
    let mut first = piece_of(body).now_or_never().transpose()?.flatten();
    if let Some(bytes) = first.take_if(|_| body.is_end_stream()) {
        if bytes.len() > limits.body_limit_bytes {
            return Err(Refusal::TooLarge);
        }
        let reservation = budget.reserve_whole(bytes.len())?;
        let place = Place { held_bytes: bytes.len(), reservation, eviction: None };
        return Ok(Received { bytes, place });
    }
    let (reservation, mut evicted) = budget.reserve()?;
    let limit_bytes = limits.body_limit_bytes;
    let mut growing = Growing { bytes: Vec::new(), limit_bytes, reservation };
    let bytes = tokio::select! { // what has arrived of an evicted body is dropped; the sender retries
        Ok(()) = &mut evicted => return Err(Refusal::Busy),
        bytes = collect(body, first, declared, &mut growing) => bytes?,
    };
    let mut reservation = growing.reservation;
    reservation.shrink_to(bytes.len());
    let place = Place { held_bytes: bytes.len(), reservation, eviction: Some(evicted) };
    Ok(Received { bytes, place })
}

/// A body that is still arriving.
struct Growing {
    bytes: Vec<u8>,
    limit_bytes: usize,
    reservation: Reservation,
}

impl Growing {
    /// Makes sure that the body may have `length` bytes.
    fn allow(&mut self, length: usize) -> Result<(), Refusal> {
        if length > self.limit_bytes {
            return Err(Refusal::TooLarge);
        }
        self.reservation.grow_to(length)
    }

    /// Appends a piece, after reserving the room for it; `Vec` by itself would grow to up to twice what is
    /// needed. `coming` is the announced length, as far as it is believed.
    fn push(&mut self, piece: &[u8], coming: usize) -> Result<(), Refusal> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.limit_bytes {
            return Err(Refusal::TooLarge);
        }
        if needed > self.bytes.capacity() {
            let roomy = needed + LEAST_GROWTH_BYTES.max(self.bytes.len() / 4);
            let handy = [coming, roomy].map(|room| room.min(self.limit_bytes));
            let mut handy = handy.into_iter().filter(|room| *room >= needed);
            let room = match handy.find(|room| self.reservation.grow_freely_to(*room)) {
                Some(room) => room,
                None => self.allow(needed).map(|()| needed)?,
            };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// Reads the rest of a body after its `first` piece. A body that arrives in one piece, as most do, is not
/// copied. Others are copied piece by piece, because a piece keeps the whole buffer that it was read into.
async fn collect(
    body: &mut Body,
    mut first: Option<Bytes>,
    declared: Option<usize>,
    growing: &mut Growing,
) -> Result<Bytes, Refusal> {
    loop {
        let piece = match first.take() {
            Some(piece) => piece,
            None => match piece_of(body).await? {
                Some(piece) => piece,
                None => return Ok(std::mem::take(&mut growing.bytes).into()),
            },
        };
        if growing.bytes.is_empty() && body.is_end_stream() {
            growing.allow(piece.len())?;
            return Ok(piece);
        }
        let length = growing.bytes.len();
        let believed = if length < BELIEVED_BYTES { BELIEVED_BYTES } else { usize::MAX };
        growing.push(&piece, declared.unwrap_or(0).min(believed))?;
    }
}

/// The next non-empty piece.
async fn piece_of(body: &mut Body) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| refusal(&error))?.into_data() {
            Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
            _ => {} // trailers, or an empty piece
        }
    }
    Ok(None)
}

fn refusal(error: &axum::Error) -> Refusal {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            return Refusal::BodyTimeout;
        }
        cause = error.source();
    }
    Refusal::BodyBroken
}

/// Whether the sender waits for a `100 Continue` before it sends its body.
pub(super) fn awaits_leave(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads and drops a limited part of the body of a refused request.
///
/// Nothing is read if the sender waits for a `100 Continue`: it has sent no body.
pub async fn discard(head: Parts, body: &mut Body) {
    let awaits_leave = awaits_leave(&head.headers);
    drop(head); // so that strangers hold no memory meanwhile
    if !awaits_leave {
        drain(body).await;
    }
}

/// The beginning of a body, and its place in the budget.
pub(super) struct Beginning {
    pub bytes: Vec<u8>,
    /// Whether these bytes are the complete body.
    pub is_whole: bool,
    _reservation: Reservation,
}

/// Reads at most `most_bytes` of the body of a refused request, for at most [`DISCARD_TIMEOUT`]. `None` if
/// the body was evicted, broke off, or was too slow.
pub(super) async fn beginning(
    body: &mut Body,
    most_bytes: usize,
    budget: &Budget,
) -> Option<Beginning> {
    let (mut reservation, mut evicted) = budget.reserve().ok()?;
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(piece) = piece_of(body).await.ok()? {
            let room = most_bytes - bytes.len();
            let length = bytes.len() + piece.len().min(room);
            reservation.grow_to(length).ok()?;
            bytes.reserve_exact(length - bytes.len());
            bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.len() > room {
                return Some(false);
            }
        }
        Some(true)
    };
    let read = tokio::select! { // what has arrived is dropped: nothing depends on it
        Ok(()) = &mut evicted => None,
        read = timeout(DISCARD_TIMEOUT, reading) => read.ok().flatten(),
    };
    read.map(|is_whole| Beginning { bytes, is_whole, _reservation: reservation })
}

/// Reads and drops a limited part of the body of a refused request.
pub(super) async fn drain(body: &mut Body) {
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

    fn head() -> Parts {
        http::Request::new(()).into_parts().0
    }

    async fn read_all(body: Body, limits: &Limits, budget: &Budget) -> Result<Bytes, Refusal> {
        let mut body = body;
        read(&mut body, limits, budget).await.map(|received| received.bytes)
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        let budget = Budget::new(10, 1 << 20, 1 << 20);
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
        let read =
            read_all(Body::from(sent.clone()), &TIGHT, &Budget::new(10, 1 << 20, 1 << 20)).await;
        assert_eq!(read.expect("small enough").as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn bodies_in_flight_share_the_budget_and_give_it_back() {
        let budget = Budget::new(10, 4000, 4000);
        let whole = || Body::from(vec![b' '; 3000]);
        let part = "x".repeat(1000);
        let held = read(&mut whole(), &LIMITS, &budget).await.expect("the budget is free");

        assert_eq!(read_all(whole(), &LIMITS, &budget).await, Err(Refusal::Busy), "at once");
        let growing = || pieces(&[&part, "y"]);
        assert_eq!(read_all(growing(), &LIMITS, &budget).await, Err(Refusal::Busy), "growing");
        let fits = read_all(Body::from(part.clone()), &LIMITS, &budget).await;
        assert!(fits.is_ok(), "a refused one holds nothing");

        let mut held = held;
        assert_eq!(held.place.charge(1000), Ok(()));
        assert_eq!(held.place.charge(1), Err(Refusal::TooLarge), "with what was made of it");
        drop(held);
        let all = read_all(Body::from(vec![b' '; 4000]), &LIMITS, &budget).await;
        assert!(all.is_ok(), "everything was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_times_out_and_gives_its_budget_back() {
        let budget = Budget::new(10, 4000, 4000);
        let started = tokio::time::Instant::now();
        let read = read_all(stalled("{"), &LIMITS, &budget).await;
        assert_eq!(read, Err(Refusal::BodyTimeout));
        assert_eq!(started.elapsed(), LIMITS.body_timeout);
        let all = read_all(Body::from(vec![b' '; 4000]), &LIMITS, &budget).await;
        assert!(all.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_stall_make_way_for_those_that_come() {
        let budget = Budget::new(2, 10, 10);
        let mut bodies = [stalled("012345678"), stalled("0")];
        let [one, two] = bodies.each_mut().map(|body| Box::pin(read(body, &LIMITS, &budget)));
        let (mut one, mut two) = (one, two);
        tokio::select! {
            biased;
            _ = &mut one => panic!("it has not ended"),
            _ = &mut two => panic!("it has not ended"),
            () = std::future::ready(()) => {}
        }
        let started = tokio::time::Instant::now();
        assert!(read_all(Body::from("01"), &LIMITS, &budget).await.is_ok());
        assert_eq!(one.await.err(), Some(Refusal::Busy), "the older one had to go");
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(two.await.err(), Some(Refusal::BodyTimeout), "the other had its time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_is_discarded_for_a_moment_only() {
        let started = tokio::time::Instant::now();
        discard(head(), &mut stalled("x")).await;
        assert_eq!(started.elapsed(), DISCARD_TIMEOUT);

        let mut endless = pieces(&vec!["0123456789abcdef"; DISCARDED_BYTES]);
        discard(head(), &mut endless).await;
        assert!(endless.frame().await.is_some(), "not read to the end");
    }
}

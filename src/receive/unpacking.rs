//! Compressed bodies. A few bytes may expand to gigabytes, so nothing is assumed about the size of the
//! result.
//!
//! A body is read as it was sent, and decompressed where heavy bodies are handled (`heavy`), twice: first
//! only to measure the result, in [`DECODER_BYTES`], then into a buffer of that size, which is reserved
//! before it is allocated ([P6](crate::design::P6); tests/it/memory.rs).
//!
//! # How much is decompressed for a stranger
//! A signature covers the decompressed text, so decompression has to precede the check. For a sender that has
//! shown nothing else (no bearer token, no write key), at most [`FREE_BYTES`] plus [`MOST_RATIO`] times what
//! it sent is decompressed. No more than [`BEGINNING_BYTES`] of that is kept, which is enough for the first
//! event: that is what Segment signs. If the signature covers the whole of a larger batch, its text is hashed
//! piece by piece, and kept only once the signature is known to be good.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use tokio::time::Instant;

use super::answer::Refusal;
use super::authentication::{Presented, WholeText};
use super::body::Received;
use super::doors::Door;
use super::heavy::{Heavy, Lane, MEDIUM_BYTES, SMALL_BYTES};
use super::sorting::EVENT_LIMIT_BYTES;

/// Bytes decompressed in one step.
const STEP_BYTES: usize = 32 * 1024;

/// Most memory of a decoder, whatever its input: 43 KiB for its state and window, one step, and the three
/// fields of a gzip header, of at most 64 KiB each.
const DECODER_BYTES: usize = 43 * 1024 + STEP_BYTES + 3 * 64 * 1024;

/// Most members of a gzip body; usually there is one. Each costs the setup of a decoder, for twenty bytes of
/// input.
const MOST_MEMBERS: usize = 16;

/// Decompressed for a stranger, however little it sent.
const FREE_BYTES: usize = 64 * 1024;

/// Decompressed for a stranger, as a multiple of what it sent. JSON events expand 5 to 30 times.
const MOST_RATIO: usize = 100;

/// Most bytes decompressed and kept before a stranger has proven anything: the first event, whose size is
/// limited.
const BEGINNING_BYTES: usize = EVENT_LIMIT_BYTES + 64 * 1024;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// The encoding named in the head; `None` if the body is not compressed.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let word = value.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        Ok(Some(match word.as_str() {
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip, // RFC 9110, 8.4.1.3
            "deflate" => Self::Deflate,
            _ => return Err(Refusal::UnknownEncoding),
        }))
    }

    /// Whether a body begins as this encoding does, as far as there are bytes.
    fn begins(self, packed: &[u8]) -> bool {
        match (self, packed) {
            (Self::Gzip, [one, two, ..]) => [*one, *two] == [0x1f, 0x8b], // RFC 1952, 2.3.1
            (Self::Gzip, _) => [0x1f].starts_with(packed),
            // RFC 1950, 2.2: the method, and the checksum over both bytes
            (Self::Deflate, [one, two, ..]) => {
                one & 0x0f == 8 && u16::from_be_bytes([*one, *two]) % 31 == 0
            }
            (Self::Deflate, _) => packed.iter().all(|one| one & 0x0f == 8),
        }
    }

    /// Why a body cannot be decompressed.
    fn fault(self, packed: &[u8], error: &io::Error) -> Refusal {
        if !self.begins(packed) {
            Refusal::NotPacked
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Refusal::PackedShort
        } else {
            Refusal::PackedBroken
        }
    }
}

/// What is known about the sender of a body.
pub(super) enum Sender {
    /// It has shown a secret.
    Known,
    /// It has shown no secret yet; the decompressed text may prove that it signed with one.
    Signer(Arc<Door>, Presented),
    /// It has shown no secret, and is accepted without one.
    Anybody,
}

impl Sender {
    /// A sender that has presented these credentials at this door.
    pub fn at(door: &Arc<Door>, presented: &Presented) -> Self {
        if presented.shows_a_secret() {
            Self::Known
        } else if door.gate.admits_without_signature(presented) {
            Self::Anybody
        } else {
            Self::Signer(Arc::clone(door), *presented)
        }
    }
}

/// Decompresses a body into at most `limit_bytes`, when its turn comes.
pub(super) async fn unpacked(
    mut received: Received,
    encoding: Encoding,
    sender: Sender,
    limit_bytes: usize,
    heavy: &Heavy,
    by: Instant,
) -> Result<Received, Refusal> {
    if matches!(sender, Sender::Known) {
        return text_of_known(received, encoding, limit_bytes, heavy, by).await;
    }
    let allowed = received.bytes.len().saturating_mul(MOST_RATIO).saturating_add(FREE_BYTES);
    let most = limit_bytes.min(allowed);
    received.place.make_way();
    let look = move |body: &mut _| first_look(body, encoding, most, sender);
    let (mut received, looked) = heavy.work(Lane::FirstLooks, received, by, look).await?;
    received.place.make_way();
    let (whole, past_most) = match looked {
        Looked::Unpacked => return Ok(received),
        Looked::Known => {
            let mut text = text_of_known(received, encoding, limit_bytes, heavy, by).await?;
            text.place.make_way();
            return Ok(text);
        }
        Looked::Unproven(whole, past_most) if most < limit_bytes => (Some(whole), past_most),
        Looked::Unproven(whole, _) => (Some(whole), Refusal::TooLarge),
        Looked::Anybodys => (None, Refusal::TooLarge),
    };
    let whole = move |body: &mut _| whole_text(body, encoding, (most, past_most), whole);
    let (mut received, ()) = heavy.work(Lane::WholeTexts, received, by, whole).await?;
    received.place.make_way();
    Ok(received)
}

/// Decompresses a body of an authenticated sender. Its size shows only then: the smaller lanes are tried
/// first, so that small bodies do not wait for large ones.
async fn text_of_known(
    received: Received,
    encoding: Encoding,
    limit_bytes: usize,
    heavy: &Heavy,
    by: Instant,
) -> Result<Received, Refusal> {
    let mut received = received;
    for (lane, most) in [(Lane::Small, SMALL_BYTES), (Lane::Medium, MEDIUM_BYTES)] {
        let text = move |body: &mut _| text_up_to(body, encoding, limit_bytes.min(most));
        let (tried, is_unpacked) = heavy.work(lane, received, by, text).await?;
        if is_unpacked {
            return Ok(tried);
        }
        received = tried;
    }
    let most = (limit_bytes, Refusal::TooLarge);
    let whole = move |body: &mut _| whole_text(body, encoding, most, None);
    heavy.work(Lane::Large, received, by, whole).await.map(|(text, ())| text)
}

/// Decompresses a body if the result has at most `most` bytes; returns whether it has.
fn text_up_to(body: &mut Received, encoding: Encoding, most: usize) -> Result<bool, Refusal> {
    body.place.charge(DECODER_BYTES)?;
    let packed = body.bytes.clone();
    let length = measure(encoding, &packed, most, |_| true)?;
    if let Length::Whole(length) = length {
        take_text(body, encoding, &packed, length)?;
        return Ok(true);
    }
    body.place.discharge(DECODER_BYTES);
    Ok(false)
}

/// Replaces a body by its decompressed text, which has this length.
fn take_text(
    body: &mut Received,
    encoding: Encoding,
    packed: &[u8],
    length: usize,
) -> Result<(), Refusal> {
    body.place.charge(length)?;
    let text = unpack(encoding, packed, length)?;
    body.place.discharge(DECODER_BYTES + packed.len());
    body.bytes = text;
    Ok(())
}

/// The result of a first look.
enum Looked {
    /// The whole body fitted, and is decompressed.
    Unpacked,
    /// Its first event is signed.
    Known,
    /// No signature is needed.
    Anybodys,
    /// Only the whole text may be signed; with the refusal that applies if the text is longer than allowed.
    Unproven(WholeText, Refusal),
}

/// Decompresses the beginning of a body, and keeps it if that is all.
fn first_look(
    body: &mut Received,
    encoding: Encoding,
    most: usize,
    sender: Sender,
) -> Result<Looked, Refusal> {
    body.place.charge(DECODER_BYTES)?;
    let packed = body.bytes.clone();
    let beginning_bytes = most.min(BEGINNING_BYTES);
    if let Length::Whole(length) = measure(encoding, &packed, beginning_bytes, |_| true)? {
        take_text(body, encoding, &packed, length)?;
        return Ok(Looked::Unpacked);
    }
    let has_more = most > beginning_bytes;
    let Sender::Signer(door, presented) = sender else {
        body.place.discharge(DECODER_BYTES);
        return if has_more { Ok(Looked::Anybodys) } else { Err(Refusal::TooLarge) };
    };
    body.place.charge(beginning_bytes)?;
    let text = beginning(encoding, &packed, beginning_bytes);
    let admits = door.gate.admits_by_first(&presented, &text, &door.extra_fields);
    drop(text);
    body.place.discharge(DECODER_BYTES + beginning_bytes);
    // A sender that signs the first event may have more decompressed, so the fault is the signature.
    let past_most = match admits {
        Some(true) => return Ok(Looked::Known),
        Some(false) => Refusal::Unauthenticated,
        None => Refusal::TooLarge,
    };
    if !has_more {
        return Err(past_most);
    }
    let whole = door.gate.whole_text(&presented).ok_or(Refusal::Unauthenticated)?;
    Ok(Looked::Unproven(whole, past_most))
}

/// Decompresses a whole body, if `whole` proves that it is signed. `past_most` is the refusal for a longer
/// one.
fn whole_text(
    body: &mut Received,
    encoding: Encoding,
    (most, past_most): (usize, Refusal),
    mut whole: Option<WholeText>,
) -> Result<(), Refusal> {
    body.place.charge(DECODER_BYTES)?;
    let packed = body.bytes.clone();
    let length = measure(encoding, &packed, most, |piece| {
        if let Some(whole) = &mut whole {
            whole.add(piece);
        }
        true
    })?;
    let Length::Whole(length) = length else {
        return Err(past_most);
    };
    if whole.is_some_and(|whole| !whole.proves_itself()) {
        return Err(Refusal::Unauthenticated);
    }
    take_text(body, encoding, &packed, length)
}

/// The decompressed length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// This many bytes.
    Whole(usize),
    /// More than was to be measured.
    More,
}

/// Measures the decompressed length of a body, up to `most` bytes. `see` is given each piece, and stops
/// measuring by returning `false`.
fn measure(
    encoding: Encoding,
    packed: &[u8],
    most: usize,
    mut see: impl FnMut(&[u8]) -> bool,
) -> Result<Length, Refusal> {
    let looked_at = &packed[..packed.len().min(most)]; // input may also expand to nothing
    let mut length = 0_usize;
    let read = each_piece(encoding, looked_at, |piece| {
        length += piece.len();
        length <= most && see(piece)
    });
    match read {
        Ok(End::Reached) if looked_at.len() == packed.len() => Ok(Length::Whole(length)),
        Err(broken) if looked_at.len() == packed.len() => Err(broken),
        _ => Ok(Length::More),
    }
}

/// The first `length` bytes of a decompressed body, for which the caller has reserved room.
fn unpack(encoding: Encoding, packed: &[u8], length: usize) -> Result<Bytes, Refusal> {
    let mut text = Vec::with_capacity(length);
    each_piece(encoding, packed, |piece| {
        let wanted = piece.len().min(length - text.len());
        text.extend_from_slice(&piece[..wanted]);
        text.len() < length
    })?;
    Ok(text.into())
}

/// The first `most` bytes of a decompressed body, or fewer if it is shorter or broken.
fn beginning(encoding: Encoding, packed: &[u8], most: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(most);
    let packed = &packed[..packed.len().min(most)];
    let _ = each_piece(encoding, packed, |piece| {
        let wanted = piece.len().min(most - text.len());
        text.extend_from_slice(&piece[..wanted]);
        text.len() < most
    });
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Reached,
    /// The caller wanted no more.
    GivenUp,
}

/// Decompresses piece by piece, for as long as `take` returns `true`.
fn each_piece(
    encoding: Encoding,
    packed: &[u8],
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<End, Refusal> {
    let mut step = vec![0; STEP_BYTES];
    let mut rest = packed;
    let fault = |member: &[u8], error| {
        let fault = encoding.fault(member, &error);
        let is_first = member.len() == packed.len();
        if fault == Refusal::NotPacked && !is_first { Refusal::PackedBroken } else { fault }
    };
    for _ in 0..MOST_MEMBERS {
        let end = match encoding {
            Encoding::Gzip => {
                let mut decoder = GzDecoder::new(rest);
                let end = pieces_of(&mut decoder, &mut step, &mut take);
                let end = end.map_err(|error| fault(rest, error))?;
                rest = decoder.into_inner();
                end
            }
            Encoding::Deflate => {
                let mut decoder = ZlibDecoder::new(rest);
                let end = pieces_of(&mut decoder, &mut step, &mut take);
                let end = end.map_err(|error| fault(rest, error))?;
                rest = decoder.into_inner();
                end
            }
        };
        if end == End::GivenUp || rest.is_empty() {
            return Ok(end);
        }
        if encoding == Encoding::Deflate {
            break; // zlib has no further members
        }
    }
    Err(Refusal::PackedBroken)
}

fn pieces_of(
    decoder: &mut impl Read,
    step: &mut [u8],
    take: &mut impl FnMut(&[u8]) -> bool,
) -> io::Result<End> {
    loop {
        match decoder.read(step) {
            Ok(0) => return Ok(End::Reached),
            Ok(length) if take(&step[..length]) => {}
            Ok(_) => return Ok(End::GivenUp),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(encoding: Encoding, text: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let level = flate2::Compression::default();
        match encoding {
            Encoding::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(&mut packed, level);
                writer.write_all(text).expect("memory takes it");
            }
            Encoding::Deflate => {
                let mut writer = flate2::write::ZlibEncoder::new(&mut packed, level);
                writer.write_all(text).expect("memory takes it");
            }
        }
        packed
    }

    fn whole(encoding: Encoding, packed: &[u8]) -> Result<Length, Refusal> {
        measure(encoding, packed, usize::MAX, |_| true)
    }

    const ALL: [Encoding; 2] = [Encoding::Gzip, Encoding::Deflate];

    #[test]
    fn a_text_comes_out_as_it_went_in_and_is_measured_before() {
        let text: Vec<u8> =
            (0..300_000_u32).flat_map(|n| (n.wrapping_mul(n) % 1000).to_be_bytes()).collect();
        for encoding in ALL {
            let sent = packed(encoding, &text);
            assert_eq!(whole(encoding, &sent), Ok(Length::Whole(text.len())), "{encoding:?}");
            let all = unpack(encoding, &sent, text.len()).expect("it is whole");
            assert!(all == text, "{encoding:?}");
            let beginning = unpack(encoding, &sent, 1000).expect("so much is there");
            assert_eq!(beginning, text[..1000], "{encoding:?}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_unpacked_is_said_to_be_what_it_is() {
        use Refusal::{NotPacked, PackedBroken, PackedShort};
        let text = r#"[{"type":"identify"}]"#.repeat(50);
        for encoding in ALL {
            let sent = packed(encoding, text.as_bytes());
            let with = |place: usize| {
                let mut sent = sent.clone();
                sent[place] ^= 1;
                sent
            };
            let other = ALL.into_iter().find(|other| *other != encoding).expect("there are two");
            let last = sent.len() - 1;
            let checksum = if encoding == Encoding::Gzip { last - 7 } else { last };
            let rows = [
                ("cut off", sent[..sent.len() / 2].to_vec(), PackedShort),
                ("the checksum is cut off", sent[..last].to_vec(), PackedShort),
                ("the header is cut off", sent[..1].to_vec(), PackedShort),
                ("nothing", Vec::new(), PackedShort),
                ("another checksum", with(checksum), PackedBroken),
                ("something behind it", [&sent[..], b"more"].concat(), PackedBroken),
                ("plain", text.clone().into_bytes(), NotPacked),
                ("packed in another way", packed(other, text.as_bytes()), NotPacked),
                ("another header", with(0), NotPacked),
            ];
            for (what, sent, expected) in rows {
                assert_eq!(whole(encoding, &sent), Err(expected), "{encoding:?}: {what}");
            }
        }
    }

    #[test]
    fn no_more_is_looked_at_than_is_asked_for() {
        for encoding in ALL {
            let sent = packed(encoding, &vec![b' '; 10 << 20]);
            let mut seen = 0;
            let length = measure(encoding, &sent, 100_000, |piece| {
                seen += piece.len();
                true
            });
            assert_eq!(length, Ok(Length::More), "{encoding:?}");
            assert!(seen <= 100_000, "{encoding:?}: {seen}");
            assert_eq!(measure(encoding, &sent, usize::MAX, |_| false), Ok(Length::More));
        }
    }

    #[test]
    fn a_gzip_body_may_have_a_few_members_and_no_more() {
        let member = packed(Encoding::Gzip, b"[]");
        let of = |members| whole(Encoding::Gzip, &member.repeat(members));
        assert_eq!(of(MOST_MEMBERS), Ok(Length::Whole(2 * MOST_MEMBERS)));
        assert_eq!(of(MOST_MEMBERS + 1), Err(Refusal::PackedBroken));
    }

    #[test]
    fn the_head_says_how_a_body_is_packed() {
        let table = [
            (None, Ok(None)),
            (Some(""), Ok(None)),
            (Some("identity"), Ok(None)),
            (Some("gzip"), Ok(Some(Encoding::Gzip))),
            (Some("GZIP"), Ok(Some(Encoding::Gzip))),
            (Some("x-gzip"), Ok(Some(Encoding::Gzip))),
            (Some("deflate"), Ok(Some(Encoding::Deflate))),
            (Some("br"), Err(Refusal::UnknownEncoding)),
            (Some("zstd"), Err(Refusal::UnknownEncoding)),
            (Some("compress"), Err(Refusal::UnknownEncoding)),
            (Some("gzip, gzip"), Err(Refusal::UnknownEncoding)),
        ];
        for (said, expected) in table {
            let value = said.map(|said| (header::CONTENT_ENCODING, said.parse().expect("text")));
            assert_eq!(Encoding::of(&value.into_iter().collect()), expected, "{said:?}");
        }
    }
}

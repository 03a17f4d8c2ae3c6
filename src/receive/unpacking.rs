//! Compressed bodies, unpacked a little at a time: a few bytes may come to gigabytes, so that whoever
//! unpacks has to be able to stop after each piece (tests/it/attacks.rs).

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use http::{HeaderMap, header};

use super::answer::Refusal;

/// Most bytes that unpacking keeps of what it made before: brotli's largest window. That of zstd is
/// smaller, see below; that of the others is nothing beside it.
pub(super) const WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// 8 MiB, the largest window that RFC 9659 allows for zstd over HTTP.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Most bytes that come of one step.
const STEP_BYTES: usize = 64 * 1024;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Encoding {
    /// As the head says; `None`: it is plain.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(None) };
        let word = value.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        Ok(Some(match word.as_str() {
            "" | "identity" => return Ok(None),
            "gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => return Err(Refusal::UnknownEncoding),
        }))
    }
}

/// Unpacks one body.
pub(super) struct Unpacker {
    input: Input,
    decoder: Box<dyn Read + Send>,
    step: Box<[u8]>,
}

/// What a step came to.
pub(super) enum Step<'a> {
    /// A piece; there may be more without any more input.
    Piece(&'a [u8]),
    /// What was given is used up.
    Hungry,
    /// The packed text has ended.
    End,
}

impl Unpacker {
    pub fn new(encoding: Encoding) -> io::Result<Self> {
        let input = Input::default();
        let reader = input.clone();
        let decoder: Box<dyn Read + Send> = match encoding {
            Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Encoding::Deflate => Box::new(flate2::bufread::ZlibDecoder::new(reader)),
            Encoding::Brotli => Box::new(brotli_decompressor::Decompressor::new(reader, 4096)),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        Ok(Self { input, decoder, step: vec![0; STEP_BYTES].into() })
    }

    /// Gives it more; what was given before must have been used up.
    pub fn feed(&self, piece: Bytes) {
        self.input.given().piece = piece;
    }

    /// No more will come.
    pub fn end(&self) {
        self.input.given().is_all = true;
    }

    pub fn step(&mut self) -> io::Result<Step<'_>> {
        loop {
            return match self.decoder.read(&mut self.step) {
                Ok(0) => Ok(Step::End),
                Ok(length) => Ok(Step::Piece(&self.step[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Hungry),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }
}

/// What a decoder reads: it would block where nothing has come yet.
#[derive(Clone, Default)]
struct Input {
    given: Arc<Mutex<Given>>,
    /// Being read.
    piece: Bytes,
}

#[derive(Default)]
struct Given {
    piece: Bytes,
    is_all: bool,
}

impl Input {
    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() {
            let mut given = self.given();
            let (piece, is_all) = (std::mem::take(&mut given.piece), given.is_all);
            drop(given);
            if piece.is_empty() && !is_all {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.piece = piece;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let length = filled.len().min(buffer.len());
        buffer[..length].copy_from_slice(&filled[..length]);
        self.consume(length);
        Ok(length)
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
            Encoding::Brotli => {
                let mut writer = brotli::CompressorWriter::new(&mut packed, 4096, 5, 20);
                writer.write_all(text).expect("memory takes it");
            }
            Encoding::Zstd => packed = zstd::encode_all(text, 0).expect("memory takes it"),
        }
        packed
    }

    fn unpacked<'a>(
        encoding: Encoding,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<Vec<u8>> {
        let mut unpacker = Unpacker::new(encoding)?;
        let mut pieces = pieces.into_iter();
        let mut text = Vec::new();
        loop {
            match unpacker.step()? {
                Step::Piece(piece) => text.extend_from_slice(piece),
                Step::End => return Ok(text),
                Step::Hungry => match pieces.next() {
                    Some(piece) => unpacker.feed(Bytes::copy_from_slice(piece)),
                    None => unpacker.end(),
                },
            }
        }
    }

    const ALL: [Encoding; 4] =
        [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

    #[test]
    fn a_text_comes_out_as_it_went_in_however_it_arrives() {
        let text: Vec<u8> =
            (0..300_000_u32).flat_map(|n| (n.wrapping_mul(n) % 1000).to_be_bytes()).collect();
        for encoding in ALL {
            let packed = packed(encoding, &text);
            for length in [1, 1000, packed.len()] {
                let unpacked = unpacked(encoding, packed.chunks(length)).expect("it is whole");
                assert!(unpacked == text, "{encoding:?} in pieces of {length}");
            }
            let cut = unpacked(encoding, [&packed[..packed.len() / 2]]);
            assert!(cut.is_err() || cut.is_ok_and(|text| text.len() < 1_200_000), "{encoding:?}");
            let garbage = unpacked(encoding, [&[b'{'; 100][..]]);
            assert!(garbage.is_err(), "{encoding:?}");
        }
    }

    #[test]
    fn zstd_may_not_demand_more_memory_than_http_allows() {
        // the descriptor of the window: 8 MiB, 16 MiB
        for (descriptor, is_allowed) in [(0x68, true), (0x70, false)] {
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, descriptor, 0x03, 0x00, 0x10, b' '];
            let unpacked = unpacked(Encoding::Zstd, [&frame[..]]);
            assert_eq!(unpacked.is_ok(), is_allowed, "{descriptor:x}");
        }
    }

    #[test]
    fn the_head_says_how_a_body_is_packed() {
        let table = [
            (None, Ok(None)),
            (Some(""), Ok(None)),
            (Some("identity"), Ok(None)),
            (Some("gzip"), Ok(Some(Encoding::Gzip))),
            (Some("GZIP"), Ok(Some(Encoding::Gzip))),
            (Some("br"), Ok(Some(Encoding::Brotli))),
            (Some("compress"), Err(Refusal::UnknownEncoding)),
            (Some("gzip, gzip"), Err(Refusal::UnknownEncoding)),
        ];
        for (said, expected) in table {
            let value = said.map(|said| (header::CONTENT_ENCODING, said.parse().expect("text")));
            assert_eq!(Encoding::of(&value.into_iter().collect()), expected, "{said:?}");
        }
    }
}

//! The beginning of a connection: with or without a header of the PROXY protocol, and the protocol after it.

use std::io;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::proxy_protocol::{Beginning, Header, Malformed};

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// The header of a load balancer, if there is one.
    pub header: Option<Header>,
    /// Whether another header follows: two load balancers each wrote one, or a sender did.
    pub is_said_again: bool,
    /// Whether HTTP/2 is spoken, as far as TLS does not hide it.
    pub is_http2: bool,
    /// Bytes already read after the header, still to be parsed.
    pub ahead: Bytes,
}

/// The first word of HTTP/2's preface; no request of HTTP/1.1 begins with it.
const HTTP2: &[u8] = b"PRI ";

/// Bytes per read: usually a whole head.
const FIRST_BYTES: usize = 512;

/// Most headers read in a row, in order to say that there are several.
const MOST_HEADERS: usize = 4;

/// Why the beginning of a connection could not be understood.
#[derive(Debug)]
pub(super) enum Lost {
    /// The peer went away.
    Gone,
    /// It sent an invalid header.
    Malformed(Malformed),
}

impl Opening {
    /// Reads until it is known what follows. A peer that sends nothing holds no memory, and one that sends a
    /// long header holds no more of it than is needed to parse it.
    ///
    /// An error is the peer's. The end of the stream is left for the next reader to find.
    pub async fn read(stream: &TcpStream) -> Result<Self, Lost> {
        let mut beginning = Read::default();
        loop {
            stream.readable().await.map_err(|_| Lost::Gone)?;
            beginning.bytes.reserve(FIRST_BYTES);
            let is_over = match stream.try_read_buf(&mut beginning.bytes) {
                Ok(read) => read == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return Err(Lost::Gone),
            };
            match beginning.understood(is_over).map_err(Lost::Malformed)? {
                None => {}
                Some(is_http2) => {
                    let Read { first, headers, bytes, .. } = beginning;
                    let (ahead, is_said_again) = (Bytes::from(bytes), headers > 1);
                    return Ok(Self { header: first, is_said_again, is_http2, ahead });
                }
            }
        }
    }
}

/// What was read, and how much of it is parsed.
#[derive(Debug, Default)]
struct Read {
    first: Option<Header>,
    headers: usize,
    /// Bytes of a parsed header that are still to come.
    skipped: usize,
    /// Bytes that are not parsed.
    bytes: Vec<u8>,
}

impl Read {
    /// Whether HTTP/2 follows the headers. `None`: more bytes are needed, which cannot be if `is_all`.
    fn understood(&mut self, is_all: bool) -> Result<Option<bool>, Malformed> {
        loop {
            let here = self.skipped.min(self.bytes.len());
            self.bytes.drain(..here);
            self.skipped -= here;
            let header = match Beginning::of(&self.bytes)? {
                Beginning::Header(header) => header,
                Beginning::Unclear if !is_all => return Ok(None),
                Beginning::Unclear | Beginning::None => break,
            };
            if self.headers == MOST_HEADERS {
                return Err(Malformed::Many);
            }
            self.first = self.first.or(Some(header));
            self.headers += 1;
            self.skipped = header.bytes;
        }
        let is_unclear = self.bytes.len() < HTTP2.len() && HTTP2.starts_with(&self.bytes);
        Ok((is_all || !is_unclear).then(|| self.bytes.starts_with(HTTP2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first header, the number of headers, whether HTTP/2 follows, the bytes after them, and the most
    /// bytes held.
    type Found = (Option<Header>, usize, bool, Vec<u8>, usize);

    /// What is found if the bytes arrive in pieces of this size.
    fn found(text: &[u8], piece: usize) -> Result<Found, Malformed> {
        let (mut read, mut most) = (Read::default(), 0);
        let mut pieces = text.chunks(piece);
        loop {
            let next = pieces.next();
            read.bytes.extend_from_slice(next.unwrap_or_default());
            most = most.max(read.bytes.len());
            if let Some(is_http2) = read.understood(next.is_none())? {
                let ahead = [read.bytes, pieces.collect::<Vec<_>>().concat()].concat();
                return Ok((read.first, read.headers, is_http2, ahead, most));
            }
        }
    }

    #[test]
    fn what_is_spoken_is_known_from_the_first_bytes_behind_the_headers() {
        let header = "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n";
        let said = Header { bytes: header.len(), source: "192.0.2.1".parse().ok() };
        let other = "PROXY TCP6 2001:db8::1 ::1 4711 443\r\n";
        for (text, is_http2) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
            ("POST / HTTP/1.1\r\n", false),
            ("PROPFIND / HTTP/1.1\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n", false),
            ("\u{16}\u{3}", false),
            // the stream ends there
            ("", false),
            ("P", false),
            ("PR", false),
            ("PROXY", false),
        ] {
            for piece in [1, 7, 512] {
                for (before, first, headers) in [
                    (String::new(), None, 0),
                    (header.to_owned(), Some(said), 1),
                    (format!("{header}{other}"), Some(said), 2),
                    (format!("{header}{other}{header}"), Some(said), 3),
                ] {
                    let whole = format!("{before}{text}");
                    let (found, count, http2, ahead, _) =
                        found(whole.as_bytes(), piece).expect("it is well-formed");
                    assert_eq!((found, count, http2), (first, headers, is_http2), "{whole}");
                    assert_eq!(ahead, text.as_bytes(), "{whole}");
                }
            }
        }
        assert_eq!(found(b"PROXY nonsense\r\n", 512).err(), Some(Malformed::Line));
        let second = format!("{header}PROXY nonsense\r\n");
        assert_eq!(found(second.as_bytes(), 512).err(), Some(Malformed::Line));
        assert_eq!(found(header.repeat(5).as_bytes(), 512).err(), Some(Malformed::Many));
    }

    #[test]
    fn of_the_longest_header_no_more_is_held_than_comes_at_once() {
        let binary =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\xc0\0\x02\x01\x0a\0\0\x01\x12\x67\x01\xbb";
        let all = [&binary[..], &vec![0; 65535 - 12], b"POST / HTTP/1.1\r\n"].concat();
        let (header, _, is_http2, ahead, most) = found(&all, FIRST_BYTES).expect("a header");
        assert_eq!(header.and_then(|header| header.source), "192.0.2.1".parse().ok());
        assert_eq!((is_http2, &ahead[..]), (false, &b"POST / HTTP/1.1\r\n"[..]));
        assert!(most <= FIRST_BYTES, "{most}");
    }
}

//! How a connection begins: with a header of the PROXY protocol or without, and what is spoken behind it.

use std::io;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::proxy_protocol::{Beginning, Header};

/// What was read of a connection to know it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// What a load balancer says about it.
    pub header: Option<Header>,
    /// Whether HTTP/2 is spoken, as far as it is not hidden by TLS.
    pub is_http2: bool,
    /// What was read behind the header, and is still to be understood.
    pub ahead: Bytes,
}

/// The first word of the preface of HTTP/2, and of no request of HTTP/1.1.
const HTTP2: &[u8] = b"PRI ";

/// Of a read: mostly a whole head.
const FIRST_BYTES: usize = 512;

impl Opening {
    /// Reads until it is known what follows. Who sends nothing holds no memory.
    ///
    /// An error is the peer's: it went away, or sent a header that is none. An end is found out again by
    /// whoever reads on.
    pub async fn read(stream: &TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        loop {
            stream.readable().await?;
            bytes.reserve(FIRST_BYTES);
            let is_over = match stream.try_read_buf(&mut bytes) {
                Ok(read) => read == 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            if let Some((header, is_http2)) = understood(&bytes, is_over)? {
                let mut ahead = Bytes::from(bytes);
                let _ = ahead.split_to(header.map_or(0, |header| header.bytes));
                return Ok(Self { header, is_http2, ahead });
            }
        }
    }
}

/// The header, and whether HTTP/2 follows. `None`: more has to come, unless this `is_all`.
fn understood(bytes: &[u8], is_all: bool) -> io::Result<Option<(Option<Header>, bool)>> {
    let header = match Beginning::of(bytes) {
        Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        Ok(Beginning::Unclear) if is_all => None,
        Ok(Beginning::Unclear) => return Ok(None),
        Ok(Beginning::None) => None,
        Ok(Beginning::Header(header)) => Some(header),
    };
    let rest = &bytes[header.map_or(0, |header| header.bytes)..];
    let is_unclear = rest.len() < HTTP2.len() && HTTP2.starts_with(rest);
    Ok((is_all || !is_unclear).then(|| (header, rest.starts_with(HTTP2))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_known_from_the_first_bytes_behind_the_header() {
        let header = "PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n";
        for (text, is_http2) in [
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true),
            ("POST / HTTP/1.1\r\n", false),
            ("PROPFIND / HTTP/1.1\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n", false),
            ("\u{16}\u{3}", false),
        ] {
            let found = |bytes: String| {
                let found = (0..=bytes.len()).find_map(|cut| {
                    understood(&bytes.as_bytes()[..cut], false).expect("it is well-formed")
                });
                found.expect("it is known")
            };
            assert_eq!(found(text.to_owned()), (None, is_http2), "{text}");
            let (said, http2) = found(format!("{header}{text}"));
            assert_eq!((said.map(|said| said.bytes), http2), (Some(header.len()), is_http2));
        }
        // it ends there
        for text in ["", "P", "PR", "PROXY"] {
            let end = understood(text.as_bytes(), true).expect("nothing is malformed");
            assert_eq!(end, Some((None, false)), "{text}");
        }
        assert!(understood(b"PROXY nonsense\r\n", false).is_err());
    }
}

//! The PROXY protocol, versions 1 and 2: how a load balancer that forwards connections tells their source
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How a header of version 1 begins; no request does.
const VERSION_1: &[u8] = b"PROXY ";
/// How a header of version 2 begins.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1.
const MOST_TEXT_BYTES: usize = 107;
/// The length of the fixed part of version 2, before addresses and extensions.
const FIXED_BYTES: usize = 16;
/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The length of the header. Not all bytes of a version 2 header need to have arrived: extensions (names,
    /// endpoint ids, certificates) are ignored.
    pub bytes: usize,
    /// The address that connected to the load balancer; `None` if the load balancer connected itself, as for
    /// a health check.
    pub source: Option<IpAddr>,
}

/// Why something that begins like a header is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Malformed {
    Line,
    Address,
    Version,
    Command,
    Short,
    Many,
}

impl Malformed {
    /// The reason as part of a sentence about the header.
    pub fn what(self) -> &'static str {
        match self {
            Self::Line => {
                "its line is not PROXY, a family (TCP4, TCP6 or UNKNOWN), two addresses and two ports, or is too long"
            }
            Self::Address => {
                "its line has an invalid address or port, or one that is not of the family it \
                 names"
            }
            Self::Version => "it has the signature of version 2 but another version number",
            Self::Command => "its command is neither LOCAL nor PROXY",
            Self::Short => "it is too short for the addresses of the family it names",
            Self::Many => "it follows too many others",
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// The first bytes of a header, or of something else: more bytes are needed.
    Unclear,
    /// Anything else.
    None,
    Header(Header),
}

impl Beginning {
    pub fn of(bytes: &[u8]) -> Result<Self, Malformed> {
        let begins = |signature: &[u8]| {
            let known = bytes.len().min(signature.len());
            bytes[..known] == signature[..known]
        };
        let parsed = if begins(VERSION_1) {
            version_1(bytes)?
        } else if begins(VERSION_2) {
            version_2(bytes)?
        } else {
            return Ok(Self::None);
        };
        Ok(parsed.map_or(Self::Unclear, Self::Header))
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443`, and a line end.
fn version_1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let line = &bytes[..bytes.len().min(MOST_TEXT_BYTES)];
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < MOST_TEXT_BYTES { Ok(None) } else { Err(Malformed::Line) };
    };
    let text = std::str::from_utf8(&line[VERSION_1.len()..end]).map_err(|_| Malformed::Line)?;
    let words: Vec<&str> = text.split(' ').collect();
    let source = match words[..] {
        ["UNKNOWN", ..] => None,
        [family @ ("TCP4" | "TCP6"), source, target, from, to] => {
            let address = |text: &str| {
                let address: Option<IpAddr> = text.parse().ok();
                address.filter(|address| address.is_ipv4() == (family == "TCP4"))
            };
            let is_whole = [from, to].iter().all(|port| port.parse::<u16>().is_ok());
            let source = address(source).filter(|_| is_whole && address(target).is_some());
            Some(source.ok_or(Malformed::Address)?)
        }
        _ => return Err(Malformed::Line),
    };
    Ok(Some(Header { bytes: end + 2, source }))
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., version_and_command, family_and_transport, high, low] = *fixed;
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Err(Malformed::Version);
    }
    let (command, family) = (version_and_command & 0xf, family_and_transport >> 4);
    let needed = match (command, family) {
        (1, 1) => 12,
        (1, 2) => 36,
        (2.., _) => return Err(Malformed::Command),
        // the load balancer itself; or a local socket, or an unknown one
        (0 | 1, _) => 0,
    };
    if rest_bytes < needed {
        return Err(Malformed::Short);
    }
    let Some(addresses) = bytes[FIXED_BYTES..].get(..needed) else { return Ok(None) };
    let source = match needed {
        12 => addresses.first_chunk::<4>().map(|of| IpAddr::from(*of)),
        36 => addresses.first_chunk::<16>().map(|of| IpAddr::from(*of)),
        _ => None,
    };
    Ok(Some(Header { bytes: FIXED_BYTES + rest_bytes, source }))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::Malformed::{Address, Command, Line, Short, Version};
    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [VERSION_2, &[command, family], &length, rest].concat()
    }

    fn header(source: Option<&str>) -> impl Fn(usize) -> Result<Beginning, Malformed> {
        let source = source.map(|text| text.parse().expect("an address"));
        move |bytes| Ok(Beginning::Header(Header { bytes, source }))
    }

    #[test]
    fn a_header_says_who_has_connected() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x67, 1, 187];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().expect("one").octets());
        // an extension, as AWS sends them
        let extended = [&four[..], &[0xea, 0, 4, 1, b'v', b'p', b'c']].concat();
        let (v4, v6, nobody) = (Some("192.0.2.1"), Some("2001:db8::1"), None);
        let table: [(Vec<u8>, Option<&str>); 12] = [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(), v4),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec(), v6),
            (b"PROXY UNKNOWN\r\n".to_vec(), nobody),
            (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), nobody),
            (binary(0x21, 0x11, &four), v4),
            (binary(0x21, 0x21, &six), v6),
            (binary(0x21, 0x11, &extended), v4),
            (binary(0x20, 0x11, &four), nobody),
            (binary(0x20, 0, &[]), nobody),
            (binary(0x21, 0x31, &[0; 216]), nobody),
            (binary(0x21, 0, &vec![0; 65535]), nobody),
            (binary(0x21, 0x11, &[&four[..], &vec![0; 65000]].concat()), v4),
        ];
        for (bytes, source) in table {
            let expected = header(source)(bytes.len());
            assert_eq!(Beginning::of(&bytes), expected, "{bytes:?}");
            let needed = match (bytes.starts_with(VERSION_2), source) {
                (false, _) => bytes.len(),
                (true, None) => FIXED_BYTES,
                (true, Some(source)) => FIXED_BYTES + if source.contains(':') { 36 } else { 12 },
            };
            for cut in 0..bytes.len().min(300) {
                let known = if cut < needed { Ok(Beginning::Unclear) } else { expected };
                assert_eq!(Beginning::of(&bytes[..cut]), known, "{cut} {bytes:?}");
            }
            let followed = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(Beginning::of(&followed), expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_none_is_told_at_once_and_what_only_begins_like_one_is_not_taken() {
        for text in
            ["POST / HTTP/1.1", "PUT /", "PRI * HTTP/2.0", "PROPFIND /", "\r\nGET /", "\x16\x03"]
        {
            assert_eq!(Beginning::of(text.as_bytes()), Ok(Beginning::None), "{text}");
        }
        let malformed: [(Vec<u8>, Malformed); 11] = [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n".to_vec(), Line),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 1\r\n".to_vec(), Line),
            (b"PROXY TCP4 2001:db8::1 10.0.0.1 4711 443\r\n".to_vec(), Address),
            (b"PROXY TCP4 192.0.2.1 somebody 4711 443\r\n".to_vec(), Address),
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 65536\r\n".to_vec(), Address),
            (b"PROXY \r\n".to_vec(), Line),
            ([b"PROXY UNKNOWN ", &[b'x'; MOST_TEXT_BYTES][..]].concat(), Line),
            (binary(0x11, 0x11, &[0; 12]), Version),
            (binary(0x22, 0x11, &[0; 12]), Command),
            (binary(0x21, 0x11, &[0; 11]), Short),
            (binary(0x21, 0x21, &[0; 35]), Short),
        ];
        for (bytes, why) in malformed {
            assert_eq!(Beginning::of(&bytes), Err(why), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_understood_within_its_bytes(
            start in prop::sample::select(vec![&b""[..], VERSION_1, b"PROXY TCP4 ", VERSION_2]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Beginning::Header(header)) = Beginning::of(&bytes) {
                // more bytes change nothing
                let more = [&bytes[..], b"\r\n\r\n"].concat();
                prop_assert_eq!(Beginning::of(&more), Ok(Beginning::Header(header)));
            }
        }

        #[test]
        fn what_version_1_says_is_what_was_written(
            source: Ipv4Addr, target: Ipv4Addr, from: u16, to: u16, six: Ipv6Addr,
        ) {
            for (word, source, target) in [
                ("TCP4", IpAddr::V4(source), IpAddr::V4(target)),
                ("TCP6", IpAddr::V6(six), IpAddr::V6(target.to_ipv6_mapped())),
            ] {
                let text = format!("PROXY {word} {source} {target} {from} {to}\r\n");
                let header = Header { bytes: text.len(), source: Some(source) };
                prop_assert_eq!(Beginning::of(text.as_bytes()), Ok(Beginning::Header(header)));
            }
        }
    }
}

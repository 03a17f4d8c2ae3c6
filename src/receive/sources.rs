//! Where requests may come from: networks, looked up through proxies that are trusted to name the source.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The address at the other end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The sender of a request behind `trusted_proxies` proxies. Each proxy appends the address that it was
/// called from to `X-Forwarded-For`, on the right; what is further left, anybody can have written.
pub(super) fn source(peer: Peer, headers: &HeaderMap, trusted_proxies: usize) -> Option<IpAddr> {
    if trusted_proxies == 0 {
        return Some(peer.0.to_canonical());
    }
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .collect();
    let said = lines.len().checked_sub(trusted_proxies).and_then(|index| lines.get(index))?;
    let with_port = || said.parse::<SocketAddr>().map(|socket| socket.ip()).ok(); // some proxies add it
    let address = said.trim_matches(['[', ']']).parse::<IpAddr>().ok().or_else(with_port)?;
    Some(address.to_canonical())
}

/// Whether a source is in one of these networks; if there are none, every source is allowed.
pub(super) fn is_among(source: Option<IpAddr>, networks: &[IpNet]) -> bool {
    networks.is_empty()
        || source.is_some_and(|source| networks.iter().any(|network| network.contains(&source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_the_trusted_proxies_say() {
        let peer = Peer("10.0.0.9".parse().expect("an address"));
        // lines of X-Forwarded-For, proxies, source
        let table: [(&[&str], usize, Option<&str>); 13] = [
            (&[], 0, Some("10.0.0.9")),
            (&["1.1.1.1"], 0, Some("10.0.0.9")),
            (&["1.1.1.1"], 1, Some("1.1.1.1")),
            (&["6.6.6.6, 1.1.1.1"], 1, Some("1.1.1.1")),
            (&["6.6.6.6", "1.1.1.1"], 1, Some("1.1.1.1")),
            (&["6.6.6.6, 1.1.1.1,2.2.2.2"], 2, Some("1.1.1.1")),
            (&["[2001:db8::1]"], 1, Some("2001:db8::1")),
            (&["::ffff:1.1.1.1"], 1, Some("1.1.1.1")),
            (&["6.6.6.6, 1.1.1.1:4711"], 1, Some("1.1.1.1")),
            (&["[2001:db8::1]:4711"], 1, Some("2001:db8::1")),
            (&["6.6.6.6,"], 1, None),
            (&["somebody"], 1, None),
            (&["1.1.1.1"], 2, None),
        ];
        for (lines, proxies, expected) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a value"));
            }
            let expected = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(source(peer, &headers, proxies), expected, "{lines:?} through {proxies}");
        }
    }

    #[test]
    fn only_the_listed_networks_may_send_if_there_are_any() {
        let networks: Vec<IpNet> =
            ["10.0.0.0/8", "2001:db8::/32"].iter().filter_map(|text| text.parse().ok()).collect();
        let table = [
            (Some("10.1.2.3"), true),
            (Some("11.0.0.1"), false),
            (Some("2001:db8::5"), true),
            (Some("2001:db9::5"), false),
            (None, false),
        ];
        for (source, expected) in table {
            let source = source.map(|text| text.parse().expect("an address"));
            assert_eq!(is_among(source, &networks), expected, "{source:?}");
            assert!(is_among(source, &[]));
        }
    }
}

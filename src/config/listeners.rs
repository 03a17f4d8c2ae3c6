//! `[listen]` and `[admin]`: the two addresses the daemon answers on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use config::{Map, Value};

use super::faults::{Faults, Report};
use super::layers::{self, Merged};
use super::secrets;
use super::section::Section;
use super::source::{ReadFrom, Source};
use super::tls;
use crate::receive::tls::TlsFiles;
use crate::secret::Secret;

/// A year: long enough for every wait, short enough that no sum of times overflows.
pub(super) const A_YEAR_S: u64 = 31_536_000;
/// The same in milliseconds.
pub(super) const A_YEAR_MS: u64 = A_YEAR_S * 1000;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Segment gives up on a webhook after [this time](crate::design::segment::requests) and sends again.
const SEGMENT_GIVES_UP_MS: u64 = 5000;

/// The public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where Segment's requests arrive.
    pub address: SocketAddr,
    /// The largest body of one request; a larger one is a 413, which Segment never sends again.
    pub body_limit_bytes: usize,
    /// All bodies in memory at once ([P6](crate::design::P6)); never less than one body.
    pub body_budget_bytes: usize,
    /// The largest header of one request, its first line included.
    pub header_limit_bytes: usize,
    /// Until the header of the first request is complete.
    pub header_timeout: Duration,
    /// Until that of another request is.
    pub idle_timeout: Duration,
    /// Until the body of a request is complete, and for an answer to be taken.
    pub body_timeout: Duration,
    /// Until a complete request must be answered.
    pub answer_timeout: Duration,
    /// Connections that are open at once.
    pub max_connections: usize,
    /// Requests that are handled at once.
    pub max_requests: usize,
    /// Proxies in front that add to `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// Whether a load balancer in front begins each connection with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it is; loopback unless there are tokens.
    pub address: SocketAddr,
    /// Any of them may do everything; none means that reaching the address is enough.
    pub tokens: Vec<Secret>,
    /// Any of them may look and change nothing; only where there are `tokens`, and none of those.
    pub read_tokens: Vec<Secret>,
    /// TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// Whether Segment's web application may ask `/actions` from a browser.
    pub segment_app: bool,
}

/// The admin listener as an operator's command needs to know it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is, or what is wrong with what the configuration says of that.
    pub address: Result<SocketAddr, Faults>,
    /// One that may do everything, or else one that may look; `None`: none is known.
    pub token: Option<Secret>,
    /// TLS, if it is spoken; the files may be of no use.
    pub tls: Option<TlsFiles>,
    /// What could not be read of it.
    pub unread: Vec<Faults>,
    /// The keys that there are not: what they were meant to be is not known.
    pub unknown: Option<Faults>,
    /// Where the address is from, if the file could not be read.
    pub guessed: Option<&'static str>,
    /// Where it was read.
    pub from: ReadFrom,
}

impl Access {
    /// Reads `[admin]` and nothing else, whatever is wrong with the rest: whoever asks how the daemon does
    /// may do so because somebody has broken the file, and need not be somebody who may read the secrets of
    /// the daemon.
    #[must_use]
    pub fn read(file: Option<&Path>) -> Self {
        let source = Source::locate(file);
        let report = Report::default();
        let Merged { tree, complete, salvaged } =
            layers::merge(&source, std::env::vars_os(), &report, Some("admin"));
        let from = report.from().only_of("admin");
        let unknown = Self::unknown_keys(tree.clone()).err().map(|faults| faults.of(from.clone()));
        let mut unread = Vec::new();
        let guessed = (!complete).then(|| {
            unread.extend(report.finish().err());
            if salvaged {
                "its [admin] can be read all the same"
            } else {
                "it names no admin listener then, the environment and the defaults do"
            }
        });
        let report = Report::default();
        report.reads(&source);
        let mut root = Section::root(tree, true, &report);
        let mut section = root.section("admin");
        let address = address(&mut section);
        let is_good = section.is_clean();
        let mut read =
            |keys| secrets::many(&mut section, keys).unwrap_or_default().into_iter().next();
        let token = read(("tokens", "tokens_file"));
        let token = token.or_else(|| read(("read_tokens", "read_tokens_file")));
        let tls = if section.has("tls") { tls::files(&mut section.section("tls")) } else { None };
        drop((section, root));
        let faults = report.finish().err().map(|faults| faults.of(from.clone()));
        let address = match faults {
            Some(faults) if !is_good => Err(faults),
            Some(faults) => {
                unread.push(faults);
                Ok(address)
            }
            None => Ok(address),
        };
        Self { address, token, tls, unread, unknown, guessed, from }
    }

    fn unknown_keys(tree: Map<String, Value>) -> Result<(), Faults> {
        let report = Report::of_unknown_keys();
        let mut root = Section::root(tree, true, &report);
        root.tell_mistaken("admin");
        // No address collides with any free port.
        Admin::read(root.section("admin"), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        drop(root);
        report.finish().map(|_| ())
    }
}

impl Listen {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let address = address(&mut section);
        let limit = section.needed_whole("body_limit_mib", 1..=65_536) * MIB;
        let budget = section.needed_whole("body_budget_mib", 1..=1_048_576) * MIB;
        let header_limit = section.needed_whole("header_limit_kib", 8..=1024) * KIB;
        let answer_timeout_ms = section.needed_whole("answer_timeout_ms", 1..=A_YEAR_MS);
        let mut wait = |key| Duration::from_millis(section.needed_whole(key, 1..=A_YEAR_MS));
        let listen = Self {
            address,
            body_limit_bytes: whole(limit),
            body_budget_bytes: whole(budget),
            header_limit_bytes: whole(header_limit),
            header_timeout: wait("header_timeout_ms"),
            idle_timeout: wait("idle_timeout_ms"),
            body_timeout: wait("body_timeout_ms"),
            answer_timeout: Duration::from_millis(answer_timeout_ms),
            max_connections: whole(section.needed_whole("max_connections", 1..=1_000_000)),
            max_requests: whole(section.needed_whole("max_requests", 1..=1_000_000)),
            trusted_proxies: whole(section.needed_whole("trusted_proxies", 0..=100)),
            proxy_protocol: section.flag("proxy_protocol").unwrap_or(false),
            tls: tls::read(&mut section),
        };
        if section.is_clean() && budget < limit {
            let problem = format!("is below body_limit_mib ({})", limit / MIB);
            section.fault("body_budget_mib", Some((budget / MIB).to_string()), problem);
        }
        if answer_timeout_ms > SEGMENT_GIVES_UP_MS {
            let text = "Segment gives up after 5000 ms and sends the request again";
            section.warn("answer_timeout_ms", text);
        }
        section.finish();
        listen
    }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Admin {
    pub(super) fn read(mut section: Section<'_>, listen: SocketAddr) -> Self {
        let address = address(&mut section);
        let tokens = secrets::many(&mut section, ("tokens", "tokens_file"));
        if !address.ip().to_canonical().is_loopback() && tokens.as_ref().is_some_and(Vec::is_empty)
        {
            section.missing("tokens", Some("tokens_file"), ": admin.address is not a loopback one");
        }
        let read_tokens = read_tokens(&mut section, tokens.as_deref());
        let segment_app = section.flag("segment_app").unwrap_or(false);
        let both_clean = section.is_clean() && section.is_clean_elsewhere("listen");
        if both_clean && collide(address, listen) {
            let problem = format!("collides with listen.address ({listen})");
            section.fault("address", Some(address.to_string()), problem);
        }
        let tls = tls::read(&mut section);
        section.finish();
        Self { address, tokens: tokens.unwrap_or_default(), read_tokens, tls, segment_app }
    }
}

/// Those that may look only. Without others nobody could change anything, or, on a loopback address,
/// everybody could.
fn read_tokens(section: &mut Section<'_>, tokens: Option<&[Secret]>) -> Vec<Secret> {
    let keys = ("read_tokens", "read_tokens_file");
    let read_tokens = secrets::many(section, keys).unwrap_or_default();
    if read_tokens.is_empty() {
        return read_tokens;
    }
    match tokens {
        Some([]) if section.is_clean() => {
            let why = ": read_tokens is set, and those may change nothing";
            section.missing("tokens", Some("tokens_file"), why);
        }
        Some(tokens) if read_tokens.iter().any(|token| tokens.contains(token)) => {
            let problem =
                "has a token that is among tokens too: either it may change things, or not";
            section.fault("read_tokens", None, problem);
        }
        _ => {}
    }
    read_tokens
}

/// The `address` of a section.
pub(super) fn address(section: &mut Section<'_>) -> SocketAddr {
    if !section.has("address") {
        section.missing("address", None, "");
    }
    let problem = "must be an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080";
    let address = section.parsed("address", |text| text.parse().map_err(|_| problem.to_owned()));
    address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Whether the second of the two listeners could not be opened. Port 0 is any free port.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    // An unspecified IPv6 address takes the IPv4 ones too.
    let takes = |one: IpAddr, other: IpAddr| {
        one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    a.port() == b.port() && a.port() != 0 && (takes(a.ip(), b.ip()) || takes(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_collide_when_the_second_could_not_be_opened() {
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("[::1]:80", "[::]:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ];
        for (a, b, expected) in cases {
            let parse = |text: &str| text.parse().expect("the table has addresses");
            assert_eq!(collide(parse(a), parse(b)), expected, "{a} {b}");
        }
    }
}

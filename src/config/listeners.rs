//! `[listen]` and `[admin]`: the two addresses that the daemon listens on.

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
use crate::receive::Limits;
use crate::receive::tls::TlsFiles;
use crate::secret::Secret;

/// A year: long enough for every wait, short enough that no sum of times overflows.
pub(super) const A_YEAR_S: u64 = 31_536_000;
/// [`A_YEAR_S`] in milliseconds.
pub(super) const A_YEAR_MS: u64 = A_YEAR_S * 1000;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// How long Segment waits for an answer of a webhook [before it retries](crate::design::segment::requests).
const SEGMENT_GIVES_UP_MS: u64 = 5000;

/// The public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address for Segment's requests.
    pub address: SocketAddr,
    /// What a request may cost.
    pub limits: Limits,
    /// The files of its TLS, if it speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its address; a loopback address unless there are tokens.
    pub address: SocketAddr,
    /// Each grants full access. If empty, whoever can reach the address has full access.
    pub tokens: Vec<Secret>,
    /// Each grants read access. Only if there are `tokens`, and distinct from them.
    pub read_tokens: Vec<Secret>,
    /// The files of its TLS, if it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Whether Segment's web application may call `/actions` from a browser.
    pub segment_app: bool,
}

/// The admin listener as an operator's command needs to know it.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its address, or the faults of the setting.
    pub address: Result<SocketAddr, Faults>,
    /// A token with full access, or else one with read access; `None` if none is configured.
    pub token: Option<Secret>,
    /// The files of its TLS, if it speaks TLS; they may be unusable.
    pub tls: Option<TlsFiles>,
    /// What could not be read of it.
    pub unread: Vec<Faults>,
    /// The keys that there are not: what they were meant to be is not known.
    pub unknown: Option<Faults>,
    /// Where the address is from, if the file could not be read.
    pub guessed: Option<&'static str>,
    /// The file and variables that it was read from.
    pub from: ReadFrom,
}

impl Access {
    /// Reads `[admin]` and ignores faults elsewhere: an operator may ask for the daemon's state just when
    /// somebody has broken the file, and may not be allowed to read the daemon's other secrets.
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
                "its [admin] section can still be read"
            } else {
                "the admin listener is therefore taken from the environment and the defaults"
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
            limits: Limits {
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
            },
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
            section.missing(
                "tokens",
                Some("tokens_file"),
                ": admin.address is not a loopback address",
            );
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

/// Reads the tokens for read access. Without tokens for full access they make no sense: nobody could change
/// anything, or, on a loopback address, everybody could.
fn read_tokens(section: &mut Section<'_>, tokens: Option<&[Secret]>) -> Vec<Secret> {
    let keys = ("read_tokens", "read_tokens_file");
    let read_tokens = secrets::many(section, keys).unwrap_or_default();
    if read_tokens.is_empty() {
        return read_tokens;
    }
    match tokens {
        Some([]) if section.is_clean() => {
            let why = ": read_tokens is set, and those tokens are read-only";
            section.missing("tokens", Some("tokens_file"), why);
        }
        Some(tokens) if read_tokens.iter().any(|token| tokens.contains(token)) => {
            let problem = "has a token that is in tokens too: it must be in one of them only";
            section.fault("read_tokens", None, problem);
        }
        _ => {}
    }
    read_tokens
}

/// Reads the key `address` of a section.
pub(super) fn address(section: &mut Section<'_>) -> SocketAddr {
    if !section.has("address") {
        section.missing("address", None, "");
    }
    let problem = "must be an IP address and a port, as in 127.0.0.1:8080 or [::1]:8080";
    let address = section.parsed("address", |text| text.parse().map_err(|_| problem.to_owned()));
    address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Whether the two addresses cannot both be bound. Port 0 means any free port.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    // An unspecified IPv6 address covers all IPv4 addresses too.
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

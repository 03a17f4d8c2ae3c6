//! Who may do what on the admin listener: the power of a token, and the power that each route wants.
//!
//! # What always holds
//! * A route that is not in `ROUTES` wants every power, so that one that is forgotten is closed; and
//!   `admin::tests::each_route_is_in_the_table` says that it is forgotten.
//! * Whoever may only read changes nothing (tests/it/admin.rs asks for everything).
//! * A token is compared with every one there is, in constant time: an answer's time does not tell which of
//!   them it is, or how much of one is right. (Its length may show.)
//! * A browser changes nothing for a page of another origin, with or without a token.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::receive::bearer;
use crate::secret::Secret;

/// What somebody may do, or must be able to; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// See what holds no data: the probes, the manual, and the files of the dashboard.
    Open,
    /// Look, with one of `admin.read_tokens`: also at people, and not at the events that are kept.
    Read,
    /// Everything, with one of `admin.tokens`.
    Operate,
}

impl Power {
    /// As the API says it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

const GET: &str = "GET";
const POST: &str = "POST";

/// Every route and the power that it wants. A `HEAD` wants what its `GET` does.
pub(super) const ROUTES: &[(&str, &str, Power)] = &[
    (GET, "/", Power::Open),
    (GET, "/assets/{*file}", Power::Open),
    (GET, "/manual", Power::Open),
    (GET, "/manual/{topic}", Power::Open),
    (GET, "/livez", Power::Open),
    (GET, "/readyz", Power::Open),
    (GET, "/healthz", Power::Open),
    (GET, "/status", Power::Read),
    (GET, "/metrics", Power::Read),
    (GET, "/api/v1/access", Power::Read),
    (GET, "/api/v1/openapi.json", Power::Read),
    (GET, "/api/v1/history", Power::Read),
    (GET, "/api/v1/destinations", Power::Read),
    (GET, "/api/v1/destinations/{destination}/audiences", Power::Read),
    (GET, "/api/v1/destinations/{destination}/members/{key}", Power::Read),
    (GET, "/api/v1/destinations/{destination}/progress", Power::Read),
    (GET, "/api/v1/destinations/{destination}/parked", Power::Read),
    (GET, "/api/v1/destinations/{destination}/rejected", Power::Read), // without the events themselves
    (GET, "/api/v1/destinations/{destination}/rejected/{id}", Power::Read),
    // it tells nobody and keeps nothing, and what it shows is made of the event that was sent along
    (POST, "/api/v1/destinations/{destination}/explain", Power::Read),
    (POST, "/api/v1/destinations/{destination}/events", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/resync", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/pause", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/resume", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/forget", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/drop", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/parked/requeue", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/parked/discard", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/rejected/replay", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/rejected/discard", Power::Operate),
    (POST, "/api/v1/reload", Power::Operate),
    (GET, "/actions/manifest", Power::Read),
    (POST, "/actions/authenticate", Power::Operate), // asks LaunchDarkly about a token
    (POST, "/actions/syncAudience", Power::Operate),
];

/// The power that a request wants; `route` is the pattern that its path matches. What matches none is
/// not found, whoever asks.
pub(super) fn needed(method: &Method, route: Option<&str>) -> Power {
    let Some(route) = route else { return Power::Read };
    let method = if method == Method::HEAD { GET } else { method.as_str() };
    let known = ROUTES.iter().find(|(of, path, _)| *of == method && *path == route);
    known.map_or(Power::Operate, |(_, _, power)| *power)
}

/// The tokens there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Each may do everything. None: whoever reaches the listener may.
    pub operate: Vec<Secret>,
    /// Each may look.
    pub read: Vec<Secret>,
}

impl Tokens {
    /// The power of a token; [`Power::Open`] if it is wrong.
    fn power_of(&self, presented: &[u8]) -> Power {
        let is_among = |tokens: &[Secret]| {
            tokens.iter().fold(Choice::from(0), |any, token| {
                any | token.expose().as_bytes().ct_eq(presented)
            })
        };
        let (operate, read) = (is_among(&self.operate), is_among(&self.read));
        match (bool::from(operate), bool::from(read)) {
            (true, _) => Power::Operate,
            (false, true) => Power::Read,
            (false, false) => Power::Open,
        }
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A browser would change something for a page of another origin.
    CrossOrigin,
    /// Without tokens: the request does not name this machine as its host.
    ForeignHost,
    /// No token was shown.
    NoToken,
    /// A token was shown that there is not.
    WrongToken,
    /// The token may look, and that was not asked for.
    ReadOnly,
}

impl Refusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::CrossOrigin, Self::ForeignHost, Self::NoToken, Self::WrongToken, Self::ReadOnly];

    /// As metrics name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::CrossOrigin => "cross_origin",
            Self::ForeignHost => "foreign_host",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::ReadOnly => "read_only",
        }
    }

    pub(super) fn problem(self) -> Problem {
        let send = "send one of admin.tokens as Authorization: Bearer";
        let (status, detail) = match self {
            Self::CrossOrigin => {
                (StatusCode::FORBIDDEN, "a web page of another origin may change nothing")
            }
            Self::ForeignHost => (
                StatusCode::FORBIDDEN,
                "this listener answers only to a loopback name as Host and Origin",
            ),
            Self::NoToken | Self::WrongToken => (StatusCode::UNAUTHORIZED, send),
            Self::ReadOnly => (
                StatusCode::FORBIDDEN,
                "this is one of admin.read_tokens, which may look and change nothing; send one of \
                 admin.tokens",
            ),
        };
        Problem::new(status, detail)
    }
}

/// What the sender of a request may do, if it may do what it `needs`.
pub(super) fn judge(
    tokens: &Tokens,
    needs: Power,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Power, Refusal> {
    if !method.is_safe() && is_cross_origin(headers) {
        return Err(Refusal::CrossOrigin);
    }
    if tokens.operate.is_empty() {
        let local = host(headers).is_some_and(is_loopback)
            && origin(headers).is_none_or(|origin| is_loopback(authority(origin)));
        return if local { Ok(Power::Operate) } else { Err(Refusal::ForeignHost) };
    }
    let presented = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    match presented.filter(|token| !token.is_empty()).map(|token| tokens.power_of(token)) {
        None => Err(Refusal::NoToken),
        Some(Power::Open) => Err(Refusal::WrongToken),
        Some(power) if power < needs => Err(Refusal::ReadOnly),
        Some(power) => Ok(power),
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

/// What cannot be read is nobody's.
fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default())
}

fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, authority)| authority)
}

/// Whether a browser sends this for a page of another origin. Browsers of our days say so in
/// `Sec-Fetch-Site`; older ones name the page in `Origin`; programs send neither. As Go's
/// `CrossOriginProtection` does, so that a proxy may change the `Host`.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(site) => !matches!(site, b"same-origin" | b"none"),
        None => origin(headers).is_some_and(|origin| host(headers) != Some(authority(origin))),
    }
}

/// Whether `host[:port]` names this machine to itself.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent<'a> = &'a [(&'a str, &'a str)];
    type Judged = Result<Power, Refusal>;

    fn headers(list: Sent<'_>) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, value.parse().expect("a value"))
        };
        list.iter().map(parse).collect()
    }

    fn tokens() -> Tokens {
        let of = |texts: &[&str]| texts.iter().map(|text| Secret::new(*text)).collect();
        Tokens { operate: of(&["old", "new"]), read: of(&["look"]) }
    }

    #[test]
    fn without_tokens_only_a_loopback_host_and_origin_pass() {
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[("host", "127.0.0.1:8081")], true),
            (&[("host", "localhost:8081")], true),
            (&[("host", "[::1]:8081")], true),
            (&[("host", "attacker.example:8081")], false),
            (&[("host", "127.0.0.1.attacker.example")], false),
            (&[], false),
            (&[("host", "127.0.0.1"), ("origin", "https://attacker.example")], false),
            (&[("host", "127.0.0.1"), ("origin", "http://localhost:8081")], true),
        ];
        for (list, passes) in cases {
            let judged = judge(&Tokens::default(), Power::Operate, &Method::GET, &headers(list));
            let expected = if passes { Ok(Power::Operate) } else { Err(Refusal::ForeignHost) };
            assert_eq!(judged, expected, "{list:?}");
        }
    }

    #[test]
    fn a_token_has_its_power_whatever_the_host_and_however_the_scheme_is_written() {
        use Power::{Operate, Read};
        use Refusal::{NoToken, ReadOnly, WrongToken};
        // what is sent, and what comes of it where looking is asked for, and where a change is
        let cases: [(Sent<'_>, Judged, Judged); 14] = [
            (
                &[("authorization", "Bearer new"), ("host", "cohortd.internal")],
                Ok(Operate),
                Ok(Operate),
            ),
            (&[("authorization", "Bearer old")], Ok(Operate), Ok(Operate)),
            (&[("authorization", "bearer old")], Ok(Operate), Ok(Operate)),
            (&[("authorization", "BEARER old")], Ok(Operate), Ok(Operate)),
            (&[("authorization", "Bearer look")], Ok(Read), Err(ReadOnly)),
            (&[("authorization", "bearer look")], Ok(Read), Err(ReadOnly)),
            (&[("authorization", "Bearer ne")], Err(WrongToken), Err(WrongToken)),
            (&[("authorization", "Bearer news")], Err(WrongToken), Err(WrongToken)),
            (&[("authorization", "Bearer NEW")], Err(WrongToken), Err(WrongToken)),
            (&[("authorization", "Bearernew")], Err(NoToken), Err(NoToken)),
            (&[("authorization", "Bearer ")], Err(NoToken), Err(NoToken)),
            (&[("authorization", "Basic bmV3Og==")], Err(NoToken), Err(NoToken)),
            (&[("authorization", "new")], Err(NoToken), Err(NoToken)),
            (&[("host", "127.0.0.1")], Err(NoToken), Err(NoToken)),
        ];
        for (list, looking, changing) in cases {
            let of = |needs| judge(&tokens(), needs, &Method::GET, &headers(list));
            assert_eq!((of(Read), of(Operate)), (looking, changing), "{list:?}");
        }
    }

    #[test]
    fn a_browser_changes_nothing_for_a_page_of_another_origin() {
        let host = ("host", "ops.example");
        let token = ("authorization", "Bearer new");
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[host, token], true),
            (&[host, token, ("origin", "https://ops.example")], true),
            (&[host, token, ("origin", "https://attacker.example")], false),
            (&[host, token, ("origin", "null")], false),
            (&[host, token, ("sec-fetch-site", "same-origin")], true),
            (&[host, token, ("sec-fetch-site", "none")], true),
            (&[host, token, ("sec-fetch-site", "cross-site")], false),
            // a proxy has given the request another host
            (
                &[
                    ("host", "10.0.0.7:8081"),
                    token,
                    ("origin", "https://ops.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
        ];
        for (list, passes) in cases {
            let headers = headers(list);
            let of = |method| judge(&tokens(), Power::Operate, &method, &headers);
            let expected = if passes { Ok(Power::Operate) } else { Err(Refusal::CrossOrigin) };
            assert_eq!(of(Method::POST), expected, "{list:?}");
            assert_eq!(of(Method::GET), Ok(Power::Operate), "reading is no change");
        }
    }

    #[test]
    fn what_is_not_in_the_table_wants_every_power() {
        let forget = "/api/v1/destinations/{destination}/forget";
        let table = [
            ("GET", Some("/status"), Power::Read),
            ("HEAD", Some("/status"), Power::Read),
            ("POST", Some("/status"), Power::Operate),
            ("POST", Some(forget), Power::Operate),
            ("GET", Some(forget), Power::Operate),
            ("GET", Some("/forgotten"), Power::Operate),
            ("GET", None, Power::Read), // nothing is there
        ];
        for (method, route, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(needed(&method, route), expected, "{method} {route:?}");
        }
    }

    #[test]
    fn each_refusal_has_a_place_and_a_word() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index, "{}", refusal.word());
        }
    }
}

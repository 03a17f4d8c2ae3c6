//! Access control of the admin listener: the power of each token, and the power that each route
//! requires.
//!
//! # What always holds
//! * A route that is missing in `ROUTES` requires full power, so a forgotten route is closed; and
//!   `admin::tests::each_route_is_in_the_table` fails.
//! * A token with read power can change nothing (tests/it/admin.rs sends every request).
//! * A token is compared with every configured one in constant time: the response time shows neither
//!   which one matches nor how much of one is right. (It may show the length.)
//! * A browser changes nothing on behalf of a page of another origin, with or without a token.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;
use crate::receive::bearer;
use crate::secret::Secret;

/// What a sender may do, or a route requires; each power includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// See what contains no data: the probes, the manual, and the dashboard's files.
    Open,
    /// Look, with one of `admin.read_tokens`: also at people, but not at kept events.
    Read,
    /// Everything, with one of `admin.tokens`.
    Operate,
}

impl Power {
    /// Its word in the API.
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

/// Every route and the power that it requires. A `HEAD` requires what its `GET` does.
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
    // nothing is recorded or delivered, and the answer only contains what was sent along
    (POST, "/api/v1/destinations/{destination}/explain", Power::Read),
    (POST, "/api/v1/destinations/{destination}/events", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/resync", Power::Operate),
    (GET, "/api/v1/destinations/{destination}/reconcile", Power::Read),
    (POST, "/api/v1/destinations/{destination}/reconcile", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/reconcile/stop", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/pause", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/resume", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/forget", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/drop", Power::Operate),
    (GET, "/api/v1/destinations/{destination}/guard", Power::Read),
    (POST, "/api/v1/destinations/{destination}/guard/release", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/guard/discard", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/parked/requeue", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/parked/discard", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/rejected/replay", Power::Operate),
    (POST, "/api/v1/destinations/{destination}/rejected/discard", Power::Operate),
    (POST, "/api/v1/reload", Power::Operate),
    (GET, "/actions/manifest", Power::Read),
    (POST, "/actions/authenticate", Power::Operate), // asks LaunchDarkly about a token
    (POST, "/actions/syncAudience", Power::Operate),
];

/// The power that a request requires; `route` is the pattern that its path matches. A path that matches
/// none needs only [`Power::Read`] to be answered with 404.
pub(super) fn needed(method: &Method, route: Option<&str>) -> Power {
    let Some(route) = route else { return Power::Read };
    let method = if method == Method::HEAD { GET } else { method.as_str() };
    let known = ROUTES.iter().find(|(of, path, _)| *of == method && *path == route);
    known.map_or(Power::Operate, |(_, _, power)| *power)
}

/// The configured tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Each grants full power. If there are none, any request to a loopback `Host` has it.
    pub operate: Vec<Secret>,
    /// Each grants read power.
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

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It would change something on behalf of a page of another origin.
    CrossOrigin,
    /// Without tokens: `Host` or `Origin` of the request is not a loopback name.
    ForeignHost,
    /// It has no token.
    NoToken,
    /// Its token is not one of the configured ones.
    WrongToken,
    /// Its token may only read, and the route requires more.
    ReadOnly,
}

impl Refusal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] =
        [Self::CrossOrigin, Self::ForeignHost, Self::NoToken, Self::WrongToken, Self::ReadOnly];

    /// The word in metrics.
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
                (StatusCode::FORBIDDEN, "a web page of another origin may not change anything")
            }
            Self::ForeignHost => (
                StatusCode::FORBIDDEN,
                "without admin.tokens, this listener only answers requests whose Host and Origin are loopback names",
            ),
            Self::NoToken | Self::WrongToken => (StatusCode::UNAUTHORIZED, send),
            Self::ReadOnly => (
                StatusCode::FORBIDDEN,
                "this is one of admin.read_tokens, which are read-only; send one of admin.tokens",
            ),
        };
        Problem::new(status, detail)
    }
}

/// The power of the sender, if it has the power that the route `needs`.
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

/// An unreadable header counts as an empty one, which is no known origin.
fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default())
}

fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, authority)| authority)
}

/// Whether a browser sends this on behalf of a page of another origin. Current browsers say so in
/// `Sec-Fetch-Site`, older ones send the page's `Origin`, and programs send neither. As in Go's
/// `CrossOriginProtection`, a proxy in between may change the `Host`.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(site) => !matches!(site, b"same-origin" | b"none"),
        None => origin(headers).is_some_and(|origin| host(headers) != Some(authority(origin))),
    }
}

/// Whether `host[:port]` is a loopback name or address.
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
        // headers; the result for a route that requires read power, and for one that requires full
        // power
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
            // a proxy has changed the `Host`
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
            ("GET", None, Power::Read), // no such route
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

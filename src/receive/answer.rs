//! Answers: the only place that knows statuses and their texts.
//!
//! Segment retries 429, 5xx and timeouts for four hours, and never any other 4xx; the customer reads its body
//! in the Event Delivery view. So trouble on our side is a 503, and a 4xx says what a person can do. No text
//! contains anything that came with the request ([P8](crate::design::P8)).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::counters::Counted;
use super::listener::SaidAgain;
use super::proxy_protocol::Malformed;
use super::refused::{Asked, At, shortened};
use super::{PublicState, body, calls, cors};
use crate::json::Json;
use crate::map::Rejection;

/// Most rejections named in one answer, so that it stays short; the others are counted in
/// `rejected_more`.
const REJECTIONS_NAMED: usize = 1000;

/// What became of the events of a request; the accepted ones are durable.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) accepted: usize,
    pub(super) ignored: usize,
    /// Each with its position in the request, ascending.
    pub(super) rejected: Vec<(usize, Rejection)>,
}

#[derive(Serialize)]
struct AccountLine {
    accepted: usize,
    ignored: usize,
    rejected: Vec<RejectedLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_more: Option<usize>,
}

#[derive(Serialize)]
struct RejectedLine {
    index: usize,
    reason: String,
}

impl Account {
    /// 400 if there are events and all of them are rejected: Segment then shows the reason and does not
    /// retry.
    pub(super) fn status(&self) -> StatusCode {
        if self.accepted + self.ignored == 0 && !self.rejected.is_empty() {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        }
    }
}

impl IntoResponse for Account {
    fn into_response(self) -> Response {
        let status = self.status();
        let unnamed = self.rejected.len().saturating_sub(REJECTIONS_NAMED);
        let rejected = self.rejected.into_iter().take(REJECTIONS_NAMED);
        let line = AccountLine {
            accepted: self.accepted,
            ignored: self.ignored,
            rejected: rejected
                .map(|(index, Rejection { reason, detail })| RejectedLine {
                    index,
                    reason: format!("{reason}: {detail}"),
                })
                .collect(),
            rejected_more: (unnamed > 0).then_some(unnamed),
        };
        json(status, &line)
    }
}

/// Why a request was not processed, or could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Refusal {
    /// There is no such path.
    NotFound,
    /// There is no destination or route of this name.
    UnknownDestination,
    /// The path does not accept this method.
    MethodNotAllowed,
    /// The browser of a page asks, and the page's origin is not listed.
    OriginNotListed,
    /// No credential was presented, or not a good one.
    Unauthenticated,
    /// The destination accepts no requests from this address.
    SourceNotAllowed,
    /// The destination accepts only one event per request.
    BatchNotAllowed,
    /// The destination, or one of several, is switched off.
    Disabled,
    /// More bytes than one body may have.
    TooLarge,
    /// More elements than one array may have.
    TooManyEvents,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The body ended early or was badly framed.
    BodyBroken,
    /// The body is not compressed as its content encoding says.
    NotPacked,
    /// The compressed stream is cut short.
    PackedShort,
    /// The compressed stream is damaged, or bytes follow its end.
    PackedBroken,
    /// The body as a whole is not JSON.
    BadJson,
    /// A content encoding other than gzip and deflate.
    UnknownEncoding,
    /// A call of Webhook Audiences without the name or id it is about.
    BadAudience,
    /// More calls than the rate of this route allows.
    TooMany,
    /// The budget for bodies in flight is used up.
    Busy,
    /// The accepted events could not be made durable in time.
    Unavailable,
    /// The connection began with a header of the PROXY protocol, where none is expected.
    ProxyHeader,
    /// The connection did not begin with a header of the PROXY protocol, where one is expected.
    NoProxyHeader,
    /// The connection began with several headers of the PROXY protocol.
    SecondProxyHeader,
    /// The connection began with an invalid header of the PROXY protocol, and was closed without an answer.
    BadProxyHeader,
}

#[derive(Serialize)]
struct RefusalLine {
    error: &'static str,
}

impl Refusal {
    /// Every refusal, in the order of declaration, for the counters.
    pub(super) const ALL: [Self; 25] = [
        Self::NotFound,
        Self::UnknownDestination,
        Self::MethodNotAllowed,
        Self::OriginNotListed,
        Self::Unauthenticated,
        Self::SourceNotAllowed,
        Self::BatchNotAllowed,
        Self::Disabled,
        Self::TooLarge,
        Self::TooManyEvents,
        Self::BodyTimeout,
        Self::BodyBroken,
        Self::NotPacked,
        Self::PackedShort,
        Self::PackedBroken,
        Self::BadJson,
        Self::UnknownEncoding,
        Self::BadAudience,
        Self::TooMany,
        Self::Busy,
        Self::Unavailable,
        Self::ProxyHeader,
        Self::NoProxyHeader,
        Self::SecondProxyHeader,
        Self::BadProxyHeader,
    ];

    /// Whether the connection is set up wrongly: a person has to act, and nothing is accepted until then.
    pub(super) fn is_misled(self) -> bool {
        matches!(
            self,
            Self::ProxyHeader
                | Self::NoProxyHeader
                | Self::SecondProxyHeader
                | Self::BadProxyHeader
        )
    }

    pub(super) fn status(self) -> StatusCode {
        self.status_and_text().0
    }

    /// The word it is counted under: the first word of its answer, except that a full budget is distinguished
    /// from a ledger that did not accept the events.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            other => other.status_and_text().1.split(':').next().unwrap_or_default(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: each refusal with its words")]
    fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found: there is nothing at this path: the URL of a webhook ends with \
                 /segment/ and the name of a destination or route, and /v1/ needs \
                 segment.write_keys",
            ),
            Self::UnknownDestination => (
                StatusCode::NOT_FOUND,
                "unknown_destination: no destination or route has this name: correct the end of the URL",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed: events are accepted with POST, PUT or PATCH, probes with GET \
                 or HEAD: choose one of them in Segment",
            ),
            Self::OriginNotListed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "origin_not_listed: no destination lists the origin of this page in \
                 segment.cors_origins: add it there as the browser writes it",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated: the signature, bearer token or write key is missing or wrong: compare what is set in \
                 Segment with segment.shared_secrets, bearer_tokens, write_keys and require",
            ),
            Self::SourceNotAllowed => (
                StatusCode::FORBIDDEN,
                "source_not_allowed: this destination does not accept requests from this address: \
                 see segment.allowed_sources and listen.trusted_proxies",
            ),
            Self::BatchNotAllowed => (
                StatusCode::BAD_REQUEST,
                "batch_not_allowed: this destination accepts one event per request: switch \
                 batching off in Segment, or set segment.allow_batches",
            ),
            Self::Disabled => (
                StatusCode::SERVICE_UNAVAILABLE,
                "disabled: this destination, or one that this path feeds, is switched off for now \
                 (enabled = false)",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large: the body exceeds the size limit (listen.body_limit_mib, less without \
                 a credential), or needs more memory than listen.body_budget_mib: send smaller \
                 batches",
            ),
            Self::TooManyEvents => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_events: the array has more events than one request may carry: send smaller batches",
            ),
            Self::BodyTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout: the body did not arrive in time (listen.body_timeout_ms)",
            ),
            Self::BodyBroken => {
                (StatusCode::BAD_REQUEST, "bad_body: the body was cut off, or is framed badly")
            }
            Self::NotPacked => (
                StatusCode::BAD_REQUEST,
                "not_packed: the body is not compressed as its Content-Encoding says (deflate is \
                 the zlib format): let the sender, or the proxy in front, name the encoding it \
                 uses",
            ),
            Self::PackedShort => (
                StatusCode::BAD_REQUEST,
                "packed_short: the body arrived complete, but its compressed stream ends early: \
                 let the sender finish the stream before sending it",
            ),
            Self::PackedBroken => (
                StatusCode::BAD_REQUEST,
                "packed_broken: the compressed body is damaged: its checksum or its content is \
                 wrong, or there is data after its end",
            ),
            Self::BadJson => (
                StatusCode::BAD_REQUEST,
                "bad_json: the body is not a JSON object or an array of them: set the content type in Segment to \
                 application/json",
            ),
            Self::UnknownEncoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unknown_encoding: the body must be uncompressed, gzip or deflate",
            ),
            Self::BadAudience => (
                StatusCode::BAD_REQUEST,
                "bad_audience: creating an audience needs audienceName, getting one needs \
                 externalId",
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many: too many requests per second (segment.max_requests_per_s), try again",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable: too much is being received at once (listen.body_budget_mib, listen.max_requests), \
                 try again",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable: the events could not be stored in time, try again",
            ),
            Self::ProxyHeader => (
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_header: the connection began with a header of the PROXY protocol, which is not expected here: \
                 set listen.proxy_protocol = true, or switch it off in the load balancer",
            ),
            Self::NoProxyHeader => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_proxy_header: the connection did not begin with a header of the PROXY protocol: switch it on in \
                 the load balancer, or set listen.proxy_protocol = false",
            ),
            Self::SecondProxyHeader => (
                StatusCode::SERVICE_UNAVAILABLE,
                "second_proxy_header: the connection began with more than one header of the PROXY protocol: let only \
                 the last load balancer send one",
            ),
            Self::BadProxyHeader => (
                StatusCode::SERVICE_UNAVAILABLE,
                "bad_proxy_header: the connection began with a header of the PROXY protocol that cannot be read",
            ),
        }
    }

    fn header(self) -> Option<(header::HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated => {
                Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            Self::Busy | Self::Unavailable | Self::TooMany => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("1")))
            }
            // a person has to act, but an SDK that honours this header sends nothing at all for that long
            _ if self == Self::Disabled || self.is_misled() => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("10")))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = self.status_and_text();
        let mut response = json(status, &RefusalLine { error });
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

fn json(status: StatusCode, line: &impl Serialize) -> Response {
    let mut response = Json(line).into_response();
    *response.status_mut() = status;
    response
}

pub(super) async fn not_found(State(state): State<Arc<PublicState>>, request: Request) -> Refusal {
    let path = shortened(request.uri().path());
    let asked = Asked::of(request.method(), request.headers());
    state.counted(&At::Astray(&path), asked, Instant::now(), Refusal::NotFound)
}

/// The router adds the `Allow` header, because it knows the route.
pub(super) async fn method_not_allowed(
    State(state): State<Arc<PublicState>>,
    request: Request,
) -> Response {
    let is_call = request.uri().path().starts_with("/v1/");
    let refusal = state.refused_unread(&request, Refusal::MethodNotAllowed);
    let mut response = refusal.into_response();
    if is_call {
        cors::vary(response.headers_mut(), &state);
    }
    response
}

/// Refuses a preflight of a page whose origin is not listed.
pub(super) fn unlisted(state: &PublicState, request: &Request) -> Refusal {
    state.refused_unread(request, Refusal::OriginNotListed)
}

/// Refuses any request on a connection that does not begin as expected.
pub(super) async fn misled(State(state): State<Arc<PublicState>>, request: Request) -> Refusal {
    if let Some(malformed) = request.extensions().get() {
        return state.closed(*malformed);
    }
    let is_said_again = request.extensions().get::<SaidAgain>().is_some();
    let refusal = match (state.limits.proxy_protocol, is_said_again) {
        (true, true) => Refusal::SecondProxyHeader,
        (true, false) => Refusal::NoProxyHeader,
        (false, _) => Refusal::ProxyHeader,
    };
    state.refused_unread(&request, refusal);
    let (head, mut body) = request.into_parts();
    body::discard(head, &mut body).await;
    refusal
}

impl PublicState {
    /// Counts a connection that is closed because it begins with an invalid header of the PROXY protocol.
    fn closed(&self, malformed: Malformed) -> Refusal {
        let refusal = Refusal::BadProxyHeader;
        self.counters.nobodys().count(refusal.outcome(), Duration::ZERO);
        let is_expected = self.limits.proxy_protocol;
        self.counters.refused.note_closed(
            malformed,
            &self.doors,
            is_expected,
            self.ledger.arrival(),
        );
        refusal
    }

    /// Counts a request that is refused because of its head, whatever its path.
    fn refused_unread(&self, request: &Request, refusal: Refusal) -> Refusal {
        let path = request.uri().path().trim_end_matches('/');
        let asked = Asked::of(request.method(), request.headers());
        let door = path.strip_prefix("/segment/").and_then(|name| self.doors.at(name));
        let call = path.strip_prefix("/v1/").and_then(calls::named);
        let astray = shortened(path);
        let at = match (door.as_deref(), call) {
            (Some(door), _) => At::Door(door, ""),
            (None, Some(call)) => At::Call(call, None),
            (None, None) => At::Astray(&astray),
        };
        self.counters.nobodys().count(refusal.outcome(), Duration::ZERO);
        self.refused(&at, asked, refusal);
        refusal
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manual;

    /// The words and statuses of answers to a whole request.
    #[test]
    fn the_manual_explains_every_refusal() {
        let rows = manual::rows("operations", "what-an-answer-means");
        let mut explained = BTreeSet::new();
        for row in &rows {
            let status = row[0].split([' ', ',']).next().unwrap_or_default();
            let words = row.iter().flat_map(|cell| manual::quoted(cell));
            let is_word = |word: &&str| Refusal::ALL.iter().any(|refusal| refusal.word() == *word);
            explained.extend(words.filter(is_word).map(|word| (status.to_owned(), word)));
            for word in manual::quoted(row[0]).filter(|word| !word.starts_with('{')) {
                assert!(is_word(&word), "{word} is answered by nobody");
            }
        }
        let answered = |refusal: &Refusal| (refusal.status().as_u16().to_string(), refusal.word());
        // metrics distinguish `busy` from a ledger that did not accept; both are answered as `unavailable`
        let all = Refusal::ALL.iter().filter(|refusal| **refusal != Refusal::Busy);
        assert_eq!(explained, all.map(answered).collect());
    }
}

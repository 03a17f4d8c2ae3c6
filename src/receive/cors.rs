//! CORS for the Tracking API: which web pages may read the answers that their SDK gets (Fetch Standard, 3.2).
//! An SDK that may not read them takes every answer for a failure and retries.
//!
//! CORS protects nobody here and requires nothing: the credential is the write key, which the page contains.
//! A request of a page whose origin is not listed is accepted like any other; only its browser withholds the
//! answer.
//!
//! A preflight carries no write key, so it is granted to the origins of all doors together; the answer to the
//! request itself only to the origins of its own door.

use std::sync::{Arc, PoisonError};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::doors::Door;
use super::{PublicState, answer};

/// What a listed origin is granted, for the longest time that any browser honours (Chromium: two hours). The
/// asterisk means every header but `Authorization`, which has to be named.
const GRANTED: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST")),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, *")),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// In a list of origins: every origin.
const ANY: &str = "*";

/// Bytes of the longest possible origin: a host of 253 bytes, with scheme and port.
const LONGEST: usize = 272;

/// The origin of the page that asks, if a browser sends one. Copied, because a slice would keep the whole
/// head in memory while the body is awaited ([P6](crate::design::P6)).
pub(super) fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN).filter(|origin| origin.len() <= LONGEST)?;
    HeaderValue::from_bytes(origin.as_bytes()).ok()
}

/// `OPTIONS`, which a browser sends before a request that a page could not send without JavaScript.
pub(super) async fn preflight(State(state): State<Arc<PublicState>>, request: Request) -> Response {
    let headers = request.headers();
    let asks = headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let asking = origin(headers).filter(|_| asks && state.doors.have_write_keys());
    let origin = match asking {
        Some(origin) if state.doors.some_page_may_read(&origin) => origin,
        Some(origin) => {
            state.says_unlisted(&origin);
            let refusal = answer::unlisted(&state, &request);
            let mut response = ([(header::ALLOW, "POST")], refusal).into_response();
            vary(response.headers_mut(), &state);
            return response;
        }
        None => {
            let refusal = answer::method_not_allowed(State(state), request).await;
            return ([(header::ALLOW, "POST")], refusal).into_response();
        }
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    grant(response.headers_mut(), origin);
    response.headers_mut().extend(GRANTED.map(|(name, value)| (Some(name), value)));
    response
}

/// Lets the page read the answer if an origin list allows it: that of `door`, or of any door if it is not
/// known.
pub(super) fn let_read(
    response: &mut Response,
    origin: Option<HeaderValue>,
    door: Option<&Door>,
    state: &PublicState,
) {
    vary(response.headers_mut(), state);
    let Some(origin) = origin else { return };
    let may = match door {
        Some(door) => may_read(&door.cors_origins, &origin),
        None => state.doors.some_page_may_read(&origin),
    };
    if may {
        grant(response.headers_mut(), origin);
        let exposed = HeaderValue::from_static("retry-after");
        response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

/// Whether this list of origins lets a page of this origin read answers.
pub(super) fn may_read(origins: &[String], origin: &HeaderValue) -> bool {
    origins.iter().any(|one| one == ANY || one.as_bytes() == origin.as_bytes())
}

/// Tells caches that answers differ by origin, if any do; also on answers that grant nothing.
pub(super) fn vary(headers: &mut HeaderMap, state: &PublicState) {
    if state.doors.some_page_may_be_listed() {
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
}

impl PublicState {
    /// Logs that a page asked whose origin is not listed: at most once a minute, because anybody can ask.
    fn says_unlisted(&self, origin: &HeaderValue) {
        let due = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).more(1);
        let Some(count) = due else { return };
        let origin = origin.to_str().ok().and_then(shown);
        tracing::warn!(
            count,
            origin,
            remedy = "if the page is yours, add its origin to segment.cors_origins",
            "CORS preflight requests were refused: segment.cors_origins does not list the origin \
             of the page"
        );
    }
}

/// An origin in the form that browsers send; any other text a stranger may have chosen freely.
fn shown(origin: &str) -> Option<&str> {
    let (scheme, rest) = origin.split_once("://")?;
    let is_of = |text: &str, others: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    (is_of(scheme, "+-.") && is_of(rest, "-.:[]_")).then_some(origin)
}

fn grant(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;
    use crate::receive::fake::text_of;
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS, entrance};
    use crate::receive::{Credentials, Doors, Entrance, PublicState, Readiness, router};
    use crate::secret::Secret;

    const SHOP: &str = "https://shop.example.com";
    const OTHER: &str = "https://other.example.com";

    /// `shop` lets one page read its answers, `any` every page, and `none` no page.
    fn public(with: &[&str]) -> Router {
        let of = |name: &&str| Entrance {
            credentials: Credentials {
                write_keys: vec![Secret::new(*name)],
                ..Credentials::default()
            },
            cors_origins: match *name {
                "shop" => vec![SHOP.to_owned()],
                "any" => vec!["*".to_owned()],
                _ => Vec::new(),
            },
            ..entrance(name)
        };
        let ledger = Arc::new(FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() }));
        let doors = Doors::new(with.iter().map(of));
        router(PublicState::new(doors, ledger, LIMITS, Readiness::default(), Arc::default()))
    }

    async fn asked(router: &Router, request: http::request::Builder, body: &str) -> Response {
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        router.clone().oneshot(request).await.expect("infallible")
    }

    fn granted(response: &Response) -> Option<&str> {
        let origin = response.headers().get("access-control-allow-origin")?;
        assert_eq!(response.headers()["vary"], "origin", "a cache must not give it to others");
        origin.to_str().ok()
    }

    #[tokio::test]
    async fn a_preflight_is_granted_to_the_pages_of_all_doors_together() {
        // doors, origin, granted
        let table: [(&[&str], &str, bool); 6] = [
            (&["none", "shop"], SHOP, true),
            (&["none", "shop"], OTHER, false),
            (&["none", "shop"], "http://shop.example.com", false),
            (&["shop", "any"], OTHER, true),
            (&["any"], "null", true),
            (&["none"], SHOP, false),
        ];
        for (doors, origin, is_granted) in table {
            for path in ["/v1/t", "/v1/b/", "/v1/batch", "/v1/import", "/v1/identify", "/v1/m"] {
                let request = http::Request::options(path).header("origin", origin);
                let request = request
                    .header("access-control-request-method", "POST")
                    .header("access-control-request-headers", "authorization,content-type");
                let response = asked(&public(doors), request, "").await;
                let status = if is_granted { 204 } else { 405 };
                assert_eq!(response.status(), status, "{doors:?} {origin} {path}");
                assert_eq!(granted(&response), is_granted.then_some(origin));
                if is_granted {
                    let allowed = &response.headers()["access-control-allow-headers"];
                    assert_eq!(allowed, "authorization, *");
                    continue;
                }
                assert_eq!(response.headers()["allow"], "POST");
                let is_configured = doors != ["none"];
                let vary = response.headers().get("vary").map(HeaderValue::as_bytes);
                assert_eq!(vary, is_configured.then_some(&b"origin"[..]), "{doors:?} {path}");
                let text = text_of(response).await;
                assert!(text.contains("origin_not_listed: no destination"), "{text}");
            }
        }
        let plain = asked(&public(&["shop"]), http::Request::get("/v1/t"), "").await;
        assert_eq!(plain.status(), 405);
        assert_eq!(plain.headers()["vary"], "origin");
        let no_preflight = http::Request::options("/v1/t").header("origin", SHOP);
        assert_eq!(asked(&public(&["shop"]), no_preflight, "").await.status(), 405);
        let webhook = http::Request::options("/segment/shop").header("origin", SHOP);
        let webhook = webhook.header("access-control-request-method", "POST");
        assert_eq!(asked(&public(&["shop"]), webhook, "").await.status(), 405);
    }

    #[test]
    fn only_what_is_written_as_an_origin_is_shown() {
        for origin in [SHOP, "capacitor://localhost", "http://[::1]:8080", "chrome-extension://ab"]
        {
            assert_eq!(shown(origin), Some(origin));
        }
        for text in ["null", "", "https://", "://x", "https://ada@x", "https://x/secret", "a b://x"]
        {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_be_read_by_the_pages_of_its_own_door() {
        let public = public(&["none", "shop", "any"]);
        // the key in the body, origin, status, whether the page may read the answer
        let table = [
            ("shop", SHOP, 200, true),
            ("shop", OTHER, 200, false),
            ("any", OTHER, 200, true),
            ("none", SHOP, 200, false),
            // with a wrong key, the door is not known
            ("nobody", OTHER, 401, true),
        ];
        for (key, origin, status, may_read) in table {
            let body = format!("{{\"userId\":\"ada\",\"writeKey\":\"{key}\"}}");
            let request = http::Request::post("/v1/t").header("origin", origin);
            let response = asked(&public, request, &body).await;
            assert_eq!(response.status(), status, "{key} {origin}");
            assert_eq!(granted(&response), may_read.then_some(origin), "{key} {origin}");
            let alone = asked(&public, http::Request::post("/v1/t"), &body).await;
            for response in [&response, &alone] {
                assert_eq!(response.headers()["vary"], "origin", "{key} {origin}");
            }
            assert_eq!((alone.status().as_u16(), granted(&alone)), (status, None), "no page asks");
        }
    }
}

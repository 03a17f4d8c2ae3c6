//! CORS for Segment's web application, so that it can call `/actions` from a browser if the operator
//! has enabled it (`admin.segment_app`): cross-origin requests, their preflights, and Chrome's for
//! private networks.
//!
//! All other routes of the admin listener stay closed to web pages. Tokens are still required where
//! they are configured, except for preflights, which cannot carry one.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// The origins of Segment's application, in the US and in the EU.
const ORIGINS: [&str; 2] = ["https://app.segment.com", "https://eu1.app.segment.com"];

/// How long a browser may cache the answer to a preflight.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

/// Admits Segment's application to routes that check `Origin` themselves.
pub fn admit_to(router: Router) -> Router {
    router.layer(middleware::from_fn(admit))
}

async fn admit(mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin = origin.filter(|origin| ORIGINS.iter().any(|known| origin == known));
    let Some(origin) = origin.filter(|_| request.uri().path().starts_with("/actions/")) else {
        return next.run(request).await;
    };
    let asks_leave = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if request.method() == Method::OPTIONS && asks_leave {
        leave(request.headers()).into_response()
    } else {
        // It is admitted, so the routes behind see a request that comes from no web page.
        request.headers_mut().remove(header::ORIGIN);
        request.headers_mut().remove("sec-fetch-site");
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    response
}

fn leave(asked: &HeaderMap) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    let mut allow = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    allow(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST");
    allow(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type");
    if asked.contains_key("access-control-request-private-network") {
        allow(HeaderName::from_static("access-control-allow-private-network"), "true");
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    (StatusCode::NO_CONTENT, headers)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let behind = async |headers: HeaderMap| {
            if headers.contains_key("origin") { StatusCode::FORBIDDEN } else { StatusCode::OK }
        };
        let behind = post(behind);
        let router =
            Router::new().route("/actions/syncAudience", behind.clone()).route("/api/v1/x", behind);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        admit_to(router).oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn only_segments_application_has_leave_and_only_for_the_actions() {
        let (path, other) = ("/actions/syncAudience", "/api/v1/x");
        let (us, eu) = (ORIGINS[0], ORIGINS[1]);
        // method, path, origin, status, whether the page may read it
        let table = [
            ("POST", path, us, 200, true),
            ("POST", path, eu, 200, true),
            ("OPTIONS", path, us, 204, true),
            ("POST", path, "https://app.segment.com.attacker.example", 403, false),
            ("POST", path, "http://app.segment.com", 403, false),
            ("POST", path, "https://app.segment.com:444", 403, false),
            ("POST", path, "null", 403, false),
            ("OPTIONS", path, "https://attacker.example", 405, false),
            ("POST", other, us, 403, false),
            ("OPTIONS", other, us, 405, false),
        ];
        for (method, path, origin, status, readable) in table {
            let headers = [("origin", origin), ("access-control-request-method", "POST")];
            let response = ask(method, path, &headers).await;
            assert_eq!(response.status().as_u16(), status, "{method} {path} {origin}");
            let allowed = response.headers().get("access-control-allow-origin");
            assert_eq!(allowed.map(HeaderValue::as_bytes), readable.then_some(origin.as_bytes()));
        }
    }

    #[tokio::test]
    async fn a_preflight_is_told_what_it_asks_for() {
        let asked = [
            ("origin", ORIGINS[0]),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
            ("access-control-request-private-network", "true"),
        ];
        let response = ask("OPTIONS", "/actions/syncAudience", &asked).await;
        for (name, value) in [
            ("access-control-allow-methods", "GET, POST"),
            ("access-control-allow-headers", "authorization, content-type"),
            ("access-control-allow-private-network", "true"),
            ("vary", "origin"),
        ] {
            assert_eq!(response.headers()[name], value, "{name}");
        }
        let response = ask("OPTIONS", "/actions/syncAudience", &asked[..3]).await;
        assert!(!response.headers().contains_key("access-control-allow-private-network"));
    }
}

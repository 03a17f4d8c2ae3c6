//! The dashboard: `/` of the admin listener, for a browser.
//!
//! It consists of static files in the binary. They use `/status` and `/api/v1/…` like any other client
//! and contain no data of the daemon: even with tokens configured, the files are served to everyone,
//! while all data requires the token, which the page asks for.
//!
//! # What always holds
//! * The page sends requests to this listener only, and runs no script that is not one of its files:
//!   the content security policy enforces it (tests/it/dashboard.rs fails on any violation of it).
//! * No other page can frame it, and it sends no referrer.
//! * It can be used by keyboard, at widths of 360 and 1440 pixels, in dark and light mode (the same
//!   tests).

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::problem::Problem;

/// Nothing is loaded, run, framed or requested from another origin. Scripts may set styles, but HTML
/// text may not, and no text becomes HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // Revalidated on each use, and answered 304 until the binary changes.
    (header::CACHE_CONTROL, "no-cache"),
];

/// A file of the dashboard.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:expr, $file:literal, $content_type:literal) => {
        Asset {
            path: $path,
            content_type: concat!($content_type, "; charset=utf-8"),
            text: include_str!(concat!("dashboard/assets/", $file)),
        }
    };
    ($file:literal, $content_type:literal) => {
        asset!(concat!("/assets/", $file), $file, $content_type)
    };
}

const ASSETS: [Asset; 25] = [
    asset!("/", "index.html", "text/html"),
    asset!("dashboard.css", "text/css"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("actions.js", "text/javascript"),
    asset!("api.js", "text/javascript"),
    asset!("app.js", "text/javascript"),
    asset!("audiences.js", "text/javascript"),
    asset!("destinations.js", "text/javascript"),
    asset!("dialogs.js", "text/javascript"),
    asset!("live.js", "text/javascript"),
    asset!("manual.css", "text/css"),
    asset!("overview.js", "text/javascript"),
    asset!("parked.js", "text/javascript"),
    asset!("person.js", "text/javascript"),
    asset!("plots.js", "text/javascript"),
    asset!("rejected.js", "text/javascript"),
    asset!("setup.js", "text/javascript"),
    asset!("tester.js", "text/javascript"),
    asset!("words.js", "text/javascript"),
    asset!("vendor/htm.umd.js", "text/javascript"),
    asset!("vendor/preact-hooks.umd.js", "text/javascript"),
    asset!("vendor/preact.min.umd.js", "text/javascript"),
    asset!("vendor/uPlot.iife.min.js", "text/javascript"),
    asset!("vendor/uPlot.min.css", "text/css"),
    asset!("vendor/LICENSES.txt", "text/plain"),
];

/// The page and its files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    files().route("/", get(file))
}

/// The files alone.
pub fn files<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/assets/{*file}", get(file))
}

/// Sets the security headers of a page, with its own content security policy.
pub(super) fn protect(headers: &mut HeaderMap, policy: &'static str) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
}

async fn file(uri: Uri, asked: HeaderMap) -> Result<Response, Problem> {
    let asset = ASSETS.iter().find(|asset| asset.path == uri.path());
    let asset = asset
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the dashboard has no such file"))?;
    let tag = format!("\"{:08x}\"", crc32fast::hash(asset.text.as_bytes()));
    let known = asked.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        asset.text.into_response()
    };
    let headers = response.headers_mut();
    protect(headers, POLICY);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.extend(HeaderValue::try_from(tag).map(|tag| (header::ETAG, tag)));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::manual;

    async fn get(path: &str, tag: Option<&HeaderValue>) -> Response {
        let mut request = Request::get(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Body::empty()).expect("a request");
        router().with_state(()).oneshot(request).await.expect("infallible")
    }

    #[tokio::test]
    async fn every_file_comes_with_the_policy_and_is_sent_once() {
        for asset in ASSETS {
            let response = get(asset.path, None).await;
            let headers = response.headers().clone();
            assert_eq!(response.status(), StatusCode::OK, "{}", asset.path);
            assert_eq!(headers[header::CONTENT_TYPE], asset.content_type);
            for (name, value) in HEADERS {
                assert_eq!(headers[&name], value, "{}", asset.path);
            }
            let again = get(asset.path, Some(&headers[header::ETAG])).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
            assert!(to_bytes(again.into_body(), 1).await.expect("it is empty").is_empty());
        }
        assert_eq!(get("/assets/../dashboard.rs", None).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn what_the_files_say_of_the_manual_is_there() {
        let mut found = 0;
        for asset in ASSETS {
            for link in asset.text.split("\"/manual/").skip(1) {
                let link = link.split('"').next().unwrap_or_default();
                let (topic, anchor) = link.split_once('#').expect("a heading");
                let topic = manual::topic(topic).expect("a page");
                assert!(topic.sections().iter().any(|of| of.anchor == anchor), "{link}");
                found += 1;
            }
        }
        assert!(found > 1, "{found}");
    }

    /// Finds a file that is missing in the list even where there is no browser to test with.
    #[test]
    fn what_the_files_name_is_among_them() {
        let there = |path: &str| ASSETS.iter().any(|asset| asset.path == path);
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("/assets/vendor/")) {
            for line in asset.text.lines() {
                let imported = line.split_once("from \"./").map(|(_, rest)| rest);
                let imported = imported.and_then(|rest| rest.split('"').next());
                if let Some(file) = imported {
                    assert!(there(&format!("/assets/{file}")), "{}: {line}", asset.path);
                }
                for part in line.split("\"/assets/").skip(1) {
                    let file = part.split('"').next().unwrap_or_default();
                    assert!(there(&format!("/assets/{file}")), "{}: {line}", asset.path);
                }
            }
        }
    }
}

//! Calls to LaunchDarkly: the connection, the headers and the timeouts.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::Response;
use url::Url;

use super::answer::{Answer, Fate, Outcome, body_matters, classify};
use super::connection::{self, ClientError};
use super::limits::RateLimits;
use super::wire;
use crate::certificate;
use crate::membership::AudienceId;
use crate::secret::Secret;

/// The W3C trace context header.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The one call that fills synced segments.
#[async_trait]
pub trait Api: Send + Sync + fmt::Debug {
    /// Makes one call with a body of [`wire::encode`]. Ends within the request timeout.
    ///
    /// Dropping the future closes the connection, but LaunchDarkly may already have the call: the
    /// caller must treat this as an answer with [`Fate::Open`].
    ///
    /// `audience` is the audience of the members in the body, for tracing and tests.
    async fn send(&self, audience: &AudienceId, body: Bytes) -> Answer;
}

/// The endpoint that a destination's calls go to, and how to reach it.
#[derive(Clone)]
pub struct Endpoint {
    /// May have a path, to which LaunchDarkly's route is appended; query and fragment are dropped.
    pub base_url: Url,
    /// Identifies the project and environment.
    pub client_side_id: String,
    /// Sent verbatim, without `Bearer`, as LaunchDarkly wants it.
    pub service_token: Secret,
    /// The only proxy that is used: proxy variables of the process environment are ignored.
    pub proxy: Option<Url>,
    /// PEM certificates to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Timeout of a whole call, from connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// Most idle connections kept open: as many as there may be calls in flight.
    pub connections: usize,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the URLs are left out: they can carry passwords
        f.debug_struct("Endpoint")
            .field("host", &self.base_url.host_str())
            .field("client_side_id", &self.client_side_id)
            .field("ca_file", &self.ca_file)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

/// Idle connections are closed before LaunchDarkly's load balancers close them: a request sent on a
/// connection that is just being closed would have an open fate.
const IDLE_CONNECTION_LIFETIME: Duration = Duration::from_secs(45);
/// Detects between calls that the peer of a connection is gone.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
/// Most bytes of an answer's body that are read.
const BODY_BYTES: usize = 64 * 1024;
/// Longest wait for the rest of an answer whose status is a success or an outage. The rest is read only
/// so that the connection can be reused, and for the message of an outage.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// Makes calls to one endpoint. Clones share a connection pool.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    environment: Arc<str>,
    service_token: Secret,
    /// Returns the trace context of the running task, if there is one.
    traceparent: fn() -> Option<HeaderValue>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares a client without connecting. Reads `ca_file`, so it may block for a moment.
    pub fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let url = audiences_url(&endpoint.base_url).ok_or(ClientError::BaseUrl)?;
        let http = connection::to([&url], endpoint.proxy.as_ref(), endpoint.ca_file.as_deref())?
            .default_headers(headers(&endpoint.service_token)?)
            .retry(reqwest::retry::never())
            // shorter than the whole timeout, so that an unreachable host can be told from one that
            // does not answer
            .connect_timeout(endpoint.request_timeout / 2)
            .timeout(endpoint.request_timeout)
            .pool_max_idle_per_host(endpoint.connections)
            .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
            .tcp_keepalive(TCP_KEEPALIVE)
            .tcp_nodelay(true)
            .build()
            .map_err(ClientError::Build)?;
        let environment = endpoint.client_side_id.into();
        let service_token = endpoint.service_token;
        Ok(Self { http, url, environment, service_token, traceparent: || None })
    }

    /// The same client, but each call carries the `traceparent` returned at that time.
    #[must_use]
    pub fn in_traces(self, traceparent: fn() -> Option<HeaderValue>) -> Self {
        Self { traceparent, ..self }
    }

    /// The URL of its calls, without user name or password.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The client-side ID that every body must name.
    #[must_use]
    pub fn client_side_id(&self) -> &str {
        &self.environment
    }
}

#[async_trait]
impl Api for Client {
    async fn send(&self, _: &AudienceId, body: Bytes) -> Answer {
        let mut call = self.http.post(self.url.clone()).body(body);
        if let Some(context) = (self.traceparent)() {
            call = call.header(TRACEPARENT, context);
        }
        match call.send().await {
            Ok(response) => read(response, &self.service_token).await,
            Err(error) => {
                Answer { outcome: failure(&error), limits: RateLimits::default(), status: None }
            }
        }
    }
}

fn audiences_url(base: &Url) -> Option<Url> {
    let usable = matches!(base.scheme(), "http" | "https")
        && base.has_host()
        && base.username().is_empty()
        && base.password().is_none();
    usable.then(|| connection::below(base, wire::PATH[1..].split('/')))
}

fn headers(token: &Secret) -> Result<HeaderMap, ClientError> {
    let token = connection::token_header(token)?;
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, token),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("ld-api-version"), HeaderValue::from_static(wire::API_VERSION)),
    ]))
}

async fn read(mut response: Response, service_token: &Secret) -> Answer {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    if status.is_client_error() {
        collect(&mut response, &mut body).await;
    } else if status.is_success() || body_matters(status) {
        // status and headers decide; the body only adds a message, or is drained so that the connection
        // can be reused
        let drained = collect(&mut response, &mut body);
        tokio::time::timeout(DRAIN_TIME, drained).await.ok();
    }
    if quotes(&body, service_token) {
        body.clear(); // a proxy that echoes the request: none of it may be kept (P8)
    }
    classify(status, &headers, &body)
}

fn quotes(body: &[u8], secret: &Secret) -> bool {
    let secret = secret.expose().as_bytes();
    !secret.is_empty() && body.windows(secret.len()).any(|part| part == secret)
}

/// Reads the body up to the limit, an error or the request timeout.
async fn collect(response: &mut Response, body: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = BODY_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == BODY_BYTES {
            return;
        }
    }
}

/// The outcome of a call that was not answered.
fn failure(error: &reqwest::Error) -> Outcome {
    let (what, fate) = if error.is_connect() {
        ("cannot connect", Fate::Over)
    } else if error.is_timeout() {
        ("no answer in time", Fate::Open)
    } else {
        ("the connection ended before the answer", Fate::Open)
    };
    if let Some(words) = certificate::words(error, "launchdarkly.ca_file") {
        return Outcome::Unavailable { cause: format!("{what}: {words}"), fate, refusal: None };
    }
    // the outer errors contain the URL or repeat each other; the innermost says what happened
    let mut innermost = error.source();
    while let Some(source) = innermost.and_then(std::error::Error::source) {
        innermost = Some(source);
    }
    let cause = match innermost {
        Some(source) if !error.is_timeout() => format!("{what}: {source}"),
        _ => what.to_owned(),
    };
    Outcome::Unavailable { cause, fate, refusal: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base_url: &str) -> Endpoint {
        Endpoint {
            base_url: base_url.parse().expect("test URLs are valid"),
            client_side_id: "env1".into(),
            service_token: Secret::new("api-hush"),
            proxy: None,
            ca_file: None,
            request_timeout: Duration::from_secs(1),
            connections: 4,
        }
    }

    #[test]
    fn the_route_stands_below_the_base_url() {
        let table = [
            (
                "https://app.launchdarkly.com",
                Some("https://app.launchdarkly.com/api/v2/segment-targets/segment-audiences"),
            ),
            (
                "https://app.launchdarkly.com/",
                Some("https://app.launchdarkly.com/api/v2/segment-targets/segment-audiences"),
            ),
            (
                "http://127.0.0.1:9/ld",
                Some("http://127.0.0.1:9/ld/api/v2/segment-targets/segment-audiences"),
            ),
            (
                "http://127.0.0.1:9/ld/?q=1#f",
                Some("http://127.0.0.1:9/ld/api/v2/segment-targets/segment-audiences"),
            ),
            ("ftp://example.com", None),
            ("mailto:ada@example.com", None),
            ("https://user@example.com", None),
            ("https://:pass@example.com", None),
        ];
        for (base, expected) in table {
            let url = audiences_url(&base.parse().expect("test URLs are valid"));
            assert_eq!(url.as_ref().map(Url::as_str), expected, "{base}");
        }
    }

    #[test]
    fn faults_of_the_configuration_are_found_before_the_first_call() {
        let ca = tempfile::NamedTempFile::new().expect("the temporary directory is writable");
        std::fs::write(ca.path(), "not a certificate").expect("the file was just made");
        let table: [(Endpoint, &str); 5] = [
            (
                Endpoint { service_token: Secret::new("hush\n"), ..endpoint("http://[::1]") },
                "the service token contains a character that cannot be sent in a header",
            ),
            (
                endpoint("ftp://example.com"),
                "the base URL must be http or https, with a host and without a user name",
            ),
            (
                Endpoint {
                    proxy: Some("mailto:hush".parse().expect("a URL")),
                    ..endpoint("http://[::1]")
                },
                "the proxy's URL cannot be used",
            ),
            (
                Endpoint { ca_file: Some("/none/hush.pem".into()), ..endpoint("http://[::1]") },
                "the certificates in /none/hush.pem cannot be read",
            ),
            (
                Endpoint { ca_file: Some(ca.path().into()), ..endpoint("http://[::1]") },
                &format!("{} holds no PEM certificate that can be used", ca.path().display()),
            ),
        ];
        for (endpoint, expected) in table {
            let error = Client::new(endpoint).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn neither_token_nor_password_is_printed() {
        let endpoint = Endpoint {
            proxy: Some("http://user:hush@proxy".parse().expect("a URL")),
            ..endpoint("https://user:hush@example.com/")
        };
        assert!(!format!("{endpoint:?}").contains("hush"));
        let client = Client::new(self::endpoint("http://127.0.0.1:9")).expect("a good endpoint");
        assert!(!format!("{client:?} {:?}", client.http).contains("hush"));
    }
}

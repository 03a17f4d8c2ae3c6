//! `[destinations.<name>.launchdarkly]`: the environment, its token, and how to connect.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::secrets::{self, looks_like_a_secret};
use super::section::Section;
use super::source::quoted;
use crate::launchdarkly::Endpoint;
use crate::secret::Secret;

const BASE_URL: &str = "https://app.launchdarkly.com";
const CLIENT_SDK_URL: &str = "https://clientsdk.launchdarkly.com";

/// One LaunchDarkly environment, and how to connect to it.
#[derive(Clone, PartialEq, Eq)]
pub struct LaunchDarklySection {
    /// LaunchDarkly's `environmentId`, which identifies a project and environment. Opaque and not empty.
    pub client_side_id: String,
    /// Sent verbatim, to `base_url` only; a valid header value.
    pub service_token: Secret,
    /// The project's name, for people.
    pub project: Option<String>,
    /// The environment's name, for people.
    pub environment: Option<String>,
    /// http or https; without query, user name or trailing slash (except that of an empty path).
    pub base_url: Url,
    /// Like `base_url`. Used by the credential check only; the token is never sent there.
    pub client_sdk_url: Url,
    /// A proxy for all requests to LaunchDarkly; may hold a password.
    pub proxy: Option<Url>,
    /// A PEM file of additional trusted CA certificates; readable at the time the configuration was read.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for LaunchDarklySection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchDarklySection")
            .field("client_side_id", &self.shown_client_side_id())
            .field("project", &self.project)
            .field("environment", &self.environment)
            .field("base_url", &self.base_url.as_str())
            .field("client_sdk_url", &self.client_sdk_url.as_str())
            .field("proxy", &self.proxy.as_ref().map(|_| "***"))
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

impl LaunchDarklySection {
    /// The endpoint for calls. `request_timeout` and `connections` come from the destination's `delivery`.
    #[must_use]
    pub fn endpoint(&self, request_timeout: Duration, connections: usize) -> Endpoint {
        Endpoint {
            base_url: self.base_url.clone(),
            client_side_id: self.client_side_id.clone(),
            service_token: self.service_token.clone(),
            proxy: self.proxy.clone(),
            ca_file: self.ca_file.clone(),
            request_timeout,
            connections,
        }
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let client_side_id = read_client_side_id(&mut section);
        let service_token = read_service_token(&mut section);
        let launchdarkly = Self {
            client_side_id: client_side_id.unwrap_or_default(),
            service_token: service_token.unwrap_or_else(|| Secret::new("")),
            project: section.text("project"),
            environment: section.text("environment"),
            base_url: read_url(&mut section, "base_url", BASE_URL),
            client_sdk_url: read_url(&mut section, "client_sdk_url", CLIENT_SDK_URL),
            proxy: read_proxy(&mut section),
            ca_file: read_ca_file(&mut section),
        };
        section.finish();
        launchdarkly
    }

    /// The client-side ID for printing; masked if it looks like a credential put there by mistake.
    #[must_use]
    pub fn shown_client_side_id(&self) -> &str {
        if looks_like_a_secret(&self.client_side_id) { "***" } else { &self.client_side_id }
    }

    /// Whether both name the same environment: two destinations on one environment would write conflicting
    /// members to the same segments.
    pub(super) fn is_same_environment(&self, other: &Self) -> bool {
        // A faulty client-side ID reads as empty.
        !self.client_side_id.is_empty()
            && self.client_side_id == other.client_side_id
            && self.base_url == other.base_url
    }
}

fn read_client_side_id(section: &mut Section<'_>) -> Option<String> {
    if !section.has("client_side_id") {
        section.missing("client_side_id", None, "");
    }
    let id = section.text("client_side_id")?;
    if looks_like_a_secret(&id) {
        let text = "looks like a key or a token; the client-side ID is a different credential of \
                    the environment, without a prefix";
        section.warn("client_side_id", text);
    } else if secrets::is_placeholder(&id) {
        let text = "is the placeholder from the documentation; replace it with yours";
        section.warn("client_side_id", text);
    } else if id.chars().any(char::is_whitespace) {
        section.warn("client_side_id", "has white space in it");
    }
    Some(id)
}

fn read_service_token(section: &mut Section<'_>) -> Option<Secret> {
    let token = secrets::one(section, ("service_token", "service_token_file"))?;
    let text = token.expose();
    if text.chars().any(char::is_control) {
        let problem = "contains a line break or another control character, so it cannot be sent \
                       in a header";
        section.fault("service_token", None, problem);
    } else if text.starts_with("sdk-") || text.starts_with("mob-") {
        let text = "looks like an SDK or mobile key; an API access token of a service account is \
                    expected";
        section.warn("service_token", text);
    }
    Some(token)
}

/// Reads a URL. Faults never show its value, which may hold a password.
pub(super) fn read_url(section: &mut Section<'_>, key: &'static str, default: &str) -> Url {
    let fallback = || Url::parse(default).expect("the built-in URLs are well-formed");
    let Some(text) = section.text(key) else { return fallback() };
    let mut url = match parse_web_url(&text) {
        Ok(url) => url,
        Err(problem) => {
            section.fault(key, None, problem);
            return fallback();
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        section.fault(key, None, "must not contain a user name or password");
        return fallback();
    }
    if url.query().is_some() || url.fragment().is_some() {
        section.fault(key, None, "must not have a query or fragment");
        return fallback();
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        let text = "uses http: everything sent there, tokens included, can be read on the way";
        section.warn(key, text);
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

fn read_proxy(section: &mut Section<'_>) -> Option<Url> {
    let exposed = section.exposed("proxy");
    let text = section.text("proxy")?;
    let proxy =
        parse_web_url(&text).map_err(|problem| section.fault("proxy", None, problem)).ok()?;
    if let Some(exposed) = exposed.filter(|_| proxy.password().is_some()) {
        section.warn("proxy", &format!("has a password, and {exposed}"));
    }
    Some(proxy)
}

fn parse_web_url(text: &str) -> Result<Url, String> {
    let expected = "expected an http or https URL, as in https://app.launchdarkly.com";
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}); {expected}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(format!("has the wrong scheme; {expected}")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

fn read_ca_file(section: &mut Section<'_>) -> Option<PathBuf> {
    let named = section.path("ca_file")?;
    let shown = || Some(quoted(&named.path));
    match section.read("ca_file", &named.path) {
        Ok(pem) if pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") => {}
        Ok(_) => section.fault("ca_file", shown(), "holds no PEM certificate"),
        Err(error) => section.fault("ca_file", shown(), named.cannot_be_read(&error)),
    }
    Some(named.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_fine_to_loopback_only() {
        let cases = [
            ("http://localhost:1", true),
            ("http://127.0.0.1:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ];
        for (url, expected) in cases {
            assert_eq!(is_loopback(&Url::parse(url).expect(url)), expected, "{url}");
        }
    }
}

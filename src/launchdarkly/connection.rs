//! The way to LaunchDarkly: nowhere but there, through nothing but what is configured.

use std::path::{Path, PathBuf};

use http::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder, Proxy};
use url::Url;

use super::wire;
use crate::regular_file;
use crate::secret::Secret;

/// Why no client could be made. All of it is configuration.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not http(s), without a host, or with a user name, which would take the token's place.
    #[error("the base URL must be http or https, with a host and without a user name")]
    BaseUrl,
    /// The token itself is not part of the text.
    #[error("the service token contains a character that cannot be sent in a header")]
    Token,
    /// The proxy's URL is not part of the text: it can carry a password.
    #[error("the proxy's URL cannot be used")]
    Proxy,
    /// The file could not be read.
    #[error("the certificates in {} cannot be read", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read, but holds nothing to trust.
    #[error("{} holds no PEM certificate that can be used", .0.display())]
    Certificates(PathBuf),
    /// TLS could not be set up: most often the system has no certificates and none are configured.
    #[error("the HTTP client cannot be built")]
    Build(#[source] reqwest::Error),
}

/// What every client of this crate that asks LaunchDarkly something begins with: `urls` are all it
/// will ask. Reads `ca_file`, so it may block for a moment.
pub(super) fn to<'a>(
    urls: impl IntoIterator<Item = &'a Url>,
    proxy: Option<&'a Url>,
    ca_file: Option<&Path>,
) -> Result<ClientBuilder, ClientError> {
    // an error only says that it was installed before
    rustls::crypto::ring::default_provider().install_default().ok();

    let mut builder = reqwest::Client::builder()
        .user_agent(wire::USER_AGENT)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy();
    if let Some(proxy) = proxy {
        builder = builder.proxy(Proxy::all(proxy.clone()).map_err(|_| ClientError::Proxy)?);
    }
    let certificates = certificates(ca_file)?;
    Ok(if urls.into_iter().chain(proxy).all(|url| url.scheme() == "http") {
        // no TLS will be spoken: works on a system without any certificates
        builder.tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    })
}

/// The URL of a route below a base that may have a path of its own; its query is dropped.
pub(super) fn below<'a>(base: &Url, segments: impl IntoIterator<Item = &'a str>) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        // an http or https URL always has segments
        path.pop_if_empty().extend(segments);
    }
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// The service token as it is sent: verbatim, and never printed.
pub(super) fn token_header(token: &Secret) -> Result<HeaderValue, ClientError> {
    let mut header =
        HeaderValue::from_bytes(token.expose().as_bytes()).map_err(|_| ClientError::Token)?;
    header.set_sensitive(true);
    Ok(header)
}

fn certificates(file: Option<&Path>) -> Result<Vec<Certificate>, ClientError> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let pem = regular_file::read(path)
        .map_err(|source| ClientError::CaFile { path: path.to_owned(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ClientError::Certificates(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_appended_to_the_base_and_escaped() {
        let cases = [
            ("https://a.b", "id", "https://a.b/sdk/id"),
            ("https://a.b/", "id", "https://a.b/sdk/id"),
            ("https://a.b/ld", "id", "https://a.b/ld/sdk/id"),
            ("https://a.b/ld/?q=1#f", "../x?y", "https://a.b/ld/sdk/..%2Fx%3Fy"),
        ];
        for (base, id, expected) in cases {
            let base = Url::parse(base).expect("the table has URLs");
            assert_eq!(below(&base, ["sdk", id]).as_str(), expected);
        }
    }
}

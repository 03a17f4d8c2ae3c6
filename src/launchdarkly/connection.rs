//! Connections to LaunchDarkly: to the configured host only, through the configured proxy only.

use std::path::{Path, PathBuf};

use http::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder, Proxy};
use url::Url;

use super::wire;
use crate::regular_file;
use crate::secret::Secret;

/// Why a client could not be made: always a fault of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not http(s), no host, or a user name or password, which would replace the token in
    /// `Authorization`.
    #[error("the base URL must be http or https, with a host and without a user name")]
    BaseUrl,
    /// The message does not contain the token.
    #[error("the service token contains a character that cannot be sent in a header")]
    Token,
    /// The message does not contain the proxy's URL, which may contain a password.
    #[error("the proxy's URL cannot be used")]
    Proxy,
    /// The file could not be read.
    #[error("the certificates in {} cannot be read", path.display())]
    CaFile {
        /// The path of the file.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: std::io::Error,
    },
    /// The file was read, but contains no usable certificate.
    #[error("{} holds no PEM certificate that can be used", .0.display())]
    Certificates(PathBuf),
    /// TLS could not be set up, usually because the system has no certificates and none are configured.
    #[error("the HTTP client cannot be built")]
    Build(#[source] reqwest::Error),
}

/// The builder of every client for LaunchDarkly; `urls` are all that it will request. Reads `ca_file`,
/// so it may block for a moment.
pub(super) fn to<'a>(
    urls: impl IntoIterator<Item = &'a Url>,
    proxy: Option<&'a Url>,
    ca_file: Option<&Path>,
) -> Result<ClientBuilder, ClientError> {
    // an error only means that a provider is installed already
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
        // no TLS will be used, so this must work on a system without certificates
        builder.tls_certs_only(certificates)
    } else {
        builder.tls_certs_merge(certificates)
    })
}

/// The URL of a route below a base URL, which may have a path of its own; its query and fragment are
/// dropped.
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

/// The `Authorization` header: the token verbatim, marked as sensitive so that it is never printed.
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

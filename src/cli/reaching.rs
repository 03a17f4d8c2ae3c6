//! How commands connect to the daemon: directly, and over TLS if the listener speaks it.
//!
//! The commands read the daemon's own configuration, so they know its certificate. At any address other
//! than a loopback one they accept only that certificate, whatever names are in it. A loopback address is
//! trusted as it is, as it would be without TLS. If the listener demands client certificates, they present
//! the listener's own certificate, which it accepts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use url::Url;

use super::{to_the_daemon, unreached};
use crate::receive::tls::{TlsFiles, chain_of};

/// A client and the listener that it connects to.
#[derive(Debug)]
pub(super) struct Reached {
    pub client: reqwest::Client,
    /// The root URL of the listener.
    pub url: Url,
}

/// What an answer must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing; anyone at the address may answer. For requests that carry no secret.
    Address,
    /// That it comes from the holder of the listener's certificate, unless the address is a loopback one.
    Certificate,
}

/// A client for the listener at `address`; `patience` is the timeout of a whole request.
pub(super) fn reach(
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    trust: Trust,
    patience: Duration,
) -> Result<Reached, String> {
    let address = reachable(address);
    let mut client = to_the_daemon(patience);
    let mut scheme = "http";
    if let Some(files) = tls {
        scheme = "https";
        let trust = if address.ip().is_loopback() { Trust::Address } else { trust };
        client = client.tls_backend_preconfigured(speaker(files, trust)?);
    }
    let url = format!("{scheme}://{address}/").parse().map_err(|_| "it is no address".to_owned());
    Ok(Reached { client: client.build().map_err(unreached)?, url: url? })
}

fn speaker(files: &TlsFiles, trust: Trust) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let only = match trust {
        Trust::Address => None,
        Trust::Certificate => Some(files.certificate().map_err(|fault| {
            format!("{} {}", files.certificate_file.display(), chain_of(&fault))
        })?),
    };
    let verifier = Arc::new(Known { only, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    // Unusable files are ignored here: the listener may not ask for a certificate.
    let identity = files.identity().ok().filter(|_| files.client_ca_file.is_some());
    let Some((chain, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("{}: {error}", files.key_file.display()))
}

/// The address to connect to: loopback for a listener that is bound to all addresses.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A verifier that accepts either one certificate or any; the peer has to prove that it has the private
/// key.
#[derive(Debug)]
struct Known {
    only: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.only.as_ref().is_some_and(|only| only != end_entity) {
            let other = "it presents a different certificate than certificate_file; if that file \
                         has just changed, the daemon has not read it yet, or its log says why it \
                         was rejected";
            return Err(rustls::Error::General(other.to_owned()));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_asked_at_home() {
        let cases = [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ];
        for (listening, asked) in cases {
            let listening = listening.parse().expect("the table has addresses");
            assert_eq!(reachable(listening).to_string(), asked);
        }
    }

    #[test]
    fn of_a_listener_only_its_own_certificate_counts() {
        let provider = Arc::new(ring::default_provider());
        let [own, other] = [b"own", b"oth"].map(|der| CertificateDer::from(der.to_vec()));
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let takes = |only: Option<&CertificateDer<'static>>, shown| {
            let known = Known { only: only.cloned(), provider: Arc::clone(&provider) };
            let now = UnixTime::since_unix_epoch(Duration::ZERO);
            known.verify_server_cert(shown, &[], &name, &[], now).is_ok()
        };
        assert!(takes(Some(&own), &own) && !takes(Some(&own), &other) && takes(None, &other));
    }
}

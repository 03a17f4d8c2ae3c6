//! Encrypted connections to the database: its certificate is verified, always, and one of one's own may be shown.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::ledger::postgres::address::DatabaseTls;
use crate::regular_file;

impl DatabaseTls {
    /// What encrypts connections. The files are read each time, so that a certificate that was renewed is used by the
    /// next connection.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?;
        let builder = match &self.ca_file {
            Some(path) => {
                let mut trusted = RootCertStore::empty();
                for certificate in certificates("sslrootcert", path)? {
                    let taken = trusted.add(certificate);
                    taken.map_err(|_| {
                        bad("sslrootcert", path, "holds a certificate that is no CA's")
                    })?;
                }
                builder.with_root_certificates(trusted)
            }
            None => builder
                .with_platform_verifier()
                .map_err(|error| format!("the CAs of this system cannot be read: {error}"))?,
        };
        let config = match &self.client_files {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let private = PrivateKeyDer::from_pem_slice(&read("sslkey", key)?)
                    .map_err(|_| bad("sslkey", key, "holds no private key in PEM"))?;
                let chain = certificates("sslcert", certificate)?;
                let config = builder.with_client_auth_cert(chain, private);
                config.map_err(|_| {
                    bad("sslkey", key, "is not the key of the certificate in sslcert")
                })?
            }
        };
        Ok(MakeRustlsConnect::new(config))
    }
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(name, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|_| bad(name, path, "holds no certificate in PEM"))?;
    if all.is_empty() { Err(bad(name, path, "holds no certificate in PEM")) } else { Ok(all) }
}

fn read(name: &str, path: &Path) -> Result<Vec<u8>, String> {
    regular_file::read(path)
        .map_err(|error| format!("{name} ({}) cannot be read: {error}", path.display()))
}

fn bad(name: &str, path: &Path, what: &str) -> String {
    format!("{name} ({}) {what}", path.display())
}

//! TLS of a listener: its certificate, its key, and the CAs of its clients' certificates.
//!
//! # What always holds
//! * What is served was checked as a whole: the files can be read, and the key belongs to the certificate.
//!   When the files change they are read again; if they do not match, that is logged as an error and the
//!   previous pair stays in use (tests/it/tls.rs).
//! * If a CA for client certificates is set, a client certificate is required in the handshake: no client
//!   speaks HTTP without one. The listener's own certificate is accepted too, so that commands on this host,
//!   which can read its key, need no certificate of their own.
//! * No text contains a key ([P8](crate::design::P8)).

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_util::sync::CancellationToken;

use crate::regular_file;

/// Interval at which the files are checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// 9999-12-31, as the expiry of a certificate that is good for even longer.
const END_OF_TIME_S: u64 = 253_402_300_799;

/// The PEM files for the TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by the intermediate ones up to a CA that clients know.
    pub certificate_file: PathBuf,
    /// The key of the first certificate.
    pub key_file: PathBuf,
    /// The CAs of client certificates; if set, every client must present one.
    pub client_ca_file: Option<PathBuf>,
}

/// Fingerprint of the files: inode, modification time and length of each that exists.
type Print = Vec<Option<(u64, i64, i64, u64)>>;

/// What is wrong with one of the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// It contains no certificate.
    #[error("holds no PEM certificate")]
    NoCertificate,
    /// It contains no private key.
    #[error("holds no PEM private key")]
    NoKey,
    /// TLS cannot use its content.
    #[error("cannot be used")]
    Unusable(#[source] rustls::Error),
    /// The key does not belong to the certificate.
    #[error("is not the key of the certificate in certificate_file")]
    Mismatch,
    /// It contains no CA by which client certificates could be checked.
    #[error("holds no CA certificate that can be used")]
    NoCa,
}

/// Each fault, with the configuration key that names the file.
pub type TlsFaults = Vec<(&'static str, TlsFault)>;

/// The content of the files, ready to be served.
#[derive(Clone, Debug)]
pub struct Pair {
    server: Arc<ServerConfig>,
    /// Expiry of the first certificate, in seconds since the epoch.
    pub not_after_s: u64,
}

impl TlsFiles {
    /// Reads the files and checks that they match.
    ///
    /// # Errors
    /// All faults of the files.
    pub fn read(&self) -> Result<Pair, TlsFaults> {
        let mut faults = Vec::new();
        let mut noted = |key, fault| faults.push((key, fault));
        let chain = certificates(&self.certificate_file);
        let chain = chain.map_err(|fault| noted("certificate_file", fault)).ok();
        let key = key(&self.key_file).map_err(|fault| noted("key_file", fault)).ok();
        let cas = self.client_ca_file.as_deref().map(certificates).transpose();
        let cas = cas.map_err(|fault| noted("client_ca_file", fault)).ok();
        let (Some(chain), Some(key), Some(cas)) = (chain, key, cas) else { return Err(faults) };
        let not_after_s = not_after_s(&chain[0]).map_err(|fault| vec![("certificate_file", fault)]);
        Ok(Pair { not_after_s: not_after_s?, server: Arc::new(server(chain, key, cas)?) })
    }

    /// The first certificate: the listener's own.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn certificate(&self) -> Result<CertificateDer<'static>, TlsFault> {
        certificates(&self.certificate_file).map(|mut chain| chain.swap_remove(0))
    }

    /// The listener's certificates and key, for a client that presents them.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn identity(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsFault> {
        Ok((certificates(&self.certificate_file)?, key(&self.key_file)?))
    }

    /// All configured files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let cas = self.client_ca_file.as_deref();
        [self.certificate_file.as_path(), &self.key_file].into_iter().chain(cas)
    }

    /// The fingerprint of the files; symbolic links are followed.
    fn print(&self) -> Print {
        let of = |file: Metadata| (file.ino(), file.mtime(), file.mtime_nsec(), file.len());
        self.paths().map(|path| std::fs::metadata(path).ok().map(of)).collect()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let text = regular_file::read(path).map_err(TlsFault::Unreadable)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(TlsFault::NoCertificate)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFault> {
    let text = regular_file::read(path).map_err(TlsFault::Unreadable)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsFault::NoKey)
}

/// The expiry of a certificate. Its chain is not checked: verified as of the end of time, every certificate
/// has expired, and the error says since when.
fn not_after_s(certificate: &CertificateDer<'_>) -> Result<u64, TlsFault> {
    use webpki::{EndEntityCert, Error, KeyUsage};
    let unusable = || TlsFault::Unusable(rustls::CertificateError::BadEncoding.into());
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| unusable())?;
    let end = UnixTime::since_unix_epoch(Duration::from_secs(END_OF_TIME_S));
    let usage = KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], end, usage, None, None) {
        Err(Error::CertExpired { not_after, .. }) => Ok(not_after.as_secs()),
        _ => Ok(END_OF_TIME_S),
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cas: Option<Vec<CertificateDer<'static>>>,
) -> Result<ServerConfig, TlsFaults> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions");
    let builder = if let Some(cas) = cas {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(cas);
        let vouched = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let vouched = vouched.build().ok().filter(|_| added > 0);
        let vouched = vouched.ok_or_else(|| vec![("client_ca_file", TlsFault::NoCa)])?;
        let own = chain[0].clone();
        builder.with_client_cert_verifier(Arc::new(OwnOrVouched { own, vouched }))
    } else {
        builder.with_no_client_auth()
    };
    let mut server = builder.with_single_cert(chain, key).map_err(|error| {
        vec![match error {
            rustls::Error::InconsistentKeys(_) => ("key_file", TlsFault::Mismatch),
            // the certificate was parsed before, so it is the key that is unusable
            error @ rustls::Error::General(_) => ("key_file", TlsFault::Unusable(error)),
            error => ("certificate_file", TlsFault::Unusable(error)),
        }]
    })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

/// The current TLS settings of one listener; clones share them.
#[derive(Clone, Debug)]
pub struct Certificates {
    files: TlsFiles,
    server: Arc<RwLock<Pair>>,
    /// Fingerprint of the files that were read last.
    tried: Arc<Mutex<Print>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// All faults of the files.
    pub fn open(files: TlsFiles) -> Result<Self, TlsFaults> {
        let tried = files.print(); // before they are read, so that no change is missed
        let server = Arc::new(RwLock::new(files.read()?));
        Ok(Self { files, server, tried: Arc::new(Mutex::new(tried)) })
    }

    /// The settings for a connection that begins now.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner).server)
    }

    /// Expiry of the certificate now in use, in seconds since the epoch.
    #[must_use]
    pub fn not_after_s(&self) -> u64 {
        self.server.read().unwrap_or_else(PoisonError::into_inner).not_after_s
    }

    /// Reads the files again; if they are good, new connections use them. May block for a moment.
    pub fn reload(&self) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        *tried = self.files.print();
        let certificate = self.files.certificate_file.display();
        match self.files.read() {
            Ok(pair) => {
                let lifetime = lifetime(pair.not_after_s);
                *self.server.write().unwrap_or_else(PoisonError::into_inner) = pair;
                tracing::info!(%certificate, %lifetime, "certificate reloaded");
            }
            Err(faults) => {
                let faults = told(&faults);
                tracing::error!(
                    %certificate,
                    faults,
                    "new certificate rejected, still serving the previous one; fix the files"
                );
            }
        }
    }

    /// Reloads when the files have changed, until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut seen = Vec::new();
        loop {
            tokio::select! { // a check that is cancelled is made up for at the next start
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let all = self.clone();
            let look = move || {
                let now = all.files.print();
                let is_new = now != *all.tried.lock().unwrap_or_else(PoisonError::into_inner);
                // certificate and key are written one after the other: wait until a check finds no further
                // change
                if is_new && now == seen {
                    all.reload();
                }
                now
            };
            // disks may be slow, and connections must not wait for them
            seen = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
    }
}

/// All faults, in one line.
#[must_use]
pub fn told(faults: &TlsFaults) -> String {
    let words = |(key, fault): &(&str, TlsFault)| format!("{key} {}", chain_of(fault));
    faults.iter().map(words).collect::<Vec<_>>().join("; ")
}

/// A fault with its cause.
#[must_use]
pub fn chain_of(fault: &TlsFault) -> String {
    let cause = match fault {
        TlsFault::Unusable(rustls::Error::InvalidCertificate(CertificateError::BadEncoding)) => {
            let words = "it is not an X.509 version 3 certificate: have it reissued";
            Some(words.to_owned())
        }
        fault => std::error::Error::source(fault).map(ToString::to_string),
    };
    cause.map_or_else(|| fault.to_string(), |cause| format!("{fault}: {cause}"))
}

/// Until when a certificate is good, in words.
fn lifetime(not_after_s: u64) -> String {
    let at = i64::try_from(not_after_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    at.map_or_else(String::new, |at| format!("until {at}"))
}

/// Accepts the listener's own certificate, and any that a CA vouches for.
#[derive(Debug)]
struct OwnOrVouched {
    own: CertificateDer<'static>,
    vouched: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OwnOrVouched {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.vouched.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if *end_entity == self.own {
            return Ok(ClientCertVerified::assertion());
        }
        self.vouched.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.vouched.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.vouched.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouched.supported_verify_schemes()
    }
}

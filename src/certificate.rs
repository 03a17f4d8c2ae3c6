//! Explains certificate errors of a TLS peer and what to do about them. The TLS library's own messages are
//! only the names of its enum variants, such as `CaUsedAsEndEntity`.

use std::error::Error;
use std::io;
use std::iter;

use rustls::{CertificateError, InvalidMessage};

/// If a TLS error is among the causes of `error`: what is wrong with the peer's certificate, and the
/// remedy. `ca` is the name of the setting that lists the trusted CAs.
#[must_use]
pub fn words(error: &(dyn Error + 'static), ca: &str) -> Option<String> {
    let causes = iter::successors(Some(error), |error| -> Option<&(dyn Error + 'static)> {
        (*error).source()
    });
    causes.into_iter().find_map(of_tls).and_then(|error| said(error, ca))
}

/// The TLS error inside `error`, if any. An [`io::Error`] does not report the error it wraps as its
/// `source`, so it is unwrapped here.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let inside = inside.and_then(|inside| of_tls(inside));
    inside.or_else(|| error.downcast_ref())
}

fn said(error: &rustls::Error, ca: &str) -> Option<String> {
    let certificate = match error {
        rustls::Error::InvalidCertificate(certificate) => certificate,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return Some(
                "the other side does not speak TLS: is this an http URL, or the port of another service?"
                    .to_owned(),
            );
        }
        _ => return None,
    };
    Some(match certificate {
        CertificateError::UnknownIssuer => format!(
            "its certificate is signed by a CA that is not known here: add that CA's certificate to {ca}, \
             and let the server send its intermediate certificates too"
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: it has to be renewed; if it has been, set this machine's clock"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: set this machine's clock, or wait until it is".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name: correct the host in the URL, or have a certificate \
             issued that names this host (subjectAltName)"
                .to_owned()
        }
        CertificateError::Revoked => "its certificate has been revoked: it has to be replaced".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not meant for servers: it has to be issued with the extended key usage \
             serverAuth"
                .to_owned()
        }
        CertificateError::BadSignature => format!(
            "its certificate is not signed by the CA that it names: check whether {ca} holds an older CA of the \
             same name"
        ),
        CertificateError::BadEncoding => "its certificate cannot be read: it has to be reissued".to_owned(),
        CertificateError::Other(other) if is_ca(&*other.0) => format!(
            "it presents the certificate of a CA as its own: let the server present a certificate that the CA \
             has signed (basicConstraints CA:FALSE), and add the CA's to {ca}"
        ),
        _ => return None,
    })
}

fn is_ca(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::OtherError;

    use super::*;

    #[test]
    fn each_says_what_to_do() {
        let table = [
            (CertificateError::UnknownIssuer, "launchdarkly.ca_file"),
            (CertificateError::Expired, "renewed"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::Revoked, "revoked"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (CertificateError::BadSignature, "launchdarkly.ca_file"),
            (CertificateError::BadEncoding, "reissued"),
            (
                CertificateError::Other(OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity))),
                "the certificate of a CA as its own",
            ),
        ];
        for (certificate, expected) in table {
            let error = rustls::Error::InvalidCertificate(certificate.clone());
            let inside = io::Error::other(io::Error::other(error.clone()));
            for error in [&error as &(dyn Error + 'static), &inside] {
                let said = words(error, "launchdarkly.ca_file").expect("words");
                assert!(said.contains(expected), "{certificate:?}: {said}");
            }
        }
        let other = io::Error::other("the line is cut");
        assert_eq!(words(&other, ""), None);
        assert_eq!(words(&rustls::Error::DecryptError, ""), None);
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(words(&plain, "").is_some_and(|said| said.contains("http")));
    }
}

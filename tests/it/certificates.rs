//! Errors of LaunchDarkly's certificate, or of the certificate of something in front of it, are reported
//! with their remedy.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Installation, identify, launchdarkly};
use crate::needs::LOCALHOST;

/// A certificate and its key.
struct Shown {
    params: CertificateParams,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn authority(name: &str) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).expect("it signs itself");
    Shown { params, certificate, key }
}

fn signed(by: &Shown, name: &str, until_year: i32) -> Shown {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    let issuer = Issuer::from_params(&by.params, &by.key);
    let certificate = params.signed_by(&key, &issuer).expect("it signs");
    Shown { params, certificate, key }
}

/// Starts a server that presents this certificate and never answers. Returns its port.
async fn server(shows: &Shown) -> u16 {
    let chain = vec![CertificateDer::from(shows.certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(shows.key.serialize_der()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a pair")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await; // lasts until the client closes it
        }
    });
    port
}

async fn what_is_wrong_with_a_certificate_is_said_with_its_remedy() {
    let launchdarkly = launchdarkly().await;
    let _ = rustls::crypto::ring::default_provider().install_default(); // another test may have installed it
    let (known, unknown) = (authority("known"), authority("unknown"));
    let rows = [
        (authority("alone"), "it presents the certificate of a CA as its own"),
        (signed(&unknown, "localhost", 2100), "signed by a CA that is not known here"),
        (signed(&known, "localhost", 2020), "it has to be renewed"),
        (signed(&known, "elsewhere.example", 2100), "its certificate is for another name"),
    ];
    for (shows, expected) in rows {
        let port = server(&shows).await;
        let mut installation = Installation::new(&launchdarkly);
        // Servers that present a CA's certificate as their own are usually set up with clients that trust
        // it.
        let trusted = if expected.contains("as its own") { &shows } else { &known };
        installation.write("ca.pem", &trusted.certificate.pem());
        installation.set("destinations.production.launchdarkly.ca_file", "ca.pem");
        let url = format!("https://localhost:{port}");
        installation.set("destinations.production.launchdarkly.base_url", &url);
        installation.set("destinations.production.launchdarkly.client_sdk_url", &url);
        let cohortd = installation.start();
        let enters = identify("ada", "vip", true, 1_750_000_000_000);
        assert_eq!(cohortd.post(&enters).await.expect("an answer").0, 200);
        let cause = |status: &serde_json::Value| {
            let error = &status["destinations"]["production"]["last_error"];
            error["cause"].as_str().map(str::to_owned)
        };
        let status = cohortd.until_status(|status| cause(status).is_some()).await;
        let said = cause(&status).expect("it is there");
        assert!(said.contains(expected) && !said.contains("CaUsed"), "{said}");
        assert!(cohortd.stop().0.success());
        let asked = installation.types(None, &["check", "--online"]);
        assert!(asked.out.contains(expected), "{}{}", asked.out, asked.complaint);
    }
}

tests![what_is_wrong_with_a_certificate_is_said_with_its_remedy.needs(&LOCALHOST),];

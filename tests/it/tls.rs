//! TLS on both listeners: HTTP/1.1 and HTTP/2, client certificates, commands that connect to such a daemon,
//! and certificates that are replaced while it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cohortd::sandbox::{StandIn, sign};
use cohortd::secret::Secret;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::attacks::{SOON, connect, ends_well, exchange};
use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;

/// A CA, and certificates that it has signed, in PEM.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("it signs itself").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn signs(&self, until_year: i32) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("these are names");
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs").pem();
        Signed { certificate, key: key.serialize_pem() }
    }
}

/// The certificate files of both listeners.
struct Files(PathBuf);

impl Files {
    fn of(installation: &mut Installation) -> Self {
        let directory = installation.directory.path().to_owned();
        for listener in ["listen", "admin"] {
            for key in ["certificate_file", "key_file"] {
                let path = directory.join(key).display().to_string();
                installation.set(&format!("{listener}.tls.{key}"), &path);
            }
        }
        Self(directory)
    }

    fn write(&self, signed: &Signed) {
        self.write_one("certificate_file", &signed.certificate);
        self.write_one("key_file", &signed.key);
    }

    fn write_one(&self, key: &str, text: &str) {
        std::fs::write(self.0.join(key), text).expect("it is ours");
    }

    /// Makes listeners require client certificates signed by `authority`.
    fn demand(&self, installation: &mut Installation, listeners: &[&str], authority: &Authority) {
        self.write_one("client_ca_file", &authority.certificate);
        let path = self.0.join("client_ca_file").display().to_string();
        for listener in listeners {
            installation.set(&format!("{listener}.tls.client_ca_file"), &path);
        }
    }
}

async fn installed(authority: &Authority) -> (StandIn, Installation, Files) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let files = Files::of(&mut installation);
    files.write(&authority.signs(2100));
    (launchdarkly, installation, files)
}

fn speaker(authority: &Authority, shows: Option<&Signed>, protocol: &[u8]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).expect("PEM");
    roots.add(ca).expect("a CA");
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(signed) => {
            let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(vec![certificate.expect("PEM")], key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn shake(speaker: &TlsConnector, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    timeout(DEADLINE, speaker.connect(name, connect(to).await)).await.expect("in time")
}

/// The status of a probe, or an error if the TLS handshake failed.
async fn probe(speaker: &TlsConnector, to: SocketAddr) -> std::io::Result<String> {
    let began = Instant::now();
    let mut stream = shake(speaker, to).await?;
    let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time")?;
    assert!(began.elapsed() < SOON, "the probe took {:?}", began.elapsed());
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// When the certificates of the public and the admin listener expire, according to the metrics.
async fn expires(speaker: &TlsConnector, admin: SocketAddr) -> [Option<i64>; 2] {
    let mut stream = shake(speaker, admin).await.expect("TLS is spoken");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it is read");
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    timeout(DEADLINE, reading).await.expect("in time").expect("text");
    ["public", "admin"].map(|listener| {
        let name = format!(
            "cohortd_tls_certificate_expires_timestamp_seconds{{listener=\"{listener}\"}} "
        );
        let value = answer.lines().find_map(|line| line.strip_prefix(&name))?;
        value.split('.').next()?.parse().ok()
    })
}

fn expiry_of(year: i32) -> [Option<i64>; 2] {
    [Some(rcgen::date_time_ymd(year, 1, 1).unix_timestamp()); 2]
}

/// The certificate that a listener presents.
async fn shown(speaker: &TlsConnector, to: SocketAddr) -> CertificateDer<'static> {
    let stream = shake(speaker, to).await.expect("TLS is spoken");
    let shown = stream.get_ref().1.peer_certificates().expect("one is shown");
    shown[0].clone().into_owned()
}

async fn both_listeners_speak_http_1_and_2_over_tls_and_nothing_without() {
    let authority = Authority::new();
    let (launchdarkly, installation, _files) = installed(&authority).await;
    let cohortd = installation.start();
    for to in [cohortd.public, cohortd.admin] {
        let http1 = speaker(&authority, None, b"http/1.1");
        assert_eq!(probe(&http1, to).await.expect("TLS is spoken"), "200");
        let stranger = speaker(&Authority::new(), None, b"http/1.1");
        assert!(probe(&stranger, to).await.is_err(), "its certificate is the authority's");
        let plain = exchange(to, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(!plain.contains("HTTP/1.1"), "{plain}");
    }
    let http2 = speaker(&authority, None, b"h2");
    let stream = shake(&http2, cohortd.public).await.expect("TLS is spoken");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("HTTP/2 is spoken");
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for number in 0..10 {
        let body = identify(&format!("user-{number}"), "vip", true, NOW_MS).to_string();
        let request = http::Request::post("https://localhost/segment/production")
            .header("x-signature", sign(&Secret::new(SHARED_SECRET), body.as_bytes()))
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        sender.ready().await.expect("it is open");
        answers.push(sender.send_request(request));
    }
    for answer in answers {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(text, r#"{"accepted":1,"ignored":0,"rejected":[]}"#);
    }
    drop(sender);
    installation.drained().await;
    assert_eq!(launchdarkly.segments(ENVIRONMENT)["aud_vip"].members.len(), 10);
    ends_well(cohortd);
}

fn commands_work(installation: &mut Installation, cohortd: &Cohortd) {
    installation.set("listen.address", &cohortd.public.to_string());
    let admin = Some(cohortd.admin);
    installation.types(admin, &["healthcheck"]).done();
    let status = installation.types(admin, &["status"]).done();
    assert!(status.contains("production"), "{status}");
    installation.types(admin, &["pause", "production"]).done();
    installation.types(admin, &["resume", "production"]).done();
    let enters = ["send", "--user", "ada", "--audience", "vip", "--enter"];
    let answer = installation.types(admin, &enters).done();
    assert!(answer.starts_with("200"), "{answer}");
}

async fn commands_reach_a_daemon_that_speaks_tls_also_where_clients_need_certificates() {
    let authority = Authority::new();
    let (_launchdarkly, mut installation, files) = installed(&authority).await;
    let cohortd = installation.start();
    commands_work(&mut installation, &cohortd);
    ends_well(cohortd);
    installation.set("listen.address", "127.0.0.1:0");
    // A CA that did not sign the listener's own certificate.
    files.demand(&mut installation, &["listen", "admin"], &Authority::new());
    let cohortd = installation.start();
    commands_work(&mut installation, &cohortd);
    ends_well(cohortd);
}

async fn who_has_to_show_a_certificate_and_has_no_good_one_is_not_heard() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (_launchdarkly, mut installation, files) = installed(&authority).await;
    files.demand(&mut installation, &["listen"], &clients);
    let cohortd = installation.start();
    let ask = async |shows: Option<&Signed>| {
        probe(&speaker(&authority, shows, b"http/1.1"), cohortd.public).await.ok()
    };
    assert_eq!(ask(None).await, None);
    assert_eq!(ask(Some(&Authority::new().signs(2100))).await, None, "of another authority");
    assert_eq!(ask(Some(&clients.signs(2020))).await, None, "it has expired");
    assert_eq!(ask(Some(&clients.signs(2100))).await.as_deref(), Some("200"));
    // The health check has no client certificate, so it asks the other listener.
    std::fs::remove_file(files.0.join("key_file")).expect("it is there");
    installation.set("listen.address", &cohortd.public.to_string());
    installation.types(Some(cohortd.admin), &["healthcheck"]).done();
    ends_well(cohortd);
}

async fn a_new_certificate_is_served_and_one_without_its_key_is_refused() {
    let authority = Authority::new();
    let (_launchdarkly, installation, files) = installed(&authority).await;
    let cohortd = installation.start();
    let speaker = speaker(&authority, None, b"http/1.1");
    let mut held = shake(&speaker, cohortd.public).await.expect("TLS is spoken");
    let first = shown(&speaker, cohortd.public).await;
    assert_eq!(expires(&speaker, cohortd.admin).await, expiry_of(2100));

    let next = authority.signs(2090);
    files.write_one("certificate_file", &next.certificate);
    cohortd.logged(REFUSED).await;
    assert_eq!(shown(&speaker, cohortd.public).await, first, "the pair of before stays");
    assert_eq!(probe(&speaker, cohortd.public).await.expect("it does"), "200");

    files.write_one("key_file", &next.key);
    cohortd.logged("certificate reloaded").await;
    let der = CertificateDer::from_pem_slice(next.certificate.as_bytes()).expect("PEM");
    let deadline = Instant::now() + DEADLINE;
    for to in [cohortd.public, cohortd.admin] {
        // each listener reloads for itself; the log does not say which was first
        while shown(&speaker, to).await != der {
            assert!(Instant::now() < deadline, "the new certificate is never shown");
        }
    }
    assert_eq!(expires(&speaker, cohortd.admin).await, expiry_of(2090));
    let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    held.write_all(request).await.expect("a connection of before goes on");
    let mut answer = String::new();
    timeout(DEADLINE, held.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let log = cohortd.log();
    let refused = log.iter().find(|line| line.contains(REFUSED)).expect("it was seen");
    assert!(refused.contains("ERROR") && refused.contains("key_file is not the key"), "{refused}");
    ends_well(cohortd);
}

const REFUSED: &str = "new certificate rejected, still serving the previous one; fix the files";

async fn whoever_does_not_end_a_handshake_is_not_awaited_for_long() {
    let authority = Authority::new();
    let (_launchdarkly, mut installation, _files) = installed(&authority).await;
    installation.set("listen.header_timeout_ms", "2000").set("listen.max_connections", "300");
    let cohortd = installation.start();
    let speaker = speaker(&authority, None, b"http/1.1");
    let mut slow = Vec::new();
    for number in 0..600 {
        let mut stream = connect(cohortd.public).await;
        // the beginning of a ClientHello, or nothing
        if number % 2 == 0 {
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await;
        }
        slow.push(stream);
        if number % 100 == 99 {
            assert_eq!(probe(&speaker, cohortd.public).await.expect("it is let in"), "200");
        }
    }
    let began = Instant::now();
    for mut stream in slow {
        // an alert, an end or a reset: the connection is closed
        let _ = timeout(DEADLINE, stream.read(&mut [0; 64])).await.expect("it is cut off");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(probe(&speaker, cohortd.public).await.expect("it is let in"), "200");
    ends_well(cohortd);
}

async fn check_tells_what_is_wrong_with_a_certificate() {
    let authority = Authority::new();
    let (_launchdarkly, installation, files) = installed(&authority).await;
    let check = || installation.types(None, &["check"]);
    let good = check().done();
    assert!(good.contains("https://127.0.0.1:0"), "{good}");

    files.write(&authority.signs(2020));
    let expired = check().done();
    let warning = "warning: listen.tls.certificate_file: has expired (2020-01-01T00:00:00Z)";
    assert!(expired.contains(warning), "{expired}");

    let other = authority.signs(2100);
    files.write_one("key_file", &other.key);
    let mismatch = check();
    assert_eq!(mismatch.code, 64);
    let path = |key: &str| Path::new(&files.0).join(key).display().to_string();
    for listener in ["listen", "admin"] {
        let fault = format!(
            "{listener}.tls.key_file = \"{}\"   is not the key of the certificate",
            path("key_file")
        );
        assert!(mismatch.complaint.contains(&fault), "{}", mismatch.complaint);
    }
    let run = installation.command().output().expect("the binary runs");
    assert_eq!(run.status.code(), Some(64));

    files.write_one("certificate_file", "nothing");
    std::fs::remove_file(path("key_file")).expect("it is there");
    let both = check().complaint;
    assert!(both.contains("config: 4 problems"), "{both}");
    assert!(both.contains("holds no PEM certificate") && both.contains("cannot be read"), "{both}");
    assert!(!both.contains("BEGIN"), "{both}");
}

tests![
    both_listeners_speak_http_1_and_2_over_tls_and_nothing_without,
    commands_reach_a_daemon_that_speaks_tls_also_where_clients_need_certificates,
    who_has_to_show_a_certificate_and_has_no_good_one_is_not_heard,
    a_new_certificate_is_served_and_one_without_its_key_is_refused,
    whoever_does_not_end_a_handshake_is_not_awaited_for_long,
    check_tells_what_is_wrong_with_a_certificate,
];

//! An encrypted way to the database: both sides show certificates, and whoever does not trust the other says what to do.
//! Run with the ledger in a database, see `postgresql`.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::time::{interval, timeout};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};
use crate::postgresql::{self, server};

/// The name by which the server is known.
const NAME: &str = "db.example.com";

/// A CA.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("it signs itself").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate for this name, and its key.
    fn signs(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).expect("it signs").pem();
        (certificate, key.serialize_pem())
    }
}

/// The files of both sides, which the user of the server may read.
struct Files {
    directory: PathBuf,
    user: Option<(u32, u32)>,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("cohortd-tls").tempdir();
        let directory = directory.expect("a directory").keep();
        let user = server::ordinary_user(&directory);
        Self { directory, user }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, text).expect("it is ours");
        let private = std::fs::Permissions::from_mode(0o600); // or the server does not take a key
        std::fs::set_permissions(&path, private).expect("it is ours");
        if let Some((uid, gid)) = self.user {
            chown(Path::new(&path), Some(uid), Some(gid)).expect("root may");
        }
    }

    /// What the server shows.
    fn server_is(&self, (certificate, key): &(String, String)) {
        self.write("server.crt", certificate);
        self.write("server.key", key);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory); // it is a temporary one
    }
}

/// Has the server read its files again, and everybody connect anew, until a replica says this of the database.
async fn until_said(replica: &Cohortd, database: &str, words: &str) {
    let says = async || {
        postgresql::run(database, "SELECT pg_reload_conf()").await;
        postgresql::terminate_everybody(database).await;
        replica.status().await.to_string().contains(words)
    };
    let saying = async {
        let mut looks = interval(Duration::from_millis(100));
        while !says().await {
            looks.tick().await;
        }
    };
    let in_time = timeout(DEADLINE, saying).await;
    assert!(in_time.is_ok(), "it never says {words:?}, but {}", replica.status().await);
    replica.until_unready().await;
}

async fn both_sides_of_the_way_to_the_database_show_certificates() {
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let files = Files::new();
    files.write("ca.crt", &known.certificate);
    files.write("clients.crt", &known.certificate);
    let (certificate, key) = known.signs("cohortd");
    files.write("client.crt", &certificate);
    files.write("client.key", &key);
    let right = known.signs(NAME);
    files.server_is(&right);
    files.write(
        "hba.conf",
        "local all all trust\nhostssl all all 127.0.0.0/8 trust clientcert=verify-ca\n",
    );
    // The port is that of the socket: an address of its own, of those that lead to this machine.
    let address = format!("127.{}.{}.1", rand::random_range(64..128), rand::random_range(0..=255));
    let mut settings = vec![
        "autovacuum=off".to_owned(),
        "ssl=on".to_owned(),
        format!("listen_addresses={address}"),
    ];
    for (name, file) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("ssl_ca_file", "clients.crt"),
        ("hba_file", "hba.conf"),
    ] {
        settings.push(format!("{name}={}", files.path(file)));
    }
    let begins = move || {
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        postgresql::database_with(&settings)
    };
    let database = tokio::task::spawn_blocking(begins).await.expect("it begins");
    let (_, options) = database.split_once("&options=").expect("it has them");
    let url = format!(
        "postgres://cohortd@{NAME}/postgres?hostaddr={address}&sslmode=verify-full&sslrootcert={}&options={options}",
        files.path("ca.crt"),
    );
    let shows =
        format!("{url}&sslcert={}&sslkey={}", files.path("client.crt"), files.path("client.key"));

    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.url", &url);
    let online = installation.types(None, &["check", "--online"]);
    assert_ne!(online.code, 0, "the server wants a certificate: {}", online.out);
    installation.set("ledger.url", &shows);
    let replica = installation.start();
    let enters = async |who: &str| {
        let event = identify(who, "vip", true, 1_750_000_000_000);
        assert_eq!(replica.post(&event).await.expect("an answer").0, 200);
        let is_in = launchdarkly.until(DEADLINE, |view| {
            view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.contains(who))
        });
        is_in.await.expect("it is delivered");
    };
    enters("ada").await;

    files.server_is(&known.signs("other.example.com"));
    until_said(&replica, &database, "its certificate is for another name").await;
    files.server_is(&unknown.signs(NAME));
    until_said(&replica, &database, "add that CA's certificate to sslrootcert in ledger.url").await;
    files.server_is(&right);
    files.write("clients.crt", &unknown.certificate);
    until_said(&replica, &database, "sslcert in ledger.url has to be signed by a CA").await;

    files.write("clients.crt", &known.certificate);
    postgresql::run(&database, "SELECT pg_reload_conf()").await;
    replica.until_ready().await;
    enters("bob").await;
}

tests![both_sides_of_the_way_to_the_database_show_certificates];

//! Where the database is, and how it is reached: what `ledger.url` says.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use url::form_urlencoded;

/// The parameters of a URL that the PostgreSQL client takes as they are.
const PASSED_ON: [&str; 15] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "user",
];
/// How long each host may take to be connected to, if the URL does not say: the next one has to be tried in time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the database is, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseAddress {
    /// Hosts, user, password, name of the database.
    pub(crate) config: Config,
    /// How connections are encrypted; `None`: they are not.
    pub(crate) tls: Option<DatabaseTls>,
}

/// The files of an encrypted connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DatabaseTls {
    /// The certificates of the CAs that are trusted; otherwise those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show, and its private key.
    pub client_files: Option<(PathBuf, PathBuf)>,
}

/// It has a password: only the hosts and the name of the database are shown.
impl std::fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DatabaseAddress({self})")
    }
}

impl std::fmt::Display for DatabaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
            }
        });
        let hosts: Vec<String> = hosts.collect();
        write!(f, "PostgreSQL at {}", hosts.join(","))?;
        match self.config.get_dbname() {
            Some(name) => write!(f, ", database {name}"),
            None => Ok(()),
        }
    }
}

impl DatabaseAddress {
    /// Reads a URL as `libpq` would, with these differences: connections that leave the machine are encrypted and
    /// verified (`sslmode=verify-full`) unless the URL says `sslmode=disable`, and of several hosts the one that takes
    /// writes is used.
    ///
    /// # Errors
    /// What is wrong with it, without any of its text: it holds a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if !["postgres://", "postgresql://"].iter().any(|scheme| base.starts_with(scheme)) {
            return Err("must begin with postgres:// or postgresql://".to_owned());
        }
        let mut passed_on = form_urlencoded::Serializer::new(String::new());
        let (mut mode, mut ca_file, mut certificate, mut key) = (None, None, None, None);
        // A plus is a plus in such a URL, and not a blank as in a form.
        for (name, value) in form_urlencoded::parse(query.replace('+', "%2B").as_bytes()) {
            match &*name {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" if value == "system" => {}
                "sslrootcert" => ca_file = Some(PathBuf::from(&*value)),
                "sslcert" => certificate = Some(PathBuf::from(&*value)),
                "sslkey" => key = Some(PathBuf::from(&*value)),
                "target_session_attrs"
                    if value == "read-write" || value == "primary" || value == "any" => {}
                "target_session_attrs" => {
                    return Err(
                        "has a target_session_attrs that is not read-write: cohortd writes"
                            .to_owned(),
                    );
                }
                name if PASSED_ON.contains(&name) => {
                    passed_on.append_pair(name, &value);
                }
                _ => {
                    return Err(format!(
                        "has a parameter that is not known here; known are sslmode, sslrootcert, sslcert, sslkey, \
                         target_session_attrs, {}. (In a password, ? @ / : # and % are written %3F %40 %2F %3A %23 and %25.)",
                        PASSED_ON.join(", ")
                    ));
                }
            }
        }
        let passed_on = passed_on.finish().replace('+', "%20");
        let mut config: Config = format!("{base}?{passed_on}").parse().map_err(|_| {
            "cannot be read: it is postgres://USER:PASSWORD@HOST:PORT/DATABASE, in which ? @ / : # and % of a \
             password are written %3F %40 %2F %3A %23 and %25"
        })?;
        if config.get_hosts().is_empty() {
            return Err("names no host: postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
        }
        let hosts = config.get_hosts().len();
        if ![0, 1, hosts].contains(&config.get_ports().len()) {
            return Err("has another number of ports than of hosts".to_owned());
        }
        let files = [ca_file.as_ref(), certificate.as_ref(), key.as_ref()];
        if files.into_iter().flatten().any(|path| !path.is_absolute()) {
            return Err(
                "names a file by a relative path: sslrootcert, sslcert and sslkey are absolute"
                    .to_owned(),
            );
        }
        let client_files = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err("has only one of sslcert and sslkey: a client certificate needs both"
                    .to_owned());
            }
        };
        let is_encrypted = match mode.as_deref() {
            None => {
                !config.get_hosts().iter().all(is_local)
                    || ca_file.is_some()
                    || client_files.is_some()
            }
            Some("disable") => false,
            Some("verify-full" | "require") => true,
            Some(_) => {
                return Err(
                    "has an sslmode that is not known here: verify-full (the default off this machine; require means \
                     the same), or disable"
                        .to_owned(),
                );
            }
        };
        config.ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable });
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("cohortd");
        }
        Ok(Self { config, tls: is_encrypted.then_some(DatabaseTls { ca_file, client_files }) })
    }

    /// Each host by itself, in the order in which they are tried.
    pub(crate) fn hosts(&self) -> Vec<Self> {
        let of = &self.config;
        let (hosts, ports, addresses) = (of.get_hosts(), of.get_ports(), of.get_hostaddrs());
        let alone = |(at, host): (usize, &Host)| {
            let mut config = Config::new();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(path) => config.host_path(path),
            };
            if let Some(address) = addresses.get(at) {
                config.hostaddr(*address);
            }
            if let Some(port) = ports.get(at).or(ports.first()) {
                config.port(*port);
            }
            of.get_user().map(|user| config.user(user));
            of.get_password().map(|password| config.password(password));
            of.get_dbname().map(|name| config.dbname(name));
            of.get_options().map(|options| config.options(options));
            of.get_application_name().map(|name| config.application_name(name));
            of.get_connect_timeout().map(|limit| config.connect_timeout(*limit));
            of.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
            of.get_keepalives_retries().map(|retries| config.keepalives_retries(retries));
            config
                .keepalives(of.get_keepalives())
                .keepalives_idle(of.get_keepalives_idle())
                .ssl_mode(of.get_ssl_mode())
                .channel_binding(of.get_channel_binding())
                .target_session_attrs(of.get_target_session_attrs())
                .load_balance_hosts(of.get_load_balance_hosts());
            Self { config, tls: self.tls.clone() }
        };
        hosts.iter().enumerate().map(alone).collect()
    }

    /// Whether the password and the events cross a network in the clear.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.tls.is_none() && !self.config.get_hosts().iter().all(is_local)
    }

    /// What is wrong with the files that it names.
    ///
    /// # Errors
    /// The file, and what is wrong with it.
    pub fn check_files(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.connector().map(|_| ()))
    }
}

/// Whether connections to a host stay on this machine.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match DatabaseAddress::parse(url) {
            Ok(address) => {
                let tls = match &address.tls {
                    None if address.is_exposed() => "in the clear",
                    None => "local",
                    Some(DatabaseTls { ca_file: None, client_files: None }) => "verified",
                    Some(DatabaseTls { ca_file: Some(_), client_files: None }) => {
                        "verified by a CA"
                    }
                    Some(DatabaseTls { client_files: Some(_), .. }) => "with a certificate",
                };
                format!("{address}: {tls}")
            }
            Err(problem) => problem.chars().take(24).collect(),
        }
    }

    #[test]
    fn a_url_says_where_the_database_is_and_how_it_is_reached() {
        let rows = [
            (
                "postgres://u:p@localhost/ledger",
                "PostgreSQL at localhost:5432, database ledger: local",
            ),
            ("postgresql://u@127.0.0.1:6432/l", "PostgreSQL at 127.0.0.1:6432, database l: local"),
            (
                "postgres://u@%2Frun%2Fpg/l",
                "PostgreSQL at /run/pg/.s.PGSQL.5432, database l: local",
            ),
            (
                "postgres:///l?host=/run/pg&user=u&port=1",
                "PostgreSQL at /run/pg/.s.PGSQL.1, database l: local",
            ),
            (
                "postgres://u:p@db.internal/l",
                "PostgreSQL at db.internal:5432, database l: verified",
            ),
            ("postgres://u:p@db/l?sslmode=require", "PostgreSQL at db:5432, database l: verified"),
            (
                "postgres://u:p@db/l?sslmode=disable",
                "PostgreSQL at db:5432, database l: in the clear",
            ),
            (
                "postgres://u@[::1]/l?sslmode=verify-full",
                "PostgreSQL at [::1]:5432, database l: verified",
            ),
            (
                "postgres://u@a:1,b:2/l?sslrootcert=/ca.pem",
                "PostgreSQL at a:1,b:2, database l: verified by a CA",
            ),
            (
                "postgres://u@localhost,b/l",
                "PostgreSQL at localhost:5432,b:5432, database l: verified",
            ),
            (
                "postgres://u@db/l?sslcert=/c&sslkey=/k",
                "PostgreSQL at db:5432, database l: with a certificate",
            ),
            (
                "postgres://u@db/l?target_session_attrs=read-write&application_name=a%20b&sslrootcert=system",
                "PostgreSQL at db:5432, database l: verified",
            ),
            ("mysql://u@db/l", "must begin with postgres"),
            ("host=db user=u", "must begin with postgres"),
            ("postgres:///l", "names no host: postgres:"),
            ("postgres://u@a:1,b:2,c/l?port=5,6", "has another number of po"),
            ("postgres://u@a:x/l", "cannot be read: it is po"),
            ("postgres://u:p?w@a/l", "has a parameter that is "),
            ("postgres://u@a/l?sslmode=prefer", "has an sslmode that is n"),
            ("postgres://u@a/l?sslcert=/c", "has only one of sslcert "),
            ("postgres://u@a/l?sslrootcert=ca.pem", "names a file by a relati"),
            ("postgres://u@a/l?target_session_attrs=read-only", "has a target_session_att"),
        ];
        for (url, expected) in rows {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn nothing_of_its_user_and_password_is_ever_shown() {
        for url in [
            "postgres://someone:hush@db/l",
            "postgres://someone:hush@db:x/l",
            "postgres://someone:hu?sh@db/l",
            "postgres://someone:hush@db/l?password=hush&user=someone",
            "postgres://someone:hush@db/l?hush=someone",
        ] {
            let shown = match DatabaseAddress::parse(url) {
                Ok(address) => format!("{address} {address:?}"),
                Err(problem) => problem,
            };
            assert!(!shown.contains("hu") && !shown.contains("someone"), "{shown}");
        }
    }

    #[test]
    fn parameters_reach_the_client_as_they_are_meant() {
        let url = "postgres://u@/l?host=/run/a+b&application_name=a%20b%2Bc&password=p%20%26+";
        let address = DatabaseAddress::parse(url).expect("it is good");
        assert_eq!(address.config.get_application_name(), Some("a b+c"));
        assert_eq!(address.config.get_password(), Some(&b"p &+"[..]));
        assert_eq!(address.config.get_hosts(), [Host::Unix("/run/a+b".into())]);
    }
}

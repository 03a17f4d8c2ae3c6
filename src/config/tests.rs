//! Every rule of the configuration, as tables.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::ledger::Retention;
use crate::membership::DestinationName;
use crate::receive::Credential;
use crate::secret::Secret;

const PREFIX: &str = "COHORTD_DESTINATIONS__EU__";

/// A certificate and its key for a listener, in PEM.
fn pair(until_year: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["x".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
    (params.self_signed(&key).expect("it signs itself").pem(), key.serialize_pem())
}

#[test]
fn a_certificate_and_its_key_are_checked_as_a_pair_and_their_end_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        write_private(&path, text);
        path.display().to_string()
    };
    let load = |certificate: &str, key: &str, ca: Option<&str>| {
        let certificate = write("certificate", certificate);
        let key = write("key", key);
        let ca = ca.map(|ca| write("ca", ca));
        let mut changes = vec![
            ("COHORTD_LISTEN__TLS__CERTIFICATE_FILE", certificate.as_str()),
            ("COHORTD_LISTEN__TLS__KEY_FILE", key.as_str()),
        ];
        changes.extend(ca.as_deref().map(|ca| ("COHORTD_LISTEN__TLS__CLIENT_CA_FILE", ca)));
        load(&changes)
    };
    let (good, expired, other) = (pair(2100), pair(2020), pair(2100));
    let config = load(&good.0, &good.1, Some(&other.0)).expect("it is good");
    assert_eq!(config.warnings, [""; 0]);
    let tls = config.listen.tls.expect("it is spoken");
    assert!(tls.client_ca_file.is_some() && config.admin.tls.is_none());
    assert_eq!(tls.read().expect("it is good").not_after_s, 4_102_444_800);

    let warnings = load(&expired.0, &expired.1, None).expect("it is good").warnings;
    let expected = "listen.tls.certificate_file: has expired (2020-01-01T00:00:00Z) and clients \
                    refuse it: replace it";
    assert_eq!(warnings, [expected]);

    // The files of a faulty pair are recorded, since they may become valid; a valid pair is reloaded by the
    // listener itself.
    let toml = format!(
        "[listen.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n",
        write("certificate", &good.0),
        write("key", &other.1)
    );
    let file = write("cohortd.toml", &toml);
    let read = || Config::read(&Source::exactly(Some(Path::new(&file))), [("IGNORED", "")]).files;
    let wrong = read();
    write("key", &good.1);
    assert_ne!(wrong.now(), wrong);
    let right = read();
    write("key", &other.1);
    assert_eq!(right.now(), right);

    let table = [
        (good.0.as_str(), other.1.as_str(), None, "listen.tls.key_file = "),
        (&good.0, &other.1, None, "is not the key of the certificate in certificate_file"),
        ("", &good.1, None, "holds no PEM certificate"),
        (&good.0, &good.0, None, "holds no PEM private key"),
        (&good.0, &good.1, Some(good.1.as_str()), "client_ca_file = "),
        (
            &good.0,
            &good.1,
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "holds no CA certificate that can be used",
        ),
    ];
    for (certificate, key, ca, expected) in table {
        let text = faults(load(certificate, key, ca));
        assert!(text.contains(expected), "expected {expected}\n{text}");
        assert!(text.starts_with("config: 1 problem\n"), "{text}");
    }
}

/// Writes a file that only its owner can read, as files with secrets should be.
pub(super) fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a temporary file can be written");
    chmod(path, 0o600);
}

fn chmod(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("it is ours");
}

/// Loads a minimal valid configuration with changes.
fn load(changes: &[(&str, &str)]) -> Result<Config, Faults> {
    let mut environment = vec![
        (format!("{PREFIX}SEGMENT__SHARED_SECRETS"), "hidden-shared-secret".to_owned()),
        (format!("{PREFIX}SEGMENT__ALLOW_BATCHES"), "false".to_owned()), // otherwise there is a warning
        (format!("{PREFIX}LAUNCHDARKLY__CLIENT_SIDE_ID"), "id".to_owned()),
        (format!("{PREFIX}LAUNCHDARKLY__SERVICE_TOKEN"), "hidden-service-token".to_owned()),
    ];
    for (name, value) in changes {
        let name = name.replace("EU__", PREFIX).replace("COHORTD_DESTINATIONS__COHORTD_", "");
        environment.retain(|(other, _)| *other != name);
        environment.push((name, (*value).to_owned()));
    }
    Config::load_from(None, environment)
}

fn load_toml(text: &str) -> Result<Config, Faults> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cohortd.toml");
    write_private(&file, text);
    Config::load_from(Some(&file), [("IGNORED", "")])
}

fn faults(result: Result<Config, Faults>) -> String {
    let text = result.expect_err("the configuration is faulty").to_string();
    assert!(!text.contains("hidden"), "a fault shows a secret: {text}");
    text
}

#[test]
fn the_environment_alone_is_enough_and_the_defaults_are_the_documented_ones() {
    let config = load(&[]).expect("it is good");
    let s = Duration::from_secs;
    let ms = Duration::from_millis;
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.listen.limits.body_limit_bytes, 128 << 20);
    assert_eq!(config.listen.limits.body_budget_bytes, 256 << 20);
    let listen = &config.listen;
    let waits = [listen.limits.header_timeout, listen.limits.idle_timeout];
    assert_eq!(waits, [s(10), s(75)]);
    assert_eq!([listen.limits.body_timeout, listen.limits.answer_timeout], [s(30), ms(4500)]);
    assert_eq!((listen.limits.header_limit_bytes, &listen.tls), (32 << 10, &None));
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:8081");
    assert_eq!(config.admin.tokens, []);
    let LedgerPlace::Directory(directory) = &config.ledger.place else {
        panic!("the default is a directory")
    };
    assert_eq!(directory.path, Path::new("data/ledger"));
    assert_eq!((config.ledger.cache_mib, config.ledger.tombstone_ttl), (48, s(604_800)));
    let (day, ledger) = (s(86_400), &config.ledger);
    assert_eq!(
        ledger.rejected,
        Retention { max_age: day * 30, max_count: 100_000, max_bytes: 256 << 20 }
    );
    assert_eq!(
        ledger.parked,
        Retention { max_age: day * 90, max_count: 100_000, max_bytes: 64 << 20 }
    );
    assert_eq!(ledger.check_every, day);
    assert_eq!(config.log, Log { format: LogFormat::Json, level: "info".into() });
    assert_eq!((config.stop.grace_period, config.stop.drain_delay), (s(8), s(0)));
    let [eu] = &config.destinations[..] else { panic!("one destination") };
    assert!(eu.enabled && eu.name.as_str() == "eu");
    assert_eq!(eu.launchdarkly.base_url.as_str(), "https://app.launchdarkly.com/");
    assert_eq!(eu.launchdarkly.client_sdk_url.as_str(), "https://clientsdk.launchdarkly.com/");
    let [mapping] = eu.mappings.all() else { panic!("one mapping") };
    let expected =
        r#"context kind user, context key user_id_only, if type = "identify" or type = "track""#;
    assert_eq!(mapping.to_string(), expected);
    let delivery = &eu.delivery;
    assert_eq!((delivery.policy.max_batch.get(), delivery.policy.concurrency.get()), (1000, 4));
    assert_eq!(
        (delivery.policy.max_body_bytes, config.ledger.max_audiences),
        (1024 * 1024, 10_000)
    );
    let waits = [delivery.policy.linger, delivery.repeat_window, delivery.request_timeout];
    assert_eq!(waits, [ms(500), s(3600), s(10)]);
    assert_eq!([delivery.policy.retry_floor, delivery.policy.retry_ceiling], [ms(500), s(30)]);
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn each_rule_has_its_fault() {
    #[rustfmt::skip]
    let cases = [
        ("COHORTD_LISTEN__ADDRESS", "localhost:80", "listen.address = \"localhost:80\"   must be an IP address and a port"),
        ("COHORTD_LISTEN__BODY_LIMIT_MIB", "0", "listen.body_limit_mib = 0   must be from 1 to"),
        ("COHORTD_TELEMETRY__OTLP_ENDPOINT", "collector:4318", "telemetry.otlp_endpoint   has the wrong scheme; expected an http or https URL"),
        ("COHORTD_TELEMETRY__OTLP_HEADERS", "x-key: hush", "telemetry.otlp_headers   is set, and otlp_endpoint is not"),
        ("COHORTD_TELEMETRY__OTLP_HEADERS", "hush", "telemetry.otlp_headers   item 0 must be a name, a colon and a value"),
        ("COHORTD_TELEMETRY__TRACE_PERCENT", "101", "telemetry.trace_percent = 101   must be from 0 to 100"),
        ("COHORTD_STOP__DRAIN_DELAY_MS", "8000", "stop.drain_delay_ms = 8000   leaves nothing of grace_period_ms (8000)"),
        ("COHORTD_LISTEN__BODY_LIMIT_MIB", "257", "listen.body_budget_mib = 256   is below body_limit_mib (257)"),
        ("COHORTD_LISTEN__BODY_TIMEOUT_MS", "soon", "listen.body_timeout_ms = \"soon\"   must be a whole number"),
        ("COHORTD_LISTEN__BODY_TIMEOUT_MS", "-1", "listen.body_timeout_ms = -1   must be from 1 to"),
        ("COHORTD_LISTEN", "x", "listen   is a section, not a value"),
        ("COHORTD_LISTEN_ADDRESS", "x", "listen_address   unknown key; did you mean COHORTD_LISTEN__ADDRESS?"),
        ("COHORTD_LISTEN__ADRESS", "x", "listen.adress   unknown key; did you mean address?"),
        ("COHORTD_ADMIN__ADDRESS", "0.0.0.0:8081", "admin.tokens   not set; expected in COHORTD_ADMIN__TOKENS or COHORTD_ADMIN__TOKENS_FILE"),
        ("COHORTD_ADMIN__READ_TOKENS", "hidden", "admin.tokens   not set; expected in COHORTD_ADMIN__TOKENS or COHORTD_ADMIN__TOKENS_FILE: read_tokens is set, and those tokens are read-only"),
        ("COHORTD_ADMIN__READ_TOKENS_FILE", "/none", "admin.read_tokens_file = \"/none\"   cannot be read: No such file"),
        ("COHORTD_ADMIN__ADDRESS", "127.0.0.1:8080", "admin.address = 127.0.0.1:8080   collides with listen.address (0.0.0.0:8080)"),
        ("COHORTD_LISTEN__HEADER_LIMIT_KIB", "4", "listen.header_limit_kib = 4   must be from 8 to 1024"),
        ("COHORTD_ADMIN__TLS__KEY_FILE", "/none", "admin.tls.certificate_file   not set; expected in COHORTD_ADMIN__TLS__CERTIFICATE_FILE"),
        ("COHORTD_LISTEN__TLS", "on", "listen.tls   is a section, not a value"),
        ("COHORTD_LEDGER__PATH", "", "ledger.path   is empty"),
        ("COHORTD_LOG__FORMAT", "xml", "log.format = \"xml\"   must be one of: json, pretty"),
        ("COHORTD_LOG__LEVEL", "inof", "log.level = \"inof\"   must be off"),
        ("COHORTD_LEDGER__MAX_AUDIENCES", "0", "ledger.max_audiences = 0   must be from 1 to"),
        ("COHORTD_DELIVERY__MAX_BODY_KIB", "0", "delivery.max_body_kib = 0   must be from 1 to"),
        ("EU__DELIVERY__MAX_BODY_KIB", "0", "destinations.eu.delivery.max_body_kib = 0   must be from 1 to"),
        ("COHORTD_DELIVERY__MAX_BATCH", "0", "delivery.max_batch = 0   must be from 1 to"),
        ("COHORTD_DELIVERY__RETRY_CEILING_MS", "200", "  delivery.retry_ceiling_ms = 200   is below retry_floor_ms (500)   [COHORTD_DELIVERY__RETRY_CEILING_MS]"),
        ("EU__DELIVERY__RETRY_FLOOR_MS", "60000", "destinations.eu.delivery.retry_ceiling_ms = 30000   is below retry_floor_ms (60000)"),
        ("EU__ENABLED", "maybe", "destinations.eu.enabled = \"maybe\"   must be true or false"),
        ("EU__COLOUR", "hidden", "destinations.eu.colour   unknown key"),
        ("EU__SEGMENT__SHARED_SECRETS", "\n", "destinations.eu.segment.shared_secrets   is empty"),
        ("EU__SEGMENT__SHARED_SECRETS_FILE", "/x", "destinations.eu.segment.shared_secrets   is set, and so is shared_secrets_file"),
        ("EU__SEGMENT__BEARER_TOKENS_FILE", "/none", "destinations.eu.segment.bearer_tokens_file = \"/none\"   cannot be read: No such file"),
        ("EU__SEGMENT__REQUIRE", "bearer", "destinations.eu.segment.require   names \"bearer\", but bearer_tokens is not set"),
        ("EU__SEGMENT__REQUIRE", "signature,bearer", "destinations.eu.segment.require   each item must be one of: signature, bearer, write_key"),
        ("EU__SEGMENT__REQUIRE", "write_key", "destinations.eu.segment.require   names \"write_key\", but write_keys is not set"),
        ("EU__LAUNCHDARKLY__CLIENT_SIDE_ID", "", "destinations.eu.launchdarkly.client_side_id   is empty"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "hidden\nhidden", "destinations.eu.launchdarkly.service_token   contains a line break"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKN", "hidden", "destinations.eu.launchdarkly.service_tokn   unknown key; did you mean service_token?"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN_FILE", "/x", "service_token   is set, and so is service_token_file"),
        ("EU__LAUNCHDARKLY__BASE_URL", "app.launchdarkly.com", "destinations.eu.launchdarkly.base_url   is not a URL"),
        ("EU__LAUNCHDARKLY__BASE_URL", "ftp://x", "destinations.eu.launchdarkly.base_url   has the wrong scheme"),
        ("EU__LAUNCHDARKLY__BASE_URL", "https://u:hidden@x", "destinations.eu.launchdarkly.base_url   must not contain a user name"),
        ("EU__LAUNCHDARKLY__BASE_URL", "https://x?a", "destinations.eu.launchdarkly.base_url   must not have a query"),
        ("EU__LAUNCHDARKLY__PROXY", "socks5://u:hidden@x", "destinations.eu.launchdarkly.proxy   has the wrong scheme"),
        ("EU__LAUNCHDARKLY__CA_FILE", "/none", "destinations.eu.launchdarkly.ca_file = \"/none\"   cannot be read"),
        ("EU__LAUNCHDARKLY__CA_FILE", "Cargo.toml", "ca_file = \"Cargo.toml\"   holds no PEM certificate"),
        ("EU__DELIVERY__MIN_CONCURRENCY", "9", "destinations.eu.delivery.min_concurrency = 9   is above concurrency (4)"),
        ("EU__MAPPING__CONTEXT_KIND", "multi", "destinations.eu.mapping.context_kind = \"multi\"   must be letters"),
        ("EU__MAPPING__CONTEXT_KEY", "email", "destinations.eu.mapping.context_key = \"email\"   must be one of: user_id_only"),
        ("EU__MAPPING__MEMBERSHIP", "lax", "destinations.eu.mapping.membership = \"lax\"   must be one of: strict, reference"),
        ("EU__MAPPING__JOURNEY_STEP_WITHOUT_VALUE", "x", "journey_step_without_value = \"x\"   must be one of: enter, reject"),
    ];
    for (name, value, expected) in cases {
        let text = faults(load(&[(name, value)]));
        assert!(text.contains(expected), "{name}={value}\nexpected {expected}\n{text}");
        assert!(text.starts_with("config: 1 problem\n"), "one cause, one fault: {text}");
    }
}

#[test]
fn type_errors_in_the_file_are_faults_by_key_path() {
    #[rustfmt::skip]
    let cases = [
        ("[delivery]\nmax_batch = \"10\"", "delivery.max_batch   must be a whole number, not a string"),
        ("[delivery]\nlinger_ms = 0.5", "delivery.linger_ms   must be a whole number, not a fraction"),
        ("[log]\nlevel = 3", "log.level   must be a string in quotes, not a number"),
        ("listen = 3", "listen   is a section, not a value"),
        ("[listen.tls]", "listen.tls.key_file   not set; expected in COHORTD_LISTEN__TLS__KEY_FILE"),
        ("[listen.tls]\ncertificate_file = \"-----BEGIN hidden\"", "listen.tls.certificate_file   contains what should be in a file"),
        ("[admin.tls]\nca_file = \"x\"", "admin.tls.ca_file   unknown key"),
        ("destinations = 3", "destinations   is a section, not a value"),
        ("[destinations.eu.launchdarkly]\nservice_token = 12345", "service_token   must be a string in quotes, not a number"),
        ("[destinations.eu.segment]\nshared_secrets = \"hidden\"", "shared_secrets   must be a list of strings, as in [\"…\"], not a string"),
        ("[destinations.eu.segment]\nshared_secrets = [7]", "shared_secrets   item 0 must be a string in quotes"),
        ("[destinations.eu.segment]\nallow_unauthenticated = \"no\"", "allow_unauthenticated   must be true or false, not a string"),
        ("[destinations.\"e u\"]\nenabled = true", "destinations.e u   is not a valid name for a destination"),
        ("[destinations.eu", "cohortd.toml   TOML parse error at line 1, column 17: "),
        ("[destinations.eu]\nservice_token = \"hidden", "TOML parse error at line 2"),
    ];
    for (toml, expected) in cases {
        let text = faults(load_toml(toml));
        assert!(text.contains(expected), "{toml}\nexpected {expected}\n{text}");
    }
    let unreadable = faults(load_toml("[listen"));
    assert!(unreadable.starts_with("config: 1 problem\n"), "nothing is missing: {unreadable}");
}

#[test]
fn all_faults_are_found_at_once() {
    let text = faults(load_toml(
        "[delivery]\nretry_ceiling_ms = 200\n[listn]\n[destinations.eu.launchdarkly]\n\
         base_url = \"gopher://x\"\nservice_tokn = \"hidden\"\n[destinations.us]\nenabled = 7\n",
    ));
    let (text, from) = text.rsplit_once('\n').expect("its last line says where it was read");
    assert!(from.starts_with("read from /") && from.ends_with("/cohortd.toml"), "{from}");
    assert_eq!(
        text.lines().map(|line| line.split("; ").next().unwrap_or(line)).collect::<Vec<_>>(),
        [
            "config: 11 problems",
            "  delivery.retry_ceiling_ms = 200   is below retry_floor_ms (500)   \
             [COHORTD_DELIVERY__RETRY_CEILING_MS]",
            "  destinations.eu.segment.shared_secrets   not set",
            "  destinations.eu.launchdarkly.client_side_id   not set",
            "  destinations.eu.launchdarkly.service_token   not set",
            "  destinations.eu.launchdarkly.base_url   has the wrong scheme",
            "  destinations.eu.launchdarkly.service_tokn   unknown key",
            "  destinations.us.enabled   must be true or false, not a number   \
             [COHORTD_DESTINATIONS__US__ENABLED]",
            "  destinations.us.segment.shared_secrets   not set",
            "  destinations.us.launchdarkly.client_side_id   not set",
            "  destinations.us.launchdarkly.service_token   not set",
            "  listn   unknown key",
        ]
    );
}

#[test]
fn no_destination_is_a_fault_that_says_what_one_is() {
    let none: [(&str, &str); 0] = [];
    let text = faults(Config::load_from(None, none));
    assert!(text.contains("COHORTD_DESTINATIONS__<NAME>__LAUNCHDARKLY__CLIENT_SIDE_ID"), "{text}");
    assert!(text.contains("at least one is needed"), "{text}");
}

#[test]
fn two_destinations_on_one_environment_are_a_fault_however_its_url_is_written() {
    let destination = |name: &str, id: &str, url: &str| {
        format!(
            "[destinations.{name}]\nenabled = false\nsegment.shared_secrets = [\"hidden\"]\n\
             launchdarkly = {{ client_side_id = \"{id}\", service_token = \"hidden\", \
             base_url = \"{url}\" }}\n"
        )
    };
    let first = destination("a", "id", "https://app.launchdarkly.com");
    let same = destination("b", "id", "https://APP.launchdarkly.com:443//");
    let text = faults(load_toml(&format!("{first}{same}")));
    let expected = "destinations.b.launchdarkly.client_side_id   names the same environment as \
                    destinations.a";
    assert!(text.contains(expected), "{text}");
    for other in [
        destination("b", "id", "https://app.eu.launchdarkly.com"),
        destination("b", "other", "https://app.launchdarkly.com"),
    ] {
        load_toml(&format!("{first}{other}")).expect("these are two environments");
    }
}

#[test]
fn a_ledger_is_in_a_directory_or_in_a_database() {
    let url = ("COHORTD_LEDGER__URL", "postgres://u@%2Frun%2Fpostgresql/ledger");
    let shared = |changes: &[(&str, &str)]| match load(changes).expect("it is good").ledger.place {
        LedgerPlace::Database(address) => address.to_string(),
        LedgerPlace::Directory(directory) => panic!("{directory:?}"),
    };
    let socket = "PostgreSQL at /run/postgresql/.s.PGSQL.5432, database ledger";
    assert_eq!(shared(&[url]), socket);
    // as where an image names a directory
    assert_eq!(shared(&[url, ("COHORTD_LEDGER__PATH", "")]), socket);
    let text = faults(load(&[url, ("COHORTD_LEDGER__PATH", "/ledger")]));
    assert!(text.contains("ledger.path   is set, and so is a database (url)"), "{text}");
}

#[test]
fn what_is_legal_but_risky_is_warned_about() {
    #[rustfmt::skip]
    let cases = [
        ("COHORTD_LISTEN__ANSWER_TIMEOUT_MS", "5001", "listen.answer_timeout_ms: Segment gives up"),
        ("COHORTD_LEDGER__TOMBSTONE_TTL_S", "60", "ledger.tombstone_ttl_s: "),
        ("COHORTD_DELIVERY__MAX_BATCH", "1001", "delivery.max_batch: "),
        ("COHORTD_DELIVERY__LINGER_MS", "40000", "delivery.linger_ms: "),
        ("EU__DELIVERY__MAX_BATCH", "1001", "destinations.eu.delivery.max_batch: "),
        ("EU__ENABLED", "false", "destinations: none is enabled"),
        ("EU__SEGMENT__ALLOW_UNAUTHENTICATED", "true", "destinations.eu.segment.allow_unauthenticated: anybody"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "sdk-hidden-hidden", "destinations.eu.launchdarkly.service_token: looks like an SDK"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "hidden-hidden-hidden ", "destinations.eu.launchdarkly.service_token: has white space around it"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "hidden", "destinations.eu.launchdarkly.service_token: has fewer than 16 characters; LaunchDarkly's"),
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "api-replace-with-hidden", "destinations.eu.launchdarkly.service_token: is the placeholder"),
        ("EU__LAUNCHDARKLY__CLIENT_SIDE_ID", "replace-with-the-client-side-id", "destinations.eu.launchdarkly.client_side_id: is the placeholder"),
        ("EU__SEGMENT__SHARED_SECRETS", "hidden", "destinations.eu.segment.shared_secrets: has fewer than 16 characters and can be guessed"),
        ("EU__SEGMENT__BEARER_TOKENS", "hidden-hidden-hidden\nhidden", "destinations.eu.segment.bearer_tokens: item 1 has fewer than 16 characters"),
        ("EU__SEGMENT__BEARER_TOKENS", "bearer hidden-hidden-hidden", "destinations.eu.segment.bearer_tokens: begins with `Bearer `"),
        ("EU__SEGMENT__WRITE_KEYS", "\"hidden-hidden-hidden\"", "destinations.eu.segment.write_keys: is in quotes"),
        ("COHORTD_ADMIN__TOKENS", "\u{feff}hidden-hidden-hidden", "admin.tokens: begins with a byte order mark"),
        ("EU__LAUNCHDARKLY__CLIENT_SIDE_ID", "sdk-hidden", "destinations.eu.launchdarkly.client_side_id: looks like a key"),
        ("EU__LAUNCHDARKLY__BASE_URL", "http://ld.internal", "destinations.eu.launchdarkly.base_url: uses http:"),
    ];
    for (name, value, expected) in cases {
        let config = load(&[(name, value)]).expect(name);
        let [warning] = &config.warnings[..] else { panic!("{name}: {:?}", config.warnings) };
        assert!(warning.starts_with(expected), "{name}: {warning}");
        assert!(!format!("{config:?}").contains("hidden"), "{config:?}");
    }
    let loopback = load(&[("EU__LAUNCHDARKLY__BASE_URL", "http://127.0.0.1:1")]);
    assert_eq!(loopback.expect("it is good").warnings, [""; 0]);
}

#[test]
fn what_is_required_can_be_shown_together_and_outweighs_leave_to_show_nothing() {
    let with = |require, open| {
        load(&[
            ("EU__SEGMENT__BEARER_TOKENS", "hidden-bearer-token"),
            ("EU__SEGMENT__WRITE_KEYS", "hidden-write-key-eu"),
            ("EU__SEGMENT__REQUIRE", require),
            ("EU__SEGMENT__ALLOW_UNAUTHENTICATED", open),
        ])
    };
    with("signature\nwrite_key", "false").expect("a header each");
    let text = faults(with("bearer\nsignature\nwrite_key", "false"));
    assert!(text.contains("require   names both \"bearer\" and \"write_key\""), "{text}");
    let config = with("signature", "true").expect("it is good");
    let expected = "destinations.eu.segment.allow_unauthenticated: has no effect";
    assert!(config.warnings[0].starts_with(expected), "{:?}", config.warnings);
}

#[test]
fn the_environment_wins_over_the_file_and_its_texts_stay_texts() {
    let config = load(&[
        ("EU__LAUNCHDARKLY__SERVICE_TOKEN", "00123"),
        ("EU__LAUNCHDARKLY__CLIENT_SIDE_ID", "1e5"),
        ("EU__LAUNCHDARKLY__PROJECT", "true"),
        ("EU__SEGMENT__SHARED_SECRETS", "007\r\n\na b\n"),
        ("EU__SEGMENT__BEARER_TOKENS", "1.0"),
        ("EU__SEGMENT__REQUIRE", "signature\nbearer"),
        ("EU__DELIVERY__LINGER_MS", "0"),
        ("COHORTD_DELIVERY__CONCURRENCY", "9"),
        ("COHORTD_DESTINATIONS__TWO__SEGMENT__ALLOW_UNAUTHENTICATED", "TRUE"),
        ("COHORTD_DESTINATIONS__TWO__LAUNCHDARKLY__CLIENT_SIDE_ID", "2"),
        ("COHORTD_DESTINATIONS__TWO__LAUNCHDARKLY__SERVICE_TOKEN", "2"),
        ("COHORTD_SERVICE_HOST", "10.0.0.1"),
        ("COHORTD_CONFIG", "/elsewhere.toml"),
    ])
    .expect("it is good");
    let eu = config.destination("eu").expect("it is configured");
    assert_eq!(eu.launchdarkly.service_token.expose(), "00123");
    assert_eq!(eu.launchdarkly.client_side_id, "1e5");
    assert_eq!(eu.launchdarkly.project.as_deref(), Some("true"));
    let segment = eu.segment.as_ref().expect("it has a path");
    assert_eq!(exposed(&segment.credentials.shared_secrets), ["007", "a b"]);
    assert_eq!(exposed(&segment.credentials.bearer_tokens), ["1.0"]);
    assert_eq!(segment.credentials.require, [Credential::Signature, Credential::Bearer]);
    assert_eq!(
        (eu.delivery.policy.linger, eu.delivery.policy.concurrency.get()),
        (Duration::ZERO, 9)
    );
    let two = config.destination("two").and_then(|two| two.segment.as_ref());
    assert!(two.is_some_and(|segment| segment.credentials.allow_unauthenticated));

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cohortd.toml");
    std::fs::write(&file, include_str!("../../config/example.toml")).expect("it can be written");
    let token = "COHORTD_DESTINATIONS__PRODUCTION__LAUNCHDARKLY__SERVICE_TOKEN";
    let config = Config::load_from(Some(&file), [(token, "0")]).expect("the example is good");
    let production = config.destination("production").expect("the example has it");
    assert_eq!(production.launchdarkly.service_token.expose(), "0");
    assert_eq!(production.launchdarkly.project.as_deref(), Some("web"));
}

#[test]
fn secrets_come_from_files_without_their_last_newline() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    };
    let toml = |token: &str| {
        format!(
            "[admin]\ntokens_file = {:?}\n[destinations.eu.segment]\nshared_secrets_file = {:?}\n\
             bearer_tokens_file = {:?}\nwrite_keys_file = {:?}\n[destinations.eu.launchdarkly]\n\
             client_side_id = \"id\"\nservice_token_file = {token:?}\n\
             [telemetry]\notlp_endpoint = 'http://[::1]:4318'\notlp_headers_file = {:?}\n",
            file("admin", "x\n"),
            file("shared", "one\r\ntwo\n\n"),
            file("bearer", "three"),
            file("keys", "four\n"),
            file("headers", "x-key: hidden\n"),
        )
    };
    let config = load_toml(&toml(&file("token", " hidden\r\n"))).expect("it is good");
    let eu = config.destination("eu").expect("it is configured");
    assert_eq!(eu.launchdarkly.service_token.expose(), "hidden", "blanks are never meant");
    let segment = eu.segment.as_ref().expect("it has a path");
    assert_eq!(exposed(&segment.credentials.shared_secrets), ["one", "two"]);
    assert_eq!(exposed(&segment.credentials.bearer_tokens), ["three"]);
    assert_eq!(exposed(&segment.credentials.write_keys), ["four"]);
    assert_eq!(exposed(&config.admin.tokens), ["x"]);
    let headers = &config.telemetry.as_ref().expect("there is a collector").otlp_headers;
    assert_eq!((headers[0].0.as_str(), headers[0].1.as_bytes()), ("x-key", &b"hidden"[..]));
    assert!(!format!("{config:?}").contains("hidden"), "{config:?}");

    let cases = [
        (file("empty", "\n"), "service_token_file   names an empty file"),
        (file("binary", "x").replace("binary", "none"), "cannot be read: No such file"),
        ("api-hidden".to_owned(), "service_token_file   looks like the secret itself"),
    ];
    for (token, expected) in cases {
        let text = faults(load_toml(&toml(&token)));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_signature_alone_is_warned_about_where_it_leaves_the_rest_of_a_batch_open() {
    let told = |changes: &[(&str, &str)]| {
        let bearer = ("EU__SEGMENT__BEARER_TOKENS", "hidden-bearer-token");
        let write_key = ("EU__SEGMENT__WRITE_KEYS", "hidden-write-key-eu");
        let all: Vec<_> = [bearer, write_key].into_iter().chain(changes.iter().copied()).collect();
        load(&all).expect("it is legal").warnings
    };
    let (batches, require) = ("EU__SEGMENT__ALLOW_BATCHES", "EU__SEGMENT__REQUIRE");
    let expected =
        "destinations.eu.segment.require: a signature is enough, and covers only the first event";
    for open in [&[(batches, "true")][..], &[(batches, "true"), (require, "signature")]] {
        let [warning] = &told(open)[..] else { panic!("{open:?}: {:?}", told(open)) };
        assert!(warning.starts_with(expected), "{warning}");
    }
    for closed in [
        &[(batches, "false")][..],
        &[(batches, "true"), (require, "signature\nbearer")],
        &[(batches, "true"), (require, "bearer")],
        &[(batches, "true"), (require, "signature\nwrite_key")],
    ] {
        assert_eq!(told(closed), [""; 0], "{closed:?}");
    }
}

#[test]
fn a_token_may_change_things_or_it_may_not() {
    let config = load(&[
        ("COHORTD_ADMIN__TOKENS", "hidden-admin-token-1\nhidden-admin-token-2"),
        ("COHORTD_ADMIN__READ_TOKENS", "hidden-read-token-1"),
    ])
    .expect("it is good");
    assert_eq!(exposed(&config.admin.tokens), ["hidden-admin-token-1", "hidden-admin-token-2"]);
    assert_eq!(exposed(&config.admin.read_tokens), ["hidden-read-token-1"]);
    assert_eq!(config.warnings, [""; 0]);
    assert!(!format!("{config:?}").contains("hidden"), "{config:?}");
    let text = faults(load(&[
        ("COHORTD_ADMIN__TOKENS", "hidden-admin-token-1\nhidden-admin-token-2"),
        ("COHORTD_ADMIN__READ_TOKENS", "hidden-read-token-1\n hidden-admin-token-2"),
    ]));
    let expected = "config: 1 problem\n  admin.read_tokens   has a token that is in tokens too";
    assert!(text.starts_with(expected), "{text}");
    // outside loopback, read tokens alone are not enough
    let text = faults(load(&[
        ("COHORTD_ADMIN__ADDRESS", "0.0.0.0:8081"),
        ("COHORTD_ADMIN__READ_TOKENS", "hidden-read-token-1"),
    ]));
    assert!(text.starts_with("config: 1 problem\n  admin.tokens   not set; "), "{text}");
}

/// Secrets in files of their own and in the configuration file, all readable by others.
#[test]
fn a_secret_that_others_can_read_is_warned_about_by_its_key_and_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let (certificate, key) = pair(2100);
    for (name, text) in [
        ("segment", "hidden-shared-secret\n"),
        ("admin", "hidden-admin-token\n"),
        ("look", "hidden-read-token\n"),
        ("launchdarkly", "hidden-service-token\n"),
        ("headers", "x-key: hidden\n"),
        ("certificate", &certificate),
        ("key", &key),
    ] {
        write_private(&at(name), text);
    }
    let file = at("cohortd.toml");
    let toml = format!(
        "[listen.tls]\ncertificate_file = {:?}\nkey_file = {:?}\n\
         [admin]\ntokens_file = {:?}\nread_tokens_file = {:?}\n\
         [telemetry]\notlp_endpoint = 'http://[::1]:4318'\notlp_headers_file = {:?}\n\
         [destinations.eu.segment]\nshared_secrets_file = {:?}\nbearer_tokens = ['hidden-bearer-token']\n\
         require = ['signature', 'bearer']\n\
         [destinations.eu.launchdarkly]\nclient_side_id = 'id'\nservice_token_file = {:?}\n\
         proxy = 'http://user:hidden@proxy:3128'\n",
        at("certificate"),
        at("key"),
        at("admin"),
        at("look"),
        at("headers"),
        at("segment"),
        at("launchdarkly"),
    );
    write_private(&file, &toml);
    let warnings = || {
        let config = Config::load_from(Some(&file), [("IGNORED", "")]).expect("it is good");
        assert!(!config.warnings.concat().contains("hidden"), "{:?}", config.warnings);
        config.warnings
    };
    assert_eq!(warnings(), [""; 0]);
    for name in ["segment", "admin", "look", "launchdarkly", "headers", "key"] {
        chmod(&at(name), 0o640);
    }
    assert_eq!(warnings(), [""; 0], "a group may be the daemon's");

    #[rustfmt::skip]
    let table = [
        ("segment", 0o644, "destinations.eu.segment.shared_secrets_file", "every user of this machine can read (mode 0644)"),
        ("admin", 0o604, "admin.tokens_file", "every user of this machine can read (mode 0604)"),
        ("look", 0o444, "admin.read_tokens_file", "every user of this machine can read (mode 0444)"),
        ("launchdarkly", 0o660, "destinations.eu.launchdarkly.service_token_file", "users other than its owner can replace the content of (mode 0660)"),
        ("headers", 0o666, "telemetry.otlp_headers_file", "other users of this machine can read and replace the content of (mode 0666)"),
        ("key", 0o644, "listen.tls.key_file", "every user of this machine can read (mode 0644)"),
    ];
    for (name, mode, key, what) in table {
        chmod(&at(name), mode);
        let expected = format!("{key}: names {:?}, which {what}: ", at(name));
        let told = warnings();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&expected) && told[0].contains("chmod 6"), "{told:?}");
        chmod(&at(name), 0o600);
    }
    chmod(&at("certificate"), 0o644);
    assert_eq!(warnings(), [""; 0], "a certificate is no secret");

    chmod(&file, 0o644);
    let stands = format!("is in \"{}\", which every user of this machine can read", file.display());
    let told = warnings();
    assert_eq!(told.len(), 2, "{told:?}");
    let bearer = format!("destinations.eu.segment.bearer_tokens: {stands}");
    assert!(told[0].starts_with(&bearer) && told[0].ends_with("(bearer_tokens_file)"), "{told:?}");
    let proxy = format!("destinations.eu.launchdarkly.proxy: has a password, and {stands}");
    assert!(told[1].starts_with(&proxy), "{told:?}");
}

#[test]
fn a_proxy_keeps_its_password_to_itself() {
    let config = load(&[("EU__LAUNCHDARKLY__PROXY", "http://u:hidden@proxy:3128")]);
    let config = config.expect("it is good");
    assert!(config.destinations[0].launchdarkly.proxy.is_some());
    assert!(!format!("{config:?}").contains("hidden"), "{config:?}");
}

fn exposed(secrets: &[Secret]) -> Vec<&str> {
    secrets.iter().map(Secret::expose).collect()
}

const EU: &str = r#"
[destinations.eu.segment]
shared_secrets = ["hidden-shared-secret"]
allow_batches = false
[destinations.eu.launchdarkly]
client_side_id = "id"
service_token = "hidden-service-token"
"#;

fn mappings(text: &str) -> Vec<String> {
    let config = load_toml(&format!("{text}\n{EU}")).expect("it is good");
    config.destinations[0].mappings.all().iter().map(ToString::to_string).collect()
}

#[test]
fn mappings_are_one_section_or_several_and_may_be_pasted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pasted = folder.path().join("pasted.json");
    let shown = pasted.display();
    let of = |path: &str| json!({"context_kind": {"@path": path}, "batch_size": 1000});
    let rows = [
        (
            of("$.kind"),
            format!("[destinations.eu]\nmapping_file = '{shown}'\nsubscribe = 'type = \"group\"'"),
            vec![r#"context kind $.kind, context key user_id_only, if type = "group""#],
        ),
        (
            json!({"mapping": of("$.kind"), "subscribe": "type = 'page'"}),
            format!(
                "[destinations.eu.mapping]\nmapping_file = '{shown}'\ncontext_key = 'email_only'"
            ),
            vec![r#"context kind $.kind, context key email_only, if type = "page""#],
        ),
        (
            of("$.kind"),
            "[[destinations.eu.mapping]]\nsubscribe = \"type = 'a'\"\nmembership = 'reference'\n\
             [[destinations.eu.mapping]]\nenabled = false\n\
             [[destinations.eu.mapping]]\nsubscribe = \"type = 'b'\"\n\
             context_kind = { '@path' = '$.context.kind' }\n\
             journey_step_without_value = 'reject'"
                .to_owned(),
            vec![
                r#"context kind user, context key user_id_only, if type = "a"; membership by truthiness"#,
                r#"context kind $.context.kind, context key user_id_only, if type = "b"; a journey step without a value is rejected"#,
            ],
        ),
    ];
    for (json, toml, expected) in rows {
        std::fs::write(&pasted, json.to_string()).expect("a temporary file can be written");
        assert_eq!(mappings(&toml), expected, "{toml}");
    }
    let directive = r#"{"@path": "$.kind"}"#;
    let config = load(&[("EU__MAPPING__CONTEXT_KIND", directive)]).expect("it is good");
    let [mapping] = config.destinations[0].mappings.all() else { panic!("one mapping") };
    assert!(mapping.to_string().starts_with("context kind $.kind, "), "{mapping}");
}

#[test]
fn faults_of_a_mapping_are_told_by_key_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{\"a\": ").expect("a temporary file can be written");
    let broken = broken.display();
    let rows = [
        (
            format!("[destinations.eu.mapping]\nmapping_file = '{broken}'"),
            format!("destinations.eu.mapping.mapping_file = \"{broken}\"   is not JSON at line 1, column 6"),
        ),
        (
            "[destinations.eu]\nmapping_file = 'none.json'".to_owned(),
            "none.json\"   cannot be read: ".to_owned(),
        ),
        (
            "[destinations.eu.mapping]\nsubscribe = 'type ='".to_owned(),
            "destinations.eu.mapping.subscribe   ".to_owned(),
        ),
        (
            "[destinations.eu]\nsubscribe = 'type = \"a\"'\n[destinations.eu.mapping]\nsubscribe = 'type = \"a\"'".to_owned(),
            "destinations.eu.subscribe   is set, and so is destinations.eu.mapping.subscribe: keep one of them".to_owned(),
        ),
        (
            "[destinations.eu]\nsubscribe = 'type = \"a\"'\n[[destinations.eu.mapping]]\n[[destinations.eu.mapping]]".to_owned(),
            "destinations.eu.subscribe   belongs in one of the mappings, because there are several".to_owned(),
        ),
        (
            "[[destinations.eu.mapping]]\n[[destinations.eu.mapping]]\ncontext_kind = 'multi'".to_owned(),
            "destinations.eu.mapping[1].context_kind = \"multi\"   must be letters, digits, `.`, `_` and `-`, and neither `kind` nor `multi`\n".to_owned(),
        ),
        (
            "[destinations.eu.mapping]\nallow_audiences = ['[']".to_owned(),
            "destinations.eu.mapping.allow_audiences = \"[\"   a [ in the pattern is never closed".to_owned(),
        ),
        (
            "[destinations.eu.mapping.audiences.vip]\ncontext_key = 'email'\nkind = 'x'".to_owned(),
            "destinations.eu.mapping.audiences.vip.context_key = \"email\"   must be one of: user_id_only".to_owned(),
        ),
        (
            "[destinations.eu.mapping.audiences.vip]\nexpires_after_s = 0".to_owned(),
            "destinations.eu.mapping.audiences.vip.expires_after_s = 0   must be from 1 to 315360000".to_owned(),
        ),
        (
            "[[destinations.eu.mapping]]\naudiences.vip.expires_after_s = 60\n\
             [[destinations.eu.mapping]]\naudiences.vip.expires_after_s = 61".to_owned(),
            "destinations.eu.mapping   sets expires_after_s of audience \"vip\" to 60 and to 61: an audience has one".to_owned(),
        ),
        (
            "[destinations.eu.mapping]\nsegment_user = 'x'".to_owned(),
            "destinations.eu.mapping.segment_user   unknown key; did you mean segment_user_id?".to_owned(),
        ),
    ];
    for (toml, expected) in rows {
        let text = faults(load_toml(&format!("{toml}\n{EU}")));
        assert!(format!("{text}\n").contains(&expected), "{toml}\n{expected}\n{text}");
    }
}

#[test]
fn entries_expire_in_the_audiences_that_any_enabled_mapping_names() {
    let rows = [
        ("", vec![]),
        ("[destinations.eu.mapping.audiences.vip]\ncontext_key = 'email_only'", vec![]),
        (
            "[destinations.eu.mapping.audiences.vip]\nexpires_after_s = 60\n\
             [destinations.eu.mapping.audiences.trial]\nexpires_after_s = 1",
            vec![("trial", 1), ("vip", 60)],
        ),
        (
            "[[destinations.eu.mapping]]\naudiences.vip.expires_after_s = 60\n\
             [[destinations.eu.mapping]]\naudiences.vip.expires_after_s = 60\n\
             audiences.trial.expires_after_s = 1\n\
             [[destinations.eu.mapping]]\nenabled = false\naudiences.vip.expires_after_s = 7\n\
             [[destinations.eu.mapping]]\naudiences.vip.context_key = 'email_only'",
            vec![("trial", 1), ("vip", 60)],
        ),
    ];
    for (text, expected) in rows {
        let config = load_toml(&format!("{text}\n{EU}")).expect("it is good");
        let found: Vec<_> = config.destinations[0]
            .expires_after
            .iter()
            .map(|(audience, after)| (audience.as_str(), after.as_secs()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn what_a_mapping_surely_does_not_mean_is_a_warning() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pasted = folder.path().join("pasted.json");
    let fields = json!({
        "segment_user_id": {"@template": "{{userId}"}, "segment_usr_id": 1, "colour": {"@newer": 1},
        "batch_size": 1000,
    });
    std::fs::write(&pasted, fields.to_string()).expect("a temporary file can be written");
    let toml = format!(
        "[destinations.eu]\nmapping_file = '{}'\n[destinations.eu.mapping]\n\
         traits_or_props = 'traits'\nuser_email = {{ '@path' = '$.traits.email' }}\n{EU}",
        pasted.display()
    );
    let warnings = load_toml(&toml).expect("it is legal").warnings;
    let expected = [
        "destinations.eu.mapping_file: segment_user_id.@template has unbalanced braces",
        "destinations.eu.mapping_file: segment_user_id rejects every event: segment_user_id still has the braces",
        "destinations.eu.mapping_file: segment_usr_id is not a field of the action, and is \
         ignored; did you mean segment_user_id?",
        "destinations.eu.mapping_file: colour is not a field of the action, and is ignored",
        "destinations.eu.mapping.traits_or_props: traits_or_props rejects every event: traits_or_props must be an object",
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
    for (warning, expected) in warnings.iter().zip(expected) {
        assert!(warning.starts_with(expected), "{warning}");
    }
    std::fs::write(&pasted, r#"{"__segment_internal_directive": {}}"#).expect("it is ours");
    let text = faults(load_toml(&toml));
    assert!(text.contains("__segment_internal_directive is not a field of the action"), "{text}");
}

/// Two destinations and a route to both; `inner` has no path of its own.
const ROUTED: &str = r#"
[destinations.eu.segment]
write_keys = ["hidden-write-key-eu"]
[destinations.eu.launchdarkly]
client_side_id = "1"
service_token = "hidden-service-token-1"
[destinations.inner.launchdarkly]
client_side_id = "2"
service_token = "hidden-service-token-2"
[routes.all]
destinations = ["inner", "eu"]
[routes.all.segment]
shared_secrets = ["hidden-shared-secret-all"]
write_keys = ["hidden-write-key-route"]
allow_batches = false
"#;

#[test]
fn a_route_names_destinations_and_has_a_path_of_its_own() {
    let config = load_toml(ROUTED).expect("it is good");
    let route = config.route("all").expect("it is there");
    let names: Vec<&str> = route.destinations.iter().map(DestinationName::as_str).collect();
    assert_eq!(names, ["inner", "eu"], "in the order in which they are written");
    assert_eq!(exposed(&route.segment.credentials.shared_secrets), ["hidden-shared-secret-all"]);
    let has_path = |name| config.destination(name).expect("it is there").segment.is_some();
    assert!(has_path("eu") && !has_path("inner"));
    assert_eq!(config.warnings, [""; 0]);

    let from_environment = load(&[
        ("COHORTD_ROUTES__ALL__DESTINATIONS", "eu"),
        ("COHORTD_ROUTES__ALL__SEGMENT__BEARER_TOKENS", "x"),
    ]);
    assert_eq!(from_environment.expect("it is good").routes.len(), 1);
    let disabled = ROUTED.replace(
        "[destinations.inner.l",
        "[destinations.inner]\nenabled = false\n[destinations.inner.l",
    );
    let warnings = load_toml(&disabled).expect("it is legal").warnings;
    let expected =
        "routes.all.destinations: destinations.inner is not enabled, so the route answers 503";
    assert_eq!(warnings, [expected]);
}

#[test]
fn each_rule_of_routes_has_its_fault() {
    #[rustfmt::skip]
    let cases = [
        ("[routes.all]", "[routes.eu]", "routes.eu   has the name of a destination: both would be at the same path"),
        ("[routes.all]", "[routes.All]", "routes.All   is not a valid name for a route"),
        ("[\"inner\", \"eu\"]", "[]", "routes.all.destinations   is empty"),
        ("destinations = [\"inner\", \"eu\"]", "", "routes.all.destinations   not set; expected in COHORTD_ROUTES__ALL__DESTINATIONS"),
        ("\"eu\"]", "\"us\"]", "routes.all.destinations = \"us\"   is not a configured destination"),
        ("\"eu\"]", "\"inner\"]", "routes.all.destinations = \"inner\"   is listed twice"),
        ("\"hidden-write-key-route\"", "\"hidden-write-key-eu\"", "routes.all.segment.write_keys   shares a key with destinations.eu; a write key must identify one destination or route"),
        ("shared_secrets = [\"hidden-shared-secret-all\"]\nwrite_keys = [\"hidden-write-key-route\"]", "", "routes.all.segment.shared_secrets   not set"),
        ("[\"inner\", \"eu\"]", "[\"eu\"]", "destinations.inner.segment.shared_secrets   not set"),
        ("[destinations.inner.l", "[destinations.inner.segment]\nallow_batches = false\n[destinations.inner.l", "destinations.inner.segment.shared_secrets   not set"),
        ("[routes.all.segment]", "colour = 1\n[routes.all.segment]", "routes.all.colour   unknown key"),
    ];
    for (from, to, expected) in cases {
        let toml = ROUTED.replace(from, to);
        let name = if to.starts_with("[routes.") { &to[8..to.len() - 1] } else { "all" };
        let toml = toml.replace("[routes.all.segment]", &format!("[routes.{name}.segment]"));
        let text = faults(load_toml(&toml));
        assert!(text.contains(expected), "expected {expected}\n{text}");
        assert!(text.starts_with("config: 1 problem\n"), "one cause, one fault: {text}");
    }
}

#[test]
fn fingerprints_tell_what_has_changed_and_the_files_are_known() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it is ours");
        path
    };
    let file = folder.path().join("cohortd.toml");
    let token = write("token", "hidden-old");
    let mapping = write("mapping.json", "{}");
    let toml = |rest: &str| {
        format!(
            "[destinations.eu]\nmapping_file = {mapping:?}\n[destinations.eu.segment]\n\
             write_keys = [\"hidden\"]\n[destinations.eu.launchdarkly]\nclient_side_id = \"1\"\n\
             service_token_file = {token:?}\n{rest}"
        )
    };
    let read = |rest: &str| {
        std::fs::write(&file, toml(rest)).expect("it is ours");
        Config::read(&Source::exactly(Some(&file)), [("IGNORED", "")])
    };
    let first = read("");
    let mut known = Files::default();
    for path in [&file, &token, &mapping] {
        known.note(path);
    }
    assert_eq!(first.files, known, "each file that was read");
    let before = first.config.expect("it is good").fingerprints;
    let changed = |rest| before.changed(&read(rest).config.expect("it is good").fingerprints);

    assert_eq!(changed(""), [].into());
    assert_eq!(changed("[listen]\nmax_requests = 7"), ["listen.max_requests".to_owned()].into());
    assert_eq!(changed("[log]\nlevel = \"info\""), [].into(), "as the default");
    write("token", "hidden-new");
    let key = "destinations.eu.launchdarkly.service_token_file".to_owned();
    assert_eq!(changed(""), [key.clone()].into());
    write("mapping.json", "{\"context_kind\": \"device\"}");
    assert_eq!(changed(""), [key, "destinations.eu.mapping_file".to_owned()].into());
    assert!(!format!("{before:?}").contains("hidden"), "{before:?}");

    std::fs::remove_file(&mapping).expect("it is ours");
    let faulty = read("");
    assert!(faulty.config.is_err());
    assert!(
        faulty.files != known && faulty.files == faulty.files.now(),
        "those of a faulty one too"
    );
}

#[test]
fn origins_of_web_pages_are_read_as_browsers_write_them() {
    let load = |origins| {
        load(&[("EU__SEGMENT__CORS_ORIGINS", origins), ("EU__SEGMENT__WRITE_KEYS", "hidden-key")])
    };
    let table = [
        ("*", "*"),
        ("https://www.example.com", "https://www.example.com"),
        ("HTTPS://WWW.Example.com:443/", "https://www.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://LocalHost/", "ionic://localhost"),
        ("app://shop:8080", "app://shop:8080"),
        (
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        ),
    ];
    for (written, read) in table {
        let config = load(written).expect("it is good");
        let segment = config.destinations[0].segment.as_ref().expect("it has one");
        assert_eq!(segment.cors_origins, [read], "{written}");
    }
    for wrong in [
        "www.example.com",
        "https://x.example/shop",
        "https://ada@x.example",
        "file:///",
        "**",
        "capacitor://",
        "ionic://x/y",
        "data:text",
        "null",
    ] {
        let text = faults(load(wrong));
        let expected = format!("segment.cors_origins = {wrong}   must be origins of web pages");
        assert!(text.contains(&expected), "{text}");
    }
    for pattern in ["https://*.example", "https://*", "*://localhost", "app://*"] {
        let text = faults(load(pattern));
        assert!(text.contains(&format!("segment.cors_origins = {pattern}   ")), "{text}");
    }
    let text = faults(load("https://*.example"));
    assert!(text.contains("is a pattern, which matches no origin"), "{text}");
}

#[test]
fn an_appended_field_that_decides_what_becomes_of_an_event_is_warned_of() {
    let load = |fields| load(&[("EU__SEGMENT__EXTRA_FIELDS", fields)]);
    let warned = |fields| {
        let warnings = load(fields).expect("it is good").warnings;
        let of_fields = warnings.iter().map(ToString::to_string);
        of_fields.filter(|warning| warning.contains("extra_fields")).collect::<Vec<_>>()
    };
    assert_eq!(warned("plan\nregion"), Vec::<String>::new());
    let all = warned("plan\nuserId\ntimestamp");
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].contains("names userId, which decides"), "{all:?}");
}

/// A misspelt key does not mean the default: the ledger or the daemon there may be another one.
#[test]
fn whoever_reads_one_section_refuses_its_unknown_keys_and_no_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cohortd.toml");
    let table = [
        ("[ledger]\npath = \"a\"\n[admin]\naddress = \"127.0.0.1:1\"\n", None, None),
        ("[ledger]\npat = \"a\"\n", Some("ledger.pat   unknown key; did you mean path?"), None),
        ("[ledgers]\npath = \"a\"\n", Some("ledgers   unknown key; did you mean ledger?"), None),
        ("[ledger]\npath = \"a\"\ncache_mb = 1\n", Some("ledger.cache_mb   unknown key"), None),
        ("[ledger]\npath = \"a\"\ncache_mib = \"much\"\n", None, None),
        (
            "[admin]\nadress = \"a\"\n",
            None,
            Some("admin.adress   unknown key; did you mean address?"),
        ),
        ("[admim]\naddress = \"a\"\n", None, Some("admim   unknown key; did you mean admin?")),
        ("[admin]\ntokens_fle = \"a\"\n", None, Some("admin.tokens_fle   unknown key")),
        ("[admin.tls]\ncertificate = \"a\"\n", None, Some("admin.tls.certificate   unknown key")),
        ("odd = 1\n[listen]\nadress = \"a\"\n[destinations.x]\nodd = 1\n", None, None),
    ];
    for (toml, ledger, admin) in table {
        write_private(&file, toml);
        let is = |faults: Option<Faults>, expected: Option<&str>, what: &str| {
            let said = faults.map(|faults| faults.to_string()).unwrap_or_default();
            assert_eq!(said.is_empty(), expected.is_none(), "{what} of {toml}: {said}");
            assert!(said.contains(expected.unwrap_or_default()), "{what} of {toml}: {said}");
        };
        is(LedgerPlace::read(Some(&file)).err(), ledger, "ledger");
        is(Access::read(Some(&file)).unknown, admin, "admin");
    }
}

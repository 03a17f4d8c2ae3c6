//! The layers of the configuration, merged into one tree: embedded defaults, then the file, then
//! the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Map, Value, ValueKind};

use super::faults::Report;
use super::source::Source;

/// The origin ([`Value::origin`]) of values from the environment; the wording is the `config` crate's.
pub(super) const ENVIRONMENT: &str = "the environment";

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Where the file is looked for if none is named.
const PLACES: [&str; 2] = ["cohortd.toml", "/etc/cohortd/cohortd.toml"];

/// Variables that the command line reads; they are not keys.
const NO_KEYS: [&str; 2] = ["config", "admin_url"];

/// The file to read: `named`, or else `COHORTD_CONFIG`, or else the first of [`PLACES`] that exists.
pub(super) fn locate(named: Option<&Path>) -> Source {
    let from_environment = || std::env::var_os("COHORTD_CONFIG").filter(|path| !path.is_empty());
    let named = named.map(Path::to_owned).or_else(|| from_environment().map(PathBuf::from));
    let places = PLACES.map(PathBuf::from);
    // A file whose existence cannot be determined counts as existing: reading it will report why.
    let there = || places.iter().find(|path| path.try_exists().unwrap_or(true)).cloned();
    match named.or_else(there) {
        Some(file) => Source::exactly(Some(&file)),
        None => Source::none_of(places.to_vec()),
    }
}

/// The merged layers.
pub(super) struct Merged {
    pub tree: Map<String, Value>,
    /// Whether every layer could be read.
    pub complete: bool,
    /// Whether the section to salvage could be read although the file is not valid TOML.
    pub salvaged: bool,
}

/// Merges the layers. A layer that cannot be read is reported and left out, and the tree is then marked as
/// incomplete. If the file is not valid TOML, its section `salvage` is still read if possible.
pub(super) fn merge(
    source: &Source,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    report: &Report,
    salvage: Option<&str>,
) -> Merged {
    let mut layers = config::Config::builder();
    let (mut complete, mut salvaged) = (true, false);
    report.reads(source);
    if let Some(path) = source.file() {
        match read(path, report) {
            Ok(values) => layers = layers.add_source(values),
            Err(text) => {
                complete = false;
                if let Some(values) = salvage.and_then(|section| salvage_section(&text, section)) {
                    layers = layers.add_source(values);
                    salvaged = true;
                }
            }
        }
    }
    // Not `try_parsing`: a token that consists of digits must stay text. `Section` parses numbers where
    // numbers are expected.
    layers = layers.add_source(
        Environment::default().separator("__").source(Some(variables(environment, report))),
    );
    match layers.build().and_then(on_defaults) {
        Ok(config::Config { cache: Value { kind: ValueKind::Table(tree), .. }, .. }) => {
            Merged { tree, complete, salvaged }
        }
        Ok(_) => Merged { tree: Map::new(), complete: false, salvaged: false },
        Err(error) => {
            report.fault_of("configuration", message(&error.to_string()));
            Merged { tree: Map::new(), complete: false, salvaged: false }
        }
    }
}

/// What is set, on top of the embedded defaults.
fn on_defaults(set: config::Config) -> Result<config::Config, config::ConfigError> {
    let mut defaults =
        config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build()?;
    let is_shared =
        ["ledger.url", "ledger.url_file"].iter().any(|key| set.get::<Value>(key).is_ok());
    if is_shared && let ValueKind::Table(tree) = &mut defaults.cache.kind {
        // A ledger in a database has no directory, unless somebody says so, which is a fault.
        if let Some(ValueKind::Table(ledger)) = tree.get_mut("ledger").map(|of| &mut of.kind) {
            ledger.remove("path");
        }
    }
    config::Config::builder().add_source(defaults).add_source(set).build()
}

/// The parsed file. Errors: the text of the file if it is not valid TOML, or an empty text if it cannot be
/// read.
fn read(path: &Path, report: &Report) -> Result<config::Config, String> {
    let shown = path.display().to_string();
    let text = match report.read_configuration(path) {
        Ok(text) => text,
        Err(error) => {
            report.fault_of(shown, format!("cannot be read: {error}"));
            return Err(String::new());
        }
    };
    parse(&text).map_err(|error| {
        let error = error.to_string();
        report.fault_of(shown, message(&error) + unquoted(&error, &text));
        text
    })
}

fn parse(text: &str) -> Result<config::Config, config::ConfigError> {
    config::Config::builder().add_source(File::from_str(text, FileFormat::Toml)).build()
}

/// Extracts one section, with its subsections, from a text that is not valid TOML as a whole: each from its
/// heading to the next heading. An operator may ask for the daemon's state just when somebody is editing
/// the file.
fn salvage_section(text: &str, section: &str) -> Option<config::Config> {
    let mut kept = String::new();
    let mut is_wanted = false;
    for line in text.lines() {
        if let Some(heading) = line.trim_start().strip_prefix('[') {
            let name = heading.split(']').next().unwrap_or_default().trim();
            let below = name.strip_prefix(section);
            is_wanted = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        }
        if is_wanted {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    if kept.is_empty() { None } else { parse(&kept).ok() }
}

/// The parser's message without the line it quotes, which may hold a secret ([P8](crate::design::P8)).
fn message(error: &str) -> String {
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("TOML parse error") {
        return format!("cannot be parsed: {first}");
    }
    // The next three lines quote the text and point into it.
    let words: Vec<&str> = lines.skip(3).filter(|line| !line.contains(" | ")).collect();
    format!("{first}: {}", words.join(", "))
}

/// A hint at the likely mistake in the line that the parser rejects, for messages that say little.
fn unquoted(error: &str, text: &str) -> &'static str {
    let line = || {
        let (_, rest) = error.lines().next()?.split_once("at line ")?;
        let number: usize = rest.split(',').next()?.parse().ok()?;
        text.lines().nth(number.checked_sub(1)?)
    };
    let value = line().and_then(|line| line.split_once('=')).map(|(_, value)| value.trim());
    let is_bare = value.is_some_and(|value| {
        let value = value.split('#').next().unwrap_or_default().trim();
        value.starts_with(|c: char| c.is_alphanumeric())
            && value.parse::<f64>().is_err()
            && !matches!(value, "true" | "false")
    });
    if is_bare { "; a string needs quotes" } else { "" }
}

/// The environment variables that set keys, in lower case and without their prefix.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    report: &Report,
) -> Map<String, String> {
    let mut keys = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(key) = name.strip_prefix("COHORTD_").map(str::to_lowercase) else { continue };
        if NO_KEYS.contains(&key.as_str()) || is_service_link(&key) {
            continue;
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !key.chars().all(legal) || key.split("__").any(str::is_empty) {
            report.fault_of(name, "is not a key: expected levels separated by two underscores");
            continue;
        }
        match value.into_string() {
            Ok(value) => {
                report.reads_variable(name);
                keys.insert(key, value);
            }
            Err(_) => report.fault_of(name, "is not UTF-8"),
        }
    }
    let sections: Vec<String> = keys.keys().filter(|key| is_section(key, &keys)).cloned().collect();
    for key in sections {
        // Merged with its own keys, such a value would override them or be overridden depending on the
        // order.
        report.fault(&key.replace("__", "."), None, "is a section, not a value");
        keys.remove(&key);
    }
    keys.into_iter().collect()
}

fn is_section(key: &str, keys: &BTreeMap<String, String>) -> bool {
    let below = format!("{key}__");
    keys.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below))
}

/// Kubernetes sets variables for every service of a namespace in its containers. For a service named
/// `cohortd` they have our prefix (`COHORTD_SERVICE_HOST`, `COHORTD_PORT_8080_TCP_ADDR`, …).
fn is_service_link(key: &str) -> bool {
    key == "service_host"
        || key == "service_port"
        || key.starts_with("service_port_")
        || key == "port"
        || key.strip_prefix("port_").is_some_and(|rest| rest.starts_with(|c: char| c.is_numeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_error_keeps_its_place_and_loses_the_line_it_quotes() {
        let texts = [
            "[destinations.eu.launchdarkly]\nservice_token = \"api-hidden",
            "[listen]\naddress = api-hidden\n",
            "service_token = 'api-hidden' x\n",
            "a = \"\"\"api-hidden\nmore | api-hidden",
            "token = 99999999999999999999",
        ];
        for text in texts {
            let error = config::Config::builder()
                .add_source(File::from_str(text, FileFormat::Toml))
                .build()
                .expect_err(text);
            let error = error.to_string();
            let shown = message(&error) + unquoted(&error, text);
            assert!(!shown.contains("hidden") && !shown.contains("999"), "{shown}");
            assert!(shown.len() > 20 && !shown.ends_with(": "), "{shown}");
        }
    }

    #[test]
    fn a_text_without_its_quotes_is_told_as_one() {
        for (text, is_told) in [
            ("a = 1\nid = 64f0c0ffee", true),
            ("id = production # ours", true),
            ("id = \"open", false),
            ("id = 12\n[x", false),
            ("id = [1", false),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert_eq!(!unquoted(&error, text).is_empty(), is_told, "{text}: {error}");
        }
    }

    #[test]
    fn of_a_text_that_is_no_toml_a_section_is_read_all_the_same() {
        let text = "[listen\naddress = 1\n[admin]\naddress = \"a\"\n[admin.tls]\nkey_file = \"k\"\n\
                    [[x]]\n[administrator]\naddress = \"b\"\n[ledger]\npath = \"unfinished\n";
        assert!(parse(text).is_err());
        let values = salvage_section(text, "admin").expect("it is sound");
        let said = |key: &str| values.get_string(key).ok();
        assert_eq!(
            (said("admin.address"), said("admin.tls.key_file")),
            (Some("a".into()), Some("k".into()))
        );
        assert_eq!(said("administrator.address"), None);
        assert!(
            salvage_section(text, "ledger").is_none() && salvage_section(text, "log").is_none()
        );
    }

    #[test]
    fn variables_that_are_no_keys_are_told_from_those_that_are() {
        let cases: &[(&str, Option<&str>, usize)] = &[
            ("COHORTD_LISTEN__ADDRESS", Some("listen__address"), 0),
            ("COHORTD_CONFIG", None, 0),
            ("COHORTD_ADMIN_URL", None, 0),
            ("COHORTD_SERVICE_HOST", None, 0),
            ("COHORTD_SERVICE_PORT_HTTP", None, 0),
            ("COHORTD_PORT_8080_TCP_ADDR", None, 0),
            ("COHORTD_PORTS", Some("ports"), 0),
            ("OTHER_LISTEN__ADDRESS", None, 0),
            ("COHORTD_LISTEN____ADDRESS", None, 1),
            ("COHORTD_LISTEN.ADDRESS", None, 1),
            ("COHORTD_", None, 1),
        ];
        for (name, expected, faults) in cases {
            let report = Report::default();
            let keys = variables([(OsString::from(name), OsString::from("x"))], &report);
            assert_eq!(keys.keys().next().map(String::as_str), *expected, "{name}");
            assert_eq!(report.finish().map_or_else(|all| all.iter().count(), |_| 0), *faults);
        }
    }

    #[test]
    fn a_section_given_as_a_value_is_a_fault_beside_its_own_keys() {
        let report = Report::default();
        let set = ["COHORTD_LISTEN", "COHORTD_LISTEN__ADDRESS"].map(|n| (n.into(), "x".into()));
        let keys = variables(set, &report);
        assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["listen__address"]);
        let faults = report.finish().expect_err("the section has a value");
        assert!(faults.to_string().contains("listen   is a section"), "{faults}");
    }
}

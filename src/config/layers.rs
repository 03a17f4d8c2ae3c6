//! The layers of the configuration, merged into one tree: embedded defaults, then the file, then
//! the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Map, Value, ValueKind};

use super::faults::Report;

/// What a value of the environment layer answers to [`Value::origin`]; the `config` crate's words.
pub(super) const ENVIRONMENT: &str = "the environment";

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The file to read: the one that was named, else `COHORTD_CONFIG`, else `./cohortd.toml` if there is one.
pub(super) fn locate(named: Option<&Path>) -> Option<PathBuf> {
    let from_environment = || std::env::var_os("COHORTD_CONFIG").filter(|path| !path.is_empty());
    let here = || Some(PathBuf::from("cohortd.toml")).filter(|path| path.exists());
    named.map(Path::to_owned).or_else(|| from_environment().map(PathBuf::from)).or_else(here)
}

/// Merges the layers; what cannot be read is reported and left out, and then the tree is not
/// complete.
pub(super) fn merge(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    report: &Report,
) -> (Map<String, Value>, bool) {
    let mut layers =
        config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    let mut complete = true;
    if let Some(path) = file {
        match read(path, report) {
            Some(values) => layers = layers.add_source(values),
            None => complete = false,
        }
    }
    // Not `try_parsing`: a token of digits must stay text. `Section` reads numbers where numbers
    // are meant.
    layers = layers.add_source(
        Environment::default().separator("__").source(Some(variables(environment, report))),
    );
    match layers.build() {
        Ok(config::Config { cache: Value { kind: ValueKind::Table(tree), .. }, .. }) => {
            (tree, complete)
        }
        Ok(_) => (Map::new(), false),
        Err(error) => {
            report.fault_of("configuration", message(&error.to_string()));
            (Map::new(), false)
        }
    }
}

fn read(path: &Path, report: &Report) -> Option<config::Config> {
    let shown = path.display().to_string();
    let text = match report.read_configuration(path) {
        Ok(text) => text,
        Err(error) => {
            report.fault_of(shown, format!("cannot be read: {error}"));
            return None;
        }
    };
    match config::Config::builder().add_source(File::from_str(&text, FileFormat::Toml)).build() {
        Ok(values) => Some(values),
        Err(error) => {
            report.fault_of(shown, message(&error.to_string()));
            None
        }
    }
}

/// The parser's message without the line it quotes, which may hold a secret ([P8](crate::design::P8)).
fn message(error: &str) -> String {
    let mut lines = error.lines();
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("TOML parse error") {
        return format!("cannot be understood: {first}");
    }
    // Then three lines that quote and point.
    let words: Vec<&str> = lines.skip(3).filter(|line| !line.contains(" | ")).collect();
    format!("{first}: {}", words.join(", "))
}

/// The variables that are keys, lower-cased and without the prefix.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    report: &Report,
) -> Map<String, String> {
    let mut keys = BTreeMap::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(key) = name.strip_prefix("COHORTD_").map(str::to_lowercase) else { continue };
        if key == "config" || is_service_link(&key) {
            continue;
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !key.chars().all(legal) || key.split("__").any(str::is_empty) {
            report.fault_of(name, "is no key: expected levels separated by two underscores");
            continue;
        }
        match value.into_string() {
            Ok(value) => drop(keys.insert(key, value)),
            Err(_) => report.fault_of(name, "is not UTF-8"),
        }
    }
    let sections: Vec<String> = keys.keys().filter(|key| is_section(key, &keys)).cloned().collect();
    for key in sections {
        // Beside its own keys such a value would win or lose by chance.
        report.fault(&key.replace("__", "."), None, "is a section, not a value");
        keys.remove(&key);
    }
    keys.into_iter().collect()
}

fn is_section(key: &str, keys: &BTreeMap<String, String>) -> bool {
    let below = format!("{key}__");
    keys.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below))
}

/// Kubernetes announces every service of a namespace to its containers; of one that is called
/// `cohortd` in variables with our prefix (`COHORTD_SERVICE_HOST`, `COHORTD_PORT_8080_TCP_ADDR`, …).
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
            let shown = message(&error.to_string());
            assert!(!shown.contains("hidden") && !shown.contains("999"), "{shown}");
            assert!(shown.len() > 20 && !shown.ends_with(": "), "{shown}");
        }
    }

    #[test]
    fn variables_that_are_no_keys_are_told_from_those_that_are() {
        let cases: &[(&str, Option<&str>, usize)] = &[
            ("COHORTD_LISTEN__ADDRESS", Some("listen__address"), 0),
            ("COHORTD_CONFIG", None, 0),
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

//! Every key is documented once, in `config/default.toml`, and the manual's tables are generated from it.
//! These tests check that the file contains every key that the code reads and no other, and that the
//! defaults it states are those in effect.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Config;
use crate::manual;

const DEFAULTS: &str = include_str!("../../config/default.toml");

thread_local! {
    /// The paths of all keys that were read or queried on this thread.
    static ASKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Records the keys that a section knows.
pub(super) fn note(paths: impl Iterator<Item = String>) {
    ASKED.with_borrow_mut(|asked| asked.extend(paths));
}

/// What `default.toml` says about a key.
#[derive(Debug)]
struct Key {
    name: &'static str,
    value: &'static str,
    is: Is,
    prose: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// The value is set in the file.
    Set,
    /// Commented out. The value is the default, which is defined in the code.
    Default,
    /// Commented out and marked `# example`: unset by default, and the value is an example.
    Example,
    /// Commented out and marked `# needed`: must be set.
    Needed,
}

#[derive(Debug)]
struct Table {
    /// The name as it stands in the brackets.
    name: &'static str,
    keys: Vec<Key>,
}

fn tables() -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut prose = String::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            prose.push_str(if prose.is_empty() { "" } else { " " });
            prose.push_str(text);
            continue;
        }
        let prose = std::mem::take(&mut prose);
        let stated = line.strip_prefix('#');
        let is_commented = stated.is_some();
        let stated = stated.unwrap_or(line);
        if let Some(name) = stated.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            assert!(!prose.is_empty(), "nothing is said of [{name}]");
            tables.push(Table { name, keys: Vec::new() });
        } else if let Some((name, value)) = stated.split_once(" = ") {
            let marked = |mark| value.strip_suffix(mark).map(str::trim_end);
            let (value, is) = match (marked("# example"), marked("# needed")) {
                (Some(value), _) => (value, Is::Example),
                (_, Some(value)) => (value, Is::Needed),
                _ if is_commented => (value, Is::Default),
                _ => (value, Is::Set),
            };
            assert!(prose.ends_with('.'), "{name}: {prose:?} is no sentence");
            let table = tables.last_mut().expect("a table is open");
            table.keys.push(Key { name, value, is, prose });
        }
    }
    tables
}

/// The key's name in the manual; a destination's keys go without the destination.
fn shown(table: &str, key: &str) -> String {
    let table = table.strip_prefix("destinations.NAME").unwrap_or(table);
    format!("{}.{key}", table.trim_start_matches('.')).trim_start_matches('.').to_owned()
}

#[test]
fn the_tables_of_the_manual_are_made_from_the_defaults() {
    let page = manual::topic("configuration").expect("it is there").text;
    let mut keys = 0;
    for Table { name, keys: of } in tables() {
        let mut rows = "| key | default | meaning |\n| --- | --- | --- |\n".to_owned();
        for Key { name: key, value, is, prose } in &of {
            let (default, example) = match is {
                Is::Set | Is::Default => (format!("`{value}`"), String::new()),
                Is::Example => (String::new(), format!(" Example: `{value}`.")),
                Is::Needed => ("needed".to_owned(), format!(" Example: `{value}`.")),
            };
            writeln!(rows, "| `{}` | {default} | {prose}{example} |", shown(name, key))
                .expect("memory");
        }
        keys += of.len();
        assert!(
            page.contains(&rows),
            "src/manual/configuration.md should have this table:\n\n{rows}"
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, keys, "the page defines a key that is in no table");
    assert!(keys > 90, "{keys}");
}

/// The file's active settings, together with those commented-out ones that `which` selects.
fn uncommented(which: impl Fn(Is) -> bool) -> String {
    let mut toml = String::new();
    for Table { name, mut keys } in tables() {
        keys.retain(|key| which(key.is));
        if keys.is_empty() {
            continue;
        }
        let name = name.replace("routes.NAME", "routes.all").replace("NAME", "production");
        writeln!(toml, "[{}]", name.replace("KEY", "vip")).expect("memory");
        for Key { name, value, .. } in keys {
            writeln!(toml, "{name} = {value}").expect("memory");
        }
    }
    toml
}

fn load(toml: &str) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cohortd.toml");
    super::tests::write_private(&file, toml);
    ASKED.with_borrow_mut(BTreeSet::clear);
    let said = match Config::load_from(Some(&file), [("IGNORED", "")]) {
        Ok(config) => {
            let shown = format!("{config:#?}");
            let values = shown.split("    fingerprints:").next().unwrap_or_default(); // without the hashes
            values.replace(&folder.path().display().to_string(), "HERE")
        }
        Err(faults) => faults.to_string(),
    };
    (said, ASKED.with_borrow(|asked| asked.iter().cloned().collect()))
}

#[test]
fn every_key_there_is_is_explained_and_no_other_one() {
    let more = "[destinations.production.delivery]\nlinger_ms = 1\n\
                [routes.all.segment]\nallow_batches = true\n";
    let (said, asked) = load(&(uncommented(|_| true) + more));
    assert!(!said.contains("unknown key"), "{said}");

    let explained = tables().into_iter().flat_map(|Table { name, keys }| {
        keys.into_iter().map(move |key| format!("{name}.{}", key.name))
    });
    let explained: BTreeSet<String> = explained.collect();
    let general = |path: &str| {
        path.replace("destinations.production", "destinations.NAME")
            .replace("routes.all", "routes.NAME")
            .replace("audiences.vip", "audiences.KEY")
    };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for path in asked.iter().map(|path| general(path)) {
        // keys of one destination or route are explained where they are explained for all
        let explained_as = path
            .replace("destinations.NAME.delivery.", "delivery.")
            .replace("routes.NAME.segment.", "destinations.NAME.segment.");
        known.insert(path, explained_as);
    }
    let is_table = |path: &str| {
        let below = format!("{path}.");
        known.keys().any(|other| other.starts_with(&below)) || path.ends_with(".audiences")
    };
    let is_twin = |path: &str| {
        let of = path.strip_suffix("_file");
        of.is_some_and(|of| explained.contains(of) && known.values().any(|known| known == of))
    };
    let unexplained: Vec<_> = known
        .iter()
        .filter(|(path, of)| !is_table(path) && !is_twin(of) && !explained.contains(*of))
        .collect();
    assert!(unexplained.is_empty(), "config/default.toml does not explain {unexplained:?}");
    let of_nobody: Vec<_> =
        explained.iter().filter(|path| !known.values().any(|known| known == *path)).collect();
    assert!(of_nobody.is_empty(), "config/default.toml explains what nobody reads: {of_nobody:?}");
    assert!(known.len() > 100, "{known:?}");
}

/// The settings that have no default.
const SEGMENT: &str = "[destinations.production.segment]\nshared_secrets = ['0123456789abcdef']\n";
const LAUNCHDARKLY: &str = "[destinations.production.launchdarkly]\nclient_side_id = 'id'\n\
                            service_token = '0123456789abcdef'\n";

#[test]
fn the_defaults_that_are_stated_are_the_defaults() {
    let stated = uncommented(|is| matches!(is, Is::Set | Is::Default))
        .replace("[destinations.production.launchdarkly]\n", LAUNCHDARKLY)
        .replace("[destinations.production.segment]\n", SEGMENT)
        // the only mapping's trigger may be set in the destination or in the mapping, not in both
        .replacen("subscribe = ", "#", 1);
    let (without, _) = load(&format!("{SEGMENT}{LAUNCHDARKLY}"));
    let (with, _) = load(&stated);
    assert!(without.starts_with("Config"), "{without}");
    assert_eq!(with, without);
}

//! Which module imports which, read from the source files, so that the layering stays what the design pages
//! say.
//!
//! A path counts wherever it stands, in a `use` line or in code. A name that a module re-exports
//! (`pub use`) counts as an import of the file that defines it. Tests may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The top-level modules in layers: each may import only those listed below it.
const ROOMS: [&str; 25] = [
    "cli",
    "sandbox",
    "service",
    "operate",
    "config",
    "receive",
    "map",
    "deliver",
    "ledger",
    "launchdarkly",
    "design",
    "manual",
    "current",
    "certificate",
    "counting",
    "clock",
    "membership",
    "json",
    "regular_file",
    "nearest",
    "panics",
    "secret",
    "seeds",
    "main",
    "lib",
];

/// A module, as its path from the crate's root.
type Module = Vec<String>;
/// What each module imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The code of a module without comments, string literals and tests.
fn code(text: &str) -> String {
    let without_tests = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut code = String::new();
    for line in without_tests.lines() {
        let line = line.split("//").next().unwrap_or_default();
        // Every second part lies outside of string literals: quotes come in pairs on a line, or the line
        // does not matter.
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

/// `a::{b, c::{d as e}}` as `[[a, b], [a, c, d]]`.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let Some((head, inner)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let head: Vec<String> = head
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let inner = &inner[..inner.rfind('}').unwrap_or(inner.len())];
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, letter) in inner.char_indices().chain([(inner.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[from..at].trim();
                from = at + 1;
                found.extend((!part.is_empty()).then(|| paths(part)).into_iter().flatten());
            }
            _ => {}
        }
    }
    found.into_iter().map(|rest| [head.clone(), rest].concat()).collect()
}

/// Splits code into the paths of its `pub use` lines, the paths of its other `use` lines, and all remaining
/// code.
fn uses(code: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>, String) {
    let (mut passed_on, mut used, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut left = code;
    while let Some(at) = left.find("use ") {
        let before = &left[..at];
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        let Some(end) = left[at..].find(';').map(|end| at + end) else { break };
        rest.push_str(before);
        if line.is_empty() || line.starts_with("pub") {
            let into = if line.is_empty() { &mut used } else { &mut passed_on };
            into.extend(paths(&left[at + "use ".len()..end]));
            left = &left[end + 1..];
        } else {
            left = &left[at + "use ".len()..];
        }
    }
    rest.push_str(left);
    (passed_on, used, rest)
}

/// Everything in some code that looks like a path.
fn paths_in(code: &str) -> impl Iterator<Item = Vec<String>> {
    let words = code.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
    let paths = words.filter(|word| word.contains("::") && !word.starts_with("::"));
    paths.map(|path| path.split("::").map(str::to_owned).collect())
}

/// Collects the modules below `folder` with their code into `found`.
fn modules(folder: &Path, of: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("the sources are there").flatten() {
        let path = entry.path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let module = [&of[..], std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            modules(&path, &module, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests" {
            let text = fs::read_to_string(&path).expect("it can be read");
            found.insert(module, code(&text));
        }
    }
    found.retain(|module, _| !module.iter().any(|part| part == "tests"));
}

/// Every import between the crate's modules.
fn imports() -> Imports {
    let mut all = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut all);
    let absolute = |of: &Module, path: &[String]| -> Option<Module> {
        let is_child =
            |name: &String| all.contains_key(&[&of[..], std::slice::from_ref(name)].concat());
        let supers = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&of[..], &path[1..]].concat()),
            "super" => Some([&of[..of.len().checked_sub(supers)?], &path[supers..]].concat()),
            _ if is_child(&path[0]) => Some([&of[..], path].concat()),
            _ => None,
        }
    };
    let split: BTreeMap<&Module, _> = all.iter().map(|(of, code)| (of, uses(code))).collect();
    let mut passed_on: BTreeMap<(&Module, &str), Module> = BTreeMap::new();
    for (of, (passes_on, ..)) in &split {
        for path in passes_on {
            let name = path.last().expect("a path is not empty").as_str();
            passed_on.extend(absolute(of, path).map(|from| ((*of, name), from)));
        }
    }
    let resolve = |mut path: Module| {
        for _ in 0..9 {
            let length = (1..=path.len()).rev().find(|of| all.contains_key(&path[..*of]))?;
            let (module, rest) = path.split_at(length);
            let module = module.to_vec();
            let key = all.get_key_value(&module).map(|(key, _)| key)?;
            match rest.first().and_then(|name| passed_on.get(&(key, name.as_str()))) {
                Some(from) => path = [&from[..], &rest[1..]].concat(),
                None => return Some(module),
            }
        }
        None
    };
    let mut imports = Imports::new();
    for (of, (_, used, rest)) in &split {
        let of = (*of).clone();
        let found = used.iter().cloned().chain(paths_in(rest));
        let found = found.filter_map(|path| resolve(absolute(&of, &path)?));
        let found = found.filter(|module| *module != of).collect();
        imports.insert(of, found);
    }
    imports
}

/// What is left when nodes that import nothing or are imported by nothing are removed again and again:
/// every node on a circle, and those on a path from one circle to another. Empty if there is no circle.
fn circle<T: Ord + Clone>(imports: &BTreeMap<T, BTreeSet<T>>) -> BTreeSet<T> {
    // A node without imports among the rest, or one that none of the rest imports, is on no circle.
    let mut left = imports.clone();
    loop {
        let names: BTreeSet<T> = left.keys().cloned().collect();
        for of in left.values_mut() {
            of.retain(|other| names.contains(other));
        }
        let imported: BTreeSet<T> = left.values().flatten().cloned().collect();
        left.retain(|name, of| !of.is_empty() && imported.contains(name));
        if left.len() == names.len() {
            return names;
        }
    }
}

#[test]
fn no_room_imports_one_above_it() {
    let floor = |module: &Module| ROOMS.iter().position(|room| *room == module[0]);
    let mut seen = 0;
    for (of, imported) in imports() {
        for other in imported.iter().filter(|other| other[0] != of[0]) {
            let (from, to) = (floor(&of), floor(other));
            assert!(from.is_some() && to.is_some(), "{of:?} and {other:?}: a room without a floor");
            let is_start = ["main", "lib"].contains(&of[0].as_str());
            assert!(is_start || from < to, "{} imports {}", of.join("::"), other.join("::"));
            seen += 1;
        }
    }
    assert!(seen > 200, "the imports were not found: {seen}");
}

#[test]
fn no_file_and_no_folder_of_the_ledger_is_in_a_circle() {
    let mut files = imports();
    files.retain(|module, _| module[0] == "ledger");
    assert_eq!(circle(&files), BTreeSet::new(), "files that import each other");

    let folders: BTreeSet<Module> =
        files.keys().flat_map(|file| (1..file.len()).map(|of| file[..of].to_vec())).collect();
    assert!(folders.len() > 5, "the folders were not found: {folders:?}");
    for folder in folders {
        let entry = |module: &Module| module.strip_prefix(&folder[..])?.first().cloned();
        let mut entries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, imported) in &files {
            let Some(own) = entry(file) else { continue };
            let others = imported.iter().filter_map(entry).filter(|other| *other != own);
            entries.entry(own.clone()).or_default().extend(others.collect::<Vec<_>>());
        }
        assert_eq!(circle(&entries), BTreeSet::new(), "within {}", folder.join("/"));
    }
}

/// The storeys of the embedded ledger in the order of the table that shows them.
fn storeys() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/design/architecture.md");
    let page = fs::read_to_string(page).expect("it can be read");
    let (_, table) = page.split_once("| storey |").expect("the table is there");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let first_cells = rows.filter_map(|row| row.split('|').nth(1));
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The storey that a module of the embedded ledger is in.
fn storey_of(module: &Module) -> Option<String> {
    match &module[..] {
        [ledger, embedded, below @ ..] if ledger == "ledger" && embedded == "embedded" => {
            Some(below.first().unwrap_or(embedded).clone())
        }
        _ => None,
    }
}

#[test]
fn a_storey_of_the_embedded_ledger_imports_only_what_stands_behind_it_in_the_table() {
    let (imports, storeys) = (imports(), storeys());
    let there: BTreeSet<String> = imports.keys().filter_map(storey_of).collect();
    let shown: BTreeSet<String> = storeys.iter().cloned().collect();
    assert_eq!(shown, there, "the storeys of the table, and those that are there");
    assert_eq!(shown.len(), storeys.len(), "one stands in the table twice");
    let place = |storey: &String| storeys.iter().position(|one| one == storey);
    for (of, imported) in &imports {
        let Some(own) = storey_of(of) else { continue };
        for other in imported.iter().filter_map(storey_of).filter(|other| *other != own) {
            assert!(place(&own) < place(&other), "{} imports {other}", of.join("::"));
        }
    }
}

#[test]
fn no_file_of_the_ledger_is_long() {
    const MOST: usize = 450;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = imports().into_keys();
    let of_ledger: Vec<_> = all.filter(|module| module[0] == "ledger").collect();
    assert!(of_ledger.len() > 50, "the files were not found: {}", of_ledger.len());
    for module in of_ledger {
        let file = sources.join(module.join("/")).with_extension("rs");
        let text = fs::read_to_string(&file).expect("it can be read");
        let before_tests = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        let lines = before_tests.lines().count();
        assert!(lines <= MOST, "{}: {lines} lines before its tests", module.join("::"));
    }
}

#[test]
fn a_circle_is_found_and_what_hangs_on_it_is_not() {
    let edges = [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("e", "a")];
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        imports.entry(from).or_default().insert(to);
        imports.entry(to).or_default();
    }
    assert_eq!(circle(&imports), BTreeSet::from(["b", "c"]));
}

#[test]
fn paths_are_read_whatever_their_form() {
    let code = code(
        "pub use one::{Two, three::Four as Five};\nuse super::{six, seven::*}; // use nine;\n\
         fn f() { eight::g(\"use ten::h\"); }\n#[cfg(test)]\nmod tests {\n    use eleven;\n}\n",
    );
    let (passed_on, used, rest) = uses(&code);
    let joined = |paths: &[Vec<String>]| -> Vec<String> {
        paths.iter().map(|path| path.join("::")).collect()
    };
    assert_eq!(joined(&passed_on), ["one::Two", "one::three::Four"]);
    assert_eq!(joined(&used), ["super::six", "super::seven::*"]);
    assert_eq!(joined(&paths_in(&rest).collect::<Vec<_>>()), ["eight::g"]);
}

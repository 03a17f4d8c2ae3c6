//! No citation is dangling: what code, tests and pages cite is in the repository.
//!
//! `cargo doc` checks links in documentation. This test also checks plain comments, tests, and text outside
//! of Rust files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Promise;
use crate::manual::anchor;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Files and folders that are searched for citations.
const READ: [&str; 9] = [
    "src",
    "tests",
    "config",
    ".ci",
    ".github",
    "README.md",
    "Cargo.toml",
    "Dockerfile",
    ".clippy.toml",
];

/// Skipped: third-party code or build output.
const LEFT_OUT: [&str; 4] = [".git", "vendor", "node_modules", "target"];

/// Folders whose files are cited by their path from the repository's root.
const FOLDERS: [&str; 6] = ["src/", "tests/", "config/", ".ci/", ".github/", ".cargo/"];

/// Created by operators or by a failing property test, and therefore not in the repository.
const MADE_LATER: [&str; 3] = ["config/.env", "config/secrets", "tests/seeds"];

/// Everything that can be cited.
struct Citable {
    /// Pages of the design, such as `segment::times` (without the leading `design::`), and the promises.
    pages: BTreeSet<String>,
    /// Every Markdown file, by its path from the repository's root.
    markdown: BTreeSet<String>,
}

impl Citable {
    fn found() -> Self {
        let mut pages: BTreeSet<String> =
            PROMISES.iter().flat_map(|p| [format!("{p:?}"), format!("Promise::{p:?}")]).collect();
        pages.insert("Promise".to_owned());
        let mut outer = "";
        for line in include_str!("../design.rs").lines() {
            let Some(name) =
                line.trim().strip_prefix("pub mod ").and_then(|l| l.strip_suffix(" {"))
            else {
                continue;
            };
            if line.starts_with(' ') {
                pages.insert(format!("{outer}::{name}"));
            } else {
                outer = name;
                pages.insert(name.to_owned());
            }
        }
        let mut markdown = BTreeSet::new();
        walk(Path::new(ROOT), &mut |path| {
            if is_markdown(path) {
                markdown.insert(from_the_top(path));
            }
        });
        Self { pages, markdown }
    }

    /// The citations in `text` whose targets do not exist.
    fn missing(&self, text: &str) -> Vec<String> {
        let mut missing = Vec::new();
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./:".contains(c))) {
            let word = word.trim_matches([':', '-', '/']).trim_end_matches('.');
            let is_there = if let Some((_, page)) = word.split_once("design::") {
                self.pages.contains(page)
            } else if is_a_promise(word) {
                self.pages.contains(word)
            } else if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                is_or_will_be_there(word)
            } else if is_markdown(Path::new(word)) {
                self.has_markdown(word)
            } else {
                true
            };
            if !is_there {
                missing.push(word.to_owned());
            }
        }
        missing
    }

    /// A Markdown file may be cited by the end of its path, from any folder above it.
    fn has_markdown(&self, name: &str) -> bool {
        let name = name.trim_start_matches("../").trim_start_matches("./");
        self.markdown.iter().any(|file| file == name || file.ends_with(&format!("/{name}")))
    }
}

const PROMISES: [Promise; 10] = [
    Promise::P1,
    Promise::P2,
    Promise::P3,
    Promise::P4,
    Promise::P5,
    Promise::P6,
    Promise::P7,
    Promise::P8,
    Promise::P9,
    Promise::P10,
];

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "md")
}

fn is_or_will_be_there(path: &str) -> bool {
    // `tests/it/ordering.rs::name` and `src/design.rs:12` cite a place within a file
    let path = path.split(':').next().unwrap_or(path);
    Path::new(ROOT).join(path).exists() || MADE_LATER.iter().any(|made| path.starts_with(made))
}

fn is_a_promise(word: &str) -> bool {
    let digits = word.strip_prefix('P').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Calls `visit` with `path` and every file and folder below it.
fn walk(path: &Path, visit: &mut impl FnMut(&Path)) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if LEFT_OUT.contains(&&*name) {
        return;
    }
    visit(path);
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the sources can be read").flatten() {
            walk(&entry.path(), visit);
        }
    }
}

fn from_the_top(path: &Path) -> String {
    path.strip_prefix(ROOT).unwrap_or(path).to_string_lossy().into_owned()
}

/// The files that are searched for citations: their paths and contents.
fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for place in READ {
        walk(&Path::new(ROOT).join(place), &mut |path| {
            let ends = ["rs", "md", "toml", "yaml", "yml", "js", "css", "html"];
            let is_text = path.extension().is_none_or(|end| ends.iter().any(|known| end == *known));
            // the test tables in this file cite what does not exist
            if !path.is_file() || !is_text || path.ends_with("design/citations.rs") {
                return;
            }
            if let Ok(text) = fs::read_to_string(path) {
                texts.push((from_the_top(path), text));
            }
        });
    }
    texts
}

#[test]
fn nothing_is_cited_that_is_not_there() {
    let citable = Citable::found();
    let texts = texts();
    assert!(texts.len() > 300, "only {} texts were found", texts.len());
    let missing: Vec<String> = texts
        .iter()
        .flat_map(|(file, text)| {
            citable.missing(text).into_iter().map(move |cited| format!("{file}: {cited}"))
        })
        .collect();
    assert!(missing.is_empty(), "cited, and not there:\n{}", missing.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    let citable = Citable::found();
    for (text, cited) in [
        ("// so it stays (P11)", "P11"),
        ("/// never older: [P0](crate::design::P0)", "P0"),
        ("(`design::segment::weather`)", "design::segment::weather"),
        ("[x](crate::design::segment::weather).", "crate::design::segment::weather"),
        ("//! as wire.md, section 3, says", "wire.md"),
        ("//! * holds (tests/it/nothing.rs).", "tests/it/nothing.rs"),
    ] {
        assert!(citable.missing(text).iter().any(|found| found == cited), "{text}");
    }
    for text in [
        "P1, P10 and [P2](crate::design::P2)",
        "[x](crate::design::segment::times); `cohortd::design::Promise::P3`",
        "README.md, src/design.rs, tests/it/main.rs and `.ci/run`.",
        "config/secrets/segment is made by you, P-256 is a curve, and use crate::design::{P1, P2};",
    ] {
        assert_eq!(citable.missing(text), Vec::<String>::new(), "{text}");
    }
}

/// A promise that no module cites is one that no code claims to keep.
#[test]
fn every_promise_is_named_by_what_keeps_it() {
    let texts = texts();
    for promise in PROMISES {
        let link = format!("[{promise:?}](crate::design::{promise:?})");
        let is_named = |(file, text): &(String, String)| {
            file.starts_with("src/") && !file.starts_with("src/design") && text.contains(&link)
        };
        assert!(texts.iter().any(is_named), "{promise:?} is named nowhere");
    }
}

/// A page that no module includes is in no documentation.
#[test]
fn every_page_is_part_of_the_documentation() {
    let mut pages = Vec::new();
    walk(&PathBuf::from(ROOT).join("src/design"), &mut |path| {
        if is_markdown(path) {
            pages.push(from_the_top(path));
        }
    });
    assert!(pages.len() > 20, "only {} pages were found", pages.len());
    for page in pages {
        let included = page.strip_prefix("src/").expect("they are below it");
        let is_included = include_str!("../design.rs").contains(&format!("\"{included}\""));
        assert!(is_included, "{page} is in no module of src/design.rs");
    }
}

/// A step of the walk through the code.
struct Step<'a> {
    heading: &'a str,
    /// The files that it lists, each with the items that are to be read there.
    files: Vec<(&'a str, Vec<&'a str>)>,
    /// What its text quotes.
    quoted: Vec<&'a str>,
}

impl<'a> Step<'a> {
    /// Those of a page: each has a heading, a list and a text.
    fn all(page: &'a str) -> Vec<Self> {
        page.split("\n# ").skip(1).filter_map(Self::read).collect()
    }

    fn read(step: &'a str) -> Option<Self> {
        let mut parts = step.splitn(3, "\n\n");
        let (heading, list, text) = (parts.next()?, parts.next()?, parts.next()?);
        let lines = list.split("* ").map(quoted);
        let files =
            lines.filter_map(|line| line.split_first().map(|(file, of)| (*file, of.to_vec())));
        Some(Self { heading, files: files.collect(), quoted: quoted(text) })
    }

    /// What it says that is not so: an item is not defined in its file, or the text quotes what is not in the list.
    fn astray(&self) -> Vec<String> {
        let mut astray = Vec::new();
        for (file, items) in &self.files {
            let code = fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_default();
            let missing = items.iter().filter(|item| !defines(&code, item));
            astray.extend(missing.map(|item| format!("{}: {item} in {file}", self.heading)));
        }
        let listed: Vec<&str> = self.files.iter().flat_map(|(_, items)| items.clone()).collect();
        let others = self.quoted.iter().filter(|item| !listed.contains(item));
        astray.extend(others.map(|item| format!("{}: {item}", self.heading)));
        astray
    }
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether the code of a file, outside of its comments and tests, defines this item, and mentions the type that it
/// is a function of, if any.
fn defines(code: &str, item: &str) -> bool {
    let code = code.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = || code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let is_in = |words: &str| {
        let ends = |behind: &str| !behind.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        lines().any(|line| line.split_once(words).is_some_and(|(_, behind)| ends(behind)))
    };
    let (of, name) = item.split_once("::").unwrap_or(("", item));
    let kinds = ["fn", "struct", "enum", "trait", "const"];
    kinds.iter().any(|kind| is_in(&format!("{kind} {name}"))) && (of.is_empty() || is_in(of))
}

/// `cargo doc` knows where a public item is; most of these are not public.
#[test]
fn the_walk_finds_each_item_in_the_file_that_it_names() {
    let page = Path::new(ROOT).join("src/design/architecture/walk.md");
    let page = fs::read_to_string(page).expect("the page can be read");
    let steps = Step::all(&page);
    assert_eq!(steps.len(), page.matches("\n# ").count(), "each step can be read");
    for step in &steps {
        let is_whole =
            |(file, items): &(&str, Vec<&str>)| file.starts_with("src/") && !items.is_empty();
        assert!(step.files.iter().all(is_whole), "{}: a file, and what is in it", step.heading);
    }
    let files: usize = steps.iter().map(|step| step.files.len()).sum();
    assert!(steps.len() > 10 && files > 30, "only {} steps with {files} files", steps.len());
    let astray: Vec<String> = steps.iter().flat_map(Step::astray).collect();
    assert!(astray.is_empty(), "not as the walk says:\n{}", astray.join("\n"));
}

#[test]
fn a_walk_that_has_gone_astray_is_found() {
    let walk = |list: &str, text: &str| format!("Once.\n\n# 1. Step\n\n{list}\n\n{text}\n");
    let rows: [(&str, &str, &[&str]); 7] = [
        ("* `src/clock.rs`: `Clock`", "The `Clock`.", &[]),
        ("* `src/clock.rs`: [`Seldom::more`](crate::clock),\n  `Clock`", "`Seldom::more`.", &[]),
        ("* `src/clocks.rs`: `Clock`", "It.", &["1. Step: Clock in src/clocks.rs"]),
        ("* `src/clock.rs`: `Cloc`", "It.", &["1. Step: Cloc in src/clock.rs"]),
        ("* `src/clock.rs`: `Batch::more`", "It.", &["1. Step: Batch::more in src/clock.rs"]),
        (
            "* `src/clock.rs`: `Clock`\n* `src/json.rs`: `Clock`",
            "It.",
            &["1. Step: Clock in src/json.rs"],
        ),
        ("* `src/clock.rs`: `Clock`", "The `Seldom`.", &["1. Step: Seldom"]),
    ];
    for (list, text, expected) in rows {
        let page = walk(list, text);
        let astray: Vec<String> = Step::all(&page).iter().flat_map(Step::astray).collect();
        assert_eq!(astray, expected, "{list} {text}");
    }
}

/// Links between the README, the manual and the other Markdown files: their files and headings exist.
#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut dead = Vec::new();
    for (file, text) in texts() {
        if !is_markdown(Path::new(&file)) || file.starts_with("src/design") {
            continue; // links there are Rust paths, which cargo doc checks
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !(link.contains("://") || link.starts_with("mailto:") || leads(&file, link)) {
                dead.push(format!("{file}: {link}"));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

/// Whether the linked file exists, and the heading if the link names one.
fn leads(from: &str, link: &str) -> bool {
    let (path, heading) = match link.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (link, None),
    };
    let from = Path::new(ROOT).join(from);
    let to = match path {
        "" => from,
        path => from.parent().expect("it is in a folder").join(path),
    };
    let Some(heading) = heading else { return to.exists() };
    let text = fs::read_to_string(to).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|anchor| anchor == heading)
}

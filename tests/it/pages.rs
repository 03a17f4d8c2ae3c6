//! The commands and files that the README and the manual have people type and write.

use cohortd::manual::TOPICS;

/// Every page: its path and its text.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let readme = ("README.md", include_str!("../../README.md"));
    std::iter::once(readme).chain(TOPICS.iter().map(|topic| (topic.name, topic.text)))
}

/// The block of commands that contains `line`, as it is typed.
pub fn lines_with(line: &str) -> String {
    let mut blocks =
        all().flat_map(|(_, text)| text.split("\n\n")).filter(|block| block.starts_with("    "));
    let block = blocks.find(|block| block.contains(line));
    let block = block.unwrap_or_else(|| panic!("no page has anybody type {line}"));
    block.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect()
}

/// The file in this language that contains `line`.
pub fn file_with(language: &str, line: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut files = all().flat_map(|(_, text)| {
        let behind = text.split(fence.as_str()).skip(1).collect::<Vec<_>>();
        behind.into_iter().filter_map(|rest| rest.split("```").next())
    });
    files.find(|file| file.contains(line)).unwrap_or_else(|| panic!("no page has {line}"))
}

/// Splits before the line that begins like this.
pub fn before<'a>(lines: &'a str, line: &str) -> (&'a str, &'a str) {
    let at = lines.find(&format!("\n{line}")).unwrap_or_else(|| panic!("{line} in {lines}"));
    lines.split_at(at + 1)
}

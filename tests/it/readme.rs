//! The lines that README has people type.

const README: &str = include_str!("../../README.md");

/// The block of such lines that has `line` in it, as it is typed.
pub fn lines_with(line: &str) -> String {
    let mut blocks = README.split("\n\n").filter(|block| block.starts_with("    "));
    let block = blocks.find(|block| block.contains(line));
    let block = block.unwrap_or_else(|| panic!("README has nobody type {line}"));
    block.lines().map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect()
}

/// The file in this language that has `line` in it.
pub fn file_with(language: &str, line: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut files =
        README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next());
    files.find(|file| file.contains(line)).unwrap_or_else(|| panic!("README has no {line}"))
}

/// Cuts in front of the line that begins like this.
pub fn before<'a>(lines: &'a str, line: &str) -> (&'a str, &'a str) {
    let at = lines.find(&format!("\n{line}")).unwrap_or_else(|| panic!("{line} in {lines}"));
    lines.split_at(at + 1)
}

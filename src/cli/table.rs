//! Aligned columns for people to read.
//!
//! Cells hold text from outside, such as LaunchDarkly's messages and context keys. Control characters,
//! which a terminal might interpret, are made visible instead.

use std::borrow::Cow;
use std::io::{Result, Write};

use unicode_width::UnicodeWidthStr;

use crate::operate::logging::takes_colours;

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Prints a heading and rows. Columns whose heading begins with `#` hold numbers and are right-aligned.
pub(super) fn table<const N: usize>(
    out: &mut impl Write,
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    draw(out, takes_colours(&std::io::stdout()), heading, rows)
}

fn draw<const N: usize>(
    out: &mut impl Write,
    coloured: bool,
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    let numbers = heading.map(|text| text.starts_with('#'));
    let heading = heading.map(|text| Cow::from(text.trim_start_matches('#')));
    let rows: Vec<[Cow<'_, str>; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| &row[column]).chain([&heading[column]]);
        cells.map(|cell| cell.width()).max().unwrap_or(0)
    });
    let line = |row: &[Cow<'_, str>; N]| {
        let cells = row.iter().zip(numbers).zip(widths).map(|((cell, is_number), width)| {
            let padding = " ".repeat(width - cell.width());
            if is_number { padding + cell } else { cell.to_string() + &padding }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let (bold, plain) = if coloured { (BOLD, PLAIN) } else { ("", "") };
    writeln!(out, "{bold}{}{plain}", line(&heading))?;
    rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))
}

fn printable(cell: &str) -> Cow<'_, str> {
    if !cell.chars().any(char::is_control) {
        return cell.into();
    }
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    cell.chars().map(visible).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(coloured: bool, rows: &[[&str; 2]]) -> Vec<String> {
        let mut out = Vec::new();
        let rows: Vec<_> = rows.iter().map(|row| row.map(str::to_owned)).collect();
        draw(&mut out, coloured, ["name", "#in"], &rows).expect("memory takes it");
        String::from_utf8(out).expect("text").lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_aligned_as_a_terminal_shows_them_and_numbers_stand_on_the_right() {
        let rows =
            [["vip", "7"], ["étudiants", "12345"], ["", "-"], ["顧客", "1"], ["e\u{301}t", "2"]];
        let expected = [
            "name          in",
            "vip            7",
            "étudiants  12345",
            "               -",
            "顧客           1",
            "e\u{301}t             2",
        ];
        assert_eq!(drawn(false, &rows), expected);
        assert_eq!(drawn(true, &[["vip", "7"]]), ["\x1b[1mname  in\x1b[0m", "vip    7"]);
    }

    #[test]
    fn what_others_wrote_commands_no_terminal() {
        let lines = drawn(false, &[["\x1b[2Jno\nline\u{9b}m", "1"]]);
        assert_eq!(lines, ["name           in", "\u{fffd}[2Jno\u{fffd}line\u{fffd}m   1"]);
    }
}

//! Aligned columns for people.

use std::io::{Result, Write};

/// Prints a heading and rows; columns whose heading begins with `#` are numbers, on the right.
pub(super) fn table<const N: usize>(
    out: &mut impl Write,
    heading: [&str; N],
    rows: &[[String; N]],
) -> Result<()> {
    let numbers = heading.map(|text| text.starts_with('#'));
    let heading = heading.map(|text| text.trim_start_matches('#').to_owned());
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| &row[column]).chain([&heading[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    for row in std::iter::once(&heading).chain(rows) {
        let cells = row.iter().zip(numbers).zip(widths).map(|((cell, is_number), width)| {
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_on_the_right() {
        let mut out = Vec::new();
        let row = |name: &str, number: &str| [name.to_owned(), number.to_owned()];
        let rows = [row("vip", "7"), row("étudiants", "12345"), row("", "-")];
        table(&mut out, ["name", "#in"], &rows).expect("memory takes it");
        let text = String::from_utf8(out).expect("text");
        let expected =
            ["name          in", "vip            7", "étudiants  12345", "               -"];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}

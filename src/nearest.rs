//! Suggests the known name that was probably meant by an unknown one.

/// The known name closest to `unknown`, if it is close enough to be a typing error.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = (unknown.chars().count() / 3).clamp(1, 3);
    let distance = |key: &&'a str| (edits(unknown, key), *key);
    let (edits, key) = known.iter().map(distance).min()?;
    (edits <= close).then_some(key)
}

/// The edit distance of two texts: insertions, deletions and replacements of a character, ignoring case.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (dropped, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = dropped + 1;
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a.to_lowercase().ne(b.to_lowercase()));
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_knows_slips_of_the_finger_and_nothing_else() {
        let known = ["address", "body_limit_mib", "body_budget_mib"];
        let cases = [
            ("adress", Some("address")),
            ("Address", Some("address")),
            ("body_limit_mb", Some("body_limit_mib")),
            ("body_limit", None),
            ("colour", None),
            ("x", None),
        ];
        for (unknown, expected) in cases {
            assert_eq!(nearest(unknown, &known), expected, "{unknown}");
        }
    }
}

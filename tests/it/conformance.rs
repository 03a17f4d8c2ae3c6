//! `cohortd eval` against what Segment's hosted integration did with the same input.
//!
//! `tests/conformance` holds recorded cases. Those that show behaviour we deliberately differ from carry a
//! `surprise`. The number of them that differ is asserted, so that a change of behaviour in either
//! direction is noticed.

pub mod mapping;
pub mod subscription;
pub mod sync;

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;

/// A recorded case and our answer.
type Case = (Value, Value);

fn cases_and_answers(
    cases: &'static str,
    eval: impl FnOnce(&'static [u8], &mut Vec<u8>) -> io::Result<()>,
) -> Vec<Case> {
    let mut output = Vec::new();
    eval(cases.as_bytes(), &mut output).expect("memory does not fail");
    let parsed = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let answers: Vec<_> =
        str::from_utf8(&output).expect("JSON is UTF-8").lines().map(parsed).collect();
    let cases: Vec<_> = cases.lines().map(parsed).collect();
    assert_eq!(cases.len(), answers.len(), "one line out for each line in");
    cases.into_iter().zip(answers).collect()
}

fn without_surprise(cases: &[Case]) -> impl Iterator<Item = &Case> {
    cases.iter().filter(|(case, _)| case.get("surprise").is_none())
}

/// For each surprise of `expected`: how many cases show it, and in how many of them we differ.
fn surprises_differ(
    cases: &[Case],
    differs: impl Fn(&Value, &Value) -> bool,
    expected: &[(&str, usize, usize)],
) {
    let mut counted = BTreeMap::<&str, (usize, usize)>::new();
    for (case, answer) in cases {
        if let Some(surprise) = case["surprise"].as_str() {
            let (shown, differing) = counted.entry(surprise).or_default();
            *shown += 1;
            *differing += usize::from(differs(case, answer));
        }
    }
    let counted: Vec<_> =
        counted.into_iter().map(|(name, (shown, differing))| (name, shown, differing)).collect();
    assert_eq!(counted, expected);
}

//! `eval mapping` against what Segment resolved of the same mappings and payloads.

use serde_json::{Value, json};

use super::{Case, cases_and_answers, surprises_differ, without_surprise};

const CASES: &str = include_str!("../../conformance/mapping.jsonl");

/// For each surprise: how many cases show it, and in how many of them we differ.
const SURPRISES: [(&str, usize, usize); 38] = [
    ("array-content-not-validated", 3, 3),
    ("array-missing-becomes-null", 2, 0),
    ("arraypath-falsy-items", 1, 1),
    ("exclude-when-null-keeps-nulls-in-arrays", 2, 0),
    ("flatten-omitarrays-truthy", 1, 0),
    ("flatten-scalar-under-empty-key", 3, 0),
    ("if-blank-array-loose-equality", 2, 0),
    ("if-falsy-else-dropped", 4, 0),
    ("if-falsy-literal-condition-error", 4, 0),
    ("internal-root-directive", 2, 2),
    ("js-builtin-property", 4, 0),
    ("json-falsy-literal-value-error", 4, 0),
    ("json-integer-keys-first", 1, 1),
    ("json-upper-case-mode-drops-field", 1, 1),
    ("literal-resolves-directives", 3, 0),
    ("merge-missing-value-overrides", 1, 0),
    ("merge-string-or-array-spread", 2, 0),
    ("merge-upper-case-direction", 1, 0),
    ("number-precision-lost", 6, 2),
    ("path-dollar-alone", 3, 0),
    ("path-dollar-dot-anywhere", 2, 0),
    ("path-empty-segments-skipped", 2, 0),
    ("path-quoted-key-split-on-dot", 2, 0),
    ("path-quotes-stripped", 2, 0),
    ("path-stray-bracket-dropped", 1, 0),
    ("path-through-falsy", 4, 4),
    ("raw-value-content-not-validated", 2, 2),
    ("replace-ascii-case-folding", 1, 0),
    ("replace-dollar-patterns", 3, 0),
    ("replace-length-in-utf16-units", 2, 0),
    ("replace-non-scalar-gives-empty-string", 2, 0),
    ("replace-null-replacement-invalid", 1, 0),
    ("template-array-joined", 3, 0),
    ("template-blank-is-root", 2, 2),
    ("template-dollar-prefix", 2, 0),
    ("template-double-evaluation", 1, 1),
    ("template-object-stringified", 1, 1),
    ("template-unbalanced-braces", 4, 0),
];

fn cases() -> Vec<Case> {
    cases_and_answers(CASES, |input, output| cohortd::cli::eval::mapping(input, output))
}

/// Errors are compared only as errors, numbers by value.
fn differs(case: &Value, answer: &Value) -> bool {
    let expected = &case["expect"];
    match (expected.get("error"), answer.get("error")) {
        (None, None) => !same(&expected["value"], &answer["value"]),
        (expected, found) => expected.is_none() || found.is_none(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fn recorded_mappings_resolve_to_the_same() {
    let cases = cases();
    let failing: Vec<_> = without_surprise(&cases)
        .filter(|(case, answer)| differs(case, answer))
        .map(|(case, answer)| format!("{}: {} gave {answer}", case["id"], case["mapping"]))
        .collect();
    assert!(failing.is_empty(), "{} differences\n{}", failing.len(), failing.join("\n"));
}

fn surprises_differ_where_we_mean_to() {
    surprises_differ(&cases(), differs, &SURPRISES);
}

/// The checker itself must be able to fail.
fn a_wrong_answer_is_a_difference() {
    let case = json!({"expect": {"value": {"out": [1.0]}}});
    for (answer, expected) in [
        (json!({"value": {"out": [1]}}), false),
        (json!({"value": {"out": [2]}}), true),
        (json!({"value": {}}), true),
        (json!({"value": {"out": [1], "more": null}}), true),
        (json!({"error": "no"}), true),
    ] {
        assert_eq!(differs(&case, &answer), expected, "{answer}");
    }
}

tests![
    recorded_mappings_resolve_to_the_same,
    surprises_differ_where_we_mean_to,
    a_wrong_answer_is_a_difference,
];

//! `eval subscription` against what Segment did with the same statements and events.
//!
//! `tests/conformance/fql.jsonl` holds recorded cases. Those tagged `mixed` are left out: `and` and
//! `or` at one level, where Segment is known to depart from its own description. Cases that show a
//! behaviour we depart from on purpose carry a `surprise`; how many of those differ is written down
//! here, so that a change of behaviour is noticed in either direction.

use serde_json::{Value, json};

use super::{Case, cases_and_answers, surprises_differ, without_surprise};

const CASES: &str = include_str!("../../conformance/fql.jsonl");

/// For each surprise: how many cases show it, and in how many of them we differ.
const SURPRISES: [(&str, usize, usize); 21] = [
    ("backslash-inside-text", 2, 0),
    ("boolean-check-on-event-or-name-compares-text", 2, 1),
    ("escaped-bracket-is-index", 6, 1),
    ("escaped-dot-still-splits", 1, 1),
    ("function-not-last-in-parentheses", 2, 1),
    ("function-on-type-ignored", 1, 1),
    ("js-builtin-property", 2, 0),
    ("match-with-stars-on-both-ends", 2, 2),
    ("match-without-outer-star", 2, 1),
    ("negated-parentheses-not-negated", 2, 2),
    ("nested-parentheses-rejected", 3, 3),
    ("not-equal-to-boolean", 4, 1),
    ("null-check-on-event-or-type", 5, 4),
    ("number-check-on-userid-compares-text", 4, 3),
    ("number-exponent-cut", 2, 2),
    ("path-segment-is-a-keyword", 4, 4),
    ("path-segment-starting-with-digit", 4, 3),
    ("path-through-falsy", 3, 3),
    ("quote-inside-text", 3, 3),
    ("single-quoted-text", 1, 1),
    ("trailing-or-missing-pieces-ignored", 4, 4),
];

fn cases() -> Vec<Case> {
    let cases =
        cases_and_answers(CASES, |input, output| cohortd::cli::eval::subscription(input, output));
    cases.into_iter().filter(|(case, _)| case["mixed"] != json!(true)).collect()
}

fn recorded_statements_select_the_same_events() {
    let cases = cases();
    let plain = without_surprise(&cases);
    let failing: Vec<_> = plain
        .filter(|(case, answer)| differs(case, answer))
        .map(|(case, answer)| format!("{}: {} gave {answer}", case["id"], case["fql"]))
        .collect();
    assert!(failing.is_empty(), "{} differences\n{}", failing.len(), failing.join("\n"));
}

fn surprises_differ_where_we_mean_to() {
    surprises_differ(&cases(), differs, &SURPRISES);
}

/// The checker itself must be able to fail.
fn a_wrong_answer_is_a_difference() {
    let (selected, refused) = (json!({"expect": true}), json!({"expect_error": true}));
    assert!(!differs(&selected, &json!({"value": true})));
    assert!(!differs(&refused, &json!({"error": "line 1"})));
    for wrong in [json!({"value": false}), json!({"value": "true"}), json!({"error": "line 1"})] {
        assert!(differs(&selected, &wrong), "{wrong}");
    }
    for wrong in [json!({"value": false}), json!({"value": true})] {
        assert!(differs(&refused, &wrong), "{wrong}");
    }
}

/// Errors are compared as errors, whatever they say.
fn differs(case: &Value, answer: &Value) -> bool {
    if case["expect_error"] == json!(true) {
        answer["error"].is_null()
    } else {
        answer["value"] != case["expect"]
    }
}

tests![
    recorded_statements_select_the_same_events,
    surprises_differ_where_we_mean_to,
    a_wrong_answer_is_a_difference,
];

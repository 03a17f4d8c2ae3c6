//! `eval sync` against what Segment's hosted integration did with the same events.
//!
//! `tests/conformance/sync.jsonl` holds recorded cases. A case is compared by what its requests
//! amount to: for each environment, context kind, audience and user the last value and name, and
//! the method, path and headers of the requests. Cases that show a behaviour we depart from on
//! purpose carry a `surprise`; how many of those differ is written down here, so that a change of
//! behaviour is noticed in either direction.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Case, cases_and_answers, surprises_differ, without_surprise};

const CASES: &str = include_str!("../../conformance/sync.jsonl");

/// For each surprise: how many cases show it, and in how many of them we differ.
const SURPRISES: [(&str, usize, usize); 14] = [
    ("batch-fails-as-a-whole", 2, 0),
    ("context-kind-from-first-event", 3, 3),
    ("empty-email-no-fallback", 2, 2),
    ("empty-values-kept-in-batch", 2, 2),
    ("event-type-not-checked", 3, 0),
    ("identifier-from-boolean-or-list", 9, 0),
    ("membership-missing-means-remove", 11, 11),
    ("membership-not-boolean", 13, 12),
    ("name-first-letter-utf16", 2, 0),
    ("no-context-key-still-sent", 50, 50),
    ("number-precision-lost", 2, 2),
    ("properties-win-over-traits", 4, 2),
    ("prototype-property-means-add", 3, 3),
    ("two-names-for-one-audience", 1, 0),
];

fn cases() -> Vec<Case> {
    cases_and_answers(CASES, |input, output| cohortd::cli::eval::sync(input, output))
}

fn recorded_cases_amount_to_the_same() {
    let cases = cases();
    let failing: Vec<_> = without_surprise(&cases)
        .flat_map(|(case, answer)| {
            let id = case["id"].as_str().unwrap_or("without id");
            differences(case, answer).into_iter().map(move |text| format!("{id}: {text}"))
        })
        .collect();
    assert!(failing.is_empty(), "{} differences\n{}", failing.len(), failing.join("\n"));
}

fn surprises_differ_where_we_mean_to() {
    surprises_differ(&cases(), |case, answer| !differences(case, answer).is_empty(), &SURPRISES);
}

/// The checker itself must be able to fail.
fn a_wrong_answer_is_a_difference() {
    let (case, answer) = cases()
        .into_iter()
        .find(|(case, _)| case["expect"]["requests"].as_array().is_some_and(|r| !r.is_empty()))
        .expect("some case sends something");
    for (pointer, wrong) in [
        ("/requests", json!([])),
        ("/requests/0/body/batch/0/value", json!("true")),
        ("/requests/0/body/batch/0/userId", json!("someone else")),
        ("/requests/0/body/environmentId", json!("elsewhere")),
        ("/requests/0/headers/Authorization", json!("Bearer")),
        ("/results/0/status", json!("rejected")),
    ] {
        let mut altered = answer.clone();
        *altered.pointer_mut(pointer).expect("the answer has it") = wrong;
        assert_ne!(differences(&case, &altered), Vec::<String>::new(), "{pointer}");
    }
}

/// How the answer differs from what was recorded; empty if it does not.
fn differences(case: &Value, answer: &Value) -> Vec<String> {
    let expect = &case["expect"];
    let (theirs, ours) = (deltas(&expect["requests"]), deltas(&answer["requests"]));
    let mut found = Vec::new();
    for key in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let (recorded, told) = (theirs.get(key), ours.get(key));
        if recorded != told {
            found.push(format!("{key}: recorded {recorded:?}, got {told:?}"));
        }
    }
    if !theirs.is_empty() && !ours.is_empty() {
        let (recorded, told) = (envelopes(&expect["requests"]), envelopes(&answer["requests"]));
        if recorded != told {
            found.push(format!("envelope: recorded {recorded:?}, got {told:?}"));
        }
    }
    let (recorded, told) = (recorded_acceptance(case), acceptance(case, answer));
    if recorded != told {
        found.push(format!("accepted: recorded {recorded:?}, got {told:?}"));
    }
    found
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Environment, context kind, audience and user -> value and name; the last wins.
fn deltas(requests: &Value) -> BTreeMap<String, (Value, Value)> {
    let items = list(requests).iter().flat_map(|request| {
        let body = &request["body"];
        list(&body["batch"]).iter().map(move |item| {
            let (environment, kind) = (&body["environmentId"], &body["contextKind"]);
            let key = json!([environment, kind, item["cohortId"], item["userId"]]);
            (key.to_string(), (item["value"].clone(), item["cohortName"].clone()))
        })
    });
    items.collect()
}

/// The `User-Agent` differs by design and is left out.
fn envelopes(requests: &Value) -> BTreeSet<String> {
    let envelope = |request: &Value| {
        let headers = &request["headers"];
        json!([
            request["method"],
            request["path"],
            headers["Authorization"],
            headers["Content-Type"],
            headers["LD-API-Version"],
        ])
        .to_string()
    };
    list(requests).iter().map(envelope).collect()
}

/// Which events were taken. A batch is answered event by event, anything else as a whole.
fn recorded_acceptance(case: &Value) -> Vec<bool> {
    let expect = &case["expect"];
    if case["mode"] == "batch" && expect["error"].is_null() {
        list(&expect["results"]).iter().map(|result| result["status"] == 200).collect()
    } else {
        vec![expect["error"].is_null(); list(&case["events"]).len()]
    }
}

/// A mapping that is wrong whatever the event is refused as a whole, before any event.
fn acceptance(case: &Value, answer: &Value) -> Vec<bool> {
    if answer.get("error").is_some() {
        return vec![false; list(&case["events"]).len()];
    }
    list(&answer["results"]).iter().map(|result| result["status"] == "accepted").collect()
}

tests![
    recorded_cases_amount_to_the_same,
    surprises_differ_where_we_mean_to,
    a_wrong_answer_is_a_difference,
];

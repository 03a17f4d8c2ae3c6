//! `eval sync` against what Segment's hosted integration did with the same events.
//!
//! `tests/conformance/sync.jsonl` holds recorded cases. A case is compared by what its requests
//! amount to: for each environment, context kind, audience and user the last value and name, and
//! the method, path and headers of the requests. Cases that show a behaviour we depart from on
//! purpose carry a `surprise`; how many of those differ is written down here, so that a change of
//! behaviour is noticed in either direction.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

const CASES: &str = include_str!("../conformance/sync.jsonl");

/// For each surprise: how many cases show it, and in how many of them we differ.
const SURPRISES: [(&str, usize, usize); 12] = [
    ("empty-email-no-fallback", 2, 2),
    ("empty-values-kept-in-batch", 2, 2),
    ("event-type-not-checked", 3, 0),
    ("identifier-from-boolean-or-list", 9, 0),
    ("membership-missing-means-remove", 7, 7),
    ("membership-not-boolean", 12, 11),
    ("name-first-letter-utf16", 2, 0),
    ("no-context-key-still-sent", 47, 47),
    ("number-precision-lost", 2, 2),
    ("properties-win-over-traits", 4, 2),
    ("prototype-property-means-add", 3, 3),
    ("two-names-for-one-audience", 1, 0),
];

fn cases_and_answers() -> Vec<(Value, Value)> {
    let mut output = Vec::new();
    cohortd::cli::eval::sync(CASES.as_bytes(), &mut output).expect("memory does not fail");
    let parsed = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let answers: Vec<_> =
        str::from_utf8(&output).expect("JSON is UTF-8").lines().map(parsed).collect();
    let cases: Vec<_> = CASES.lines().map(parsed).collect();
    assert_eq!(cases.len(), answers.len(), "one line out for each line in");
    cases.into_iter().zip(answers).collect()
}

#[test]
fn recorded_cases_amount_to_the_same() {
    let failing: Vec<_> = cases_and_answers()
        .iter()
        .filter(|(case, _)| case.get("surprise").is_none())
        .flat_map(|(case, answer)| {
            let id = case["id"].as_str().unwrap_or("without id");
            differences(case, answer).into_iter().map(move |text| format!("{id}: {text}"))
        })
        .collect();
    assert!(failing.is_empty(), "{} differences\n{}", failing.len(), failing.join("\n"));
}

#[test]
fn surprises_differ_where_we_mean_to() {
    let mut counted = BTreeMap::<String, (usize, usize)>::new();
    for (case, answer) in &cases_and_answers() {
        if let Some(surprise) = case["surprise"].as_str() {
            let (shown, differing) = counted.entry(surprise.to_owned()).or_default();
            *shown += 1;
            *differing += usize::from(!differences(case, answer).is_empty());
        }
    }
    let expected: BTreeMap<_, _> = SURPRISES
        .into_iter()
        .map(|(surprise, shown, differing)| (surprise.to_owned(), (shown, differing)))
        .collect();
    assert_eq!(counted, expected);
}

/// The checker itself must be able to fail.
#[test]
fn a_wrong_answer_is_a_difference() {
    let (case, answer) = cases_and_answers()
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
    let (recorded, told) = (recorded_acceptance(case), acceptance(answer));
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

fn acceptance(answer: &Value) -> Vec<bool> {
    list(&answer["results"]).iter().map(|result| result["status"] == "accepted").collect()
}

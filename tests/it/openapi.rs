//! The OpenAPI document against the daemon that serves it: it is valid, it lists every route and method and
//! no others, and schemathesis finds no answer that it does not describe. (Routes that bypass it are
//! excluded by `operate::admin::tests`.)

use std::collections::BTreeSet;
use std::process::{Command, Output};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Cohortd, Installation, identify, launchdarkly};
use crate::needs::SCHEMATHESIS;
use crate::python;

const NOW_MS: i64 = 1_750_000_000_000;
/// Schemathesis sends this token; requests without it must be refused.
const TOKEN: &str = "planted-admin-token";

/// Excluded, because schemathesis reports requests as wrongly accepted or refused where it cannot know
/// better: JSON Schema accepts 12.0 as an integer, and rules over several fields, such as that a context
/// key needs its audience, are only in the descriptions.
const EXCLUDED: &str = "positive_data_acceptance";

async fn document(cohortd: &Cohortd) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let url = format!("http://{}/api/v1/openapi.json", cohortd.admin);
    let answer = client.get(url).bearer_auth(TOKEN).send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/json");
    answer.json().await.expect("JSON")
}

/// Every `$ref` of a document.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

async fn each_route_and_method_is_in_the_document_and_no_other_is_answered() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", TOKEN);
    let cohortd = installation.start();
    let document = document(&cohortd).await;
    assert_eq!(document["openapi"], "3.1.0");

    let mut referred = BTreeSet::new();
    references(&document, &mut referred);
    for reference in referred {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }

    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let mut names = BTreeSet::new();
    let paths = document["paths"].as_object().expect("paths");
    for (path, item) in paths {
        let filled = path
            .replace("{destination}", "production")
            .replace("{key}", "nobody")
            .replace("{id}", "1");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let url = format!("http://{}{filled}", cohortd.admin);
            let verb = Method::from_bytes(method.as_bytes()).expect("a method");
            // Without a body nothing is changed: a request that would need one is refused.
            let answer = client.request(verb, url).bearer_auth(TOKEN).send().await.expect("one");
            let (status, allow) =
                (answer.status().as_u16(), answer.headers().get("allow").cloned());
            let text = answer.text().await.expect("text");
            let operation = &item[method.to_lowercase()];
            if operation.is_null() {
                assert_eq!(status, 405, "{method} {path}: {text}");
                assert!(allow.is_some(), "{method} {path}");
                continue;
            }
            let documented = &operation["responses"][status.to_string()];
            assert!(documented.is_object(), "{method} {path}: {status} {text}");
            assert!(!text.contains("no such route"), "{method} {path}: {text}");
            let expected = if operation["requestBody"].is_null() { [200, 404] } else { [415, 415] };
            assert!(expected.contains(&status), "{method} {path}: {status} {text}");
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name.to_owned()), "{name} is the name of two");
            assert!(operation["summary"].as_str().is_some_and(|said| said.len() > 5), "{name}");
        }
    }
    assert!(names.len() > 20, "{names:?}");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn schemathesis_finds_no_fault_of_ours_and_no_answer_that_is_not_described() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|user| user.starts_with("bad"));
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", TOKEN);
    let cohortd = installation.start();
    // So that every list has an entry.
    let people = ["ada", "bob", "bad"].map(|who| identify(who, "vip", true, NOW_MS));
    cohortd.post_batch(&people).await.expect("an answer");
    let mut nobody = identify("eve", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    assert_eq!(cohortd.post(&nobody).await.expect("an answer").0, 400);
    installation.drained().await;

    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("openapi.json");
    let mut document = document(&cohortd).await;
    std::fs::write(&file, document.to_string()).expect("it is ours");
    let valid =
        Command::new(python::SCHEMATHESIS.program("openapi-spec-validator")).arg(&file).output();
    let valid = valid.expect("it is installed");
    assert!(valid.status.success(), "{}", said(&valid));

    // So that most generated requests refer to things that exist.
    let paths = document["paths"].as_object_mut().expect("paths");
    for item in
        paths.values_mut().filter_map(|item| item.as_object_mut()).flat_map(|of| of.values_mut())
    {
        let parameters = item["parameters"].as_array_mut().into_iter().flatten();
        for parameter in parameters {
            let known = match parameter["name"].as_str() {
                Some("destination") => json!("production"),
                Some("key") => json!("ada"),
                Some("id") => json!(1),
                _ => continue,
            };
            let schema = parameter["schema"].take();
            parameter["schema"] = json!({"anyOf": [{"const": known}, schema]});
        }
    }
    std::fs::write(&file, document.to_string()).expect("it is ours");
    let url = format!("http://{}", cohortd.admin);
    let token = format!("Authorization: Bearer {TOKEN}");
    let output = Command::new(python::SCHEMATHESIS.program("st"))
        .arg("run")
        .arg(&file)
        .args(["--url", &url, "--header", &token, "--exclude-checks", EXCLUDED])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", "1"])
        .args(["--generation-database", "none", "--no-color"])
        .args(["--suppress-health-check", "all", "--max-time", "30", "--continue-on-failure"])
        .env("no_proxy", "127.0.0.1")
        .current_dir(folder.path())
        .output()
        .expect("it is installed");
    let text = said(&output);
    note!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Tested: "), "it has asked for something: {text}");
    assert!(cohortd.stop().0.success(), "and the daemon is well");
}

tests![
    each_route_and_method_is_in_the_document_and_no_other_is_answered,
    schemathesis_finds_no_fault_of_ours_and_no_answer_that_is_not_described.needs(&SCHEMATHESIS),
];

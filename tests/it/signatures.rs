//! `X-Signature` from outside: what Segment signs is accepted in each shape, and nothing else is (P8).
//!
//! `tests/signatures/vectors.jsonl` holds requests with the expected status, and for a 200 the number of
//! accepted events. The signatures were made with another implementation (Python's `hmac`), over what
//! Segment's code signs: the event, the first event of a batch, or the event inside the first wrapper.

use std::collections::BTreeMap;

use cohortd::sandbox::{StandIn, View};
use cohortd::secret::Secret;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};

const VECTORS: &str = include_str!("../signatures/vectors.jsonl");
const BEARER: &str = "planted-bearer";
const WRITE_KEY: &str = "planted-key";
const NOW_MS: i64 = 1_750_000_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// What the vector shows, for failure messages.
    claim: String,
    shape: String,
    /// `production` accepts a signature, `strict` also requires a bearer token, and `keyed` requires a
    /// write key.
    destination: Option<String>,
    body: String,
    signature: Option<String>,
    bearer: Option<String>,
    write_key: Option<String>,
    status: u16,
    accepted: Option<u64>,
}

fn installation(launchdarkly: &StandIn) -> Installation {
    let mut installation = Installation::new(launchdarkly);
    let mut configure = |destination: &str, client_side_id: &str, particular: &[(&str, &str)]| {
        let mut set = |key: &str, value: &str| {
            installation.set(&format!("destinations.{destination}.{key}"), value);
        };
        set("segment.shared_secrets", "first-secret\nsecond-secret");
        set("segment.extra_fields", "plan\nseats\nsay \"hi\"");
        for (key, value) in particular {
            set(&format!("segment.{key}"), value);
        }
        set("launchdarkly.client_side_id", client_side_id);
        set("launchdarkly.service_token", "another-token");
        set("launchdarkly.base_url", launchdarkly.url().as_str());
    };
    configure("production", ENVIRONMENT, &[]);
    configure("strict", "one", &[("bearer_tokens", BEARER), ("require", "signature\nbearer")]);
    configure("keyed", "two", &[("write_keys", WRITE_KEY), ("require", "signature\nwrite_key")]);
    installation
}

async fn post(cohortd: &Cohortd, client: &reqwest::Client, vector: &Vector) -> (u16, Value) {
    let destination = vector.destination.as_deref().unwrap_or("production");
    let url = format!("http://{}/segment/{destination}", cohortd.public);
    let mut request = client.post(url).body(vector.body.clone());
    if let Some(signature) = &vector.signature {
        request = request.header("x-signature", signature);
    }
    if let Some(token) = &vector.bearer {
        request = request.bearer_auth(token);
    }
    if let Some(key) = &vector.write_key {
        request = request.basic_auth(key, Some(""));
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn what_segment_signs_passes_in_every_shape_and_nothing_else_does() {
    let launchdarkly = launchdarkly().await;
    let cohortd = installation(&launchdarkly).start();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let mut of_shape: BTreeMap<String, [u32; 2]> = BTreeMap::new();
    for line in VECTORS.lines() {
        let vector: Vector = serde_json::from_str(line).expect("a vector");
        let (status, answer) = post(&cohortd, &client, &vector).await;
        let about = format!("{}: {}: {answer}", vector.shape, vector.claim);
        assert_eq!(status, vector.status, "{about}");
        if let Some(accepted) = vector.accepted {
            assert_eq!(answer["accepted"], accepted, "{about}");
        }
        of_shape.entry(vector.shape).or_default()[usize::from(status == 401)] += 1;
    }
    note!("passed and refused, by shape: {of_shape:?}");
    assert_eq!(of_shape.len(), 4);
    assert!(of_shape.values().flatten().all(|count| *count > 0), "both happen in each shape");
    assert!(cohortd.stop().0.success());
}

/// Anyone who has seen a signed batch can append to it, because the signature covers only its first event.
async fn a_forged_tail_is_refused_where_a_bearer_token_is_required() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.bearer_tokens", BEARER);
    let seen = identify("ada", "vip", true, NOW_MS).to_string();
    let forged = format!("[{seen},{}]", identify("eve", "vip", true, NOW_MS));
    let members = |view: &View<'_>, wanted: &[&str]| {
        view.segment(ENVIRONMENT, "aud_vip")
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(wanted.iter().copied()))
    };

    installation.set("destinations.production.segment.require", "signature\nbearer");
    let cohortd = installation.start();
    let (status, _) = cohortd.post_signed(forged.clone(), &seen).await.expect("an answer");
    assert_eq!(status, 401);
    let url = format!("http://{}/segment/production", cohortd.public);
    let signature = cohortd::sandbox::sign(&Secret::new(SHARED_SECRET), seen.as_bytes());
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client");
    let honest = client.post(url).header("x-signature", signature).bearer_auth(BEARER);
    let answer = honest.body(format!("[{seen}]")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    launchdarkly.until(DEADLINE, |view| members(view, &["ada"])).await.expect("ada alone is in");
    assert!(cohortd.stop().0.success());

    installation.unset("destinations.production.segment.require");
    let cohortd = installation.start();
    let (status, _) = cohortd.post_signed(forged, &seen).await.expect("an answer");
    assert_eq!(status, 200, "with a signature alone the tail is believed");
    launchdarkly
        .until(DEADLINE, |view| members(view, &["ada", "eve"]))
        .await
        .expect("so eve is in");
    assert!(cohortd.stop().0.success());
}

tests![
    what_segment_signs_passes_in_every_shape_and_nothing_else_does,
    a_forged_tail_is_refused_where_a_bearer_token_is_required,
];

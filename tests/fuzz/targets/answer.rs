//! An answer of LaunchDarkly, or of whatever answers in its place: a status and any body. Judging it
//! never panics, and what is kept of it is short.

#![no_main]

use cohortd::launchdarkly::{Outcome, classify};
use http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;

const STATUSES: [u16; 10] = [400, 401, 403, 404, 409, 413, 422, 429, 503, 200];

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = input;
    let status = STATUSES[usize::from(which) % STATUSES.len()];
    let status = StatusCode::from_u16(status).expect("it is one");
    let answer = classify(status, &HeaderMap::new(), body);
    if let Outcome::Refused(refusal) = &answer.outcome {
        assert!(refusal.message_with_personal_data().len() <= 1024);
        assert!(refusal.code.len() <= 128 && refusal.id.len() <= 128);
    }
    assert!(!format!("{answer:?}").contains("planted"));
});

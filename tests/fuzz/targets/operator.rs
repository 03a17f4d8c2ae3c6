//! What an operator hands in, any bytes: as the body of each change, as an event to be explained, and as
//! lines for `cohortd eval`. Nothing panics, and a line is a line.

#![no_main]

use std::sync::LazyLock;

use cohortd::cli::eval;
use cohortd::json::{self, exact::Exact};
use cohortd::map::Mapping;
use cohortd::membership::{DestinationName, Timestamp};
use cohortd::operate::api::wire;
use cohortd::operate::explain::{Configured, report};
use libfuzzer_sys::fuzz_target;

const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

static CONFIGURED: LazyLock<(DestinationName, Configured)> = LazyLock::new(|| {
    let configured = Configured {
        enabled: true,
        mappings: Mapping::preset().into(),
        client_side_id: "env".to_owned(),
        base_url: "https://app.launchdarkly.com".parse().expect("a URL"),
    };
    (DestinationName::new("production").expect("a name"), configured)
});

fuzz_target!(|body: &[u8]| {
    let _ = json::from_slice::<wire::Replay>(body);
    let _ = json::from_slice::<wire::RejectedChange>(body);
    let _ = json::from_slice::<wire::ParkedChange>(body);
    let _ = json::from_slice::<wire::Forget>(body);
    let _ = json::from_slice::<wire::Resync>(body);
    let _ = json::from_slice::<wire::Drop>(body);
    if let Ok(event) = Exact::read(body) {
        let (name, configured) = &*CONFIGURED;
        let report = report(name, configured, &event, ARRIVAL);
        assert!(serde_json::to_string(&report).is_ok());
    }
    let lines = body.split_inclusive(|byte| *byte == b'\n').count();
    let commands: [fn(&[u8], &mut Vec<u8>) -> std::io::Result<()>; 3] = [
        |lines, answers| eval::mapping(lines, answers),
        |lines, answers| eval::subscription(lines, answers),
        |lines, answers| eval::sync(lines, answers),
    ];
    for command in commands {
        let mut answers = Vec::new();
        command(body, &mut answers).expect("memory does not fail");
        assert_eq!(answers.iter().filter(|byte| **byte == b'\n').count(), lines);
    }
});

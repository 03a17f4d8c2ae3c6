//! A statement in the first line and an event after it. Neither parsing nor evaluating may panic,
//! and what is printed is the statement again.

#![no_main]

use cohortd::map::Subscription;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &str| {
    let (statement, event) = input.split_once('\n').unwrap_or((input, "{}"));
    let Ok(subscription) = Subscription::parse(statement) else { return };
    let printed = subscription.to_string();
    assert_eq!(Subscription::parse(&printed).as_ref(), Ok(&subscription), "{printed}");
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    let selects = subscription.selects(&event);
    assert_eq!(subscription.why_not(&event).is_none(), selects);
});

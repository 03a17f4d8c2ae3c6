//! A template, rendered for an event that has every kind of value. Neither may panic or take long.

#![no_main]

use std::sync::LazyLock;

use cohortd::map::transform;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static EVENT: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "n": 5, "f": 2.5, "s": "żółć 😀", "t": true, "z": null, "l": ["a", 1, [null], {"k": "v"}],
        "o": {"k": 1, "size": "own"}, "d": "2024-03-05T06:07:08.123Z", "h": "<b>x</b>&amp;",
        "e": "", "big": 9_007_199_254_740_993_u64,
    })
});

fuzz_target!(|template: &str| {
    let mapping = json!({ "@liquid": template });
    let first = transform(&mapping, &EVENT);
    assert_eq!(transform(&mapping, &EVENT), first);
});

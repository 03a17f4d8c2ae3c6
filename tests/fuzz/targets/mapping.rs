//! A mapping and a payload, each any JSON: the input is a list of the two. Neither compiling nor
//! resolving may panic, and the same input gives the same output.

#![no_main]

use cohortd::map::transform;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Ok([mapping, payload]) = serde_json::from_slice::<[Value; 2]>(input) else { return };
    let first = transform(&mapping, &payload);
    assert_eq!(transform(&mapping, &payload), first);
});

//! A webhook body, any bytes. Splitting it never panics; every element is a part of the body, in its
//! order; and where another parser reads the body, it finds the same elements.

#![no_main]

use cohortd::receive::envelope::{Envelope, is_one_value, split, without_appended, wrapped_event};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

mod raw;

const MOST_EVENTS: usize = 1000;

fuzz_target!(|body: &[u8]| {
    let split = split(body, MOST_EVENTS);
    let elements = match &split {
        Ok(Envelope::Array(elements)) => &elements[..],
        Ok(Envelope::Single(event)) => std::slice::from_ref(event),
        Err(unsplittable) => unsplittable.first.as_slice(),
    };
    let mut from = body.as_ptr() as usize;
    let end = from + body.len();
    for element in elements {
        let at = element.as_ptr() as usize;
        assert!(from <= at && at + element.len() <= end, "a part of the body, behind the last");
        from = at + element.len();
        assert_eq!(element.trim_ascii(), *element);
        let before = without_appended(element, &["json".to_owned(), "é".to_owned()]);
        assert!(before.is_none_or(|before| before.len() < element.len()));
        if let Some(event) = wrapped_event(element) {
            if let Ok(value) = serde_json::from_slice::<Value>(element) {
                assert_eq!(serde_json::from_slice::<Value>(event).ok().as_ref(), value.get("json"));
            }
        }
    }
    let is_array = body.trim_ascii().first() == Some(&b'[');
    match raw::elements(body) {
        Some(read) if is_array && read.len() <= MOST_EVENTS => {
            assert_eq!(split, Ok(Envelope::Array(read)));
        }
        _ if is_array => {}
        _ => {
            let is_read = serde_json::from_slice::<IgnoredAny>(body).is_ok();
            let is_one = matches!(split, Ok(Envelope::Single(event)) if is_one_value(event));
            assert!(!is_read || is_one, "one value is one event");
        }
    }
});

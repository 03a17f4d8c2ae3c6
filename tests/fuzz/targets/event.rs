//! A webhook body, any bytes: what stands behind its first event is signed by nobody. Reading and mapping its
//! events never panics and is bounded in depth, an object is read as an object, the shortcut of the
//! mapping agrees with the long way, and what is written of an event is the event again.

#![no_main]

use std::sync::LazyLock;

use cohortd::json::{self, exact::Exact};
use cohortd::map::{Mapping, Mappings, Outcome};
use cohortd::membership::Timestamp;
use cohortd::receive::envelope::{Envelope, split, wrapped_event};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

static PRESET: LazyLock<Mappings> = LazyLock::new(|| Mapping::preset().into());

/// A mapping that walks whole values.
static WALKING: LazyLock<Mappings> = LazyLock::new(|| {
    let decode = json!({"@json": {"mode": "decode", "value": {"@path": "$.traits.email"}}});
    let flat = json!({"@flatten": {"value": {"@path": "$."}, "separator": "."}});
    let encode = json!({"@json": {"mode": "encode", "value": {"@path": "$."}}});
    let fields = json!({
        "user_email": decode,
        "segment_anonymous_id": encode,
        "traits_or_props": {"@merge": {"objects": [flat, {"@path": "$.traits"}], "direction": "right"}},
    });
    let fields = fields.as_object().expect("it is one");
    let mut mapping = Mapping::preset_with(fields).expect("a good mapping");
    mapping.set_field("context_key", &json!("first_available")).ok();
    mapping.into()
});

fuzz_target!(|body: &[u8]| {
    let elements = match split(body, 1000) {
        Ok(Envelope::Array(elements)) => elements,
        Ok(Envelope::Single(event)) => vec![event],
        Err(unsplittable) => unsplittable.first.into_iter().collect(),
    };
    for element in elements {
        let text = wrapped_event(element).unwrap_or(element);
        let quick = PRESET.map_plain(text, ARRIVAL);
        let Ok(exact) = Exact::read(text) else {
            assert_eq!(quick, None, "what cannot be read is nobody's");
            continue;
        };
        let event = exact.value();
        assert_eq!(event.is_object(), text.starts_with(b"{"));
        assert_eq!(event.is_array(), text.starts_with(b"["));
        assert!(!json::is_deeper_than(json::DEEPEST, event));
        let outcome = PRESET.map(&exact, ARRIVAL);
        if let Some(delta) = quick {
            let Outcome::Accepted { deltas, rejection: None } = outcome else {
                panic!("it is accepted the plain way only: {outcome:?}");
            };
            assert_eq!(deltas, [delta]);
        }
        assert_eq!(WALKING.map(&exact, ARRIVAL), WALKING.map(&exact, ARRIVAL));
        let again = Exact::read(exact.to_json().as_bytes()).expect("JSON that was written");
        assert!(again.value() == event && again.texts() == exact.texts());
    }
});

//! A body of the Tracking API, any bytes, as a batch and as one message: it never panics, the messages of a
//! batch are those that a naive reading gives, and each can be mapped.

#![no_main]

use std::sync::LazyLock;

use cohortd::json;
use cohortd::map::{Mapping, Mappings};
use cohortd::membership::Timestamp;
use cohortd::receive::messages;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

static PRESET: LazyLock<Mappings> = LazyLock::new(|| Mapping::preset().into());

fuzz_target!(|body: &[u8]| {
    let found = messages(body);
    let single = json::from_slice::<Map<String, Value>>(body).map(Value::Object);
    for message in found.iter().flatten().flatten().chain(&single) {
        let _ = PRESET.map(message, ARRIVAL);
    }
    let Ok(Value::Object(batch)) = single else { return };
    let Some(Value::Array(naive)) = batch.get("batch") else {
        assert_eq!(found, None);
        return;
    };
    // A key that stands twice is refused; the naive reading does not see it.
    let Some(found) = found else { return };
    assert_eq!(found.len(), naive.len());
    for (found, message) in found.into_iter().zip(naive) {
        assert_eq!(found, Some(merged(message.clone(), &batch)));
    }
});

fn merged(mut message: Value, batch: &Map<String, Value>) -> Value {
    let Value::Object(own) = &mut message else { return message };
    for name in ["context", "integrations"] {
        let Some(Value::Object(shared)) = batch.get(name) else { continue };
        let beneath = own.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(beneath) = beneath {
            for (key, value) in shared {
                beneath.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    own.remove("writeKey");
    message
}

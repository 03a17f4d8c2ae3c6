//! Detects bodies that are not an event of Segment, and names the setting that is probably wrong.
//!
//! Ignoring such a body would look like success, although a misconfigured webhook sends nothing else.

use serde_json::{Map, Value};

use super::rejection::{Reason, Rejection};

/// The types of Segment's calls, and the type of a deletion.
const TYPES: [&str; 7] = ["identify", "track", "group", "page", "screen", "alias", "delete"];

/// Why this object is not an event of Segment; `None` if its type is one of [`TYPES`].
pub(super) fn objection(event: &Value) -> Option<Rejection> {
    let event = event.as_object()?;
    let kind = event.get("type");
    if kind.and_then(Value::as_str).is_some_and(|kind| TYPES.contains(&kind)) {
        return None;
    }
    Some(Rejection::new(Reason::NotAnEvent, detail(event, kind)))
}

fn detail(event: &Map<String, Value>, kind: Option<&Value>) -> &'static str {
    let has = |field: &str| event.contains_key(field);
    let is_text = |field: &str| event.get(field).is_some_and(Value::is_string);
    let holds = |field: &str| event.get(field).is_some_and(|of| of.is_object() || of.is_array());
    let is_kind = |name: &str| {
        kind.and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case(name))
    };
    if event.is_empty() {
        "The object is empty: in Segment's mapping of the destination, let the data be the whole event ($.)."
    } else if event.get("batch").is_some_and(Value::is_array) {
        "A batch of the Tracking API was posted to a webhook's path: send it to /v1/batch, with a write key \
         of segment.write_keys."
    } else if is_kind("audiencelist") {
        "An audiencelist comes from another vendor and is not a Segment event: connect a Segment \
         audience to this URL instead."
    } else if is_text("body") {
        "The event is form-encoded text inside `body`: set the content type of the Extensible Webhook in \
         Segment to application/json."
    } else if has("audienceName") || has("externalId") {
        "A call of Webhook Audiences was posted to the events' path: in Segment, set the URLs to create and \
         get audiences to this path followed by /audiences/create and /audiences/get."
    } else if holds("json") {
        "The event is wrapped in `json` beside other fields: in Segment, let the webhook send \
         nothing but the event."
    } else if holds("data") {
        "The event is wrapped in `data`: in Segment's mapping of the destination, let the data be \
         the whole event ($.), and let nothing wrap it on its way."
    } else if holds("payload") {
        "The event is wrapped in `payload`: let the function or proxy in front send only the \
         content of `payload`, unchanged."
    } else if kind.is_some() {
        "The type is not one of Segment's (identify, track, group, page, screen, alias, delete): \
         let Segment send its events as they are, or select this type by mapping.subscribe."
    } else {
        "The event has no type: in Segment's mapping of the destination, let the data be the whole event ($.), \
         or select what is sent by mapping.subscribe."
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_shape_names_the_setting_that_made_it_so() {
        let table = [
            (json!({}), "the whole event ($.)"),
            (json!({"batch": [{"type": "track"}], "sentAt": 1}), "/v1/batch"),
            (json!({"data": [{"type": "track"}]}), "in `data`"),
            (json!({"payload": {"type": "track"}}), "in `payload`"),
            (json!({"body": "type=track&userId=a"}), "application/json"),
            (json!({"type": "audiencelist", "properties": {}}), "another vendor"),
            (json!({"audienceName": "VIP"}), "/audiences/create"),
            (json!({"json": {"type": "track"}, "x": 1}), "in `json`"),
            (json!({"type": "Identify"}), "mapping.subscribe"),
            (json!({"type": 7}), "mapping.subscribe"),
            (json!({"type": null, "userId": "a"}), "mapping.subscribe"),
            (json!({"userId": "a"}), "has no type"),
        ];
        for (event, expected) in table {
            let rejection = objection(&event).expect("it is none");
            assert_eq!(rejection.reason, Reason::NotAnEvent, "{event}");
            assert!(rejection.detail.contains(expected), "{event}: {rejection}");
        }
        for kind in TYPES {
            assert_eq!(objection(&json!({"type": kind, "batch": []})), None, "{kind}");
        }
    }
}

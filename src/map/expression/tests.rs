use serde_json::json;

use super::*;

#[test]
fn directives_resolve_against_the_event() {
    let event = json!({"a": {"b": 1, "n": null, "l": [{"x": 2}]}, "t": "text", "": 3});
    let rows = [
        (json!("plain"), Some(json!("plain"))),
        (json!(null), Some(json!(null))),
        (json!({"k": [1]}), Some(json!({"k": [1]}))),
        (json!({"@path": "$.a.b"}), Some(json!(1))),
        (json!({"@path": "a.b"}), Some(json!(1))),
        (json!({"@path": "$.a.l.0.x"}), Some(json!(2))),
        (json!({"@path": "$.a.n"}), Some(json!(null))),
        (json!({"@path": "$.a.n.deeper"}), Some(json!(null))),
        (json!({"@path": "$.a.c"}), None),
        (json!({"@path": "$.t.length"}), None),
        (json!({"@path": "$.a.constructor"}), None),
        (json!({"@path": "$."}), Some(event.clone())),
        (json!({"@literal": {"k": 1}}), Some(json!({"k": 1}))),
        (
            json!({"@if": {"exists": {"@path": "$.a.b"}, "then": "y", "else": "n"}}),
            Some(json!("y")),
        ),
        (
            json!({"@if": {"exists": {"@path": "$.a.n"}, "then": "y", "else": "n"}}),
            Some(json!("n")),
        ),
        (json!({"@if": {"exists": {"@path": "$.a.c"}, "then": "y"}}), None),
        (json!({"k": {"@path": "$.a.b"}, "m": {"@path": "$.a.c"}}), Some(json!({"k": 1}))),
    ];
    for (mapping, expected) in rows {
        let compiled = Expression::compile(&mapping).expect("all of these are known");
        assert_eq!(compiled.resolve(&event).map(Cow::into_owned), expected, "{mapping}");
    }
}

#[test]
fn what_is_not_understood_is_refused_when_compiled() {
    let rows = [
        (json!({"@template": "{{a}}"}), "@template is not supported"),
        (json!({"@path": 5}), "@path is not supported"),
        (json!({"@path": "$.a[0]"}), "brackets, quotes or escapes in @path is not supported"),
        (json!({"@path": "$.a", "extra": 1}), "a directive must be the only key"),
        (json!({"@literal": {"@path": "$.a"}}), "@literal is not supported"),
        (json!({"@if": {"blank": 1, "then": 2}}), "@if with anything but exists is not supported"),
        (json!({"@if": {"exists": 1}}), "@if needs exists and then"),
        (json!([{"@path": "$.a"}]), "a directive inside a list is not supported"),
        (json!({"k": {"@liquid": ""}}), "@liquid is not supported"),
    ];
    for (mapping, text) in rows {
        let error = Expression::compile(&mapping).expect_err("none of these is known");
        assert_eq!(error.to_string(), text, "{mapping}");
    }
}

#[test]
fn debug_shows_places_and_not_values() {
    let literal = Expression::Literal(json!("ada@example.com"));
    assert_eq!(format!("{literal:?}"), "the value in the mapping");
    let email = Expression::first_of(&["traits", "email"], &["context", "traits", "email"]);
    assert_eq!(format!("{email:?}"), "$.traits.email, else $.context.traits.email");
}

//! Tables for every directive, and random mappings compared with an interpreter that reads the JSON each
//! time.

mod naive;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn resolved(mapping: &Value, event: &Value) -> Result<Option<Value>, String> {
    let compiled = Expression::compile(mapping, "field")
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let value = compiled.resolve(event).map_err(|unresolved| unresolved.to_string())?;
    Ok(value.map(Cow::into_owned))
}

fn event() -> Value {
    json!({
        "a": {"b": 1, "n": null, "l": [{"x": 2}, {"x": 3, "y": null}], "e": "", "f": false},
        "t": "text", "": 3, "big": 9_007_199_254_740_993_u64, "half": 0.5, "list": ["p", null, 7],
        "code": "{\"k\": [1, 1.0, 1e21]}", "at": "a.b", "say": "Hi {{t}}", "kelvin": "\u{212A}k\u{17F}s",
        "k[x]": "bracketed", "[y]": "too", "z[": "open", "deseret": "\u{10428}",
    })
}

fn deep(depth: usize) -> Value {
    let text = format!("{}1{}", "{\"d\":[".repeat(depth / 2), "]}".repeat(depth / 2));
    crate::json::from_str(&text).expect("it is not too deep")
}

/// `levels` nested `@transform`s, each of which wraps its input 20 levels deeper.
fn deepening(levels: usize) -> Value {
    let deeper = (0..20).fold(json!({"@path": "$."}), |inside, _| json!({"d": inside}));
    let whole = json!({"@path": "$."});
    (0..levels).fold(
        whole,
        |mapping, _| json!({"@transform": {"apply": deeper.clone(), "mapping": mapping}}),
    )
}

#[test]
fn what_is_made_of_a_deep_event_is_not_much_deeper() {
    // nesting levels of the event and of the mapping
    for (event, levels, possible) in [(126, 1, true), (126, 3, true), (126, 4, false), (2, 9, true)]
    {
        let made = resolved(&deepening(levels), &deep(event));
        assert_eq!(made.is_ok(), possible, "{event} and {levels}: {:?}", made.err());
    }
}

/// Everything that walks a value recurses: for the deepest value that can be parsed, a part of a thread's
/// stack (2 MiB) must suffice.
#[test]
fn the_deepest_event_needs_little_stack() {
    let walked = || {
        let event = deep(126);
        let (whole, text) = (json!({"@path": "$."}), Value::from(event.to_string()));
        for mapping in [
            json!({"@flatten": {"value": whole, "separator": "."}}),
            json!({"@json": {"mode": "encode", "value": whole}}),
            json!({"@json": {"mode": "decode", "value": text}}),
            json!({"@merge": {"objects": [whole, whole], "direction": "right"}}),
            json!({"@excludeWhenNull": whole}),
            json!({"@if": {"blank": whole, "then": whole, "else": whole}}),
            json!({"@liquid": "{% if d == d %}{{ d | json }}{% endif %}{{ d }}"}),
            deepening(3),
        ] {
            let made = resolved(&mapping, &event).expect("it can be made");
            assert_eq!(made, resolved(&mapping, &event).expect("again"), "{mapping}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(walked);
    thread.expect("a thread").join().expect("nothing was wrong");
}

#[test]
fn directives_resolve_against_the_event() {
    let event = event();
    #[rustfmt::skip]
    let rows = [
        (json!("plain"), Some(json!("plain"))),
        (json!(null), Some(json!(null))),
        (json!({"k": [1]}), Some(json!({"k": [1]}))),
        // paths
        (json!({"@path": "$.a.b"}), Some(json!(1))),
        (json!({"@path": "a.b"}), Some(json!(1))),
        (json!({"@path": "$.a.l.0.x"}), Some(json!(2))),
        (json!({"@path": "$.a.l[1].x"}), Some(json!(3))),
        (json!({"@path": "$.a['b']"}), Some(json!(1))),
        (json!({"@path": "$..a..b."}), Some(json!(1))),
        (json!({"@path": "$.a.l[01].x"}), None),
        (json!({"@path": "$.a.n"}), Some(json!(null))),
        (json!({"@path": "$.a.n.deeper"}), Some(json!(null))),
        (json!({"@path": "$.a.c"}), None),
        (json!({"@path": "$.a.f.deeper"}), None),
        (json!({"@path": "$.a.constructor"}), None),
        (json!({"@path": "$.t.length"}), Some(json!(4))),
        (json!({"@path": "$.t.length.length"}), None),
        (json!({"@path": "$.t[1]"}), Some(json!("e"))),
        (json!({"@path": "$.list.length"}), Some(json!(3))),
        (json!({"@path": "$."}), Some(event.clone())),
        (json!({"@path": {"@path": "$.at"}}), Some(json!(1))),
        (json!({"@path": "$.t", "_metadata": {"type": "variable"}}), Some(json!("text"))),
        // templates
        (json!({"@template": "{{t}}-{{{ a.b }}}{{no}}"}), Some(json!("text-1"))),
        (json!({"@template": "{{a.n}}{{a.f}}{{big}}{{half}}"}), Some(json!("false90071992547409930.5"))),
        (json!({"@template": "{{list}}{{$.t}}"}), Some(json!("p,,7"))),
        (json!({"@template": "{{say}}{{{say}}}"}), Some(json!("Hi {{t}}Hi {{t}}"))),
        (json!({"@template": "{t}{ {{t}} }{{}}"}), Some(json!("{t}{ text }{{}}"))),
        (json!({"@template": {"@path": "$.say"}}), Some(json!("Hi text"))),
        // conditions
        (json!({"@if": {"exists": {"@path": "$.a.b"}, "then": "y", "else": "n"}}), Some(json!("y"))),
        (json!({"@if": {"exists": {"@path": "$.a.n"}, "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"exists": {"@path": "$.a.e"}, "then": "y", "else": "n"}}), Some(json!("y"))),
        (json!({"@if": {"exists": {"@path": "$.a.c"}, "then": "y"}}), None),
        (json!({"@if": {"exists": {"@path": "$.a.c"}, "then": "y", "else": false}}), None),
        (json!({"@if": {"exists": {"@path": "$.t"}, "then": false}}), Some(json!(false))),
        (json!({"@if": {"blank": {"@path": "$.t"}, "then": "y", "else": "n"}}), Some(json!("y"))),
        (json!({"@if": {"blank": {"@path": "$.a.f"}, "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"blank": {"@path": "$.a.e"}, "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"blank": [[""]], "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"blank": [0], "then": "y", "else": "n"}}), Some(json!("y"))),
        // texts
        (json!({"@case": {"operator": "upper", "value": {"@path": "$.t"}}}), Some(json!("TEXT"))),
        (json!({"@case": {"operator": "upper", "value": {"@path": "$.a.b"}}}), Some(json!(1))),
        (json!({"@case": {"operator": "upper"}}), None),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t"}}), Some(json!("ex"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "T", "replacement": "d", "global": false, "ignorecase": true}}), Some(json!("dext"))),
        (json!({"@replace": {"value": {"@path": "$.kelvin"}, "pattern": "K", "replacement": "_", "ignorecase": true}}), Some(json!("\u{212A}_\u{17F}s"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "ex", "replacement": "$&$$$1$`$'", "pattern2": "$", "replacement2": "("}}), Some(json!("tex((1ttt"))),
        (json!({"@replace": {"value": {"@path": "$.a.f"}, "pattern": "f"}}), Some(json!("alse"))),
        (json!({"@replace": {"value": {"@path": "$.a.n"}, "pattern": "f"}}), Some(json!(""))),
        // lists and objects
        (json!({"@arrayPath": ["$.a.l", {"z": {"@path": "$.x"}}]}), Some(json!([{"z": 2}, {"z": 3}]))),
        (json!({"@arrayPath": ["$.a", {"z": {"@path": "$.b"}}]}), Some(json!([{"z": 1}]))),
        (json!({"@arrayPath": ["$.t", {"z": {"@path": "$.b"}}]}), Some(json!("text"))),
        (json!({"@arrayPath": [{"@path": "$.list"}]}), Some(json!(["p", null, 7]))),
        (json!({"@flatten": {"value": {"@path": "$.a"}, "separator": "_"}}), Some(json!({"b": 1, "n": null, "l_0_x": 2, "l_1_x": 3, "l_1_y": null, "e": "", "f": false}))),
        (json!({"@flatten": {"value": {"p": [1], "q": {"r": 2}}, "separator": ".", "omitArrays": true}}), Some(json!({"p": [1], "q.r": 2}))),
        (json!({"@json": {"mode": "encode", "value": {"@path": "$.a.l"}}}), Some(json!("[{\"x\":2},{\"x\":3,\"y\":null}]"))),
        (json!({"@json": {"mode": "encode", "value": {"z": 1.0, "y": 1e21, "x": {"@path": "$.no"}}}}), Some(json!("{\"z\":1,\"y\":1e+21}"))),
        (json!({"@json": {"mode": "decode", "value": {"@path": "$.code"}}}), Some(json!({"k": [1, 1.0, 1e21]}))),
        (json!({"@json": {"mode": "decode", "value": {"@path": "$.t"}}}), Some(json!("text"))),
        (json!({"@json": {"mode": "decode", "value": "117000000000000000001"}}), Some(json!("117000000000000000001"))),
        (json!({"@json": {"mode": "decode", "value": "{\"id\":117000000000000000002,\"n\":7}"}}), Some(json!({"id": "117000000000000000002", "n": 7}))),
        (json!({"@json": {"mode": "decode", "value": "[1e400,1e20]"}}), Some(json!(["Infinity", 1e20]))),
        (json!({"@merge": {"objects": [{"@path": "$.a.l[0]"}, {"x": 9, "n": {"@path": "$.no"}}], "direction": "right"}}), Some(json!({"x": 9}))),
        (json!({"@merge": {"objects": [{"x": 9}, {"x": 8, "w": 1}, {"@path": "$.t"}], "direction": "left"}}), Some(json!({"0": "t", "1": "e", "2": "x", "3": "t", "x": 9, "w": 1}))),
        (json!({"@merge": {"objects": [{"x": {"@path": "$.no"}}, {"x": 8}], "direction": "left"}}), Some(json!({}))),
        (json!({"@json": {"mode": "encode", "value": {"@merge": {"objects": [{"x": {"@path": "$.no"}}, {"w": 1, "x": 8}], "direction": "right"}}}}), Some(json!("{\"x\":8,\"w\":1}"))),
        (json!({"@transform": {"apply": {"u": {"@path": "$.t"}}, "mapping": {"v": {"@path": "$.u"}, "w": {"@path": "$.t"}}}}), Some(json!({"v": "text"}))),
        (json!({"@transform": {"apply": {"@path": "$.t"}, "mapping": {"v": {"@path": "$.length"}}}}), Some(json!({"v": 4}))),
        (json!({"@transform": {"apply": {"@path": "$.no"}, "mapping": {"v": {"@path": "$.t"}}}}), Some(json!({}))),
        (json!({"@flatten": {"value": [{"@path": "$.no"}, {"k": {"@path": "$.t"}}], "separator": "."}}), Some(json!({"1.k": "text"}))),
        (json!({"@flatten": {"value": {"@arrayPath": ["$.a.l", {"@path": "$.y"}]}, "separator": "."}}), Some(json!({"1": null}))),
        (json!({"@flatten": {"value": {"@arrayPath": ["$.a", [{"@path": "$.no"}]]}, "separator": ".", "omitArrays": true}}), Some(json!({"b": 1, "n": null, "l": [{"x": 2}, {"x": 3, "y": null}], "e": "", "f": false}))),
        (json!({"@flatten": {"value": {"@if": {"exists": {"@path": "$.t"}, "then": [{"@path": "$.no"}, {"@path": "$.a.n"}]}}, "separator": "."}}), Some(json!({"1": null}))),
        (json!({"@flatten": {"value": {"@excludeWhenNull": [{"@path": "$.no"}, {"@path": "$.a.n"}]}, "separator": "."}}), Some(json!({"1": null}))),
        (json!({"@merge": {"objects": [{"0": 9, "1": 9}, {"@arrayPath": ["$.a.l", {"@path": "$.y"}]}], "direction": "right"}}), Some(json!({"1": null}))),
        (json!({"@merge": {"objects": [{"0": 9}, {"@excludeWhenNull": [{"@path": "$.no"}, {"@path": "$.t"}]}], "direction": "right"}}), Some(json!({"1": "text"}))),
        (json!({"@merge": {"objects": [{"": 9, "k.0": 9}, {"@flatten": {"value": {"k": [{"@path": "$.no"}]}, "separator": "."}}, {"@flatten": {"value": {"@path": "$.no"}, "separator": "."}}], "direction": "right"}}), Some(json!({}))),
        (json!({"@flatten": {"value": {"a.b": 1, "a": {"b": {"@path": "$.no"}}}, "separator": "."}}), Some(json!({}))),
        (json!({"@merge": {"objects": [{"0": 9}, {"@if": {"exists": {"@path": "$.t"}, "then": [{"@path": "$.no"}, 1]}}], "direction": "right"}}), Some(json!({"1": 1}))),
        (json!({"@excludeWhenNull": {"@path": "$.a.n"}}), None),
        (json!({"@excludeWhenNull": {"@path": "$.a.l[1]"}}), Some(json!({"x": 3}))),
        (json!({"@excludeWhenNull": {"@path": "$.list"}}), Some(json!(["p", null, 7]))),
        (json!({"@literal": {"k": {"@path": "$.t"}}}), Some(json!({"k": "text"}))),
        (json!({"@liquid": "{{ t | upcase }}"}), Some(json!("TEXT"))),
        // directives nested anywhere
        (json!({"k": {"@path": "$.a.b"}, "m": {"@path": "$.a.c"}}), Some(json!({"k": 1}))),
        (json!([{"@path": "$.a.b"}, {"@path": "$.a.c"}]), Some(json!([1, null]))),
    ];
    for (mapping, expected) in rows {
        assert_eq!(resolved(&mapping, &event), Ok(expected), "{mapping}");
    }
}

/// Each row was found by random comparison with the packages of the hosted integration.
#[test]
fn corners_are_those_of_the_hosted_integration() {
    let event = event();
    #[rustfmt::skip]
    let rows = [
        (json!({"@path": "$.k[x]"}), Some(json!("bracketed"))),
        (json!({"@path": "$.[y]"}), Some(json!("too"))),
        (json!({"@path": "z["}), Some(json!("open"))),
        (json!({"@path": "$.a[b]"}), None),
        (json!({"@path": "$.['k[x]']"}), Some(json!("bracketed"))),
        (json!({"@path": "$.list[2]]"}), Some(json!(7))),
        (json!({"@path": "$.list2]"}), None),
        (json!({"@path": "$.list['0]length"}), Some(json!(1))),
        (json!({"@path": "$.['']"}), Some(json!(3))),
        (json!({"@path": "$.a.'b'"}), Some(json!(1))),
        (json!({"@path": "$.t[1].length"}), Some(json!(1))),
        (json!({"@path": "$.t[1][0][0]"}), Some(json!("e"))),
        (json!({"@path": "$.t[1][1]"}), None),
        (json!({"@path": "$.t[0].length.length"}), None),
        (json!({"@template": "{{\u{FEFF}t\t}}{{\u{85}t}}"}), Some(json!("text"))),
        (json!({"@if": {"exists": {"@path": "$.no"}, "blank": {"@path": "$.t"}, "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"exists": null, "blank": {"@path": "$.t"}, "then": "y", "else": "n"}}), Some(json!("n"))),
        (json!({"@if": {"exists": false, "blank": {"@path": "$.t"}, "then": "y", "else": "n"}}), Some(json!("y"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t", "pattern2": 5, "replacement2": "z"}}), Some(json!("ex"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t", "pattern2": "x", "replacement2": 5}}), Some(json!("ex"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t", "pattern2": "x", "replacement2": {"@path": "$.t"}}}), Some(json!("ex"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t", "pattern2": "x", "replacement2": null}}), Some(json!("e"))),
        (json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "t", "replacement2": "longer than ten"}}), Some(json!("ex"))),
        (json!({"@replace": {"value": "", "pattern": "t", "replacement": "x"}}), None),
        (json!({"@replace": {"value": {"@path": "$.a.e"}, "pattern": "t", "replacement": "x"}}), Some(json!(""))),
        (json!({"@replace": {"value": {"@path": "$.deseret"}, "pattern": "\u{10400}", "ignorecase": true}}), Some(json!("\u{10428}"))),
        // A member that is nothing overrides, however it was built.
        (json!({"@merge": {"objects": [{"x": 1}, {"@merge": {"objects": [{"x": {"@path": "$.no"}}], "direction": "left"}}], "direction": "right"}}), Some(json!({}))),
        (json!({"@merge": {"objects": [{"x": 1}, {"@if": {"exists": {"@path": "$.t"}, "then": {"x": {"@path": "$.no"}, "y": 2}}}], "direction": "right"}}), Some(json!({"y": 2}))),
        (json!({"@merge": {"objects": [{"b": 7, "n": 1}, {"@excludeWhenNull": {"@path": "$.a"}}], "direction": "right"}}), Some(json!({"b": 1, "l": [{"x": 2}, {"x": 3, "y": null}], "e": "", "f": false}))),
    ];
    for (mapping, expected) in rows {
        assert_eq!(resolved(&mapping, &event), Ok(expected), "{mapping}");
    }
}

#[test]
fn what_is_wrong_whatever_the_event_is_told_by_its_place() {
    #[rustfmt::skip]
    let rows = [
        (json!({"@path": 5}), "field.@path must be a string or a directive but it is a number"),
        (json!({"@path": {"k": "v"}}), "field.@path must be a string or a directive but it is an object"),
        (json!({"@path": "$.a", "extra": 1}), "field has a directive, which must be the only key"),
        (json!({"k": [{"@nope": 1}]}), "field.k.0.@nope is not a directive"),
        (json!({"@if": {"then": {"@path": 1}}}), "field.@if.then.@path must be a string or a directive but it is a number; field.@if needs the option exists or blank"),
        (json!({"@if": {"exists": 0, "then": 1}}), "field.@if needs the option exists or blank"),
        (json!({"@if": {"@path": "$.a"}}), "field.@if must be an object with the options of the directive but it is a directive"),
        (json!({"@if": {"exists": "a", "other": {"@nope": 2}}}), "field.@if.other.@nope is not a directive"),
        (json!({"@case": {"value": "x"}}), "field.@case needs the option operator: lower or upper"),
        (json!({"@case": {"operator": "lower", "value": 5}}), "field.@case.value must be a string or a directive but it is a number"),
        (json!({"@case": {"operator": 7}}), "field.@case.operator must be a string but it is a number"),
        (json!({"@replace": {"pattern": "12345678901", "global": "no"}}), "field.@replace needs the option value; field.@replace.pattern may have at most 10 characters; field.@replace.global must be true or false but it is a string"),
        (json!({"@replace": {"value": "x", "pattern": "", "replacement": null}}), "field.@replace.pattern must not be empty; field.@replace.replacement must be a string but it is null"),
        (json!({"@replace": {"value": "x", "pattern": "y", "pattern2": {"@nope": 1}, "replacement2": 5}}), "field.@replace.pattern2.@nope is not a directive"),
        (json!({"@replace": {"value": "x", "pattern": "y", "pattern2": "12345678901"}}), "field.@replace.pattern2 may have at most 10 characters"),
        (json!({"@replace": {"value": 5, "pattern": "x"}}), "field.@replace.value must be a string or a directive but it is a number"),
        (json!({"@arrayPath": "x"}), "field.@arrayPath must be a list of a path and the shape of \
                                      an item but it is a string"),
        (json!({"@arrayPath": []}), "field.@arrayPath needs a path as its first item"),
        (json!({"@arrayPath": [null, {"@nope": 1}]}), "field.@arrayPath.0 must be a string or a directive but it is null; field.@arrayPath.1.@nope is not a directive"),
        (json!({"@flatten": {"separator": "."}}), "field.@flatten needs the option value"),
        (json!({"@flatten": {"value": 1, "separator": ""}}), "field.@flatten.separator must not be empty"),
        (json!({"@json": {"mode": "ENCODE", "value": "x"}}), "field.@json.mode must be encode or decode"),
        (json!({"@json": {"mode": "encode", "value": ""}}), "field.@json.value is empty, null, false or 0, and cannot be encoded or decoded"),
        (json!({"@merge": {"objects": [5], "direction": "up"}}), "field.@merge.objects.0 must be an object or a directive but it is a number; field.@merge.direction must be left or right"),
        (json!({"@merge": {"objects": [{}]}}), "field.@merge needs the option direction"),
        (json!({"@transform": {"apply": []}}), "field.@transform.apply must be an object or a directive but it is a list; field.@transform needs the option mapping"),
        (json!({"@flatten": {"value": 1, "separator": ".", "omitArrays": {"@nope": 1}}}), "field.@flatten.omitArrays.@nope is not a directive"),
        (json!({"@case": {"operator": "lower", "value": "x", "more": {"k": {"@path": 1}}}}), "field.@case.more.k.@path must be a string or a directive but it is a number"),
        (json!({"@liquid": ["x"]}), "field.@liquid must be a string but it is a list"),
    ];
    for (mapping, text) in rows {
        assert_eq!(resolved(&mapping, &event()), Err(text.to_owned()), "{mapping}");
    }
    let mut deep = json!({"@path": "$.t"});
    for _ in 0..100 {
        deep = json!({"k": deep});
    }
    let fault = resolved(&deep, &event()).expect_err("nobody nests so deep");
    assert!(fault.ends_with("is nested more than 64 levels deep"), "{fault}");
}

#[test]
fn what_an_event_cannot_give_is_told_without_its_values() {
    #[rustfmt::skip]
    let rows = [
        (json!({"@path": {"@path": "$.no"}}), "@path needs a string and found nothing"),
        (json!({"@template": {"@path": "$.a"}}), "@template needs a string and found an object"),
        (json!({"@template": "{{a}}"}), "@template needs strings and found an object"),
        (json!({"@transform": {"apply": {"@path": "$.t"}, "mapping": {"@transform": {"apply": {}, "mapping": {}}}}}), "@transform needs an object and found a string"),
        (json!({"@case": {"operator": "title", "value": {"@path": "$.t"}}}), "@case needs the operator lower or upper"),
    ];
    for (mapping, text) in rows {
        assert_eq!(resolved(&mapping, &event()), Err(text.to_owned()), "{mapping}");
    }
}

/// Each level doubles the output of the level below.
#[test]
fn a_mapping_that_multiplies_is_stopped() {
    let mut doubling = json!({"@path": "$."});
    for _ in 0..20 {
        doubling = json!({"@transform": {"apply": doubling, "mapping": {"l": {"@path": "$."}, "r": {"@path": "$."}}}});
    }
    let too_much = "the mapping's result is larger than 1 MiB";
    assert_eq!(resolved(&doubling, &event()), Err(too_much.to_owned()));
    let text = json!({"t": "x".repeat(500_000)});
    for directive in [
        json!({"@template": "{{t}}{{t}}{{t}}"}),
        json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "x", "replacement": "xxxxxxxxxx"}}),
        json!({"@replace": {"value": {"@path": "$.t"}, "pattern": "x", "replacement": "$`$`$`"}}),
    ] {
        assert_eq!(resolved(&directive, &text), Err(too_much.to_owned()), "{directive}");
    }
    let encoded =
        json!({"@json": {"mode": "encode", "value": [{"@path": "$.t"}, {"@path": "$.t"}]}});
    assert!(resolved(&encoded, &text).is_err());
}

#[test]
fn debug_shows_places_and_not_values() {
    let literal = Expression::Literal(json!("ada@example.com"));
    assert_eq!(format!("{literal:?}"), "the value in the mapping");
    let email = Expression::first_of(&["traits", "email"], &["context", "traits", "email"]);
    assert_eq!(format!("{email:?}"), "$.traits.email, else $.context.traits.email");
    let cut = json!({"@replace": {"value": {"@case": {"operator": "lower", "value": {"@template": "x{{a}}-{{b.c}}"}}}, "pattern": "x"}});
    let cut = Expression::compile(&cut, "field").expect("it is valid");
    assert_eq!(cut.to_string(), "@replace of @case of @template of $.a, $.b.c");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "",
            "a",
            "b",
            "a.b",
            "$.a",
            "$.b",
            "a[0]",
            "$.a.b[1]",
            "{{a}}",
            "{{{a}}}{{b}}",
            "x{{a.b}}",
            "{\"a\":[1]}",
            "Aa",
            "upper",
            "lower",
            "encode",
            "decode",
            "left",
            "right",
            ".",
            "é😀ſK",
            "a[b]",
            "[a]",
            "$.a['b']",
        ])
        .prop_map(str::to_owned),
        "[ab.\\[\\]'\"{}$ 01]{0,10}",
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key =
            proptest::sample::select(vec!["a", "b", "0", "length", ""]).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn directive(
    name: &'static str,
    options: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Value> {
    options.prop_map(move |options| json!({ name: options }))
}

/// Mappings of every directive, most of them valid.
fn any_mapping() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => directive("@path", text().prop_map(Value::from)),
        2 => directive("@template", text().prop_map(Value::from)),
        1 => any_json(),
    ];
    leaf.prop_recursive(5, 32, 3, |inner| {
        let m = || inner.clone();
        let object = proptest::collection::btree_map("[ab]", m(), 0..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
            .boxed();
        let of = |words: &'static [&'static str]| proptest::sample::select(words);
        prop_oneof![
            object.clone(),
            proptest::collection::vec(m(), 0..3).prop_map(Value::from),
            directive("@path", m()),
            directive("@template", m()),
            directive("@literal", m()),
            directive("@excludeWhenNull", m()),
            directive(
                "@if",
                (m(), m(), m(), m(), 0..3).prop_map(|(c, other, t, e, which)| match which {
                    0 => json!({"exists": c, "then": t, "else": e}),
                    1 => json!({"blank": c, "then": t, "else": e}),
                    _ => json!({"exists": c, "blank": other, "then": t, "else": e}),
                })
            ),
            directive(
                "@case",
                (of(&["upper", "lower", "odd"]), m())
                    .prop_map(|(operator, value)| json!({"operator": operator, "value": value}))
            ),
            directive(
                "@replace",
                (m(), "[aA.$b]{1,2}", "[a$&`']{0,3}", any::<bool>(), any::<bool>()).prop_map(
                    |(value, pattern, by, global, ignore)| json!({
                        "value": value, "pattern": pattern, "replacement": by, "global": global,
                        "ignorecase": ignore,
                    })
                )
            ),
            directive("@arrayPath", (m(), m()).prop_map(|(list, shape)| json!([list, shape]))),
            directive(
                "@flatten",
                (m(), any::<bool>()).prop_map(|(value, omit)| {
                    json!({"value": value, "separator": "_", "omitArrays": omit})
                })
            ),
            directive(
                "@json",
                (of(&["encode", "decode"]), m())
                    .prop_map(|(mode, value)| json!({"mode": mode, "value": value}))
            ),
            directive(
                "@merge",
                (of(&["left", "right"]), object.clone(), m()).prop_map(
                    |(direction, a, b)| json!({"direction": direction, "objects": [a, b]})
                )
            ),
            directive(
                "@transform",
                (object, m())
                    .prop_map(|(apply, mapping)| json!({"apply": apply, "mapping": mapping}))
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..crate::seeds::kept_in("tests/seeds/expression.txt") })]

    #[test]
    fn a_compiled_mapping_equals_a_naive_interpreter(mapping in any_mapping(), event in any_json()) {
        if let Ok(compiled) = Expression::compile(&mapping, "field") {
            let value = compiled.resolve(&event).map(|value| value.map(Cow::into_owned));
            prop_assert_eq!(value.map_err(|_| ()), naive::resolve(&mapping, &event), "{}", mapping);
        }
    }

    #[test]
    fn nothing_makes_it_panic(mapping in any_json(), event in any_json()) {
        let _ = resolved(&mapping, &event);
    }
}

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::functions::Function;
use super::pattern::Pattern;
use super::term::Term;
use super::tree::{Comparison, Operand, Path, Step, is_field};
use super::*;

fn parsed(statement: &str) -> Subscription {
    Subscription::parse(statement).unwrap_or_else(|fault| panic!("{fault}"))
}

fn event() -> Value {
    json!({
        "type": "track",
        "event": "Button Clicked",
        "userId": "user_42",
        "context": {"library": {"name": "analytics.js", "version": "1.0"}},
        "properties": {
            "features": ["discounts", "dark-mode"], "total": 49.5, "count": 3, "on": true,
            "off": false, "nothing": null, "word": "Test String", "quoted": "say \"hi\"",
            "product 1": {"price": "19.99"}, "a.b": "dotted", "k[0]": "own", "list": [[1, 2], {"k": 7}],
            "and": "and", "1st": 1, "length": 5,
        },
        "audienceName": "VIP",
    })
}

/// True, false and unknown, and the negation of each.
#[test]
fn statements_select_or_do_not() {
    let (yes, no, unsaid) = (Some(true), Some(false), None);
    let rows = [
        // The examples of Segment's description.
        ("event = 'Button Clicked'", yes),
        ("event = 'Screen Tapped'", no),
        ("context.path.path = '/login'", no),
        ("type = 'identify' or type = 'track'", yes),
        ("match( context.library.version, '1.*' )", yes),
        ("match( context.library.version, '2.*' )", no),
        ("type = 'track' and ( event = 'Click' or match( event, 'Button *' ) )", yes),
        ("contains( context.library.name, 'js' )", yes),
        ("'dark-mode' in properties.features", yes),
        ("'blink' in properties.features", no),
        ("type in ['track', 'identify']", yes),
        ("( type = 'identify' or properties.on ) and event != null", yes),
        // Precedence, in every order.
        ("type = 'x' and type = 'x' or type = 'track'", yes),
        ("type = 'track' or type = 'x' and type = 'x'", yes),
        ("(type = 'track' or type = 'x') and type = 'x'", no),
        ("!(type = 'x') and !(type = 'y' or type = 'z')", yes),
        ("!!(type = 'track')", yes),
        ("((((type = 'track'))))", yes),
        // Types are never converted.
        ("properties.total = 49.5", yes),
        ("properties.total = '49.5'", no),
        ("properties.total != '49.5'", yes),
        ("properties.count = 3.0", yes),
        ("userId = 42", unsaid),
        ("properties.nothing = null", yes),
        ("properties.missing = null", yes),
        ("properties.missing != 'x'", yes),
        ("properties.missing != 5", unsaid),
        ("5 != properties.missing", unsaid),
        ("properties.missing != true", yes),
        ("properties.off != true", yes),
        ("properties.features = ['discounts', 'dark-mode']", yes),
        ("properties.features != ['discounts']", yes),
        ("properties.word = properties.word", yes),
        ("properties.total > 49 and properties.total >= 49.5 and properties.total < 5e1", yes),
        ("properties.total <= -0.5", no),
        ("properties.word > 5", unsaid),
        ("properties.total < '50'", unsaid),
        // An operation that does not find a text or number is unknown.
        ("contains(properties.missing, 'x')", unsaid),
        ("contains(properties.total, '49')", unsaid),
        ("contains(event, 5)", no),
        ("contains(userId, 42)", yes),
        ("match(properties.nothing, '*')", unsaid),
        ("contains(properties.missing, 'x') = false", yes),
        ("'x' in properties.missing", unsaid),
        ("null in [null]", yes),
        ("properties.missing in []", no),
        ("properties.missing", unsaid),
        ("properties.off", no),
        ("properties.word", unsaid),
        ("properties.missing > 5 or type = 'track'", yes),
        ("properties.missing > 5 or type = 'x'", unsaid),
        ("properties.missing > 5 and type = 'track'", unsaid),
        ("properties.missing > 5 and type = 'x'", no),
        // Functions.
        ("length(userId) > 0", yes),
        ("length(properties.missing) = 0", yes),
        ("length(properties.features) = 2", yes),
        ("lowercase(uppercase(event)) = 'button clicked'", yes),
        ("snakecase(properties.word) = 'Test_String'", yes),
        ("typeof(properties.features) = 'list' and typeof(anonymousId) = 'null'", yes),
        ("bool(properties.count)", yes),
        ("bool(properties.missing)", no),
        ("number(properties.product\\ 1.price) > 19", yes),
        ("number(properties.word) = null", yes),
        ("string(properties.count) = '3'", yes),
        // Paths.
        ("properties.a\\.b = 'dotted'", yes),
        ("properties.a.b = 'dotted'", no),
        ("properties.k\\[0\\] = 'own'", yes),
        ("properties.list\\[0\\]\\[1\\] = 2", yes),
        ("properties.list\\[1\\].k = 7", yes),
        ("properties.list\\[9\\] = null", yes),
        ("properties.list.0 = null", yes),
        ("properties.features\\[0\\] = 'discounts'", yes),
        ("properties.and = 'and' and properties.1st = 1", yes),
        ("properties.features.length = 2", yes),
        ("properties.length = 5", yes),
        ("properties.total.length = null", yes),
        ("event.length = 14", yes),
        ("event.length.x = null", yes),
        ("\\audienceName = 'VIP'", yes),
        // Quotes and backslashes.
        ("properties.quoted = 'say \"hi\"'", yes),
        ("match(event, 'Button\\ Clicked')", yes),
        ("event = 'Button\\ Clicked'", no),
        // White space.
        (" \t\r\ntype='track'\nand\tevent = 'Button Clicked' ", yes),
        ("(type='track')and(type='track')", yes),
        ("type in['track']", yes),
    ];
    let event = event();
    for (statement, expected) in rows {
        let found = parsed(statement).condition.holds(&event);
        assert_eq!(found, expected, "{statement}");
        let negated = parsed(&format!("!({statement})")).condition.holds(&event);
        assert_eq!(negated, expected.map(|holds| !holds), "!({statement})");
        assert_eq!(parsed(statement).selects(&event), expected == yes, "{statement}");
    }
}

/// Every event of every destination is tested by the default statement, which compares fields as they are.
#[test]
fn fields_are_compared_without_a_copy() {
    let (operand, event) = (Operand::Path(Path(vec![Step::new("type".to_owned())])), event());
    assert!(matches!(operand.term(&event), Term::Text(Cow::Borrowed("track"))));
}

#[test]
fn what_is_no_event_is_not_selected() {
    let subscription = parsed("type = 'track'");
    for event in [json!(null), json!([]), json!("track"), json!({"type": null})] {
        assert!(!subscription.selects(&event), "{event}");
    }
}

#[test]
fn statements_are_printed_in_one_way() {
    let rows = [
        ("type='track'", r#"type = "track""#),
        ("((type = 'a'))or((type = 'b'and type = 'c'))", ""),
        (
            "(type = 'a' or type = 'b') and !( contains( event,'x' ) )",
            r#"(type = "a" or type = "b") and !contains(event, "x")"#,
        ),
        ("type = 'a' or (type = 'b' and type = 'c')", r#"type = "a" or type = "b" and type = "c""#),
        ("!(type = 'a')", r#"!(type = "a")"#),
        ("!!properties.a", "!!properties.a"),
        ("event = 'say \"hi\"'", "event = 'say \"hi\"'"),
        ("properties.a\\-b\\ c = +1.50", r"properties.a-b\ c = 1.5"),
        ("\\foo = 1e21", r"\foo = 1e+21"),
        ("\\type in [ 'a' ,1,null,true ]", r#"type in ["a", 1, null, true]"#),
        ("match( lowercase( event ) , 'a*' )", r#"match(lowercase(event), "a*")"#),
        (
            "type = 'a' and (type = 'b' and type = 'c')",
            r#"type = "a" and (type = "b" and type = "c")"#,
        ),
    ];
    for (statement, expected) in rows {
        if expected.is_empty() {
            // White space is missing after the text.
            Subscription::parse(statement).expect_err(statement);
        } else {
            assert_eq!(parsed(statement).to_string(), expected);
            assert_eq!(format!("{:?}", parsed(expected)), expected);
        }
    }
}

#[test]
fn faults_have_a_place_and_say_what_would_fit() {
    let field = "a field, a value or a function";
    let operator = "an operator: =, !=, <, <=, >, >= or in";
    let end = "and, or, or the end of the statement";
    let rows = [
        ("", 1, field),
        ("  ", 3, field),
        ("and type = 'a'", 1, "a field that Segment's events have"),
        ("foo = 'bar'", 1, "a field that Segment's events have"),
        ("propertis.a = 1", 1, "put a backslash before it: \\propertis)"),
        ("'track'", 8, operator),
        ("type", 5, operator),
        ("true", 5, operator),
        ("length(event)", 14, operator),
        ("type = ", 8, field),
        ("type = \"unterminated", 8, "a closing quote for this one"),
        ("(type = 'track'", 16, "and, or, or a closing parenthesis"),
        ("()", 2, field),
        ("type = 'a')", 11, end),
        ("type == 'a'", 7, field),
        ("type = 'a' && event = 'b'", 12, end),
        ("type = 'a' AND event = 'b'", 12, end),
        ("type = 'a' garbage", 12, end),
        ("type = 'a' and", 15, field),
        ("type = 'a' or or type = 'b'", 15, "a field that Segment's events have"),
        ("type = 'a' android", 12, end),
        ("properties.a<5", 13, "white space between a field and < or >"),
        ("properties.a >=5", 16, "white space after an operator of two characters"),
        ("type!='a'", 7, "white space after an operator of two characters"),
        ("properties.a = 1.2.3", 19, "white space, a comma or a bracket after the number"),
        ("properties.a = 1.", 17, "white space, a comma or a bracket after the number"),
        ("properties.a = -", 17, "a digit after the sign"),
        ("properties.a = 1e999", 16, "a number that is not too large to be compared"),
        ("properties.größe = 1", 14, "a backslash before a character of its name"),
        ("properties. = 1", 12, "a name after the dot"),
        ("properties.a\\", 14, "a character after the backslash"),
        (
            "event = \"say \"hi\"\"",
            15,
            "(put a string that contains quotes between quotes of the other kind)",
        ),
        ("event = \"say \\\"hi\\\"\"", 16, "between quotes of the other kind"),
        ("!type = 'a'", 2, "something that can be negated"),
        ("!properties.a = 1", 15, end),
        ("!length(event)", 2, "something that can be negated"),
        ("lenght(event) = 1", 1, "a function: contains, match, length"),
        ("length() = 1", 8, field),
        ("length(event, event) = 1", 13, "a closing parenthesis after the arguments"),
        ("contains(event)", 15, "a comma and another argument"),
        ("match(event, type)", 14, "a pattern in quotes"),
        ("match(event, '[z-a]')", 14, "a pattern, but a range in the pattern runs backwards"),
        ("type in [,]", 10, field),
        ("type in ['a' 'b']", 14, "a comma or a closing bracket"),
        ("type in ['a', ]", 15, "a value after the comma"),
        ("type in [['a']]", 10, "a value: lists cannot contain lists"),
        ("type in [event]", 10, "a value: a list cannot contain fields or functions"),
        ("type in", 8, field),
    ];
    for (statement, column, expected) in rows {
        let fault = Subscription::parse(statement).expect_err(statement);
        assert_eq!(fault.column(), column, "{fault}");
        assert!(fault.expected().contains(expected), "{fault}\nshould expect {expected}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |open: &str, close: &str, levels: usize| {
        format!("{}type = 'a'{}", open.repeat(levels), close.repeat(levels))
    };
    parsed(&nested("(", ")", grammar::DEEPEST));
    parsed(&nested("!(", ")", grammar::DEEPEST / 2));
    let deep = format!("{}event{} = 'a'", "lowercase(".repeat(64), ")".repeat(64));
    parsed(&deep);
    // Groups next to each other are not nested.
    parsed(&vec!["(type = 'a')"; 2 * grammar::DEEPEST].join(" or "));
    for statement in [
        nested("(", ")", grammar::DEEPEST + 1),
        nested("!", "", 4_000),
        nested("(", "", 10_000),
        deep.replacen("lowercase", "lowercase(lowercase", 1),
    ] {
        let fault = Subscription::parse(&statement).expect_err("too deep");
        assert!(fault.expected().starts_with("at most 64 levels"), "{fault}");
    }

    let statement = format!("type = '{}'", "a".repeat(grammar::LONGEST - 9));
    parsed(&statement);
    let fault = Subscription::parse(&format!("{statement} ")).expect_err("too long");
    assert_eq!(fault.expected(), "at most 16384 bytes, and it has 16385");
}

#[test]
fn the_reason_names_what_decided_and_no_value() {
    let rows = [
        ("type = 'track'", None),
        ("type = 'identify'", Some(r#"type = "identify" does not hold (type is a string)"#)),
        (
            "type = 'track' and properties.missing > 5 and event = 'x'",
            Some(r#"event = "x" does not hold (event is a string)"#),
        ),
        (
            "type = 'track' and properties.missing > 5",
            Some("properties.missing > 5 does not hold (properties.missing is missing or null)"),
        ),
        (
            "type = 'a' or !contains(properties.total, 'x')",
            Some(
                r#"type = "a" does not hold (type is a string); contains(properties.total, "x") does not hold (properties.total is a number)"#,
            ),
        ),
        ("!(type = 'track')", Some(r#"!(type = "track") does not hold (type is a string)"#)),
        (
            "!(type = 'track' or type = 'a')",
            Some(r#"!(type = "track" or type = "a") does not hold"#),
        ),
        (
            "lowercase(event) in properties.features",
            Some(
                "lowercase(event) in properties.features does not hold (event is a string, \
                 properties.features is a list)",
            ),
        ),
        ("1 = 2", Some("1 = 2 does not hold")),
        (
            "1 = 2 or 1 = 3 or 1 = 4 or 1 = 5 or 1 = 6 or 1 = 7",
            Some(
                "1 = 2 does not hold; 1 = 3 does not hold; 1 = 4 does not hold; 1 = 5 does not \
                 hold; 2 more conditions do not hold either",
            ),
        ),
    ];
    for (statement, expected) in rows {
        let reason = parsed(statement).why_not(&event());
        assert_eq!(reason.as_deref(), expected, "{statement}");
    }
}

fn any_path() -> impl Strategy<Value = Operand> {
    let name = prop_oneof![
        3 => proptest::sample::select(vec![
            "type", "event", "properties", "features", "list[0]", "total", "and", "in", "true", "length",
        ]).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_.ż\\\\ =\"'-]{1,6}",
    ];
    let path = vec(name, 1..4).prop_map(|names| Path(names.into_iter().map(Step::new).collect()));
    path.prop_map(Operand::Path)
}

/// No text contains both kinds of quotes.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z ]{0,8}", "[^\"]{0,8}", "[^']{0,8}"]
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-9..9_i32).prop_map(|number| Value::from(f64::from(number))),
        any_text().prop_map(Value::from),
    ]
}

fn any_operand() -> impl Strategy<Value = Operand> {
    let leaf = prop_oneof![
        3 => any_path(),
        2 => any_scalar().prop_map(Operand::Literal),
        1 => vec(any_scalar(), 0..4).prop_map(|items| Operand::Literal(Value::from(items))),
    ];
    let function = proptest::sample::select(Function::ALL.to_vec());
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            (function.clone(), boxed()).prop_map(|(function, of)| Operand::Call(function, of)),
            (boxed(), boxed()).prop_map(|(text, part)| Operand::Contains { text, part }),
            (boxed(), any_text()).prop_filter_map("no pattern", |(text, pattern)| {
                let pattern = Pattern::new(&pattern).ok()?;
                Some(Operand::Match { text, pattern })
            }),
        ]
    })
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let comparison = proptest::sample::select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::AtMost,
        Comparison::Greater,
        Comparison::AtLeast,
    ]);
    let leaf = prop_oneof![
        (any_operand(), comparison, any_operand()).prop_map(|(left, comparison, right)| {
            Condition::Compare { left, comparison, right }
        }),
        (any_operand(), any_operand()).prop_map(|(item, list)| Condition::In { item, list }),
        any_operand()
            .prop_filter("true or false by itself", Operand::can_hold)
            .prop_map(Condition::Holds),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Condition::All),
            vec(inner.clone(), 2..4).prop_map(Condition::Any),
            inner.prop_map(|condition| Condition::Not(Box::new(condition))),
        ]
    })
}

/// Statements as people write them, some with a character too many or too few.
fn any_statement() -> impl Strategy<Value = String> {
    let comparison = proptest::sample::select(vec![
        "type='track'",
        "event != \"it's\"",
        "properties.total\t>=  -4.95e1",
        "properties.a\\-b\\ c<= 5",
        "userId in[ 'a' ,null, 1 ]",
        "'x' in properties.features",
        "( properties.on )",
        "! properties.off",
        "bool( traits.vip )",
        "match( event ,\"Button *\" )",
        "!contains(lowercase(context.library.name),'js')",
        "length(userId)>0",
        "\\foo.bar\\[0\\] = null",
    ]);
    let whole = comparison.prop_map(str::to_owned).prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} and {right}")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left}\nor  {right}")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.prop_map(|inner| format!("!( {inner} )")),
        ]
    });
    let slip = (any::<proptest::sample::Index>(), ".{0,1}");
    (whole, option::weighted(0.4, slip)).prop_map(|(statement, slip)| {
        let Some((at, instead)) = slip else { return statement };
        let mut characters: Vec<_> = statement.chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..=at, instead.chars());
        characters.into_iter().collect()
    })
}

/// Words of the language in any order.
fn any_words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        proptest::sample::select(vec![
            "type",
            "properties.a",
            "foo",
            "\\",
            ".",
            "=",
            "!=",
            "<",
            ">=",
            " in ",
            " and ",
            " or ",
            "!",
            "(",
            ")",
            "[",
            "]",
            ",",
            "\"",
            "'",
            "'track'",
            "\"x*\"",
            "'[a'",
            "1",
            "-2.5",
            "1e",
            "null",
            "true",
            "contains",
            "match",
            "length",
            "lowercase(",
            "bool",
            " ",
            "\n",
            "ż",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    vec(word, 0..14).prop_map(|words| words.concat())
}

fn any_event() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any_scalar(), Just(event())];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let key = proptest::sample::select(vec![
            "type",
            "event",
            "properties",
            "features",
            "list",
            "total",
            "and",
            "length",
            "audienceName",
        ]);
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map(key.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(crate::seeds::kept_in("tests/seeds/subscription.txt"))]

    /// A printed statement parses into the same statement, which decides the same for every event.
    #[test]
    fn printed_trees_parse_into_themselves(condition in any_condition(), event in any_event()) {
        let subscription = Subscription { condition };
        let printed = subscription.to_string();
        prop_assume!(printed.len() <= grammar::LONGEST);
        match Subscription::parse(&printed) {
            Ok(again) => {
                prop_assert_eq!(again.selects(&event), subscription.selects(&event), "{}", &printed);
                prop_assert_eq!(again.to_string(), printed);
                prop_assert!(again == subscription);
            }
            Err(fault) => prop_assert!(false, "{fault}"),
        }
    }

    /// Every statement that parses can be printed and parsed again.
    #[test]
    fn any_text_is_parsed_or_refused(
        statement in prop_oneof![any_statement(), any_words()],
        event in any_event(),
    ) {
        match Subscription::parse(&statement) {
            Ok(subscription) => {
                let printed = subscription.to_string();
                prop_assert!(parsed(&printed) == subscription, "{statement} as {printed}");
                prop_assert_eq!(subscription.why_not(&event).is_none(), subscription.selects(&event));
            }
            Err(fault) => prop_assert!(!fault.expected().is_empty(), "{fault}"),
        }
    }

    #[test]
    fn any_characters_are_parsed_or_refused(statement in any::<String>()) {
        if let Err(fault) = Subscription::parse(&statement) {
            prop_assert!(!fault.expected().is_empty(), "{fault}");
        }
    }

    /// No value of the event is revealed.
    #[test]
    fn reasons_keep_values_to_themselves(condition in any_condition()) {
        let secret = "ada@example.com";
        let event = json!({
            "type": secret, "event": secret, "properties": {"features": [secret], "total": secret},
        });
        let told = Subscription { condition }.why_not(&event).unwrap_or_default();
        prop_assert!(!told.contains(secret));
    }
}

#[test]
fn every_field_of_segment_s_needs_no_backslash() {
    for name in ["type", "event", "userId", "anonymousId", "properties", "traits", "context"] {
        assert!(is_field(name), "{name}");
    }
}

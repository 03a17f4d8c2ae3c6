//! What liquidjs 10.27 renders, and which templates are refused.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rendered(template: &str, event: &Value) -> Result<String, String> {
    let template = LiquidTemplate::compile(template)?;
    let value = template.resolve(event, &Budget::default()).map_err(|error| error.to_string())?;
    Ok(value.as_deref().and_then(Value::as_str).expect("a template renders a text").to_owned())
}

fn event() -> Value {
    json!({
        "n": 5, "name": "MapleRobin", "nul": null, "list": ["a", "b", "c"], "f": false, "s5": "5",
        "o": {"k": 1, "l": [{"z": 2}]}, "e": "", "ts": "2024-03-05T06:07:08.123Z", "sp": "  pad ",
        "tz": "2024-03-05T06:07:08+02:00", "day": "2024-03-05", "num": 1_709_618_828, "fl": 2.5,
        "html": "<b>x</b>&'\"<script>1</script><!-- c -->", "arr": [{"a": 1, "b": true}, {"a": 2}],
        "neg": -5, "w": "one two three", "uni": "żółć 😀",
    })
}

#[test]
fn filters_that_there_are_none_of_are_doubted_with_their_place() {
    let rows = [
        ("{{ n | upcase }}", vec![]),
        (
            "{{ n | upcas }}",
            vec![
                "at line 1, column 1: there is no filter upcas, and the value stays as it is; did you mean upcase?",
            ],
        ),
        (
            "x\n {% if n | sha512 %}{% assign a = n | trim %}{{ a | abs }}{% endif %}",
            vec![
                "at line 2, column 2: there is no filter sha512, and the value stays as it is",
                "at line 2, column 21: there is no filter trim, and the value stays as it is",
            ],
        ),
        (
            "{% capture c %}{% unless n %}{% else %}{{ n | nope }}{% endunless %}{% endcapture %}",
            vec!["at line 1, column 40: there is no filter nope, and the value stays as it is"],
        ),
    ];
    for (template, expected) in rows {
        let compiled = LiquidTemplate::compile(template).expect("it renders");
        assert_eq!(compiled.doubts(), expected, "{template}");
    }
}

#[rustfmt::skip]
const RENDERED: &[(&str, &str)] = &[
    (r"{{ name | sha256 }}", r"32578653872f6a17941175583b1d96e3643e62378c0251b3dea3a7d4ad12d2c4"),
    (r"{{ nul | sha256 }}", r"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (r"{{ 'aé' | hmac_sha256: 'key' }}", r"9c6500a1837fb490cc3007d6991470ed3fe830d782f1fba4814fa2cff11c3984"),
    (r"{{ .name }}-{{ .o.k }}", r"MapleRobin-1"),
    (r"{{ '0x10' | plus: 1 }} {{ '0b11' | plus: 0 }} {{ '0O7' | plus: 0 }} {{ '0x' | plus: 1 }} {{ '-0x1' | plus: 1 }} {{ '0xg' | plus: 1 }} {{ '0X1F' | to_integer }}", "17 3 7 1 1 1 31"),
    (r"{{ 'inf' | plus: 1 }} {{ 'nan' | to_integer }} {{ 'infinity' | plus: 1 }} {{ '-Infinity' | plus: 1 }} {{ '+5' | plus: 1 }} {{ '1.' | plus: 1 }} {{ '.5' | plus: 1 }} {{ '1e3' | plus: 1 }} {{ 'e' | plus: 1 }}", "1 NaN 1 -Infinity 6 2 1.5 1001 1"),
    ("{{ '\u{feff}7\u{a0}' | plus: 1 }} {{ '\u{85}' | to_integer }} {{ '\u{85} 7' | plus: 1 }} {{ '\u{2028}' | to_integer }}", "8 NaN 1 0"),
    ("{% if '\u{85}' == blank %}a{% endif %}{% if '\u{feff}' == blank %}b{% endif %}{% if '\u{a0} ' == blank %}c{% endif %}", "bc"),
    ("{{ '\u{feff}a\u{feff}' | strip | size }}{{ '\u{85}a\u{feff}b' | number_of_words }}{{ 'a\u{feff}\u{a0}b\u{85}' | normalize_whitespace | size }}", "124"),
    (r"{% if arr == arr %}a{% endif %}{% if o == o %}b{% endif %}{% if o == o.l[0] %}c{% endif %}", "ab"),
    (r"{% if nil < 1 %}a{% endif %}{% if nil >= 0 %}b{% endif %}{% if 1 > nil %}c{% endif %}{% if nul < 1 %}d{% endif %}{% if nope < 1 %}e{% endif %}", "d"),
    (r"{% if nil == nul %}a{% endif %}{% if nil == nope %}b{% endif %}{% if nil == nil %}c{% endif %}{% if nil == blank %}d{% endif %}{% if blank == nil %}e{% endif %}{% if nil == empty %}f{% endif %}{% if empty == nil %}g{% endif %}{% if nil == e %}h{% endif %}{% if nil != f %}i{% endif %}", "abcei"),
    (r"{% if name contains empty %}a{% endif %}{% if name contains blank %}b{% endif %}{% if e contains blank %}c{% endif %}{% if list contains empty %}d{% endif %}{% if n contains empty %}e{% endif %}{% if empty contains '' %}f{% endif %}{% if blank contains 'x' %}g{% endif %}{% if nil contains empty %}h{% endif %}{% if list contains nil %}i{% endif %}{% if name contains nil %}j{% endif %}", "abcf"),
    (r"{% assign x = 'a,,b' | split: ',' %}{% if x contains blank %}b{% endif %}{% if x contains empty %}c{% endif %}{% if arr contains blank %}a{% endif %}", "bc"),
    (r"{% if nil %}a{% else %}b{% endif %}{{ nil }}{{ nil | default: 'd' }}", "bd"),
    (r"{{ w | truncatewords: 'x' }}{{ o | truncate: 99 | json }}", r#"{"k":1,"l":[{"z":2}]}"#),
    (r"{{ list[-1] }}{{ list['-1'] }}", r"c"),
    (r"{{ list.01 }}{{ name.01 }}{{ o[nope] }}{{ (1..2) | unshift: nope | json }}", r"[null,1,2]"),
    (r"{% increment n %}{% decrement fl %}{{ fl }}", r"51.51.5"),
    (r"{{ 'abcd' | slice: nope }}-{{ 'abcd' | slice: 'x' }}-{{ 'abcd' | slice: '1', 3 }}", r"--bcd"),
    (r"{{ 'a' | to_integer }}{{ o | to_integer }}", r"NaNNaN"),
    (r"{{ '' | truncate: -1, '-' }}", r"-"),
    (r"{{ 'abc' | slice: -5, 4 }}", r""),
    (r"{% if o >= '5' %}y{% endif %}{% if list > 'a' %}y{% endif %}", r"yy"),
    (r"{% if empty == name %}n{% endif %}{% if empty == e %}y{% endif %}", r"y"),
    (r"{% if empty %}y{% endif %}{% unless blank %}n{% endunless %}", r"y"),
    (r"{{ o }}", r"[object Object]"),
    (r"{{ list }}", r"abc"),
    (r"{{ nul | plus: 1 }}", r"1"),
    (r#"{{ "abc" | plus: 1 }}"#, r"1"),
    (r"{% if nul > -1 %}y{% else %}n{% endif %}", r"y"),
    (r"{% if s5 == 5 %}y{% else %}n{% endif %}", r"n"),
    (r"{% if s5 > 4 %}y{% else %}n{% endif %}", r"y"),
    (r"{% if nope > 4 %}y{% else %}n{% endif %}", r"n"),
    (r"{% if nope < 4 %}y{% else %}n{% endif %}", r"n"),
    (r"{{ w | truncatewords: 3 }}", r"one two three..."),
    (r"{{ w | truncatewords: 4 }}", r"one two three"),
    (r"{{ w | truncatewords }}", r"one two three"),
    (r"{{ ts | date: '%Y-%m-%d %H:%M:%S %j %a %A %b %B %d %e %I %l %p %P %y %s %Z %z %L %N %u %w %U %% %D %q %k %C %h %n %t %c %x %X %W' }}", "2024-03-05 06:07:08 065 Tue Tuesday Mar March 05  5 06  6 AM am 24 1709618828 UTC +0000 123 123000000 2 2 09 % %D th  6 20 Mar \n \t 3/5/2024, 6:07:08 AM 3/5/2024 6:07:08 AM 09"),
    (r"{{ tz | date: '%H:%M %z' }}", r"04:07 +0000"),
    (r"{{ num | date: '%Y' }}", r"2024"),
    (r"{{ day | date: '%Y-%m-%d %H' }}", r"2024-03-05 00"),
    (r"{{ ts | date }}", r"Tuesday, March 5, 2024 at 6:07 am +0000"),
    (r"{{ ts | date: '%-d %-m %_m %^a %05d %#p %:z %3N' }}", r"5 3  3 TUE 00005 am +00:00 123"),
    (r"{{ 'nodate' | date: '%Y' }}", r"nodate"),
    (r"{{ nul | date: '%Y' }}", r""),
    (r"{{ ts | date_to_xmlschema }}", r"2024-03-05T06:07:08+00:00"),
    (r"{{ ts | date_to_rfc822 }}", r"Tue, 05 Mar 2024 06:07:08 +0000"),
    (r"{{ ts | date_to_string }}", r"05 Mar 2024"),
    (r"{{ ts | date_to_long_string }}", r"05 March 2024"),
    (r"{{ (1..3) | join: '-' }}", r"1-2-3"),
    (r"{{ (1..3) }}", r"123"),
    (r"{{ (n..7) | join }}", r"5 6 7"),
    (r"{{ 'abc' | slice: 1 }}", r"b"),
    (r"{{ 'abc' | slice: -2, 2 }}", r"bc"),
    (r"{{ 'abc' | replace: '', '-' }}", r"a-b-c"),
    (r"{{ html | escape }}", r"&lt;b&gt;x&lt;/b&gt;&amp;&#39;&#34;&lt;script&gt;1&lt;/script&gt;&lt;!-- c --&gt;"),
    (r"{{ html | strip_html }}", r#"x&'""#),
    (r"{{ 'A B&C' | url_encode }}", r"A+B%26C"),
    (r"{{ 'A+B' | url_decode }}", r"A B"),
    (r"{{ 'it\'s (x)*~!' | cgi_escape }}", r"it%27s+%28x%29%2A~%21"),
    (r"{{ 'http://a b/[x]#é' | uri_escape }}", r"http://a%20b/[x]#%C3%A9"),
    (r"{{ 'Hello World!! é' | slugify }}", r"hello-world-é"),
    (r"{{ o | json }}", r#"{"k":1,"l":[{"z":2}]}"#),
    (r"{{ o | inspect }}", r#"{"k":1,"l":[{"z":2}]}"#),
    (r"{{ '12.7' | to_integer }}", r"12.7"),
    (r"{{ 'hi' | base64_encode }}", r"aGk="),
    (r"{{ uni | base64_encode | base64_decode }}", r"żółć 😀"),
    (r"{{ 'aGk=' | base64_decode }}", r"hi"),
    (r"{{ list | first }}{{ 'abc' | last }}{{ o | size }}{{ 5 | size }}", r"ac00"),
    (r"{{ arr | where: 'b' | json }}", r#"[{"a":1,"b":true}]"#),
    (r"{{ arr | where: 'a', 2 | json }}", r#"[{"a":2}]"#),
    (r"{{ arr | sum: 'a' }}", r"3"),
    (r"{{ list | push: 'd' | join }}", r"a b c d"),
    (r"{{ 7 | divided_by: 2, true }}", r"3"),
    (r"{{ 0.1 | plus: 0.2 }}", r"0.30000000000000004"),
    (r"{{ 1 | divided_by: 0 }}", r"Infinity"),
    (r"{{ -7 | modulo: 3 }}", r"2"),
    (r"{{ 7 | modulo: -3 }}", r"-2"),
    (r"{{ 2.345 | round: 2 }}", r"2.35"),
    (r"{{ 1234.567 | round: -2 }}", r"1200"),
    (r"{{ -2.5 | round }}", r"-3"),
    (r"{{ 2.5 | round }}", r"3"),
    (r"{{ 1.005 | round: 2 }}", r"1.01"),
    (r"{% assign x = n | plus: 1 %}{{x}}", r"6"),
    (r"{% increment c %}{% increment c %}{{c}}", r"012"),
    (r"{% decrement d %}{{d}}", r"-1-1"),
    (r"{% cycle 'a','b' %}{% cycle 'a','b' %}{% cycle 'a','b' %}", r"aba"),
    (r"{% cycle 'g': 'a','b' %}{% cycle 'g': 'a','b' %}", r"ab"),
    (r"{% unless f %}u{% else %}x{% endunless %}", r"u"),
    (r"{% unless n %}u{% elsif f %}e{% else %}x{% endunless %}", r"x"),
    (r"{% raw %}{{ x }}{% endraw %}", r"{{ x }}"),
    (r"{% comment %}x {{ y }}{% endcomment %}y", r"y"),
    (r"{% # hi %}z", r"z"),
    (r"{% echo n %}", r"5"),
    ("{% liquid\nassign q = 3\necho q %}", r"3"),
    ("{% liquid\nif n == 5\necho 'five'\nendif %}", r"five"),
    (r"{% if list == empty %}e{% else %}ne{% endif %}", r"ne"),
    (r"{% if e == blank %}b{% endif %}", r"b"),
    (r"{% if sp == blank %}b{% else %}nb{% endif %}", r"nb"),
    (r"{% if nul == blank %}b{% else %}nb{% endif %}", r"b"),
    (r"{% if nul == empty %}b{% else %}nb{% endif %}", r"nb"),
    (r"{% if not f %}nf{% endif %}", r"nf"),
    (r"{% if not f and n %}nf{% endif %}", r"nf"),
    (r"{% if true or false and false %}t{% else %}f{% endif %}", r"t"),
    (r"{% if false and false or true %}t{% else %}f{% endif %}", r"f"),
    (r"{{ n | default: 3, allow_false: true }}", r"5"),
    (r"{{ f | default: 3, allow_false: true }}", r"false"),
    (r"{{ f | default: 3}}", r"3"),
    (r"{{ list[-1] }}", r"c"),
    (r"{{ list[n] }}", r""),
    (r"{{ list.first }}{{ list.last }}", r"ac"),
    (r"{{ name.size }}", r"10"),
    (r"{{ name[0] }}", r"M"),
    (r"{{ name.first }}", r""),
    (r"{{ o.size }}", r"2"),
    (r"{{ o['k'] }}", r"1"),
    (r"{{ o.l[0].z }}", r"2"),
    (r"{{ ['name'] }}", r"MapleRobin"),
    (r"{% break %}x", r""),
    (r"{{ 1.0 }}", r"1"),
    (r"{{ 10 | times: 1.0 }}", r"10"),
    (r"{{ n | plus: 1 | }}", r"6"),
    (r"{{ 'a' 'b' }}", r"a"),
    (r"{{ n plus }}", r"5"),
    (r"{{ true }}{{ nil }}{{ empty }}", r"true"),
    (r"{{ 'a' | append: 'b' | upcase | prepend: n }}", r"5AB"),
    (r"{{ name | truncate: 5, '' }}", r"Maple"),
    (r"{{ name | truncate: 2 }}", r"..."),
    (r"{{ 'a,b,,,' | split: ',' | size }}", r"2"),
    (r"{{ w | capitalize }}", r"One two three"),
    (r"{{ n | at_least: 9 }}{{ n | at_most: 2 }}", r"92"),
    (r"{{ o.k.deep.deeper }}", r""),
    (r"{{ name | remove_first: 'e' | remove_last: 'n' | replace_first: 'M','m' | replace_last: 'i','I'}}", r"maplRobI"),
    (r"{{ ' a  b ' | normalize_whitespace }}", r" a b "),
    (r"{{ w | number_of_words }}", r"3"),
    (r"{{ '&lt;&' | escape_once }}", r"&lt;&amp;"),
    (r"{{ n | json }}{{ nul | json }}{{ nope | json }}", r"5null"),
    (r"{% capture z %} q {% endcapture %}[{{z}}]", r"[ q ]"),
    (r"{{ list | pop | join }}{{ list | shift | join}}{{ list | unshift: 1 | join}}", r"a bb c1 a b c"),
    (r"{{ n | abs | ceil | floor }}", r"5"),
    (r"{{ '-3.2' | ceil }}", r"-3"),
    (r"{{ true | plus: 1 }}", r"2"),
    (r"{{ '' | plus: 1 }}", r"1"),
    (r"{{ list | plus: 1 }}", r"1"),
    (r"{{ 3 | slice: 0 }}", r"3"),
    (r"{{ list | slice: 1, 2 | join: ',' }}", r"b,c"),
    (r"{{ list | slice: -2 }}", r"b"),
    (r"{{ 'strip  ' | rstrip }}|{{ 'xxax' | lstrip: 'x' }}", r"strip|ax"),
    (r"{{ list contains 'a' }}", r"true"),
    (r"{{ name contains 'Map' }}", r"true"),
    (r"{{ n contains 5 }}", r"false"),
    (r"{{ n == 5 }}", r"true"),
    (r"{{ n > 3 and f }}", r"false"),
    (r"{{ n | nofilter: 3 }}", r"5"),
    (r"{{ fl }}{{ neg }}{{ fl | floor }}", r"2.5-52"),
    ("{{ 'a\nb' | strip_newlines }}", r"ab"),
    (r"{{ 'x' | upcase }} {{- 'y' -}} z", r"Xyz"),
    (r"x {{- n }} y", r"x5 y"),
    (r"{{ uni | size }}{{ uni | upcase }}", r"7ŻÓŁĆ 😀"),
    (r"{{ uni | truncate: 7 }}", r"żółć 😀"),
    (r"{{ uni | slice: 0, 3 }}", r"żół"),
    (r"{{ uni | url_encode }}", r"%C5%BC%C3%B3%C5%82%C4%87+%F0%9F%98%80"),
    (r"{{ e | default: 'd' }}{{ nope | default: 'd' }}{{ list | default: 'd' }}", r"ddabc"),
    (r"{{ nope | append: 'x' }}", r"x"),
    (r"{{ nope | size }}{{ nope | upcase }}{{ nope | split: ',' | size }}", r"00"),
    (r"{{ o | join }}", r"[object Object]"),
    (r"{{ name | join: ',' }}", r"MapleRobin"),
    (r"{{ list | json | upcase }}", r#"["A","B","C"]"#),
    (r"{{ 5 | divided_by: 2 }}{{ 6 | divided_by: 2 }}", r"2.53"),
    (r"{{ 12345678901234567890 }}", r"12345678901234567000"),
    (r"{{ 1e3 }}", r""),
    (r"{{ n.foo }}", r""),
    (r"{{ nul.foo }}", r""),
    (r"{{ name | split: '' | join: '-' }}", r"M-a-p-l-e-R-o-b-i-n"),
    (r"{{ w | replace: 'o', '0' }}{{ w | remove: 'e' }}", r"0ne tw0 threeon two thr"),
    (r"{{ 'a b' | split: ' ' | first }}", r"a"),
    (r"{% if n >= 5 and n <= 5 and n != 4 %}y{% endif %}", r"y"),
    (r"{% if 'b' > 'a' %}y{% endif %}", r"y"),
    (r"{% if list contains nope %}y{% else %}n{% endif %}", r"n"),
    (r"{% if 'abc' contains nope %}y{% else %}n{% endif %}", r"n"),
    (r"{% if o %}y{% endif %}{% if 0 %}z{% endif %}{% if '' %}e{% endif %}", r"yze"),
    (r"{%if n%}x{%endif%}", r"x"),
    (r"{{n}}{{-n-}}", r"55"),
    (r"{{ 'a}}b' }}", r"a}}b"),
    (r#"{{ "q'q" }}"#, r"q'q"),
    (r"{% assign a = 'x' %}{% assign b = a | append: 'y' %}{{ b }}", r"xy"),
    (r"{% assign n = 9 %}{{ n }}", r"9"),
    (r#"{% capture "v" %}1{% endcapture %}{{ v }}"#, r"1"),
    (r"{{ n | times: '2' }}", r"10"),
    (r"{{ 'now' | upcase | downcase }}", r"now"),
    (r"{{ ts | date: '' }}", r""),
    (r"{{ f }}{{ f | upcase }}", r"falseFALSE"),
    (r"{{ name | replace: 'a' }}", r"MpleRobin"),
    (r"{{ name | truncate: 'x' }}", r"..."),
    (r"{{ arr | first | json }}", r#"{"a":1,"b":true}"#),
    (r"{{ arr[1].a }}", r"2"),
    (r"{{ 0.1 | times: 3 }}{{ 1000000000000 | times: 1000000000000 }}{{ 0.0000001 }}", r"0.300000000000000041e+241e-7"),
];

#[test]
fn templates_render_as_liquidjs_renders_them() {
    for (template, expected) in RENDERED {
        assert_eq!(rendered(template, &event()).as_deref(), Ok(*expected), "{template}");
    }
}

#[test]
fn what_cannot_be_rendered_is_refused_with_its_place() {
    let rows = [
        ("{{ name", "is not a valid template at line 1, column 1: the output is never closed"),
        ("a\n {% if n", "is not a valid template at line 2, column 2: the tag is never closed"),
        ("{% if n %}", "is not a valid template at line 1, column 1: endif is missing"),
        ("{% endif %}", "is not a valid template at line 1, column 1: there is no tag endif"),
        ("{% nope %}", "is not a valid template at line 1, column 1: there is no tag nope"),
        ("{{ }}", "is not a valid template at line 1, column 1: a value is missing"),
        ("{% if %}{% endif %}", "is not a valid template at line 1, column 1: a value is missing"),
        ("{{ n || 3 }}", "is not a valid template at line 1, column 1: a filter has no name"),
        ("{% raw %}x", "is not a valid template at line 1, column 1: raw is never closed"),
        (
            "{% for x in list %}{% endfor %}",
            "is not a valid template at line 1, column 1: the tag for is switched off in Segment",
        ),
        (
            "{{ list | reverse }}",
            "is not a valid template at line 1, column 1: the filter reverse is switched off in \
             Segment",
        ),
        (
            "{{ list | sample }}",
            "is not a valid template at line 1, column 1: the filter sample is random, which a \
             membership must not be",
        ),
        (
            "{{ n | append }}",
            "is not a valid template at line 1, column 1: the filter append needs an argument",
        ),
        (
            "{{ '%zz' | url_decode }}",
            "@liquid cannot be rendered: url_decode found an invalid escape sequence",
        ),
        ("{{ (1..9999) }}", "@liquid cannot be rendered: a range is too long"),
    ];
    for (template, expected) in rows {
        assert_eq!(rendered(template, &event()), Err(expected.to_owned()), "{template}");
    }
    assert_eq!(rendered(&"x".repeat(1000), &event()), Ok("x".repeat(1000)));
    let long = "may have at most 1000 characters";
    assert_eq!(rendered(&"x".repeat(1001), &event()), Err(long.to_owned()));
    let deep = "{% if n %}".repeat(40) + &"{% endif %}".repeat(40);
    assert!(rendered(&deep, &event()).is_err());
    assert!(rendered(&"{{ a[".repeat(100), &event()).is_err());
}

#[test]
fn a_template_that_multiplies_is_stopped() {
    let doubling = "{% assign w = w | append: w %}".repeat(30) + "{{ w }}";
    let joins = "{% assign w = w | replace: '', w %}".repeat(20);
    for template in [doubling, joins] {
        let error = rendered(&template, &event()).expect_err("it is too much");
        assert_eq!(error, "the mapping's result is larger than 1 MiB");
    }
}

proptest! {
    #![proptest_config(crate::seeds::kept_in("tests/seeds/liquid.txt"))]

    #[test]
    fn nothing_makes_it_panic(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{{", "}}", "{%", "%}", "{%-", "-%}", " ", "n", "list", "uni", ".size", "[0]", "[-1]", "'é'",
            "\"", "(1..3)", "|", ":", ",", "if", "endif", "else", "assign", "=", "==", ">", "contains",
            "capture", "endcapture", "raw", "endraw", "cycle", "increment", "slice", "truncate",
            "date", "'%e%Q%5'", "split", "round", "-3", "1e9", "default", "url_decode", "strip_html",
            "base64_decode", "liquid", "\n", "and", "not", "empty", "json", "where", "😀",
        ]), 0..24),
    ) {
        let _ = rendered(&pieces.concat(), &event());
    }

    #[test]
    fn no_filter_panics(
        filter in "[a-z]{3,6}|slice|truncate|truncatewords|date|round|split|replace|modulo|where|at_most",
        value in proptest::sample::select(vec!["n", "uni", "list", "o", "nope", "neg", "num", "ts"]),
        arguments in proptest::collection::vec(proptest::sample::select(vec![
            "0", "-1", "99999999999", "1.5", "uni", "list", "nope", "''", "'%-d%9N'", "o",
        ]), 0..3),
    ) {
        let _ = rendered(&format!("{{{{ {value} | {filter}: {} }}}}", arguments.join(", ")), &event());
    }
}

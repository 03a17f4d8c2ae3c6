use proptest::prelude::*;

use super::*;

fn layout(column: Option<&str>) -> Layout {
    Layout {
        column: column.map(str::to_owned),
        identifiers: &["user_id", "email"],
        is_user_id: true,
        audience_key: "vip".to_owned(),
    }
}

/// Who is in, separated by `|`; or why the file is refused. Read in pieces of `size` bytes.
fn read(text: &[u8], column: Option<&str>, size: usize) -> Result<(String, Read), String> {
    let mut keys: Vec<String> = Vec::new();
    let mut take = |key: &str, _: Option<&str>| {
        keys.push(key.to_owned());
        Ok(())
    };
    let mut reader = Reader::new(layout(column));
    let fed = text.chunks(size).try_for_each(|piece| reader.feed(piece, &mut take));
    let read = fed.and_then(|()| reader.finish(&mut take)).map_err(|fault| fault.to_string())?;
    Ok((keys.join("|"), read))
}

#[test]
fn who_is_in_a_file() {
    let rows: &[(&str, Option<&str>, &str)] = &[
        ("ada\nbob\n", None, "ada|bob"),
        ("ada\r\n\r\nbob\r\n", None, "ada|bob"),
        ("\u{feff}ada\n\u{fc}\n", None, "ada|\u{fc}"),
        ("\"a,da\"\n\"b\"\"ob\"\n", None, "a,da|b\"ob"),
        ("a\"da\n", None, "a\"da"),
        ("\u{feff}\"user_id\",name\n1,x\n2,y\n", None, "1|2"),
        ("User ID,email\n,a@x\nb,b@x\n", None, "a@x|b"),
        ("email,context_key\na@x,k\n", None, "k"),
        ("crm,user_id\nc1,u1\n", Some("crm"), "c1"),
        ("crm\nc1\n", Some("crm"), "c1"),
        ("user_id,note\nada,\"two\r\nlines\"\nbob,\n", None, "ada|bob"),
        ("user_id,vip\nada,true\nbob,f\ncyd,\ndan,1\n", None, "ada|dan"),
        ("included,user_id\nTRUE,ada\nno,bob\n", None, "ada"),
        ("{\"user_id\":\"ada\"}\n{\"user_id\":7}\n", None, "ada|7"),
        ("{\"user_id\":\"ada\"}\r\n\n{\"user_id\":null,\"email\":\"a@x\"}", None, "ada|a@x"),
        ("{\"k\":\"a\",\"vip\":false}\n{\"k\":\"b\",\"vip\":true}\n", Some("k"), "b"),
        ("{\"context_key\":\"a\",\"included\":false}\n{\"context_key\":\"b\"}\n", None, "b"),
    ];
    for (text, column, expected) in rows {
        for size in [1, 2, 1000] {
            let (keys, _) = read(text.as_bytes(), *column, size).expect(text);
            assert_eq!(keys, *expected, "{text:?} in pieces of {size}");
        }
    }
}

#[test]
fn why_a_file_is_refused() {
    let rows: &[(&[u8], Option<&str>, &str)] = &[
        (b"", None, "the file is empty"),
        (b"\xef\xbb\xbf\r\n", None, "the file is empty"),
        (b"\xef\xbb", None, "ends within line 1"),
        (b"user_id\n", None, "the file is empty"),
        (b"user_id,x\n,1\n,2\n", None, "no line of the file has a key"),
        (b"ada\nbo", None, "ends within line 2"),
        (b"ada\n\"bo", None, "ends within line 2"),
        (b"ada\n\"bob\n", None, "ends within line 3"),
        (b"user_id,x\nada,1\nbob\n", None, "line 3 has more or fewer columns"),
        (b"user_id,x\nada,1,2\n", None, "line 2 has more or fewer columns"),
        (b"user_id,x\nada,1\n", Some("userId"), "no column of the name"),
        (b"crm,x\nada,1\n", None, "takes (user_id, email)"),
        (b"user_id;x\nada;1\n", None, "something else than a comma"),
        (b"\"ada\"x\n", None, "line 1 has text behind a closing quote"),
        (b"ada\n\xff\n", None, "line 2 is not UTF-8"),
        (b"user_id,vip\nada,perhaps\n", None, "line 2 says neither true nor false"),
        (b"{\"user_id\":\"a\"}\n{\"user_id\":\"b", None, "ends within line 2"),
        (b"{\"user_id\":\"a\"}\n{\"user_id\":\"b\n", None, "line 2 is not a JSON object"),
        (b"{\"user_id\":1.5}\n", None, "line 1 is not a JSON object"),
        (b"{\"other\":\"a\"}\n", None, "takes (user_id, email)"),
        (b"{\"other\":\"a\"}\n", Some("k"), "no column of the name"),
    ];
    for (text, column, expected) in rows {
        for size in [1, 1000] {
            let shown = String::from_utf8_lossy(text);
            let why = read(text, *column, size).expect_err(&shown);
            assert!(why.contains(expected), "{shown:?}: {why}");
        }
    }
    let long = format!("{}\n", "k".repeat(KEY_BYTES + 1));
    assert!(read(long.as_bytes(), None, 1000).expect_err("too long").contains("longer than"));
    let endless = "\"".to_owned() + &"k".repeat(LINE_BYTES + 1);
    assert!(read(endless.as_bytes(), None, 1000).expect_err("too long").contains("longer than"));
}

#[test]
fn lines_without_a_key_are_counted() {
    let (_, read) = read(b"user_id,x\nada,1\n,2\n", None, 9).expect("it can be read");
    assert_eq!(read, Read { lines: 2, without_key: 1 });
}

proptest! {
    #[test]
    fn any_key_that_is_quoted_comes_back(keys in prop::collection::vec("[a-c\",\r\n é]{1,5}", 1..9)) {
        let quoted = |key: &String| format!("\"{}\",x\n", key.replace('"', "\"\""));
        let text = format!("user_id,n\n{}", keys.iter().map(quoted).collect::<String>());
        let (found, _) = read(text.as_bytes(), None, 3).expect("it can be read");
        prop_assert_eq!(found, keys.join("|"));
    }
}

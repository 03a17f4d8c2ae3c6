//! `cohortd eval`: JSON lines in, JSON lines out, for trying a mapping and for comparing recorded behaviour
//! of Segment's hosted integration with ours.
//!
//! Lines are processed one at a time: memory does not grow with the input. An unusable line is answered
//! with `{"error": …}`, so that there are as many lines out as in.

mod mapping;
mod subscription;
mod sync;

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::json;
use crate::json::exact::{self, Exact};
use crate::map::{MappingFault, stringified};

#[derive(Serialize)]
struct Failure {
    error: String,
}

/// `cohortd eval sync`: maps the events of each line to the requests that would be sent.
///
/// Fails only if reading or writing does.
pub fn sync(input: impl BufRead, output: impl Write) -> io::Result<()> {
    each_line(input, output, sync::answer)
}

/// `cohortd eval subscription`: whether the FQL statement of each line selects its event.
///
/// Fails only if reading or writing does.
pub fn subscription(input: impl BufRead, output: impl Write) -> io::Result<()> {
    each_line(input, output, subscription::answer)
}

/// `cohortd eval mapping`: applies the mapping of each line to its payload.
///
/// Fails only if reading or writing does.
pub fn mapping(input: impl BufRead, output: impl Write) -> io::Result<()> {
    each_line(input, output, mapping::answer)
}

fn each_line<A: Serialize>(
    mut input: impl BufRead,
    mut output: impl Write,
    answer: impl Fn(&[u8]) -> Result<A, String>,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        let told = match answer(line.trim_ascii_end()) {
            Ok(answer) => stringified(&answer),
            Err(error) => stringified(&Failure { error }),
        };
        output
            .write_all(told.ok_or_else(|| io::Error::other("it cannot be written"))?.as_bytes())?;
        output.write_all(b"\n")?;
    }
}

/// Parses a line. Errors never quote the line, which may hold a token and personal data
/// ([P8](crate::design::P8)).
fn parsed<T: DeserializeOwned>(line: &[u8], what: &str, needs: &str) -> Result<T, String> {
    json::from_slice(line).map_err(|error| {
        let column = error.column();
        if error.is_data() {
            format!("not {what} at column {column}: {needs} are needed")
        } else {
            format!("not JSON at column {column}")
        }
    })
}

/// Like [`parsed`], but numbers that would lose precision become strings, as when events are mapped.
fn parsed_exactly<T: DeserializeOwned>(line: &[u8], what: &str, needs: &str) -> Result<T, String> {
    let IgnoredAny = parsed(line, what, needs)?;
    match exact::with_texts(line) {
        Some(line) => parsed(&line, what, needs),
        None => parsed(line, what, needs),
    }
}

/// Like [`parsed`], but numbers beyond the range of a float become the largest float, as when subscriptions
/// compare numbers.
fn parsed_as_numbers<T: DeserializeOwned>(
    line: &[u8],
    what: &str,
    needs: &str,
) -> Result<T, String> {
    parsed(line, what, needs).or_else(|error| match Exact::read(line) {
        Ok(exact) if !exact.is_plain() => {
            T::deserialize(exact.value()).map_err(|_| format!("not {what}: {needs} are needed"))
        }
        _ => Err(error),
    })
}

/// All faults of a mapping on one line.
fn told(faults: &[MappingFault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("mapping: {}", faults.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let table = [
            (
                r#"{"mapping":{"k":{"@json":{"mode":"decode","value":{"@path":"$.t"}}}},"payload":{"t":"[117000000000000000001,1e20,1e21,7]"}}"#,
                r#"{"value":{"k":["117000000000000000001",100000000000000000000,1e+21,7]}}"#,
            ),
            (
                r#"{"mapping":{"k":{"@path":"$.n"}},"payload":{"n":117000000000000000002}}"#,
                r#"{"value":{"k":"117000000000000000002"}}"#,
            ),
            (
                r#"{"mapping":{"k":{"@path":"$.n"}},"payload":{"n":[1e400,1.5e20]}}"#,
                r#"{"value":{"k":["Infinity",150000000000000000000]}}"#,
            ),
        ];
        for (line, expected) in table {
            let mut output = Vec::new();
            mapping(line.as_bytes(), &mut output).expect("memory does not fail");
            assert_eq!(String::from_utf8_lossy(&output).trim_end(), expected);
        }
    }
}

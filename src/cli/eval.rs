//! `cohortd eval`: JSON lines in, JSON lines out, so that a mapping can be tried and the recorded
//! behaviour of Segment's hosted integration be compared with ours.
//!
//! One line is read, answered and forgotten: memory does not grow with the input. A line that
//! cannot be used is answered with `{"error": …}`, so that there are as many lines out as in.

mod mapping;
mod subscription;
mod sync;

use std::io::{self, BufRead, Write};

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::json::{self, exact};
use crate::map::MappingFault;

#[derive(Serialize)]
struct Failure {
    error: String,
}

/// `cohortd eval sync`: what the events of each line amount to, as the requests that would be sent.
///
/// Fails only if reading or writing does.
pub fn sync(input: impl BufRead, output: impl Write) -> io::Result<()> {
    each_line(input, output, sync::answer)
}

/// `cohortd eval subscription`: whether the statement of each line selects its event.
///
/// Fails only if reading or writing does.
pub fn subscription(input: impl BufRead, output: impl Write) -> io::Result<()> {
    each_line(input, output, subscription::answer)
}

/// `cohortd eval mapping`: what the mapping of each line makes of its payload.
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
        match answer(line.trim_ascii_end()) {
            Ok(answer) => serde_json::to_writer(&mut output, &answer)?,
            Err(error) => serde_json::to_writer(&mut output, &Failure { error })?,
        }
        output.write_all(b"\n")?;
    }
}

/// The text of an error never quotes the line: it may hold a token and personal data ([P8](crate::design::P8)).
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

/// The same, with texts in place of numbers that would not be what was written, as events are mapped.
fn parsed_exactly<T: DeserializeOwned>(line: &[u8], what: &str, needs: &str) -> Result<T, String> {
    let IgnoredAny = parsed(line, what, needs)?;
    match exact::with_texts(line) {
        Some(line) => parsed(&line, what, needs),
        None => parsed(line, what, needs),
    }
}

/// Everything that is wrong with a mapping, in a line.
fn told(faults: &[MappingFault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    format!("mapping: {}", faults.join("; "))
}

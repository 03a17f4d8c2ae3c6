//! `cohortd eval subscription`: whether a statement selects an event.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parsed_as_numbers;
use crate::map::Subscription;

/// The members of a line; others are ignored.
#[derive(Deserialize)]
struct Case {
    fql: String,
    event: Value,
}

#[derive(Serialize)]
pub(super) struct Answer {
    value: bool,
}

/// A faulty statement is an error, not a statement that selects nothing.
pub(super) fn answer(line: &[u8]) -> Result<Answer, String> {
    let case: Case = parsed_as_numbers(line, "a subscription case", "fql and event")?;
    let subscription = Subscription::parse(&case.fql).map_err(|fault| format!("fql: {fault}"))?;
    Ok(Answer { value: subscription.selects(&case.event) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_line_is_answered() {
        let rows = [
            (r#"{"fql":"type = 'track'","event":{"type":"track"}}"#, r#"{"value":true}"#),
            (r#"{"id":1,"fql":"type = 'track'","event":null}"#, r#"{"value":false}"#),
            (
                r#"{"fql":"properties.n > 1","event":{"properties":{"n":1e400}}}"#,
                r#"{"value":true}"#,
            ),
            (
                r#"{"fql":"properties.n > 1","properties":{"n":1e400}}"#,
                r#"{"error":"not a subscription case: fql and event are needed"}"#,
            ),
            (
                r#"{"fql":"type = ","event":{}}"#,
                r#"{"error":"fql: line 1, column 8: expected a field, a value or a function\n  type = \n         ^"}"#,
            ),
            (
                r#"{"fql":"secret"}"#,
                r#"{"error":"not a subscription case at column 16: fql and event are needed"}"#,
            ),
        ];
        let input: Vec<_> = rows.iter().map(|(line, _)| *line).collect();
        let mut output = Vec::new();
        crate::cli::eval::subscription(input.join("\n").as_bytes(), &mut output)
            .expect("memory does not fail");
        let output = String::from_utf8(output).expect("JSON is UTF-8");
        let expected: Vec<_> = rows.iter().map(|(_, answer)| *answer).collect();
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    }
}

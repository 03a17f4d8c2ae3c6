//! `cohortd eval mapping`: what a mapping of directives makes of a payload.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{parsed_exactly, told};
use crate::map;

/// The members of a line; others are ignored.
#[derive(Deserialize)]
struct Case {
    mapping: Value,
    payload: Value,
}

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

pub(super) fn answer(line: &[u8]) -> Result<Answer, String> {
    let Case { mapping, payload } = parsed_exactly(line, "a mapping case", "mapping and payload")?;
    if !payload.is_object() {
        return Err("the payload must be an object".to_owned());
    }
    let value = map::transform(&mapping, &payload).map_err(|failure| match failure {
        map::TransformError::Faulty(faults) => told(&faults),
        map::TransformError::Failed(sentence) => sentence,
    })?;
    Ok(Answer { value })
}

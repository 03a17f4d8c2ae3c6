//! An audience whose calls are not taken, with LaunchDarkly's error. Holds no personal data
//! ([P8](crate::design::P8)).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;
use crate::deliver::FailingAudience;

/// An audience whose last call was not taken.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FailingInfo {
    /// The audience's ID.
    pub audience: String,
    /// When the first of the failures in a row ended.
    pub since: String,
    /// The number of failures in a row.
    pub failures: u64,
    /// Calls with other members of this audience were taken in between: the refused members are being
    /// searched for.
    #[serde(default)]
    pub partly_taken: bool,
    /// What the last answer meant, in one word, as in the metric `cohortd_call_duration_seconds`.
    pub what: String,
    /// Its HTTP status; absent if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// LaunchDarkly's `code`; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's id of the answer, for its support; may be empty.
    pub answer_id: String,
    /// Why there was no usable answer; may be empty.
    pub cause: String,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// The earliest time of the next attempt.
    pub next_attempt_at: String,
}

impl FailingInfo {
    /// What is wrong, with the cause or LaunchDarkly's error in brackets.
    #[must_use]
    pub fn sentence(&self) -> String {
        let cause = if self.cause.is_empty() { String::new() } else { format!(": {}", self.cause) };
        let said = said(self.status, &self.code, &self.message, &self.answer_id);
        format!("{}{cause}{said}", self.why)
    }
}

impl From<&FailingAudience> for FailingInfo {
    fn from(of: &FailingAudience) -> Self {
        Self {
            audience: of.audience.as_str().to_owned(),
            since: instant(of.since),
            failures: of.failures,
            partly_taken: of.is_partly_taken,
            what: of.what.to_owned(),
            status: of.status,
            code: of.code.clone(),
            message: of.message.clone(),
            answer_id: of.answer_id.clone(),
            cause: of.cause.clone(),
            why: of.why.to_owned(),
            remedy: of.remedy.to_owned(),
            next_attempt_at: instant(of.next_attempt_at),
        }
    }
}

/// LaunchDarkly's error in brackets after a space; empty if there is none.
#[must_use]
pub fn said(status: Option<u16>, code: &str, message: &str, id: &str) -> String {
    let status = status.map(|status| format!("status {status}"));
    let code = Some(code.to_owned()).filter(|code| !code.is_empty());
    let message = (!message.is_empty()).then(|| format!("\u{201c}{message}\u{201d}"));
    let id = (!id.is_empty()).then(|| format!("LaunchDarkly's id {id}"));
    let said: Vec<_> = [status, code, message, id].into_iter().flatten().collect();
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

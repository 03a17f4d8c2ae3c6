//! Errors of the admin API as problem documents (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::json::Json;
use crate::ledger::LedgerError;

/// The `Retry-After` of an answer to a request that may be granted later, in seconds.
const RETRY_AFTER_S: u16 = 5;

// Holds no personal data (P8).
/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status alone says what kind of problem it is.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to do about it, in a sentence.
    pub detail: String,
    /// Whether the cause passes by itself, so that the same request may be granted later: the answer has `Retry-After`.
    #[serde(skip)]
    passes: bool,
}

impl Problem {
    /// A problem with this status.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            passes: status == StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// For a request that is in the way of something that ends by itself: the same request later is no mistake.
    pub fn not_yet(detail: impl Into<String>) -> Self {
        Self { passes: true, ..Self::new(StatusCode::CONFLICT, detail) }
    }

    /// For a body that is malformed or not what the route takes. The parser's message is left out, as
    /// it may quote personal data.
    #[must_use]
    pub fn unreadable(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if error.is_data() {
            let detail = format!(
                "the body is not a JSON object that this route accepts (line {line}, column \
                 {column})"
            );
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        }
        let detail = format!("the body is not JSON (line {line}, column {column})");
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let status = match error {
            LedgerError::UnknownDestination(_) | LedgerError::UnknownAudience(_) => {
                StatusCode::NOT_FOUND
            }
            LedgerError::Retracting(_) => StatusCode::CONFLICT,
            LedgerError::Unavailable(_) | LedgerError::Closed => StatusCode::SERVICE_UNAVAILABLE,
        };
        let remedy = match error {
            LedgerError::UnknownAudience(_) => "; `cohortd audiences` lists them",
            LedgerError::Retracting(_) => {
                ", which has to finish first; try again when they are gone"
            }
            _ => "",
        };
        let detail = format!("{error}{remedy}");
        match error {
            LedgerError::Retracting(_) => Self::not_yet(detail),
            _ => Self::new(status, detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let passes = self.passes;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT) {
            // The rest of the body is still arriving, so the connection cannot be used again.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if passes {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}

//! What LaunchDarkly requires of a [call](crate::design::launchdarkly::synced_segments), and its error
//! messages.

use hashbrown::HashSet;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use super::state::State;
use crate::json;
use crate::launchdarkly::wire::{API_VERSION, SyncRequest};
use crate::membership::ContextKind;

/// Why a call is refused.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Problem {
    fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.into() }
    }

    pub(super) fn unauthorized() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: "unauthorized",
            message: "Invalid access token".into(),
        }
    }

    fn unknown_environment() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "not_found",
            message: "Unknown environment".into(),
        }
    }

    fn too_large(members: usize) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "request_entity_too_large",
            message: format!("batch has {members} members"),
        }
    }
}

/// The token of a call; `None` if the header is absent or not text.
pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

/// Parses a call and checks everything that does not depend on an environment.
pub(super) fn read<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<SyncRequest<'a>, Problem> {
    let is = |name: &str, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().is_some_and(|value| value.trim() == wanted)
    };
    if !is(CONTENT_TYPE.as_str(), "application/json") {
        return Err(Problem::invalid("Content-Type is not application/json"));
    }
    if !is("LD-API-Version", API_VERSION) {
        return Err(Problem::invalid(format!("LD-API-Version is not {API_VERSION}")));
    }
    json::from_slice(body).map_err(|error| Problem::invalid(error.to_string()))
}

/// Checks a call that carries `token` against its environment.
pub(super) fn check(
    state: &State,
    token: Option<&str>,
    request: &SyncRequest<'_>,
) -> Result<(), Problem> {
    if !state.knows_token(token) {
        return Err(Problem::unauthorized());
    }
    let Some(environment) = state.environment(&request.environment_id) else {
        return Err(Problem::unknown_environment());
    };
    if !environment.takes(token) {
        return Err(Problem::unauthorized());
    }
    if request.batch.len() > state.max_members {
        return Err(Problem::too_large(request.batch.len()));
    }
    if ContextKind::new(&request.context_kind).is_none() {
        return Err(Problem::invalid("contextKind is not a context kind"));
    }
    let Some(first) = request.batch.first() else {
        return Err(Problem::invalid("batch is empty"));
    };
    check_members(state, request, &first.cohort_id)?;
    match environment.segments.get(&*first.cohort_id) {
        Some(segment) if segment.context_kind != *request.context_kind => Err(Problem::invalid(
            format!("the segment is of context kind {}", segment.context_kind),
        )),
        _ => Ok(()),
    }
}

fn check_members(state: &State, request: &SyncRequest<'_>, cohort_id: &str) -> Result<(), Problem> {
    let mut seen = HashSet::with_capacity(request.batch.len());
    for (index, member) in request.batch.iter().enumerate() {
        let texts = [
            ("userId", &member.user_id),
            ("cohortId", &member.cohort_id),
            ("cohortName", &member.cohort_name),
        ];
        if let Some((field, _)) = texts.iter().find(|(_, text)| text.is_empty()) {
            return Err(Problem::invalid(format!("batch[{index}].{field} is empty")));
        }
        if member.cohort_id != cohort_id {
            return Err(Problem::invalid(format!("batch[{index}] is of another cohort")));
        }
        if !seen.insert(&*member.user_id) {
            return Err(Problem::invalid(format!("batch[{index}] is named twice")));
        }
        if (state.refused)(&member.user_id) {
            // quotes the key, as a real message may, so that tests notice if it gets logged
            let message = format!("batch[{index}].userId cannot be used: {}", member.user_id);
            return Err(Problem::invalid(message));
        }
    }
    Ok(())
}

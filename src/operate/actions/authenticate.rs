//! `POST /actions/authenticate`: whether LaunchDarkly knows the credentials in the settings. As
//! Segment's destination does, it sends the client-side ID to one host and the token to the other, and
//! neither to anyone else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{API_KEY, Actions, CLIENT_ID, Environment, environment_of, missing_setting, setting};
use crate::json::Json;
use crate::launchdarkly::{CredentialsCheck, Endpoint, Verdict};
use crate::operate::api::Change;
use crate::operate::logging::chain;
use crate::secret::Secret;

/// Timeout of each of the two checks.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
pub(super) struct Answer {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<&'static str, String>>,
}

impl Answer {
    fn no(error: impl Into<String>, fields: BTreeMap<&'static str, String>) -> Self {
        Self { ok: false, error: Some(error.into()), fields: Some(fields) }
    }
}

/// The body of the request is the settings.
pub(super) async fn authenticate(
    State(actions): State<Arc<Actions>>,
    Change(settings): Change<Map<String, Value>>,
) -> Json<Answer> {
    Json(match verdict(&actions, &settings).await {
        Ok(()) => Answer { ok: true, error: None, fields: None },
        Err(no) => no,
    })
}

async fn verdict(actions: &Actions, settings: &Map<String, Value>) -> Result<(), Answer> {
    let (Some(token), Some(client_side_id)) =
        (setting(settings, API_KEY), setting(settings, CLIENT_ID))
    else {
        let missing = [API_KEY, CLIENT_ID].into_iter();
        let missing = missing.filter(|key| setting(settings, key).is_none());
        let fields: BTreeMap<_, _> = missing.map(|key| (key, missing_setting(key))).collect();
        let all: Vec<_> = fields.values().map(String::as_str).collect();
        return Err(Answer::no(all.join(" "), fields));
    };
    let no = |error: String| Answer::no(error, BTreeMap::new());
    let environments = actions.environments.get();
    let Environment { launchdarkly, request_timeout, .. } =
        to_be_asked(&environments, &client_side_id).map_err(no)?;
    let endpoint = Endpoint {
        client_side_id,
        service_token: Secret::new(token),
        ..launchdarkly.endpoint(*request_timeout, 1)
    };
    let credentials = CredentialsCheck::new(&endpoint, &launchdarkly.client_sdk_url, PATIENCE)
        .map_err(|error| no(format!("Credentials cannot be checked: {}", chain(&error))))?;
    let (id, token) = tokio::join!(credentials.client_side_id(), credentials.service_token());
    objection(id).or(objection(token)).map_or(Ok(()), |why| Err(no(why)))
}

/// The environment whose hosts are asked about a client-side ID: the one that has it; else any, if all
/// environments use the same hosts.
fn to_be_asked<'a>(
    environments: &'a [Environment],
    client_side_id: &str,
) -> Result<&'a Environment, String> {
    if let Some(environment) = environment_of(environments, client_side_id)? {
        return Ok(environment);
    }
    let way = |of: &Environment| {
        let to = &of.launchdarkly;
        (to.base_url.clone(), to.client_sdk_url.clone(), to.proxy.clone(), to.ca_file.clone())
    };
    match environments {
        [first, others @ ..] if others.iter().all(|other| way(other) == way(first)) => Ok(first),
        _ => Err(format!(
            "{CLIENT_ID} belongs to no configured destination, and the destinations use different \
             hosts: it is unclear which one to ask"
        )),
    }
}

fn objection(verdict: Verdict) -> Option<String> {
    match verdict {
        Verdict::Known => None,
        Verdict::Refused(status) => Some(format!("Credentials are invalid: {status}")),
        Verdict::Unclear { asked, status } => {
            Some(format!("Credentials cannot be checked: {asked} answered {status}"))
        }
        Verdict::Unreached { asked, source } => Some(format!(
            "Credentials cannot be checked: {asked} cannot be reached: {}",
            chain(&source)
        )),
    }
}

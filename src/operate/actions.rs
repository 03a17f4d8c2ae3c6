//! Segment's Actions protocol on the admin listener: `/actions/manifest`, `/actions/authenticate` and
//! `/actions/syncAudience`. Requests and answers are those of Segment's own development server, so that
//! its Actions Tester and other drivers of an Actions destination work.
//!
//! # What always holds
//! * Nothing bypasses the ledger: an action is recorded, and the courier of the destination delivers
//!   it. The answer says so instead of imitating LaunchDarkly's (tests/it/actions.rs).
//! * A token is sent only to the hosts that the configuration names, and is in no answer
//!   ([P8](crate::design::P8)).
//! * For every event that was not recorded, the answer says why ([P7](crate::design::P7)).
//!
//! # What does not
//! The mapping is the request's, not the destination's, and subscriptions are not applied: as on the
//! development server, the caller has chosen the action.

mod authenticate;
mod exchange;
pub mod segment_app;
mod sync_audience;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http::header;
use serde_json::{Map, Value};

use crate::config::LaunchDarklySection;
use crate::current::Current;
use crate::ledger::Operations;
use crate::membership::DestinationName;

/// The manifest of the destination: that of Segment's own, as far as mappings need it.
const MANIFEST: &str = include_str!("actions/manifest.json");

/// The keys of the settings, as in Segment's destination.
const API_KEY: &str = "apiKey";
const CLIENT_ID: &str = "clientId";

/// What the protocol's routes need.
#[derive(Debug)]
pub struct Actions {
    /// Where events are recorded.
    pub ledger: Arc<dyn Operations>,
    /// The configured destinations.
    pub environments: Current<Vec<Environment>>,
}

/// A configured destination, which the settings of a request can name by its client-side ID.
#[derive(Debug)]
pub struct Environment {
    /// Its name.
    pub destination: DestinationName,
    /// Whether it accepts events.
    pub enabled: bool,
    /// Its client-side ID and how to reach LaunchDarkly.
    pub launchdarkly: LaunchDarklySection,
    /// Timeout of one call.
    pub request_timeout: Duration,
}

/// The routes.
pub(super) fn router(actions: Actions) -> Router {
    let manifest = ([(header::CONTENT_TYPE, "application/json")], MANIFEST);
    Router::new()
        .route("/actions/manifest", get(async move || manifest))
        .route("/actions/authenticate", post(authenticate::authenticate))
        .route("/actions/syncAudience", post(sync_audience::sync_audience))
        .with_state(Arc::new(actions))
}

/// The environment with this client-side ID. An error if several destinations have it.
fn environment_of<'a>(
    environments: &'a [Environment],
    client_side_id: &str,
) -> Result<Option<&'a Environment>, String> {
    let has_id = |of: &&Environment| of.launchdarkly.client_side_id == client_side_id;
    let found: Vec<&Environment> = environments.iter().filter(has_id).collect();
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let names: Vec<_> = found.iter().map(|of| of.destination.as_str()).collect();
            let names = names.join(", ");
            Err(format!("{CLIENT_ID} matches several configured destinations: {names}"))
        }
    }
}

/// A setting as text: a string or a number; `None` if it is empty or anything else.
fn setting(settings: &Map<String, Value>, key: &str) -> Option<String> {
    match settings.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn missing_setting(key: &str) -> String {
    format!("The root value is missing the required field '{key}'.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Mapping;

    #[test]
    fn the_manifest_says_what_the_mapping_does() {
        let manifest: Value = serde_json::from_str(MANIFEST).expect("JSON");
        let action = &manifest["actions"]["syncAudience"];
        let fields = action["fields"].as_object().expect("an object");
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, Mapping::field_names().collect::<Vec<_>>());
        let defaults: Map<String, Value> = fields
            .iter()
            .filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())))
            .collect();
        let preset = Mapping::preset();
        let spelled_out = Mapping::preset_with(&defaults).expect("a mapping");
        assert_eq!(format!("{spelled_out:?}"), format!("{preset:?}"));
        let [of_segment] = &manifest["presets"].as_array().expect("a list")[..] else {
            panic!("one preset");
        };
        assert_eq!(of_segment["mapping"], Value::Object(defaults));
        for statement in [&of_segment["subscribe"], &action["defaultSubscription"]] {
            let statement = statement.as_str().expect("text");
            assert!(preset.to_string().contains(statement), "{preset}");
        }
        for choice in fields["context_key"]["choices"].as_array().expect("a list") {
            Mapping::preset_with([(&"context_key".to_owned(), &choice["value"])]).expect("a rule");
        }
    }
}

//! `POST /actions/syncAudience`: maps one event or a list of events with the mapping in the request.
//!
//! `?dry_run` only shows the calls. Otherwise the events are recorded for the configured destination
//! that has the client-side ID of the settings; its own token is used, whatever `apiKey` says.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::exchange::{Entry, Failure, Request, Response, Standing};
use super::{Actions, CLIENT_ID, Environment, environment_of, missing_setting, setting};
use crate::json::Json;
use crate::launchdarkly::calls::{Call, calls};
use crate::ledger::{Intake, MemberView, Unrecorded};
use crate::map::{Mapping, Rejection, name_message};
use crate::membership::{DestinationName, MembershipDelta};
use crate::operate::api::{Asked, ExactChange, audit};
use crate::operate::problem::Problem;

/// The base URL shown for settings that name no configured destination.
const HOSTED: &str = "https://app.launchdarkly.com";

/// Most events in one request: the size of Segment's largest batch. Each event is answered
/// ([P6](crate::design::P6)).
const MOST_EVENTS: usize = 4000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    dry_run: Option<String>,
}

/// The request; whatever else a driver sends (`auth`, `features`, …) is ignored.
#[derive(Deserialize)]
pub(super) struct Perform {
    #[serde(default)]
    payload: Value,
    settings: Option<Map<String, Value>>,
    mapping: Option<Map<String, Value>>,
}

pub(super) async fn sync_audience(
    State(actions): State<Arc<Actions>>,
    Asked(query): Asked<Query>,
    ExactChange(what): ExactChange<Perform>,
) -> Result<Json<Vec<Entry>>, Problem> {
    let dry_run = match query.dry_run.as_deref() {
        None | Some("false" | "0") => false,
        Some("" | "true" | "1") => true,
        Some(_) => {
            let detail = "dry_run is true or false; nothing was recorded";
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
    };
    let answer = actions.perform(what, dry_run).await;
    Ok(Json(answer.unwrap_or_else(|failure| vec![Entry::Failure(failure)])))
}

/// The results of mapping a request's events.
#[derive(Default)]
struct Mapped {
    deltas: Vec<MembershipDelta>,
    /// The index of the event behind each delta.
    origins: Vec<usize>,
    failures: Vec<(usize, Failure)>,
}

impl Actions {
    async fn perform(&self, what: Perform, dry_run: bool) -> Result<Vec<Entry>, Failure> {
        let bad = |message: String| Failure::new(StatusCode::BAD_REQUEST, message);
        let settings = what.settings.unwrap_or_default();
        let client_side_id = setting(&settings, CLIENT_ID).ok_or_else(|| {
            bad(missing_setting(CLIENT_ID)).at(CLIENT_ID, missing_setting(CLIENT_ID))
        })?;
        let environments = self.environments.get();
        let environment = environment_of(&environments, &client_side_id).map_err(bad)?;
        // Unknown fields are ignored, as on the development server.
        let is_field = |name: &str| Mapping::field_names().any(|field| field == name);
        let mut mapping = what.mapping.unwrap_or_default();
        mapping.retain(|name, _| is_field(name));
        let mapping =
            Mapping::preset_with(&mapping).map_err(|faults| Failure::of_mapping(&faults))?;

        let is_batch = what.payload.is_array();
        let events = match what.payload {
            Value::Array(events) => events,
            Value::Null => vec![Value::Object(Map::new())],
            event => vec![event],
        };
        if events.len() > MOST_EVENTS {
            let message = format!("Nothing was recorded: more than {MOST_EVENTS} events at once.");
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let mut mapped = self.map(&mapping, &events);
        let mut entries = Vec::new();
        if dry_run {
            let base_url = environment.map_or(HOSTED, |of| of.launchdarkly.base_url.as_str());
            for call in calls(mapped.deltas) {
                let request = Request::of(&call, base_url, &client_side_id);
                entries.push(Entry::Exchange { request, response: Response::dry_run() });
            }
        } else {
            let environment = open(environment)?;
            mapped = self.record(&environment.destination, mapped).await?;
            for call in calls(mapped.deltas) {
                let base_url = environment.launchdarkly.base_url.as_str();
                let request = Request::of(&call, base_url, &client_side_id);
                let response = self.standing(&environment.destination, &call).await;
                entries.push(Entry::Exchange { request, response });
            }
        }
        mapped.failures.sort_by_key(|(index, _)| *index);
        entries.extend(mapped.failures.into_iter().map(|(index, failure)| {
            Entry::Failure(if is_batch { failure.in_batch(index) } else { failure })
        }));
        Ok(entries)
    }

    fn map(&self, mapping: &Mapping, events: &[Value]) -> Mapped {
        let arrival = self.ledger.arrival();
        let mut mapped = Mapped::default();
        for (index, event) in events.iter().enumerate() {
            match mapping.delta(event, arrival) {
                Ok(mut delta) => {
                    name_message(delta.as_mut_slice(), event, arrival);
                    mapped.origins.extend(delta.iter().map(|_| index));
                    mapped.deltas.extend(delta);
                }
                Err(rejection) => mapped.failures.push((index, Failure::of_event(&rejection))),
            }
        }
        mapped
    }

    /// Records all deltas or none; the returned ones are on stable storage.
    async fn record(&self, to: &DestinationName, mapped: Mapped) -> Result<Mapped, Failure> {
        let Mapped { deltas, origins, mut failures } = mapped;
        if deltas.is_empty() {
            return Ok(Mapped { deltas, origins, failures });
        }
        let intake = Intake {
            destination: to.clone(),
            arrival: self.ledger.arrival(),
            deltas: deltas.clone(),
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        };
        let recorded = self.ledger.record(intake).await.map_err(|error| {
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, format!("Nothing was recorded: {error}"))
        })?;
        audit!(to, "events of the actions protocol recorded", count = deltas.len());
        let unrecorded = recorded.unrecorded();
        let failure = |why: &Unrecorded| Failure::of_event(&Rejection::from(*why));
        failures.extend(unrecorded.iter().map(|(at, why)| (origins[*at], failure(why))));
        let taken = deltas.into_iter().zip(origins).enumerate();
        let taken =
            taken.filter(|(at, _)| unrecorded.binary_search_by_key(at, |(at, _)| *at).is_err());
        let (deltas, origins) = taken.map(|(_, of)| of).unzip();
        Ok(Mapped { deltas, origins, failures })
    }

    /// The state of a call's members: an event may be older than what the ledger knows, or LaunchDarkly
    /// may already have the membership.
    async fn standing(&self, destination: &DestinationName, call: &Call) -> Response {
        let mut standing = Standing::of(destination, call.deltas().len());
        for delta in call.deltas() {
            let Ok(found) = self.ledger.member(destination, delta.context_key.as_str()).await
            else {
                break; // the events are recorded all the same
            };
            let is_it = |view: &&MemberView| {
                view.audience == delta.audience.as_str()
                    && view.context_key == delta.context_key.as_str()
            };
            standing.count(delta, found.iter().find(is_it));
        }
        Response::recorded(&standing)
    }
}

/// The destination to record for, which must be configured and enabled.
fn open(environment: Option<&Environment>) -> Result<&Environment, Failure> {
    match environment {
        Some(environment) if environment.enabled => Ok(environment),
        Some(Environment { destination, .. }) => {
            let message = format!("Nothing was recorded: destination {destination} is disabled.");
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        None => {
            let message = "Nothing was recorded: no configured destination has this client-side ID. \
                           Configure one, or add ?dry_run to see the calls.";
            Err(Failure::new(StatusCode::NOT_FOUND, message).at(CLIENT_ID, message))
        }
    }
}

//! `cohortd explain`: one event, what happens to it and why, without telling anybody.
//!
//! Prints what the event holds: it is for whoever has the event already.

use std::io::{Result, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::addressee::Addressee;
use super::{Exit, complain, instant, read_file};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Destination, Route};
use crate::launchdarkly::wire;
use crate::map::{Explanation, Outcome};
use crate::membership::MembershipDelta;

/// Which event, and for whom it is explained.
#[derive(Args, Clone)]
pub struct Explain {
    /// The destination or route it is for [default: the only destination that is configured]
    destination: Option<String>,
    /// The event: an object, or an array of one; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Explain to a program: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    destination: &'a str,
    /// `accepted`, `ignored` or `rejected`, as the webhook would count it.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// One for each mapping that is enabled; none for a deletion, which comes before them.
    mappings: Vec<MappingReport>,
}

/// For each destination of a route.
#[derive(Serialize)]
struct RouteReport<'a> {
    route: &'a str,
    /// `accepted` if it is by one of them, as the webhook would count it.
    outcome: &'static str,
    destinations: Vec<Report<'a>>,
}

#[derive(Serialize)]
struct MappingReport {
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<DeltaReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestReport>,
}

#[derive(Serialize)]
struct DeltaReport {
    audience_id: String,
    segment: String,
    context_kind: String,
    context_key: String,
    included: bool,
    event_at: String,
}

#[derive(Serialize)]
struct RequestReport {
    method: &'static str,
    url: String,
    body: Value,
}

impl Explain {
    /// Prints what becomes of the event.
    pub fn explain(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let prepared = Addressee::named(config, self.destination.as_deref())
            .and_then(|to| Ok((to, event(&read_file(&self.file)?)?)));
        let (addressee, event) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                complain(&format!("cohortd explain: {why}"));
                return Ok(Exit::BadUsage);
            }
        };
        match addressee {
            Addressee::Destination(destination) => {
                let report = report(destination, &event);
                if self.json { print_json(&report, out)? } else { print(&report, out)? }
            }
            Addressee::Route(route) => {
                let report = route_report(config, route, &event);
                if self.json { print_json(&report, out)? } else { print_route(&report, out)? }
            }
        }
        Ok(Exit::Done)
    }
}

fn print_json(report: &impl Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

fn route_report<'a>(config: &'a Config, route: &'a Route, event: &Value) -> RouteReport<'a> {
    let all = route.destinations.iter().filter_map(|name| config.destination(name.as_str()));
    let destinations: Vec<Report<'_>> = all.map(|of| report(of, event)).collect();
    let any = |outcome| destinations.iter().any(|report| report.outcome == outcome);
    let outcomes = ["accepted", "rejected"];
    let outcome = outcomes.into_iter().find(|outcome| any(*outcome)).unwrap_or("ignored");
    RouteReport { route: &route.name, outcome, destinations }
}

fn print_route(report: &RouteReport<'_>, out: &mut impl Write) -> Result<()> {
    for destination in &report.destinations {
        print(destination, out)?;
        writeln!(out)?;
    }
    writeln!(out, "route {}: {}", report.route, report.outcome)
}

fn event(text: &str) -> std::result::Result<Value, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
    match json {
        Value::Array(mut events) if events.len() == 1 => Ok(events.remove(0)),
        Value::Array(_) => Err("explains one event at a time".to_owned()),
        event => Ok(event),
    }
}

fn report<'a>(destination: &'a Destination, event: &Value) -> Report<'a> {
    let arrival = SystemClock.now();
    let (outcome, reason, is_deletion) = match destination.mappings.map(event, arrival) {
        Outcome::Accepted { rejection, .. } => {
            ("accepted", rejection.map(|rejection| rejection.to_string()), false)
        }
        Outcome::Deletion(_) => {
            let what = "a deletion: the person is taken out of every audience of the destination";
            ("accepted", Some(what.to_owned()), true)
        }
        Outcome::Ignored => ("ignored", None, false),
        Outcome::Rejected(rejection) => ("rejected", Some(rejection.to_string()), false),
    };
    let mappings = if is_deletion { &[] } else { destination.mappings.all() };
    Report {
        destination: destination.name.as_str(),
        outcome,
        reason,
        mappings: mappings
            .iter()
            .map(|mapping| mapping_report(destination, mapping.explain(event, arrival)))
            .collect(),
    }
}

fn mapping_report(destination: &Destination, explanation: Explanation) -> MappingReport {
    let (delta, rejection) = match &explanation.result {
        Ok(delta) => (delta.as_ref(), None),
        Err(rejection) => (None, Some(rejection.to_string())),
    };
    MappingReport {
        rejection,
        delta: delta.map(delta_report),
        request: delta.map(|delta| request_report(destination, delta)),
        explanation,
    }
}

fn delta_report(delta: &MembershipDelta) -> DeltaReport {
    DeltaReport {
        audience_id: delta.audience.as_str().to_owned(),
        segment: delta.audience_key.segment_name(),
        context_kind: delta.context_kind.as_str().to_owned(),
        context_key: delta.context_key.as_str().to_owned(),
        included: delta.membership.as_bool(),
        event_at: instant(delta.event_at),
    }
}

/// The call as it would be if nothing else were pending.
fn request_report(destination: &Destination, delta: &MembershipDelta) -> RequestReport {
    let launchdarkly = &destination.launchdarkly;
    let body = wire::encode(
        &launchdarkly.client_side_id,
        &delta.context_kind,
        &delta.audience,
        &delta.audience_key.segment_name(),
        std::iter::once((&delta.context_key, delta.membership)),
    );
    RequestReport {
        method: "POST",
        url: format!("{}{}", launchdarkly.base_url.as_str().trim_end_matches('/'), wire::PATH),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn print(report: &Report<'_>, out: &mut impl Write) -> Result<()> {
    writeln!(out, "destination {}", report.destination)?;
    for (index, mapping) in report.mappings.iter().enumerate() {
        let MappingReport { explanation, rejection, delta, request } = mapping;
        writeln!(out, "\nmapping {}, for events with {}", index + 1, explanation.subscription)?;
        if let Some(why_not) = &explanation.why_not {
            writeln!(out, "  does not select the event: {why_not}")?;
        }
        for field in &explanation.fields {
            let value = match (&field.value, &field.problem) {
                (_, Some(problem)) => problem.clone(),
                (Some(value), None) => shortened(&value.to_string()),
                (None, None) => "-".to_owned(),
            };
            writeln!(out, "  {:<27} {value:<40} {}", field.field, field.from)?;
        }
        match (delta, rejection, &explanation.why_not) {
            (Some(delta), _, _) => writeln!(
                out,
                "  so {} {} {} \"{}\" ({}), as of {}",
                delta.context_kind,
                delta.context_key,
                if delta.included { "enters" } else { "leaves" },
                delta.segment,
                delta.audience_id,
                delta.event_at,
            )?,
            (None, Some(rejection), _) => writeln!(out, "  rejected: {rejection}")?,
            (None, None, None) => writeln!(out, "  leaves the event's audience out")?,
            (None, None, Some(_)) => {}
        }
        if let Some(request) = request {
            writeln!(out, "  {} {}\n  {}", request.method, request.url, request.body)?;
        }
    }
    write!(out, "\n{}", report.outcome)?;
    match &report.reason {
        Some(reason) => writeln!(out, ": {reason}"),
        None => writeln!(out),
    }
}

/// So that a table stays one: an event's traits may fill pages.
fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}

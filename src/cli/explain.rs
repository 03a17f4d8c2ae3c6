//! `cohortd explain`: what happens to one event, and why, without recording it or telling LaunchDarkly.
//!
//! Exits with 1 if the event is rejected; for a route, if a destination rejects it and none accepts it.
//!
//! The output quotes the event, so it is meant for people who already have the event.

use std::io::{Result, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::addressee::Addressee;
use super::{Exit, complain, read_file};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Destination, Route};
use crate::json::exact::Exact;
use crate::operate::explain::{self, MappingReport, Report};

/// The outcome that needs a person's attention.
const REJECTED: &str = "rejected";

/// Which event, and for whom it is explained.
#[derive(Args, Clone)]
pub struct Explain {
    /// The destination or route it is for [default: the only destination that is configured]
    destination: Option<String>,
    /// The event: an object, or an array of one; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// The reports of all destinations of a route.
#[derive(Serialize)]
struct RouteReport<'a> {
    route: &'a str,
    /// `accepted` if at least one destination accepts it, as the webhook counts it.
    outcome: &'static str,
    destinations: Vec<Report>,
}

impl Explain {
    /// Prints what happens to the event.
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
        let is_rejected = match addressee {
            Addressee::Destination(destination) => {
                let report = report(destination, &event);
                if self.json {
                    print_json(&report, out)?;
                } else {
                    print(&report, out)?;
                }
                report.outcome == REJECTED
            }
            Addressee::Route(route) => {
                let report = route_report(config, route, &event);
                if self.json {
                    print_json(&report, out)?;
                } else {
                    print_route(&report, out)?;
                }
                report.outcome == REJECTED
            }
        };
        Ok(if is_rejected { Exit::Rejected } else { Exit::Done })
    }
}

fn print_json(report: &impl Serialize, out: &mut impl Write) -> Result<()> {
    serde_json::to_writer(&mut *out, report)?;
    writeln!(out)
}

fn route_report<'a>(config: &'a Config, route: &'a Route, event: &Exact) -> RouteReport<'a> {
    let all = route.destinations.iter().filter_map(|name| config.destination(name.as_str()));
    let destinations: Vec<Report> = all.map(|of| report(of, event)).collect();
    let any = |outcome| destinations.iter().any(|report| report.outcome == outcome);
    let outcomes = ["accepted", REJECTED];
    let outcome = outcomes.into_iter().find(|outcome| any(*outcome)).unwrap_or("ignored");
    RouteReport { route: &route.name, outcome, destinations }
}

fn report(destination: &Destination, event: &Exact) -> Report {
    explain::report(&destination.name, &destination.into(), event, SystemClock.now())
}

fn print_route(report: &RouteReport<'_>, out: &mut impl Write) -> Result<()> {
    for destination in &report.destinations {
        print(destination, out)?;
        writeln!(out)?;
    }
    writeln!(out, "route {}: {}", report.route, report.outcome)
}

fn event(text: &str) -> std::result::Result<Exact, String> {
    let mut event = Exact::read(text.as_bytes()).map_err(|error| format!("not JSON: {error}"))?;
    if event.value().as_array().is_some_and(|events| events.len() != 1) {
        return Err("only one event can be explained at a time".to_owned());
    }
    event.each(|event| {
        *event = match event.take() {
            Value::Array(mut events) => unwrapped(events.remove(0)),
            event => unwrapped(event),
        };
    });
    Ok(event)
}

/// Unwraps an event from the Extensible Webhook's wrapper, as the webhook does.
fn unwrapped(event: Value) -> Value {
    match event {
        Value::Object(mut members) if members.len() == 1 => match members.remove("json") {
            Some(event @ Value::Object(_)) => event,
            Some(other) => [("json".to_owned(), other)].into_iter().collect(),
            None => Value::Object(members),
        },
        event => event,
    }
}

fn print(report: &Report, out: &mut impl Write) -> Result<()> {
    writeln!(out, "destination {}", report.destination)?;
    if let Some(doubt) = &report.time.doubt {
        writeln!(out, "  {doubt}")?;
    }
    for (index, mapping) in report.mappings.iter().enumerate() {
        let MappingReport { subscription, why_not, fields, rejection, delta, request } = mapping;
        writeln!(out, "\nmapping {}, for events with {subscription}", index + 1)?;
        if let Some(why_not) = why_not {
            writeln!(out, "  does not select the event: {why_not}")?;
        }
        for field in fields {
            let value = match (&field.value, &field.problem) {
                (_, Some(problem)) => problem.clone(),
                (Some(value), None) => shortened(&value.to_string()),
                (None, None) => "-".to_owned(),
            };
            writeln!(out, "  {:<27} {value:<40} {}", field.field, field.from)?;
        }
        match (delta, rejection, why_not) {
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

/// Shortens long text: an event's traits could fill pages of a table.
fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}

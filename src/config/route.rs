//! `[routes.<name>]`: one path whose events go to several destinations.

use super::destination::{Destination, parse_name};
use super::section::Section;
use super::segment::SegmentSection;
use crate::membership::DestinationName;

/// One path whose events go to several destinations.
#[derive(Clone, Debug)]
pub struct Route {
    /// The last part of the path that Segment posts to; differs from all destinations' names.
    pub name: String,
    /// At least one, without duplicates, in the order in which they are written.
    pub destinations: Vec<DestinationName>,
    /// Who may post to it.
    pub segment: SegmentSection,
}

/// A route whose destinations have not been resolved.
#[derive(Debug)]
pub(super) struct Draft {
    name: String,
    destinations: Vec<String>,
    segment: SegmentSection,
}

/// Reads every route, sorted by name.
pub(super) fn read_all(root: &mut Section<'_>) -> Vec<Draft> {
    let mut section = root.section("routes");
    let mut drafts = Vec::new();
    for (name, mut below) in section.sections() {
        if parse_name(&name).is_none() {
            let problem = "is not a valid name for a route: expected [a-z0-9_]+ without two underscores in \
                 a row";
            section.fault(&name, None, problem);
        }
        let destinations = if below.has("destinations") {
            below.list("destinations")
        } else {
            below.missing("destinations", None, ": the destinations that its events go to");
            None
        };
        if destinations.as_ref().is_some_and(Vec::is_empty) {
            below.fault("destinations", None, "is empty: name the destinations its events go to");
        }
        let segment = SegmentSection::read(below.section("segment"));
        below.finish();
        let destinations = destinations.unwrap_or_default();
        drafts.push(Draft { name, destinations, segment });
    }
    drafts
}

/// Whether a route names the destination, or may have meant to because its list is faulty.
pub(super) fn is_routed(drafts: &[Draft], destination: &str) -> bool {
    let names_it = |draft: &Draft| draft.destinations.iter().any(|name| name == destination);
    drafts.iter().any(|draft| draft.destinations.is_empty() || names_it(draft))
}

/// Resolves the destinations that the routes name.
pub(super) fn resolve(
    drafts: Vec<Draft>,
    destinations: &[Destination],
    root: &Section<'_>,
) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for Draft { name, destinations: named, segment } in drafts {
        let key = |below: &str| format!("routes.{name}{below}");
        if destinations.iter().any(|of| of.name.as_str() == name) {
            let problem = "has the name of a destination: both would be at the same path";
            root.fault(&key(""), None, problem);
        }
        let mut found: Vec<DestinationName> = Vec::new();
        for wanted in named {
            let fault = |problem| {
                root.fault(&key(".destinations"), Some(format!("{wanted:?}")), problem);
            };
            match destinations.iter().find(|of| of.name.as_str() == wanted) {
                None => fault("is not a configured destination".to_owned()),
                Some(of) if found.contains(&of.name) => fault("is listed twice".to_owned()),
                Some(of) => {
                    if !of.enabled {
                        let text = format!(
                            "destinations.{wanted} is not enabled, so the route answers 503"
                        );
                        root.warn(&key(".destinations"), &text);
                    }
                    found.push(of.name.clone());
                }
            }
        }
        let own = destinations
            .iter()
            .filter_map(|of| Some((format!("destinations.{}", of.name), of.segment.as_ref()?)));
        let before = routes.iter().map(|of| (format!("routes.{}", of.name), &of.segment));
        let shares_a_key = |(_, other): &(String, &SegmentSection)| {
            other
                .credentials
                .write_keys
                .iter()
                .any(|key| segment.credentials.write_keys.contains(key))
        };
        if let Some((other, _)) = own.chain(before).find(shares_a_key) {
            let problem = format!(
                "shares a key with {other}; a write key must identify one destination or route"
            );
            root.fault(&key(".segment.write_keys"), None, problem);
        }
        routes.push(Route { name, destinations: found, segment });
    }
    routes
}

//! `[destinations.<name>]`: one LaunchDarkly environment, and who may post to it.

use super::delivery::Delivery;
use super::guard;
use super::launchdarkly::LaunchDarklySection;
use super::mapping::{self, Expiries};
use super::section::Section;
use super::segment::SegmentSection;
use crate::ledger::GuardLimits;
use crate::map::Mappings;
use crate::membership::DestinationName;

/// One LaunchDarkly environment, and who may post to it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name, which is also the last part of the path Segment posts to.
    pub name: DestinationName,
    /// Whether it accepts events and is delivered; a disabled destination is checked too.
    pub enabled: bool,
    /// Who may post to it. `None`: it has no path of its own, and its events come through routes.
    pub segment: Option<SegmentSection>,
    /// The environment its members go to.
    pub launchdarkly: LaunchDarklySection,
    /// How events become members.
    pub mappings: Mappings,
    /// How long after its event time an entry expires, in the audiences where it does.
    pub expires_after: Expiries,
    /// How batches are made and sent.
    pub delivery: Delivery,
    /// When the guard holds an audience.
    pub guard: GuardLimits,
}

/// Reads every destination, sorted by name; `is_routed` tells whether a route names a destination.
pub(super) fn read_all(
    root: &mut Section<'_>,
    delivery: &Delivery,
    is_routed: impl Fn(&str) -> bool,
) -> Vec<Destination> {
    let has_section = root.has("destinations");
    let mut section = root.section("destinations");
    let sections = section.sections();
    if sections.is_empty() && (!has_section || root.is_clean_elsewhere("destinations")) {
        root.missing(
            "destinations.<name>.launchdarkly.client_side_id",
            None,
            " and the keys beside it: a destination is one LaunchDarkly environment, and at least \
             one is needed; config/example.toml shows one",
        );
    }
    let mut destinations: Vec<Destination> = Vec::new();
    for (name, below) in sections {
        let parsed = parse_name(&name);
        if parsed.is_none() {
            let problem = "is not a valid name for a destination: expected [a-z0-9_]+ without two \
                           underscores in a row";
            section.fault(&name, None, problem);
        }
        let twin = |read: &Destination| {
            destinations.iter().find(|d| d.launchdarkly.is_same_environment(&read.launchdarkly))
        };
        let read = read_one(parsed, below, delivery, is_routed(&name));
        if let Some(twin) = read.as_ref().and_then(twin) {
            let problem =
                format!("names the same environment as destinations.{}; drop one", twin.name);
            section.fault(&format!("{name}.launchdarkly.client_side_id"), None, problem);
        }
        let shares_a_key = |read: &Destination| {
            let keys = &read.segment.as_ref()?.credentials.write_keys;
            let shares = |of: &SegmentSection| {
                of.credentials.write_keys.iter().any(|key| keys.contains(key))
            };
            destinations.iter().find(|other| other.segment.as_ref().is_some_and(shares))
        };
        if let Some(other) = read.as_ref().and_then(shares_a_key) {
            let problem = format!(
                "shares a key with destinations.{}; a write key must identify one destination",
                other.name
            );
            section.fault(&format!("{name}.segment.write_keys"), None, problem);
        }
        destinations.extend(read);
    }
    if !destinations.is_empty() && !destinations.iter().any(|destination| destination.enabled) {
        root.warn("destinations", "none is enabled");
    }
    destinations
}

/// Reads a destination and reports all of its faults; `None` if its name is invalid.
fn read_one(
    name: Option<DestinationName>,
    mut section: Section<'_>,
    delivery: &Delivery,
    is_routed: bool,
) -> Option<Destination> {
    let enabled = section.flag("enabled").unwrap_or(true);
    let has_path = section.has("segment") || !is_routed;
    let segment = section.section("segment");
    let segment = has_path.then(|| SegmentSection::read(segment));
    let launchdarkly = LaunchDarklySection::read(section.section("launchdarkly"));
    let (mappings, expires_after) = mapping::read_all(&mut section);
    let delivery = Delivery::read(section.section("delivery"), Some(delivery));
    let guard = guard::read(section.section("guard"));
    section.finish();
    Some(Destination {
        name: name?,
        enabled,
        segment,
        launchdarkly,
        mappings,
        expires_after,
        delivery,
        guard,
    })
}

/// Parses a destination's or route's name. Two underscores in a row are illegal, since they separate levels
/// in the names of environment variables.
pub(super) fn parse_name(name: &str) -> Option<DestinationName> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let usable = name.chars().all(legal) && !name.contains("__");
    if usable { DestinationName::new(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::parse_name;

    #[test]
    fn names_fit_into_a_path_and_a_variable() {
        for name in ["production", "eu_2", "_x_", "7"] {
            assert!(parse_name(name).is_some(), "{name}");
        }
        for name in ["", "Production", "eu-west", "a__b", "a.b", "ü", "a b"] {
            assert!(parse_name(name).is_none(), "{name}");
        }
    }
}

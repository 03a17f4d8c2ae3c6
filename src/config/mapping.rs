//! `[destinations.<name>.mapping]`, or several `[[destinations.<name>.mapping]]`: which events become
//! members, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::listeners::A_YEAR_S;
use super::section::{Section, choose};
use super::source::quoted;
use crate::json::exact::Exact;
use crate::map::{
    AudienceOverride, AudienceRules, ContextKeyRule, Glob, Mapping, MappingFault, Mappings,
    MembershipRule, Subscription,
};
use crate::membership::{AudienceKey, ContextKind};
use crate::nearest::nearest;

const MEMBERSHIPS: [(&str, MembershipRule); 2] =
    [("strict", MembershipRule::Strict), ("reference", MembershipRule::Reference)];
const WITHOUT_VALUE: [(&str, bool); 2] = [("enter", true), ("reject", false)];

/// Fields that Segment's editor writes and that mean nothing to this daemon.
const SEGMENTS_OWN: [&str; 4] =
    ["batch_size", "batch_keys", "__segment_internal_sync_mode", "__segment_internal_matching_key"];

/// How long after its event time an entry expires, for the audiences where it does, by their keys.
pub type Expiries = BTreeMap<AudienceKey, Duration>;

/// Reads the mappings of a destination, and which entries expire. If there is only one mapping, its
/// subscription and its file may also be set in `destination` itself.
pub(super) fn read_all(destination: &mut Section<'_>) -> (Mappings, Expiries) {
    let sections = destination.one_or_more("mapping");
    for key in ["mapping_file", "subscribe"].into_iter().filter(|key| destination.has(key)) {
        match &sections[..] {
            [alone] if alone.has(key) => {
                let problem = format!("is set, and so is {}: keep one of them", alone.path_of(key));
                destination.fault(key, None, problem);
            }
            [_] => {}
            _ => {
                let problem = "belongs in one of the mappings, because there are several";
                destination.fault(key, None, problem);
            }
        }
    }
    let mut beside = Mapping::preset();
    read_source(destination, &mut beside);
    let read = |section| read(section, beside.clone());
    let (enabled, expiries): (Vec<Mapping>, Vec<Expiries>) =
        sections.into_iter().filter_map(read).unzip();
    if enabled.is_empty() && destination.is_clean() {
        destination.warn("mapping", "no mapping is enabled: every event is ignored");
    }
    (Mappings::new(enabled), of_all(expiries, destination))
}

/// The expiries of all mappings together: an audience is one, whichever mapping reads its events.
fn of_all(each: Vec<Expiries>, destination: &Section<'_>) -> Expiries {
    let mut all = Expiries::new();
    for (audience, after) in each.into_iter().flatten() {
        let known = *all.entry(audience.clone()).or_insert(after);
        if known != after {
            let problem = format!(
                "sets expires_after_s of audience {:?} to {} and to {}: an audience has one",
                audience.as_str(),
                known.as_secs(),
                after.as_secs()
            );
            destination.fault("mapping", None, problem);
        }
    }
    all
}

/// Reads a mapping and reports its faults; `None` if it is disabled. The defaults are those of Segment's
/// [hosted integration](crate::design::segment::sync_audience), except for deliberate
/// [deviations](crate::design::segment::deviations).
fn read(mut section: Section<'_>, mut mapping: Mapping) -> Option<(Mapping, Expiries)> {
    let enabled = section.flag("enabled").unwrap_or(true);
    read_source(&mut section, &mut mapping);
    for name in Mapping::field_names() {
        if let Some(json) = section.json(name) {
            set_field(&mut mapping, &section, name, (name, &json));
        }
    }
    mapping.set_membership(
        section.choice("membership", &MEMBERSHIPS).unwrap_or(MembershipRule::Strict),
        section.choice("journey_step_without_value", &WITHOUT_VALUE).unwrap_or(true),
    );
    let (overrides, expiries) = audiences(section.section("audiences"));
    mapping.set_audiences(AudienceRules {
        allow: globs(&mut section, "allow_audiences"),
        deny: globs(&mut section, "deny_audiences"),
        overrides,
    });
    if let Some(MappingFault { path, problem }) = mapping.doubt().filter(|_| enabled) {
        section.warn(&path, &problem);
    }
    section.finish();
    enabled.then_some((mapping, expiries))
}

/// Reads what was written in Segment's editor: a file with the fields, and the subscription.
fn read_source(section: &mut Section<'_>, mapping: &mut Mapping) {
    let mut written = None;
    if let Some(named) = section.path("mapping_file") {
        let path = &named.path;
        let read = section.read_text("mapping_file", path);
        let text = read.map_err(|error| named.cannot_be_read(&error));
        match text.and_then(|text| pasted(&text)) {
            Ok(Pasted { fields, subscribe }) => {
                written = subscribe.map(|statement| ("mapping_file", statement));
                for field in fields.iter().filter(|(name, _)| !is_segments_own(name)) {
                    if Mapping::is_unknown(field.0) {
                        warn_of_unknown(section, field.0);
                    } else {
                        set_field(mapping, section, "mapping_file", field);
                    }
                }
            }
            Err(problem) => section.fault("mapping_file", Some(quoted(path)), problem),
        }
    }
    let here = section.text("subscribe").map(|statement| ("subscribe", statement));
    if let Some((key, statement)) = here.or(written) {
        match Subscription::parse(&statement) {
            Ok(subscription) => mapping.subscribe(subscription),
            Err(fault) => section.fault(key, None, fault.to_string()),
        }
    }
}

fn is_segments_own(name: &str) -> bool {
    SEGMENTS_OWN.contains(&name)
}

/// Only warns: the mapping may come from a newer version of the action, but it may also be a typing
/// mistake.
fn warn_of_unknown(section: &Section<'_>, name: &str) {
    let known: Vec<&str> = Mapping::field_names().collect();
    let hint =
        nearest(name, &known).map_or_else(String::new, |known| format!("; did you mean {known}?"));
    section.warn(
        "mapping_file",
        &format!("{name} is not a field of the action, and is ignored{hint}"),
    );
}

fn set_field(
    mapping: &mut Mapping,
    section: &Section<'_>,
    key: &str,
    (name, json): (impl AsRef<str>, &Value),
) {
    let name = name.as_ref();
    if let Some((shown, problem)) = literal_fault(name, json) {
        section.fault(key, Some(shown), problem);
    } else if let Err(faults) = mapping.set_field(name, json) {
        for fault in faults {
            section.fault(key, None, fault.to_string());
        }
    } else {
        for doubt in Mapping::doubts(name, json) {
            section.warn(key, &doubt.to_string());
        }
    }
}

/// The fault of a literal text with which every event would be rejected; reported at start-up instead.
fn literal_fault(name: &str, json: &Value) -> Option<(String, String)> {
    let text = json.as_str()?;
    let problem = match name {
        "context_kind" => context_kind(text).err(),
        "context_key" => context_key(text).err(),
        _ => None,
    };
    problem.map(|problem| (format!("{text:?}"), problem))
}

fn context_kind(text: &str) -> Result<ContextKind, String> {
    let problem = "must be letters, digits, `.`, `_` and `-`, and neither `kind` nor `multi`";
    ContextKind::new(text).ok_or_else(|| problem.to_owned())
}

fn context_key(text: &str) -> Result<ContextKeyRule, String> {
    choose(text, &ContextKeyRule::ALL.map(|rule| (rule.name(), rule)))
}

/// A mapping as Segment shows it: its fields, with or without the subscription.
struct Pasted {
    fields: Map<String, Value>,
    subscribe: Option<String>,
}

fn pasted(text: &str) -> Result<Pasted, String> {
    let json = Exact::read(text.as_bytes()).map_err(|error| {
        format!("is not JSON at line {}, column {}", error.line(), error.column())
    })?;
    let Value::Object(mut outer) = json.into_texts() else {
        return Err("must contain a JSON object with the fields of the mapping".to_owned());
    };
    let Some(inner) = outer.remove("mapping") else {
        return Ok(Pasted { fields: outer, subscribe: None });
    };
    let Value::Object(fields) = inner else {
        return Err("must contain an object under \"mapping\"".to_owned());
    };
    let subscribe = ["subscribe", "trigger"].iter().find_map(|key| outer.get(*key)?.as_str());
    Ok(Pasted { fields, subscribe: subscribe.map(str::to_owned) })
}

fn globs(section: &mut Section<'_>, key: &'static str) -> Vec<Glob> {
    let mut globs = Vec::new();
    for pattern in section.list(key).unwrap_or_default() {
        match Glob::new(&pattern) {
            Ok(glob) => globs.push(glob),
            Err(fault) => section.fault(key, Some(format!("{pattern:?}")), fault.to_string()),
        }
    }
    globs
}

/// `[….audiences.<audience key>]`
fn audiences(mut section: Section<'_>) -> (BTreeMap<String, AudienceOverride>, Expiries) {
    let mut expiries = Expiries::new();
    let read = |(name, mut section): (String, Section<'_>)| {
        let particular = AudienceOverride {
            context_kind: section.parsed("context_kind", context_kind),
            context_key: section.parsed("context_key", context_key),
        };
        let expires_after_s = section.whole("expires_after_s", 1..=10 * A_YEAR_S);
        if let Some((audience, seconds)) = AudienceKey::new(&name).zip(expires_after_s) {
            expiries.insert(audience, Duration::from_secs(seconds));
        }
        section.finish();
        (name, particular)
    };
    let overrides = section.sections().into_iter().map(read).collect();
    (overrides, expiries)
}

//! `[destinations.<name>.mapping]`: how events become members.

use super::section::Section;
use crate::map::{ContextKeyRule, MappingSettings, MembershipRule};
use crate::membership::ContextKind;

const CONTEXT_KEYS: [(&str, ContextKeyRule); 5] = [
    ("user_id_only", ContextKeyRule::UserIdOnly),
    ("email_only", ContextKeyRule::EmailOnly),
    ("user_id_then_email", ContextKeyRule::UserIdThenEmail),
    ("user_id_then_anonymousId", ContextKeyRule::UserIdThenAnonymousId),
    ("user_id_then_email_then_anonymousId", ContextKeyRule::UserIdThenEmailThenAnonymousId),
];
const MEMBERSHIPS: [(&str, MembershipRule); 2] =
    [("strict", MembershipRule::Strict), ("reference", MembershipRule::Reference)];
const WITHOUT_VALUE: [(&str, bool); 2] = [("reject", false), ("enter", true)];

/// The word for a rule in the configuration, for people.
#[must_use]
pub fn context_key_word(rule: ContextKeyRule) -> &'static str {
    CONTEXT_KEYS.iter().find(|(_, known)| *known == rule).map_or("", |(word, _)| word)
}

/// Reads the section; the defaults are those of Segment's hosted integration (wire.md, section 2),
/// except where wire.md, section 4 deviates on purpose.
pub(super) fn read(mut section: Section<'_>) -> MappingSettings {
    let kind = |text: &str| {
        let problem = "must be letters, digits, `.`, `_` and `-`, and neither `kind` nor `multi`";
        ContextKind::new(text).ok_or_else(|| problem.to_owned())
    };
    let default_kind = || ContextKind::new("user").expect("`user` is a context kind");
    let settings = MappingSettings {
        context_kind: section.parsed("context_kind", kind).unwrap_or_else(default_kind),
        context_key: section
            .choice("context_key", &CONTEXT_KEYS)
            .unwrap_or(ContextKeyRule::UserIdOnly),
        membership: section.choice("membership", &MEMBERSHIPS).unwrap_or(MembershipRule::Strict),
        journey_step_without_value_enters: section
            .choice("journey_step_without_value", &WITHOUT_VALUE)
            .unwrap_or(false),
    };
    section.finish();
    settings
}

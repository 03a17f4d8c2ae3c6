//! The rules of a mapping that apply to some audiences only, selected by audience key.

use std::collections::BTreeMap;

use super::context_key::ContextKeyRule;
use super::glob::Glob;
use crate::membership::{AudienceKey, ContextKind};

/// Which audiences a mapping accepts, and what is different for some of them.
#[derive(Clone, Debug, Default)]
pub struct AudienceRules {
    /// Only audiences that match one of these; empty: all.
    pub allow: Vec<Glob>,
    /// No audience that matches one of these, even if it is allowed.
    pub deny: Vec<Glob>,
    /// By exact audience key.
    pub overrides: BTreeMap<String, AudienceOverride>,
}

/// What applies to one audience instead of the mapping's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AudienceOverride {
    /// The kind of the audience's contexts.
    pub context_kind: Option<ContextKind>,
    /// The rule that chooses the audience's context keys.
    pub context_key: Option<ContextKeyRule>,
}

impl AudienceRules {
    pub(super) fn admit(&self, audience: &AudienceKey) -> bool {
        let among = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(audience.as_str()));
        (self.allow.is_empty() || among(&self.allow)) && !among(&self.deny)
    }

    pub(super) fn override_of(&self, audience: &AudienceKey) -> Option<&AudienceOverride> {
        self.overrides.get(audience.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_are_out_even_if_allowed() {
        let globs =
            |patterns: &[&str]| patterns.iter().map(|p| Glob::new(p).expect("a glob")).collect();
        let rows: [(&[&str], &[&str], &str, bool); 7] = [
            (&[], &[], "vip", true),
            (&["vip"], &[], "vip", true),
            (&["v*"], &[], "vip", true),
            (&["V*"], &[], "vip", false),
            (&["test_*", "b?ta"], &[], "beta", true),
            (&[], &["test_*"], "test_1", false),
            (&["*"], &["vip"], "vip", false),
        ];
        for (allow, deny, key, expected) in rows {
            let rules =
                AudienceRules { allow: globs(allow), deny: globs(deny), ..Default::default() };
            let key = AudienceKey::new(key).expect("not empty");
            assert_eq!(rules.admit(&key), expected, "{allow:?} {deny:?} {key:?}");
        }
    }
}

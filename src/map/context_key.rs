//! Which identifier of a person becomes the context key.

use std::borrow::Cow;

use super::fields::Field;

/// The rule named by the mapping's field `context_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKeyRule {
    /// `user_id_only`
    UserIdOnly,
    /// `email_only`
    EmailOnly,
    /// `user_id_then_email`
    UserIdThenEmail,
    /// `user_id_then_anonymousId`
    UserIdThenAnonymousId,
    /// `user_id_then_email_then_anonymousId`
    UserIdThenEmailThenAnonymousId,
}

/// The identifiers of a person in an event; one that is present is not empty.
#[derive(Default)]
pub(super) struct Identifiers<'a> {
    pub(super) user_id: Option<Cow<'a, str>>,
    pub(super) email: Option<Cow<'a, str>>,
    pub(super) anonymous_id: Option<Cow<'a, str>>,
}

impl ContextKeyRule {
    /// Every rule, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::UserIdOnly,
        Self::EmailOnly,
        Self::UserIdThenEmail,
        Self::UserIdThenAnonymousId,
        Self::UserIdThenEmailThenAnonymousId,
    ];

    /// The rule of this name, spelled exactly as in Segment's mapping editor.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// The rule's name in the mapping.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserIdOnly => "user_id_only",
            Self::EmailOnly => "email_only",
            Self::UserIdThenEmail => "user_id_then_email",
            Self::UserIdThenAnonymousId => "user_id_then_anonymousId",
            Self::UserIdThenEmailThenAnonymousId => "user_id_then_email_then_anonymousId",
        }
    }

    /// Part of the `key_rule` stored with every member, by which members of an older rule are recognised:
    /// never renumber.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::UserIdOnly => 1,
            Self::EmailOnly => 2,
            Self::UserIdThenEmail => 3,
            Self::UserIdThenAnonymousId => 4,
            Self::UserIdThenEmailThenAnonymousId => 5,
        }
    }

    /// The mapping fields that the rule looks at, for use in a sentence.
    pub(super) fn looks_at(self) -> &'static str {
        match self {
            Self::UserIdOnly => "segment_user_id",
            Self::EmailOnly => "user_email",
            Self::UserIdThenEmail => "segment_user_id, user_email",
            Self::UserIdThenAnonymousId => "segment_user_id, segment_anonymous_id",
            Self::UserIdThenEmailThenAnonymousId => {
                "segment_user_id, user_email, segment_anonymous_id"
            }
        }
    }

    /// The mapping fields that decide the key and its kind.
    pub(super) fn fields(self) -> &'static [Field] {
        match self {
            Self::UserIdOnly => &[Field::ContextKind, Field::UserId],
            Self::EmailOnly => &[Field::ContextKind, Field::Email],
            Self::UserIdThenEmail => &[Field::ContextKind, Field::UserId, Field::Email],
            Self::UserIdThenAnonymousId => &[Field::ContextKind, Field::UserId, Field::AnonymousId],
            Self::UserIdThenEmailThenAnonymousId => {
                &[Field::ContextKind, Field::UserId, Field::Email, Field::AnonymousId]
            }
        }
    }

    /// The first identifier of the rule's order that is present, and the mapping field that it comes from.
    pub(super) fn choose<'a>(self, from: &'a Identifiers<'_>) -> Option<(Field, &'a str)> {
        let user_id = from.user_id.as_deref().map(|text| (Field::UserId, text));
        let email = from.email.as_deref().map(|text| (Field::Email, text));
        let anonymous_id = from.anonymous_id.as_deref().map(|text| (Field::AnonymousId, text));
        match self {
            Self::UserIdOnly => user_id,
            Self::EmailOnly => email,
            Self::UserIdThenEmail => user_id.or(email),
            Self::UserIdThenAnonymousId => user_id.or(anonymous_id),
            Self::UserIdThenEmailThenAnonymousId => user_id.or(email).or(anonymous_id),
        }
    }
}

/// Whether a context key, audience id or audience key still contains the braces of an unrendered template.
/// Such a text is the same for many people or audiences, or is an id that nobody else knows. JSON may close
/// two objects at once, and single braces may be those of a GUID, so neither counts.
pub(super) fn has_template_braces(key: &str) -> bool {
    // A fold over all bytes without early exit is faster for keys, which hardly ever contain a brace.
    let is_brace = |byte: u8| matches!(byte, b'{' | b'}');
    if !key.bytes().fold(false, |found, byte| found | is_brace(byte)) {
        return false;
    }
    let count = |brace: char| key.matches(brace).count();
    key.contains("{{") || (key.contains("}}") && count('}') > count('{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_of_a_template_are_told_from_others() {
        let rows = [
            ("ada", false),
            ("{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", false),
            ("{a}", false),
            ("a}", false),
            (r#"{"a":{"b":1}}"#, false),
            ("{{traits.crm_id}", true),
            ("{{traits.crm_id}}", true),
            ("{traits.crm_id}}", true),
            ("crm-{{", true),
            ("ada}}", true),
            ("żółć {{ x", true),
        ];
        for (key, expected) in rows {
            assert_eq!(has_template_braces(key), expected, "{key}");
        }
    }

    /// Columns: every combination of user id (u), email (e) and anonymous id (a).
    #[test]
    fn the_first_identifier_that_is_there_is_the_key() {
        let who = ["", "a", "e", "ea", "u", "ua", "ue", "uea"];
        let rows = [
            (ContextKeyRule::UserIdOnly, ["", "", "", "", "u", "u", "u", "u"]),
            (ContextKeyRule::EmailOnly, ["", "", "e", "e", "", "", "e", "e"]),
            (ContextKeyRule::UserIdThenEmail, ["", "", "e", "e", "u", "u", "u", "u"]),
            (ContextKeyRule::UserIdThenAnonymousId, ["", "a", "", "a", "u", "u", "u", "u"]),
            (
                ContextKeyRule::UserIdThenEmailThenAnonymousId,
                ["", "a", "e", "e", "u", "u", "u", "u"],
            ),
        ];
        for (rule, expected) in rows {
            for (present, key) in who.into_iter().zip(expected) {
                let take =
                    |name: &'static str| present.contains(name).then_some(Cow::Borrowed(name));
                let identifiers =
                    Identifiers { user_id: take("u"), email: take("e"), anonymous_id: take("a") };
                let chosen = rule.choose(&identifiers).map_or("", |(_, text)| text);
                assert_eq!(chosen, key, "{rule:?} of {present:?}");
            }
        }
    }

    #[test]
    fn names_and_numbers_are_stable() {
        let rows = [
            ("user_id_only", 1),
            ("email_only", 2),
            ("user_id_then_email", 3),
            ("user_id_then_anonymousId", 4),
            ("user_id_then_email_then_anonymousId", 5),
        ];
        for (name, number) in rows {
            assert_eq!(ContextKeyRule::from_name(name).map(ContextKeyRule::number), Some(number));
        }
        for name in ["", "USER_ID_ONLY", "user_id_then_anonymousid", "5"] {
            assert_eq!(ContextKeyRule::from_name(name), None, "{name}");
        }
    }
}

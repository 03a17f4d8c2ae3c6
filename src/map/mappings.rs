//! All mappings of one destination: an event goes through each mapping that selects it.

use serde_json::Value;

use super::coercion::{self, Unfit};
use super::event_time::{Doubt, EventTime};
use super::message::Named;
use super::plain::Plain;
use super::rejection::{Reason, Rejection};
use super::{Event, Mapping, message, not_an_event, not_an_object};
use crate::membership::{AudienceKey, Deletion, MembershipDelta, Timestamp, UserId};

/// The result of mapping one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It changes memberships.
    Accepted {
        /// One for each mapping that could read the event, in the order of the mappings: if two concern the
        /// same member, the later one wins. At least one.
        deltas: Vec<MembershipDelta>,
        /// Why the mappings that select the event but could not read it rejected it.
        rejection: Option<Rejection>,
    },
    /// A privacy deletion of a person.
    Deletion(Deletion),
    /// An event of Segment that no mapping selects.
    Ignored,
    /// An event that should have changed a membership but cannot, or something that is not an event of
    /// Segment.
    Rejected(Rejection),
}

/// The mappings of a destination, in the order of the configuration.
///
/// ```
/// use cohortd::map::{Mapping, Mappings, Outcome};
/// use cohortd::membership::{Membership, Timestamp};
///
/// let mappings = Mappings::new(vec![Mapping::preset()]);
/// let event = serde_json::json!({
///     "type": "identify",
///     "userId": "ada",
///     "traits": { "vip": true },
///     "context": { "personas": {
///         "computation_class": "audience", "computation_id": "aud_1", "computation_key": "vip",
///     } },
/// });
/// let Outcome::Accepted { deltas, .. } = mappings.map(&event, Timestamp(1_750_000_000_000_000)) else {
///     panic!("the preset maps it");
/// };
/// assert_eq!(deltas[0].audience.as_str(), "aud_1");
/// assert_eq!(deltas[0].context_key.as_str(), "ada");
/// assert_eq!(deltas[0].membership, Membership::In);
/// ```
#[derive(Clone, Debug)]
pub struct Mappings {
    all: Vec<Mapping>,
    /// The fast path of the only mapping, if that is simple enough.
    plain: Option<Plain>,
}

impl Mappings {
    /// Takes the enabled mappings; without any, every event but a deletion is ignored.
    #[must_use]
    pub fn new(mappings: Vec<Mapping>) -> Self {
        let plain = match &mappings[..] {
            [only] => Plain::of(only),
            _ => None,
        };
        Self { all: mappings, plain }
    }

    /// The mappings one by one.
    #[must_use]
    pub fn all(&self) -> &[Mapping] {
        &self.all
    }

    /// Every `key_rule` that these mappings can give a member of this audience; a member with any other
    /// `key_rule` is left over from an older mapping.
    #[must_use]
    pub fn key_rules(&self, audience: &AudienceKey) -> Vec<u32> {
        self.all.iter().flat_map(|mapping| mapping.key_rules(audience)).collect()
    }

    /// The delta of an event of the usual form, read from its text at a fraction of the cost. `None`: parse
    /// the whole event and [`Mappings::map`] it.
    #[must_use]
    pub fn map_plain(&self, text: &[u8], arrival: Timestamp) -> Option<MembershipDelta> {
        self.plain.as_ref()?.delta(self.all.first()?, text, arrival)
    }

    /// The result of mapping an event that arrived at `arrival`.
    ///
    /// Deletions do not depend on subscriptions: none may keep a person's data alive.
    #[must_use]
    pub fn map<'a>(&self, event: impl Into<Event<'a>>, arrival: Timestamp) -> Outcome {
        let event = event.into();
        if !event.texts.is_object() {
            return Outcome::Rejected(not_an_object());
        }
        if event.texts.get("type").and_then(Value::as_str) == Some("delete") {
            return deletion(event, arrival);
        }
        let mut deltas = Vec::new();
        let mut rejection: Option<Rejection> = None;
        for mapping in &self.all {
            match mapping.map(event, arrival) {
                Ok(delta) => deltas.extend(delta),
                Err(other) => {
                    rejection = Some(match rejection {
                        Some(rejection) => rejection.and(other),
                        None => other,
                    });
                }
            }
        }
        match (deltas.is_empty(), rejection) {
            (false, rejection) => {
                name_message(&mut deltas, event, arrival);
                Outcome::Accepted { deltas, rejection }
            }
            (true, Some(rejection)) => Outcome::Rejected(rejection),
            (true, None) => {
                self.objection(event.numbers).map_or(Outcome::Ignored, Outcome::Rejected)
            }
        }
    }
}

impl Mappings {
    /// Why an event without a delta is not an event of Segment; `None` if it is one, or if a mapping selects
    /// it.
    fn objection(&self, event: &Value) -> Option<Rejection> {
        let objection = not_an_event::objection(event)?;
        let is_selected = self.all.iter().any(|mapping| mapping.subscription.selects(event));
        (!is_selected).then_some(objection)
    }
}

impl From<Mapping> for Mappings {
    fn from(mapping: Mapping) -> Self {
        Self::new(vec![mapping])
    }
}

/// The user id of an event, taken from where Segment puts it. A deletion names its person there, so no
/// mapping may move it.
#[must_use]
pub fn user_id<'a>(event: impl Into<Event<'a>>) -> Option<UserId> {
    let text = coercion::text(event.into().texts.get("userId")?).ok()??;
    UserId::new(&text)
}

/// When an event that arrived at `arrival` happened, as far as it can be believed ([P2](crate::design::P2)).
#[must_use]
pub fn happened_at<'a>(event: impl Into<Event<'a>>, arrival: Timestamp) -> Timestamp {
    event.into().time(arrival).at
}

/// Why the time stated by an event does not count; `None` if it does.
#[must_use]
pub fn doubt_of<'a>(event: impl Into<Event<'a>>, arrival: Timestamp) -> Option<Doubt> {
    event.into().time(arrival).doubt.map(|(_, doubt)| doubt)
}

/// Sets the message of an event's deltas, if the message has to be recognised when it comes again, and has an
/// id.
pub fn name_message<'a>(
    deltas: &mut [MembershipDelta],
    event: impl Into<Event<'a>>,
    arrival: Timestamp,
) {
    if let Some(message) = message_of(event, arrival) {
        for delta in deltas {
            delta.message = Some(message.saying(delta));
        }
    }
}

/// The message for [`name_message`]; `None` if it need not be recognised or has no id.
pub(super) fn message_of<'a>(event: impl Into<Event<'a>>, arrival: Timestamp) -> Option<Named<'a>> {
    let event = event.into();
    let EventTime { moves, may_have_moved, .. } = event.time(arrival);
    if !moves && !may_have_moved {
        return None;
    }
    Some(Named { id: message::id(event.texts)?, moves })
}

/// A deletion takes effect as of its request: one that is repeated, or late, does not undo a later return.
fn deletion(event: Event<'_>, arrival: Timestamp) -> Outcome {
    let whom = event.texts.get("userId").map_or(Ok(None), coercion::text);
    let (reason, problem) = match whom {
        Ok(text) => match text.as_deref().and_then(UserId::new) {
            Some(user_id) => {
                let event_at = happened_at(event, arrival).min(arrival);
                let message = Some(message::hash_of_deletion(event.texts));
                return Outcome::Deletion(Deletion { user_id, event_at, message });
            }
            None => (Reason::MissingField, "is required and has no value".to_owned()),
        },
        Err(Unfit(found)) => (Reason::InvalidField, format!("must be a string but it is {found}")),
    };
    Outcome::Rejected(Rejection::new(
        reason,
        format!(
            "userId {problem} ($.userId): a deletion names the person there, whatever the mapping says."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::{AudienceOverride, AudienceRules, ContextKeyRule, Glob, Subscription};
    use crate::membership::{ContextKind, Membership};

    const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

    fn mapping(subscribe: &str, fields: &Value) -> Mapping {
        let mut mapping = Mapping::preset();
        mapping.subscribe(Subscription::parse(subscribe).expect("a statement"));
        for (name, json) in fields.as_object().expect("fields") {
            mapping.set_field(name, json).expect("a field of the action");
        }
        mapping
    }

    fn event(kind: &str) -> Value {
        json!({
            "type": kind, "userId": "ada", "groupId": "acme",
            "traits": {"vip": true, "plan": "pro"},
            "context": {"personas": {
                "computation_class": "audience", "computation_id": "aud_1", "computation_key": "vip",
            }},
        })
    }

    /// Context kind, context key and user id of each delta, and the rejection.
    fn mapped(mappings: Vec<Mapping>, event: &Value) -> (Vec<String>, Option<String>) {
        let text = |rejection: Option<Rejection>| rejection.map(|rejection| rejection.to_string());
        let (deltas, rejection) = match Mappings::new(mappings).map(event, ARRIVAL) {
            Outcome::Accepted { deltas, rejection, .. } => (deltas, text(rejection)),
            Outcome::Rejected(rejection) => (Vec::new(), text(Some(rejection))),
            Outcome::Ignored => (Vec::new(), None),
            Outcome::Deletion(_) => panic!("no deletion is in this table"),
        };
        let shown = |delta: MembershipDelta| {
            assert_eq!(delta.membership, Membership::In);
            let person = delta.user_id.as_ref().map_or("nobody", UserId::as_str);
            format!("{} {} {person}", delta.context_kind.as_str(), delta.context_key.as_str())
        };
        (deltas.into_iter().map(shown).collect(), rejection)
    }

    #[test]
    fn an_event_goes_through_every_mapping_that_selects_it() {
        let preset = || mapping("type = 'identify'", &json!({}));
        let plan =
            || mapping("type != 'track'", &json!({"segment_user_id": {"@path": "$.traits.plan"}}));
        let nobody =
            |path: &str| mapping("type = 'identify'", &json!({"segment_user_id": {"@path": path}}));
        let no_key = |at: &str| {
            format!(
                "no_context_key: The context key rule user_id_only found no identifier (looked at \
                 {at}): map one of them, or choose another rule with mapping.context_key."
            )
        };
        let missing = no_key("segment_user_id");
        let invalid = "invalid_field: segment_user_id must be a string but it is an object \
                       ($.traits): correct mapping.segment_user_id, or the value that is sent \
                       there.";
        let both = format!("{missing} Another mapping says {invalid}");
        let rows = [
            (vec![preset(), plan()], "identify", vec!["user ada ada", "user pro ada"], None),
            (vec![plan(), preset()], "identify", vec!["user pro ada", "user ada ada"], None),
            (vec![preset(), plan()], "page", vec!["user pro ada"], None),
            (vec![preset(), plan()], "track", vec![], None),
            (vec![preset(), nobody("$.no")], "identify", vec!["user ada ada"], Some(&missing[..])),
            (vec![nobody("$.no"), nobody("$.no")], "identify", vec![], Some(&missing)),
            (vec![nobody("$.no"), nobody("$.traits")], "identify", vec![], Some(&both)),
            (vec![], "identify", vec![], None),
        ];
        for (mappings, kind, deltas, rejection) in rows {
            let (found, reason) = mapped(mappings, &event(kind));
            assert_eq!(
                (found, reason.as_deref()),
                (deltas.into_iter().map(str::to_owned).collect(), rejection)
            );
        }
    }

    #[test]
    fn a_group_call_is_an_account_and_nobodys_deletion() {
        let fields = json!({"segment_user_id": {"@path": "$.groupId"}, "context_kind": "account"});
        let accounts = mapping("type = 'group'", &fields);
        let (found, _) = mapped(vec![accounts], &event("group"));
        assert_eq!(found, ["account acme nobody"]);
    }

    #[test]
    fn an_audience_may_be_left_out_or_have_its_own_kind_and_key() {
        let anonymous = json!({"segment_anonymous_id": "anon"});
        let rules = |allow: &str, particular: AudienceOverride| AudienceRules {
            allow: vec![Glob::new(allow).expect("a glob")],
            deny: Vec::new(),
            overrides: [("vip".to_owned(), particular)].into(),
        };
        let device = AudienceOverride {
            context_kind: ContextKind::new("device"),
            context_key: Some(ContextKeyRule::UserIdThenAnonymousId),
        };
        let mut event = event("identify");
        event["userId"] = Value::Null;
        for (allow, particular, expected) in [
            ("v*", device.clone(), vec!["device anon nobody".to_owned()]),
            // The audience is left out before a missing field is noticed.
            ("w*", AudienceOverride::default(), vec![]),
        ] {
            let mut mapping = mapping("type = 'identify'", &anonymous);
            mapping.set_audiences(rules(allow, particular));
            assert_eq!(mapped(vec![mapping], &event), (expected, None));
        }
    }
}

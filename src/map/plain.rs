//! The fast path: reads an event of Segment's usual form, under a mapping that takes every field from where
//! Segment puts it, directly from its text and without building a tree.
//!
//! It returns a delta only if every part has its usual form. Otherwise it returns `None`, and the event is
//! parsed and goes through [`super::Mapping::map`], which alone decides what is rejected and why. That slow
//! path is the specification of this one.
//!
//! # What always holds
//! * A delta of this path is also the delta of the slow path (`tests::both_ways_agree`).

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::context_key::{ContextKeyRule, Identifiers, has_template_braces};
use super::event_time::{Written, event_time};
use super::fields::Field;
use super::length::{KEY_BYTES, NAME_BYTES};
use super::membership_value::ComputationClass;
use super::message::{MESSAGE_ID, Named};
use super::{Mapping, preset};
use crate::json;
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Membership, MembershipDelta, Timestamp,
    UserId,
};

/// A mapping that differs from the preset in nothing but a constant context kind and context key rule.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    context_kind: ContextKind,
    rule: ContextKeyRule,
}

impl Plain {
    /// `None` if the mapping says more than that.
    pub(super) fn of(mapping: &Mapping) -> Option<Self> {
        let named = [Field::ContextKind, Field::ContextKey];
        if mapping.subscription != preset::subscription() || !mapping.fields.are_preset_but(&named)
        {
            return None;
        }
        let literal = |field| mapping.fields.literal(field);
        Some(Self {
            context_kind: literal(Field::ContextKind)
                .filter(|kind| kind.len() <= NAME_BYTES)
                .and_then(ContextKind::new)?,
            rule: literal(Field::ContextKey).and_then(ContextKeyRule::from_name)?,
        })
    }

    /// The delta of an event. `None` if `mapping`, from which this was made, has to read the whole event.
    pub(super) fn delta(
        &self,
        mapping: &Mapping,
        text: &[u8],
        arrival: Timestamp,
    ) -> Option<MembershipDelta> {
        let text = str::from_utf8(text).ok()?; // validates UTF-8 once, not text by text
        let Object(event) = json::from_str::<Object<Event<'_>>>(text).ok()?;
        if !matches!(event.kind.text()?, "identify" | "track") {
            return None;
        }
        let context = event.context.0.as_ref()?;
        let personas = context.personas.0.as_ref()?;
        ComputationClass::from_name(personas.class.text()?)?; // both classes are read by their value
        let (id, key) = (personas.id.text()?, personas.key.text()?);
        if id.len() > NAME_BYTES || key.len() > NAME_BYTES {
            return None;
        }
        if has_template_braces(id) || has_template_braces(key) {
            return None;
        }
        let (audience, audience_key) = (AudienceId::new(id)?, AudienceKey::new(key)?);
        if !mapping.audiences.admit(&audience_key) {
            return None;
        }
        let particular = mapping.audiences.override_of(&audience_key);
        let user_id = event.user_id.identifier()?;
        let first = event.traits.email().identifier()?;
        let email = if first.is_some() { first } else { context.traits.email().identifier()? };
        let anonymous_id = event.anonymous_id.identifier()?;
        let identifiers = Identifiers {
            user_id: user_id.map(Cow::Borrowed),
            email: email.map(Cow::Borrowed),
            anonymous_id: anonymous_id.map(Cow::Borrowed),
        };
        let rule = particular.and_then(|particular| particular.context_key).unwrap_or(self.rule);
        let (_, context_key) = rule.choose(&identifiers)?;
        let longest = context_key.len().max(user_id.map_or(0, str::len));
        if longest > KEY_BYTES || has_template_braces(context_key) {
            return None;
        }
        let context_key = ContextKey::new(context_key)?;
        let user_id = match user_id {
            Some(user_id) if user_id == context_key.as_str() => {
                Some(UserId::from(context_key.clone()))
            }
            user_id => user_id.and_then(UserId::new),
        };
        let values = event.properties.0.as_ref().or(event.traits.0.as_ref())?;
        let membership = match values.member(audience_key.as_str()) {
            Scalar::Bool(value) => Membership::from_bool(*value),
            _ => return None,
        };
        let times =
            [&event.timestamp, &event.original_timestamp, &event.received_at, &event.sent_at];
        if !times.into_iter().all(Scalar::is_text_or_nothing) {
            return None;
        }
        let time = event_time(|field| event.time(field).and_then(Written::of_text), arrival);
        if time.doubt.is_some() {
            return None; // the slow path counts it
        }
        let message = match &event.message_id {
            _ if !time.moves && !time.may_have_moved => None,
            Scalar::Null => None,
            Scalar::Text(id) => {
                (!id.is_empty()).then(|| Named { id: Cow::Borrowed(id), moves: time.moves })
            }
            Scalar::Bool(_) | Scalar::Other => return None,
        };
        let mut delta = MembershipDelta {
            audience,
            context_kind: particular
                .and_then(|particular| particular.context_kind.as_ref())
                .unwrap_or(&self.context_kind)
                .clone(),
            context_key,
            membership,
            event_at: time.at,
            user_id,
            key_rule: mapping.key_rule(rule, particular),
            message: None,
            audience_key,
        };
        delta.message = message.map(|message| message.saying(&delta));
        Some(delta)
    }
}

/// The parts of an event that are read.
#[derive(Default)]
struct Event<'a> {
    kind: Scalar<'a>,
    message_id: Scalar<'a>,
    user_id: Scalar<'a>,
    anonymous_id: Scalar<'a>,
    timestamp: Scalar<'a>,
    original_timestamp: Scalar<'a>,
    received_at: Scalar<'a>,
    sent_at: Scalar<'a>,
    context: Maybe<Context<'a>>,
    traits: Maybe<Traits<'a>>,
    properties: Maybe<Traits<'a>>,
}

impl<'a> Members<'a> for Event<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        match &*key {
            "type" => self.kind = map.next_value()?,
            MESSAGE_ID => self.message_id = map.next_value()?,
            "userId" => self.user_id = map.next_value()?,
            "anonymousId" => self.anonymous_id = map.next_value()?,
            "timestamp" => self.timestamp = map.next_value()?,
            "originalTimestamp" => self.original_timestamp = map.next_value()?,
            "receivedAt" => self.received_at = map.next_value()?,
            "sentAt" => self.sent_at = map.next_value()?,
            "context" => self.context = map.next_value()?,
            "traits" => self.traits = map.next_value()?,
            "properties" => self.properties = map.next_value()?,
            _ => drop(map.next_value::<Scalar<'_>>()?),
        }
        Ok(())
    }
}

impl Event<'_> {
    fn time(&self, field: &str) -> Option<&str> {
        match field {
            "timestamp" => &self.timestamp,
            "originalTimestamp" => &self.original_timestamp,
            "receivedAt" => &self.received_at,
            "sentAt" => &self.sent_at,
            _ => return None,
        }
        .text()
    }
}

#[derive(Default)]
struct Context<'a> {
    personas: Maybe<Personas<'a>>,
    traits: Maybe<Traits<'a>>,
}

impl<'a> Members<'a> for Context<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        match &*key {
            "personas" => self.personas = map.next_value()?,
            "traits" => self.traits = map.next_value()?,
            _ => drop(map.next_value::<Scalar<'_>>()?),
        }
        Ok(())
    }
}

#[derive(Default)]
struct Personas<'a> {
    class: Scalar<'a>,
    id: Scalar<'a>,
    key: Scalar<'a>,
}

impl<'a> Members<'a> for Personas<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        match &*key {
            "computation_class" => self.class = map.next_value()?,
            "computation_id" => self.id = map.next_value()?,
            "computation_key" => self.key = map.next_value()?,
            _ => drop(map.next_value::<Scalar<'_>>()?),
        }
        Ok(())
    }
}

/// All members, in order: the key that names the audience may come later.
#[derive(Default)]
struct Traits<'a>(Vec<(Cow<'a, str>, Scalar<'a>)>);

impl Traits<'_> {
    /// If a key is repeated, its last value counts.
    fn member(&self, key: &str) -> &Scalar<'_> {
        let found = self.0.iter().rev().find(|(name, _)| name == key);
        found.map_or(&Scalar::Null, |(_, value)| value)
    }
}

impl Maybe<Traits<'_>> {
    fn email(&self) -> &Scalar<'_> {
        self.0.as_ref().map_or(&Scalar::Null, |traits| traits.member("email"))
    }
}

impl<'a> Members<'a> for Traits<'a> {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error> {
        self.0.push((key, map.next_value()?));
        Ok(())
    }
}

/// A value, as far as it is needed. The content of lists and objects is parsed as strictly as if it were
/// kept, so that invalid JSON is detected here too.
#[derive(Default)]
enum Scalar<'a> {
    /// Null or absent.
    #[default]
    Null,
    Text(Cow<'a, str>),
    Bool(bool),
    Other,
}

impl Scalar<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_text_or_nothing(&self) -> bool {
        matches!(self, Self::Null | Self::Text(_))
    }

    /// An identifier, or `Some(None)` if there is none. `None`: only the slow path can tell, because the
    /// value may have to be converted.
    #[expect(clippy::option_option, reason = "the outer one is a doubt, the inner one an answer")]
    fn identifier(&self) -> Option<Option<&str>> {
        match self {
            Self::Null => Some(None),
            Self::Text(text) if !text.is_empty() => Some(Some(text)),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar<'de>, A::Error> {
        while items.next_element::<Scalar<'de>>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar<'de>, A::Error> {
        while members.next_entry::<Scalar<'de>, Scalar<'de>>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// Receives the members of an object one by one; a repeated key replaces the earlier value.
trait Members<'a>: Default {
    fn take<A: MapAccess<'a>>(&mut self, key: Cow<'a, str>, map: &mut A) -> Result<(), A::Error>;
}

/// An object, and nothing else.
struct Object<T>(T);

/// An object; null and absent are `None`.
struct Maybe<T>(Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Members<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

impl<'de, T: Members<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(object)| object)))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Members<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut members = T::default();
        while let Some(Key(key)) = map.next_key()? {
            members.take(key, &mut map)?;
        }
        Ok(members)
    }
}

/// The key of a member, borrowed unless it contains escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Text(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a key is a text")),
        }
    }
}

#[cfg(test)]
mod tests;

//! The calls needed to deliver some deltas if nothing else is pending: one for each audience and
//! context kind, in the order of their first deltas. Pure ([P9](crate::design::P9)).
//!
//! Of two deltas for one member, the one with the later event time counts; if the times are equal, the
//! later one in the list, as in the ledger ([P2](crate::design::P2)).

use std::collections::HashMap;

use super::wire::{SyncMember, SyncRequest};
use crate::membership::{AudienceId, ContextKey, ContextKind, MembershipDelta};

/// One call, with at least one member.
pub struct Call {
    deltas: Vec<MembershipDelta>,
}

impl Call {
    /// Its members: one delta for each, all of one audience and context kind.
    #[must_use]
    pub fn deltas(&self) -> &[MembershipDelta] {
        &self.deltas
    }

    /// Its body, for the environment with this client-side ID.
    #[must_use]
    pub fn body<'a>(&'a self, client_side_id: &'a str) -> SyncRequest<'a> {
        let member = |delta: &'a MembershipDelta| SyncMember {
            user_id: delta.context_key.as_str().into(),
            cohort_name: delta.audience_key.segment_name().into(),
            cohort_id: delta.audience.as_str().into(),
            value: delta.membership.as_bool(),
        };
        SyncRequest {
            environment_id: client_side_id.into(),
            context_kind: self.deltas[0].context_kind.as_str().into(),
            batch: self.deltas.iter().map(member).collect(),
        }
    }
}

/// The calls for these deltas.
#[must_use]
pub fn calls(deltas: impl IntoIterator<Item = MembershipDelta>) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut call_of: HashMap<(AudienceId, ContextKind), usize> = HashMap::new();
    let mut place_of: HashMap<(usize, ContextKey), usize> = HashMap::new();
    for delta in deltas {
        let group = (delta.audience.clone(), delta.context_kind.clone());
        let call = *call_of.entry(group).or_insert_with(|| {
            calls.push(Call { deltas: Vec::new() });
            calls.len() - 1
        });
        let deltas = &mut calls[call].deltas;
        let place = *place_of.entry((call, delta.context_key.clone())).or_insert(deltas.len());
        match deltas.get_mut(place) {
            Some(earlier) if earlier.event_at <= delta.event_at => *earlier = delta,
            Some(_) => {}
            None => deltas.push(delta),
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{AudienceKey, Membership, Timestamp};

    fn delta(kind: &str, audience: &str, key: &str, at: i64, value: bool) -> MembershipDelta {
        MembershipDelta {
            audience: AudienceId::new(audience).expect("not empty"),
            audience_key: AudienceKey::new("vip_users").expect("not empty"),
            context_kind: ContextKind::new(kind).expect("a kind"),
            context_key: ContextKey::new(key).expect("not empty"),
            membership: if value { Membership::In } else { Membership::Out },
            event_at: Timestamp(at),
            user_id: None,
            key_rule: 0,
            message: None,
        }
    }

    #[test]
    fn there_is_a_call_for_each_audience_and_kind_with_the_latest_value_of_each_member() {
        let deltas = [
            delta("user", "a", "ada", 5, true),
            delta("user", "b", "ada", 5, true),
            delta("org", "a", "ada", 5, true),
            delta("user", "a", "bob", 5, true),
            delta("user", "a", "ada", 4, false), // an older event that arrives later
            delta("user", "a", "bob", 5, false), // the same event time, but later in the list
            delta("user", "b", "ada", 6, false),
        ];
        let written: Vec<_> = calls(deltas)
            .iter()
            .map(|call| serde_json::to_string(&call.body("env")).expect("JSON"))
            .collect();
        let expected = [
            r#"{"environmentId":"env","contextKind":"user","batch":[{"userId":"ada","cohortName":"Vip users","cohortId":"a","value":true},{"userId":"bob","cohortName":"Vip users","cohortId":"a","value":false}]}"#,
            r#"{"environmentId":"env","contextKind":"user","batch":[{"userId":"ada","cohortName":"Vip users","cohortId":"b","value":false}]}"#,
            r#"{"environmentId":"env","contextKind":"org","batch":[{"userId":"ada","cohortName":"Vip users","cohortId":"a","value":true}]}"#,
        ];
        assert_eq!(written, expected);
        assert!(calls([]).is_empty());
    }
}

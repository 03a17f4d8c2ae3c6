//! Audiences and members of the model as people see them.

use crate::ledger::counts::Counts;
use crate::ledger::member::Member;
use crate::ledger::memory::state::{Audience, Destination, Key};
use crate::ledger::{AudienceView, MemberView};
use crate::membership::{AudienceId, Timestamp};

impl Destination {
    pub fn pending_since(&self, audience: Option<&AudienceId>) -> Option<Timestamp> {
        let of = self.members.iter().filter(|(key, _)| audience.is_none_or(|id| key.0 == *id));
        of.filter_map(|(_, member)| member.pending_since).min()
    }

    pub fn parked_since(&self, audience: Option<&AudienceId>) -> Option<Timestamp> {
        let of = self.members.iter().filter(|(key, _)| audience.is_none_or(|id| key.0 == *id));
        let parked = of.filter(|(_, member)| member.is_parked());
        parked.filter_map(|(_, member)| member.parked_at).min()
    }

    pub fn audience_view(&self, id: &AudienceId, audience: &Audience) -> AudienceView {
        let Counts { included, pending, parked } = self.counts(Some(id));
        AudienceView {
            audience: id.as_str().to_owned(),
            audience_key: audience.route.audience_key.as_str().to_owned(),
            context_kind: audience.route.context_kind.as_str().to_owned(),
            included,
            pending,
            pending_since: self.pending_since(Some(id)),
            parked,
            parked_since: self.parked_since(Some(id)),
            walk: None,
            snapshot_at: Some(audience.snapshot_at).filter(|at| *at != Timestamp::EPOCH),
        }
    }

    pub fn member_view(&self, (id, context_key): &Key, member: &Member) -> MemberView {
        let Audience { route, told_counts_from, .. } = &self.audiences[id];
        let told = member.told.filter(|told| told.at >= *told_counts_from);
        MemberView {
            audience: id.as_str().to_owned(),
            audience_key: route.audience_key.as_str().to_owned(),
            context_kind: route.context_kind.as_str().to_owned(),
            context_key: context_key.as_str().to_owned(),
            included: member.membership.as_bool(),
            event_at: member.event_at,
            told: told.map(|told| told.membership.as_bool()),
            told_at: told.map(|told| told.at),
            pending: member.pending_since.is_some(),
            parked: member.is_parked(),
            expired: member.is_expired,
        }
    }
}

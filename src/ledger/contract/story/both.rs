//! A store and the model beside it: what couriers and senders do to both.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::sample::Index;

use crate::ledger::contract::story::acts::Item;
use crate::ledger::contract::story::plain::{Happening, Plain, Who};
use crate::ledger::contract::subject::*;
use crate::ledger::member::Member;
use crate::ledger::memory::{Key, MemoryLedger};
use crate::ledger::{Batch, Claim, Intake, Recorder, RejectedEvent, Report};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, DestinationName, Membership, MembershipDelta, Timestamp,
};
use crate::membership::{Message, MessageHash};

/// A claimed batch: as the store has it, and as the model does.
#[derive(Clone)]
pub(super) struct Call {
    pub store: Batch,
    pub model: Batch,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Story<S> {
    pub store: S,
    pub model: MemoryLedger,
    pub plain: Plain,
    /// What LaunchDarkly was told last.
    pub launchdarkly: BTreeMap<Who, bool>,
    /// The version of what a member was told last.
    pub versions: BTreeMap<Who, Timestamp>,
    pub calls: Vec<Call>,
    /// What calls that nobody answered would tell.
    pub late: Vec<(Who, bool)>,
    /// Whose row was erased while they were in a call that is still out: after a kill nothing is remembered of it.
    pub erased_in_a_call: BTreeSet<Who>,
    /// Whom the store may take for unheard.
    pub maybe_unheard: BTreeSet<Who>,
    pub last_parked: Option<Call>,
    /// The other destination is configured, or was since the start.
    pub other_is_known: bool,
    /// Some audiences were guarded at some time.
    pub is_guarded: bool,
    /// Neither store was started again.
    pub is_first_life: bool,
    /// Something was reported since the store last caught up. A kill may lose it, and it is told again: which the model
    /// does not know.
    pub has_reported: bool,
}

pub(super) fn audience(number: u8) -> AudienceId {
    id(&format!("aud{number}"))
}

pub(super) fn who(destination: &DestinationName, (audience, key): &Key) -> Who {
    (destination.to_string(), audience.as_str().to_owned(), key.as_str().to_owned())
}

pub(super) fn keys_of(batch: &Batch) -> Vec<Key> {
    let members = batch.members.iter();
    members.map(|of| (batch.route.audience.clone(), of.context_key.clone())).collect()
}

impl<S: Subject> Story<S> {
    pub(super) async fn record(&mut self, items: &[Item], both: bool) {
        let arrival = self.store.operations().arrival().max(self.model.arrival());
        let mut all = Intake { arrival, ..intake(&self.model, &production(), Vec::new()) };
        let mut happenings = Vec::new();
        for item in items {
            let delta = match *item {
                Item::Changes { audience, person, by_mail, enters, when } => {
                    let key = format!("p{person}{}", if by_mail { "@example.com" } else { "" });
                    changes(audience, &key, person, enters, when.at(arrival))
                }
                Item::Moves { audience, person, enters, message, when } => {
                    let at = when.map_or(arrival.0, |when| when.at(arrival));
                    let message =
                        Message { hash: MessageHash([message; 16]), moves: when.is_none() };
                    let delta = changes(audience, &format!("p{person}"), person, enters, at);
                    MembershipDelta { message: Some(message), ..delta }
                }
                Item::OtherKind { audience, person } => {
                    let delta = changes(audience, &format!("p{person}"), person, true, 6);
                    MembershipDelta { context_kind: device(), ..delta }
                }
                Item::Deletes { person, when } => {
                    let at = when.map_or(arrival.0, |when| when.at(arrival));
                    let name = format!("p{person}");
                    all = and_delete(&name, Timestamp(at), all);
                    let at = at.min(arrival.0);
                    happenings.push((None, Happening::Deletes { user: name, at }));
                    continue;
                }
                Item::Rejected { person, when } => {
                    let body = format!("{}", all.rejected.len());
                    let user = person.map(|person| format!("p{person}"));
                    let event_at = Timestamp(when.at(arrival).min(arrival.0));
                    let event = rejected(body.as_bytes(), user.as_deref());
                    all.rejected.push(RejectedEvent { event_at, ..event });
                    continue;
                }
            };
            happenings.push((Some(all.deltas.len()), happening_of(&delta)));
            all.deltas.push(delta);
        }
        let names = if both { vec![production(), other()] } else { vec![production()] };
        let intakes: Vec<_> =
            names.iter().map(|name| Intake { destination: name.clone(), ..all.clone() }).collect();
        let recorded = self.store.operations().record_all(intakes.clone()).await;
        let recorded = recorded.expect("there is space");
        let by_model = self.model.record_all(intakes).await.expect("it takes everything");
        assert_eq!(recorded, by_model, "what was not recorded");
        self.store.applied().await;
        for (name, recorded) in names.iter().zip(recorded) {
            let happened = happenings.iter().map(|(position, happening)| {
                let mut happening = happening.clone();
                if let Happening::Changes { is_recorded, .. } = &mut happening {
                    let conflicts = &recorded.kind_conflicts;
                    *is_recorded = position.is_none_or(|position| !conflicts.contains(&position));
                }
                happening
            });
            let happened: Vec<_> = happened.collect();
            self.plain.take(name.as_str(), &happened, arrival.0);
        }
    }

    pub(super) async fn claim(
        &mut self,
        name: &DestinationName,
        audience: &AudienceId,
        limit: usize,
    ) {
        let claimed = self.store.claim_of(name, audience.as_str(), limit).await;
        let waiting = self.model.waiting_in(name, audience);
        let Some(batch) = claimed else {
            assert!(waiting.is_empty(), "{} wait, and nobody is claimed", waiting.len());
            return;
        };
        let keys = keys_of(&batch);
        assert_lawful(&keys, &waiting, limit);
        self.called(name, batch, &keys);
    }

    pub(super) async fn claim_again(&mut self, audience: &AudienceId, key: &str) {
        let context_key = ContextKey::new(key).expect("not empty");
        let route = crate::ledger::Route {
            destination: production(),
            audience: audience.clone(),
            audience_key: AudienceKey::new("any").expect("not empty"),
            context_kind: device(),
        };
        let claim = Claim::Again { route: Arc::new(route), context_key };
        self.claim_both(claim).await;
    }

    pub(super) async fn claim_told(&mut self) {
        self.claim_both(Claim::Told { after: None }).await;
    }

    /// A claim that leaves no choice.
    pub(super) async fn claim_both(&mut self, claim: Claim) {
        let by_store = self.store.operations().outbox(&production()).claim(claim.clone()).await;
        let by_model = self.model.outbox_of(&production()).claim(claim).await;
        let by_model = by_model.expect("it is known");
        let Some(store) = by_store.expect("it is open") else {
            assert!(by_model.is_none(), "nobody is claimed");
            return;
        };
        let model = by_model.expect("the model claims nobody");
        assert_same(&store, &model);
        self.calls.push(Call { store, model });
    }

    /// The store has claimed these.
    pub(super) fn called(&mut self, name: &DestinationName, store: Batch, keys: &[Key]) {
        let model = self.model.claim_these(name, keys);
        assert_same(&store, &model);
        self.calls.push(Call { store, model });
    }

    pub(super) fn take(&mut self, which: Index) -> Option<Call> {
        (!self.calls.is_empty()).then(|| self.calls.swap_remove(which.index(self.calls.len())))
    }

    /// LaunchDarkly is told.
    pub(super) fn tell(&mut self, batch: &Batch) {
        for (key, member) in keys_of(batch).iter().zip(&batch.members) {
            let who = who(&batch.route.destination, key);
            let before = self.versions.insert(who.clone(), member.version);
            assert!(before.is_none_or(|before| before <= member.version), "older than before (P3)");
            self.launchdarkly.insert(who, member.membership.as_bool());
        }
    }

    /// Nobody knows whether LaunchDarkly was told or will be.
    pub(super) fn is_late(&mut self, batch: &Batch) {
        for (key, member) in keys_of(batch).iter().zip(&batch.members) {
            if self.model.member_of(&batch.route.destination, key).is_some() {
                let who = who(&batch.route.destination, key);
                self.late.push((who, member.membership.as_bool()));
            }
        }
    }

    pub(super) async fn report(&mut self, call: &Call, report: impl Fn(Batch) -> Report) {
        let name = &call.store.route.destination;
        let by_store = self.store.operations().outbox(name);
        by_store.report(report(call.store.clone())).await.expect("there is space");
        self.has_reported = true;
        let copy = self.model.copy();
        let would = copy.outbox_of(name).report(report(call.model.clone())).await;
        would.expect("it takes everything");
        self.ask_who_stays(name, &copy).await;
        let by_model = self.model.outbox_of(name);
        by_model.report(report(call.model.clone())).await.expect("it takes everything");
    }

    /// Who would be erased, as the copy of the model shows, and is not is taken for unheard by the store, if it may be.
    pub(super) async fn ask_who_stays(&mut self, name: &DestinationName, copy: &MemoryLedger) {
        let key_of = |who: &Who| (id(&who.1), ContextKey::new(&who.2).expect("not empty"));
        let maybe = self.maybe_unheard.iter().filter(|who| who.0 == name.to_string());
        let goes: Vec<&Who> = maybe
            .filter(|who| self.model.member_of(name, &key_of(who)).is_some())
            .filter(|who| copy.member_of(name, &key_of(who)).is_none())
            .collect();
        if goes.is_empty() {
            return;
        }
        self.store.caught_up().await;
        for view in self.store.members(name) {
            let who = (name.to_string(), view.audience, view.context_key);
            if goes.contains(&&who) {
                self.model.may_be_unheard(name, &key_of(&who));
            }
        }
    }

    pub(super) async fn split(&mut self, call: Call) {
        if call.store.members.len() < 2 {
            self.calls.push(call);
            return;
        }
        let halves = |batch: &Batch| {
            let (one, other) = batch.members.split_at(1);
            let half = |members: &[_]| Batch { members: members.to_vec(), ..batch.clone() };
            [half(one), half(other)]
        };
        let (by_store, by_model) = (halves(&call.store), halves(&call.model));
        self.report(&call, |batch| Report::Split(halves(&batch).to_vec())).await;
        let calls = by_store.into_iter().zip(by_model);
        self.calls.extend(calls.map(|(store, model)| Call { store, model }));
    }
}

fn changes(number: u8, key: &str, person: u8, enters: bool, at: i64) -> MembershipDelta {
    let rule = if key.contains('@') { 1 } else { 2 };
    let delta = delta(audience(number).as_str(), key, enters, at);
    under(&format!("p{person}"), MembershipDelta { key_rule: rule, ..delta })
}

fn happening_of(delta: &MembershipDelta) -> Happening {
    Happening::Changes {
        audience: delta.audience.as_str().to_owned(),
        key: delta.context_key.as_str().to_owned(),
        user: delta.user_id.as_ref().expect("each has one").as_str().to_owned(),
        enters: delta.membership.as_bool(),
        at: delta.event_at.0,
        rule: delta.key_rule,
        message: delta.message.map(|message| (message.hash.0[0], message.moves)),
        is_recorded: true,
    }
}

fn assert_same(store: &Batch, model: &Batch) {
    assert_eq!(store.route, model.route);
    let of = |batch: &Batch| -> Vec<(String, Membership)> {
        let members = batch.members.iter();
        members.map(|of| (of.context_key.as_str().to_owned(), of.membership)).collect()
    };
    assert_eq!(of(store), of(model), "the store has claimed, and the model");
}

/// Whether these may be claimed, of those who wait. Those who began to wait in the same second did so together.
fn assert_lawful(keys: &[Key], waiting: &[(Key, Member)], limit: usize) {
    let second = |member: &Member| member.pending_since.map(|since| since.since(START).as_secs());
    let claimed: Vec<&Member> = keys
        .iter()
        .map(|key| &waiting.iter().find(|(of, _)| of == key).expect("it does not wait").1)
        .collect();
    let (first, longest) = (claimed[0], second(&waiting[0].1));
    assert_eq!(second(first), longest, "the longest pending goes first");
    assert!(claimed.len() <= limit && claimed.is_sorted_by_key(|of| second(of)));
    let matches =
        |member: &Member| member.parked_at.is_none() && member.refused_with == first.refused_with;
    if first.parked_at.is_some() {
        assert_eq!(claimed.len(), 1, "what was parked travels alone");
        return;
    }
    assert!(claimed.iter().all(|of| matches(of)), "the halves of a batch stay apart");
    if first.refused_with.is_some() {
        return; // others may stand between those of a half
    }
    let last = claimed.iter().map(|of| second(of)).max();
    let left = waiting.iter().filter(|(key, of)| matches(of) && !keys.contains(key));
    for (_, member) in left {
        assert!(claimed.len() == limit && Some(second(member)) >= last, "somebody is left out");
    }
}

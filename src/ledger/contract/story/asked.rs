//! What people ask of a store and of the model beside it, and what befalls both.

use proptest::sample::Index;

use crate::ledger::contract::story::acts::Act;
use crate::ledger::contract::story::both::{Story, audience, keys_of, who};
use crate::ledger::contract::story::plain::Who;
use crate::ledger::contract::subject::*;
use crate::ledger::memory::{Key, MemoryLedger};
use crate::ledger::{GuardLimits, Members, Operations, Recorder, Report, Unheard};
use crate::membership::{ContextKey, DestinationName, Membership};

impl<S: Subject> Story<S> {
    pub(super) async fn operate(&mut self, asked: Act) {
        let (store, name) = (self.store.operations(), production());
        let model = self.model.clone();
        let of = |number: Option<u8>| number.map(audience);
        match asked {
            Act::Requeue(which) => self.requeue(which).await,
            Act::Discard(which) => self.discard(which).await,
            Act::DiscardRejected(which) => self.discard_rejected(which).await,
            Act::Resync(number) => {
                let by_store = store.resync(&name, of(number).as_ref()).await;
                let by_model = model.resync(&name, of(number).as_ref()).await;
                assert_known(&by_store, &by_model);
                self.walked().await;
            }
            Act::Retract(number) => {
                let by_store = store.retract(&name, of(number).as_ref()).await;
                self.walked().await;
                let is_in =
                    |(audience, _): &Key| number.is_none_or(|of| *audience == self::audience(of));
                self.retracted(&is_in);
                let copy = model.copy();
                let _ = copy.retract(&name, of(number).as_ref()).await; // as below
                self.ask_who_stays(&name, &copy).await;
                let by_model = model.retract(&name, of(number).as_ref()).await;
                assert_known(&by_store, &by_model);
            }
            Act::RetractStale { audience: number, by_mail } => {
                let (current, audience) = (vec![u32::from(!by_mail) + 1], audience(number));
                let by_store = store.retract_stale(&name, &audience, current.clone()).await;
                self.walked().await;
                let rule_of = |key: &Key| model.member_of(&name, key).map(|member| member.key_rule);
                let is_stale = |key: &Key| {
                    key.0 == audience && rule_of(key).is_some_and(|rule| !current.contains(&rule))
                };
                self.retracted(&is_stale);
                let copy = model.copy();
                let _ = copy.retract_stale(&name, &audience, current.clone()).await; // as below
                self.ask_who_stays(&name, &copy).await;
                let by_model = model.retract_stale(&name, &audience, current.clone()).await;
                assert_known(&by_store, &by_model);
            }
            Act::Erase(number) => {
                let audience = audience(number);
                let by_store = store.erase(&name, Some(&audience)).await;
                let by_model = model.erase(&name, Some(&audience)).await;
                assert_known(&by_store, &by_model);
                let is_it =
                    |(of, id, _): &Who| *of == name.to_string() && *id == *audience.as_str();
                self.plain.members.retain(|who, _| !is_it(who));
                self.late.retain(|(who, _)| !is_it(who));
            }
            Act::Forget(person) => {
                let person = format!("p{person}");
                let arrival = store.arrival().max(model.arrival());
                self.plain.forget(name.as_str(), &person, arrival.0);
                store.forget(&name, user(&person)).await.expect("there is space");
                self.store.applied().await;
                model.forget(&name, user(&person)).await.expect("it is known");
            }
            Act::Pause(paused) => {
                store.pause(&name, paused).await.expect("there is space");
                model.pause(&name, paused).await.expect("it is known");
            }
            Act::Guard(is_on) => {
                self.store.caught_up().await; // what was counted under other limits is in the tables
                self.is_guarded |= is_on;
                let guarded = GuardLimits { min_members: 2, ..GuardLimits::default() };
                self.store.setup().destinations[0].guard =
                    if is_on { guarded } else { GuardLimits::default() };
                self.configure().await;
            }
            Act::ReleaseHeld(number) => {
                let by_store = store.release_held(&name, of(number).as_ref()).await;
                let by_model = model.release_held(&name, of(number).as_ref()).await;
                assert_decided(&by_store, &by_model);
            }
            Act::DiscardHeld(number) => {
                let copy = model.copy();
                let by_copy = copy.discard_held(&name, of(number).as_ref()).await;
                self.reentered(&copy);
                let by_store = store.discard_held(&name, of(number).as_ref()).await;
                self.walked().await;
                let by_model = model.discard_held(&name, of(number).as_ref()).await;
                assert_decided(&by_copy, &by_model);
                assert_decided(&by_store, &by_model);
            }
            Act::Configure(with_other) => {
                self.store.caught_up().await; // what comes later does not know how long a repeat counts
                self.store.setup().destinations.truncate(1);
                if with_other {
                    self.store.setup().destinations.push(settings(&other()));
                }
                self.other_is_known |= with_other;
                self.configure().await;
            }
            Act::Move { by_restart } => self.move_away(by_restart).await,
            other => unreachable!("{other:?} is done elsewhere"),
        }
    }

    /// Somebody who is parked, if anybody is.
    fn parked(&self, which: Index) -> Option<Members> {
        let parked: Vec<Key> = self.model.everybody_parked(&production()).into_iter().collect();
        let (audience, key) =
            (!parked.is_empty()).then(|| parked[which.index(parked.len())].clone())?;
        Some(Members { destination: production(), audience, context_keys: vec![key] })
    }

    async fn requeue(&self, which: Index) {
        let Some(members) = self.parked(which) else { return };
        let by_store = self.store.operations().requeue(members.clone()).await;
        let by_model = self.model.requeue(members).await;
        assert_eq!(by_store.expect("there is space"), by_model.expect("it is known"));
    }

    async fn discard(&mut self, which: Index) {
        let Some(members) = self.parked(which) else { return };
        let of = who(&production(), &(members.audience.clone(), members.context_keys[0].clone()));
        self.plain.members.remove(&of);
        self.late.retain(|(who, _)| *who != of);
        let by_store = self.store.operations().discard_parked(members.clone()).await;
        let by_model = self.model.discard_parked(members).await;
        assert_eq!(by_store.expect("there is space"), by_model.expect("it is known"));
    }

    async fn discard_rejected(&self, which: Index) {
        self.store.caught_up().await;
        let (store, name) = (self.store.operations(), production());
        let by_store = store.rejected(&name, 0, 999).await.expect("it is open");
        let by_model = self.model.rejected(&name, 0, 999).await.expect("it is open");
        assert_eq!(by_store.len(), by_model.len(), "rejected events");
        if !by_store.is_empty() {
            let at = which.index(by_store.len());
            let discarded = store.discard_rejected(&name, vec![by_store[at].id]).await;
            assert_eq!(discarded.expect("there is space"), 1);
            let discarded = self.model.discard_rejected(&name, vec![by_model[at].id]).await;
            assert_eq!(discarded.expect("it is known"), 1);
        }
    }

    /// Both stores take the setup as it is now.
    pub(super) async fn configure(&mut self) {
        self.store.configure().await;
        self.walked().await;
        self.model.configure(self.store.setup().destinations.clone());
    }

    pub(super) async fn move_away(&mut self, by_restart: bool) {
        // No call may be out to an environment that is left.
        for call in std::mem::take(&mut self.calls) {
            self.report(&call, |batch| Report::Release(batch, Unheard::No)).await;
        }
        self.store.setup().destinations[0].environment.push('!');
        if by_restart {
            self.restart(false).await;
            self.walked().await;
        } else {
            self.configure().await;
        }
        let name = production().to_string();
        self.launchdarkly.retain(|(of, ..), _| *of != name);
        self.late.retain(|((of, ..), _)| *of != name);
    }

    pub(super) async fn restart(&mut self, is_killed: bool) {
        let since_earlier = self.late.len();
        for call in std::mem::take(&mut self.calls) {
            self.is_late(&call.store);
        }
        let late = self.late.split_off(since_earlier);
        let erased = std::mem::take(&mut self.erased_in_a_call);
        self.late.extend(late.into_iter().filter(|(who, _)| !erased.contains(who)));
        for name in [production(), other()] {
            let pending = self.model.pending(&name);
            self.maybe_unheard.extend(pending.iter().map(|key| who(&name, key)));
        }
        self.last_parked = None;
        self.is_first_life = false;
        let Setup { destinations, bounds } = self.store.setup().clone();
        self.other_is_known = destinations.len() > 1;
        if is_killed {
            // What comes after a first entry is judged with it if both are read again together.
            if !self.other_is_known || self.has_reported || self.is_guarded {
                self.store.caught_up().await;
            }
            self.store.crash().await;
        } else {
            self.store.reopen().await;
        }
        self.has_reported = false;
        self.store.applied().await;
        self.model = self.model.restarted(bounds, destinations);
    }

    /// What is done to every member is done.
    pub(super) async fn walked(&self) {
        let operations = self.store.operations();
        let is_over = async || {
            let all = operations.destinations().await.expect("it is open");
            all.iter().all(|of| of.unvisited == 0)
        };
        self.store.until(is_over).await;
    }

    /// These are removed.
    pub(super) fn retracted(&mut self, are: &dyn Fn(&Key) -> bool) {
        let (name, now) = (production(), self.store.operations().arrival().0);
        let views = self.model.members(&name).into_iter();
        let keys = views
            .map(|of| (id(&of.audience), ContextKey::new(&of.context_key).expect("not empty")));
        let keys: Vec<Key> = keys.filter(|key| are(key)).collect();
        for key in &keys {
            self.plain.members.entry(who(&name, key)).and_modify(|truth| truth.remove(now));
        }
    }

    /// Those who are in again in this copy of the model.
    fn reentered(&mut self, copy: &MemoryLedger) {
        let (name, now) = (production(), self.store.operations().arrival().0);
        for of in copy.members(&name).into_iter().filter(|of| of.included) {
            let key = (id(&of.audience), ContextKey::new(&of.context_key).expect("not empty"));
            let before = self.model.member_of(&name, &key);
            if before.is_some_and(|before| before.membership == Membership::Out) {
                let truth = self.plain.members.get_mut(&who(&name, &key)).expect("it has left");
                truth.reenter(now);
            }
        }
    }

    /// Whose rows are gone: nothing is remembered of them.
    pub(super) fn forget_who_is_gone(&mut self) {
        let model = self.model.clone();
        let is_gone = |(of, audience, key): &Who| {
            let name = DestinationName::new(of).expect("not empty");
            let key = (id(audience), ContextKey::new(key).expect("not empty"));
            model.member_of(&name, &key).is_none()
        };
        for call in &self.calls {
            let name = &call.store.route.destination;
            let whose = keys_of(&call.store).into_iter().map(|key| who(name, &key));
            self.erased_in_a_call.extend(whose.filter(is_gone));
        }
        self.plain.forget_times(is_gone);
        self.versions.retain(|who, _| !is_gone(who));
        self.late.retain(|(who, _)| !is_gone(who));
        self.maybe_unheard.retain(|who| !is_gone(who));
    }
}

/// As many were held, if both know the audience.
fn assert_decided(
    store: &Result<u64, crate::ledger::LedgerError>,
    model: &Result<u64, crate::ledger::LedgerError>,
) {
    if let (Ok(store), Ok(model)) = (store, model) {
        assert_eq!(store, model, "how many were held");
    }
}

/// What the model knows of is there; an audience without members may be known to the store a little longer.
fn assert_known<T: std::fmt::Debug>(
    store: &Result<T, crate::ledger::LedgerError>,
    model: &Result<T, crate::ledger::LedgerError>,
) {
    assert!(store.is_ok() || model.is_err(), "{store:?} and {model:?}");
}

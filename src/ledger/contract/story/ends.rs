//! What is looked at: both stores on the way, and at the end what LaunchDarkly was told.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::counting::Count;
use crate::ledger::contract::story::both::{Story, keys_of, who};
use crate::ledger::contract::story::looks::Looks;
use crate::ledger::contract::story::plain::{Truth, Who};
use crate::ledger::contract::subject::*;
use crate::ledger::{Members, Operations, ParkedAfter, Report, Unheard};
use crate::membership::ContextKey;
use crate::membership::DestinationName;

/// As long as it takes to tell everybody once more.
const IN_TIME: Duration = Duration::from_secs(2);

impl<S: Subject> Story<S> {
    /// Whoever looks sees the same.
    pub(super) async fn look(&mut self) {
        self.store.caught_up().await;
        self.has_reported = false;
        let operations = self.store.operations();
        for (name, is_known) in [(production(), true), (other(), self.other_is_known)] {
            let by_store = Looks::of(&*operations, self.store.members(&name), &name, is_known);
            let by_model = Looks::of(&self.model, self.model.members(&name), &name, is_known);
            let (mut by_store, mut by_model) = (by_store.await, by_model.await);
            for audience in self.audiences_erased_in_a_call(&name) {
                by_store.backlog.remove(&audience);
                by_model.backlog.remove(&audience);
            }
            assert_eq!(by_store, by_model, "the store, and the model: {name}");
            if self.is_first_life {
                let [by_store, by_model] =
                    [operations.recordings(), self.model.recordings()].map(|all| {
                        let of = all.of(&name);
                        [&of.deltas, &of.repeats, &of.overtaken, &of.outlived].map(Count::get)
                    });
                assert_eq!(by_store, by_model, "deltas, repeats, overtaken, outlived: {name}");
            }
        }
    }

    /// Audiences with somebody in a call of whom nothing is known any more: a store may count that as one who waits less.
    pub(super) fn audiences_erased_in_a_call(&self, name: &DestinationName) -> BTreeSet<String> {
        let calls = self.calls.iter().filter(|call| call.store.route.destination == *name);
        let members = calls.flat_map(|call| keys_of(&call.store));
        let gone = members.filter(|key| self.model.member_of(name, key).is_none());
        gone.map(|(audience, _)| audience.as_str().to_owned()).collect()
    }

    /// LaunchDarkly answers everything again, and ends as the latest events say.
    pub(super) async fn end(mut self) {
        for call in std::mem::take(&mut self.calls) {
            self.report(&call, |batch| Report::Release(batch, Unheard::No)).await;
        }
        for (who, included) in std::mem::take(&mut self.late) {
            self.launchdarkly.insert(who, included);
        }
        let destinations = [production(), other()].map(|name| settings(&name));
        let environment = self.store.setup().destinations[0].environment.clone();
        self.store.setup().destinations = destinations.into();
        self.store.setup().destinations[0].environment = environment;
        for settings in &mut self.store.setup().destinations {
            settings.reassert_after = Duration::from_millis(1);
        }
        self.store.caught_up().await;
        self.store.reopen().await;
        let released = self.store.operations().release_held(&production(), None).await;
        released.expect("there is space");
        let began = std::time::Instant::now();
        while self.differences().is_some() && began.elapsed() < IN_TIME {
            for name in [production(), other()] {
                self.deliver(&name).await;
            }
            self.store.upkeep().await;
        }
        assert_eq!(self.differences(), None, "LaunchDarkly ends as the latest events say (P2, P4)");
        self.store.caught_up().await;
        assert_eq!(self.store.faults(), [""; 0], "the rows and their counts agree");
    }

    pub(super) async fn deliver(&mut self, name: &DestinationName) {
        let (operations, all) = (self.store.operations(), ParkedAfter::default());
        for view in operations.parked(name, None, &all, 999).await.expect("it is open") {
            let context_keys = ContextKey::new(&view.context_key).into_iter().collect();
            let audience = id(&view.audience);
            let members = Members { destination: name.clone(), audience, context_keys };
            operations.requeue(members).await.expect("there is space");
        }
        let outbox = operations.outbox(name);
        for waiting in outbox.backlog().await.expect("it is open") {
            while let Some(batch) = self.store.claim_of(name, waiting.audience.as_str(), 3).await {
                for (key, member) in keys_of(&batch).iter().zip(&batch.members) {
                    self.launchdarkly.insert(who(name, key), member.membership.as_bool());
                }
                outbox.report(Report::Settle(batch)).await.expect("there is space");
            }
        }
    }

    /// Of whom LaunchDarkly knows something else, and what should be.
    pub(super) fn differences(&self) -> Option<Vec<(Who, Option<bool>, Truth)>> {
        let differs = |(who, truth): (&Who, &Truth)| {
            let told = self.launchdarkly.get(who).copied();
            let is_so = told == Some(truth.included) || (told.is_none() && truth.is_removed);
            (!is_so).then(|| (who.clone(), told, *truth))
        };
        let all: Vec<_> = self.plain.members.iter().filter_map(differs).collect();
        (!all.is_empty()).then_some(all)
    }
}

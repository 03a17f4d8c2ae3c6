//! Random stories: a store and the model are given the same operations, and whoever looks at them sees the same. What
//! LaunchDarkly was told by the end is what a plain map says, which knows nothing of the rules that the stores share.
//!
//! # What is left open
//! * Nobody says in which order those wait who came in one request: whatever the store claims must be lawful, and the
//!   model claims the same.
//! * A store may take others than those in a call for unheard when its process dies. Whoever is to be erased may
//!   therefore stay until it was told once more.
//! * While somebody is in a call whose audience was erased, a store may count as many too few who wait for it.
//! * A call that nobody answered may be applied at any time until its members are told once more: unless the row was
//!   erased meanwhile, of which nothing is remembered.

mod acts;
mod asked;
mod both;
mod ends;
mod looks;
mod plain;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use acts::Act;
use both::{Story, audience};
use plain::Plain;

use super::subject::*;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::{Report, Unheard};

pub(crate) use acts::acts;

/// Everything of a story in which both stores must look the same.
pub(crate) async fn play<S: Subject>(acts: Vec<Act>) {
    let mut setup = Setup::default();
    setup.bounds.tombstone_ttl = 3650 * DAY; // what goes after its time does so when it is looked for
    let store = S::open(setup.clone()).await;
    let clock = Arc::new(store.clock().clone());
    let model = MemoryLedger::new(clock, setup.bounds, setup.destinations);
    let mut beside = Story {
        store,
        model,
        plain: Plain::default(),
        launchdarkly: BTreeMap::new(),
        versions: BTreeMap::new(),
        calls: Vec::new(),
        late: Vec::new(),
        erased_in_a_call: BTreeSet::new(),
        maybe_unheard: BTreeSet::new(),
        last_parked: None,
        other_is_known: false,
        is_guarded: false,
        is_first_life: true,
        has_reported: false,
    };
    for act in acts {
        beside.store.clock().advance(SECOND); // no stamp of one act is given out in another
        beside.act(act).await;
        beside.forget_who_is_gone();
    }
    beside.look().await;
    beside.end().await;
}

impl<S: Subject> Story<S> {
    async fn act(&mut self, act: Act) {
        match act {
            Act::Record(items, both) => self.record(&items, both && self.other_is_known).await,
            Act::Claim { of_other, audience: number, limit } => {
                let name = if of_other && self.other_is_known { other() } else { production() };
                self.claim(&name, &audience(number), limit).await;
            }
            Act::ClaimAgain { audience: number, person } => {
                self.claim_again(&audience(number), &format!("p{person}")).await;
            }
            Act::ClaimTold => self.claim_told().await,
            Act::Settle(which) => {
                if let Some(call) = self.take(which) {
                    self.tell(&call.store);
                    self.report(&call, Report::Settle).await;
                }
            }
            Act::Release(which, unheard) => {
                if let Some(call) = self.take(which) {
                    if unheard == Unheard::Perhaps {
                        self.is_late(&call.store);
                    }
                    self.report(&call, |batch| Report::Release(batch, unheard)).await;
                }
            }
            Act::Park(which, words) => {
                if let Some(call) = self.take(which) {
                    let park = |batch| Report::Park(batch, reason(&words.to_string()));
                    self.report(&call, park).await;
                    self.last_parked = Some(call);
                }
            }
            Act::Unpark => {
                if let Some(call) = self.last_parked.take() {
                    self.report(&call, Report::Unpark).await;
                }
            }
            Act::Split(which) => {
                if let Some(call) = self.take(which) {
                    self.split(call).await;
                }
            }
            Act::Late(which) if !self.late.is_empty() => {
                let (who, included) = self.late.swap_remove(which.index(self.late.len()));
                self.launchdarkly.insert(who, included);
            }
            Act::Late(_) => {}
            Act::Look => self.look().await,
            Act::Wait => self.store.clock().advance(Duration::from_secs(3607)),
            Act::Crash | Act::Reopen => self.restart(matches!(act, Act::Crash)).await,
            asked => self.operate(asked).await,
        }
    }
}

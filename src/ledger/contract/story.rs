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

mod looks;
mod plain;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::counting::Count;
use crate::ledger::member::Member;
use crate::ledger::memory::{Key, MemoryLedger};
use crate::membership::{Message, MessageHash};
use looks::Looks;
use plain::{Happening, Plain, Who};

/// An item of a request. Audiences, people and messages are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// Somebody enters or leaves an audience: under the user id or the mail address, whose rule has another number.
    Changes { audience: u8, person: u8, by_mail: bool, enters: bool, when: When },
    /// The same by a message whose time depends on its arrival, or that has one that is believed now.
    Moves { audience: u8, person: u8, enters: bool, message: u8, when: Option<When> },
    /// The same under another context kind.
    OtherKind { audience: u8, person: u8 },
    /// Somebody is deleted, as of a time or on arrival.
    Deletes { person: u8, when: Option<When> },
    /// An event that could not be mapped, of somebody or nobody.
    Rejected { person: Option<u8>, when: When },
}

/// When something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    LongAgo(i64),
    /// So many half seconds after it arrives, which is an odd number: no stamp is given out then.
    Around(i64),
}

impl When {
    fn at(self, arrival: Timestamp) -> i64 {
        match self {
            Self::LongAgo(at) => at,
            Self::Around(half_seconds) => arrival.0 + half_seconds * 500_000,
        }
    }
}

/// What a story does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// To the one destination, or in one go to both.
    Record(Vec<Item>, bool),
    /// Of the other destination or not.
    Claim {
        of_other: bool,
        audience: u8,
        limit: usize,
    },
    ClaimAgain {
        audience: u8,
        person: u8,
    },
    ClaimTold,
    /// A claimed batch is taken.
    Settle(Index),
    /// A claimed batch is not taken.
    Release(Index, Unheard),
    /// A claimed batch is refused, with these words.
    Park(Index, u8),
    /// What was parked last was everybody's refusal.
    Unpark,
    /// A claimed batch is refused as a whole.
    Split(Index),
    /// A call that nobody answered is applied now.
    Late(Index),
    Requeue(Index),
    Discard(Index),
    DiscardRejected(Index),
    Resync(Option<u8>),
    Retract(Option<u8>),
    /// Whoever has a mail address is retracted, or whoever has none.
    RetractStale {
        audience: u8,
        by_mail: bool,
    },
    Erase(u8),
    Forget(u8),
    Pause(bool),
    /// The other destination is configured from here on, or it is not.
    Configure(bool),
    /// Another environment, at once or by a restart.
    Move {
        by_restart: bool,
    },
    /// As long as a repeat is not sent again.
    Wait,
    Crash,
    Reopen,
    /// Whoever looks sees the same.
    Look,
}

/// As long as it takes to tell everybody once more.
const IN_TIME: Duration = Duration::from_secs(2);
const AUDIENCES: u8 = 2;
const PEOPLE: u8 = 4;

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        5 => (0..12_i64).prop_map(When::LongAgo),
        1 => (-2..3_i64).prop_map(|around| When::Around(2 * around + 1)),
        1 => Just(When::Around(241)),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let member = (0..AUDIENCES, 0..PEOPLE);
    prop_oneof![
        16 => (member.clone(), any::<bool>(), any::<bool>(), when()).prop_map(
            |((audience, person), by_mail, enters, when)| {
                Item::Changes { audience, person, by_mail, enters, when }
            }
        ),
        4 => (member.clone(), any::<bool>(), 0..6_u8, prop::option::of(when())).prop_map(
            |((audience, person), enters, message, when)| {
                Item::Moves { audience, person, enters, message, when }
            }
        ),
        1 => member.prop_map(|(audience, person)| Item::OtherKind { audience, person }),
        2 => (0..PEOPLE, prop::option::of(when()))
            .prop_map(|(person, when)| Item::Deletes { person, when }),
        1 => (prop::option::of(0..PEOPLE), when())
            .prop_map(|(person, when)| Item::Rejected { person, when }),
    ]
}

/// Stories of some length.
pub(crate) fn acts() -> impl Strategy<Value = Vec<Act>> {
    let index = any::<Index>;
    let unheard = prop_oneof![2 => Just(Unheard::Perhaps), 1 => Just(Unheard::No), 1 => Just(Unheard::NoAndLast)];
    let told = prop_oneof![
        12 => (prop::collection::vec(item(), 1..6), any::<bool>())
            .prop_map(|(items, both)| Act::Record(items, both)),
        12 => (prop::bool::weighted(0.3), 0..AUDIENCES, 1..5_usize)
            .prop_map(|(of_other, audience, limit)| Act::Claim { of_other, audience, limit }),
        1 => (0..AUDIENCES, 0..PEOPLE)
            .prop_map(|(audience, person)| Act::ClaimAgain { audience, person }),
        1 => Just(Act::ClaimTold),
        6 => index().prop_map(Act::Settle),
        3 => (index(), unheard).prop_map(|(which, unheard)| Act::Release(which, unheard)),
        3 => (index(), any::<u8>()).prop_map(|(which, words)| Act::Park(which, words)),
        1 => Just(Act::Unpark),
        2 => index().prop_map(Act::Split),
        1 => index().prop_map(Act::Late),
    ];
    let asked = prop_oneof![
        3 => index().prop_map(Act::Requeue),
        1 => index().prop_map(Act::Discard),
        1 => index().prop_map(Act::DiscardRejected),
        1 => prop::option::of(0..AUDIENCES).prop_map(Act::Resync),
        1 => prop::option::of(0..AUDIENCES).prop_map(Act::Retract),
        1 => (0..AUDIENCES, any::<bool>())
            .prop_map(|(audience, by_mail)| Act::RetractStale { audience, by_mail }),
        1 => (0..AUDIENCES).prop_map(Act::Erase),
        1 => (0..PEOPLE).prop_map(Act::Forget),
        1 => any::<bool>().prop_map(Act::Pause),
        2 => any::<bool>().prop_map(Act::Configure),
        1 => any::<bool>().prop_map(|by_restart| Act::Move { by_restart }),
        1 => Just(Act::Wait),
    ];
    let act = prop_oneof![
        40 => told,
        10 => asked,
        2 => Just(Act::Crash),
        1 => Just(Act::Reopen),
        6 => Just(Act::Look),
    ];
    prop::collection::vec(act, 1..60)
}

/// A claimed batch: as the store has it, and as the model does.
#[derive(Clone)]
struct Call {
    store: Batch,
    model: Batch,
}

struct Story<S> {
    store: S,
    model: MemoryLedger,
    plain: Plain,
    /// What LaunchDarkly was told last.
    launchdarkly: BTreeMap<Who, bool>,
    /// The version of what a member was told last.
    versions: BTreeMap<Who, Timestamp>,
    calls: Vec<Call>,
    /// What calls that nobody answered would tell.
    late: Vec<(Who, bool)>,
    /// Whom the store may take for unheard.
    maybe_unheard: BTreeSet<Who>,
    last_parked: Option<Call>,
    /// The other destination is configured, or was since the start.
    other_is_known: bool,
    /// Neither store was started again.
    is_first_life: bool,
    /// Something was reported since the store last caught up. A kill may lose it, and it is told again: which the model
    /// does not know.
    has_reported: bool,
}

fn audience(number: u8) -> AudienceId {
    id(&format!("aud{number}"))
}

fn who(destination: &DestinationName, (audience, key): &Key) -> Who {
    (destination.to_string(), audience.as_str().to_owned(), key.as_str().to_owned())
}

fn keys_of(batch: &Batch) -> Vec<Key> {
    let members = batch.members.iter();
    members.map(|of| (batch.route.audience.clone(), of.context_key.clone())).collect()
}

/// Everything of a story in which both stores must look the same.
pub(crate) async fn play<S: Subject>(acts: Vec<Act>) {
    let mut setup = Setup::default();
    setup.bounds.tombstone_ttl = 3650 * DAY; // what goes after its time does so when it is looked for
    let store = S::open(setup.clone()).await;
    let clock = Arc::new(store.clock().clone());
    let model = MemoryLedger::new(clock, setup.bounds, setup.destinations);
    let mut story = Story {
        store,
        model,
        plain: Plain::default(),
        launchdarkly: BTreeMap::new(),
        versions: BTreeMap::new(),
        calls: Vec::new(),
        late: Vec::new(),
        maybe_unheard: BTreeSet::new(),
        last_parked: None,
        other_is_known: false,
        is_first_life: true,
        has_reported: false,
    };
    for act in acts {
        story.store.clock().advance(SECOND); // no stamp of one act is given out in another
        story.act(act).await;
        story.forget_who_is_gone();
    }
    story.look().await;
    story.end().await;
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

    async fn record(&mut self, items: &[Item], both: bool) {
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

    async fn claim(&mut self, name: &DestinationName, audience: &AudienceId, limit: usize) {
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

    async fn claim_again(&mut self, audience: &AudienceId, key: &str) {
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

    async fn claim_told(&mut self) {
        self.claim_both(Claim::Told { after: None }).await;
    }

    /// A claim that leaves no choice.
    async fn claim_both(&mut self, claim: Claim) {
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
    fn called(&mut self, name: &DestinationName, store: Batch, keys: &[Key]) {
        let model = self.model.claim_these(name, keys);
        assert_same(&store, &model);
        self.calls.push(Call { store, model });
    }

    fn take(&mut self, which: Index) -> Option<Call> {
        (!self.calls.is_empty()).then(|| self.calls.swap_remove(which.index(self.calls.len())))
    }

    /// LaunchDarkly is told.
    fn tell(&mut self, batch: &Batch) {
        for (key, member) in keys_of(batch).iter().zip(&batch.members) {
            let who = who(&batch.route.destination, key);
            let before = self.versions.insert(who.clone(), member.version);
            assert!(before.is_none_or(|before| before <= member.version), "older than before (P3)");
            self.launchdarkly.insert(who, member.membership.as_bool());
        }
    }

    /// Nobody knows whether LaunchDarkly was told or will be.
    fn is_late(&mut self, batch: &Batch) {
        for (key, member) in keys_of(batch).iter().zip(&batch.members) {
            if self.model.member_of(&batch.route.destination, key).is_some() {
                let who = who(&batch.route.destination, key);
                self.late.push((who, member.membership.as_bool()));
            }
        }
    }

    async fn report(&mut self, call: &Call, report: impl Fn(Batch) -> Report) {
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
    async fn ask_who_stays(&mut self, name: &DestinationName, copy: &MemoryLedger) {
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

    async fn split(&mut self, call: Call) {
        if call.store.members.len() < 2 {
            self.calls.push(call);
            return;
        }
        let halves = |batch: &Batch| {
            let (one, other) = batch.members.split_at(1);
            let half = |members: &[_]| Batch {
                route: Arc::clone(&batch.route),
                members: members.to_vec(),
            };
            [half(one), half(other)]
        };
        let (by_store, by_model) = (halves(&call.store), halves(&call.model));
        self.report(&call, |batch| Report::Split(halves(&batch).to_vec())).await;
        let calls = by_store.into_iter().zip(by_model);
        self.calls.extend(calls.map(|(store, model)| Call { store, model }));
    }

    async fn operate(&mut self, asked: Act) {
        let (store, name) = (self.store.operations(), production());
        let model = self.model.clone();
        let of = |number: Option<u8>| number.map(audience);
        match asked {
            Act::Requeue(which) | Act::Discard(which) => {
                let parked: Vec<Key> = model.everybody_parked(&name).into_iter().collect();
                if parked.is_empty() {
                    return;
                }
                let (audience, key) = parked[which.index(parked.len())].clone();
                let of = who(&name, &(audience.clone(), key.clone()));
                let members = Members { destination: name, audience, context_keys: vec![key] };
                let (by_store, by_model) = if matches!(asked, Act::Requeue(_)) {
                    (store.requeue(members.clone()).await, model.requeue(members).await)
                } else {
                    self.plain.members.remove(&of);
                    self.late.retain(|(who, _)| *who != of);
                    (
                        store.discard_parked(members.clone()).await,
                        model.discard_parked(members).await,
                    )
                };
                assert_eq!(by_store.expect("there is space"), by_model.expect("it is known"));
            }
            Act::DiscardRejected(which) => {
                self.store.caught_up().await;
                let by_store = store.rejected(&name, 0, 999).await.expect("it is open");
                let by_model = model.rejected(&name, 0, 999).await.expect("it is open");
                assert_eq!(by_store.len(), by_model.len(), "rejected events");
                if !by_store.is_empty() {
                    let at = which.index(by_store.len());
                    let discarded = store.discard_rejected(&name, vec![by_store[at].id]).await;
                    assert_eq!(discarded.expect("there is space"), 1);
                    let discarded = model.discard_rejected(&name, vec![by_model[at].id]).await;
                    assert_eq!(discarded.expect("it is known"), 1);
                }
            }
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

    /// Both stores take the setup as it is now.
    async fn configure(&mut self) {
        self.store.configure().await;
        self.walked().await;
        self.model.configure(self.store.setup().destinations.clone());
    }

    async fn move_away(&mut self, by_restart: bool) {
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

    async fn restart(&mut self, is_killed: bool) {
        for call in std::mem::take(&mut self.calls) {
            self.is_late(&call.store);
        }
        for name in [production(), other()] {
            let pending = self.model.pending(&name);
            self.maybe_unheard.extend(pending.iter().map(|key| who(&name, key)));
        }
        self.last_parked = None;
        self.is_first_life = false;
        let Setup { destinations, bounds } = self.store.setup().clone();
        self.other_is_known = destinations.len() > 1;
        if is_killed {
            if !self.other_is_known || self.has_reported {
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
    async fn walked(&self) {
        let operations = self.store.operations();
        let is_over = async || {
            let all = operations.destinations().await.expect("it is open");
            all.iter().all(|of| of.unvisited == 0)
        };
        self.store.until(is_over).await;
    }

    /// These are removed.
    fn retracted(&mut self, are: &dyn Fn(&Key) -> bool) {
        let (name, now) = (production(), self.store.operations().arrival().0);
        let views = self.model.members(&name).into_iter();
        let keys = views
            .map(|of| (id(&of.audience), ContextKey::new(&of.context_key).expect("not empty")));
        let keys: Vec<Key> = keys.filter(|key| are(key)).collect();
        for key in &keys {
            self.plain.members.entry(who(&name, key)).and_modify(|truth| truth.remove(now));
        }
    }

    /// Whose rows are gone: nothing is remembered of them.
    fn forget_who_is_gone(&mut self) {
        let model = self.model.clone();
        let is_gone = |(of, audience, key): &Who| {
            let name = DestinationName::new(of).expect("not empty");
            let key = (id(audience), ContextKey::new(key).expect("not empty"));
            model.member_of(&name, &key).is_none()
        };
        self.plain.forget_times(is_gone);
        self.versions.retain(|who, _| !is_gone(who));
        self.late.retain(|(who, _)| !is_gone(who));
        self.maybe_unheard.retain(|who| !is_gone(who));
    }

    /// Whoever looks sees the same.
    async fn look(&mut self) {
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
                    [operations.counters(), self.model.counters()].map(|all| {
                        let of = all.destinations.of(&name);
                        [&of.deltas, &of.repeats, &of.overtaken, &of.outlived].map(Count::get)
                    });
                assert_eq!(by_store, by_model, "deltas, repeats, overtaken, outlived: {name}");
            }
        }
    }

    /// Audiences with somebody in a call of whom nothing is known any more: a store may count that as one who waits less.
    fn audiences_erased_in_a_call(&self, name: &DestinationName) -> BTreeSet<String> {
        let calls = self.calls.iter().filter(|call| call.store.route.destination == *name);
        let members = calls.flat_map(|call| keys_of(&call.store));
        let gone = members.filter(|key| self.model.member_of(name, key).is_none());
        gone.map(|(audience, _)| audience.as_str().to_owned()).collect()
    }

    /// LaunchDarkly answers everything again, and ends as the latest events say.
    async fn end(mut self) {
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

    async fn deliver(&mut self, name: &DestinationName) {
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
    fn differences(&self) -> Option<Vec<(Who, Option<bool>, plain::Truth)>> {
        let differs = |(who, truth): (&Who, &plain::Truth)| {
            let told = self.launchdarkly.get(who).copied();
            let is_so = told == Some(truth.included) || (told.is_none() && truth.is_removed);
            (!is_so).then(|| (who.clone(), told, *truth))
        };
        let all: Vec<_> = self.plain.members.iter().filter_map(differs).collect();
        (!all.is_empty()).then_some(all)
    }
}

/// What the model knows of is there; an audience without members may be known to the store a little longer.
fn assert_known<T: std::fmt::Debug>(
    store: &Result<T, crate::ledger::LedgerError>,
    model: &Result<T, crate::ledger::LedgerError>,
) {
    assert!(store.is_ok() || model.is_err(), "{store:?} and {model:?}");
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

//! Where entries expire: whose has expired leaves, by event time, and any later event decides anew.

use std::time::Duration;

use super::subject::*;
use crate::clock::Clock;
use crate::ledger::Turnover;
use crate::membership::{AudienceKey, Membership, MembershipDelta, Timestamp};

/// How long entries of the audience `journey` last.
const LASTS: Duration = Duration::from_secs(100);

/// A new store in which the entries of one audience expire.
async fn with_expiry<S: Subject>() -> S {
    let mut setup = Setup::default();
    expire_in(&mut setup, &["journey"]);
    setup.bounds.tombstone_ttl = DAY; // whoever has left is still shown
    S::open(setup).await
}

/// From here on entries of these audiences expire, and of no others.
fn expire_in(setup: &mut Setup, audiences: &[&str]) {
    let key = |audience: &&str| AudienceKey::new(audience).expect("not empty");
    setup.destinations[0].expires_after = audiences.iter().map(|of| (key(of), LASTS)).collect();
}

fn second(number: i64) -> i64 {
    START.0 + number * 1_000_000
}

/// Enters the journey at this second of the story.
fn enters_at(key: &str, number: i64) -> MembershipDelta {
    delta("journey", key, true, second(number))
}

/// Moves the clock to this second of the story.
fn it_is<S: Subject>(store: &S, number: i64) {
    let now = store.clock().now();
    store.clock().advance(Timestamp(second(number)).since(now));
}

/// Whoever leaves the journey next, which is told.
async fn leaves_next<S: Subject>(store: &S) -> String {
    store.until_waiting(1).await;
    let batch = store.next("journey").await;
    let (key, included) = tells(&batch);
    assert!(!included, "it leaves");
    let key = key.to_owned();
    store.settle(batch).await;
    store.caught_up().await;
    key
}

/// Who is in, of everybody.
fn who_is_in<S: Subject>(store: &S) -> Vec<String> {
    let all = store.everybody().into_iter();
    all.filter(|(_, _, included)| *included).map(|(_, key, _)| key).collect()
}

pub(crate) async fn whose_entry_has_expired_leaves_by_event_time<S: Subject>() {
    let store = with_expiry::<S>().await;
    store.record(vec![enters_at("ada", 0), enters_at("bob", -50)]).await;
    store.drain(&production()).await;
    assert_eq!(store.operations().take_turnover(&production()).len(), 1);
    it_is(&store, 49);
    store.upkeep().await;
    store.caught_up().await;
    assert_eq!(who_is_in(&store), ["ada", "bob"]);
    it_is(&store, 50);
    assert_eq!(leaves_next(&store).await, "bob", "whenever it arrived");
    assert_eq!(who_is_in(&store), ["ada"]);
    it_is(&store, 100);
    assert_eq!(leaves_next(&store).await, "ada");
    assert_eq!(who_is_in(&store), [""; 0]);
    for of in store.members(&production()) {
        let entered = if of.context_key == "ada" { second(0) } else { second(-50) };
        assert_eq!((of.expired, of.event_at), (true, Timestamp(entered)), "told from an exit");
    }
    let turnover = Turnover { joined: 0, left: 2, expired: 2 };
    assert_eq!(store.operations().take_turnover(&production()), [(id("journey"), turnover)]);
    let operations = store.operations();
    assert_eq!(operations.recordings().of(&production()).expired.get(), 2);
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn a_repeated_entry_renews_and_an_exit_is_an_exit<S: Subject>() {
    let store = with_expiry::<S>().await;
    store.record(vec![enters_at("ada", 0), enters_at("bob", 0), enters_at("cyd", 0)]).await;
    store.drain(&production()).await;
    it_is(&store, 60);
    let cyd_leaves = MembershipDelta { membership: Membership::Out, ..enters_at("cyd", 60) };
    store.record(vec![enters_at("ada", 60), cyd_leaves]).await;
    assert_eq!(tells(&store.next("journey").await), ("cyd", false), "a renewal says nothing new");
    it_is(&store, 120);
    store.until(async || who_is_in(&store) == ["ada"]).await;
    it_is(&store, 160);
    store.until(async || who_is_in(&store).is_empty()).await;
    let expired = |key: &str| {
        store
            .members(&production())
            .into_iter()
            .find(|of| of.context_key == key)
            .map(|of| of.expired)
    };
    assert_eq!(["ada", "bob", "cyd"].map(expired), [Some(true), Some(true), Some(false)]);
}

pub(crate) async fn only_a_later_event_brings_back_whose_entry_has_expired<S: Subject>() {
    let store = with_expiry::<S>().await;
    store.record(vec![enters_at("ada", 0)]).await;
    store.drain(&production()).await;
    it_is(&store, 110);
    assert_eq!(leaves_next(&store).await, "ada");
    let waits = async || store.waiting(&production()).await;
    let same = enters_at("ada", 0);
    store.record(vec![enters_at("ada", -1), same, enters_at("ada", 5)]).await;
    assert_eq!((who_is_in(&store), waits().await), (vec![], 0), "all of these have expired too");
    // It was sent while ada was in, and comes late: she would not have left, had it come at once.
    store.record(vec![enters_at("ada", 50)]).await;
    assert_eq!(tells(&store.next("journey").await), ("ada", true));
    it_is(&store, 150);
    store.until(async || who_is_in(&store).is_empty()).await;
    store.record(vec![enters_at("ada", 140)]).await;
    assert_eq!(who_is_in(&store), ["ada"], "she returns");
}

pub(crate) async fn an_entry_that_arrives_expired_is_told_as_an_exit<S: Subject>() {
    let store = with_expiry::<S>().await;
    it_is(&store, 200);
    store.record(vec![enters_at("ada", 100), enters_at("bob", 101)]).await;
    assert_eq!(who_is_in(&store), ["bob"]);
    let told = store.drain(&production()).await;
    let of = |key: &str| told.get(&("journey".to_owned(), key.to_owned())).copied();
    assert_eq!((of("ada"), of("bob")), (Some(false), Some(true)), "never told is unknown");
}

pub(crate) async fn entries_expire_across_a_crash_and_a_restart<S: Subject>() {
    let mut store = with_expiry::<S>().await;
    store.record(vec![enters_at("ada", 0), enters_at("bob", 30)]).await;
    store.drain(&production()).await;
    store.crash().await;
    store.applied().await;
    store.drain(&production()).await; // who was settled may have to be told again after a kill
    it_is(&store, 100);
    store.reopen().await;
    store.applied().await;
    assert_eq!(leaves_next(&store).await, "ada", "nobody was there to see it");
    store.crash().await;
    store.record(vec![enters_at("ada", 0)]).await;
    assert_eq!(who_is_in(&store), ["bob"], "and stays out");
    it_is(&store, 130);
    store.until(async || who_is_in(&store).is_empty()).await;
    store.crash().await;
    store.caught_up().await;
    let found = store.members(&production());
    assert!(found.len() == 2 && found.iter().all(|of| of.expired), "it is durable");
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn entries_of_other_audiences_do_not_expire<S: Subject>() {
    let mut store = with_expiry::<S>().await;
    let lasting = |key: &str| delta("lasting", key, true, second(0));
    store.record(vec![enters_at("ada", 0), lasting("ada"), lasting("bob")]).await;
    store.drain(&production()).await;
    it_is(&store, 1000);
    assert_eq!(leaves_next(&store).await, "ada");
    assert_eq!(who_is_in(&store), ["ada", "bob"]);
    // The setting comes and goes while the store is open, for whoever is in already.
    store.record(vec![enters_at("cyd", 950)]).await;
    expire_in(store.setup(), &["lasting"]);
    store.configure().await;
    it_is(&store, 2000);
    store.until(async || who_is_in(&store) == ["cyd"]).await;
    // It follows the audience's name.
    let renamed = AudienceKey::new("lasting").expect("not empty");
    let mut dan = enters_at("dan", 2000);
    dan.audience_key = renamed;
    store.record(vec![dan]).await;
    store.until(async || who_is_in(&store) == ["dan"]).await;
}

pub(crate) async fn who_is_deleted_stays_deleted_whatever_expires<S: Subject>() {
    let mut store = with_expiry::<S>().await;
    let under_email = |number| under("u1", enters_at("ada@example.com", number));
    store.record(vec![under_email(0)]).await;
    store.drain(&production()).await;
    it_is(&store, 110);
    assert_eq!(leaves_next(&store).await, "ada@example.com");
    // The deletion was asked for while the entry lasted, and comes after it has expired.
    let asked = intake(&*store.operations(), &production(), Vec::new());
    store.take_in(vec![and_delete("u1", Timestamp(second(50)), asked)]).await;
    store.crash().await;
    store.applied().await;
    store.drain(&production()).await;
    store.caught_up().await;
    assert_eq!(store.everybody(), [], "the row is found and erased");
    store.record(vec![under_email(30)]).await;
    assert_eq!(store.everybody(), [], "what is older stays away");
    // Whoever is to be erased does not expire instead.
    store.record(vec![enters_at("bob", 60)]).await;
    store.drain(&production()).await;
    store.operations().forget(&production(), user("bob")).await.expect("there is space");
    it_is(&store, 170);
    store.upkeep().await;
    assert!(store.members(&production()).iter().all(|of| !of.expired));
    store.drain(&production()).await;
    store.caught_up().await;
    assert_eq!(store.everybody(), []);
}

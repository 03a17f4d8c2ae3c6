//! What people see, and what they ask for.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::subject::*;
use crate::ledger::{Intake, MemberView, ParkedAfter, Recorded, Report, Retention, Unheard};
use crate::ledger::{LedgerError, Turnover};
use crate::membership::{DestinationName, Membership, MembershipDelta};

pub(crate) async fn the_turnover_counts_changes_once_and_repeats_never<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let operations = store.operations();
    let taken = || {
        let mut taken = operations.take_turnover(&production());
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        taken
    };
    let of = |audience, joined, left| (id(audience), Turnover { joined, left, expired: 0 });
    store.record(enter("a", &["ada", "bob", "cyd"])).await;
    store.record(enter("b", &["ada"])).await;
    store.record(enter("a", &["ada", "bob"])).await;
    store.record(vec![delta("a", "eve", false, 1)]).await; // was never in
    assert_eq!(taken(), [of("a", 3, 0), of("b", 1, 0)]);
    assert_eq!(taken(), []);
    store.record(vec![delta("a", "ada", false, 2), delta("a", "bob", false, 0)]).await;
    operations.resync(&production(), None).await.expect("there is space");
    operations.forget(&production(), user("cyd")).await.expect("there is space");
    assert_eq!(
        taken(),
        [of("a", 0, 2)],
        "what is older changes nothing, and telling again neither"
    );
}

pub(crate) async fn the_counters_say_what_became_of_deltas<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let read = || {
        let operations = store.operations();
        let of = operations.recordings().of(&production());
        [&of.deltas, &of.repeats, &of.overtaken, &of.outlived].map(crate::counting::Count::get)
    };
    assert_eq!(read(), [0, 0, 0, 0]);
    let ahead = START.after(SECOND).0;
    store.record(vec![delta("a", "ada", true, 5), delta("a", "bob", true, ahead)]).await;
    store.record(vec![delta("a", "ada", true, 6), delta("a", "ada", false, 4)]).await;
    assert_eq!(read(), [4, 1, 1, 0]);
    let asked = intake(&*store.operations(), &production(), Vec::new());
    let arrival = asked.arrival;
    store.take_in(vec![and_delete("bob", arrival, asked)]).await;
    assert_eq!(read(), [4, 1, 1, 1], "bob was ahead");
}

/// The context keys of a page of parked members, of one audience or all, behind one of them.
async fn page<S: Subject>(
    store: &S,
    audience: Option<&str>,
    (behind, context_key): (&str, &str),
    limit: u32,
) -> Vec<String> {
    let after = ParkedAfter { audience: behind.to_owned(), context_key: context_key.to_owned() };
    let audience = audience.map(id);
    let found = store.operations().parked(&production(), audience.as_ref(), &after, limit).await;
    found.expect("it is open").into_iter().map(|of| of.context_key).collect()
}

pub(crate) async fn parked_members_are_listed_with_launchdarklys_words_until_they_are_taken<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob"])).await;
    store.record(enter("b", &["cyd"])).await;
    store.park(store.next("a").await).await;
    store.park(store.next("b").await).await;
    store.crash().await;
    let parked = store.parked().await;
    let listed: Vec<_> = parked.iter().map(|of| (&*of.audience, &*of.context_key)).collect();
    assert_eq!(listed, [("a", "ada"), ("a", "bob"), ("b", "cyd")]);
    let said = (parked[0].status, &*parked[0].code, &*parked[0].message, &*parked[0].answer_id);
    assert_eq!(said, (400, "invalid_request", "no", "1234"));
    assert_eq!(page(&store, None, ("a", "ada"), 1).await, ["bob"]);
    assert_eq!(page(&store, Some("a"), ("", ""), 9).await, ["ada", "bob"]);
    assert_eq!(page(&store, None, ("a", "bob"), 9).await, ["cyd"]);
    let view = store.view().await;
    assert_eq!((view.parked, view.parked_since), (3, Some(parked[0].parked_at)));

    assert_eq!(store.requeue("a", &["ada", "bob"]).await, 2);
    let view = store.view().await;
    assert_eq!(
        (view.parked, view.parked_since),
        (1, Some(parked[2].parked_at)),
        "of those who are"
    );
    store.crash().await;
    let alone = store.next("a").await;
    let bob = if keys(&alone) == ["bob"] { alone } else { store.next("a").await };
    store.park(bob).await;
    store.reopen().await;
    assert_eq!(page(&store, None, ("", ""), 9).await, ["bob", "cyd"], "ada is being tried");
    store.settle(store.next("a").await).await;
    assert_eq!(page(&store, None, ("", ""), 9).await, ["bob", "cyd"]);
    store.record(vec![delta("a", "bob", false, 2)]).await;
    assert_eq!(page(&store, None, ("", ""), 9).await, ["cyd"], "a newer value may be taken");
    assert_eq!(tells(&store.next("a").await), ("bob", false));
}

pub(crate) async fn parked_members_are_tried_again_and_nobody_else<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["told"])).await;
    store.drain(&production()).await;
    store.record(enter("a", &["ada", "bob"])).await;
    store.park(store.next("a").await).await;
    assert_eq!(store.requeue("a", &["ada", "told", "nobody"]).await, 1);
    assert_eq!(store.requeue("a", &["ada"]).await, 0, "it waits already");
    assert_eq!(store.requeue("z", &["ada"]).await, 0);
    store.crash().await;
    let batch = store.next("a").await;
    assert_eq!(keys(&batch), ["ada"]);
    assert!(store.claim("a", 9).await.is_none());
    let view = store.view().await;
    assert_eq!((view.pending, view.parked), (1, 1));
}

pub(crate) async fn parked_members_can_be_given_up_and_nobody_else<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.record(enter("a", &["bob"])).await;
    store.park(store.claim("a", 1).await.expect("two wait")).await;
    let view = store.view().await;
    assert_eq!((view.included, view.pending, view.parked), (2, 1, 1));
    let discarded = store.operations().discard_parked(members("a", &["ada", "bob", "x"])).await;
    assert_eq!(discarded.expect("there is space"), 1);
    store.crash().await;
    assert!(store.parked().await.is_empty());
    assert_eq!(store.view().await.included, 1);
    store.record(enter("a", &["ada"])).await;
    let both = store.next("a").await;
    assert_eq!(keys(&both), ["bob", "ada"], "as if new");
    assert_eq!(store.requeue("a", &["ada"]).await, 0);
}

pub(crate) async fn a_refusal_that_was_everybodys_is_taken_back<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob"])).await;
    let both = store.next("a").await;
    store.park(only(&both, "ada")).await;
    store.release(only(&both, "bob"), Unheard::No).await;
    store.report(Report::Unpark(both)).await; // bob was not parked
    store.crash().await;
    assert_eq!(store.view().await.parked, 0);
    let first = store.next("a").await;
    let second = store.next("a").await;
    assert_eq!((keys(&first), keys(&second)), (vec!["bob"], vec!["ada"]), "each alone");
}

pub(crate) async fn parked_members_are_bounded_and_the_oldest_go_first<S: Subject>() {
    for kept in [
        Retention { max_age: DAY, max_count: 3, max_bytes: 1 << 20 },
        // Each has a key of 2, a code of 15, a message of 2 and an id of 4 bytes.
        Retention { max_age: DAY, max_count: 1000, max_bytes: 3 * 23 },
    ] {
        let mut store = S::open(Setup::default()).await;
        let people: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
        for key in &people {
            store.record(enter("a", &[key])).await;
            store.park(store.next("a").await).await;
        }
        store.setup().bounds.parked = kept;
        store.reopen().await;
        store.until(async || store.parked().await.len() == 3).await;
        let left: Vec<String> =
            store.parked().await.into_iter().map(|view| view.context_key).collect();
        assert_eq!(left, ["p5", "p6", "p7"]);
        assert_eq!(store.view().await.included, 3, "as if the others had never been seen");
        assert_eq!(store.faults(), [""; 0]);
    }
}

pub(crate) async fn rejected_events_are_bounded_and_the_oldest_go_first<S: Subject>() {
    let mut setup = Setup::default();
    setup.bounds.rejected = Retention { max_age: DAY, max_count: 3, max_bytes: 1000 };
    let mut store = S::open(setup).await;
    let keep = async |store: &S, size: usize| {
        let event = rejected(&vec![b'x'; size], None);
        let none = intake(&*store.operations(), &production(), Vec::new());
        store.take_in(vec![Intake { rejected: vec![event], ..none }]).await;
    };
    let sizes = async |store: &S| -> Vec<usize> {
        let all = store.operations().rejected(&production(), 0, 10).await.expect("it is open");
        all.iter().map(|event| event.body.len()).collect()
    };
    for size in [1, 2, 3, 4] {
        keep(&store, size).await;
    }
    assert_eq!(sizes(&store).await, [2, 3, 4], "at most three");
    store.crash().await;
    keep(&store, 995).await;
    assert_eq!(sizes(&store).await, [4, 995], "at most 1000 bytes, counted across a crash");
    keep(&store, 2000).await;
    assert_eq!(sizes(&store).await, [4, 995], "one that is larger drives nobody out");
}

pub(crate) async fn what_is_parked_or_rejected_goes_when_it_is_too_old<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.record(enter("a", &["bob"])).await;
    store.park(store.claim("a", 1).await.expect("two wait")).await;
    let none = intake(&*store.operations(), &production(), Vec::new());
    store.take_in(vec![Intake { rejected: vec![rejected(b"{}", None)], ..none }]).await;
    store.clock().advance(DAY / 2);
    store.reopen().await; // looks at once
    store.upkeep().await;
    let view = store.view().await;
    assert_eq!((view.parked, view.rejected), (1, 1), "not yet");
    store.clock().advance(DAY);
    store.reopen().await;
    let left = async |store: &S| {
        let view = store.view().await;
        (view.parked, view.rejected)
    };
    store.until(async || left(&store).await == (0, 0)).await;
    let view = store.view().await;
    assert_eq!((view.included, view.pending), (1, 1), "bob waits as before");
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn rejected_events_are_discarded_by_number<S: Subject>() {
    let mut store = two_of_each::<S>().await;
    let listed = async |store: &S, name: &DestinationName, after| {
        let all = store.operations().rejected(name, after, 10).await.expect("it is open");
        all.into_iter().map(|of| (of.id, of.body)).collect::<Vec<_>>()
    };
    let of = listed(&store, &production(), 0).await;
    assert_eq!(of.len(), 2);
    assert_eq!(listed(&store, &production(), of[0].0).await, of[1..], "behind the first");
    let ids = vec![of[0].0, listed(&store, &other(), 0).await[0].0, 9_999];
    let discarded = store.operations().discard_rejected(&production(), ids).await;
    assert_eq!(discarded.expect("there is space"), 1, "only those of the destination");
    store.crash().await;
    assert_eq!(listed(&store, &production(), 0).await, of[1..]);
    assert_eq!(listed(&store, &other(), 0).await.len(), 2);
}

/// Two destinations with two rejected events each.
async fn two_of_each<S: Subject>() -> S {
    let mut setup = Setup::default();
    setup.destinations.push(settings(&other()));
    let store = S::open(setup).await;
    for name in [production(), other()] {
        let events = vec![rejected(b"1", None), rejected(b"2", None)];
        let none = intake(&*store.operations(), &name, Vec::new());
        store.take_in(vec![Intake { rejected: events, ..none }]).await;
    }
    store
}

pub(crate) async fn an_erased_audience_is_gone_at_once_and_its_name_is_free<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.record(enter("a", &["bob"])).await;
    store.record(enter("b", &["ada"])).await;
    let out = store.claim("a", 1).await.expect("two wait");
    let erased = store.operations().erase(&production(), Some(&id("a"))).await;
    assert_eq!(erased.expect("there is space"), 1);
    assert!(store.claim("a", 9).await.is_none(), "nothing is left to be told");
    let phone = MembershipDelta { context_kind: device(), ..delta("a", "ada", true, 1) };
    assert_eq!(store.record(vec![phone]).await, Recorded::default(), "its kind is free too");
    assert!(store.claim("a", 9).await.is_none(), "ada is in a call (P3)");
    store.settle(out).await;
    let again = store.next("a").await;
    assert_eq!((tells(&again), again.route.context_kind.as_str()), (("ada", true), "device"));
    store.settle(again).await;
    store.until(async || store.members(&production()).len() == 2).await;
    assert_eq!(store.faults(), [""; 0]);
    store.crash().await;
    let listed = store.operations().audiences(&production()).await.expect("it is known");
    assert_eq!(listed.iter().map(|of| &*of.audience).collect::<Vec<_>>(), ["a", "b"]);
    let unknown = store.operations().erase(&production(), Some(&id("z"))).await;
    assert!(matches!(unknown, Err(LedgerError::UnknownAudience(_))));
}

pub(crate) async fn a_retracted_audience_is_told_that_everybody_left_and_then_forgotten<
    S: Subject,
>() {
    let mut store = S::with_reassertions().await;
    store.record(enter("a", &["ada", "bob", "cyd"])).await;
    store.drain(&production()).await;
    store.record(vec![delta("a", "bob", false, 2)]).await;
    let mut told = store.drain(&production()).await;
    assert_eq!(store.operations().retract(&production(), None).await.expect("there is space"), 1);
    store.crash().await;
    store.until_waiting(2).await;
    assert_eq!(those(&store.next("a").await), BTreeSet::from(["ada", "cyd"]), "bob is known");
    store.reopen().await; // in the middle of a call, so that both are told twice
    let all = async |told: &mut BTreeMap<_, _>| {
        while !store.members(&production()).is_empty() {
            told.extend(store.drain(&production()).await);
            store.upkeep().await;
            store.caught_up().await;
        }
    };
    tokio::time::timeout(DEADLINE, all(&mut told)).await.expect("their rows go in time");
    assert!(told.len() == 3 || told.len() == 2, "{}", told.len());
    assert!(told.values().all(|included| !included));
    assert!(store.operations().audiences(&production()).await.expect("it is known").is_empty());
}

pub(crate) async fn a_retracted_audience_leaves_its_place_to_a_new_one<S: Subject>() {
    let mut setup = Setup::default();
    setup.bounds.max_audiences = 1;
    let store = S::open(setup).await;
    for audience in ["a", "b", "c"] {
        let recorded = async || {
            let recorded = store.record(enter(audience, &["ada", "bob"])).await;
            recorded.without_place.is_empty()
        };
        store.until(recorded).await; // its place is free some time after the last member of the one before is gone
        assert_eq!(store.drain(&production()).await.len(), 2);
        store.operations().retract(&production(), Some(&id(audience))).await.expect("it is known");
        let all_left = async || {
            store.drain(&production()).await;
            store.members(&production()).is_empty()
        };
        store.until(all_left).await;
    }
}

pub(crate) async fn who_waits_to_be_told_is_told_before_a_retraction_erases_it<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob", "cyd"])).await;
    store.drain(&production()).await;
    // Ada is out and not told so, bob was told and may be in all the same, and cyd is known to be out.
    store.record(vec![delta("a", "bob", false, 2), delta("a", "cyd", false, 2)]).await;
    let both = store.next("a").await;
    store.settle(only(&both, "cyd")).await;
    store.release(only(&both, "bob"), Unheard::Perhaps).await;
    store.record(vec![delta("a", "ada", false, 2)]).await;
    store.record(vec![delta("a", "never", false, 2)]).await;
    store.operations().retract(&production(), Some(&id("a"))).await.expect("there is space");
    store.crash().await;
    store.until(async || store.members(&production()).len() == 3).await;
    let batch = store.next("a").await;
    assert_eq!(those(&batch), BTreeSet::from(["ada", "bob", "never"]));
    assert!(batch.members.iter().all(|of| of.membership == Membership::Out));
    store.settle(batch).await;
    store.caught_up().await;
    let left = store.everybody();
    let bob = ("a".to_owned(), "bob".to_owned(), false);
    assert_eq!(left, [bob], "bob is told once more first");
}

pub(crate) async fn only_stale_members_are_retracted<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let by = |rule, key| MembershipDelta { key_rule: rule, ..delta("a", key, true, 1) };
    store.record(vec![by(1, "u1"), by(2, "u1@example.com"), by(7, "other")]).await;
    store.drain(&production()).await;
    let operations = store.operations();
    let any = async |rules: &[u32]| {
        operations.any_under_rules(&production(), &id("a"), rules).await.expect("it is open")
    };
    assert_eq!((any(&[3, 2]).await, any(&[3]).await, any(&[]).await), (true, false, false));
    operations.retract_stale(&production(), &id("a"), vec![2, 9]).await.expect("there is space");
    store.until_waiting(2).await;
    drop(operations);
    store.crash().await;
    let batch = store.next("a").await;
    assert_eq!(those(&batch), BTreeSet::from(["other", "u1"]));
    store.reopen().await;
    assert_eq!(store.members(&production()).len(), 3, "until it was told");
}

pub(crate) async fn a_person_is_shown_under_every_key<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let under_email = under("u1", delta("b", "u1@example.com", true, 5));
    let deltas = vec![delta("a", "u1", false, 3), under_email, delta("a", "u2", true, 1)];
    store.record(deltas).await;
    let shown = async |key: &str| -> Vec<(String, String, bool, Option<bool>)> {
        let found = store.operations().member(&production(), key).await.expect("it is known");
        let of = |view: MemberView| (view.audience, view.context_key, view.included, view.told);
        found.into_iter().map(of).collect()
    };
    let (a, b) = (
        ("a".to_owned(), "u1".to_owned(), false, None),
        ("b".to_owned(), "u1@example.com".to_owned(), true, None),
    );
    assert_eq!(shown("u1").await, [a, b.clone()]);
    assert_eq!(shown("u1@example.com").await, [b]);
    assert!(shown("u3").await.is_empty());
}

pub(crate) async fn a_pause_lasts_across_a_restart_and_wakes_the_courier_when_it_ends<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    let paused_since = |store: &S| store.operations().outbox(&production()).paused_since();
    store.operations().pause(&production(), true).await.expect("there is space");
    let since = paused_since(&store).expect("it is paused");
    store.clock().advance(SECOND);
    store.operations().pause(&production(), true).await.expect("there is space");
    store.crash().await;
    assert_eq!(paused_since(&store), Some(since), "the first pause counts");
    assert_eq!(store.view().await.paused_since, Some(since));
    store.record(enter("a", &["ada"])).await;
    assert_eq!(store.waiting(&production()).await, 1, "events are accepted all the while");
    let mut news = store.operations().outbox(&production()).news();
    news.mark_unchanged();
    store.operations().pause(&production(), false).await.expect("there is space");
    tokio::time::timeout(DEADLINE, news.changed()).await.expect("in time").expect("it is open");
    assert_eq!(paused_since(&store), None);
}

pub(crate) async fn a_note_is_for_the_next_start<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    assert_eq!(store.operations().note(), None);
    for note in ["one", "another"] {
        store.operations().leave_note(note.to_owned()).await.expect("there is space");
        assert_ne!(store.operations().note(), Some(note), "as it was when it was opened");
        store.crash().await;
        assert_eq!(store.operations().note(), Some(note));
    }
}

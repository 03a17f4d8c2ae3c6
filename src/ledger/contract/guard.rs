//! When the guard holds an audience, and what an operator decides on it.

use std::time::Duration;

use super::subject::*;
use crate::ledger::{GuardLimits, HeldAudience, LedgerError};
use crate::membership::MembershipDelta;

const PEOPLE: usize = 20;

fn person(number: usize) -> String {
    format!("p{number:03}")
}

/// From ten members on, at most half of them may leave in an hour.
async fn guarded<S: Subject>() -> S {
    let mut setup = Setup::default();
    setup.destinations[0].guard = GuardLimits { min_members: 10, ..GuardLimits::default() };
    S::open(setup).await
}

/// The same with an audience that everybody was told of long ago.
async fn filled<S: Subject>() -> S {
    let store = guarded::<S>().await;
    let people: Vec<_> = (0..PEOPLE).map(|number| delta("a", &person(number), true, 1)).collect();
    store.record(people).await;
    assert_eq!(store.drain(&production()).await.len(), PEOPLE);
    store.clock().advance(Duration::from_secs(7200));
    store
}

/// These leave, at this event time.
fn leave(numbers: std::ops::Range<usize>, at: i64) -> Vec<MembershipDelta> {
    numbers.map(|number| delta("a", &person(number), false, at)).collect()
}

fn held<S: Subject>(store: &S) -> Vec<HeldAudience> {
    store.operations().held_audiences(&production())
}

fn included<S: Subject>(store: &S) -> Vec<String> {
    let of = store.everybody().into_iter().filter(|(.., is_in)| *is_in);
    of.map(|(_, key, _)| key).collect()
}

/// Occasions for what is done beside the verbs, until nothing is held.
async fn until_free<S: Subject>(store: &S) {
    store.until(async || held(store).is_empty()).await;
    store.caught_up().await;
}

pub(crate) async fn too_many_exits_hold_an_audience_across_a_crash_and_others_go_on<S: Subject>() {
    let mut store = filled::<S>().await;
    for number in 0..10 {
        store.record(leave(number..number + 1, 2)).await;
    }
    assert_eq!(held(&store), [], "half of them");
    let in_flight = store.claim("a", 3).await.expect("ten wait");
    store.record(leave(10..11, 2)).await;
    let [of] = &held(&store)[..] else { panic!("one is held") };
    assert_eq!((&*of.audience, of.members, of.left, of.usual), ("a", 20, 11, 0));
    assert!(of.since >= of.window_since && !of.is_discarding);
    store.record(enter("b", &["ada"])).await;
    for is_again in [false, true] {
        assert!(store.claim("a", 99).await.is_none(), "nobody is told, {is_again}");
        let told = store.drain(&production()).await;
        // A kill may lose that it was told, and it is told again.
        let expected = is_again || told.len() == 1;
        assert!(expected && told.keys().all(|(of, _)| of == "b"), "another audience goes on");
        if is_again {
            break;
        }
        store.settle(in_flight.clone()).await;
        store.crash().await;
        store.applied().await;
        assert_eq!(held(&store).len(), 1);
    }
    store.reopen().await;
    assert_eq!(held(&store).len(), 1);
    store.record(leave(11..20, 2)).await;
    assert_eq!(store.waiting(&production()).await, 0, "events go on to the ledger");
    assert_eq!(included(&store), ["ada"]);
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn what_is_released_is_told_and_a_new_window_begins<S: Subject>() {
    let mut store = filled::<S>().await;
    store.record(leave(0..12, 2)).await;
    assert_eq!(store.waiting(&production()).await, 0);
    let operations = store.operations();
    let mut news = operations.outbox(&production()).news();
    news.mark_unchanged();
    let released = operations.release_held(&production(), Some(&id("a"))).await;
    assert_eq!(released.expect("there is space"), 1);
    tokio::time::timeout(DEADLINE, news.changed()).await.expect("in time").expect("it is open");
    let again = operations.release_held(&production(), None).await;
    assert_eq!(again.expect("there is space"), 0);
    let unknown = operations.discard_held(&production(), Some(&id("z"))).await;
    assert!(matches!(unknown, Err(LedgerError::UnknownAudience(_))));
    drop(operations);
    store.crash().await;
    store.applied().await;
    assert_eq!(held(&store), []);
    let told = store.drain(&production()).await;
    assert!(told.len() == 12 && told.values().all(|is_in| !is_in), "{}", told.len());
    store.record(leave(12..15, 2)).await;
    assert_eq!(held(&store), [], "what was released does not count, and eight are few");
    assert_eq!(included(&store).len(), 5);
}

pub(crate) async fn what_is_discarded_is_taken_back_and_nobody_else_is<S: Subject>() {
    let mut store = filled::<S>().await;
    store.record(leave(0..2, 2)).await; // in an earlier window
    store.record(vec![delta("a", "never", false, 2)]).await;
    store.drain(&production()).await;
    store.clock().advance(Duration::from_secs(7200));
    store.record(leave(2..4, 3)).await;
    assert_eq!(store.drain(&production()).await.len(), 2, "they are told before it is held");
    store.record(leave(4..20, 3)).await;
    store.record(vec![delta("a", "late", false, 3)]).await;
    let [of] = &held(&store)[..] else { panic!("it is held") };
    assert_eq!((of.members, of.left, of.usual), (18, 18, 2));
    let discarded = store.operations().discard_held(&production(), None).await;
    assert_eq!(discarded.expect("there is space"), 1);
    store.crash().await;
    store.applied().await;
    until_free(&store).await;
    let everybody: Vec<_> = (2..20).map(person).collect();
    assert_eq!(included(&store), everybody);
    let told = store.drain(&production()).await;
    let told_in = told.iter().filter(|(_, is_in)| **is_in).map(|((_, key), _)| key.clone());
    assert_eq!(told_in.collect::<Vec<_>>(), everybody, "the segment is as it was");
    store.reopen().await;
    assert_eq!((held(&store), included(&store)), (Vec::new(), everybody));
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn a_later_event_outranks_what_was_taken_back<S: Subject>() {
    let store = filled::<S>().await;
    store.record(leave(0..20, 2)).await;
    store.operations().discard_held(&production(), None).await.expect("there is space");
    until_free(&store).await;
    let now = store.operations().arrival().0;
    store.record(vec![delta("a", &person(0), false, now - 1_000_000)]).await;
    assert_eq!(included(&store).len(), PEOPLE, "it happened before the operator's decision");
    store.clock().advance(SECOND);
    let now = store.operations().arrival().0;
    store.record(vec![delta("a", &person(0), false, now)]).await;
    assert_eq!(included(&store).len(), PEOPLE - 1);
}

pub(crate) async fn deletions_and_a_retraction_do_not_count<S: Subject>() {
    let store = filled::<S>().await;
    for number in 0..15 {
        store.operations().forget(&production(), user(&person(number))).await.expect("space");
    }
    store.applied().await;
    assert_eq!(held(&store), []);
    assert_eq!(store.drain(&production()).await.len(), 15);
    // Whoever asks for a retraction has looked: it is told although the audience was held.
    let store = filled::<S>().await;
    store.record(leave(0..12, 2)).await;
    assert_eq!(held(&store).len(), 1);
    store.operations().retract(&production(), Some(&id("a"))).await.expect("there is space");
    store.until_waiting(20).await;
    assert_eq!(held(&store), []);
}

pub(crate) async fn a_small_audience_and_a_first_fill_are_not_held<S: Subject>() {
    let store = guarded::<S>().await;
    let few: Vec<_> = (0..9).map(|number| delta("few", &person(number), true, 1)).collect();
    store.record(few.clone()).await;
    let gone = few.into_iter().map(|of| delta("few", of.context_key.as_str(), false, 2));
    store.record(gone.collect()).await;
    assert_eq!(held(&store), []);
    let many = (0..50).map(|number| delta("a", &person(number), true, 1));
    store.record(many.collect()).await;
    assert_eq!(held(&store), [], "entries of a first fill are exempt");
    store.record(leave(0..26, 2)).await;
    assert_eq!(held(&store).len(), 1, "its exits are not");
}

pub(crate) async fn a_request_is_judged_as_a_whole<S: Subject>() {
    // Whatever the order in which a store applies them: the exits come first, or the entries.
    for first in ["0", "z"] {
        let store = guarded::<S>().await;
        let mut all = Vec::new();
        for number in 0..20 {
            let key = format!("{first}{number:02}");
            all.push(delta("a", &key, true, 1));
            if number < 10 {
                all.push(delta("a", &key, false, 2));
            }
            all.push(delta("a", &format!("m{number:02}"), true, 1));
        }
        store.record(all).await;
        assert_eq!(held(&store), [], "ten of forty left");
        store.record((0..11).map(|of| delta("a", &format!("m{of:02}"), false, 2)).collect()).await;
        assert_eq!(held(&store).len(), 1);
        store.operations().release_held(&production(), None).await.expect("there is space");
        assert_eq!(store.drain(&production()).await.len(), 40);
    }
}

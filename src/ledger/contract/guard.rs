//! When the guard holds an audience, and what an operator decides on it.

use std::time::Duration;

use super::subject::*;
use crate::ledger::{Batch, GuardLimits, HeldAudience, Intake, LedgerError, Origin, Unheard};
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
        store.record((0..15).map(|of| delta("a", &format!("m{of:02}"), false, 2)).collect()).await;
        assert_eq!(
            held(&store),
            [],
            "fifteen of thirty: a first fill is judged by how much smaller it became"
        );
        store.record(vec![delta("a", "m15", false, 2)]).await;
        assert_eq!(held(&store).len(), 1);
        store.operations().release_held(&production(), None).await.expect("there is space");
        assert_eq!(store.drain(&production()).await.len(), 40);
    }
}

pub(crate) async fn whoever_is_removed_otherwise_is_told_although_the_audience_is_held<
    S: Subject,
>() {
    let mut store = filled::<S>().await;
    let stale = MembershipDelta { key_rule: 9, ..delta("a", "stale", true, 1) };
    store.record(vec![stale]).await;
    store.drain(&production()).await;
    let forget = async |store: &S, number: usize| {
        store.operations().forget(&production(), user(&person(number))).await.expect("space");
        store.applied().await;
    };
    forget(&store, 19).await;
    store.record(leave(0..12, 2)).await;
    assert_eq!(held(&store).len(), 1);
    forget(&store, 0).await; // has left
    forget(&store, 18).await; // is in
    assert_eq!(store.waiting(&production()).await, 3);
    let mut batch = store.claim("a", 2).await.expect("they wait");
    assert_eq!(tells_of(&batch), [person(19), person(0)], "the longest pending goes first");
    assert_eq!(store.waiting(&production()).await, 1);
    store.release(batch, Unheard::No).await;
    assert_eq!(store.waiting(&production()).await, 3);
    store.crash().await;
    store.applied().await;
    assert_eq!(store.waiting(&production()).await, 3);
    forget(&store, 17).await;
    batch = store.next("a").await;
    let mut told = tells_of(&batch);
    told.sort();
    assert_eq!(told, [0, 17, 18, 19].map(person));
    assert!(batch.members.iter().all(|of| !of.membership.as_bool()));
    store.settle(batch).await;
    // Whoever returns waits with the others.
    forget(&store, 16).await;
    let now = store.operations().arrival().0 + 1;
    store.record(vec![delta("a", &person(16), true, now)]).await;
    assert_eq!(store.waiting(&production()).await, 0);
    store.reopen().await;
    assert_eq!(store.waiting(&production()).await, 0);
    let current = vec![delta("a", "any", true, 1).key_rule];
    let retracted = store.operations().retract_stale(&production(), &id("a"), current).await;
    retracted.expect("there is space");
    store.until_waiting(1).await;
    let batch = store.next("a").await;
    assert_eq!(tells_of(&batch), ["stale"]);
    store.settle(batch).await;
    assert_eq!(held(&store).len(), 1);
    store.operations().release_held(&production(), None).await.expect("there is space");
    let told = store.drain(&production()).await;
    assert_eq!(told.values().filter(|is_in| !**is_in).count(), 11, "the others who left");
    store.caught_up().await;
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn a_kill_counts_nothing_twice<S: Subject>() {
    let mut store = filled::<S>().await;
    let leaves = async |store: &S, number: usize| {
        let left = intake(&*store.operations(), &production(), leave(number..number + 1, 2));
        store.operations().record_all(vec![left]).await.expect("there is space");
        store.applied().await;
    };
    for number in 0..10 {
        leaves(&store, number).await;
        if number % 3 == 0 {
            // What is claimed is marked on the disk first, and the counts are there from then on.
            let batch = store.claim("a", 1).await.expect("somebody waits");
            store.release(batch, Unheard::No).await;
        }
        store.crash().await;
        store.applied().await;
        assert_eq!(held(&store), [], "{number} left");
    }
    leaves(&store, 10).await;
    let [of] = &held(&store)[..] else { panic!("more than half of them left") };
    assert_eq!((of.members, of.left), (20, 11), "none was forgotten, and none counted twice");
}

pub(crate) async fn who_is_out_because_an_entry_has_expired_has_not_left<S: Subject>() {
    let mut setup = Setup::default();
    let lasts = Duration::from_secs(100);
    let guarded = &mut setup.destinations[0];
    guarded.guard = GuardLimits { min_members: 10, ..GuardLimits::default() };
    guarded.expires_after = [(delta("a", "any", true, 1).audience_key, lasts)].into();
    let store = S::open(setup).await;
    let enter_now = async |numbers: std::ops::Range<usize>| {
        let now = store.operations().arrival().0;
        store.record(numbers.map(|of| delta("a", &person(of), true, now)).collect()).await;
        now
    };
    enter_now(0..PEOPLE).await;
    store.drain(&production()).await;
    store.clock().advance(lasts);
    store.until(async || included(&store).is_empty()).await;
    assert_eq!(held(&store), [], "all of them have expired");
    assert_eq!(store.drain(&production()).await.len(), PEOPLE);
    store.clock().advance(Duration::from_secs(7200));
    let entered = enter_now(0..PEOPLE).await;
    store.drain(&production()).await;
    store.clock().advance(2 * lasts);
    let over = (0..PEOPLE).map(|number| delta("a", &person(number), true, entered + 1_000_000));
    store.record(over.collect()).await;
    assert_eq!(included(&store), [""; 0]);
    assert_eq!(held(&store), [], "these were over when they came");
    store.drain(&production()).await;
    // Of a held audience nobody is told who has expired, nor taken back.
    store.clock().advance(Duration::from_secs(7200));
    let entered = enter_now(0..PEOPLE).await;
    store.drain(&production()).await;
    store.clock().advance(Duration::from_secs(50));
    store.record(leave(0..11, entered + 40_000_000)).await;
    assert_eq!(held(&store).len(), 1);
    store.clock().advance(Duration::from_secs(51));
    store.until(async || included(&store).is_empty()).await;
    assert_eq!(store.waiting(&production()).await, 0);
    store.operations().discard_held(&production(), None).await.expect("there is space");
    until_free(&store).await;
    assert_eq!(included(&store), (0..11).map(person).collect::<Vec<_>>());
}

pub(crate) async fn ordinary_streams_are_not_held<S: Subject>() {
    let store = guarded::<S>().await;
    let mut now = 0;
    let mut day = async |changes: Vec<(usize, bool)>| {
        now += 1;
        let deltas = changes.into_iter().map(|(of, is_in)| delta("a", &person(of), is_in, now));
        store.record(deltas.collect()).await;
        assert_eq!(held(&store), [], "day {now}");
        store.drain(&production()).await;
        store.clock().advance(DAY / 2);
    };
    // a first fill, growth, a tenth each day, and a sender that sends everybody again
    day((0..100).map(|of| (of, true)).collect()).await;
    for more in 0..5 {
        day((100 + 20 * more..120 + 20 * more).map(|of| (of, true)).collect()).await;
    }
    for turn in 0..10 {
        let goes = (20 * turn..20 * (turn + 1)).map(|of| (of, false));
        let comes = (20 * turn..20 * (turn + 1)).map(|of| (200 + of, true));
        day(goes.chain(comes).collect()).await;
        let is_in = |of: usize| of >= 20 * (turn + 1) && of < 200 + 20 * (turn + 1);
        let all = (0..200 + 20 * (turn + 1)).map(|of| (of, is_in(of)));
        day(all.collect()).await;
    }
    store.operations().resync(&production(), None).await.expect("there is space");
    store.until(async || store.waiting(&production()).await >= 200).await;
    assert_eq!((held(&store), included(&store).len()), (Vec::new(), 200));
}

/// Whom a batch tells of, in its order.
fn tells_of(batch: &Batch) -> Vec<String> {
    batch.members.iter().map(|of| of.context_key.as_str().to_owned()).collect()
}

pub(crate) async fn who_is_out_by_a_newer_snapshot_too_is_not_taken_back<S: Subject>() {
    let mut store = filled::<S>().await;
    store.record(leave(0..11, 5)).await;
    assert_eq!(held(&store).len(), 1);
    // The file agrees with the exits, so that nobody is written who left.
    let says = vec![delta("a", &person(19), true, 9)];
    let of_snapshot = intake(&*store.operations(), &production(), says);
    store.take_in(vec![Intake { origin: Origin::Snapshot, ..of_snapshot }]).await;
    store.record(leave(11..13, 12)).await;
    store.crash().await;
    store.applied().await;
    store.operations().discard_held(&production(), None).await.expect("there is space");
    until_free(&store).await;
    let expected: Vec<_> = (11..20).map(person).collect();
    assert_eq!(included(&store), expected, "only those who left after the file are back");
}

pub(crate) async fn a_confirmed_snapshot_passes_and_is_not_taken_back<S: Subject>() {
    let store = filled::<S>().await;
    let of_snapshot = intake(&*store.operations(), &production(), leave(0..8, 2));
    store.take_in(vec![Intake { origin: Origin::Snapshot, ..of_snapshot }]).await;
    store.record(leave(8..9, 3)).await;
    assert_eq!(held(&store), [], "eight were confirmed, and one left");
    assert_eq!(store.drain(&production()).await.len(), 9);
    store.record(leave(9..18, 3)).await;
    let [of] = &held(&store)[..] else { panic!("it is held") };
    assert_eq!(of.left, 10);
    store.operations().discard_held(&production(), None).await.expect("there is space");
    until_free(&store).await;
    let expected: Vec<_> = (8..20).map(person).collect();
    assert_eq!(included(&store), expected, "those who left by events are back");
    assert_eq!(store.faults(), [""; 0]);
}

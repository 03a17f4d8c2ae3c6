//! Who is deleted, what comes too late for them, and what stays.

use std::time::Duration;

use super::subject::*;
use crate::ledger::{Intake, Recorded};
use crate::membership::{DestinationName, Timestamp};

pub(crate) async fn a_deletion_finds_a_person_under_other_keys_and_keeps_older_events_out<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    let before = START.0 - 5;
    let under_email = |at| under("u1", delta("b", "ada@example.com", true, at));
    store.record(vec![delta("a", "u1", true, before), under_email(before)]).await;
    store.record(enter("a", &["u2"])).await;
    store.drain(&production()).await;
    let kept = vec![rejected(b"{}", Some("u1")), rejected(b"{}", Some("u2"))];
    let operations = store.operations();
    let empty = || intake(&*operations, &production(), Vec::new());
    store.take_in(vec![Intake { rejected: kept.clone(), ..empty() }]).await;
    store.clock().advance(SECOND);
    let asked = empty();
    let arrival = asked.arrival;
    store.take_in(vec![and_delete("u1", arrival, asked)]).await;
    drop(operations);
    store.crash().await;
    store.applied().await;
    let told = store.drain(&production()).await;
    assert!(told.len() == 2 && told.values().all(|included| !included), "{}", told.len());
    store.caught_up().await;
    assert_eq!(store.everybody(), [("a".into(), "u2".into(), true)], "and erased");
    assert_eq!(store.view().await.rejected, 1);

    store.reopen().await;
    let late = Intake {
        rejected: kept,
        ..intake(
            &*store.operations(),
            &production(),
            vec![delta("a", "u1", true, before), under_email(before + 1)],
        )
    };
    store.take_in(vec![late]).await;
    store.record(vec![delta("b", "ada@example.com", true, before + 1)]).await;
    assert_eq!(store.everybody().len(), 1, "what is older stays away, whoever it names");
    assert_eq!(store.view().await.rejected, 2, "an event of theirs too");
    store.record(vec![delta("a", "u1", true, START.0 + 2_000_000)]).await;
    assert_eq!(store.view().await.pending, 1, "a later event is a new beginning");
}

pub(crate) async fn a_deletion_counts_at_its_own_time_and_a_later_return_stays<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(vec![delta("a", "ada", true, 5), delta("b", "ada", true, 9)]).await;
    let late = intake(&*store.operations(), &production(), Vec::new());
    let tomorrow = late.arrival.after(DAY);
    store.take_in(vec![and_delete("ada", Timestamp(7), late)]).await;
    store.crash().await;
    store.caught_up().await;
    let of = |audience: &str, included| (audience.to_owned(), "ada".to_owned(), included);
    assert_eq!(store.everybody(), [of("a", false), of("b", true)]);
    // No later than its arrival, whatever it says.
    let ahead = intake(&*store.operations(), &production(), Vec::new());
    let arrival = ahead.arrival;
    store.take_in(vec![and_delete("ada", tomorrow, ahead)]).await;
    assert_eq!(store.everybody(), [of("a", false), of("b", false)]);
    store.record(vec![delta("b", "ada", true, arrival.0 + 1)]).await;
    assert_eq!(store.everybody(), [of("a", false), of("b", true)], "a return after it");
}

pub(crate) async fn a_deletion_that_comes_again_does_not_undo_a_return<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    let hash = crate::membership::MessageHash([7; 16]);
    let asked = |store: &S| {
        let mut all = intake(&*store.operations(), &production(), Vec::new());
        all = and_delete("ada", all.arrival, all);
        all.deletions[0].deletion.message = Some(hash);
        all
    };
    store.take_in(vec![asked(&store)]).await;
    store.clock().advance(SECOND);
    let now = store.operations().arrival().0;
    store.record(vec![delta("a", "ada", true, now)]).await;
    store.crash().await;
    store.clock().advance(SECOND);
    store.take_in(vec![asked(&store)]).await; // posted again, it counts as it did
    assert_eq!(store.everybody(), [("a".into(), "ada".into(), true)]);
}

pub(crate) async fn an_operators_deletion_takes_along_whatever_is_stored<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let ahead = START.after(Duration::from_secs(200)).0;
    store.record(vec![delta("a", "ada", true, ahead)]).await;
    store.operations().forget(&production(), user("ada")).await.expect("there is space");
    store.crash().await;
    store.applied().await;
    let removal = store.next("a").await;
    assert_eq!(tells(&removal), ("ada", false));
    store.settle(removal).await;
    store.reopen().await;
    store.record(vec![delta("a", "ada", true, ahead)]).await;
    assert_eq!(store.everybody(), [], "the event that was stored is posted again");
    let stranger = DestinationName::new("stranger").expect("not empty");
    let unknown = store.operations().forget(&stranger, user("ada")).await;
    assert!(matches!(unknown, Err(crate::ledger::LedgerError::UnknownDestination(_))));
}

pub(crate) async fn a_settle_after_the_row_was_erased_creates_nothing<S: Subject>() {
    let store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    let claimed = store.next("a").await;
    let duplicate = claimed.clone();
    store.operations().forget(&production(), user("ada")).await.expect("there is space");
    store.settle(claimed).await;
    let removal = store.next("a").await;
    assert_eq!(tells(&removal), ("ada", false));
    store.settle(removal).await;
    store.settle(duplicate).await;
    store.caught_up().await;
    assert_eq!(store.everybody(), []);
}

pub(crate) async fn a_removal_that_is_refused_for_good_erases_the_person_all_the_same<
    S: Subject,
>() {
    let store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.park(store.next("a").await).await;
    store.operations().forget(&production(), user("ada")).await.expect("there is space");
    assert!(store.parked().await.is_empty(), "what was said of them is erased at once");
    store.park(store.next("a").await).await;
    assert_eq!(store.everybody(), []);
    assert!(store.parked().await.is_empty());
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn whoever_may_still_be_in_the_segment_is_parked_and_not_erased<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.drain(&production()).await;
    store.operations().forget(&production(), user("ada")).await.expect("there is space");
    store.park(store.next("a").await).await;
    store.crash().await;
    assert_eq!(store.everybody(), [("a".into(), "ada".into(), false)]);
    assert_eq!(store.parked().await.len(), 1, "somebody has to know");
}

pub(crate) async fn everything_of_a_request_is_there_after_a_crash<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let email = under("u1", delta("a", "ada@example.com", true, 5));
    let deltas = vec![email, delta("b", "bob", false, 7)];
    let all = Intake {
        rejected: vec![rejected(b"{\"a\": [1, 2]}", Some("u2")), rejected(b"2", None)],
        ..intake(&*store.operations(), &production(), deltas)
    };
    let recorded = store.operations().record_all(vec![all]).await.expect("there is space");
    assert_eq!(recorded, [Recorded::default()]);
    store.crash().await;
    store.caught_up().await;
    let found = store.operations().member(&production(), "u1").await.expect("it is open");
    let [ada] = &found[..] else { panic!("by user id") };
    assert_eq!((ada.context_key.as_str(), ada.event_at), ("ada@example.com", Timestamp(5)));
    let kept = store.operations().rejected(&production(), 0, 10).await.expect("it is open");
    assert_eq!(
        kept.iter().map(|of| &*of.body).collect::<Vec<_>>(),
        [&b"{\"a\": [1, 2]}"[..], b"2"]
    );
    assert_eq!((&*kept[0].reason, &*kept[0].detail), ("no_context_key", "a sentence"));
    let none = intake(&*store.operations(), &production(), Vec::new());
    let (both, arrival) = (and_delete("u2", START, none), store.operations().arrival());
    store.take_in(vec![and_delete("u1", arrival, both)]).await;
    let kept = store.operations().rejected(&production(), 0, 10).await.expect("it is open");
    assert_eq!(kept.len(), 1, "the other is nobody's that is known");
    assert_eq!(tells(&store.next("a").await), ("ada@example.com", false));
}

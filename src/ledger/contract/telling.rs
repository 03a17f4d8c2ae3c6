//! When a member is told, and when it is not.

use std::collections::BTreeSet;
use std::time::Duration;

use super::subject::*;
use crate::ledger::{Batch, Report, Unheard};
use crate::membership::Timestamp;

pub(crate) async fn who_was_never_told_is_told_that_they_left<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(vec![delta("a", "ada", false, 1)]).await;
    store.crash().await;
    let batch = store.next("a").await;
    assert_eq!(tells(&batch), ("ada", false));
    store.settle(batch).await;
    store.record(vec![delta("a", "ada", false, 2)]).await;
    assert_eq!(store.waiting(&production()).await, 0, "now it is known");
}

pub(crate) async fn the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival<S: Subject>() {
    // The events of a member, each in a request of its own, and what it is then.
    let rows: [(&[(bool, i64)], bool); 6] = [
        (&[(true, 5), (false, 7)], false),
        (&[(false, 7), (true, 5)], false),
        (&[(true, 5), (false, 5)], false),
        (&[(false, 5), (true, 5)], true),
        (&[(true, 5), (true, 9), (false, 7)], true),
        (&[(true, 5), (false, 5), (true, 4), (true, 5)], true),
    ];
    let mut store = S::open(Setup::default()).await;
    for (number, (events, expected)) in rows.into_iter().enumerate() {
        let key = format!("p{number}");
        for (enters, at) in events {
            store.record(vec![delta("a", &key, *enters, *at)]).await;
        }
        for is_again in [false, true] {
            let found = store.operations().member(&production(), &key).await.expect("it is open");
            let latest = events.iter().map(|(_, at)| *at).max().expect("there is one");
            assert_eq!(found[0].included, expected, "{events:?}, after a crash: {is_again}");
            assert_eq!(found[0].event_at, Timestamp(latest), "{events:?}");
            store.crash().await;
            store.caught_up().await;
        }
    }
}

pub(crate) async fn a_value_that_flips_back_in_a_call_is_sent_again<S: Subject>() {
    let store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.drain(&production()).await;
    store.record(vec![delta("a", "ada", false, 2)]).await;
    let leaving = store.next("a").await;
    store.record(vec![delta("a", "ada", true, 3)]).await;
    store.settle(leaving).await;
    assert_eq!(tells(&store.next("a").await), ("ada", true));
}

pub(crate) async fn a_value_that_flips_back_after_a_call_that_nobody_answered_is_sent_again<
    S: Subject,
>() {
    for unheard in [Unheard::Perhaps, Unheard::No, Unheard::NoAndLast] {
        let mut store = S::open(Setup::default()).await;
        store.record(enter("a", &["ada"])).await;
        store.drain(&production()).await;
        store.record(vec![delta("a", "ada", false, 2)]).await;
        store.release(store.next("a").await, unheard).await;
        store.record(vec![delta("a", "ada", true, 3)]).await;
        store.crash().await;
        let batch = store.next("a").await;
        assert_eq!(tells(&batch), ("ada", true), "pending is sticky: {unheard:?}");
        store.settle(batch).await;
    }
}

pub(crate) async fn what_is_newer_than_what_was_claimed_stays_pending<S: Subject>() {
    let reports: [fn(Batch) -> Report; 3] = [
        Report::Settle,
        |batch| Report::Release(batch, Unheard::No),
        |batch| Report::Park(batch, reason("1")),
    ];
    for (number, report) in reports.into_iter().enumerate() {
        let mut store = S::open(Setup::default()).await;
        store.record(enter("a", &["ada"])).await;
        let batch = store.next("a").await;
        store.record(vec![delta("a", "ada", false, 2)]).await;
        store.report(report(batch)).await;
        assert!(store.parked().await.is_empty(), "report {number}");
        store.crash().await;
        assert_eq!(tells(&store.next("a").await), ("ada", false), "report {number}");
        // What was claimed is what there is: it is over.
        store.reopen().await;
        let batch = store.next("a").await;
        store.report(report(batch)).await;
        store.caught_up().await;
        let view = store.view().await;
        assert_eq!((view.pending, view.parked), [(0, 0), (1, 0), (0, 1)][number]);
    }
}

pub(crate) async fn a_repeat_is_sent_again_after_the_window_and_not_before<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.drain(&production()).await;
    store.clock().advance(Duration::from_secs(3590));
    store.record(vec![delta("a", "ada", true, 2)]).await;
    assert_eq!(store.waiting(&production()).await, 0, "it was told lately");
    store.crash().await;
    store.record(vec![delta("a", "ada", true, 3)]).await;
    assert_eq!(store.waiting(&production()).await, 0, "and the crash has forgotten nothing");
    store.record(vec![delta("a", "ada", true, 2)]).await;
    let found = store.operations().member(&production(), "ada").await.expect("it is open");
    assert_eq!(found[0].event_at, Timestamp(3), "an equal value moves the event time");
    store.clock().advance(Duration::from_secs(20));
    store.record(vec![delta("a", "ada", true, 4)]).await;
    assert_eq!(tells(&store.next("a").await), ("ada", true), "somebody may have changed it");
}

pub(crate) async fn a_resync_tells_every_member_again_including_those_that_left<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(vec![delta("a", "ada", true, 1), delta("a", "bob", false, 1)]).await;
    store.record(enter("b", &["cyd"])).await;
    store.drain(&production()).await;
    let resynced = store.operations().resync(&production(), Some(&id("a"))).await;
    assert_eq!(resynced.expect("there is space"), 1);
    store.crash().await;
    store.until_waiting(2).await;
    let told = store.operations().member(&production(), "ada").await.expect("it is open");
    assert_eq!(told[0].told, None, "what was told is forgotten");
    assert_eq!(those(&store.next("a").await), BTreeSet::from(["ada", "bob"]));
    assert!(store.claim("b", 9).await.is_none());
    assert_eq!(store.operations().resync(&production(), None).await.expect("there is space"), 2);
    let unknown = store.operations().resync(&production(), Some(&id("z"))).await;
    assert!(matches!(unknown, Err(crate::ledger::LedgerError::UnknownAudience(_))), "{unknown:?}");
}

pub(crate) async fn a_told_tombstone_keeps_a_late_entry_out_for_its_time<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let people: Vec<_> = (0..1200).map(|n| delta("a", &format!("p{n}"), n % 2 == 0, 9)).collect();
    store.record(people).await;
    store.drain(&production()).await;
    store.record(vec![delta("a", "never_told", false, 9)]).await;
    store.clock().advance(Duration::from_secs(12));
    store.crash().await;
    store.record(vec![delta("a", "p1", true, 8)]).await;
    assert!(!store.operations().member(&production(), "p1").await.expect("open")[0].included);
    store.clock().advance(Duration::from_secs(5));
    store.until(async || store.members(&production()).len() == 601).await;
    let stay = |(_, key, included): &(String, String, bool)| *included || key == "never_told";
    assert!(store.everybody().iter().all(stay));
}

pub(crate) async fn arrival_never_runs_backwards_not_even_across_a_crash<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.clock().advance(DAY);
    let ahead = store.operations().arrival();
    store.record(vec![delta("a", "ada", true, ahead.0)]).await;
    store.clock().set(START);
    assert!(store.operations().arrival() >= ahead);
    store.crash().await;
    assert!(store.operations().arrival() >= ahead);
    let now = store.operations().arrival();
    store.record(vec![delta("a", "ada", false, now.0)]).await;
    assert_eq!(tells(&store.next("a").await), ("ada", false), "the later arrival wins the tie");
}

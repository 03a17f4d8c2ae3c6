//! What is left of reconciliations is kept, in order, until it is recorded.

use super::subject::*;
use crate::ledger::ReconciliationStep::{
    Abandon, Applied, End, Plan, Remove, Stage, Staged, Stop, Sweep,
};
use crate::ledger::{Changed, LedgerError, ReconciliationStep, ReconciliationView, Stager};
use crate::membership::DestinationName;

async fn begin<S: Subject>(store: &S, audience: &str) -> Option<i64> {
    let begun = store.operations().begin_reconciliation(&production(), &id(audience)).await;
    begun.expect("it is open")
}

async fn takes<S: Subject>(store: &S, id: i64, step: ReconciliationStep) -> bool {
    store.operations().step_reconciliation(id, step).await.expect("there is space")
}

async fn views<S: Subject>(store: &S) -> Vec<ReconciliationView> {
    store.operations().reconciliations().await.expect("it is open")
}

async fn next<S: Subject>(store: &S, id: i64) -> Option<(i64, Vec<u8>)> {
    store.operations().reconciliation_piece(id).await.expect("it is open")
}

fn changed(done: u64, entered: u64, left: u64) -> Changed {
    Changed { done, entered, left }
}

fn plan() -> ReconciliationStep {
    Plan { about: "a\u{e9} \\u0000".to_owned(), total: 9, changed: changed(1, 1, 0) }
}

fn body(no: i64) -> Vec<u8> {
    let mut body = vec![0, 255, b'x'];
    body.extend(no.to_le_bytes());
    body
}

pub(crate) async fn a_piece_is_there_until_it_is_recorded_across_a_kill<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let of = begin(&store, "a").await.expect("it is the first");
    assert!(takes(&store, of, plan()).await);
    for no in 0..3 {
        assert!(takes(&store, of, Stage { no, body: body(no) }).await);
    }
    assert_eq!(next(&store, of).await, None, "it may be that nobody writes the rest");
    assert!(!takes(&store, of, Applied { no: 0, changed: changed(1, 0, 1) }).await);
    assert!(takes(&store, of, Staged { total: 7 }).await);
    for (step, what) in [(plan(), "planned"), (Stage { no: 9, body: body(9) }, "written down")] {
        assert!(!takes(&store, of, step).await, "all of it was {what}");
    }

    store.crash().await;
    assert_eq!(next(&store, of).await, Some((0, body(0))));
    assert!(takes(&store, of, Applied { no: 0, changed: changed(3, 1, 2) }).await);
    assert!(!takes(&store, of, Applied { no: 0, changed: changed(3, 1, 2) }).await, "only once");
    store.reopen().await;
    assert_eq!(next(&store, of).await, Some((1, body(1))));
    let [view] = &views(&store).await[..] else { panic!("there is one") };
    assert_eq!((view.id, &view.destination, &view.audience), (of, &production(), &id("a")));
    assert_eq!((view.total, view.changed), (7, changed(4, 2, 2)));
    assert_eq!((view.stage, &view.about[..]), (crate::ledger::Stage::Staged, "a\u{e9} \\u0000"));
    assert_eq!((view.since, view.ended_at), (view.since.max(START), None));
    assert!(takes(&store, of, Applied { no: 1, changed: changed(3, 0, 0) }).await);
    assert!(takes(&store, of, Applied { no: 2, changed: changed(0, 0, 0) }).await);
    assert_eq!(next(&store, of).await, None);
    assert!(takes(&store, of, End { is_complete: true }).await);
    assert!(!takes(&store, of, End { is_complete: true }).await, "one of those who see it says so");
    store.crash().await;
    let [view] = &views(&store).await[..] else { panic!("it is known until it is removed") };
    assert_eq!((view.stage, view.changed.done), (crate::ledger::Stage::Complete, 7));
    assert!(view.ended_at.is_some());
    assert!(takes(&store, of, Remove).await && views(&store).await.is_empty());
    assert!(!takes(&store, of, Remove).await);
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn of_an_audience_one_reconciliation_is_under_way<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let a = begin(&store, "a").await.expect("it is the first");
    assert_eq!(begin(&store, "a").await, None);
    let b = begin(&store, "b").await.expect("it is another audience's");
    assert!(takes(&store, a, plan()).await && takes(&store, a, Staged { total: 0 }).await);
    assert_eq!(begin(&store, "a").await, None);
    assert!(takes(&store, a, End { is_complete: true }).await);
    let again = begin(&store, "a").await.expect("the other one has ended");
    let all: Vec<i64> = views(&store).await.iter().map(|of| of.id).collect();
    assert_eq!(all, [a, b, again], "in the order of their numbers");
    let stranger = DestinationName::new("stranger").expect("not empty");
    let unknown = store.operations().begin_reconciliation(&stranger, &id("a")).await;
    assert!(matches!(unknown, Err(LedgerError::UnknownDestination(_))), "{unknown:?}");
}

pub(crate) async fn a_reconciliation_that_is_stopped_records_no_more<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let staging = begin(&store, "a").await.expect("it is the first");
    assert!(takes(&store, staging, plan()).await && takes(&store, staging, Abandon).await);
    for step in [plan(), Stage { no: 0, body: body(0) }, Staged { total: 1 }] {
        assert!(!takes(&store, staging, step).await);
    }
    assert!(!takes(&store, staging, End { is_complete: true }).await, "nobody knows the rest");
    assert!(takes(&store, staging, End { is_complete: false }).await);

    let staged = begin(&store, "a").await.expect("the other one has ended");
    assert!(takes(&store, staged, plan()).await);
    for no in 0..50 {
        assert!(takes(&store, staged, Stage { no, body: body(no) }).await);
    }
    assert!(takes(&store, staged, Staged { total: 50 }).await);
    assert!(!takes(&store, staged, Sweep).await, "it is needed yet");
    assert!(!takes(&store, staged, Abandon).await, "it needs nobody any more who writes it down");
    assert!(next(&store, staged).await.is_some() && takes(&store, staged, Stop).await);
    assert_eq!(next(&store, staged).await, None);
    assert_eq!(begin(&store, "a").await, None, "who records the last piece counts it first");
    assert!(takes(&store, staged, Applied { no: 0, changed: changed(1, 1, 0) }).await);
    assert!(takes(&store, staged, End { is_complete: false }).await);
    let mut sweeps = 0;
    while takes(&store, staged, Sweep).await {
        sweeps += 1;
    }
    assert_eq!(sweeps, 3, "a few at a time");
    assert!(takes(&store, staged, Remove).await);
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn it_is_known_who_writes_a_reconciliation_down<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    begin(&store, "a").await.expect("it is the first");
    let stager = async |store: &S| views(store).await[0].stager;
    assert_eq!(stager(&store).await, Stager::Here);
    store.crash().await;
    store.until(async || stager(&store).await == Stager::Gone).await;
}

pub(crate) async fn who_erases_an_audience_stops_its_reconciliation<S: Subject>() {
    for whole in [true, false] {
        let store = S::open(Setup::default()).await;
        store.record([enter("a", &["ada"]), enter("b", &["ada"])].concat()).await;
        let of = [begin(&store, "a").await, begin(&store, "b").await];
        assert!(of.iter().all(Option::is_some));
        let a = id("a");
        let only = (!whole).then_some(&a);
        store.operations().erase(&production(), only).await.expect("it is known");
        let stages: Vec<_> = views(&store).await.iter().map(|of| of.stage).collect();
        let other =
            if whole { crate::ledger::Stage::Stopping } else { crate::ledger::Stage::Staging };
        assert_eq!(stages, [crate::ledger::Stage::Stopping, other], "{whole}");
    }
}

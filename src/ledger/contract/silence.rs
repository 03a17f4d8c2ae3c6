//! Calls that nobody answered, and processes that died in one: what LaunchDarkly did not confirm may still be applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::subject::*;
use crate::ledger::{Claim, Unheard};

pub(crate) async fn whoever_was_in_a_call_that_nobody_answered_is_told_once_more<S: Subject>() {
    let store = S::with_reassertions().await;
    store.record(enter("a", &["ada", "bob"])).await;
    let both = store.next("a").await;
    store.release(only(&both, "ada"), Unheard::Perhaps).await;
    store.release(only(&both, "bob"), Unheard::No).await;
    store.settle(store.next("a").await).await;
    store.until_waiting(1).await;
    let again = store.next("a").await;
    assert_eq!(tells(&again), ("ada", true));
    store.settle(again).await;
    tokio::time::sleep(Duration::from_millis(50)).await; // as long as it would take to come again
    store.upkeep().await;
    assert_eq!(store.waiting(&production()).await, 0, "once");
}

pub(crate) async fn after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others<
    S: Subject,
>() {
    let mut store = S::with_reassertions().await;
    store.record(enter("a", &["ada"])).await;
    store.next("a").await; // and the process dies
    store.record(enter("a", &["bob"])).await;
    store.crash().await;
    let both = store.next("a").await;
    assert_eq!(those(&both), BTreeSet::from(["ada", "bob"]));
    store.settle(both).await;
    store.until_waiting(1).await;
    let again = store.next("a").await;
    assert_eq!(keys(&again), ["ada"]);
    store.settle(again).await;
    assert_eq!(store.view().await.pending, 0);
}

pub(crate) async fn a_re_assertion_that_is_due_survives_a_crash_and_a_restart<S: Subject>() {
    let mut store = S::with_reassertions().await;
    store.setup().destinations[0].reassert_after = Duration::from_secs(600);
    store.configure().await;
    store.record(enter("a", &["ada"])).await;
    store.release(store.next("a").await, Unheard::Perhaps).await;
    store.crash().await; // what nobody answered is still that
    store.settle(store.next("a").await).await;
    store.caught_up().await; // what is reported may be written later, and be told again
    store.crash().await;
    assert_eq!(store.waiting(&production()).await, 0, "it was settled, and it is not yet time");
    store.setup().destinations[0].reassert_after = Duration::from_millis(1);
    store.reopen().await;
    store.until_waiting(1).await;
    assert_eq!(tells(&store.next("a").await), ("ada", true));
}

pub(crate) async fn whoever_is_deleted_before_the_re_assertion_is_removed_once_more<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    store.release(store.next("a").await, Unheard::Perhaps).await;
    store.settle(store.next("a").await).await;
    let asked = intake(&*store.operations(), &production(), Vec::new());
    store.take_in(vec![and_delete("ada", asked.arrival, asked)]).await;
    let removal = store.next("a").await;
    assert_eq!(tells(&removal), ("ada", false));
    store.settle(removal).await; // after which the unanswered entry may still be applied
    store.setup().destinations[0].reassert_after = Duration::from_millis(1);
    store.reopen().await;
    store.until_waiting(1).await;
    let again = store.next("a").await;
    assert_eq!(tells(&again), ("ada", false));
    store.settle(again).await;
    store.caught_up().await;
    assert_eq!(store.everybody(), [], "and then nothing is left");
}

pub(crate) async fn a_re_assertion_in_a_call_is_told_after_it<S: Subject>() {
    const AFTER: Duration = Duration::from_millis(500);
    let mut setup = Setup::default();
    setup.destinations[0].reassert_after = AFTER;
    let store = S::open(setup).await;
    store.record(enter("a", &["ada"])).await;
    let silent = store.next("a").await;
    let (route, context_key) = (Arc::clone(&silent.route), silent.members[0].context_key.clone());
    store.release(silent, Unheard::Perhaps).await;
    store.settle(store.next("a").await).await;
    let again = Claim::Again { route, context_key };
    let call = store.operations().outbox(&production()).claim(again).await;
    let call = call.expect("it is open").expect("ada is there"); // is out when it is time
    tokio::time::sleep(AFTER + Duration::from_millis(100)).await;
    store.upkeep().await;
    store.settle(call).await;
    store.until_waiting(1).await;
    assert_eq!(tells(&store.next("a").await), ("ada", true));
}

pub(crate) async fn a_clean_stop_leaves_nothing_unheard<S: Subject>() {
    let mut setup = Setup::default();
    setup.destinations[0].reassert_after = Duration::ZERO;
    let mut store = S::open(setup).await;
    store.record(enter("a", &["ada"])).await;
    store.release(store.next("a").await, Unheard::No).await;
    store.reopen().await;
    store.settle(store.next("a").await).await;
    // A verb later, a re-assertion due at once would have happened.
    store.record(enter("a", &["bob"])).await;
    store.upkeep().await;
    assert_eq!(keys(&store.next("a").await), ["bob"]);
}

pub(crate) async fn a_restart_ends_every_claim<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob"])).await;
    for is_killed in [true, false] {
        let batch = store.next("a").await;
        assert_eq!(store.waiting(&production()).await, 0);
        if is_killed {
            store.crash().await;
        } else {
            store.reopen().await;
        }
        store.applied().await;
        assert_eq!(store.waiting(&production()).await, 2, "killed: {is_killed}");
        store.release(batch, Unheard::No).await; // of a process of before
        assert_eq!(store.waiting(&production()).await, 2, "killed: {is_killed}");
    }
}

//! Who travels with whom, and that nobody travels twice at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::subject::*;
use crate::ledger::{Batch, Claim, Recorded, Report, Unheard};
use crate::membership::{AudienceKey, ContextKey, MembershipDelta};

pub(crate) async fn a_member_is_in_one_batch_at_a_time_and_the_longest_pending_goes_first<
    S: Subject,
>() {
    let store = S::open(Setup::default()).await;
    store.record(enter("a", &["zoe"])).await;
    store.record(enter("a", &["ada"])).await;
    store.record(enter("a", &["bob"])).await;
    let first = store.claim("a", 2).await.expect("three wait");
    assert_eq!(keys(&first), ["zoe", "ada"]);
    let second = store.claim("a", 2).await.expect("one waits");
    assert_eq!(keys(&second), ["bob"]);
    assert!(store.claim("a", 2).await.is_none());
    let again = |key| Claim::Again {
        route: Arc::clone(&first.route),
        context_key: ContextKey::new(key).expect("not empty"),
    };
    let outbox = store.operations().outbox(&production());
    assert!(outbox.claim(again("ada")).await.expect("it is open").is_none(), "ada is in a batch");
    store.record(vec![delta("a", "ada", false, 2)]).await;
    assert!(store.claim("a", 2).await.is_none(), "ada is in a batch");
    assert_eq!(store.waiting(&production()).await, 0);
    store.settle(first).await;
    let third = store.claim("a", 2).await.expect("ada left meanwhile");
    assert_eq!(tells(&third), ("ada", false));
    store.release(second, Unheard::No).await;
    assert_eq!(keys(&store.next("a").await), ["bob"]);
}

pub(crate) async fn a_call_may_be_made_and_finished_as_long_as_nobody_else_owns_the_destination<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    for _ in 0..2 {
        let batch = store.next("a").await;
        let outbox = store.operations().outbox(&production());
        assert!(outbox.may_call(&batch));
        let is_over = tokio::select! {
            biased;
            () = outbox.until_over(&batch) => true,
            () = std::future::ready(()) => false,
        };
        assert!(!is_over);
        store.crash().await;
    }
    store.release(store.next("a").await, Unheard::Unsent).await;
    assert_eq!(keys(&store.next("a").await), ["ada"], "there was no call");
}

pub(crate) async fn what_was_parked_travels_alone_until_it_is_taken<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob", "cyd"])).await;
    let all = store.next("a").await;
    let rest = Batch { members: all.members[1..].to_vec(), ..all.clone() };
    let [first, second, third] = [0, 1, 2].map(|at| keys(&all)[at].to_owned());
    store.park(Batch { members: all.members[..1].to_vec(), ..all.clone() }).await;
    store.release(rest, Unheard::No).await;
    assert_eq!(store.requeue("a", &[&first]).await, 1);
    store.reopen().await;
    let others = store.next("a").await;
    assert_eq!(those(&others), BTreeSet::from([&*second, &*third]));
    let alone = store.next("a").await;
    assert_eq!(keys(&alone), [&*first]);
    store.settle(alone).await;
    store.record(vec![delta("a", &first, false, 2), delta("a", "dan", true, 2)]).await;
    assert_eq!(those(&store.next("a").await), BTreeSet::from([&*first, "dan"]));
}

pub(crate) async fn the_halves_of_a_refused_batch_stay_apart_across_a_kill_until_they_are_taken<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    for key in ["ada", "bob", "cyd", "dan"] {
        store.record(enter("a", &[key])).await;
    }
    let whole = store.next("a").await;
    let half = |range: std::ops::Range<usize>| Batch {
        members: whole.members[range].to_vec(),
        ..whole.clone()
    };
    store.report(Report::Split(vec![half(0..2), half(2..4)])).await;
    assert!(store.claim("a", 9).await.is_none(), "they are still claimed");
    store.crash().await;
    store.record(enter("a", &["eve"])).await;
    let first = store.next("a").await;
    assert_eq!(keys(&first), ["ada", "bob"]);
    let second = store.next("a").await;
    assert_eq!(keys(&second), ["cyd", "dan"]);
    assert_eq!(keys(&store.next("a").await), ["eve"]);
    store.settle(first).await;
    store.release(second, Unheard::No).await;
    store.record(vec![delta("a", "ada", false, 2)]).await;
    assert_eq!(keys(&store.next("a").await), ["cyd", "dan"]);
    assert_eq!(keys(&store.next("a").await), ["ada"]);
}

pub(crate) async fn a_request_is_one_whole_and_its_later_item_wins_a_tie<S: Subject>() {
    let store = S::open(Setup::default()).await;
    let deltas = vec![
        delta("a", "ada", true, 5),
        delta("a", "bob", true, 5),
        delta("a", "ada", false, 5),
        delta("a", "cyd", true, 7),
        delta("a", "cyd", false, 6),
    ];
    store.record(deltas).await;
    let batch = store.next("a").await;
    assert_eq!(those(&batch), BTreeSet::from(["ada", "bob", "cyd"]));
    assert_eq!(tells(&only(&batch, "ada")), ("ada", false));
    assert_eq!(tells(&only(&batch, "cyd")), ("cyd", true), "the later item is older");
}

pub(crate) async fn an_audience_keeps_its_context_kind_and_follows_its_name<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    let other = MembershipDelta { context_kind: device(), ..delta("a", "bob", true, 2) };
    let mut renamed = delta("a", "cyd", true, 3);
    renamed.audience_key = AudienceKey::new("renamed").expect("not empty");
    for _ in 0..2 {
        let recorded = store.record(vec![renamed.clone(), other.clone()]).await;
        assert_eq!(recorded, Recorded { kind_conflicts: vec![1], ..Recorded::default() });
        store.crash().await;
    }
    let batch = store.next("a").await;
    assert_eq!(those(&batch), BTreeSet::from(["ada", "cyd"]));
    assert_eq!(batch.route.audience_key.as_str(), "renamed");
}

pub(crate) async fn somebody_who_was_told_can_be_claimed_again_one_after_the_other<S: Subject>() {
    let store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada", "bob"])).await;
    store.record(enter("b", &["cyd"])).await;
    let told = async |after: Option<(&str, &str)>| {
        let after =
            after.map(|(audience, key)| (id(audience), ContextKey::new(key).expect("not empty")));
        let outbox = store.operations().outbox(&production());
        let batch = outbox.claim(Claim::Told { after }).await.expect("it is open");
        batch.map(|batch| (keys(&batch).concat(), batch))
    };
    assert!(told(None).await.is_none(), "nobody was told");
    store.drain(&production()).await;
    let (first, batch) = told(None).await.expect("three were");
    assert_eq!((&*first, told(None).await.expect("bob").0.as_str()), ("ada", "bob"));
    store.settle(batch).await;
    assert_eq!(told(Some(("a", "ada"))).await.expect("bob is in a call").0, "cyd");
    assert!(told(Some(("b", "cyd"))).await.is_none());
}

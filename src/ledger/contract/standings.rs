//! All members of one audience, page by page, for whoever compares them with a snapshot; and what a snapshot
//! outdoes from then on.

use super::subject::*;
use crate::ledger::{Intake, Origin};
use crate::membership::ContextKey;

pub(crate) async fn members_are_listed_in_the_order_of_their_keys_with_all_that_was_recorded<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["b", "B", "\u{e9}", "aa"])).await;
    store.record(enter("b", &["other"])).await;
    store.drain(&production()).await;
    // What nobody has been told of counts too.
    store.record(vec![delta("a", "b", false, 7), delta("a", "a", true, 3)]).await;
    for _ in 0..2 {
        let (mut after, mut listed): (Option<ContextKey>, Vec<(String, bool)>) = (None, Vec::new());
        let mut left = None;
        loop {
            let operations = store.operations();
            let page = operations.standings(&production(), &id("a"), after.as_ref(), 2).await;
            let page = page.expect("it is open");
            for of in &page {
                listed.push((of.context_key.as_str().to_owned(), of.included));
                left = if of.included { left } else { Some(of.event_at) };
            }
            after = page.last().map(|last| last.context_key.clone());
            if page.len() < 2 {
                break;
            }
        }
        let expected = [("B", true), ("a", true), ("aa", true), ("b", false), ("\u{e9}", true)];
        assert_eq!(listed, expected.map(|(key, is_in)| (key.to_owned(), is_in)));
        assert_eq!(left, Some(delta("a", "b", false, 7).event_at));
        store.crash().await;
    }
    let unknown = store.operations().standings(&production(), &id("z"), None, 2).await;
    assert_eq!(unknown.expect("it is open").len(), 0);
}

pub(crate) async fn what_is_older_than_a_snapshot_loses_to_it_from_its_first_delta_on<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    let before = vec![delta("a", "stays", true, 10), delta("a", "left", false, 10)];
    store.record(before).await;
    store.record(enter("b", &["old"])).await;
    store.drain(&production()).await;
    let overtaken = |store: &S| store.operations().recordings().of(&production()).overtaken.get();
    let before = overtaken(&store);
    // In one go: an event of before, the first delta of a snapshot, and events that come too late.
    let events = intake(&*store.operations(), &production(), vec![delta("a", "early", true, 20)]);
    let first = vec![delta("a", "new", true, 50)];
    let first = intake(&*store.operations(), &production(), first);
    let late = ["stays", "left", "new", "unknown"].map(|key| delta("a", key, key != "stays", 49));
    let late = late.into_iter().chain([delta("b", "old", false, 49)]).collect();
    let late = intake(&*store.operations(), &production(), late);
    store.take_in(vec![events, Intake { origin: Origin::Snapshot, ..first }, late]).await;
    assert_eq!(overtaken(&store) - before, 4, "they are counted");
    let everybody = |more: &[(&str, &str, bool)]| {
        let all = [
            ("a", "early", true),
            ("a", "left", false),
            ("a", "new", true),
            ("a", "stays", true),
            ("b", "old", false),
        ];
        let mut all: Vec<_> = all.iter().chain(more).copied().collect();
        all.sort_unstable();
        let all = all.into_iter();
        all.map(|(audience, key, is_in)| (audience.to_owned(), key.to_owned(), is_in)).collect()
    };
    for _ in 0..2 {
        let late = ["stays", "left", "unknown"].map(|key| delta("a", key, key != "stays", 49));
        store.record(late.into()).await;
        let expected: Vec<_> = everybody(&[]);
        assert_eq!(store.everybody(), expected);
        let views = store.operations().audiences(&production()).await.expect("it is open");
        let snapshots: Vec<_> = views.iter().map(|of| of.snapshot_at.map(|at| at.0)).collect();
        assert_eq!(snapshots, [Some(50), None]);
        store.crash().await;
    }
    store.reopen().await;
    store.record(vec![delta("a", "late", true, 49), delta("a", "later", true, 50)]).await;
    let expected: Vec<_> = everybody(&[("a", "later", true)]);
    assert_eq!(store.everybody(), expected, "a tie goes to the later arrival");
}

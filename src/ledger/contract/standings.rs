//! All members of one audience, page by page, for whoever compares them with a snapshot.

use super::subject::*;
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

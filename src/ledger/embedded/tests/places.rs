//! How many audiences a destination may have.

use tokio::task::JoinSet;

use super::*;

const NO_MORE: usize = 5;

#[tokio::test]
async fn requests_that_come_together_get_as_many_places_as_there_are() {
    for mut bench in [Bench::new(), Bench::journaled()] {
        bench.max_audiences = NO_MORE;
        bench.reopen().await;
        let mut requests = JoinSet::new();
        for number in 0..4 * NO_MORE {
            let (ledger, audience) = (Arc::clone(&bench.ledger), format!("audience-{number}"));
            requests.spawn(async move {
                let deltas = ["ada", "bob"].map(|who| delta(&audience, who, true, 1));
                let recorded = ledger.record(intake(&*ledger, deltas.into())).await;
                (audience, recorded.expect("there is space"))
            });
        }
        let all = requests.join_all().await;
        let (known, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, recorded)| *recorded == Recorded::default());
        assert_eq!(known.len(), NO_MORE);
        for (_, recorded) in others {
            let expected = Recorded { without_place: vec![0, 1], ..Recorded::default() };
            assert_eq!(recorded, expected);
        }
        // After a kill the known ones go on, and no other has a place; also if there are fewer.
        bench.crash();
        for most in [NO_MORE, 2] {
            bench.max_audiences = most;
            bench.reopen().await;
            let go_on = known.iter().map(|(audience, _)| delta(audience, "cyd", true, 2));
            let deltas = [delta("one-more", "ada", true, 1)].into_iter().chain(go_on);
            let recorded = bench.record(deltas.collect()).await;
            assert_eq!(recorded.without_place, [0], "{most}");
        }
        bench.close().await;
    }
}

#[tokio::test]
async fn a_dropped_audience_frees_its_place_once_its_calls_are_over() {
    let mut bench = Bench::new();
    bench.max_audiences = 1;
    bench.reopen().await;
    let enter = |audience: &str| vec![delta(audience, "ada", true, 1)];
    assert_eq!(bench.record(enter("a")).await, Recorded::default());
    assert_eq!(bench.record(enter("b")).await.without_place, [0]);
    bench.ledger.erase(&bench.name, Some(&id("a"))).await.expect("it is known");
    assert_eq!(bench.record(enter("b")).await, Recorded::default(), "nobody was in a call");

    let batch = bench.claim("b", 9).await.expect("ada waits");
    bench.ledger.erase(&bench.name, Some(&id("b"))).await.expect("it is known");
    assert_eq!(bench.record(enter("c")).await.without_place, [0], "ada is in a call (P3)");
    bench.settle(batch).await;
    let freed = async { while bench.record(enter("c")).await != Recorded::default() {} };
    tokio::time::timeout(DEADLINE, freed).await.expect("it is freed in time");
    assert_eq!(keys(&bench.claim("c", 9).await.expect("ada waits")), ["ada"]);
    assert!(bench.claim("b", 9).await.is_none());
    // What is dropped while in a call and comes back before its end keeps its place.
    bench.ledger.erase(&bench.name, Some(&id("c"))).await.expect("it is known");
    assert_eq!(bench.record(enter("c")).await, Recorded::default());
    assert_eq!(bench.record(enter("d")).await.without_place, [0]);
    bench.close().await;
}

//! What is too old or too much goes, a slice at a time.

use super::*;

#[tokio::test]
async fn parked_members_and_rejected_events_go_when_they_are_too_old() {
    let mut bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1), delta("a", "bob", true, 1)]).await;
    bench.park(bench.claim("a", 1).await.expect("two wait")).await;
    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: "None.".to_owned(),
        body: b"{}".to_vec(),
        user_id: None,
        event_at: START,
    };
    let rejected = Intake { rejected: vec![event], ..intake(&*bench.ledger, Vec::new()) };
    bench.take_in(rejected).await;
    bench.clock.advance(DAY / 2);
    bench.reopen().await; // looks at once
    bench.claim("none", 1).await;
    let view = bench.view().await;
    assert_eq!((view.parked, view.rejected), (1, 1), "not yet");
    bench.clock.advance(DAY);
    bench.reopen().await;
    let gone = async {
        loop {
            bench.claim("none", 1).await;
            let view = bench.view().await;
            if (view.parked, view.rejected) == (0, 0) {
                return view;
            }
        }
    };
    let view = tokio::time::timeout(DEADLINE, gone).await.expect("they go in time");
    assert_eq!((view.included, view.pending), (1, 1), "bob waits as before");
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn parked_members_are_bounded_in_number_and_bytes_and_the_oldest_go_first() {
    for kept in [
        Retention { max_age: DAY, max_count: 3, max_bytes: 1 << 20 },
        // Each has a key of 2, a code of 15, a message of 2 and an id of 4 bytes.
        Retention { max_age: DAY, max_count: 1000, max_bytes: 3 * 23 },
    ] {
        let mut bench = Bench::new();
        bench.record((0..8).map(|n| delta("a", &format!("p{n}"), true, 1)).collect()).await;
        for _ in 0..8 {
            bench.park(bench.claim("a", 1).await.expect("one waits")).await;
        }
        bench.parked = kept;
        bench.reopen().await;
        let bounded = async {
            while bench.parked().len() != 3 {
                bench.claim("none", 1).await;
            }
        };
        tokio::time::timeout(DEADLINE, bounded).await.expect("they go in time");
        let left: Vec<String> = bench.parked().into_iter().map(|view| view.context_key).collect();
        assert_eq!(left, ["p5", "p6", "p7"]);
        assert_eq!(bench.faults(), [""; 0]);
    }
}

#[tokio::test]
async fn a_lower_bound_takes_effect_in_slices() {
    let mut bench = Bench::new();
    bench.rejected.max_count = 5000;
    bench.rejected.max_bytes = 1 << 20;
    bench.reopen().await;
    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: "None.".to_owned(),
        body: b"{}".to_vec(),
        user_id: None,
        event_at: START,
    };
    let many = Intake { rejected: vec![event; 3000], ..intake(&*bench.ledger, Vec::new()) };
    bench.take_in(many).await;
    bench.rejected.max_count = 100;
    bench.reopen().await;
    let mut seen = Vec::new();
    let shrinking = async {
        while seen.last() != Some(&100) {
            bench.claim("none", 1).await;
            seen.push(bench.view().await.rejected);
        }
    };
    tokio::time::timeout(DEADLINE, shrinking).await.expect("they go in time");
    let largest = seen.windows(2).map(|pair| pair[0] - pair[1]).max();
    assert!(largest.is_some_and(|step| step <= 1500), "not all at once: {seen:?}");
}

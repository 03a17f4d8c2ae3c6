//! What is too old or too much goes, a slice at a time.

use super::*;

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

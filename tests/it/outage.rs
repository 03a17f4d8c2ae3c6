//! LaunchDarkly is down during the first sync of a large audience: every event is accepted, memory does not
//! grow with the backlog (P6), and once LaunchDarkly is back everything is delivered (P4), each member in
//! one call at a time (P3).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cohortd::membership::Timestamp;
use cohortd::sandbox::{Apply, Backfill, Fault, Sample};
use cohortd::secret::Secret;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, launchdarkly};

const MEMBERS: u64 = 200_000;
const CONNECTIONS: usize = 4;
/// Half of what 160,000 members would take at 100 bytes each.
const GROWTH_KIB: u64 = 8 * 1024;

/// Posts this many requests from `batches`, each of which must be accepted.
async fn backfill(cohortd: &Arc<Cohortd>, batches: &Arc<Mutex<Backfill>>, requests: usize) {
    let posters: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (cohortd, batches) = (Arc::clone(cohortd), Arc::clone(batches));
            tokio::spawn(async move {
                for _ in 0..requests / CONNECTIONS {
                    let next = batches.lock().expect("no poster panics with it").next();
                    let Some(batch) = next else { return };
                    let signature = batch.signature(&Secret::new(SHARED_SECRET));
                    let answer = cohortd.post_raw(batch.body, signature).await;
                    assert_eq!(answer.expect("an answer").status(), 200);
                }
            })
        })
        .collect();
    for poster in posters {
        poster.await.expect("every batch is accepted");
    }
}

async fn a_backfill_during_an_outage_is_taken_in_flat_memory_and_delivered_after_it() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(|call| match call.call_number % 2 {
        0 => Fault::status(503),
        _ => Fault::Reset { apply: Apply::No },
    });
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "info");
    // So that growth is due to the backlog and not to the caches, which may use that memory.
    installation.set("ledger.cache_mib", "2");
    let cohortd = Arc::new(installation.start());
    let from = Timestamp(1_750_000_000_000_000);
    let batches = Arc::new(Mutex::new(Backfill::new(Sample::HIGH_VALUE_CUSTOMERS, MEMBERS, from)));

    let began = Instant::now();
    backfill(&cohortd, &batches, 40).await;
    let early = cohortd.memory_kib("VmRSS:");
    backfill(&cohortd, &batches, 160).await;
    let late = cohortd.memory_kib("VmRSS:");
    assert!(batches.lock().expect("no poster runs").next().is_none(), "all of it is posted");
    let posted = began.elapsed();
    let calls = launchdarkly.calls();
    assert_eq!((calls.taken, calls.members), (0, 0), "the outage was one");
    assert!(calls.total > 0, "it kept trying");
    assert!(late < early + GROWTH_KIB, "{early} KiB after 40,000 members, {late} after all");
    let waiting = cohortd.status().await["destinations"]["production"]["waiting"].clone();
    assert!(waiting.as_u64() >= Some(MEMBERS - 1000), "{waiting} wait");

    let back = Instant::now();
    launchdarkly.behave();
    let id = Sample::HIGH_VALUE_CUSTOMERS.id;
    let filled = |view: &cohortd::sandbox::View<'_>| {
        view.segment(ENVIRONMENT, id).is_some_and(|of| of.members.len() as u64 == MEMBERS)
    };
    launchdarkly.until(DEADLINE, filled).await.expect("everything gets there");
    let delivered = back.elapsed();
    installation.drained().await;
    let after = cohortd.memory_kib("VmRSS:");
    let cohortd = Arc::into_inner(cohortd).expect("no poster runs");
    assert!(cohortd.stop().0.success());

    let segment = launchdarkly.segments(ENVIRONMENT).remove(id).expect("filled");
    assert!(segment.members == Backfill::truth(MEMBERS).collect::<BTreeSet<_>>());
    assert_eq!(launchdarkly.overlaps(), 0, "nothing overtook");
    let calls_after = launchdarkly.calls().total - calls.total;
    note!(
        "{MEMBERS} members taken in {posted:?} with {} calls failing, delivered in {delivered:?} \
         with {calls_after} calls; resident {early} KiB after 40,000, {late} after all, {after} \
         after delivery",
        calls.total,
    );
}

tests![a_backfill_during_an_outage_is_taken_in_flat_memory_and_delivered_after_it,];

//! Several destinations: recorded in one go, and configured while the ledger is open.

use super::*;

fn intake_of(name: DestinationName, bench: &Bench, deltas: Vec<MembershipDelta>) -> Intake {
    Intake { destination: name, ..intake(&*bench.ledger, deltas) }
}

async fn two() -> Bench {
    let mut bench = Bench::new();
    bench.others = vec![other()];
    bench.configure().await;
    bench
}

async fn waiting(bench: &Bench, name: &DestinationName) -> u64 {
    let backlog = bench.ledger.outbox(name).backlog().await.expect("it is open");
    backlog.iter().map(|of| of.waiting).sum()
}

#[tokio::test]
async fn a_request_for_several_destinations_is_recorded_for_all_or_none() {
    let bench = two().await;
    let kind = ContextKind::new("device").expect("a kind");
    let device = MembershipDelta { context_kind: kind, ..delta("a", "ada", true, 1) };
    bench.record(vec![delta("a", "ada", true, 1)]).await;

    let event = RejectedEvent {
        reason: "no_context_key".into(),
        detail: String::new(),
        body: b"{}".to_vec(),
        user_id: None,
        event_at: START,
    };
    let both = vec![
        intake_of(destination(), &bench, vec![delta("b", "bob", true, 1), device.clone()]),
        Intake { rejected: vec![event], ..intake_of(other(), &bench, vec![device]) },
    ];
    let recorded = bench.take_in_all(both).await;
    let conflicts: Vec<_> = recorded.iter().map(|of| of.kind_conflicts.clone()).collect();
    assert_eq!(conflicts, [vec![1], vec![]], "a conflict is of its own destination");
    assert_eq!((waiting(&bench, &destination()).await, waiting(&bench, &other()).await), (2, 1));
    let kept = bench.ledger.rejected(&other(), 0, 10).await.expect("it is open");
    assert_eq!(kept.len(), 1);
    assert!(bench.ledger.rejected(&destination(), 0, 10).await.expect("it is open").is_empty());

    let stranger = DestinationName::new("stranger").expect("not empty");
    let deltas = || vec![delta("c", "cyd", true, 1)];
    let mixed =
        vec![intake_of(destination(), &bench, deltas()), intake_of(stranger, &bench, deltas())];
    let refused = bench.ledger.record_all(mixed).await;
    assert!(matches!(refused, Err(LedgerError::UnknownDestination(_))), "{refused:?}");
    assert_eq!(waiting(&bench, &destination()).await, 2, "nothing of it");
}

#[tokio::test]
async fn a_destination_comes_and_goes_and_its_rows_stay() {
    let mut bench = Bench::new();
    let deltas = || vec![delta("a", "ada", true, 1)];
    let early = bench.ledger.record(intake_of(other(), &bench, deltas())).await;
    assert!(matches!(early, Err(LedgerError::UnknownDestination(_))), "{early:?}");

    bench.others = vec![other()];
    bench.configure().await;
    let mut news = bench.ledger.outbox(&other()).news();
    bench.take_in(intake_of(other(), &bench, deltas())).await;
    news.changed().await.expect("its courier is woken");
    let batch = bench.claim_of(&other(), "a", 9).await.expect("it waits");

    bench.others.clear();
    bench.configure().await;
    bench.settle(batch).await; // the answer to a call of before
    let late = vec![delta("a", "bob", true, 1)];
    bench.take_in(intake_of(other(), &bench, late)).await;
    let paused = bench.ledger.pause(&other(), true).await;
    assert!(matches!(paused, Err(LedgerError::UnknownDestination(_))), "{paused:?}");
    let all = bench.ledger.destinations().await.expect("it is open");
    let shown = all.iter().find(|view| view.name == "other").expect("its rows stay");
    assert_eq!((shown.configured, shown.included, shown.pending), (false, 2, 1));

    for reopened in [false, true] {
        if reopened {
            bench.reopen().await; // it is configured no more …
        }
        bench.others = vec![other()];
        bench.configure().await; // … and again
        assert_eq!(waiting(&bench, &other()).await, 1, "only bob was not told");
        bench.others.clear();
        bench.configure().await;
    }

    bench.ledger.erase(&other(), None).await.expect("it can be dropped");
    let all = bench.ledger.destinations().await.expect("it is open");
    assert!(all.iter().all(|view| view.name != "other"), "nothing is left to show");
}

#[tokio::test]
async fn what_was_told_is_forgotten_when_the_environment_changes() {
    let mut bench = two().await;
    for name in [destination(), other()] {
        let deltas = vec![delta("a", "ada", true, 1)];
        bench.take_in(intake_of(name.clone(), &bench, deltas)).await;
        bench.drain_to(&name, |_| {}).await;
    }
    bench.configure().await;
    let quiet = [waiting(&bench, &destination()).await, waiting(&bench, &other()).await];
    assert_eq!(quiet, [0, 0], "the same environments");

    bench.environment = "https://launchdarkly.test two".to_owned();
    bench.configure().await;
    bench.until(|waiting| waiting == 1).await;
    assert_eq!(waiting(&bench, &other()).await, 0, "its environment is the same");
    let backlog = bench.ledger.outbox(&destination()).backlog().await.expect("it is open");
    assert!(!backlog[0].acknowledged, "the segment is not there yet");
    bench.drain_to(&destination(), |_| {}).await;
    bench.reopen().await;
    assert_eq!(waiting(&bench, &destination()).await, 0, "and it is remembered");
}

#[test]
fn what_was_rolled_back_is_not_configured() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (db, _) = open::open(folder.path(), 1024).expect("it can be made");
    let settings = |name: &DestinationName, environment: &str| DestinationSettings {
        name: name.clone(),
        environment: environment.to_owned(),
        repeat_window: Duration::ZERO,
        reassert_after: Duration::ZERO,
    };
    let first = vec![settings(&destination(), "one")];
    let mut audiences = crate::ledger::embedded::engine::audiences::Audiences::open(
        &db,
        first,
        &BTreeSet::new(),
        START,
    )
    .expect("it is new");
    let next = || vec![settings(&destination(), "two"), settings(&other(), "three")];
    for is_kept in [false, true] {
        let before = audiences.configured();
        db.execute_batch("BEGIN").expect("nobody else writes");
        audiences.configure(&db, next(), START).expect("there is space");
        if is_kept {
            db.execute_batch("COMMIT").expect("there is space");
        } else {
            db.execute_batch("ROLLBACK").expect("it has begun");
            audiences.take_back(before);
            audiences.reload(&db, false).expect("the rows are as they were");
        }
        assert_eq!(audiences.configured_destination(&other()).is_some(), is_kept);
        let environment = &audiences.destinations[0].settings.environment;
        assert_eq!(environment, if is_kept { "two" } else { "one" });
    }
    let only = vec![settings(&other(), "three")];
    audiences.configure(&db, only, START).expect("there is space");
    assert!(audiences.configured_destination(&destination()).is_none());
    assert!(audiences.destination(&destination()).is_some(), "what is on its way arrives");
}

//! Several destinations: which are configured, what is kept of the others, and how many audiences each may have.

use super::subject::*;
use crate::ledger::LedgerError;
use crate::ledger::{Intake, Recorded};
use crate::membership::{DestinationName, MembershipDelta};

async fn two<S: Subject>() -> S {
    let mut store = S::open(Setup::default()).await;
    store.setup().destinations.push(settings(&other()));
    store.configure().await;
    store
}

pub(crate) async fn a_request_for_several_destinations_is_recorded_for_all_or_none<S: Subject>() {
    let store = two::<S>().await;
    let operations = store.operations();
    let of = |name: &DestinationName, deltas| intake(&*operations, name, deltas);
    let phone = || MembershipDelta { context_kind: device(), ..delta("a", "ada", true, 1) };
    store.record(enter("a", &["ada"])).await;
    let both = vec![
        of(&production(), vec![delta("b", "bob", true, 1), phone()]),
        Intake { rejected: vec![rejected(b"{}", None)], ..of(&other(), vec![phone()]) },
    ];
    let recorded = store.take_in(both).await;
    let conflicts: Vec<_> = recorded.iter().map(|of| of.kind_conflicts.clone()).collect();
    assert_eq!(conflicts, [vec![1], vec![]], "a conflict is of its own destination");
    assert_eq!((store.waiting(&production()).await, store.waiting(&other()).await), (2, 1));
    let kept = async |name: &DestinationName| {
        operations.rejected(name, 0, 10).await.expect("it is open").len()
    };
    assert_eq!((kept(&other()).await, kept(&production()).await), (1, 0));

    let stranger = DestinationName::new("stranger").expect("not empty");
    let deltas = || vec![delta("c", "cyd", true, 1)];
    let mixed = vec![of(&production(), deltas()), of(&stranger, deltas())];
    let refused = operations.record_all(mixed).await;
    assert!(matches!(refused, Err(LedgerError::UnknownDestination(_))), "{refused:?}");
    let outbox = operations.outbox(&stranger);
    assert!(matches!(outbox.backlog().await, Err(LedgerError::UnknownDestination(_))));
    assert!(matches!(outbox.claim(longest("c", 9)).await, Err(LedgerError::UnknownDestination(_))));
    assert_eq!(store.waiting(&production()).await, 2, "nothing of it");
}

pub(crate) async fn a_destination_comes_and_goes_and_its_rows_stay<S: Subject>() {
    let mut store = S::open(Setup::default()).await;
    let deltas = |key: &str| vec![delta("a", key, true, 1)];
    let to_other = |store: &S, key| vec![intake(&*store.operations(), &other(), deltas(key))];
    let early = store.operations().record_all(to_other(&store, "ada")).await;
    assert!(matches!(early, Err(LedgerError::UnknownDestination(_))), "{early:?}");

    store.setup().destinations.push(settings(&other()));
    store.configure().await;
    let mut news = store.operations().outbox(&other()).news();
    store.take_in(to_other(&store, "ada")).await;
    tokio::time::timeout(DEADLINE, news.changed()).await.expect("in time").expect("it is open");
    let batch = store.claim_of(&other(), "a", 9).await.expect("it waits");

    store.setup().destinations.truncate(1);
    store.configure().await;
    store.settle(batch).await; // the answer to a call of before
    store.take_in(to_other(&store, "bob")).await;
    let paused = store.operations().pause(&other(), true).await;
    assert!(matches!(paused, Err(LedgerError::UnknownDestination(_))), "{paused:?}");
    let all = store.operations().destinations().await.expect("it is open");
    let shown = all.iter().find(|view| view.name == "other").expect("its rows stay");
    assert_eq!((shown.configured, shown.included, shown.pending), (false, 2, 1));

    for is_reopened in [false, true] {
        if is_reopened {
            store.reopen().await; // it is configured no more …
        }
        store.setup().destinations.push(settings(&other()));
        store.configure().await; // … and again
        assert_eq!(store.waiting(&other()).await, 1, "only bob was not told");
        store.setup().destinations.truncate(1);
        store.configure().await;
    }
    store.operations().erase(&other(), None).await.expect("it can be erased");
    let all = store.operations().destinations().await.expect("it is open");
    assert!(all.iter().all(|view| view.name != "other"), "nothing is left to show");
}

pub(crate) async fn what_was_told_is_forgotten_when_the_environment_changes<S: Subject>() {
    let mut store = two::<S>().await;
    let people: Vec<String> = (0..600).map(|number| format!("p{number}")).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    for name in [production(), other()] {
        let deltas = enter("a", &people);
        store.take_in(vec![intake(&*store.operations(), &name, deltas)]).await;
        store.drain(&name).await;
    }
    store.configure().await;
    let quiet = (store.waiting(&production()).await, store.waiting(&other()).await);
    assert_eq!(quiet, (0, 0), "the same environments");

    for is_restarted in [false, true] {
        let environment = format!("https://launchdarkly.test {is_restarted}");
        store.setup().destinations[0].environment = environment;
        if is_restarted {
            store.reopen().await;
        } else {
            store.configure().await;
        }
        store.until_waiting(600).await;
        assert_eq!(store.waiting(&other()).await, 0, "its environment is the same");
        let backlog = store.operations().outbox(&production()).backlog().await;
        assert!(!backlog.expect("it is open")[0].acknowledged, "the segment is not there yet");
        let told = store.drain(&production()).await;
        assert_eq!(told.len(), 600, "everybody is told again");
        store.reopen().await;
        assert_eq!(store.waiting(&production()).await, 0, "and that is remembered");
    }
}

pub(crate) async fn rows_of_a_removed_destination_are_kept_and_shown_until_they_are_erased<
    S: Subject,
>() {
    let mut store = S::open(Setup::default()).await;
    store.record(enter("a", &["ada"])).await;
    let staging = DestinationName::new("staging").expect("not empty");
    store.setup().destinations = vec![settings(&staging)];
    store.reopen().await;
    let names = async |store: &S| -> Vec<(String, bool, u64)> {
        let all = store.operations().destinations().await.expect("it is open");
        all.into_iter().map(|of| (of.name, of.configured, of.pending)).collect()
    };
    let kept = ("production".to_owned(), false, 1);
    assert_eq!(names(&store).await, [kept, ("staging".to_owned(), true, 0)]);
    let operations = store.operations();
    assert_eq!(operations.audiences(&production()).await.expect("it is known").len(), 1);
    let resynced = operations.resync(&production(), None).await;
    assert!(matches!(resynced, Err(LedgerError::UnknownDestination(_))), "{resynced:?}");
    operations.erase(&production(), None).await.expect("there is space");
    assert_eq!(names(&store).await.len(), 1);
    drop(operations);
    store.setup().destinations = vec![settings(&production())];
    store.reopen().await;
    store.until(async || store.members(&production()).is_empty()).await;
    assert_eq!(store.faults(), [""; 0]);
}

pub(crate) async fn requests_that_come_together_get_as_many_places_as_there_are<S: Subject>() {
    const MOST: usize = 5;
    let mut setup = Setup::default();
    setup.bounds.max_audiences = MOST;
    let mut store = S::open(setup).await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..4 * MOST {
        let (operations, audience) = (store.operations(), format!("audience-{number}"));
        requests.spawn(async move {
            let intake = intake(&*operations, &production(), enter(&audience, &["ada", "bob"]));
            (audience, operations.record(intake).await.expect("there is space"))
        });
    }
    let all = requests.join_all().await;
    let (known, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, recorded)| *recorded == Recorded::default());
    assert_eq!(known.len(), MOST);
    for (_, recorded) in others {
        assert_eq!(recorded, Recorded { without_place: vec![0, 1], ..Recorded::default() });
    }
    // After a kill the known ones go on, and no other has a place; also if there are fewer.
    store.crash().await;
    for most in [MOST, 2] {
        store.setup().bounds.max_audiences = most;
        store.reopen().await;
        let go_on = known.iter().map(|(audience, _)| delta(audience, "cyd", true, 2));
        let deltas = [delta("one-more", "ada", true, 1)].into_iter().chain(go_on);
        let recorded = store.record(deltas.collect()).await;
        assert_eq!(recorded.without_place, [0], "{most}");
    }
}

pub(crate) async fn an_erased_audience_frees_its_place_once_its_calls_are_over<S: Subject>() {
    let mut setup = Setup::default();
    setup.bounds.max_audiences = 1;
    let store = S::open(setup).await;
    let operations = store.operations();
    let erase = async |audience: &str| {
        operations.erase(&production(), Some(&id(audience))).await.expect("it is known")
    };
    let has_place =
        async |audience| store.record(enter(audience, &["ada"])).await == Recorded::default();
    assert!(has_place("a").await);
    assert!(!has_place("b").await);
    assert_eq!(erase("a").await, 1);
    assert!(has_place("b").await, "nobody was in a call");

    let batch = store.next("b").await;
    erase("b").await;
    assert!(!has_place("c").await, "ada is in a call (P3)");
    store.settle(batch).await;
    store.until(async || has_place("c").await).await;
    assert_eq!(keys(&store.next("c").await), ["ada"]);
    assert!(store.claim("b", 9).await.is_none());
    // What is erased while in a call and comes back before its end keeps its place.
    erase("c").await;
    assert!(has_place("c").await);
    assert!(!has_place("d").await);
}

//! What operators do, and what is learnt about a refused batch.

use super::*;
use crate::ledger::embedded::tests::journaled::{Busy, closed};
use crate::ledger::{AudienceView, WalkView};

async fn enter(bench: &Bench, audience: &str, people: &[&str]) {
    bench.record(people.iter().map(|who| delta(audience, who, true, 1)).collect()).await;
}

#[tokio::test]
async fn a_renamed_destination_or_audience_keeps_its_members() {
    let mut bench = Bench::new();
    enter(&bench, "a", &["ada", "bob"]).await;
    bench.drain(&mut BTreeMap::new()).await;
    bench.close().await;
    let staging = DestinationName::new("staging").expect("not empty");
    let path = bench.directory.path().to_owned();
    let to_staging = Renamed::Destination { from: destination(), to: staging.clone() };
    rename(&path, &to_staging).expect("nobody has it open");
    assert!(matches!(rename(&path, &to_staging), Err(RenameError::Unknown(_))));
    let audience =
        |from, to| Renamed::Audience { destination: staging.clone(), from: id(from), to: id(to) };
    rename(&path, &audience("a", "b")).expect("nobody has it open");
    assert!(matches!(rename(&path, &audience("b", "b")), Err(RenameError::Taken(_))));
    bench.name = staging.clone();
    bench.open();
    assert!(matches!(rename(&path, &to_staging), Err(RenameError::Open(OpenError::InUse(_)))));
    bench.until(|waiting| waiting == 2).await;
    let batch = bench.claim("b", 9).await.expect("another segment is told everything");
    assert_eq!((keys(&batch), &batch.route.destination), (vec!["ada", "bob"], &staging));
}

#[tokio::test]
async fn an_audience_that_is_being_retracted_gets_no_other_task() {
    let bench = closed();
    let mut busy = Busy::open(&bench);
    busy.writer.turn(); // what is due at the start
    busy.record(vec![delta("a", "ada", true, 1), delta("b", "ada", true, 1)]).await;
    busy.writer.turn();
    let ledger = Arc::clone(&busy.ledger);
    let asked = tokio::spawn(async move {
        let (to, a, b) = (destination(), id("a"), id("b"));
        // In one group: the walk has not moved when the others are asked.
        tokio::join!(
            ledger.retract(&to, Some(&a)),
            ledger.resync(&to, None),
            ledger.resync(&to, Some(&a)),
            ledger.retract_stale(&to, &a, vec![1]),
            ledger.resync(&to, Some(&b)),
        )
    });
    tokio::task::yield_now().await; // all are asked
    busy.writer.turn();
    let (retracted, all, same, stale, other) = asked.await.expect("no panic");
    assert_eq!(retracted.expect("there is space"), 1);
    for refused in [all.map(|_| ()), same.map(|_| ()), stale] {
        assert!(matches!(refused, Err(LedgerError::Retracting(audience)) if audience == id("a")));
    }
    assert_eq!(other.expect("nothing is done with it"), 1);
}

#[tokio::test]
async fn a_resync_of_many_audiences_goes_in_slices_as_short_as_that_of_one() {
    const AUDIENCES: usize = 100;
    const PEOPLE: usize = 50;
    let bench = Bench::new();
    let name = |audience: usize| format!("aud{audience:03}");
    for audience in 0..AUDIENCES {
        let people = (0..PEOPLE).map(|n| delta(&name(audience), &format!("p{n}"), true, 1));
        bench.record(people.collect()).await;
        bench.settle(bench.claim(&name(audience), PEOPLE).await.expect("all wait")).await;
    }
    assert_eq!(bench.pending().await, 0);
    bench.ledger.resync(&destination(), None).await.expect("there is space");
    let mut seen = vec![0];
    let growing = async {
        while seen.last() != Some(&((AUDIENCES * PEOPLE) as u64)) {
            bench.claim("none", 1).await;
            let view = bench.view().await;
            seen.push(view.pending - view.unvisited);
            assert!(view.pending >= (AUDIENCES * PEOPLE) as u64, "all wait, from the beginning");
        }
    };
    tokio::time::timeout(DEADLINE, growing).await.expect("everybody is told again");
    let largest = seen.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(largest.is_some_and(|step| step <= 1500), "not all at once: {seen:?}");
    let listed = bench.ledger.audiences(&destination()).await.expect("it is known");
    let unvisited = |of: &AudienceView| of.walk.as_ref().map_or(0, WalkView::unvisited);
    assert!(listed.iter().all(|of| of.pending - unvisited(of) == PEOPLE as u64));
}

#[tokio::test]
async fn what_comes_after_a_deletion_is_applied_after_it_though_they_share_a_commit() {
    let mut bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    bench.drain(&mut BTreeMap::new()).await;
    bench.close().await;
    let (ledger, writer) = bench.try_open().expect("it can be opened");
    let (asked_at, person) = (ledger.arrival(), UserId::new("ada").expect("not empty"));
    let deletion = deletion(person, asked_at, intake(&ledger, Vec::new()));
    bench.clock.advance(Duration::from_secs(2));
    let later = asked_at.after(Duration::from_secs(1));
    let returns = intake(&ledger, vec![delta("a", "ada", true, later.0)]);
    // Both wait before the writer begins.
    let (deleted, returned, ()) =
        tokio::join!(ledger.record(deletion), ledger.record(returns), async {
            bench.writer = Some(std::thread::spawn(move || writer.run()));
        });
    assert!(deleted.is_ok() && returned.is_ok());
    bench.ledger = Arc::new(ledger);
    bench.drain(&mut BTreeMap::new()).await;
    let members = bench.ledger.reader().members(&destination()).expect("it can be read");
    let [ada] = &members[..] else { panic!("ada is back: {}", members.len()) };
    assert_eq!((ada.included, ada.told), (true, Some(true)));
}

#[tokio::test]
async fn a_ledger_that_is_being_emptied_is_sound_at_every_moment() {
    let bench = Bench::new();
    let people: Vec<String> = (0..1200).map(|number| format!("p{number:04}")).collect();
    bench.record(people.iter().map(|who| delta("a", who, true, 1)).collect()).await;
    // The last of them, whose record would outlive the first slices of members.
    let whole = bench.claim("a", 1200).await.expect("all wait");
    let one = |member| Batch { members: vec![member], ..whole.clone() };
    for member in whole.members.iter().take(3) {
        bench.park(one(member.clone())).await;
    }
    bench.ledger.erase(&destination(), Some(&id("a"))).await.expect("there is space");
    let emptying = async {
        loop {
            assert_eq!(bench.faults(), [""; 0]);
            let left = check(bench.directory.path()).expect("readable").expect("sound").members;
            if left == 0 {
                break;
            }
            bench.claim("none", 1).await; // an occasion for a slice of upkeep
        }
    };
    tokio::time::timeout(DEADLINE, emptying).await.expect("they go in time");
}

/// LaunchDarkly's words are kept while a member is tried again, and do not count meanwhile.
#[tokio::test]
async fn since_when_somebody_is_parked_is_said_of_those_who_are() {
    let bench = Bench::new();
    for who in ["ada", "bob"] {
        bench.record(vec![delta("a", who, true, 1)]).await;
        bench.park(bench.claim("a", 9).await.expect("one waits")).await;
        bench.clock.advance(Duration::from_secs(60));
    }
    let first = bench.view().await.parked_since.expect("two are parked");
    let context_keys = vec![ContextKey::new("ada").expect("not empty")];
    let ada = Members { destination: destination(), audience: id("a"), context_keys };
    assert_eq!(bench.ledger.requeue(ada).await.expect("there is space"), 1);
    let view = bench.view().await;
    assert_eq!((view.parked, view.pending), (1, 1));
    assert!(view.parked_since.expect("bob is parked") > first, "ada is not, any more");
}

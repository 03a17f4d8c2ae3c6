//! What operators do, and what is learnt about a refused batch.

use super::*;
use crate::ledger::{AudienceView, WalkView};

async fn enter(bench: &Bench, audience: &str, people: &[&str]) {
    bench.record(people.iter().map(|who| delta(audience, who, true, 1)).collect()).await;
}

/// Waits until the ledger holds so many members of the destination.
async fn until_rows(bench: &Bench, rows: usize) {
    let reader = bench.ledger.reader();
    let counting = async {
        while reader.members(&destination()).expect("it can be read").len() != rows {
            bench.claim("none", 1).await; // an occasion for a slice of upkeep
        }
    };
    tokio::time::timeout(DEADLINE, counting).await.expect("it comes to that in time");
}

#[tokio::test]
async fn the_halves_of_a_refused_batch_stay_apart_across_a_kill_until_they_are_taken() {
    let mut bench = Bench::new();
    enter(&bench, "a", &["ada", "bob", "cyd", "dan"]).await;
    let whole = bench.claim("a", 9).await.expect("four wait");
    let half = |range: std::ops::Range<usize>| Batch {
        route: Arc::clone(&whole.route),
        members: whole.members[range].to_vec(),
    };
    bench.report(Report::Split(vec![half(0..2), half(2..4)])).await;
    bench.crash();
    enter(&bench, "a", &["eve"]).await;
    let first = bench.claim("a", 9).await.expect("all wait");
    assert_eq!(keys(&first), ["ada", "bob"]);
    let second = bench.claim("a", 9).await.expect("three wait");
    assert_eq!(keys(&second), ["cyd", "dan"]);
    assert_eq!(keys(&bench.claim("a", 9).await.expect("one waits")), ["eve"]);
    bench.settle(first).await;
    bench.release(second, Unheard::No).await;
    bench.record(vec![delta("a", "ada", false, 2)]).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("three wait")), ["cyd", "dan"]);
    assert_eq!(keys(&bench.claim("a", 9).await.expect("ada left")), ["ada"]);
}

#[tokio::test]
async fn the_turnover_counts_changes_once_and_repeats_never() {
    let bench = Bench::new();
    let taken = || {
        let mut taken = bench.ledger.take_turnover(&destination());
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        taken
    };
    let of = |audience, joined, left| (id(audience), Turnover { joined, left });
    enter(&bench, "a", &["ada", "bob", "cyd"]).await;
    enter(&bench, "b", &["ada"]).await;
    enter(&bench, "a", &["ada", "bob"]).await;
    bench.record(vec![delta("a", "eve", false, 1)]).await; // was never in
    assert_eq!(taken(), [of("a", 3, 0), of("b", 1, 0)]);
    assert_eq!(taken(), []);
    bench.record(vec![delta("a", "ada", false, 2), delta("a", "bob", false, 0)]).await;
    bench.ledger.resync(&destination(), None).await.expect("there is space");
    let user = UserId::new("cyd").expect("an id");
    bench.ledger.forget(&destination(), user).await.expect("there is space");
    assert_eq!(
        taken(),
        [of("a", 0, 2)],
        "what is older changes nothing, and telling again neither"
    );
}

#[tokio::test]
async fn a_dropped_audience_is_gone_at_once_and_its_rows_soon_and_its_name_is_free() {
    let mut bench = Bench::new();
    enter(&bench, "a", &["ada", "bob"]).await;
    enter(&bench, "b", &["ada"]).await;
    let out = bench.claim("a", 1).await.expect("two wait");
    assert_eq!(bench.ledger.erase(&destination(), Some(&id("a"))).await.expect("space"), 1);
    assert!(bench.claim("a", 9).await.is_none(), "nothing is left to be told");
    let mut device = delta("a", "ada", true, 1);
    device.context_kind = ContextKind::new("device").expect("a kind");
    assert_eq!(bench.record(vec![device]).await, Recorded::default(), "its kind is free too");
    assert!(bench.claim("a", 9).await.is_none(), "ada is in a call (P3)");
    bench.settle(out).await;
    let again = bench.claim("a", 9).await.expect("ada waits under the new kind");
    assert_eq!((keys(&again), again.route.context_kind.as_str()), (vec!["ada"], "device"));
    bench.settle(again).await;
    until_rows(&bench, 2).await;
    assert_eq!(bench.faults(), [""; 0]);
    bench.reopen().await;
    let listed = bench.ledger.audiences(&destination()).await.expect("it is known");
    assert_eq!(listed.iter().map(|of| of.audience.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let unknown = bench.ledger.erase(&destination(), Some(&id("z"))).await;
    assert!(matches!(unknown, Err(LedgerError::UnknownAudience(_))));
}

#[tokio::test]
async fn rows_of_a_removed_destination_are_kept_and_shown_until_they_are_dropped() {
    let mut bench = Bench::new();
    enter(&bench, "a", &["ada"]).await;
    bench.name = DestinationName::new("staging").expect("not empty");
    bench.reopen().await;
    let names = async |bench: &Bench| -> Vec<(String, bool, u64)> {
        let all = bench.ledger.destinations().await.expect("it is open");
        all.into_iter().map(|of| (of.name, of.configured, of.pending)).collect()
    };
    let kept = ("production".to_owned(), false, 1);
    assert_eq!(names(&bench).await, [kept, ("staging".to_owned(), true, 0)]);
    assert_eq!(bench.ledger.audiences(&destination()).await.expect("it is known").len(), 1);
    assert!(matches!(
        bench.ledger.resync(&destination(), None).await,
        Err(LedgerError::UnknownDestination(_))
    ));
    bench.ledger.erase(&destination(), None).await.expect("there is space");
    assert_eq!(names(&bench).await.len(), 1);
    bench.name = destination();
    bench.reopen().await;
    until_rows(&bench, 0).await;
    assert_eq!(bench.faults(), [""; 0]);
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
async fn a_retracted_audience_is_told_that_everybody_left_and_then_forgotten() {
    let mut bench = Bench::with(Duration::from_millis(20));
    enter(&bench, "a", &["ada", "bob", "cyd"]).await;
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    bench.record(vec![delta("a", "bob", false, 2)]).await;
    bench.drain(&mut launchdarkly).await;
    bench.ledger.retract(&destination(), None).await.expect("there is space");
    assert!(matches!(
        bench.ledger.resync(&destination(), None).await,
        Err(LedgerError::Retracting(_))
    ));
    bench.until(|waiting| waiting == 2).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("two are in")), ["ada", "cyd"]);
    bench.reopen().await; // in the middle of a call, so that both are told twice
    let erased = async {
        while !bench.ledger.reader().members(&destination()).expect("readable").is_empty() {
            bench.drain(&mut launchdarkly).await;
            bench.claim("none", 1).await;
        }
    };
    tokio::time::timeout(DEADLINE, erased).await.expect("their rows go in time");
    assert!(launchdarkly.values().all(|included| !included));
    assert!(bench.ledger.audiences(&destination()).await.expect("it is known").is_empty());
}

#[tokio::test]
async fn only_stale_members_are_retracted() {
    let bench = Bench::new();
    let under = |rule, key| MembershipDelta { key_rule: rule, ..delta("a", key, true, 1) };
    bench.record(vec![under(1, "u1"), under(2, "u1@example.com"), under(7, "other")]).await;
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    let any = async |rules: &[u32]| {
        bench.ledger.any_under_rules(&destination(), &id("a"), rules).await.expect("readable")
    };
    assert_eq!((any(&[3, 2]).await, any(&[3]).await, any(&[]).await), (true, false, false));
    bench.ledger.retract_stale(&destination(), &id("a"), vec![2, 9]).await.expect("space");
    bench.until(|waiting| waiting == 2).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("two")), ["other", "u1"]);
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
async fn a_pause_lasts_across_a_restart_and_wakes_the_courier_when_it_ends() {
    let mut bench = Bench::new();
    bench.ledger.pause(&destination(), true).await.expect("there is space");
    let since = bench.ledger.outbox(&destination()).paused_since().expect("it is paused");
    bench.ledger.pause(&destination(), true).await.expect("there is space");
    bench.reopen().await;
    assert_eq!(
        bench.ledger.outbox(&destination()).paused_since(),
        Some(since),
        "the first pause counts"
    );
    assert_eq!(bench.view().await.paused_since, Some(since));
    let mut news = bench.ledger.outbox(&destination()).news();
    news.mark_unchanged();
    bench.ledger.pause(&destination(), false).await.expect("there is space");
    tokio::time::timeout(DEADLINE, news.changed()).await.expect("in time").expect("it is open");
    assert_eq!(bench.ledger.outbox(&destination()).paused_since(), None);
}

#[tokio::test]
async fn parked_members_can_be_given_up_and_nobody_else() {
    let bench = Bench::new();
    enter(&bench, "a", &["ada", "bob"]).await;
    bench.park(bench.claim("a", 1).await.expect("two wait")).await;
    let of = |keys: &[&str]| Members {
        destination: destination(),
        audience: id("a"),
        context_keys: keys.iter().filter_map(|key| ContextKey::new(key)).collect(),
    };
    let view = bench.view().await;
    assert_eq!((view.included, view.pending, view.parked), (2, 1, 1));
    let discarded = bench.ledger.discard_parked(of(&["ada", "bob", "nobody"])).await;
    assert_eq!(discarded.expect("there is space"), 1);
    assert!(bench.parked().is_empty());
    assert_eq!(bench.view().await.included, 1);
    enter(&bench, "a", &["ada"]).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("as if new")), ["bob", "ada"]);
    assert_eq!(bench.ledger.requeue(of(&["ada"])).await.expect("there is space"), 0);
}

#[tokio::test]
async fn a_person_is_shown_under_every_key() {
    let bench = Bench::new();
    let under_email =
        MembershipDelta { user_id: UserId::new("u1"), ..delta("b", "u1@example.com", true, 5) };
    bench.record(vec![delta("a", "u1", false, 3), under_email, delta("a", "u2", true, 1)]).await;
    let shown = async |key: &str| -> Vec<(String, String, bool, Option<bool>)> {
        let found = bench.ledger.member(&destination(), key).await.expect("it is known");
        let of = |view: MemberView| (view.audience, view.context_key, view.included, view.told);
        found.into_iter().map(of).collect()
    };
    let (a, b) = (
        ("a".to_owned(), "u1".to_owned(), false, None),
        ("b".to_owned(), "u1@example.com".to_owned(), true, None),
    );
    assert_eq!(shown("u1").await, [a, b.clone()]);
    assert_eq!(shown("u1@example.com").await, [b]);
    assert!(shown("u3").await.is_empty());
}

#[tokio::test]
async fn a_deletion_that_is_refused_for_good_erases_the_person_all_the_same() {
    let bench = Bench::new();
    enter(&bench, "a", &["ada"]).await;
    bench.park(bench.claim("a", 9).await.expect("ada waits")).await;
    bench.ledger.forget(&destination(), UserId::new("ada").expect("not empty")).await.expect("ok");
    assert!(bench.parked().is_empty(), "what was said of them is erased at once");
    bench.park(bench.claim("a", 9).await.expect("the removal")).await;
    assert!(bench.ledger.reader().members(&destination()).expect("readable").is_empty());
    assert!(bench.parked().is_empty());
    assert_eq!(bench.faults(), [""; 0]);
}

#[tokio::test]
async fn somebody_who_was_told_can_be_claimed_again_one_after_the_other() {
    let bench = Bench::new();
    enter(&bench, "a", &["ada", "bob"]).await;
    enter(&bench, "b", &["cyd"]).await;
    let told = async |after: Option<(&str, &str)>| {
        let after =
            after.map(|(audience, key)| (id(audience), ContextKey::new(key).expect("not empty")));
        let batch =
            bench.ledger.outbox(&destination()).claim(Claim::Told { after }).await.expect("open");
        batch.map(|batch| (keys(&batch).concat(), batch))
    };
    assert!(told(None).await.is_none(), "nobody was told");
    bench.drain(&mut BTreeMap::new()).await;
    let (first, batch) = told(None).await.expect("three were");
    assert_eq!((&*first, told(None).await.expect("bob").0.as_str()), ("ada", "bob"));
    bench.settle(batch).await;
    assert_eq!(told(Some(("a", "ada"))).await.expect("bob is in a call").0, "cyd");
    assert!(told(Some(("b", "cyd"))).await.is_none());
}

#[tokio::test]
async fn a_ledger_that_is_being_emptied_is_sound_at_every_moment() {
    let bench = Bench::new();
    let people: Vec<String> = (0..1200).map(|number| format!("p{number:04}")).collect();
    bench.record(people.iter().map(|who| delta("a", who, true, 1)).collect()).await;
    // The last of them, whose record would outlive the first slices of members.
    let whole = bench.claim("a", 1200).await.expect("all wait");
    let one = |member| Batch { route: Arc::clone(&whole.route), members: vec![member] };
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

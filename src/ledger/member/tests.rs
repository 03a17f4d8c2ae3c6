//! Each rule, with the interleaving that would break it.

use super::*;
use crate::membership::ContextKey;

const WINDOW: Duration = Duration::from_secs(3600);

fn at(stamp: i64) -> Moment {
    Moment {
        stamp: Timestamp(stamp),
        told_counts_from: Timestamp::EPOCH,
        repeat_window: WINDOW,
        unheard_through: Timestamp::EPOCH,
        expires_after: None,
        snapshot_at: Timestamp::EPOCH,
    }
}

fn enters(event_at: i64) -> Change {
    Change {
        membership: Membership::In,
        event_at: Timestamp(event_at),
        key_rule: 1,
        person: None,
        is_repeat: false,
    }
}

fn leaves(event_at: i64) -> Change {
    Change { membership: Membership::Out, ..enters(event_at) }
}

/// A member and a sequence of events, in few words.
struct Story(Option<Member>);

impl Story {
    fn new() -> Self {
        Self(None)
    }

    fn apply(&mut self, next: Next) -> &mut Self {
        match next {
            Next::Same => {}
            Next::Write(member) => self.0 = Some(member),
            Next::Delete => self.0 = None,
        }
        self
    }

    fn record(&mut self, change: &Change, stamp: i64) -> &mut Self {
        let next = record(self.0.as_ref(), change, &at(stamp));
        self.apply(next)
    }

    fn claim(&self) -> ClaimedMember {
        let member = self.member();
        assert!(member.pending_since.is_some(), "only what is pending is claimed");
        ClaimedMember {
            context_key: ContextKey::new("ada").expect("not empty"),
            membership: member.membership,
            version: member.version,
        }
    }

    /// Settles; returns whether the member is to be told once more.
    fn settle(&mut self, claimed: &ClaimedMember, stamp: i64) -> bool {
        let (next, again) = settle(self.0.as_ref(), claimed, &at(stamp));
        self.apply(next);
        again
    }

    fn deliver(&mut self, stamp: i64) -> &mut Self {
        let claimed = self.claim();
        self.settle(&claimed, stamp);
        self
    }

    fn release(&mut self, unheard: Unheard, stamp: i64) -> &mut Self {
        let next = release(self.0.as_ref(), unheard, &at(stamp));
        self.apply(next)
    }

    fn park(&mut self, claimed: &ClaimedMember, stamp: i64) -> bool {
        let (next, parked) = park(self.0.as_ref(), claimed, &at(stamp));
        self.apply(next);
        parked
    }

    fn member(&self) -> &Member {
        self.0.as_ref().expect("the story has a member here")
    }

    fn pending(&self) -> bool {
        self.member().pending_since.is_some()
    }

    fn included(&self) -> bool {
        self.member().membership == Membership::In
    }
}

#[test]
fn the_latest_event_time_wins_whatever_the_order_and_a_tie_goes_to_the_later_arrival() {
    let cases: [(&str, &[Change], bool); 6] = [
        ("in order", &[enters(1), leaves(2)], false),
        ("out of order", &[leaves(2), enters(1)], false),
        ("tie", &[enters(5), leaves(5)], false),
        ("tie, other way", &[leaves(5), enters(5)], true),
        ("old between", &[enters(1), leaves(9), enters(5)], false),
        // An equal value moves the event time: the "leave" of 5 is older than the "enter" of 7.
        ("equal value moves the time", &[enters(3), enters(7), leaves(5)], true),
    ];
    for (case, changes, included) in cases {
        let mut story = Story::new();
        for (index, change) in (10..).zip(changes) {
            story.record(change, index);
        }
        assert_eq!(story.included(), included, "{case}");
    }
}

#[test]
fn a_message_that_comes_again_is_no_later_arrival() {
    let again = |change: Change| Change { is_repeat: true, ..change };
    let mut story = Story::new();
    story.record(&enters(10), 10).record(&leaves(10), 10);
    story.record(&again(enters(10)), 20);
    assert!(!story.included(), "it was considered before");
    story.record(&again(enters(11)), 21);
    assert!(story.included(), "what is newer than the stored value counts all the same");
    let mut gone = Story::new();
    gone.record(&again(enters(10)), 20);
    assert!(gone.included(), "nothing is stored that it could be a part of");
}

#[test]
fn it_is_known_whose_event_time_was_ahead_of_its_arrival() {
    let is_ahead = |story: &Story| story.member().is_ahead;
    let mut story = Story::new();
    assert!(is_ahead(story.record(&enters(15), 10)));
    assert!(is_ahead(story.record(&enters(15), 20)), "told again once the time has come");
    assert!(!is_ahead(story.record(&enters(18), 20)));
    assert!(!is_ahead(story.record(&leaves(20), 20)), "at its arrival is not ahead of it");
    assert!(is_ahead(story.record(&leaves(25), 20)));
    assert!(!is_ahead(Story::new().record(&enters(20), 20)));
}

#[test]
fn a_deletion_takes_over_whether_the_event_time_was_ahead_with_the_event_time() {
    let table = [
        ("ahead, and the deletion is older", enters(25), 22, true),
        ("ahead, and the deletion is newer", enters(25), 26, false),
        ("not ahead, and the deletion is older", enters(18), 17, false),
        ("not ahead, and the deletion is newer", enters(18), 19, false),
    ];
    for (case, change, asked_at, is_ahead) in table {
        let mut story = Story::new();
        let next = forget(story.record(&change, 20).member(), Timestamp(asked_at), &at(30));
        assert_eq!(story.apply(next).member().is_ahead, is_ahead, "{case}");
    }
}

#[test]
fn whoever_waits_keeps_the_place_whatever_comes_meanwhile() {
    let mut story = Story::new();
    story.record(&enters(1), 10).record(&leaves(2), 20).record(&leaves(3), 30);
    assert_eq!(story.member().pending_since, Some(Timestamp(10)));
    assert_eq!(reassert(story.member(), &at(40)), Next::Same, "waits for a call already");
    let next = forget(story.member(), Timestamp(4), &at(50));
    assert_eq!(story.apply(next).member().pending_since, Some(Timestamp(10)));
}

#[test]
fn a_resync_asks_nothing_of_a_parked_member() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.park(&claimed, 20);
    assert_eq!(reassert(story.member(), &at(30)), Next::Same);
}

#[test]
fn a_first_left_is_sent_because_never_told_is_not_absent() {
    assert!(Story::new().record(&leaves(1), 10).pending());
}

#[test]
fn a_repeat_is_not_sent_within_the_window_and_is_sent_after_it() {
    let mut story = Story::new();
    story.record(&enters(1), 10).deliver(1_000_000);
    assert!(!story.record(&enters(2), 2_000_000).pending());
    let after = 1_000_000 + 3_600_000_000;
    assert!(!story.record(&enters(3), after - 1).pending(), "a microsecond early");
    assert!(story.record(&enters(4), after).pending());
}

#[test]
fn a_value_that_flips_back_while_a_call_is_out_is_sent_again() {
    let mut story = Story::new();
    story.record(&leaves(1), 10).deliver(20);
    story.record(&enters(2), 30);
    let claimed = story.claim();
    story.record(&leaves(3), 40); // equal to what was told last, but the call is out
    assert!(!story.settle(&claimed, 50));
    assert!(story.pending(), "LaunchDarkly has it in: the leave must follow");
    assert!(!story.included());
    story.deliver(60);
    assert!(!story.pending());
}

#[test]
fn a_value_that_flips_back_after_an_unheard_call_is_sent_again_and_once_more_later() {
    let mut story = Story::new();
    story.record(&leaves(1), 10).deliver(20);
    story.record(&enters(2), 30);
    story.claim();
    story.release(Unheard::Perhaps, 40);
    story.record(&leaves(3), 50); // equal to what was told, but the unanswered call may be applied
    assert!(story.pending());
    let claimed = story.claim();
    assert!(story.settle(&claimed, 60), "a late duplicate may come after this settle");
    assert!(!story.pending());
    let next = reassert_after_silence(story.member(), false, &at(70));
    story.apply(next);
    let claimed = story.claim();
    assert!(!story.settle(&claimed, 80), "told once more, and no more than once");
}

#[test]
fn what_was_pending_when_the_process_died_counts_as_unheard() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    let after_restart = Moment { unheard_through: Timestamp(10), ..at(20) };
    let (_, again) = settle(story.0.as_ref(), &claimed, &after_restart);
    assert!(again);
    let not_claimed_then = Moment { unheard_through: Timestamp(9), ..at(20) };
    let (_, again) = settle(story.0.as_ref(), &claimed, &not_claimed_then);
    assert!(!again);
}

#[test]
fn a_settle_of_an_older_version_leaves_the_newer_one_pending() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.record(&leaves(2), 20).record(&enters(3), 30); // flips twice: equal value, newer version
    story.settle(&claimed, 40);
    assert!(story.pending());
}

/// A deletion has the stamp of its application; a delta that entered the log after it may have an older one.
#[test]
fn a_version_grows_although_the_stamp_of_what_waited_does_not() {
    let mut story = Story::new();
    story.record(&enters(1), 1).deliver(2);
    story.apply(forget(&story.member().clone(), Timestamp(3), &at(31)));
    let removal = story.claim();
    story.record(&enters(4), 28);
    assert!(story.claim().version > removal.version);
    story.settle(&removal, 32);
    assert!(story.pending() && story.included());
    let entry = story.claim();
    story.apply(forget(&story.member().clone(), Timestamp(5), &at(entry.version.0)));
    assert!(story.claim().version > entry.version);
}

#[test]
fn an_equal_value_while_a_call_is_out_needs_no_second_call() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.record(&enters(2), 20);
    story.settle(&claimed, 30);
    assert!(!story.pending());
}

#[test]
fn a_settle_of_a_forgotten_row_creates_nothing() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.0 = None;
    story.settle(&claimed, 20);
    assert!(story.0.is_none());
}

#[test]
fn a_deletion_removes_first_and_erases_once_that_was_told() {
    let mut story = Story::new();
    story.record(&enters(1), 10).deliver(20);
    let next = forget(story.member(), Timestamp(30), &at(30));
    story.apply(next);
    assert!(story.pending() && !story.included());
    story.deliver(40);
    assert!(story.0.is_none());
}

#[test]
fn a_deletion_during_a_call_still_sends_the_removal() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    let next = forget(story.member(), Timestamp(20), &at(20));
    story.apply(next);
    story.settle(&claimed, 30);
    assert!(story.pending(), "LaunchDarkly has just been told that the person is in");
    story.deliver(40);
    assert!(story.0.is_none());
}

#[test]
fn a_deletion_after_an_unheard_call_keeps_the_row_until_the_removal_was_told_twice() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    story.release(Unheard::Perhaps, 20);
    let next = forget(story.member(), Timestamp(30), &at(30));
    story.apply(next);
    let claimed = story.claim();
    assert!(story.settle(&claimed, 40));
    let next = reassert_after_silence(story.member(), false, &at(50));
    story.apply(next);
    story.deliver(60);
    assert!(story.0.is_none());
}

#[test]
fn a_deletion_before_the_re_assertion_keeps_the_row_until_the_removal_was_told_twice() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    story.release(Unheard::Perhaps, 20);
    let claimed = story.claim();
    assert!(story.settle(&claimed, 30), "the unanswered entry may still be applied");
    let next = forget(story.member(), Timestamp(40), &at(40));
    story.apply(next);
    let claimed = story.claim();
    assert!(story.settle(&claimed, 50), "and so it may after this removal");
    let next = reassert_after_silence(story.member(), false, &at(60));
    story.apply(next);
    story.deliver(70);
    assert!(story.0.is_none());
}

#[test]
fn a_deletion_that_is_refused_for_good_erases_all_the_same() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    assert!(story.park(&claimed, 15), "the entry was refused");
    let next = forget(story.member(), Timestamp(20), &at(20));
    story.apply(next);
    let claimed = story.claim();
    assert!(!story.park(&claimed, 30));
    assert!(story.0.is_none(), "LaunchDarkly never took anything of this person");
}

#[test]
fn a_deletion_that_is_refused_is_kept_while_the_person_may_be_in_the_segment() {
    let told: fn(&mut Story) = |story| _ = story.deliver(20);
    let unheard: fn(&mut Story) = |story| _ = story.release(Unheard::Perhaps, 20);
    let unknown: fn(&mut Story) = |_| ();
    for may_be_in in [told, unheard, unknown] {
        let mut story = Story::new();
        story.record(&enters(1), 10);
        may_be_in(&mut story);
        let next = forget(story.member(), Timestamp(30), &at(30));
        story.apply(next);
        let claimed = story.claim();
        assert!(story.park(&claimed, 40));
        assert!(story.member().is_parked() && !story.included());
        let next = requeue(story.member(), &at(50));
        story.apply(next);
        story.deliver(60);
        if story.0.is_some() {
            let next = reassert_after_silence(story.member(), false, &at(70));
            story.apply(next);
            story.deliver(80);
        }
        assert!(story.0.is_none(), "it was told");
    }
}

#[test]
fn an_event_after_the_deletion_brings_the_person_back() {
    let mut story = Story::new();
    story.record(&enters(1), 10).deliver(20);
    let next = forget(story.member(), Timestamp(30), &at(30));
    story.apply(next).record(&enters(29), 40);
    assert!(!story.included(), "older than the deletion");
    story.record(&enters(31), 50);
    assert!(story.included());
    story.deliver(60);
    assert!(story.0.is_some(), "no longer to be erased");
}

#[test]
fn a_deletion_counts_at_its_arrival_and_not_when_it_was_written_down() {
    let mut story = Story::new();
    story.record(&enters(1), 10).deliver(20);
    let next = forget(story.member(), Timestamp(30), &at(50));
    story.apply(next).record(&enters(40), 60);
    assert!(story.included(), "it happened after the deletion came");
    story.apply(forget(story.member(), Timestamp(35), &at(70)));
    assert!(!story.included(), "but what is there already goes, whatever its time");
}

#[test]
fn a_re_assertion_that_falls_into_a_call_is_made_up_for() {
    let mut story = Story::new();
    story.record(&leaves(1), 10);
    story.claim();
    story.release(Unheard::Perhaps, 20);
    let claimed = story.claim();
    assert!(story.settle(&claimed, 30));
    story.record(&enters(2), 40);
    let claimed = story.claim();
    // The re-assertion is due; the call that is out may have been applied before the unanswered one.
    let next = reassert_after_silence(story.member(), true, &at(50));
    story.apply(next);
    assert!(story.settle(&claimed, 60), "so it is planned once more");
    let next = reassert_after_silence(story.member(), false, &at(70));
    story.apply(next);
    assert!(story.pending());
    let claimed = story.claim();
    assert!(!story.settle(&claimed, 80), "and that is the end of it");
}

/// What becomes of whoever was in a call of an owner before: unheard at a takeover, unheard after a call that ended late,
/// told once more though nothing is pending.
#[test]
fn calls_of_an_owner_before_are_made_up_for() {
    let mut waits = Story::new();
    waits.record(&enters(1), 10);
    let mut rests = Story::new();
    rests.record(&enters(1), 10).deliver(20);
    let mut parked = Story::new();
    parked.record(&enters(1), 10);
    let claimed = parked.claim();
    parked.park(&claimed, 20);
    let rows = [
        ("waits", waits, true, true, false),
        ("rests", rests, false, false, true),
        ("parked", parked, false, true, false),
    ];
    for (case, mut story, at_takeover, after_late, again) in rows {
        let after = unheard(story.member());
        let is_unheard = after.or(story.0.as_ref()).is_some_and(|of| of.unheard);
        assert_eq!(is_unheard, at_takeover, "{case}, at a takeover");
        let (next, is_told_again) = told_late(story.member());
        story.apply(next);
        assert_eq!((story.member().unheard, is_told_again), (after_late, again), "{case}, late");
    }
}

#[test]
fn a_parked_member_stays_parked_under_repeats_and_leaves_with_a_newer_value() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    assert!(story.park(&claimed, 20));
    assert!(story.member().is_parked());
    assert!(!story.record(&enters(2), 30).pending(), "a repeat would only be refused again");
    assert!(story.record(&leaves(3), 40).pending());
    assert!(story.member().parked_at.is_some(), "it travels alone until it is taken");
    story.deliver(50);
    assert_eq!(story.member().parked_at, None);
}

#[test]
fn parking_an_older_version_leaves_the_newer_one_pending() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.record(&leaves(2), 20);
    assert!(!story.park(&claimed, 30));
    assert!(story.pending() && story.member().parked_at.is_some());
}

#[test]
fn requeue_brings_parked_members_back_and_touches_no_others() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    let claimed = story.claim();
    story.park(&claimed, 20);
    let next = requeue(story.member(), &at(30));
    story.apply(next);
    assert!(story.pending());
    story.deliver(40);
    assert_eq!(requeue(story.member(), &at(50)), Next::Same);
}

#[test]
fn a_release_behind_all_others_moves_to_the_end_and_stays_unheard_if_it_was() {
    let mut story = Story::new();
    story.record(&enters(1), 10);
    story.release(Unheard::NoAndLast, 99);
    assert_eq!(story.member().pending_since, Some(Timestamp(99)));
    assert!(!story.member().unheard);
    let died_in_a_call = Moment { unheard_through: Timestamp(99), ..at(120) };
    let Next::Write(moved) = release(story.0.as_ref(), Unheard::NoAndLast, &died_in_a_call) else {
        panic!("it moves to the end");
    };
    assert!(moved.unheard, "its new place would hide that it was in a call");
}

#[test]
fn what_was_told_to_another_environment_does_not_count() {
    let mut story = Story::new();
    story.record(&enters(1), 10).deliver(20);
    let elsewhere = Moment { told_counts_from: Timestamp(30), ..at(40) };
    let Next::Write(next) = record(story.0.as_ref(), &enters(2), &elsewhere) else {
        panic!("the new environment was never told");
    };
    assert!(next.pending_since.is_some());
}

/// A member that LaunchDarkly may still have in the segment is removed there before its row is erased.
#[test]
fn a_retraction_erases_at_once_only_what_launchdarkly_knows_to_be_out() {
    let is_out = || Story::new().record(&leaves(1), 10).deliver(20).member().clone();
    let is_in = || Story::new().record(&enters(1), 10).deliver(20).member().clone();
    let since = || Some(Timestamp(30));
    let table = [
        ("told that it left", is_out(), true),
        ("never told", Story::new().record(&leaves(1), 10).member().clone(), false),
        ("told that it entered", is_in(), false),
        ("left, and not told yet", Member { membership: Membership::Out, ..is_in() }, false),
        (
            "entered since, and was refused",
            Member { membership: Membership::In, ..is_out() },
            false,
        ),
        (
            "told once more, and waiting for it",
            Member { pending_since: since(), ..is_out() },
            false,
        ),
        ("in a call that was not answered", Member { unheard: true, ..is_out() }, false),
    ];
    for (case, before, is_erased) in table {
        let next = retract(&before, &at(40));
        assert_eq!(next == Next::Delete, is_erased, "{case}");
        let mut story = Story(Some(before));
        story.apply(next);
        if !is_erased {
            assert!(story.pending() && !story.included(), "{case}: the removal waits to be told");
            assert!(story.member().erase, "{case}: and then it is erased");
        }
    }
    let elsewhere = Moment { told_counts_from: Timestamp(30), ..at(40) };
    assert_ne!(retract(&is_out(), &elsewhere), Next::Delete, "another environment was told");
}

#[test]
fn a_tombstone_is_spent_only_when_left_told_and_old() {
    let ttl = Duration::from_micros(100);
    let mut story = Story::new();
    story.record(&leaves(1), 10);
    assert!(!story.member().is_spent_tombstone(Timestamp(10_000), ttl), "not told yet");
    story.deliver(20);
    assert!(!story.member().is_spent_tombstone(Timestamp(119), ttl));
    assert!(story.member().is_spent_tombstone(Timestamp(120), ttl));
    let left = story.member().clone();
    let more_to_do = [
        ("is to be told once more", Member { pending_since: Some(Timestamp(30)), ..left.clone() }),
        ("may still be told otherwise", Member { unheard: true, ..left.clone() }),
        ("is parked", Member { parked_at: Some(Timestamp(30)), ..left.clone() }),
        ("is in", Member { membership: Membership::In, ..left }),
    ];
    for (case, member) in more_to_do {
        assert!(!member.is_spent_tombstone(Timestamp(10_000), ttl), "{case}");
    }
    story.record(&enters(2), 130).deliver(140);
    assert!(!story.member().is_spent_tombstone(Timestamp(10_000), ttl), "in");
}

/// What the counters call a repeat is a delta that nobody is told because of.
#[test]
fn a_repeat_is_a_delta_that_nobody_is_told_for() {
    let told = || Story::new().record(&enters(10), 100).deliver(200).member().clone();
    let pending = || Story::new().record(&enters(10), 100).member().clone();
    let window = 200 + i64::try_from(WINDOW.as_micros()).expect("it fits");
    let table = [
        ("the first", None, enters(10), 100, (false, false)),
        ("the same before it was told", Some(pending()), enters(10), 300, (true, false)),
        ("the same after it was told", Some(told()), enters(20), 300, (true, false)),
        ("the same after the window", Some(told()), enters(20), window, (false, false)),
        ("the opposite", Some(told()), leaves(20), 300, (false, false)),
        ("the opposite before it was told", Some(pending()), leaves(20), 300, (false, false)),
        ("an older one", Some(told()), enters(9), 300, (false, true)),
        ("an older opposite", Some(told()), leaves(9), 300, (false, true)),
    ];
    for (case, before, change, stamp, expected) in table {
        let next = record(before.as_ref(), &change, &at(stamp));
        let (before, moment) = (before.as_ref(), at(stamp));
        let overtaken = is_overtaken(before, &change, &moment);
        let is_repeat = is_repeat(before, &change, &next, &moment);
        assert_eq!((is_repeat, overtaken), expected, "{case}");
    }
}

/// Whoever is known or not: what is older than a snapshot and arrives after it has lost to it.
#[test]
fn what_is_older_than_a_snapshot_changes_nobody() {
    let moment = |stamp| Moment { snapshot_at: Timestamp(50), ..at(stamp) };
    let known = || Story::new().record(&enters(10), 100).deliver(200).member().clone();
    let rows = [
        ("an older exit", Some(known()), leaves(49), true),
        ("an exit of its time", Some(known()), leaves(50), false),
        ("a newer exit", Some(known()), leaves(51), false),
        ("an older entry of somebody unknown", None, enters(49), true),
        ("an entry of its time of somebody unknown", None, enters(50), false),
        ("a newer entry of somebody unknown", None, enters(51), false),
    ];
    for (case, before, change, is_lost) in rows {
        let next = record(before.as_ref(), &change, &moment(300));
        assert_eq!(next == Next::Same, is_lost, "{case}");
        let overtaken = is_overtaken(before.as_ref(), &change, &moment(300));
        assert_eq!(overtaken, is_lost, "{case}: it is counted");
        assert!(!is_repeat(before.as_ref(), &change, &next, &moment(300)), "{case}");
    }
}

/// Entries last for 100.
fn with_expiry(stamp: i64) -> Moment {
    Moment { expires_after: Some(Duration::from_micros(100)), ..at(stamp) }
}

/// Whatever the order of arrival, and however often somebody looks in between: in is whoever entered last, as long as
/// that lasts.
#[test]
fn where_entries_expire_the_latest_event_decides_until_it_has_expired() {
    type Row<'a> = (&'a str, &'a [(i64, Change)], i64, bool);
    let rows: [Row<'_>; 11] = [
        ("it lasts", &[(10, enters(10))], 109, true),
        ("it has expired", &[(10, enters(10))], 110, false),
        ("by event time, not arrival", &[(90, enters(10))], 110, false),
        ("it was over when it came", &[(150, enters(10))], 150, false),
        ("renewed", &[(10, enters(10)), (60, enters(60))], 159, true),
        ("renewed once", &[(10, enters(10)), (60, enters(60))], 160, false),
        ("renewed late", &[(10, enters(10)), (130, enters(60))], 140, true),
        ("an older entry renews nothing", &[(60, enters(60)), (61, enters(10))], 155, true),
        ("what is older undoes nothing", &[(10, enters(10)), (120, enters(5))], 121, false),
        ("an exit ends it", &[(10, enters(10)), (20, leaves(20))], 21, false),
        ("a late exit is older", &[(60, enters(60)), (70, leaves(50))], 100, true),
    ];
    for (case, changes, looked_at, included) in rows {
        for looks_between in [false, true] {
            let mut member: Option<Member> = None;
            let look = |member: &mut Option<Member>, stamp| {
                let next = member.as_ref().map(|before| expire(before, &with_expiry(stamp)));
                if let Some(Next::Write(after)) = next {
                    *member = Some(after);
                }
            };
            for (stamp, change) in changes {
                if looks_between {
                    look(&mut member, *stamp);
                }
                if let Next::Write(after) = record(member.as_ref(), change, &with_expiry(*stamp)) {
                    member = Some(after);
                }
            }
            look(&mut member, looked_at);
            let member = member.expect("it was recorded");
            let is_in = member.membership == Membership::In;
            assert_eq!(is_in, included, "{case}, looked at in between: {looks_between}");
            let is_exit = matches!(changes.last(), Some((_, last)) if last.event_at == member.event_at && last.membership == Membership::Out);
            assert_eq!(member.is_expired, !is_in && !is_exit, "{case}: told from an exit");
        }
    }
}

#[test]
fn an_entry_that_has_expired_is_told_like_an_exit_and_once() {
    let mut story = Story::new();
    story.record(&enters(10), 10).deliver(20);
    let version = story.member().version;
    assert_eq!(expire(story.member(), &with_expiry(109)), Next::Same);
    let next = expire(story.member(), &with_expiry(110));
    let after = story.apply(next).member().clone();
    assert_eq!((after.event_at, after.pending_since), (Timestamp(10), Some(Timestamp(110))));
    assert!(after.version > version, "a call that is out does not settle it");
    assert_eq!(expire(&after, &with_expiry(111)), Next::Same);
    let told = story.deliver(120).member().clone();
    assert_eq!(told.told.map(|told| told.membership), Some(Membership::Out));
    let repeat = record(Some(&told), &enters(10), &with_expiry(130));
    assert_eq!(repeat, Next::Same, "the entry comes again");
    assert!(is_repeat(Some(&told), &enters(10), &repeat, &with_expiry(130)));
    assert_eq!(expire(&told, &at(999)), Next::Same);
    assert_eq!(expire(story.apply(Next::Write(Member::at_rest(5))).member(), &at(999)), Next::Same);
}

#[test]
fn who_is_deleted_is_not_taken_for_expired() {
    let mut story = Story::new();
    story.record(&enters(10), 10).deliver(20);
    let next = expire(story.member(), &with_expiry(110));
    let next = forget(story.apply(next).member(), Timestamp(60), &with_expiry(120));
    let gone = story.apply(next).member();
    assert!(gone.erase && !gone.is_expired && gone.event_at == Timestamp(60));
}

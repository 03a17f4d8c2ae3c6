//! Repeated, late or reordered events change nothing newer: deletions count at their own time, and messages
//! without a believed time count as they did the first time (P2).

use std::time::Duration;

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::{StandIn, View};
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const AUDIENCE: &str = "aud_vip";

fn enters(user: &str, at_ms: i64) -> Value {
    with_id(identify(user, "vip", true, at_ms), &format!("enter-{user}-{at_ms}"))
}

fn leaves(user: &str, at_ms: i64) -> Value {
    with_id(identify(user, "vip", false, at_ms), &format!("leave-{user}-{at_ms}"))
}

fn deletes(user: &str, at_ms: i64) -> Value {
    json!({"type": "delete", "userId": user, "timestamp": iso(at_ms), "messageId": format!("delete-{user}-{at_ms}")})
}

fn with_id(mut event: Value, id: &str) -> Value {
    event["messageId"] = id.into();
    event
}

fn without(mut event: Value, field: &str) -> Value {
    event.as_object_mut().expect("an event is an object").remove(field);
    event
}

fn without_a_time(event: Value) -> Value {
    without(event, "timestamp")
}

fn now_ms() -> i64 {
    SystemClock.now().0 / 1000
}

/// A daemon over several runs, and its stand-in.
struct Scene {
    launchdarkly: StandIn,
    installation: Installation,
    cohortd: Option<Cohortd>,
    witnesses: u32,
}

impl Scene {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let launchdarkly = launchdarkly().await;
        let mut installation = Installation::new(&launchdarkly);
        for (key, value) in settings {
            installation.set(key, value);
        }
        let cohortd = Some(installation.start());
        Self { launchdarkly, installation, cohortd, witnesses: 0 }
    }

    fn cohortd(&self) -> &Cohortd {
        self.cohortd.as_ref().expect("it is gone only between two lives")
    }

    /// Posts events one by one; each must be accepted.
    async fn post(&self, events: &[&Value]) {
        for event in events {
            let (status, answer) = self.cohortd().post(event).await.expect("an answer");
            assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
        }
    }

    /// Posts events in one request.
    async fn post_together(&self, events: &[Value]) {
        let (status, answer) = self.cohortd().post_batch(events).await.expect("an answer");
        assert_eq!((status, &answer["accepted"]), (200, &json!(events.len())), "{answer}");
    }

    /// The members of the audience once everything posted before is delivered.
    async fn members(&mut self) -> Vec<String> {
        let key = format!("witness{}", self.witnesses);
        self.witnesses += 1;
        self.post(&[&enters(&key, NOW_MS)]).await;
        self.delivered(&key).await
    }

    /// The members of the audience once this witness is among them.
    async fn delivered(&mut self, key: &str) -> Vec<String> {
        let arrived = |view: &View<'_>| view.has(ENVIRONMENT, AUDIENCE, key);
        self.launchdarkly.until(DEADLINE, arrived).await.expect("the witness arrives");
        self.installation.drained().await;
        let segments = self.launchdarkly.segments(ENVIRONMENT);
        let members = segments[AUDIENCE].members.iter().map(ToString::to_string);
        members.filter(|member| !member.starts_with("witness")).collect()
    }

    /// Like [`members`](Self::members), for an audience whose context key is the email.
    async fn members_by_email(&mut self) -> Vec<String> {
        let key = format!("witness{}@example.com", self.witnesses);
        self.witnesses += 1;
        let mut witness = enters(&key, NOW_MS);
        witness["traits"]["email"] = key.clone().into();
        self.post(&[&witness]).await;
        self.delivered(&key).await
    }

    /// Kills the daemon and starts it again.
    fn restart(&mut self) {
        self.cohortd.take().expect("one life at a time").kill();
        self.cohortd = Some(self.installation.start());
    }
}

async fn a_deletion_that_is_posted_again_does_not_undo_a_return() {
    let mut scene = Scene::new().await;
    let (first, deletion) = (enters("ada", NOW_MS), deletes("ada", NOW_MS + MINUTE));
    scene.post(&[&first, &deletion]).await;
    assert_eq!(scene.members().await, [""; 0]);
    scene.post(&[&enters("ada", NOW_MS + 2 * MINUTE), &deletion]).await;
    assert_eq!(scene.members().await, ["ada"]);
    scene.restart();
    scene.post(&[&deletion]).await;
    assert_eq!(scene.members().await, ["ada"], "nor after a kill");
    scene.post(&[&deletes("ada", NOW_MS + 3 * MINUTE)]).await;
    assert_eq!(scene.members().await, [""; 0], "a later one does");
}

/// Segment retries for four hours, so an event that could not be delivered may arrive after later ones.
async fn a_deletion_that_comes_late_counts_when_it_was_asked_for() {
    let mut scene = Scene::new().await;
    scene.post(&[&enters("ada", NOW_MS + 2 * MINUTE), &enters("bob", NOW_MS)]).await;
    assert_eq!(scene.members().await, ["ada", "bob"]);
    let late = [deletes("ada", NOW_MS + MINUTE), deletes("bob", NOW_MS + MINUTE)];
    scene.post(&[&late[0], &late[1]]).await;
    assert_eq!(scene.members().await, ["ada"]);
    let left = leaves("ada", NOW_MS + 3 * MINUTE);
    scene.post(&[&left, &enters("ada", NOW_MS + 2 * MINUTE)]).await;
    assert_eq!(scene.members().await, [""; 0]);
}

async fn within_a_request_a_deletion_counts_at_its_time_and_at_equal_times_in_its_order() {
    let mut scene = Scene::new().await;
    let at = |seconds: i64| NOW_MS + seconds * SECOND;
    scene.post(&[&enters("known", at(-60))]).await;
    scene
        .post_together(&[
            deletes("returns", at(0)),
            enters("returns", at(3)),
            enters("goes", at(0)),
            deletes("goes", at(3)),
            enters("late", at(3)),
            deletes("late", at(0)),
            deletes("older", at(3)),
            enters("older", at(0)),
            enters("tie_goes", at(0)),
            deletes("tie_goes", at(0)),
            deletes("tie_stays", at(0)),
            enters("tie_stays", at(0)),
            enters("twice", at(0)),
            deletes("twice", at(1)),
            enters("twice", at(2)),
            deletes("twice", at(3)),
            deletes("known", at(0)),
            enters("known", at(1)),
        ])
        .await;
    assert_eq!(scene.members().await, ["known", "late", "returns", "tie_stays"]);
}

/// Events of a request without times happened at the same moment: their order in the request decides.
async fn within_a_request_without_times_the_later_item_wins() {
    let mut scene = Scene::new().await;
    let timeless = without_a_time;
    scene
        .post_together(&[
            timeless(enters("goes", 0)),
            timeless(deletes("goes", 0)),
            timeless(deletes("stays", 0)),
            timeless(enters("stays", 0)),
        ])
        .await;
    assert_eq!(scene.members().await, ["stays"]);
}

async fn an_older_event_that_is_posted_again_does_not_bring_a_person_back_and_a_newer_one_does() {
    let mut scene = Scene::new().await;
    let entry = enters("ada", NOW_MS);
    scene.post(&[&entry, &deletes("ada", NOW_MS + MINUTE), &entry]).await;
    scene.post(&[&enters("ada", NOW_MS + MINUTE - 1)]).await;
    assert_eq!(scene.members().await, [""; 0]);
    scene.restart();
    scene.post(&[&entry, &deletes("ada", NOW_MS - MINUTE), &entry]).await;
    assert_eq!(scene.members().await, [""; 0], "an older deletion takes nothing back");
    scene.post(&[&enters("ada", NOW_MS + MINUTE + 1)]).await;
    assert_eq!(scene.members().await, ["ada"]);
}

async fn a_deletion_finds_who_is_known_by_an_email() {
    let key = ("destinations.production.mapping.context_key", "email_only");
    let mut scene = Scene::with(&[key]).await;
    let known_as = |mut event: Value| {
        let email = format!("{}@example.com", event["userId"].as_str().expect("a text"));
        event["traits"]["email"] = email.into();
        event
    };
    let entry = known_as(enters("ada", NOW_MS));
    scene.post(&[&entry, &known_as(enters("bob", NOW_MS))]).await;
    scene.post(&[&deletes("ada", NOW_MS + MINUTE), &entry]).await;
    scene.restart();
    scene.post(&[&entry]).await;
    let members = scene.members_by_email().await;
    assert_eq!(members, ["bob@example.com"]);
    scene
        .post(&[&known_as(enters("ada", NOW_MS + 2 * MINUTE)), &deletes("ada", NOW_MS + MINUTE)])
        .await;
    assert_eq!(scene.members_by_email().await, ["ada@example.com", "bob@example.com"]);
}

async fn an_event_without_a_believed_time_counts_as_it_did_the_first_time() {
    let mut scene = Scene::new().await;
    let unbelieved = [
        without_a_time(enters("nobody", 0)),
        {
            let mut event = enters("nobody", 0);
            event["timestamp"] = "1970-01-01T00:00:00Z".into();
            event
        },
        enters("nobody", now_ms() + 60 * MINUTE),
    ];
    let entries: Vec<Value> = (0..)
        .zip(unbelieved)
        .map(|(number, mut event)| {
            event["userId"] = format!("p{number}").into();
            event["messageId"] = format!("m{number}").into();
            event
        })
        .collect();
    let again: Vec<&Value> = entries.iter().collect();
    scene.post(&again).await;
    assert_eq!(scene.members().await, ["p0", "p1", "p2"]);
    for person in ["p0", "p1", "p2"] {
        scene.post(&[&without_a_time(leaves(person, 0))]).await;
    }
    scene.post(&again).await;
    assert_eq!(scene.members().await, [""; 0], "posted again they are not newer");
    scene.restart();
    scene.post(&again).await;
    assert_eq!(scene.members().await, [""; 0], "nor after a kill");
    scene.post(&[&with_id(entries[0].clone(), "another")]).await;
    assert_eq!(scene.members().await, ["p0"], "another message is");
}

/// An identical event may be a new one: they may have left in between.
async fn an_event_with_neither_a_time_nor_an_id_is_new_each_time() {
    let mut scene = Scene::new().await;
    let nameless = |event| without(without_a_time(event), "messageId");
    let (entry, exit) = (nameless(enters("ada", 0)), nameless(leaves("ada", 0)));
    for members in [&["ada"][..], &[], &["ada"]] {
        scene.post(&[if members.is_empty() { &exit } else { &entry }]).await;
        assert_eq!(scene.members().await, members);
    }
}

/// Only the first event of a batch is signed, so it can be replayed alone.
async fn the_first_event_of_a_batch_posted_again_alone_is_no_later_arrival() {
    let mut scene = Scene::new().await;
    let entry = without_a_time(enters("ada", 0));
    scene.post_together(&[entry.clone(), without_a_time(leaves("ada", 0))]).await;
    scene.post(&[&entry]).await;
    assert_eq!(scene.members().await, [""; 0]);
}

async fn a_deletion_without_a_time_counts_as_it_did_the_first_time() {
    let mut scene = Scene::new().await;
    let deletions = [
        without_a_time(deletes("ada", 0)),
        without(without_a_time(deletes("bob", 0)), "messageId"),
    ];
    let again: Vec<&Value> = deletions.iter().collect();
    scene.post(&[&enters("ada", NOW_MS), &enters("bob", NOW_MS)]).await;
    scene.post(&again).await;
    assert_eq!(scene.members().await, [""; 0]);
    let returned = [without_a_time(enters("ada", 1)), without_a_time(enters("bob", 1))];
    scene.post(&[&returned[0], &returned[1]]).await;
    scene.post(&again).await;
    assert_eq!(scene.members().await, ["ada", "bob"]);
    scene.restart();
    scene.post(&again).await;
    assert_eq!(scene.members().await, ["ada", "bob"], "nor after a kill");
    scene.post(&[&with_id(deletions[0].clone(), "another")]).await;
    assert_eq!(scene.members().await, ["bob"], "another message is");
}

async fn an_entry_stamped_ahead_that_survives_a_deletion_is_shown_and_forget_takes_it_along() {
    let mut scene = Scene::new().await;
    let entry = enters("ada", now_ms() + 4 * MINUTE);
    scene.post(&[&entry, &enters("bob", NOW_MS)]).await;
    assert_eq!(scene.members().await, ["ada", "bob"]);
    scene.post(&[&deletes("ada", now_ms()), &deletes("bob", now_ms())]).await;
    assert_eq!(scene.members().await, ["ada"]);

    let status = scene.cohortd().status().await;
    assert_eq!(status["destinations"]["production"]["deletions_outlived"], 1);
    let (_, metrics) = scene.cohortd().metrics("text/plain").await;
    let counted = "cohortd_deletions_outlived_total{destination=\"production\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let said = |line: &&String| line.contains("event time is ahead of their arrival");
    let log = scene.cohortd().log();
    let lines: Vec<_> = log.iter().filter(said).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains("ada"), "{lines:?}");
    let admin = scene.cohortd().admin;
    let told = scene.installation.types(Some(admin), &["status"]).out;
    assert!(told.contains("cohortd forget production USER_ID"), "{told}");

    scene.installation.types(Some(admin), &["forget", "production", "ada"]).done();
    assert_eq!(scene.members().await, [""; 0]);
    scene.restart();
    scene.post(&[&entry]).await;
    assert_eq!(scene.members().await, [""; 0], "the same event does not undo it");
    scene.post(&[&enters("ada", now_ms() + 4 * MINUTE + 30 * SECOND)]).await;
    assert_eq!(scene.members().await, ["ada"], "a newer one does");
}

/// However many entries a deletion leaves in place, the log reports it at once and then once a minute, with
/// their number.
async fn of_entries_that_outlive_a_deletion_there_is_a_line_a_minute() {
    let scene = Scene::new().await;
    let message = "deletions did not undo entries, the latest in this destination, whose event time is \
                   ahead of their arrival: to remove a person all the same, use cohortd forget";
    let outlive = async |number: u64| {
        let user = format!("user{number}");
        scene.post(&[&enters(&user, now_ms() + 4 * MINUTE)]).await;
        scene.post(&[&deletes(&user, now_ms())]).await;
    };
    for number in 0..6 {
        outlive(number).await;
    }
    let cohortd = scene.cohortd();
    cohortd.logged(message).await;
    assert_eq!(cohortd.count_logged(message), 1, "the others are for the next line");
    let began = tokio::time::Instant::now();
    let mut number = 6;
    while cohortd.count_logged(message) < 2 {
        assert!(began.elapsed() < 2 * DEADLINE, "it is never said again");
        tokio::time::sleep_until(began + Duration::from_secs(number - 6)).await;
        outlive(number).await;
        number += 1;
    }
    assert!(began.elapsed() > Duration::from_secs(50), "{:?}", began.elapsed());
    let log = cohortd.log();
    let lines: Vec<Value> = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == message)
        .collect();
    note!("{lines:?}");
    let entries: Vec<_> = lines.iter().filter_map(|line| line["entries"].as_u64()).collect();
    // log lines are read slightly after they are written
    assert!(
        entries[0] == 1 && entries.iter().sum::<u64>() + 2 >= number,
        "{entries:?} of {number}"
    );
    assert!(lines.iter().all(|line| line["level"] == "WARN"), "{lines:?}");
    assert!(lines.iter().all(|line| !line.to_string().contains("user")), "{lines:?}");
}

tests![
    a_deletion_that_is_posted_again_does_not_undo_a_return,
    a_deletion_that_comes_late_counts_when_it_was_asked_for,
    within_a_request_a_deletion_counts_at_its_time_and_at_equal_times_in_its_order,
    within_a_request_without_times_the_later_item_wins,
    an_older_event_that_is_posted_again_does_not_bring_a_person_back_and_a_newer_one_does,
    a_deletion_finds_who_is_known_by_an_email,
    an_event_without_a_believed_time_counts_as_it_did_the_first_time,
    an_event_with_neither_a_time_nor_an_id_is_new_each_time,
    the_first_event_of_a_batch_posted_again_alone_is_no_later_arrival,
    a_deletion_without_a_time_counts_as_it_did_the_first_time,
    an_entry_stamped_ahead_that_survives_a_deletion_is_shown_and_forget_takes_it_along,
    of_entries_that_outlive_a_deletion_there_is_a_line_a_minute,
];

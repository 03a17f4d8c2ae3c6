//! The catalogue of faults: each test is named after the promise that its fault would break. Faults not
//! covered here:
//!
//! | fault | where |
//! | --- | --- |
//! | SIGKILL at random moments (P1, P2, P4) | `crash_recovery` |
//! | a log torn or altered at any byte (P1) | `ledger::embedded::tests::damage` |
//! | a journal torn or altered at any byte (P1) | `ledger::embedded::tests::journaled` |
//! | full disk, reserve (P1, P6) | `durability` |
//! | calls reset before or after they are applied, timeouts, 5xx, HTML, redirects (P4, P8) | `reactions` |
//! | equal event times, late applications (P2, P3) | `ordering` |
//! | clock a day forward and back (P2) | `ordering`, `deliver::simulation` |
//! | second process on a ledger, ledger of a newer version (P1) | `exclusive` |
//! | six hours of 5xx, ten thousand random storms (P4) | `deliver::simulation` |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::{Apply, Fault, StandIn, View};
use cohortd::secret::Secret;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly,
};
use crate::needs::STRACE;

const NOW_MS: i64 = 1_750_000_000_000;

fn user(number: usize) -> String {
    format!("user{number:04}")
}

fn users(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    numbers.into_iter().map(user).collect()
}

async fn enter(cohortd: &Cohortd, audience: &str, range: std::ops::Range<usize>) {
    let events: Vec<Value> =
        range.map(|number| identify(&user(number), audience, true, NOW_MS)).collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &events.len().into()), "{answer}");
}

async fn until_exactly(launchdarkly: &StandIn, audience: &str, wanted: &BTreeSet<String>) {
    let audience = format!("aud_{audience}");
    let has = |view: &View<'_>| {
        view.segment(ENVIRONMENT, &audience).is_some_and(|of| of.members == *wanted)
    };
    launchdarkly.until(DEADLINE, has).await.expect("the segment is as it should be");
}

/// The daemon under a tracer that tampers with a system call.
fn tampered(installation: &Installation, injection: &str) -> Cohortd {
    let output = installation.directory.path().join("trace").display().to_string();
    let inject = format!("inject={injection}");
    let calls = injection.split(':').next().expect("the calls come first");
    let trace = format!("trace={calls}");
    // -D: the daemon is our child, and the tracer is the daemon's child.
    let tracer = ["strace", "-D", "-f", "-e", &trace, "-e", &inject, "-o", &output];
    installation.start_as(installation.wrapped(&tracer))
}

/// An installation whose daemon has run before and delivers nothing, so that its next syncs are of posted
/// events.
fn paused(launchdarkly: &StandIn) -> Installation {
    let installation = Installation::new(launchdarkly);
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["pause", "production"]).done();
    assert!(cohortd.stop().0.success());
    installation
}

/// Posts one person after the other until the daemon is gone. Returns those who were answered 200, and the
/// one who was not.
async fn post_until_gone(cohortd: &Cohortd) -> (BTreeSet<String>, String) {
    let mut answered = BTreeSet::new();
    for number in 0..100 {
        let who = user(number);
        match cohortd.post(&identify(&who, "vip", true, NOW_MS)).await {
            Some((200, _)) => _ = answered.insert(who),
            Some((503, _)) | None => return (answered, who),
            other => panic!("{other:?}"),
        }
    }
    panic!("the daemon outlives a hundred posts");
}

/// Starts the daemon again after a kill and lets it deliver. Returns the final members of the segment.
async fn members_after_restart(
    launchdarkly: &StandIn,
    installation: &Installation,
) -> BTreeSet<String> {
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["resume", "production"]).done();
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    assert_eq!(installation.types(None, &["ledger", "check"]).code, 0);
    let segments = launchdarkly.segments(ENVIRONMENT);
    segments.get("aud_vip").map(|of| of.members.clone()).unwrap_or_default()
}

async fn p1_a_kill_before_the_commit_loses_nothing_that_was_answered() {
    for sync in [1, 3, 6] {
        let launchdarkly = launchdarkly().await;
        let installation = paused(&launchdarkly);
        let cohortd = tampered(&installation, &format!("fsync:signal=KILL:when={sync}"));
        let (answered, last) = post_until_gone(&cohortd).await;
        assert_eq!(cohortd.wait().0.code(), None, "killed, not ended");
        let mut there = members_after_restart(&launchdarkly, &installation).await;
        there.remove(&last); // it was not answered, so either outcome is right
        assert_eq!(there, answered, "killed at sync {sync}");
    }
}

async fn p1_a_kill_between_the_commit_and_the_answer_keeps_what_was_committed() {
    // The tracer counts calls for each thread separately.
    for answer in [1, 3] {
        let launchdarkly = launchdarkly().await;
        let installation = paused(&launchdarkly);
        let cohortd = tampered(&installation, &format!("writev:signal=KILL:when={answer}"));
        let (mut committed, last) = post_until_gone(&cohortd).await;
        assert_eq!(cohortd.wait().0.code(), None, "killed, not ended");
        committed.insert(last);
        let there = members_after_restart(&launchdarkly, &installation).await;
        assert_eq!(there, committed, "killed at answer {answer} of a thread");
    }
}

async fn p1_a_kill_while_the_writer_is_behind_loses_nothing_that_was_answered() {
    const POSTERS: usize = 30;
    const PEOPLE: usize = 300;
    const ENOUGH: usize = 90;
    let launchdarkly = launchdarkly().await;
    let installation = paused(&launchdarkly);
    let cohortd = Arc::new(installation.start());
    let answered = Arc::new(Mutex::new((BTreeSet::new(), 0_usize)));
    let enough = Arc::new(Notify::new());
    let posters = (0..POSTERS).map(|poster| {
        let (cohortd, answered) = (Arc::clone(&cohortd), Arc::clone(&answered));
        let enough = Arc::clone(&enough);
        tokio::spawn(async move {
            for batch in 0.. {
                let first = (batch * POSTERS + poster) * PEOPLE;
                let people: Vec<String> =
                    (first..first + PEOPLE).map(|number| format!("crowd_{number:07}")).collect();
                let events: Vec<Value> =
                    people.iter().map(|who| identify(who, "vip", true, NOW_MS)).collect();
                let Some((status, account)) = cohortd.post_batch(&events).await else { return };
                assert_eq!((status, &account["accepted"]), (200, &PEOPLE.into()));
                let mut answered = answered.lock().expect("nobody panics with it");
                answered.0.extend(people);
                answered.1 += 1;
                if answered.1 == ENOUGH {
                    enough.notify_one();
                }
            }
        })
    });
    let posters: Vec<_> = posters.collect();
    tokio::time::timeout(DEADLINE, enough.notified()).await.expect("batches are answered");
    cohortd.signal(Signal::KILL);
    for poster in posters {
        tokio::time::timeout(DEADLINE, poster).await.expect("it is gone").expect("no panic");
    }
    let cohortd = Arc::into_inner(cohortd).expect("nobody else has it");
    assert_eq!(cohortd.wait().0.code(), None, "killed, not ended");
    let answered = answered.lock().expect("nobody panics with it").0.clone();
    let journal = std::fs::metadata(installation.ledger_path().join("journal-1"));
    assert!(journal.expect("the writer was behind").len() > 0);
    // A command that reads the ledger before the next daemon starts sees everything too.
    let exported = installation.types(None, &["ledger", "export"]);
    assert_eq!(exported.code, 0, "{}", exported.complaint);
    let exported: BTreeSet<String> = exported
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"))
        .map(|line| line["context_key"].as_str().expect("a key").to_owned())
        .collect();
    note!("{} answered, {} there", answered.len(), exported.len());
    assert!(exported.is_superset(&answered));
    let there = members_after_restart(&launchdarkly, &installation).await;
    assert_eq!(there, exported);
}

async fn p1_a_failed_write_or_sync_of_the_journal_ends_the_daemon_too() {
    for failure in ["fdatasync:error=EIO:when=2", "fdatasync:signal=KILL:when=3"] {
        let launchdarkly = launchdarkly().await;
        let installation = paused(&launchdarkly);
        let cohortd = tampered(&installation, failure);
        let people = |batch: usize| batch * 100..(batch + 1) * 100;
        let events = |batch| -> Vec<Value> {
            people(batch).map(|of| identify(&user(of), "vip", true, NOW_MS)).collect()
        };
        let is_answered =
            |answer: &Option<(u16, Value)>| answer.as_ref().is_some_and(|of| of.0 == 200);
        let cohortd = Arc::new(cohortd);
        let mut answers = Vec::new();
        // How many concurrent requests share a sync depends on the machine.
        while answers.len() < 600 && answers.iter().all(|(_, answer)| is_answered(answer)) {
            let mut posts = tokio::task::JoinSet::new();
            for batch in answers.len()..answers.len() + 60 {
                let (cohortd, events) = (Arc::clone(&cohortd), events(batch));
                posts.spawn(async move { (batch, cohortd.post_batch(&events).await) });
            }
            let wave = tokio::time::timeout(DEADLINE, posts.join_all()).await;
            answers.extend(wave.expect("it ends"));
        }
        let answered: BTreeSet<String> = answers
            .iter()
            .filter(|(_, answer)| is_answered(answer))
            .flat_map(|(batch, _)| users(people(*batch)))
            .collect();
        let cohortd = Arc::into_inner(cohortd).expect("nobody else has it");
        let (status, log) = cohortd.wait();
        let expected = if failure.contains("KILL") { None } else { Some(70) };
        assert_eq!(status.code(), expected, "{failure}: {}", log.join("\n"));
        note!("{failure}: {} of {} batches answered", answered.len() / 100, answers.len());
        let there = members_after_restart(&launchdarkly, &installation).await;
        assert!(there.is_superset(&answered), "{failure}");
    }
}

async fn p1_a_failed_write_or_sync_ends_the_daemon_and_is_never_taken_for_a_success() {
    for failure in ["fsync:error=EIO:when=4", "pwrite64:error=EIO:when=60"] {
        let launchdarkly = launchdarkly().await;
        let installation = paused(&launchdarkly);
        let cohortd = tampered(&installation, failure);
        let (answered, last) = post_until_gone(&cohortd).await;
        let (status, log) = cohortd.wait();
        assert_eq!(status.code(), Some(70), "{failure}: {}", log.join("\n"));
        assert!(log.iter().any(|line| line.contains("the ledger failed while writing")));
        let mut there = members_after_restart(&launchdarkly, &installation).await;
        there.remove(&last);
        assert_eq!(there, answered, "{failure}");
    }
}

async fn p1_a_failed_sync_of_a_checkpoint_ends_the_daemon_and_loses_nothing() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.rejected_max_mib", "1024");
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["pause", "production"]).done();
    assert!(cohortd.stop().0.success());
    // Only a checkpoint syncs the database file; the log is another file.
    let database = installation.ledger_path().join("ledger.db").display().to_string();
    let output = installation.directory.path().join("trace").display().to_string();
    let failing = "inject=fsync,fdatasync:error=EIO";
    let tracer = [
        "strace",
        "-D",
        "-f",
        "-P",
        &database,
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        failing,
        "-o",
        &output,
    ];
    let cohortd = installation.start_as(installation.wrapped(&tracer));
    enter(&cohortd, "vip", 0..1).await;
    // Kept rejected events make the log long enough to be checkpointed.
    let mut large = identify("", "vip", true, NOW_MS);
    (large["userId"], large["padding"]) = (Value::Null, "x".repeat(500_000).into());
    let mut kept = 0;
    while let Some((400, _)) = cohortd.post(&large).await {
        kept += 1;
        assert!(kept < 200, "it outlives a sync that failed");
    }
    let (status, log) = cohortd.wait();
    assert_eq!(status.code(), Some(70), "{}", log.join("\n"));
    let said = log.iter().any(|line| line.contains("the ledger failed while checkpointing"));
    assert!(said, "{}", log.join("\n"));
    assert_eq!(members_after_restart(&launchdarkly, &installation).await, users(0..1));
    let reader = installation.ledger().reader();
    let (mut there, mut after) = (0, 0);
    loop {
        let page = reader.rejected(&crate::harness::production(), after, 1000).expect("readable");
        let Some(last) = page.last() else { break };
        (there, after) = (there + page.len(), last.id);
    }
    assert!(there >= kept, "every answer was a promise to keep it");
}

async fn p4_a_kill_between_launchdarklys_answer_and_the_settle_tells_once_more() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(|call| match call.call_number {
        1 => Fault::Hang { apply: Apply::Now },
        _ => Fault::None,
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..5).await;
    until_exactly(&launchdarkly, "vip", &users(0..5)).await;
    cohortd.kill();
    let cohortd = installation.start();
    let (status, _) =
        cohortd.post(&identify(&user(2), "vip", false, NOW_MS + 1)).await.expect("an answer");
    assert_eq!(status, 200);
    until_exactly(&launchdarkly, "vip", &users([0, 1, 3, 4])).await;
    installation.drained().await;
    assert_eq!(launchdarkly.overlaps(), 0, "P3");
    assert!(cohortd.stop().0.success());
}

async fn p5_a_kill_during_a_split_forgets_nothing_that_was_learnt() {
    const PEOPLE: usize = 256;
    let refuse = |call: &cohortd::sandbox::Incoming<'_>| {
        call.members.iter().any(|member| member.user_id == user(77))
    };
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(move |call| match (call.call_number, refuse(call)) {
        (8.., _) => Fault::Hang { apply: Apply::No },
        (_, true) => Fault::status(400),
        (_, false) => Fault::None,
    });
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.concurrency", "1").set("delivery.request_timeout_ms", "60000");
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..PEOPLE).await;
    launchdarkly.until(DEADLINE, |view| view.calls().total == 8).await.expect("it splits");
    cohortd.kill();
    launchdarkly.script(move |call| if refuse(call) { Fault::status(400) } else { Fault::None });
    installation.set("delivery.request_timeout_ms", "400");
    let cohortd = installation.start();
    let others = users((0..PEOPLE).filter(|number| *number != 77));
    until_exactly(&launchdarkly, "vip", &others).await;
    installation.drained().await;
    // Bisecting from the start takes 1 + 2 · 8 calls, and the member found is tried once more. One call was
    // interrupted by the kill, and the members claimed with it are sent again.
    let calls = launchdarkly.calls();
    assert!(calls.refused <= 10, "{} calls were refused: it began again", calls.refused);
    assert!(cohortd.stop().0.success());
    let parked: Vec<String> =
        installation.parked().await.into_iter().map(|parked| parked.context_key).collect();
    assert_eq!(parked, [user(77)]);
}

async fn p4_a_kill_during_a_resync_goes_on_with_it() {
    const PEOPLE: usize = 7000;
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..PEOPLE).await;
    until_exactly(&launchdarkly, "vip", &users(0..PEOPLE)).await;
    installation.drained().await;
    let before = launchdarkly.calls().members;
    launchdarkly.script(|_| Fault::Hang { apply: Apply::No });
    installation.types(Some(cohortd.admin), &["resync", "aud_vip"]).done();
    launchdarkly.until(DEADLINE, |view| view.calls().unanswered > 0).await.expect("it begins");
    cohortd.kill();
    launchdarkly.behave();
    let cohortd = installation.start();
    installation.drained().await;
    let told = launchdarkly.calls().members - before;
    assert!(told >= PEOPLE as u64, "only {told} were told again");
    assert!(cohortd.stop().0.success());
}

async fn p1_a_kill_during_a_migration_leaves_a_ledger_that_can_be_migrated() {
    for sync in 1..=3 {
        let launchdarkly = launchdarkly().await;
        let mut installation = Installation::new(&launchdarkly);
        installation.set("ledger.parked_ttl_s", "315360000");
        std::fs::create_dir(installation.ledger_path()).expect("nobody made it");
        let path = installation.ledger_path().join("ledger.db");
        let db = rusqlite::Connection::open(path).expect("nobody has it");
        db.execute_batch("PRAGMA journal_mode = WAL").expect("as every version has it");
        db.execute_batch(include_str!("../ledgers/version_1.sql")).expect("the first version's");
        drop(db);
        let inject = format!("inject=fsync:signal=KILL:when={sync}");
        let tracer = ["strace", "-f", "-o", "trace", "-e", "trace=fsync", "-e", &inject];
        let killed = installation.wrapped(&tracer).spawn().expect("strace is there").wait();
        assert!(!killed.expect("it is our child").success());
        let cohortd = installation.start();
        until_exactly(&launchdarkly, "vip", &BTreeSet::from(["ada".into(), "cyd".into()])).await;
        until_exactly(&launchdarkly, "beta", &BTreeSet::from(["ada".into()])).await;
        installation.drained().await;
        assert!(cohortd.stop().0.success());
        assert_eq!(installation.types(None, &["ledger", "check"]).code, 0, "sync {sync}");
        let parked = installation.parked().await;
        assert_eq!(parked.len(), 1, "who was refused is still parked");
    }
}

async fn p7_a_damaged_ledger_ends_the_start_with_70_and_the_way_back() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..500).await;
    installation.drained().await;
    assert_eq!(installation.types(None, &["ledger", "backup", "copy"]).code, 0);
    assert!(cohortd.stop().0.success());
    let path = installation.ledger_path().join("ledger.db");
    checkpoint(&path);
    let file = std::fs::File::options().write(true).open(&path).expect("it is ours");
    file.set_len(20_000).expect("it can be torn");
    let torn = installation.types(None, &["run"]);
    assert_eq!(torn.code, 70, "{}", torn.complaint);
    assert!(torn.complaint.contains("restore a backup"), "{}", torn.complaint);
    assert_eq!(installation.types(None, &["ledger", "check"]).code, 70);

    installation.types(None, &["ledger", "restore", "copy"]).done();
    let cohortd = installation.start();
    until_exactly(&launchdarkly, "vip", &users(0..500)).await;
    assert!(cohortd.stop().0.success());
}

async fn p7_damage_that_a_running_daemon_meets_ends_it_with_70_and_nobody_is_told() {
    let launchdarkly = launchdarkly().await;
    let installation = paused(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..500).await;
    assert!(cohortd.stop().0.success());
    let path = installation.ledger_path().join("ledger.db");
    checkpoint(&path);
    let db = rusqlite::Connection::open(&path).expect("nobody has it");
    let alter = "UPDATE member SET included = 0 WHERE context_key = ?1";
    assert_eq!(db.execute(alter, [user(250)]).expect("it is ours"), 1);
    drop(db);
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["resume", "production"]).done();
    let (status, log) = cohortd.wait();
    assert_eq!(status.code(), Some(70));
    assert!(log.iter().any(|line| line.contains("restore a backup")), "{}", log.join("\n"));
    assert!(launchdarkly.segments(ENVIRONMENT).is_empty(), "what was read is used by nobody");
}

async fn p1_a_bit_that_flipped_in_the_log_after_a_kill_is_no_silent_loss() {
    let launchdarkly = launchdarkly().await;
    let installation = paused(&launchdarkly);
    let cohortd = installation.start();
    for number in 0..20 {
        enter(&cohortd, "vip", number..number + 1).await;
    }
    cohortd.kill();
    let log = installation.ledger_path().join("ledger.db-wal");
    let sound = std::fs::read(&log).expect("a kill leaves it");
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 4;
    std::fs::write(&log, &flipped).expect("it is ours");
    for words in [&["ledger", "check"][..], &["ledger", "export"], &["run"]] {
        let typed = installation.types(None, words);
        assert_eq!(typed.code, 70, "{words:?}: {}{}", typed.out, typed.complaint);
        assert!(typed.complaint.contains("SQLite's log"), "{}", typed.complaint);
    }
    std::fs::write(&log, &sound).expect("it is ours");
    assert_eq!(members_after_restart(&launchdarkly, &installation).await, users(0..20));
}

fn checkpoint(path: &std::path::Path) {
    let db = rusqlite::Connection::open(path).expect("nobody has it");
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("it can be written");
}

/// Any flipped bit is either detected or has no effect on what is read.
async fn p7_a_flipped_bit_is_found_or_means_nothing() {
    const FLIPS: usize = 1500;
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|who| who == user(3));
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..60).await;
    installation.drained().await;
    installation.types(Some(cohortd.admin), &["pause", "production"]).done();
    enter(&cohortd, "beta", 0..30).await;
    let mut nobody = identify("", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    assert_eq!(cohortd.post(&nobody).await.expect("an answer").0, 400);
    assert!(cohortd.stop().0.success());
    let directory = installation.ledger_path();
    let path = directory.join("ledger.db");
    checkpoint(&path);
    let sound = std::fs::read(&path).expect("it is ours");
    let all = || {
        let mut lines = Vec::new();
        let exported = cohortd::ledger::export(&directory, None, |member| {
            let parked = member.parked.map(|parked| (parked.status, parked.code, parked.message));
            lines.push(format!(
                "{} {} {} {} {} {} {:?} {} {:?} {parked:?}",
                member.destination,
                member.audience_id,
                member.audience_key,
                member.context_kind,
                member.context_key,
                member.included,
                member.event_at,
                member.pending,
                member.told
            ));
            std::ops::ControlFlow::<()>::Continue(())
        });
        exported.map(|_| lines)
    };
    let truth = all().expect("it is sound");
    assert_eq!(truth.len(), 90);
    let (mut chance, mut found) = (StdRng::seed_from_u64(20_260_401), 0);
    for _ in 0..FLIPS {
        let mut bytes = sound.clone();
        let (at, bit) = (chance.random_range(0..bytes.len()), chance.random_range(0..8));
        bytes[at] ^= 1 << bit;
        std::fs::write(&path, &bytes).expect("it is ours");
        for part in ["ledger.db-wal", "ledger.db-shm"] {
            std::fs::remove_file(directory.join(part)).ok();
        }
        match cohortd::ledger::check(&directory) {
            Ok(Ok(_)) => {
                let read = all().expect("it was found sound");
                assert!(read == truth, "bit {bit} of byte {at} changes what is read");
            }
            Ok(Err(_)) | Err(_) => found += 1,
        }
    }
    note!("{found} of {FLIPS} flipped bits were found, the others mean nothing");
    assert!(found > 0);
}

async fn p4_a_429_is_survived_in_every_form_its_headers_take() {
    let in_ms = |ms: i64| (SystemClock.now().0 / 1000 + ms).to_string();
    let (soon, past, far) = (in_ms(600), in_ms(-60_000), in_ms(40_000_000));
    let window = |remaining: &str, reset: &str| {
        vec![
            ("X-Ratelimit-Global-Limit", "10".to_owned()),
            ("X-Ratelimit-Global-Remaining", remaining.to_owned()),
            ("X-Ratelimit-Reset", reset.to_owned()),
        ]
    };
    let forms: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("nothing", vec![]),
        ("account", window("0", &soon)),
        (
            "route",
            vec![
                ("X-Ratelimit-Route-Limit", "5".to_owned()),
                ("X-Ratelimit-Route-Remaining", "0".to_owned()),
                ("X-Ratelimit-Reset", soon.clone()),
            ],
        ),
        (
            "token",
            vec![
                ("X-Ratelimit-Auth-Token-Limit", "5".to_owned()),
                ("X-Ratelimit-Auth-Token-Remaining", "0".to_owned()),
                ("X-Ratelimit-Auth-Token-Reset", soon.clone()),
            ],
        ),
        ("address", vec![("Retry-After", "1".to_owned())]),
        ("no time to wait", vec![("Retry-After", "0".to_owned())]),
        ("a reset in the past", window("0", &past)),
        ("no reset", window("0", "")),
        ("garbage", window("some", "soon")),
        ("some left", window("3", &soon)),
        ("a negative wait", vec![("Retry-After", "-1".to_owned())]),
        // Far in the future by our clock, but soon by the server's, which is ahead by as much.
        ("skewed", {
            let date = jiff::Timestamp::from_millisecond(SystemClock.now().0 / 1000 + 39_999_000)
                .expect("a time of our days");
            let mut headers = window("0", &far);
            headers.push(("Date", date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
            headers
        }),
    ];
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for (number, (form, headers)) in forms.into_iter().enumerate() {
        let headers: Vec<(String, String)> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut once = Some(Fault::Answer { status: 429, headers, body: None });
        launchdarkly.script(move |_| once.take().unwrap_or(Fault::None));
        let audience = format!("form{number}");
        enter(&cohortd, &audience, 0..3).await;
        let has = |view: &View<'_>| {
            view.segment(ENVIRONMENT, &format!("aud_{audience}"))
                .is_some_and(|of| of.members.len() == 3)
        };
        launchdarkly.until(Duration::from_secs(20), has).await.expect(form);
    }
    assert!(cohortd.stop().0.success());
}

async fn p4_a_token_that_is_revoked_and_restored_under_load_loses_nothing() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for round in 0..6_usize {
        if round % 2 == 1 {
            launchdarkly.revoke(ENVIRONMENT);
        } else {
            launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN));
        }
        for part in 0..10 {
            let first = (round * 10 + part) * 20;
            enter(&cohortd, "vip", first..first + 20).await;
        }
        let state = if round % 2 == 1 { "held" } else { "ok" };
        cohortd.until_status(|status| status["destinations"]["production"]["state"] == state).await;
    }
    launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN));
    until_exactly(&launchdarkly, "vip", &users(0..1200)).await;
    installation.drained().await;
    assert_eq!(launchdarkly.overlaps(), 0);
    assert!(cohortd.stop().0.success());
    assert!(installation.parked().await.is_empty());
}

async fn p5_poison_among_a_thousand_is_parked_exactly_and_in_few_calls() {
    for (bad, most_calls) in [(1_usize, 1 + 2 * 10), (2, 1 + 4 * 10), (500, 2500)] {
        let launchdarkly = launchdarkly().await;
        // Every second one of the first thousand, or only the first few of those.
        let is_bad = move |number: usize| number.is_multiple_of(2) && number < 2 * bad;
        launchdarkly.refuse_members(move |who| {
            who.strip_prefix("user").and_then(|digits| digits.parse().ok()).is_some_and(is_bad)
        });
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..1000).await;
        until_exactly(&launchdarkly, "vip", &users((0..1000).filter(|number| !is_bad(*number))))
            .await;
        installation.drained().await;
        let calls = launchdarkly.calls().total;
        note!("{bad} bad members in 1,000: {calls} calls");
        assert!(calls <= most_calls, "{bad} bad members took {calls} calls");
        assert_eq!(cohortd.status().await["destinations"]["production"]["state"], "attention");
        assert!(cohortd.stop().0.success());
        let parked: BTreeSet<String> =
            installation.parked().await.into_iter().map(|parked| parked.context_key).collect();
        assert_eq!(parked, users((0..1000).filter(|number| is_bad(*number))));
    }
}

async fn p4_a_storm_of_conflicts_passes_and_everything_is_told() {
    let launchdarkly = launchdarkly().await;
    let mut chance = StdRng::seed_from_u64(409);
    launchdarkly.script(move |call| {
        if call.call_number < 60 && chance.random_bool(0.8) {
            Fault::status(409)
        } else {
            Fault::None
        }
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for audience in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        enter(&cohortd, audience, 0..50).await;
    }
    for audience in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        until_exactly(&launchdarkly, audience, &users(0..50)).await;
    }
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    assert!(installation.parked().await.is_empty());
}

async fn p2_a_thousand_duplicates_are_told_once() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..3).await;
    until_exactly(&launchdarkly, "vip", &users(0..3)).await;
    installation.drained().await;
    let calls = launchdarkly.calls().total;
    let event = identify(&user(1), "vip", true, NOW_MS);
    for _ in 0..10 {
        let same = vec![event.clone(); 100];
        assert_eq!(cohortd.post_batch(&same).await.expect("an answer").0, 200);
    }
    installation.drained().await;
    assert_eq!(launchdarkly.calls().total, calls, "a repeat is no change");
    assert!(cohortd.stop().0.success());
}

async fn p2_what_comes_four_hours_late_undoes_nothing() {
    const HOURS_4_MS: i64 = 4 * 3600 * 1000;
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    // Everybody leaves now. The events of their entry, from four hours before, arrive afterwards in reverse
    // order.
    let leave: Vec<Value> =
        (0..50).map(|number| identify(&user(number), "vip", false, NOW_MS)).collect();
    let mut enter: Vec<Value> = (0..60_usize)
        .map(|number| {
            let late = i64::try_from(number).expect("small");
            identify(&user(number), "vip", true, NOW_MS - HOURS_4_MS + late)
        })
        .collect();
    enter.reverse();
    assert_eq!(cohortd.post_batch(&leave).await.expect("an answer").0, 200);
    installation.drained().await;
    assert_eq!(cohortd.post_batch(&enter).await.expect("an answer").0, 200);
    until_exactly(&launchdarkly, "vip", &users(50..60)).await;
    installation.drained().await;
    assert_eq!(cohortd.post_batch(&enter).await.expect("an answer").0, 200);
    installation.drained().await;
    until_exactly(&launchdarkly, "vip", &users(50..60)).await;
    assert!(cohortd.stop().0.success());
}

/// A server that answers every call with `head`, followed by a slow or an endless stream of chunks.
async fn bad_server(head: &'static str, chunk: Vec<u8>, times: usize, every: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let chunk = chunk.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 65_536];
                let _ = stream.read(&mut request).await; // the request does not matter
                if stream.write_all(head.as_bytes()).await.is_err() {
                    return;
                }
                for _ in 0..times {
                    if stream.write_all(&chunk).await.is_err() {
                        return; // the client has closed the connection
                    }
                    tokio::time::sleep(every).await; // the slowness is the fault
                }
            });
        }
    });
    format!("http://{address}")
}

async fn p6_answers_that_drip_or_pour_cost_neither_time_nor_memory() {
    const MOST_KIB: u64 = 96 * 1024;
    let launchdarkly = launchdarkly().await;
    for (case, head, chunk, times, every) in [
        ("one byte of the head a second", "HTTP/1.1 5", vec![b'0'], 100, Duration::from_secs(1)),
        (
            "one byte of the body a second",
            "HTTP/1.1 500 Oh\r\ncontent-length: 5000\r\n\r\n",
            vec![b' '],
            100,
            Duration::from_secs(1),
        ),
        (
            "100 MB at once",
            "HTTP/1.1 400 No\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n",
            vec![b'{'; 1 << 20],
            100,
            Duration::ZERO,
        ),
        ("a head without end", "HTTP/1.1 500 Oh\r\n", vec![b'a'; 4096], 1000, Duration::ZERO),
    ] {
        let mut installation = Installation::new(&launchdarkly);
        let url = bad_server(head, chunk, times, every).await;
        installation.set("destinations.production.launchdarkly.base_url", &url);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..1).await;
        if case == "100 MB at once" {
            cohortd.until_logged("members refused: parked; the latest is shown").await;
        } else {
            cohortd.until_logged("LaunchDarkly is unavailable: will retry").await;
        }
        let peak = cohortd.memory_kib("VmHWM:");
        assert!(peak < MOST_KIB, "{case}: {peak} KiB");
        assert!(cohortd.stop().0.success());
    }
}

async fn p8_a_redirect_to_another_host_never_gets_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let elsewhere = listener.local_addr().expect("it is bound");
    let launchdarkly = launchdarkly().await;
    let location = format!("http://localhost:{}/api/v2/segment-targets", elsewhere.port());
    launchdarkly.script(move |call| {
        if call.call_number > 5 {
            return Fault::None;
        }
        let status = [301, 302, 303, 307, 308][usize::try_from(call.call_number).unwrap_or(1) % 5];
        let headers = vec![("Location".to_owned(), location.clone())];
        Fault::Answer { status, headers, body: None }
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..3).await;
    until_exactly(&launchdarkly, "vip", &users(0..3)).await;
    assert!(cohortd.stop().0.success());
    // No connection was ever made, so there is none to accept.
    let nobody = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(nobody.is_err(), "somebody followed a redirect");
}

tests![
    p1_a_kill_before_the_commit_loses_nothing_that_was_answered.needs(&STRACE),
    p1_a_kill_between_the_commit_and_the_answer_keeps_what_was_committed.needs(&STRACE),
    p1_a_kill_while_the_writer_is_behind_loses_nothing_that_was_answered,
    p1_a_failed_write_or_sync_of_the_journal_ends_the_daemon_too.needs(&STRACE),
    p1_a_failed_write_or_sync_ends_the_daemon_and_is_never_taken_for_a_success.needs(&STRACE),
    p1_a_failed_sync_of_a_checkpoint_ends_the_daemon_and_loses_nothing.needs(&STRACE),
    p4_a_kill_between_launchdarklys_answer_and_the_settle_tells_once_more,
    p5_a_kill_during_a_split_forgets_nothing_that_was_learnt,
    p4_a_kill_during_a_resync_goes_on_with_it,
    p1_a_kill_during_a_migration_leaves_a_ledger_that_can_be_migrated.needs(&STRACE),
    p7_a_damaged_ledger_ends_the_start_with_70_and_the_way_back,
    p7_damage_that_a_running_daemon_meets_ends_it_with_70_and_nobody_is_told,
    p1_a_bit_that_flipped_in_the_log_after_a_kill_is_no_silent_loss,
    p7_a_flipped_bit_is_found_or_means_nothing,
    p4_a_429_is_survived_in_every_form_its_headers_take,
    p4_a_token_that_is_revoked_and_restored_under_load_loses_nothing,
    p5_poison_among_a_thousand_is_parked_exactly_and_in_few_calls,
    p4_a_storm_of_conflicts_passes_and_everything_is_told,
    p2_a_thousand_duplicates_are_told_once,
    p2_what_comes_four_hours_late_undoes_nothing,
    p6_answers_that_drip_or_pour_cost_neither_time_nor_memory,
    p8_a_redirect_to_another_host_never_gets_the_token,
];

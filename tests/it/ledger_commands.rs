//! The commands on the ledger itself, with the real binary, beside a running daemon and without one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cohortd::sandbox::{Keep, View};
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, Typed, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const AUDIENCE: &str = "aud_vip";

/// `cohortd ledger …` with the configuration of the installation.
fn ledger(installation: &Installation, arguments: &[&str]) -> Typed {
    let words: Vec<&str> = ["ledger"].into_iter().chain(arguments.iter().copied()).collect();
    installation.types(None, &words)
}

/// Context key to what it should be and what LaunchDarkly was told.
fn exported(installation: &Installation) -> BTreeMap<String, (bool, Option<bool>)> {
    let output = ledger(installation, &["export", "--destination", "production"]);
    assert_eq!(output.code, 0, "{}", output.complaint);
    let member = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert_eq!(line["audience_id"], AUDIENCE);
        let included = line["included"].as_bool().expect("a boolean");
        (
            line["context_key"].as_str().expect("a text").to_owned(),
            (included, line["told"].as_bool()),
        )
    };
    output.out.lines().map(member).collect()
}

async fn export_and_check_read_beside_the_daemon_and_after_it() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    assert_eq!(ledger(&installation, &["check"]).code, 69, "there is no ledger yet");

    let cohortd = installation.start();
    for (user, enters) in [("ada", true), ("bob", false)] {
        cohortd.post(&identify(user, "vip", enters, NOW_MS)).await.expect("an answer");
    }
    let told = |view: &View<'_>| view.calls().members >= 2;
    launchdarkly.until(DEADLINE, told).await.expect("both are told");
    installation.drained().await;
    let expected = [("ada", (true, Some(true))), ("bob", (false, Some(false)))];
    let expected: BTreeMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value)).into();
    assert_eq!(exported(&installation), expected);
    assert_eq!(ledger(&installation, &["check"]).code, 0);
    let other = ledger(&installation, &["export", "--destination", "other"]);
    assert_eq!((other.code, other.out.as_str()), (64, ""));
    assert!(other.complaint.contains("has no destination other"), "{}", other.complaint);

    assert!(cohortd.stop().0.success());
    assert_eq!(exported(&installation), expected);
    let output = ledger(&installation, &["check"]);
    assert_eq!(output.code, 0);
    let sound = "the ledger is sound: 2 members of 1 audiences, 0 waiting for delivery, 0 rejected \
         events\n";
    assert_eq!(output.out, sound);
}

async fn a_backup_under_load_comes_back_and_everything_is_told_again() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.set_keep(Keep::Arrivals);
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let enters = |from: u32, to: u32| -> Vec<Value> {
        (from..to).map(|user| identify(&format!("user-{user:04}"), "vip", true, NOW_MS)).collect()
    };
    cohortd.post_batch(&enters(0, 1000)).await.expect("an answer");
    let poster = cohortd.poster();
    let load = tokio::spawn(async move {
        for round in 1..20 {
            poster.post_batch(&enters(round * 1000, round * 1000 + 100)).await.expect("an answer");
        }
    });
    let backup = || ledger(&installation, &["backup", "copy"]);
    let output = tokio::task::block_in_place(backup);
    assert_eq!(output.code, 0, "{}", output.complaint);
    load.await.expect("every batch is answered");
    assert_eq!(backup().code, 64, "a backup is never overwritten");
    let nowhere = ledger(&installation, &["backup", "no/folder/copy"]);
    assert_eq!(nowhere.code, 69, "{}", nowhere.complaint);
    assert!(nowhere.complaint.contains("No such file or directory"), "{}", nowhere.complaint);
    let refused = ledger(&installation, &["restore", "copy"]);
    assert_eq!(refused.code, 69, "the daemon has the ledger");
    assert!(refused.complaint.contains("in use by another process"));
    assert!(cohortd.stop().0.success());

    let output = ledger(&installation, &["restore", "copy"]);
    assert_eq!(output.code, 0, "{}", output.complaint);
    assert!(installation.directory.path().join("ledger/before-restore-1/ledger.db").exists());
    let members = exported(&installation);
    assert!(members.len() >= 1000 && members.contains_key("user-0999"));
    // A member that is in LaunchDarkly and in the ledger is told once more.
    let before = launchdarkly.arrivals(ENVIRONMENT, AUDIENCE, "user-0000").len();
    let _cohortd = installation.start();
    let again = |view: &View<'_>| view.arrivals(ENVIRONMENT, AUDIENCE, "user-0000").len() > before;
    launchdarkly.until(DEADLINE, again).await.expect("it is told again");
}

/// Out of a container and into one: nothing but two pipes.
async fn a_backup_and_a_restore_pass_through_a_pipe() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    installation.drained().await;
    let piped = |words: &[&str], input: &[u8]| {
        let mut line = installation.line(None, words);
        let line = line.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = line.spawn().expect("the binary runs");
        let _ = child.stdin.take().expect("it is piped").write_all(input); // it may not want all
        child.wait_with_output().expect("it is our child")
    };
    let backup = ["ledger", "backup", "-"];
    let copy = piped(&backup, b"");
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
    assert!(copy.stdout.starts_with(b"SQLite format 3\0"));
    assert!(!installation.ledger_path().join("streamed").exists());
    // Whoever stops reading has no backup.
    let line = &mut installation.line(None, &backup);
    let mut child = line.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it is our child").code(), Some(69));

    cohortd.post(&identify("bob", "vip", true, NOW_MS)).await.expect("an answer");
    let restore = ["ledger", "restore", "-"];
    assert_eq!(piped(&restore, &copy.stdout).status.code(), Some(69), "the daemon has the ledger");
    assert!(cohortd.stop().0.success());
    let cut = &copy.stdout[..copy.stdout.len() / 2];
    for (input, code, says) in [
        (&b"junk"[..], 64, "is not a copy"),
        (b"", 64, "is not a copy"),
        (cut, 70, "standard input is damaged"),
    ] {
        let refused = piped(&restore, input);
        let complaint = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(refused.status.code(), Some(code), "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
    }
    assert_eq!(exported(&installation).len(), 2);
    let restored = piped(&restore, &copy.stdout);
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(exported(&installation).keys().collect::<Vec<_>>(), ["ada"]);
}

/// The rest of the configuration may be broken; its place may not be guessed.
async fn the_ledgers_place_is_all_that_its_commands_need() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    assert!(installation.start().stop().0.success());
    let place = installation.ledger_path().display().to_string();
    installation.unset("ledger.path");
    installation.set("listen.address", "nowhere").set("destinations.production.segment.odd", "1");
    let broken = "[listen\n[destinations.x]\n";
    for sound in
        [format!("[ledger]\npath = {place:?}\n"), format!("{broken}[ledger]\npath = {place:?}\n")]
    {
        installation.write_config(&sound);
        assert!(ledger(&installation, &["check"]).done().contains("is sound"), "{sound}");
    }
    // Whoever misspells it must not reach another ledger.
    std::fs::create_dir(installation.directory.path().join("data")).expect("it is ours");
    let default = installation.directory.path().join("data/ledger");
    std::fs::rename(&place, &default).expect("both are ours");
    for misspelt in ["[ledger]\npathh = \"x\"\n", "[legder]\npath = \"x\"\n"] {
        installation.write_config(misspelt);
        for words in [&["check"][..], &["export"], &["backup", "copy"], &["restore", "copy"]] {
            let refused = ledger(&installation, words);
            assert_eq!(refused.code, 64, "{words:?}: {}", refused.out);
            assert!(
                refused.complaint.contains("unknown key; did you mean"),
                "{}",
                refused.complaint
            );
        }
    }
    std::fs::rename(&default, &place).expect("both are ours");
    installation.write_config(broken);
    let refused = ledger(&installation, &["check"]);
    assert_eq!(refused.code, 64, "{}", refused.complaint);
    assert!(refused.complaint.contains("TOML parse error"), "{}", refused.complaint);
    installation.set("ledger.path", &place);
    ledger(&installation, &["check"]).done();
    ledger(&installation, &["export", "production"]).done();
}

async fn damage_is_found_and_never_restored() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let enters: Vec<Value> =
        (0..2000).map(|user| identify(&format!("user-{user:04}"), "vip", true, NOW_MS)).collect();
    cohortd.post_batch(&enters).await.expect("an answer");
    let output = ledger(&installation, &["backup", "copy"]);
    assert_eq!(output.code, 0, "{}", output.complaint);
    assert!(cohortd.stop().0.success());

    let copy = installation.directory.path().join("copy");
    flip_in_the_members(&copy);
    let refused = ledger(&installation, &["restore", "copy"]);
    assert_eq!(refused.code, 70, "{}", refused.complaint);
    assert!(refused.complaint.contains("copy is damaged: "), "{}", refused.complaint);
    assert_eq!(ledger(&installation, &["check"]).code, 0, "the ledger was not touched");

    let database = installation.ledger_path().join("ledger.db");
    std::fs::rename(&copy, &database).expect("both are ours");
    for part in ["ledger.db-wal", "ledger.db-shm"] {
        std::fs::remove_file(installation.ledger_path().join(part)).ok();
    }
    let output = ledger(&installation, &["check"]);
    assert_eq!(output.code, 70, "{}", output.out);
    let words = output.complaint;
    assert!(
        words.contains("the ledger is damaged: stop the daemon and restore a backup"),
        "{words}"
    );

    std::fs::write(&copy, "no database at all").expect("it is ours");
    let output = ledger(&installation, &["restore", "copy"]);
    assert_eq!(output.code, 64, "{}", output.complaint);
    assert!(output.complaint.contains("is not a cohortd ledger"), "{}", output.complaint);
}

/// Copied from under a daemon, without its log and journal: a part of the ledger that looks like all of it.
async fn the_database_of_a_ledger_by_itself_is_no_backup() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    installation.drained().await;
    ledger(&installation, &["backup", "good"]).done();
    cohortd.post(&identify("bob", "vip", true, NOW_MS)).await.expect("an answer");
    let at = |name: &str| installation.directory.path().join(name);
    std::fs::copy(installation.ledger_path().join("ledger.db"), at("raw")).expect("it is ours");
    assert!(cohortd.stop().0.success());
    let remedy = "`cohortd ledger backup` makes a complete copy";
    let refused = ledger(&installation, &["restore", "raw"]);
    assert_eq!(refused.code, 64, "{}", refused.out);
    assert!(refused.complaint.contains(remedy), "{}", refused.complaint);
    let input = std::fs::File::open(at("raw")).expect("it is ours");
    let refused = installation.line(None, &["ledger", "restore", "-"]).stdin(input).output();
    let refused = refused.expect("the binary runs");
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{complaint}");
    assert!(complaint.contains(remedy), "{complaint}");
    assert_eq!(exported(&installation).len(), 2, "nothing was touched");
    // A backup goes back, and so does what is named as a directory.
    ledger(&installation, &["restore", "good"]).done();
    std::fs::create_dir(at("alone")).expect("it is ours");
    std::fs::copy(
        installation.ledger_path().join("before-restore-1/ledger.db"),
        at("alone/ledger.db"),
    )
    .expect("it is ours");
    ledger(&installation, &["restore", "alone"]).done();
    ledger(&installation, &["check"]).done();
}

/// Whoever reads a backup slowly, or is killed, is in nobody's way, and leaves nothing for good.
async fn a_streamed_backup_that_stalls_or_is_killed_disturbs_nobody() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for batch in 0..10 {
        let events: Vec<Value> = (0..1000)
            .map(|user| identify(&format!("user-{batch}-{user}"), "vip", true, NOW_MS))
            .collect();
        cohortd.post_batch(&events).await.expect("an answer");
    }
    installation.drained().await;
    let streamed = || {
        let names = std::fs::read_dir(installation.ledger_path()).expect("it is there").flatten();
        names.filter(|of| of.file_name().to_string_lossy().starts_with("streamed")).count()
    };
    let begin = || {
        let mut line = installation.line(None, &["ledger", "backup", "-"]);
        let line = line.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        line.spawn().expect("the binary runs")
    };
    // One that nobody reads: a pipe takes little of it.
    let mut stalled = begin();
    let first = &mut [0; 16];
    stalled.stdout.as_mut().expect("it is piped").read_exact(first).expect("it has begun");
    assert_eq!(streamed(), 0, "what stalls has no name any more");
    let whole = begin().wait_with_output().expect("it is our child");
    assert!(whole.status.success() && whole.stdout.len() > 500_000, "{}", whole.stdout.len());
    ledger(&installation, &["backup", "copy"]).done();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert!(stalled.try_wait().expect("it is our child").is_none(), "it waits to be read");
    stalled.kill().expect("it is our child");
    stalled.wait().expect("it is our child");
    assert_eq!(streamed(), 0);

    // One that is killed while it copies leaves its copy until the next one, or the next start.
    let kill_while_it_copies = || {
        let deadline = std::time::Instant::now() + DEADLINE;
        while streamed() == 0 {
            assert!(std::time::Instant::now() < deadline, "it is never seen copying");
            let mut killed = begin();
            while streamed() == 0 && killed.try_wait().expect("it is our child").is_none() {
                drop(killed.stdout.take()); // it ends by itself if it was not seen
                std::thread::yield_now();
            }
            killed.kill().ok(); // it may have ended
            killed.wait().expect("it is our child");
        }
    };
    kill_while_it_copies();
    let whole = begin().wait_with_output().expect("it is our child");
    assert!(whole.status.success());
    assert_eq!(streamed(), 0, "the next one takes it away");
    kill_while_it_copies();
    assert!(cohortd.stop().0.success());
    assert!(installation.start().stop().0.success());
    assert_eq!(streamed(), 0, "so does a start");
    assert_eq!(exported(&installation).len(), 10_001);
}

/// Whether something that was answered is in the journal alone.
fn is_behind(installation: &Installation) -> bool {
    let ledger = installation.ledger_path();
    let answered = std::fs::read(ledger.join("journal-answered")).unwrap_or_default();
    let answered = answered.first_chunk().copied().map_or(0, u64::from_le_bytes);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = rusqlite::Connection::open_with_flags(ledger.join("ledger.db"), flags);
    let merged = db.expect("the ledger is there").query_row(
        "SELECT value FROM meta WHERE name = 'merged'",
        [],
        |row| row.get::<_, u64>(0),
    );
    merged.expect("it is kept there") < answered
}

/// The daemon hangs with something that it has answered and not merged: nobody waits for it for ever.
async fn beside_a_daemon_that_merges_nothing_a_command_says_so() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "warn").set("delivery.linger_ms", "60000");
    let cohortd = installation.start_unread(Stdio::null()).await;
    let mut posting = JoinSet::new();
    for poster in 0..30 {
        let cohortd = cohortd.poster();
        posting.spawn(async move {
            for batch in 0.. {
                let user = |number: usize| format!("user-{poster}-{batch}-{number}");
                let events: Vec<Value> =
                    (0..300).map(|number| identify(&user(number), "vip", true, NOW_MS)).collect();
                if cohortd.post_batch(&events).await.is_none() {
                    return;
                }
            }
        });
    }
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let hanging = async {
        loop {
            looks.tick().await;
            cohortd.signal(Signal::STOP);
            if is_behind(&installation) {
                return;
            }
            cohortd.signal(Signal::CONT);
        }
    };
    tokio::time::timeout(DEADLINE, hanging).await.expect("its writer is behind");

    let typed = [&["ledger", "check"][..], &["ledger", "backup", "copy"]].map(|words| {
        let mut command = installation.line(None, words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
    });
    for command in typed {
        let output = command.wait_with_output().expect("it ends by itself");
        let complaint = String::from_utf8_lossy(&output.stderr);
        note!("{complaint}");
        assert_eq!(output.status.code(), Some(69), "{complaint}");
        for words in ["has merged nothing from its journal for ten seconds", " MiB free"] {
            assert!(complaint.contains(words), "{complaint}");
        }
    }
    assert!(!installation.directory.path().join("copy").exists());
    posting.abort_all();
    cohortd.signal(Signal::CONT);
    ledger(&installation, &["check"]).done();
    ledger(&installation, &["backup", "copy"]).done();
    assert!(cohortd.stop().0.success());
}

/// Overwrites the middle of the file, where the members are.
fn flip_in_the_members(file: &Path) {
    let mut bytes = std::fs::read(file).expect("it is ours");
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 4096] {
        *byte ^= 0x55;
    }
    std::fs::write(file, bytes).expect("it is ours");
}

tests![
    export_and_check_read_beside_the_daemon_and_after_it,
    a_backup_under_load_comes_back_and_everything_is_told_again,
    a_backup_and_a_restore_pass_through_a_pipe,
    the_ledgers_place_is_all_that_its_commands_need,
    damage_is_found_and_never_restored,
    the_database_of_a_ledger_by_itself_is_no_backup,
    a_streamed_backup_that_stalls_or_is_killed_disturbs_nobody,
    beside_a_daemon_that_merges_nothing_a_command_says_so.workers(4),
];

//! `cohortd check` says what a start would: the same exit code and the same reason, with nothing changed; and beside
//! a daemon that runs, that all is well.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
/// Of nobody's machine (RFC 5737).
const ELSEWHERE: &str = "192.0.2.1:8080";

/// Names and modes of a directory and of what is in it.
fn modes(directory: &Path) -> Vec<(String, u32)> {
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode();
    let inside = std::fs::read_dir(directory).expect("it is there").flatten();
    let mut found: Vec<_> =
        inside.map(|of| (of.file_name().display().to_string(), mode(&of.path()))).collect();
    found.push((String::new(), mode(directory)));
    found.sort();
    found
}

/// A start and a check end alike, for the same reason, and leave the ledger's directory as it is.
fn both_refuse(installation: &Installation, code: i32, why: &str) {
    let before = modes(&installation.ledger_path());
    let checked = installation.types(None, &["check"]);
    assert_eq!(modes(&installation.ledger_path()), before, "a check changes nothing");
    let json = installation.types(None, &["check", "--json"]);
    let started = installation.types(None, &["run"]);
    assert_eq!((checked.code, json.code, started.code), (code, code, code), "{}", checked.out);
    for said in [&checked.out, &json.out, &started.complaint] {
        let said = said.replace("\\\"", "\"");
        assert!(said.contains(why), "{why}: {said}");
    }
    let good = code != 64;
    assert_eq!(checked.out.contains("configuration is good"), good, "{}", checked.out);
    let json: Value = serde_json::from_str(&json.out).expect("one JSON value");
    assert_eq!(json["good"], good);
}

async fn an_address_that_cannot_be_listened_at_is_told() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    std::fs::create_dir(installation.ledger_path()).expect("it is ours");
    for key in ["listen.address", "admin.address"] {
        installation.set("admin.tokens", "planted-admin-token").set(key, ELSEWHERE);
        let why = format!("cannot listen on {ELSEWHERE} ({key}): Cannot assign requested");
        both_refuse(&installation, 69, &why);
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound").to_string();
        installation.set(key, &address);
        both_refuse(&installation, 69, &format!("{address} ({key}): Address already in use"));
        installation.set(key, "127.0.0.1:0");
    }
}

type Change = fn(&mut Vec<u8>);

async fn a_ledger_that_a_start_refuses_is_told() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    let database = installation.ledger_path().join("ledger.db");
    let sound = std::fs::read(&database).expect("it is there");
    let table: [(Change, i32, &str); 4] = [
        (|bytes| bytes.truncate(bytes.len() / 2), 70, "the ledger is damaged: "),
        (|bytes| bytes[4096..].fill(0x55), 70, "the ledger"),
        (|bytes| bytes[60..64].copy_from_slice(&[0, 0, 0, 99]), 64, "has schema version 99"),
        (|bytes| bytes[68] = 0, 64, "is not a cohortd ledger"),
    ];
    for (change, code, why) in table {
        let mut bytes = sound.clone();
        change(&mut bytes);
        std::fs::write(&database, bytes).expect("it is ours");
        both_refuse(&installation, code, why);
    }
    std::fs::write(&database, sound).expect("it is ours");
    let sound = installation.types(None, &["check"]).done();
    assert!(sound.contains("/ledger (there is one)\n"), "{sound}");
}

async fn an_empty_ledger_in_the_place_of_another_one_is_refused_alike() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    installation.types(None, &["ledger", "backup", "copy"]).done();
    assert!(cohortd.stop().0.success());
    installation.types(None, &["ledger", "restore", "copy"]).done();
    let database = installation.ledger_path().join("ledger.db");
    for content in [None, Some("")] {
        std::fs::remove_file(&database).expect("it is there");
        if let Some(text) = content {
            std::fs::write(&database, text).expect("it is ours");
        }
        let aside = installation.ledger_path().join("before-restore-1");
        let why = format!("and one at {}: `cohortd ledger restore` with", aside.display());
        both_refuse(&installation, 64, &why);
        std::fs::write(&database, "").expect("it is ours");
    }
    installation.types(None, &["ledger", "restore", "ledger/before-restore-1"]).done();

    // The directory around the one that is meant.
    let around = installation.directory.path().display().to_string();
    installation.set("ledger.path", &around);
    std::fs::write(Path::new(&around).join("ledger.db"), "").expect("it is ours");
    both_refuse(&installation, 64, "set ledger.path to that");
}

async fn a_directory_of_somebody_elses_is_left_as_it_is() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let ledger = installation.ledger_path();
    std::fs::create_dir(&ledger).expect("it is ours");
    std::fs::write(ledger.join("letters"), "").expect("it is ours");
    for path in [&ledger, &ledger.join("letters")] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, open).expect("it is ours");
    }
    let before = modes(&ledger);
    let why = format!("there is no ledger in {}, and it is not empty: letters. ", ledger.display());
    both_refuse(&installation, 64, &why);
    let restored = installation.types(None, &["ledger", "restore", "copy"]);
    assert_eq!(restored.code, 69, "there is no such file: {}", restored.complaint);
    assert_eq!(modes(&ledger), before);
    std::fs::remove_file(ledger.join("letters")).expect("it is ours");
    assert!(installation.start().stop().0.success());
}

async fn beside_a_daemon_that_runs_all_is_well() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let (public, admin) = (cohortd.public.to_string(), cohortd.admin.to_string());
    installation.set("listen.address", &public).set("admin.address", &admin);
    let said = installation.types(None, &["check"]).done();
    for expected in [
        "(there is one, in use by a daemon)\n",
        &format!(
            "public listener: http://{public} (in use, and so is the ledger: a daemon is running)\n"
        ),
        &format!("admin listener: http://{admin} (in use, "),
        "configuration is good\n",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let second = installation.types(None, &["run"]);
    assert_eq!(second.code, 69, "{}", second.complaint);
    let ada = identify("ada", "vip", true, NOW_MS);
    assert_eq!(cohortd.post(&ada).await.expect("an answer").0, 200, "it was not disturbed");
    let [json] = &[installation.types(None, &["check", "--json"]).done()];
    let json: Value = serde_json::from_str(json).expect("one JSON value");
    assert_eq!(json["listeners"]["public"]["usable"], true);
    assert!(cohortd.stop().0.success());
}

tests![
    an_address_that_cannot_be_listened_at_is_told,
    a_ledger_that_a_start_refuses_is_told,
    an_empty_ledger_in_the_place_of_another_one_is_refused_alike,
    a_directory_of_somebody_elses_is_left_as_it_is,
    beside_a_daemon_that_runs_all_is_well,
];

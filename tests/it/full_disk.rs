//! Full disks, beside what `durability` shows: a start on one, what can be done there without a daemon, a
//! small disk that SQLite's log must not take whole, a quota.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cohortd::sandbox::{View, sign};
use cohortd::secret::Secret;
use serde_json::Value;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::needs::{SMALL_DISK, STRACE};

const NOW_MS: i64 = 1_750_000_000_000;
/// Mounts a small disk over the ledger, with what was there, and fills it.
const FILL: &str = "mkdir -p ledger && cp -a ledger kept && rm -f kept/ledger.db-shm && mount -t tmpfs -o size=SIZE small ledger \
                    && cp -a kept/. ledger && (cat /dev/zero > ledger/.somebody-else 2> fill-error; true) \
                    && exec \"$@\"";

fn on_a_disk(script: &str, size: &str) -> [String; 6] {
    let script = script.replace("SIZE", size);
    ["unshare", "--map-root-user", "--mount", "sh", "-c", &script].map(str::to_owned)
}

fn wrapper(words: &[String; 6]) -> Vec<&str> {
    words.iter().map(String::as_str).chain(["-"]).collect()
}

fn wrapped(words: &[String; 6]) -> Vec<String> {
    wrapper(words).into_iter().map(str::to_owned).collect()
}

/// The ledger's directory as the daemon sees it.
fn seen_by(cohortd: &Cohortd, installation: &Installation) -> PathBuf {
    let root = format!("/proc/{}/root", cohortd.pid());
    PathBuf::from(format!("{root}{}", installation.ledger_path().display()))
}

fn free(ledger: &Path) {
    std::fs::remove_file(ledger.join(".somebody-else")).expect("it filled the disk");
}

async fn is_refused(cohortd: &Cohortd) {
    let body = identify("nobody", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
    let answer = cohortd.post_raw(body, signature).await.expect("an answer");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    let why = answer.text().await.expect("it says why");
    assert!(why.contains("no space"), "{why}");
}

async fn a_start_on_a_full_disk_is_not_ready_until_there_is_space() {
    for is_new in [false, true] {
        let launchdarkly = launchdarkly().await;
        let mut installation = Installation::new(&launchdarkly);
        installation.set("ledger.disk_reserve_mib", "0").set("delivery.linger_ms", "60000");
        if !is_new {
            let cohortd = installation.start();
            let before = identify("before", "vip", true, NOW_MS);
            assert_eq!(cohortd.post(&before).await.expect("an answer").0, 200);
            cohortd.kill(); // its log is to be read, for which an index is needed
        }
        installation.set("delivery.linger_ms", "20");
        let words = on_a_disk(FILL, "2m");
        let command = installation.wrapped(&wrapper(&words));
        let cohortd = installation.start_until(command, "no space on the ledger's disk");
        assert_eq!(cohortd.readyz().await, Some(503), "new {is_new}");
        assert_eq!(cohortd.probe("/livez").await, Some(200));
        is_refused(&cohortd).await;
        let manual = format!("http://{}/manual/troubleshooting", cohortd.admin);
        let page = reqwest::get(manual).await.expect("an answer").text().await.expect("text");
        assert!(page.contains("id=\"the-disk-fills\""), "{page}");
        let typed = installation.types(Some(cohortd.admin), &["status"]);
        assert_eq!(typed.code, 69, "{}", typed.out);
        assert!(
            typed.complaint.contains("the disk of the ledger has no space"),
            "{}",
            typed.complaint
        );
        let ledger = seen_by(&cohortd, &installation);
        free(&ledger);
        cohortd.logged("ready").await;
        assert_eq!(cohortd.readyz().await, Some(200));
        let after = identify("after", "vip", true, NOW_MS);
        assert_eq!(cohortd.post(&after).await.expect("an answer").0, 200);
        let mut all = BTreeSet::from(["after".to_owned()]);
        if !is_new {
            all.insert("before".to_owned());
        }
        let delivered = |view: &View<'_>| {
            view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members == all)
        };
        launchdarkly.until(DEADLINE, delivered).await.expect("all of them are told");
        let (status, log) = cohortd.stop();
        assert!(status.success(), "{}", log.join("\n"));
    }
}

/// Whatever an operator asks meanwhile says the same: the whole admin listener waits, and names the remedy.
async fn while_it_waits_for_space_every_route_of_operators_says_so() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.disk_reserve_mib", "0").set("admin.tokens", "planted-admin-token");
    let words = on_a_disk(FILL, "2m");
    let command = installation.wrapped(&wrapper(&words));
    let cohortd = installation.start_until(command, "no space on the ledger's disk");
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
    let client = client.expect("a plain client");
    let routes = [
        ("GET", "/"),
        ("GET", "/status"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/destinations"),
        ("GET", "/api/v1/openapi.json"),
        ("POST", "/api/v1/destinations/production/pause"),
        ("POST", "/api/v1/reload"),
        ("DELETE", "/api/v1/destinations/production"),
        ("GET", "/nowhere"),
    ];
    for (method, path) in routes {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let url = format!("http://{}{path}", cohortd.admin);
        let answer = client.request(method, url).send().await.expect("an answer");
        let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(header("content-type"), "application/problem+json", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert!(!header("retry-after").is_empty(), "{path}");
        let problem: Value = answer.json().await.expect("JSON");
        let detail = problem["detail"].as_str().expect("it says why");
        assert!(detail.contains("opens the ledger as soon as there is"), "{path}: {detail}");
    }
    for (path, status) in [("/livez", 200), ("/readyz", 503), ("/healthz", 503)] {
        assert_eq!(cohortd.probe(path).await, Some(status), "{path}");
    }
    for words in [&["status"][..], &["audiences"], &["parked", "list"], &["pause"]] {
        let typed = installation.types(Some(cohortd.admin), words);
        assert_eq!(typed.code, 69, "{words:?}: {}", typed.complaint);
        assert!(typed.complaint.contains("no space"), "{words:?}: {}", typed.complaint);
    }
    assert!(cohortd.stop().0.success());
}

async fn a_disk_that_fills_is_a_concern_of_every_destination_and_fills_no_log() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.disk_reserve_mib", "0");
    let small = "mkdir -p ledger && mount -t tmpfs -o size=SIZE small ledger && exec \"$@\"";
    let words = on_a_disk(small, "8m");
    let cohortd = installation.start_as(installation.wrapped(&wrapper(&words)));
    let ledger = seen_by(&cohortd, &installation);
    let filler = ledger.join("filler");
    let mut file = std::fs::File::create(&filler).expect("there is space");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    let mut refused = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        let (status, answer) = cohortd
            .post(&identify(&format!("user{refused}"), "vip", true, NOW_MS))
            .await
            .expect("an answer");
        assert!([200, 503].contains(&status), "{answer}");
        refused += u32::from(status == 503);
    }
    assert!(refused > 0);
    let is_told = |status: &Value| {
        let of = &status["destinations"]["production"];
        of["state"] == "attention" && of["concerns"][0]["kind"] == "no_space"
    };
    let status = cohortd.until_status(is_told).await;
    assert_eq!(status["objection"], "the disk of the ledger has no space");
    let lines = cohortd.log().iter().filter(|line| !line.contains("\"INFO\"")).count();
    assert!(lines <= 4, "{}", cohortd.log().join("\n"));
    std::fs::remove_file(filler).expect("it is there");
    cohortd.until_status(|status| status["ready"] == true).await;
    assert_eq!(
        cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer").0,
        200
    );
    cohortd.until_status(|status| status["destinations"]["production"]["state"] == "ok").await;
    assert!(cohortd.stop().0.success());
}

async fn a_daemon_that_waits_for_space_stops_when_it_is_told_to() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.header_timeout_ms", "60000");
    let words = on_a_disk(FILL, "1m");
    let command = installation.wrapped(&wrapper(&words));
    let cohortd = installation.start_until(command, "no space on the ledger's disk");
    let mut stalls = TcpStream::connect(cohortd.public).expect("it listens");
    stalls.write_all(b"POST /segment/production HTTP/1.1\r\nhost: x\r\n").expect("it reads");
    is_refused(&cohortd).await;
    let began = Instant::now();
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "a sender that stalls: {:?}",
        began.elapsed()
    );
}

async fn a_ledger_on_a_full_disk_can_be_checked() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let events: Vec<Value> =
        (0..50).map(|of| identify(&format!("user{of}"), "vip", true, NOW_MS)).collect();
    assert_eq!(cohortd.post_batch(&events).await.expect("an answer").0, 200);
    installation.drained().await;
    cohortd.kill();
    let words = on_a_disk(FILL, "4m");
    let command = installation.wrapped(&wrapper(&words));
    let daemon = command.get_args().take(6).map(std::ffi::OsStr::to_owned).collect::<Vec<_>>();
    let checked = Command::new("unshare")
        .args(&daemon)
        .args([env!("CARGO_BIN_EXE_cohortd"), "ledger", "check"])
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(installation.directory.path())
        .output()
        .expect("it runs");
    let [out, complaint] =
        [checked.stdout, checked.stderr].map(|text| String::from_utf8(text).expect("text"));
    assert_eq!(checked.status.code(), Some(0), "{out}{complaint}");
    assert!(out.contains("the ledger is sound: 50 members"), "{out}{complaint}");
}

/// What comes as a stream and does not fit leaves the ledger as it was, and its disk as full as before.
async fn a_restore_that_does_not_fit_leaves_the_ledger_that_is_there() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for batch in 0..10 {
        let who = |of: usize| format!("user-{batch}-{of}");
        let events: Vec<Value> =
            (0..1000).map(|of| identify(&who(of), "vip", true, NOW_MS)).collect();
        assert_eq!(cohortd.post_batch(&events).await.expect("an answer").0, 200);
    }
    installation.drained().await;
    installation.types(None, &["ledger", "backup", "copy"]).done();
    assert!(cohortd.stop().0.success());
    let bytes = |name: &str| {
        let file = installation.directory.path().join(name);
        file.metadata().expect("it is there").len()
    };
    let files = std::fs::read_dir(installation.ledger_path()).expect("it is there").flatten();
    let ledger: u64 = files.map(|of| of.metadata().expect("it is there").len()).sum();
    // The ledger and half of the copy.
    let size = format!("{}k", (ledger + bytes("copy") / 2) / 1024 + 64);
    let small = "cp -a ledger kept && mount -t tmpfs -o size=SIZE small ledger && cp -a kept/. ledger \
                 && { \"$@\" < copy; echo ended with $?; ls -A ledger; \"$1\" ledger check; }";
    let words = on_a_disk(small, &size);
    let mut line = installation.typing(&wrapped(&words), &["ledger", "restore", "-"]);
    let output = line.output().expect("the binary runs");
    let [out, complaint] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    assert!(out.contains("ended with 69\n"), "{out}{complaint}");
    assert!(complaint.contains("No space left on device"), "{complaint}");
    assert!(!out.contains("restor"), "nothing of it is left: {out}");
    assert!(out.contains("the ledger is sound: 10000 members"), "{out}{complaint}");
}

/// Kept events come and go: what is kept is little, what is written is many times the disk.
async fn the_log_does_not_take_a_small_disk_whole() {
    const EVENTS: usize = 120;
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.disk_reserve_mib", "0").set("ledger.rejected_max_mib", "2");
    let small = "mkdir -p ledger && mount -t tmpfs -o size=SIZE small ledger && exec \"$@\"";
    let words = on_a_disk(small, "14m");
    let cohortd = installation.start_as(installation.wrapped(&wrapper(&words)));
    let mut event = identify("", "vip", true, NOW_MS);
    (event["userId"], event["padding"]) = (Value::Null, "x".repeat(300_000).into());
    let (mut kept, mut refused) = (0, 0);
    while kept < EVENTS {
        match cohortd.post(&event).await.expect("an answer").0 {
            400 => kept += 1,
            503 => refused += 1,
            other => panic!("answered {other}"),
        }
        assert!(refused < 20, "after {kept} nothing is taken any more");
    }
    note!("{kept} of 300 KB kept on 14 MiB, {refused} refused");
    let who = identify("ada", "vip", true, NOW_MS);
    assert_eq!(cohortd.post(&who).await.expect("an answer").0, 200);
    let delivered = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, delivered).await.expect("it is told");
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
}

async fn a_quota_that_is_used_up_is_answered_503_and_the_daemon_goes_on() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.linger_ms", "60000");
    assert!(installation.start().stop().0.success()); // so that the next one has little to write at first
    let path = |name: &str| installation.ledger_path().join(name).display().to_string();
    let (log, probe) = (path("ledger.db-wal"), path("space-probe"));
    let output = installation.directory.path().join("trace").display().to_string();
    let tracer = [
        "strace",
        "-D",
        "-f",
        "-P",
        &log,
        "-P",
        &probe,
        "-e",
        "trace=pwrite64",
        "-e",
        "inject=pwrite64:error=EDQUOT:when=40..43",
        "-o",
        &output,
    ];
    let cohortd = installation.start_as(installation.wrapped(&tracer));
    let (mut accepted, mut refused) = (BTreeSet::new(), 0);
    for number in 0..400 {
        let user = format!("user{number}");
        match cohortd.post(&identify(&user, "vip", true, NOW_MS)).await.expect("an answer").0 {
            200 => _ = accepted.insert(user),
            503 => refused += 1,
            other => panic!("answered {other}"),
        }
        if refused > 0 && accepted.len() > 60 {
            break;
        }
        if refused > 0 && cohortd.readyz().await == Some(503) {
            cohortd.logged("the ledger can be written again").await;
        }
    }
    assert!(refused > 0 && accepted.len() > 60, "{refused} refused, {} accepted", accepted.len());
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
    let exported = installation.types(None, &["ledger", "export"]).done();
    let there = exported.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let there: BTreeSet<String> =
        there.map(|line| line["context_key"].as_str().expect("a key").to_owned()).collect();
    assert!(there.is_superset(&accepted));
}

/// What was accepted stays in SQLite's log, which the next start reads.
async fn a_daemon_whose_tables_may_not_grow_for_a_quota_ends_well() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.linger_ms", "60000");
    assert!(installation.start().stop().0.success()); // so that the next one only adds
    let path = |name: &str| installation.ledger_path().join(name).display().to_string();
    let (tables, probe) = (path("ledger.db"), path("space-probe"));
    let output = installation.directory.path().join("trace").display().to_string();
    let (trace, inject) = ("trace=pwrite64", "inject=pwrite64:error=EDQUOT");
    let tracer = [
        "strace", "-D", "-f", "-P", &tables, "-P", &probe, "-e", trace, "-e", inject, "-o", &output,
    ];
    let cohortd = installation.start_as(installation.wrapped(&tracer));
    let ada = identify("ada", "vip", true, NOW_MS);
    assert_eq!(cohortd.post(&ada).await.expect("an answer").0, 200);
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
    let refused = std::fs::read_to_string(&output).expect("there is a trace");
    assert!(refused.contains("INJECTED"), "the tables were not written");
    let exported = installation.types(None, &["ledger", "export"]).done();
    assert!(exported.contains("ada"), "{exported}");
}

/// The names of what is new are on stable storage before anything in it is promised.
async fn new_directories_above_the_ledger_are_synced() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let above = installation.directory.path().join("one");
    installation.set("ledger.path", &above.join("two/ledger").display().to_string());
    let output = installation.directory.path().join("trace");
    let shown = output.display().to_string();
    let tracer = ["strace", "-D", "-f", "-y", "-e", "trace=fsync", "-o", &shown];
    let cohortd = installation.start_as(installation.wrapped(&tracer));
    assert!(cohortd.stop().0.success());
    let trace = std::fs::read_to_string(output).expect("there is a trace");
    for directory in [installation.directory.path(), &above, &above.join("two")] {
        let synced = format!("<{}>", directory.display());
        assert!(trace.lines().any(|line| line.contains(&synced)), "{synced} is not synced");
    }
}

tests![
    a_start_on_a_full_disk_is_not_ready_until_there_is_space.needs(&SMALL_DISK),
    while_it_waits_for_space_every_route_of_operators_says_so.needs(&SMALL_DISK),
    a_disk_that_fills_is_a_concern_of_every_destination_and_fills_no_log.needs(&SMALL_DISK),
    a_daemon_that_waits_for_space_stops_when_it_is_told_to.needs(&SMALL_DISK),
    a_ledger_on_a_full_disk_can_be_checked.needs(&SMALL_DISK),
    a_restore_that_does_not_fit_leaves_the_ledger_that_is_there.needs(&SMALL_DISK),
    the_log_does_not_take_a_small_disk_whole.needs(&SMALL_DISK),
    a_quota_that_is_used_up_is_answered_503_and_the_daemon_goes_on.needs(&STRACE),
    a_daemon_whose_tables_may_not_grow_for_a_quota_ends_well.needs(&STRACE),
    new_directories_above_the_ledger_are_synced.needs(&STRACE),
];

//! A 2xx means synced, not merely written (P1): checked from outside by tracing system calls. A SIGKILL
//! cannot show this, because the kernel keeps what a dead process has written.
//!
//! A full disk is answered 503 until there is space again, and nothing that was accepted is lost.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use cohortd::sandbox::{Fault, StandIn, sign};
use cohortd::secret::Secret;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::needs::{SMALL_DISK, STRACE};

const NOW_MS: i64 = 1_750_000_000_000;
const WAL: &str = "/ledger.db-wal>";
/// The file in which requests are made durable while the writer is busy.
const JOURNAL: &str = "/ledger/journal-1>";

/// The directory of the ledger.
const DIRECTORY: &str = "/ledger>";

/// One system call: the trace lines at which it began and ended.
#[derive(Debug)]
struct Syscall {
    began: usize,
    ended: usize,
    text: String,
}

impl Syscall {
    fn is(&self, names: &[&str], argument: &str) -> bool {
        let name = self.text.split('(').next().unwrap_or_default();
        names.contains(&name) && self.text.contains(argument) && !self.text.contains(") = -1 ")
    }
}

/// Parses a trace of several threads, in which a call that others interrupt takes two lines.
fn syscalls(trace: &str) -> Vec<Syscall> {
    let mut calls: Vec<Syscall> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (line, text) in trace.lines().enumerate() {
        let (thread, text) = text.split_once(' ').expect("a thread, then a call");
        let text = text.trim_start();
        if let Some((_, rest)) = text.split_once(" resumed>").filter(|_| text.starts_with("<... "))
        {
            let call = &mut calls[open.remove(thread).expect("it began before")];
            call.ended = line;
            call.text.push_str(rest);
        } else if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            open.insert(thread, calls.len());
            calls.push(Syscall { began: line, ended: usize::MAX, text: begun.to_owned() });
        } else {
            calls.push(Syscall { began: line, ended: line, text: text.to_owned() });
        }
    }
    calls
}

/// The daemon under a tracer that shows buffers and the paths of file descriptors.
struct Traced {
    cohortd: Cohortd,
    path: PathBuf,
}

impl Traced {
    fn start(installation: &Installation) -> Self {
        let path = installation.directory.path().join("trace");
        let output = path.display().to_string();
        let calls =
            "trace=fdatasync,fsync,pwrite64,write,writev,sendto,sendmsg,read,readv,recvfrom";
        // -D: the daemon is our child, and the tracer is the daemon's child.
        let tracer = ["strace", "-D", "-f", "-yy", "-s", "2097152", "-e", calls, "-o", &output];
        Self { cohortd: installation.start_as(installation.wrapped(&tracer)), path }
    }

    fn stop(self) -> Vec<Syscall> {
        let (status, log) = self.cohortd.stop();
        assert!(status.success(), "{}", log.join("\n"));
        let trace = std::fs::read(&self.path).expect("there is a trace");
        syscalls(&String::from_utf8_lossy(&trace))
    }
}

/// Checks for each user that the request was read, then written to one of the ledger's logs, then that log
/// was synced by a call that began after the write, and only then the 200 was sent. Returns the number of
/// syncs.
fn check_each_answer(calls: &[Syscall], public_port: u16, users: &[String]) -> usize {
    let here = format!("<TCP:[127.0.0.1:{public_port}->");
    let first = |what: &str, user: &str, holds: &dyn Fn(&Syscall) -> bool| {
        let found = calls.iter().find(|call| holds(call));
        found.unwrap_or_else(|| panic!("{user}: {what} is not in the trace"))
    };
    for user in users {
        let request = first("the request", user, &|call| {
            call.is(&["read", "readv", "recvfrom"], &here) && call.text.contains(user.as_str())
        });
        let descriptor = request.text.split(['(', ')']).nth(1).expect("an argument");
        let connection = descriptor.split('>').next().expect("a peer").to_owned()
            + ">"
            + descriptor.split('>').nth(1).expect("a peer");
        let answer = first("the answer", user, &|call| {
            call.began > request.ended
                && call.is(&["write", "writev", "sendto", "sendmsg"], &connection)
                && call.text.contains("HTTP/1.1 200 OK")
        });
        let write = first("the write", user, &|call| {
            let is_write = |log| call.is(&["pwrite64", "write"], log);
            call.began > request.ended
                && (is_write(WAL) || is_write(JOURNAL))
                && call.text.contains(user.as_str())
        });
        let log = if write.text.contains(JOURNAL) { JOURNAL } else { WAL };
        let sync = first("the sync", user, &|call| {
            call.began > write.ended && call.is(&["fdatasync", "fsync"], log)
        });
        assert!(
            sync.ended < answer.began,
            "{user} was answered at line {} and synced at {}",
            answer.began,
            sync.ended
        );
    }
    let from = calls.iter().position(|call| call.is(&["recvfrom", "read"], &here));
    let after = &calls[from.expect("a request came")..];
    after.iter().filter(|call| call.is(&["fdatasync", "fsync"], WAL)).count()
}

async fn every_200_is_sent_after_a_sync_of_what_it_promises() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    // Calls to LaunchDarkly would cause further commits, which would be counted too.
    installation.set("delivery.linger_ms", "60000");
    let traced = Traced::start(&installation);
    let port = traced.cohortd.public.port();
    let users: Vec<String> = (0..50).map(|user| format!("durable_{user:03}_user")).collect();
    for (at, user) in users.iter().enumerate() {
        let answer = if at % 5 == 0 {
            let events =
                [identify(user, "vip", true, NOW_MS), identify(user, "beta", true, NOW_MS)];
            traced.cohortd.post_batch(&events).await
        } else {
            traced.cohortd.post(&identify(user, "vip", true, NOW_MS)).await
        };
        assert_eq!(answer.expect("an answer").0, 200);
    }
    let syncs = check_each_answer(&traced.stop(), port, &users);
    note!("{} requests one after another, {syncs} syncs", users.len());
    assert!(syncs >= users.len());
}

async fn requests_that_come_together_share_a_sync_and_wait_for_it() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.linger_ms", "60000");
    let traced = Traced::start(&installation);
    let port = traced.cohortd.public.port();
    let users: Vec<String> = (0..64).map(|user| format!("together_{user:03}_user")).collect();
    let events: Vec<_> = users.iter().map(|user| identify(user, "vip", true, NOW_MS)).collect();
    let mut posts = Vec::new();
    for event in &events {
        posts.push(Box::pin(traced.cohortd.post(event)));
    }
    for answer in join_all(posts).await {
        assert_eq!(answer.expect("an answer").0, 200);
    }
    let syncs = check_each_answer(&traced.stop(), port, &users);
    note!("{} requests at once, {syncs} syncs", users.len());
    assert!(syncs < users.len(), "{syncs} syncs for {} requests", users.len());
}

async fn a_request_for_several_destinations_has_one_sync() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    for (key, value) in [
        ("delivery.linger_ms", "60000"),
        ("destinations.two.launchdarkly.client_side_id", "2"),
        ("destinations.two.launchdarkly.service_token", "2"),
        ("destinations.three.launchdarkly.client_side_id", "3"),
        ("destinations.three.launchdarkly.service_token", "3"),
        ("routes.all.destinations", "production\ntwo\nthree"),
        ("routes.all.segment.shared_secrets", SHARED_SECRET),
    ] {
        installation.set(key, value);
    }
    let traced = Traced::start(&installation);
    let port = traced.cohortd.public.port();
    let users: Vec<String> = (0..30).map(|user| format!("routed_{user:03}_user")).collect();
    for user in &users {
        let body = identify(user, "vip", true, NOW_MS).to_string();
        let answer = traced.cohortd.post_to("all", body.clone(), &body).await;
        assert_eq!(answer.expect("an answer").0, 200);
    }
    let syncs = check_each_answer(&traced.stop(), port, &users);
    note!("{} requests for three destinations, {syncs} syncs", users.len());
    assert!(syncs < users.len() * 3 / 2, "{syncs} syncs for {} requests", users.len());
}

async fn what_the_writer_cannot_keep_up_with_is_synced_before_it_is_answered_too() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.linger_ms", "60000");
    let traced = Traced::start(&installation);
    let port = traced.cohortd.public.port();
    let users: Vec<String> = (0..40).map(|user| format!("many_{user:03}_first")).collect();
    let batches: Vec<Vec<_>> = users
        .iter()
        .map(|user| {
            let others = (0..150).map(|other| identify(&format!("{user}_{other}"), "vip", true, 1));
            [identify(user, "vip", true, NOW_MS)].into_iter().chain(others).collect()
        })
        .collect();
    let mut posts = Vec::new();
    for batch in &batches {
        posts.push(Box::pin(traced.cohortd.post_batch(batch)));
    }
    for answer in join_all(posts).await {
        assert_eq!(answer.expect("an answer").0, 200);
    }
    let calls = traced.stop();
    check_each_answer(&calls, port, &users);
    let is_block = |call: &Syscall| call.is(&["pwrite64"], JOURNAL);
    let blocks = calls.iter().filter(|call| is_block(call)).count();
    note!("{blocks} blocks in the journal");
    let written = calls.iter().position(is_block).expect("the test keeps the writer busy");
    // The journal's file is new: without its entry in the directory a power cut would take it away.
    let here = format!("<TCP:[127.0.0.1:{port}->");
    let asked = calls.iter().position(|call| call.is(&["recvfrom", "read"], &here));
    let since = &calls[asked.expect("a request came")..written];
    assert!(since.iter().any(|call| call.is(&["fsync"], DIRECTORY)), "its entry is not synced");
}

/// Polls all futures concurrently in this task.
async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = std::pin::Pin::new(future).poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// The log messages when the disk is full, and when it no longer is.
const FULL: [&str; 2] = ["no space on the ledger's disk", "the ledger can be written again"];

/// A daemon in its own mount namespace, with its ledger on a small disk that is removed with it.
struct OnASmallDisk {
    cohortd: Cohortd,
    /// A file on that disk that takes up its space.
    filler: PathBuf,
}

impl OnASmallDisk {
    fn start(installation: &Installation, mib: u32) -> Self {
        let mount =
            format!("mkdir -p ledger && mount -t tmpfs -o size={mib}m small ledger && exec \"$@\"");
        let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "-"];
        let cohortd = installation.start_as(installation.wrapped(&wrapper));
        let root = format!("/proc/{}/root", cohortd.pid());
        let ledger = format!("{root}{}", installation.ledger_path().display());
        Self { cohortd, filler: PathBuf::from(ledger).join("somebody-else") }
    }

    /// Writes until the disk is full.
    fn fill(&self) {
        let file = std::fs::File::create(&self.filler).expect("the disk is there");
        for size in [4096, 1] {
            let bytes = vec![b'x'; size];
            let mut end = file.metadata().expect("it is open").len();
            while let Ok(written) = file.write_at(&bytes, end) {
                end += written as u64;
            }
        }
    }

    /// Waits until nothing has been written for a while.
    fn is_at_rest(&self) {
        let log = self.filler.with_file_name("ledger.db-wal");
        let written =
            || std::fs::metadata(&log).and_then(|log| log.modified()).expect("it is there");
        let deadline = std::time::Instant::now() + DEADLINE;
        while written().elapsed().is_ok_and(|since| since < Duration::from_secs(3)) {
            assert!(std::time::Instant::now() < deadline, "it does not come to rest");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn free(&self) {
        std::fs::remove_file(&self.filler).expect("it was made");
    }

    async fn post(&self, user: &str) -> reqwest::Response {
        let body = identify(user, "vip", true, NOW_MS).to_string();
        let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
        self.cohortd.post_raw(body, signature).await.expect("an answer")
    }

    /// Posts until the disk has been full for a while. Returns the users that were accepted anyway.
    async fn refuses(&self) -> BTreeSet<String> {
        let (mut accepted, mut refused) = (BTreeSet::new(), 0);
        for number in 0..40 {
            let user = format!("user_{number}");
            let answer = self.post(&user).await;
            match answer.status().as_u16() {
                200 => _ = accepted.insert(user),
                503 => {
                    refused += 1;
                    assert_eq!(answer.headers()["retry-after"], "1");
                }
                other => panic!("answered {other}"),
            }
        }
        note!("on a full disk {refused} answered 503, {} accepted", accepted.len());
        assert!(refused >= 20, "only {refused} were refused on a full disk");
        assert_eq!(self.cohortd.readyz().await, Some(503));
        accepted
    }

    /// After space was freed: accepts again, delivers everything in `accepted`, and stops cleanly.
    async fn recovers(
        self,
        launchdarkly: &StandIn,
        mut accepted: BTreeSet<String>,
        messages: [&str; 2],
    ) {
        self.free();
        // The daemon notices by itself: a client that waits for readiness sends nothing until then.
        self.cohortd.logged(messages[1]).await;
        for user in (0..10).map(|number| format!("late_{number}")) {
            assert_eq!(self.post(&user).await.status(), 200, "there is space again");
            accepted.insert(user);
        }
        assert_eq!(self.cohortd.readyz().await, Some(200));
        let delivered = |view: &cohortd::sandbox::View<'_>| {
            view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.is_superset(&accepted))
        };
        launchdarkly.until(DEADLINE, delivered).await.expect("everything accepted gets there");
        assert_eq!(launchdarkly.overlaps(), 0);
        let (status, log) = self.cohortd.stop();
        assert!(status.success(), "{}", log.join("\n"));
        for message in messages {
            let said = log.iter().filter(|line| line.contains(message)).count();
            assert_eq!(said, 1, "{message}\n{}", log.join("\n"));
        }
    }
}

async fn a_full_disk_is_answered_503_until_there_is_space_again() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    // Long enough that what is accepted first is claimed only once the disk is full.
    installation.set("delivery.linger_ms", "1000").set("ledger.disk_reserve_mib", "0");
    let daemon = OnASmallDisk::start(&installation, 1);
    assert_eq!(daemon.post("first").await.status(), 200);
    daemon.fill();
    let mut accepted = daemon.refuses().await;
    accepted.insert("first".to_owned());
    daemon.cohortd.logged("no batch can be claimed from the ledger").await;
    daemon.recovers(&launchdarkly, accepted, FULL).await;
}

async fn an_answer_that_finds_the_disk_full_is_written_down_when_there_is_space() {
    // Its script blocks, so the stand-in runs on its own threads, which end with the process.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let threads: &'static tokio::runtime::Runtime =
        Box::leak(Box::new(threads.expect("threads can be started")));
    let launchdarkly = threads.spawn(launchdarkly()).await.expect("it starts");
    let (at_call, called) = mpsc::channel();
    let (answer, answered) = mpsc::channel::<()>();
    launchdarkly.script(move |_| {
        let _ = at_call.send(());
        let _ = answered.recv(); // until the other end is dropped
        Fault::None
    });
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.request_timeout_ms", "60000").set("ledger.disk_reserve_mib", "0");
    let daemon = OnASmallDisk::start(&installation, 1);
    assert_eq!(daemon.post("first").await.status(), 200);
    called.recv_timeout(DEADLINE).expect("it calls");
    daemon.fill();
    let mut accepted = daemon.refuses().await;
    drop(answer);
    daemon.cohortd.logged("the outcome of a call cannot be recorded in the ledger").await;
    accepted.insert("first".to_owned());
    let told_once = accepted.len() as u64 + 10;
    daemon.recovers(&launchdarkly, accepted, FULL).await;
    assert_eq!(launchdarkly.calls().members, told_once, "nobody was told twice");
}

async fn a_daemon_that_has_nothing_left_to_write_ends_well_on_a_full_disk() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.disk_reserve_mib", "0");
    let daemon = OnASmallDisk::start(&installation, 4);
    assert_eq!(daemon.post("first").await.status(), 200);
    let first = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "first");
    launchdarkly.until(DEADLINE, first).await.expect("it is told");
    daemon.is_at_rest();
    daemon.fill();
    let (status, log) = daemon.cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
}

async fn a_disk_that_fills_up_while_much_arrives_loses_nothing_that_was_answered() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.linger_ms", "1000").set("ledger.disk_reserve_mib", "0");
    let daemon = OnASmallDisk::start(&installation, 24);
    let batch = |number: usize| -> Vec<_> {
        let user = |of: usize| identify(&format!("crowd_{number}_{of}"), "vip", true, NOW_MS);
        (0..400).map(user).collect()
    };
    let (mut accepted, mut refused, mut number) = (BTreeSet::new(), 0, 0);
    while refused < 40 {
        let batches: Vec<_> = (number..number + 20).map(|number| (number, batch(number))).collect();
        let posts = batches.iter().map(|(_, batch)| Box::pin(daemon.cohortd.post_batch(batch)));
        for (answer, (number, _)) in join_all(posts.collect()).await.into_iter().zip(&batches) {
            match answer.expect("an answer").0 {
                200 => accepted.extend((0..400).map(|of| format!("crowd_{number}_{of}"))),
                503 => refused += 1,
                other => panic!("answered {other}"),
            }
        }
        number += 20;
        if number == 40 {
            daemon.fill();
        }
    }
    note!("{} accepted, {refused} batches refused", accepted.len());
    assert_eq!(daemon.cohortd.readyz().await, Some(503));
    daemon.recovers(&launchdarkly, accepted, FULL).await;
}

async fn the_reserve_of_the_disk_is_left_alone_and_delivery_goes_on() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    // Long enough that what is accepted first is delivered only once free space is below the reserve.
    installation.set("delivery.linger_ms", "1000").set("ledger.disk_reserve_mib", "4");
    let daemon = OnASmallDisk::start(&installation, 8);
    assert_eq!(daemon.post("first").await.status(), 200);
    std::fs::write(&daemon.filler, vec![b'x'; 5 << 20]).expect("there is so much space");
    let accepted = daemon.refuses().await;
    assert!(accepted.is_empty(), "{accepted:?}");
    let first = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "first");
    launchdarkly.until(DEADLINE, first).await.expect("delivery goes on");
    let messages =
        ["the ledger's disk has reached its reserve", "the ledger's disk has space again"];
    daemon.recovers(&launchdarkly, ["first".to_owned()].into(), messages).await;
}

tests![
    every_200_is_sent_after_a_sync_of_what_it_promises.needs(&STRACE),
    requests_that_come_together_share_a_sync_and_wait_for_it.needs(&STRACE),
    a_request_for_several_destinations_has_one_sync.needs(&STRACE),
    what_the_writer_cannot_keep_up_with_is_synced_before_it_is_answered_too.needs(&STRACE),
    a_full_disk_is_answered_503_until_there_is_space_again.needs(&SMALL_DISK),
    an_answer_that_finds_the_disk_full_is_written_down_when_there_is_space.needs(&SMALL_DISK),
    a_daemon_that_has_nothing_left_to_write_ends_well_on_a_full_disk.needs(&SMALL_DISK),
    a_disk_that_fills_up_while_much_arrives_loses_nothing_that_was_answered.needs(&SMALL_DISK),
    the_reserve_of_the_disk_is_left_alone_and_delivery_goes_on.needs(&SMALL_DISK),
];

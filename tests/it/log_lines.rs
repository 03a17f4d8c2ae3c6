//! A log that cannot be written: the daemon goes on without it, and says so where it still can.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Cohortd, DEADLINE, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const LOST: &str = "log lines could not be written, and are lost";

/// Posts so many events, each accepted.
async fn takes(cohortd: &Cohortd, events: usize) {
    for number in 0..events {
        let event = identify(&format!("user{number}"), "vip", true, NOW_MS);
        let (status, answer) = cohortd.post(&event).await.expect("it goes on");
        assert_eq!(status, 200, "{answer}");
    }
}

/// How many lines its status says it could not write.
fn dropped(status: &Value) -> u64 {
    status["log_lines_dropped"].as_u64().unwrap_or(0)
}

async fn a_log_on_a_full_disk_ends_nothing_and_its_lines_are_counted() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let cohortd = installation.start_unread(full).await;
    takes(&cohortd, 20).await;
    let status = cohortd.until_status(|status| dropped(status) > 2).await;
    assert_eq!(status["ready"], true);
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let line = metrics.lines().find(|line| line.starts_with("cohortd_log_lines_dropped_total "));
    let counted = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(counted.is_some_and(|counted| counted > 2.0), "{metrics}");
    let told = installation.types(Some(cohortd.admin), &["status"]).done();
    assert!(told.contains("log lines could not be written"), "{told}");
    assert_eq!(cohortd.stop().0.code(), Some(0));
}

async fn a_reader_of_the_log_that_is_gone_ends_nothing() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let cohortd = installation.start_unread(writer).await;
    takes(&cohortd, 20).await;
    assert_eq!(cohortd.stop().0.code(), Some(0));
}

async fn a_reader_of_the_log_that_has_stopped_delays_nothing_and_may_come_back() {
    for blocks in [true, false] {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        if !blocks {
            let flags = rustix::fs::fcntl_getfl(&writer).expect("it is open");
            let flags = flags | rustix::fs::OFlags::NONBLOCK;
            rustix::fs::fcntl_setfl(&writer, flags).expect("a pipe can do that");
        }
        fill(&writer);
        installation.write_config("# nothing yet\n");
        let cohortd = installation.start_unread(writer).await;
        // Each reading of this is a line of more than 60,000 bytes, until the queue takes no more.
        installation.write_config(&format!("{} = 1\n", "x".repeat(60_000)));
        let began = Instant::now();
        while dropped(&cohortd.status().await) == 0 {
            cohortd.signal(Signal::HUP);
            assert!(began.elapsed() < DEADLINE, "nothing is dropped");
        }
        takes(&cohortd, 50).await;
        let reading = std::thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).expect("a pipe can be read");
            String::from_utf8_lossy(&text).into_owned()
        });
        let lost = |text: &str| text.lines().any(|line| line.contains(LOST));
        takes(&cohortd, 20).await;
        assert_eq!(cohortd.stop().0.code(), Some(0));
        let log = reading.join().expect("it reads to the end");
        assert!(lost(&log) && log.contains("\"stopped\""), "blocks: {blocks}");
    }
}

fn a_full_disk_under_what_a_command_prints_is_an_error_and_no_panic() {
    let binary = env!("CARGO_BIN_EXE_cohortd");
    let all = [
        &["--help"][..],
        &["--version"],
        &["help", "configuration"],
        &["man"],
        &["completions", "bash"],
    ];
    for arguments in all {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = Command::new(binary).args(arguments).stdout(full).output();
        let output = output.expect("the binary runs");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {complaint}");
        assert!(complaint.contains("No space left"), "{arguments:?}: {complaint}");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = Command::new(binary).args(arguments).stdout(writer).status();
        assert_eq!(status.expect("the binary runs").code(), Some(0), "{arguments:?}");
    }
}

/// Puts into the pipe what it takes, and makes it block again if it did before.
fn fill(mut pipe: &std::io::PipeWriter) {
    let before = rustix::fs::fcntl_getfl(pipe).expect("it is open");
    let flags = before | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(pipe, flags).expect("a pipe can do that");
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(pipe, before).expect("a pipe can do that");
}

tests![
    a_log_on_a_full_disk_ends_nothing_and_its_lines_are_counted,
    a_reader_of_the_log_that_is_gone_ends_nothing,
    a_reader_of_the_log_that_has_stopped_delays_nothing_and_may_come_back,
    a_full_disk_under_what_a_command_prints_is_an_error_and_no_panic,
];

//! The manual in the browser, and the picture of the dashboard in README.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::address;
use super::browser::Browser;
use crate::harness::{Installation, launchdarkly};
use crate::needs::{CHROMIUM, PLAYWRIGHT};

async fn the_manual_is_searched_and_read_at_both_widths_and_in_both_schemes() {
    let launchdarkly = launchdarkly().await;
    let cohortd = Installation::new(&launchdarkly).start();
    let browser = Browser::start();
    browser.open(&address(&cohortd)).await;
    browser.click("text=what that means").await;
    browser.see("h1:has-text('Troubleshooting')").await;
    assert_eq!(browser.evaluate("location.hash").await, "#no-event-arrives");

    browser.fill("[name=q]", "extra_fields signing").await;
    browser.press("Enter").await;
    browser.click("role=link[name='Who may post']").await;
    browser.see("td:has-text('Webhook Audience')").await;
    assert_eq!(browser.evaluate("location.hash").await, "#who-may-post");
    browser.is_content().await;

    let manual = format!("{}manual", address(&cohortd));
    for scheme in ["light", "dark"] {
        for width in [1440, 360] {
            browser.shape(width, 900, scheme).await;
            for page in ["", "/configuration", "/operations", "/troubleshooting", "?q=disk"] {
                browser.open(&format!("{manual}{page}")).await;
                browser.see("article h1").await;
                let name = page.trim_start_matches(['/', '?']);
                browser.picture(&format!("manual-{name}-{width}-{scheme}")).await;
                let reach = browser.evaluate("document.documentElement.scrollWidth").await;
                assert_eq!(reach, width, "{page}: nothing sticks out");
                browser.is_accessible().await;
            }
        }
    }
    browser.is_content().await;
    assert!(cohortd.stop().0.success());
}

const WIDTH: u32 = 1360;
const HEIGHT: u32 = 880;
/// So that README is soon there.
const MOST_BYTES: u64 = 150 * 1024;

/// The picture that README shows, taken anew: to renew it, copy `target/tmp/dashboard/pictures/sandbox.png` to
/// `src/manual/dashboard.png`.
async fn readme_shows_the_dashboard_of_the_sandbox() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohortd"));
    command.args(["sandbox", "--calm"]).env_clear().kill_on_drop(true);
    let mut sandbox = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(sandbox.stdout.take().expect("it is piped")).lines();
    let dashboard = loop {
        let line = lines.next_line().await.expect("text").expect("it says where it is");
        if let Some((_, url)) = line.split_once("its dashboard is at") {
            break url.trim().to_owned();
        }
    };
    let read = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

    let browser = Browser::start();
    browser.shape(WIDTH, HEIGHT, "light").await;
    browser.open(&dashboard).await;
    browser.see("h1:text-is('ok')").await;
    let has_lines = "(async () => { for (;;) { \
        const past = await (await fetch('/api/v1/history')).json(); \
        const all = Object.values(past.destinations); \
        if (all.length > 0 && all.every((of) => of.at.length >= 8)) return true; \
        await new Promise((next) => setTimeout(next, 500)); } })()";
    assert_eq!(browser.evaluate(has_lines).await, true);
    browser.view("sandbox").await;
    browser.is_content().await;
    sandbox.kill().await.expect("it is there");
    read.await.expect("it ends with the sandbox");

    let taken = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard/pictures/sandbox.png");
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/dashboard.png");
    assert!(include_str!("../../../README.md").contains("(src/manual/dashboard.png)"));
    for picture in [taken, shown] {
        let bytes = std::fs::read(&picture).expect("it is there");
        assert!(bytes.starts_with(b"\x89PNG\r\n"), "{}", picture.display());
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
        assert_eq!((number(16), number(20)), (WIDTH, HEIGHT), "{}", picture.display());
        assert!(bytes.len() as u64 <= MOST_BYTES, "{}: {}", picture.display(), bytes.len());
    }
}

tests![
    the_manual_is_searched_and_read_at_both_widths_and_in_both_schemes
        .needs(&CHROMIUM)
        .needs(&PLAYWRIGHT),
    readme_shows_the_dashboard_of_the_sandbox.needs(&CHROMIUM).needs(&PLAYWRIGHT),
];

//! Ten destinations under traffic: the worst comes first, and nothing jumps from under a hand.

use std::fmt::Write;

use cohortd::sandbox::Fault;
use serde_json::{Value, json};

use super::browser::Browser;
use super::{NOW_MS, address};
use crate::harness::{
    DEADLINE, Installation, Poster, SERVICE_TOKEN, SHARED_SECRET, identify, launchdarkly_with,
};
use crate::needs::{CHROMIUM, PLAYWRIGHT};

const DESTINATIONS: usize = 10;
/// Looks of the page at the daemon, one a second.
const UPDATES: u64 = 20;
/// Above this, web pages are said to be shaky, by the definition of the measure.
const MOST: f64 = 0.1;

/// Sums up what moved since the page was there, and counts the answers of `/status`.
const WATCH: &str = "(() => { \
    window.moved = { sum: 0, what: [] }; \
    const name = (node) => !node ? 'gone' : node.nodeType === 1 ? node.tagName + '.' + node.className : node.textContent; \
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) { \
      window.moved.sum += entry.value; \
      window.moved.what.push(entry.value.toFixed(4) + ' ' + entry.sources.map((of) => name(of.node)).join(', ')); \
    } }).observe({ type: 'layout-shift', buffered: true }); \
    window.updates = 0; \
    const fetched = window.fetch; \
    window.fetch = (...what) => { if (what[0] === '/status') window.updates += 1; return fetched(...what); }; \
    return null; })()";

fn ten() -> String {
    let mut toml = String::new();
    for number in 0..DESTINATIONS {
        let _ = write!(
            toml,
            "[destinations.d{number}.segment]\nshared_secrets = [\"{SHARED_SECRET}\"]\n\
             [destinations.d{number}.launchdarkly]\nclient_side_id = \"environment{number}\"\n\
             service_token = \"{SERVICE_TOKEN}\"\nbase_url = \"LAUNCHDARKLY\"\n"
        ); // into memory
    }
    toml
}

async fn traffic(poster: Poster) {
    let mut number = 0_usize;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
    loop {
        ticks.tick().await;
        number += 1;
        let name = format!("d{}", number % DESTINATIONS);
        let audience = format!("vip{}{}", number % DESTINATIONS, number % 3);
        let mut event = identify(&format!("user{number}"), &audience, true, NOW_MS);
        if number.is_multiple_of(97) {
            event["traits"][&audience] = json!("perhaps"); // rejected
        }
        let body = event.to_string();
        let _ = poster.post_to(&name, body.clone(), &body).await; // the daemon may be gone at the end
    }
}

async fn of_ten_destinations_the_worst_comes_first_and_nothing_jumps() {
    let browser = Browser::start();
    let environments: Vec<String> =
        (0..DESTINATIONS).map(|of| format!("environment{of}")).collect();
    let accounts: Vec<_> = environments.iter().map(|of| (of.as_str(), SERVICE_TOKEN)).collect();
    let launchdarkly = launchdarkly_with(&accounts).await;
    // The audiences of one conflict for ever, members are refused now and then, and calls take their time.
    launchdarkly.script(|call| match call.call_number % 7 {
        _ if call.audience.starts_with("aud_vip4") => Fault::status(409),
        0 => Fault::status(503),
        _ => Fault::None,
    });
    launchdarkly.refuse_members(|user| user.ends_with("11"));
    let mut installation = Installation::new(&launchdarkly);
    for key in [
        "segment.shared_secrets",
        "launchdarkly.client_side_id",
        "launchdarkly.service_token",
        "launchdarkly.base_url",
    ] {
        installation.unset(&format!("destinations.production.{key}"));
    }
    installation.write_config(&ten().replace("LAUNCHDARKLY", launchdarkly.url().as_str()));
    let cohortd = installation.start();
    let posting = tokio::spawn(traffic(cohortd.poster()));
    cohortd.until_status(|status| status["destinations"]["d4"]["state"] == "behind").await;

    browser.shape(1440, 900, "light").await;
    browser.open(&format!("{}#/rejected", address(&cohortd))).await;
    browser.see("role=button[name=/^Discard event/]").await;
    assert_eq!(browser.text(".destination .name").await, "d4");
    assert_eq!(browser.text(".eyebrow").await, "d4");
    browser.evaluate(WATCH).await;
    let updated = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(100));
        while browser.evaluate("window.updates").await.as_u64() < Some(UPDATES) {
            looks.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, updated).await.expect("it looks once a second");
    let moved = browser.evaluate("window.moved").await;
    browser.picture("ten-destinations").await;
    note!("moved: {moved:#}");
    posting.abort();
    assert!(moved["sum"].as_f64() < Some(MOST), "{moved:#}");

    let states = cohortd.status().await;
    let needs = ["held", "behind", "paused", "attention"];
    let of = states["destinations"].as_object().expect("a map").values();
    let number = of.filter(|of| needs.contains(&of["state"].as_str().unwrap_or_default())).count();
    let title = browser.evaluate("document.title").await;
    let verb = if number == 1 { "needs" } else { "need" };
    assert_eq!(title, Value::from(format!("{number} of 10 {verb} you · cohortd")));
    browser.is_accessible().await;
    browser.is_content().await;
}

tests![
    of_ten_destinations_the_worst_comes_first_and_nothing_jumps.needs(&CHROMIUM).needs(&PLAYWRIGHT),
];

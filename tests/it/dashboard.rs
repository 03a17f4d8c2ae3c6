//! The dashboard in a real browser, against the running daemon: what a user sees and does, and which errors
//! the browser reports.

mod browser;
pub mod layout;
pub mod manual;
pub mod situations;

use std::time::{Duration, Instant};

use cohortd::sandbox::{StandIn, View};
use cohortd::secret::Secret;
use serde_json::{Value, json};

use self::browser::Browser;
use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, SHARED_SECRET, identify,
    launchdarkly,
};
use crate::needs::{CHROMIUM, PLAYWRIGHT};

/// Event time. It is within the tombstone TTL, which these tests raise.
const NOW_MS: i64 = 1_750_000_000_000;
const MEMORY: &str = "315360000";
/// How soon a change must be visible.
const SOON: Duration = Duration::from_secs(2);

fn address(cohortd: &Cohortd) -> String {
    format!("http://localhost:{}/", cohortd.admin.port())
}

fn installation(launchdarkly: &StandIn) -> Installation {
    let mut installation = Installation::new(launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    installation
}

async fn enter(cohortd: &Cohortd, audience: &str, people: &[&str]) {
    let events: Vec<Value> =
        people.iter().map(|who| identify(who, audience, true, NOW_MS)).collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &people.len().into()), "{answer}");
}

/// A browser, and a daemon that has delivered these members of `vip`.
struct Scene {
    browser: Browser,
    launchdarkly: StandIn,
    installation: Installation,
    cohortd: Cohortd,
}

impl Scene {
    async fn with(people: &[&str]) -> Self {
        let browser = Browser::start();
        let launchdarkly = launchdarkly().await;
        let installation = installation(&launchdarkly);
        let cohortd = installation.start();
        if let Some(last) = people.last() {
            enter(&cohortd, "vip", people).await;
            until_in(&launchdarkly, "vip", last).await;
        }
        Self { browser, launchdarkly, installation, cohortd }
    }
}

async fn until_in(launchdarkly: &StandIn, audience: &str, who: &str) {
    let is_in = |view: &View<'_>| view.has(ENVIRONMENT, &format!("aud_{audience}"), who);
    launchdarkly.until(DEADLINE, is_in).await.expect("they are in");
}

async fn a_hold_and_its_end_are_shown_within_two_seconds() {
    let scene = Scene::with(&["ada"]).await;
    let Scene { browser, launchdarkly, cohortd, .. } = &scene;
    browser.open(&address(cohortd)).await;
    browser.see("h1:text-is('ok')").await;
    browser.see("text=LaunchDarkly has been told, or is being told in time, everything that Segment has sent.").await;

    launchdarkly.revoke(ENVIRONMENT);
    enter(cohortd, "vip", &["bob"]).await;
    let is_refused = |view: &View<'_>| view.calls().refused > 0;
    launchdarkly.until(DEADLINE, is_refused).await.expect("the token is refused");
    let began = Instant::now();
    browser.see("h1:text-is('held')").await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let verdict = browser.text(".verdict").await;
    let status = cohortd.status().await;
    let held = &status["destinations"]["production"]["concerns"][0];
    for word in [
        held["remedy"].as_str().expect("a sentence"),
        "LaunchDarkly refuses the service token",
        "status 401",
        "Nothing is lost: events are accepted and kept; 1 member waits for delivery.",
    ] {
        assert!(verdict.contains(word), "{word}: {verdict}");
    }

    launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN));
    until_in(launchdarkly, "vip", "bob").await;
    let began = Instant::now();
    browser.see("h1:text-is('ok')").await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    browser.is_content().await;
}

async fn a_rejected_event_is_replayed_once_the_mapping_is_mended() {
    let scene = Scene::with(&[]).await;
    let Scene { browser, launchdarkly, mut installation, cohortd } = scene;
    let mut eve = identify("eve", "vip", true, NOW_MS);
    eve["userId"] = Value::Null;
    eve["anonymousId"] = json!("eve-device");
    assert_eq!(cohortd.post(&eve).await.expect("an answer").0, 400);

    browser.open(&address(&cohortd)).await;
    browser.click("role=tab[name='Rejected 1']").await;
    browser.see("text=no_context_key").await;
    browser.click("role=button[name='Replay all']").await;
    browser.see("text=1 event still rejected").await;
    browser.is_content().await;

    // The page stays open during the restart that the new mapping needs.
    installation.set("admin.address", &cohortd.admin.to_string());
    installation.set("destinations.production.mapping.context_key", "user_id_then_anonymousId");
    assert!(cohortd.stop().0.success());
    browser.see("role=alert >> text=Cannot reach the daemon since").await;
    let cohortd = installation.start();
    browser.miss("text=Cannot reach the daemon").await;
    let complaints = browser.complaints().await;
    let of_the_gap = |complaint: &String| complaint.contains("net::ERR_");
    assert!(complaints.iter().all(of_the_gap), "{complaints:#?}");

    browser.click("role=button[name=/^Replay event/]").await;
    browser.see("text=1 event replayed.").await;
    until_in(&launchdarkly, "vip", "eve-device").await;
    browser.see("text=No rejected event is kept.").await;
    browser.is_content().await;
    assert!(cohortd.stop().0.success());
}

async fn the_event_tester_explains_and_sends() {
    let scene = Scene::with(&[]).await;
    let Scene { browser, launchdarkly, cohortd, .. } = &scene;
    browser.open(&format!("{}#production/tester", address(cohortd))).await;
    browser.fill("textarea", "{\"type\":").await;
    browser.click("role=button[name='Explain']").await;
    browser.see("role=alert >> text=This is not JSON").await;

    browser.fill("textarea", &identify("ada", "vip", true, NOW_MS).to_string()).await;
    browser.click("role=button[name='Explain']").await;
    browser.see("text=It would be accepted").await;
    browser.see("text=user ada enters Vip").await;
    assert_eq!(launchdarkly.calls().total, 0, "explaining tells nobody");

    browser.click("role=button[name='Send…']").await;
    browser.click("role=dialog >> role=button[name='Send']").await;
    browser.see("text=Sent: accepted").await;
    until_in(launchdarkly, "vip", "ada").await;

    let mut unclear = identify("ada", "vip", true, NOW_MS);
    unclear["traits"]["vip"] = json!("perhaps");
    browser.fill("textarea", &unclear.to_string()).await;
    browser.click("role=button[name='Explain']").await;
    browser.see("text=It would be rejected").await;
    browser.see(".outcome >> text=membership_unknown").await;
    browser.click("role=button[name='Send…']").await;
    browser.click("role=dialog >> role=button[name='Send']").await;
    browser.see("text=Sent: rejected").await;
    browser.see("role=tab[name='Rejected 1']").await;
    browser.is_content().await;
}

async fn a_persons_memberships_are_shown_and_forgotten() {
    let scene = Scene::with(&["ada", "bob"]).await;
    let Scene { browser, launchdarkly, cohortd, .. } = &scene;
    browser.open(&format!("{}#production/person", address(cohortd))).await;
    browser.fill("[name=key]", "ada").await;
    browser.press("Enter").await;
    browser.see("role=rowheader[name=/Vip/]").await;
    let row = browser.text("tbody tr").await;
    assert!(row.contains("aud_vip") && row.contains("in"), "{row}");
    browser.fill("[name=key]", "nobody").await;
    browser.press("Enter").await;
    browser.see("text=Nobody here has the context key or user id “nobody”.").await;

    browser.fill("[name=key]", "ada").await;
    browser.press("Enter").await;
    browser.see("role=rowheader[name=/Vip/]").await;
    browser.click("role=button[name='Forget a person…']").await;
    browser.click("role=dialog >> role=button[name='Forget']").await;
    browser.see("text=The person is being forgotten.").await;
    let is_out = |view: &View<'_>| {
        !view.has(ENVIRONMENT, "aud_vip", "ada") && view.has(ENVIRONMENT, "aud_vip", "bob")
    };
    launchdarkly.until(DEADLINE, is_out).await.expect("she is taken out");
    browser.is_content().await;
}

async fn delivery_is_steered_and_what_was_refused_is_tried_again() {
    let scene = Scene::with(&[]).await;
    let Scene { browser, launchdarkly, cohortd, .. } = &scene;
    launchdarkly.refuse_members(|user| user.starts_with("bad"));
    enter(cohortd, "vip", &["ada", "bad1", "bad2", "bad3"]).await;
    until_in(launchdarkly, "vip", "ada").await;
    browser.open(&address(cohortd)).await;
    browser.click("role=tab[name='Parked 3']").await;
    browser.click("role=button[name='Discard bad2']").await;
    browser.click("role=dialog >> role=button[name='Discard']").await;
    browser.miss("text=bad2").await;
    launchdarkly.refuse_members(|_| false);
    browser.click("role=button[name='Requeue bad1']").await;
    until_in(launchdarkly, "vip", "bad1").await;
    browser.click("role=button[name='Requeue all']").await;
    until_in(launchdarkly, "vip", "bad3").await;
    browser.see("text=LaunchDarkly has refused no member.").await;

    browser.click("role=button[name='Pause delivery…']").await;
    browser.click("role=dialog >> role=button[name='Pause']").await;
    browser.see("h1:text-is('paused')").await;
    enter(cohortd, "vip", &["dan"]).await;
    browser.see("text=1 member waits for delivery").await;
    browser.click("role=button[name='Resume delivery']").await;
    until_in(launchdarkly, "vip", "dan").await;
    browser.see("h1:text-is('ok')").await;

    browser.click("role=tab[name='Audiences']").await;
    let told = launchdarkly.calls().members;
    browser.click("role=button[name='Manage Vip']").await;
    browser.click("role=button[name='Resync…']").await;
    browser.click("role=dialog >> role=button[name='Resync']").await;
    let again = |view: &View<'_>| view.calls().members == told + 4;
    launchdarkly.until(DEADLINE, again).await.expect("all four are told again");
    browser.click("role=button[name='Manage Vip']").await;
    browser.click("role=button[name='Drop…']").await;
    browser.click("role=dialog >> role=button[name='Drop']").await;
    browser.see("text=No audience yet.").await;
    until_in(launchdarkly, "vip", "ada").await;
    browser.is_content().await;
}

/// With tokens configured: a page without data, which asks for one.
async fn without_a_token_the_page_shows_nothing_and_with_it_nothing_personal_is_left_about() {
    let browser = Browser::start();
    let launchdarkly = launchdarkly().await;
    let mut installation = installation(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["planted-person"]).await;
    until_in(&launchdarkly, "vip", "planted-person").await;
    browser.open(&address(&cohortd)).await;
    browser.see("role=heading[name='Token']").await;
    let bytes = browser.bytes().await;
    assert!(!bytes.contains("production") && !bytes.contains("aud_vip"), "{bytes}");
    browser.fill("[name=token]", "another").await;
    browser.press("Enter").await;
    browser.see("text=The daemon does not accept this token.").await;
    let complaints = browser.complaints().await;
    assert!(
        complaints.iter().all(|complaint| complaint.contains("status of 401")),
        "{complaints:?}"
    );

    browser.fill("[name=token]", "planted-admin-token").await;
    browser.press("Enter").await;
    browser.see("h1:text-is('ok')").await;
    browser.see("role=button[name='Forget the token']").await;
    browser.shape(360, 900, "light").await;
    let reach = browser.evaluate("document.documentElement.scrollWidth").await;
    assert_eq!(reach, 360, "nothing sticks out beside what there is without a token");
    browser.click("role=tab[name='Person']").await;
    browser.fill("[name=key]", "planted-person").await;
    browser.press("Enter").await;
    browser.see("role=rowheader[name=/Vip/]").await;
    browser.click("role=tab[name='Audiences']").await;
    browser.see("role=rowheader[name=/Vip/]").await;
    let left = "JSON.stringify([location.href, {...localStorage}, document.cookie, \
                performance.getEntriesByType('navigation').map((one) => one.name)])";
    let left = browser.evaluate(left).await;
    let bytes = browser.bytes().await;
    for planted in ["planted-person", "planted-admin-token", SERVICE_TOKEN, SHARED_SECRET] {
        assert!(!bytes.contains(planted), "{planted}: {bytes}");
        assert!(!left.to_string().contains(planted), "{planted}: {left}");
    }
    browser.click("role=button[name='Forget the token']").await;
    browser.see("role=heading[name='Token']").await;
    assert_eq!(browser.evaluate("sessionStorage.length").await, 0);
    assert!(!cohortd.log().join("\n").contains("planted-admin-token"));
}

/// With a token for read access: everything but the kept events is shown, and buttons that change something
/// are disabled.
async fn a_token_that_may_only_read_changes_nothing_and_the_page_says_why() {
    let browser = Browser::start();
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|user| user.starts_with("bad"));
    let mut installation = installation(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    installation.set("admin.read_tokens", "planted-read-token");
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["ada", "bad"]).await;
    until_in(&launchdarkly, "vip", "ada").await;
    let mut unclear = identify("gus", "vip", true, NOW_MS);
    unclear["traits"]["vip"] = json!("perhaps");
    assert_eq!(cohortd.post(&unclear).await.expect("an answer").0, 400);
    browser.open(&address(&cohortd)).await;
    browser.fill("[name=token]", "planted-read-token").await;
    browser.press("Enter").await;
    browser.see("text=This token is one of admin.read_tokens").await;
    browser.see("role=button[name='Pause delivery…'][disabled]").await;
    browser.click("role=button[name='Manage Vip']").await;
    browser.see("role=button[name='Drop…'][disabled]").await;
    browser.press("Escape").await;
    browser.click("role=tab[name='Parked 1']").await;
    browser.see("role=button[name='Requeue bad'][disabled]").await;
    browser.see("role=button[name='Discard all…'][disabled]").await;
    browser.click("role=tab[name='Rejected 1']").await;
    browser.see("text=membership_unknown").await;
    browser.see("role=button[name='Replay all'][disabled]").await;
    browser.see("text=its content is shown with one of admin.tokens").await;
    browser.click("role=tab[name='Person']").await;
    browser.see("role=button[name='Forget a person…'][disabled]").await;
    browser.click("role=tab[name='Event tester']").await;
    browser.fill("textarea", &identify("ada", "vip", true, NOW_MS).to_string()).await;
    browser.see("role=button[name='Send…'][disabled]").await;
    browser.click("role=button[name='Explain']").await;
    browser.see("text=It would be accepted").await;
    browser.click("role=tab[name='Actions']").await;
    browser.see("role=button[name='Resync…'][disabled]").await;
    browser.is_accessible().await;
}

async fn it_is_used_by_keyboard() {
    let scene = Scene::with(&["ada"]).await;
    let Scene { browser, cohortd, .. } = &scene;
    browser.open(&address(cohortd)).await;
    browser.see("role=button[name='Manage Vip']").await;
    let focused = "(document.activeElement.getAttribute('aria-label') \
                    ?? document.activeElement.textContent).trim()";
    let mut order = Vec::new();
    for _ in 0..9 {
        browser.press("Tab").await;
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(browser.evaluate(outline).await, "solid", "the focus can be seen");
        order.push(browser.evaluate(focused).await.as_str().expect("a text").to_owned());
    }
    let links = ["what that means", "Throughput", "Waiting", "LaunchDarkly response time"]; // into the manual
    assert_eq!(order[0], "Pause delivery…");
    assert_eq!((&order[1..5], &*order[5]), (&links.map(str::to_owned)[..], "Audiences"));
    assert_eq!(order[8], "Manage Vip");
    browser.press("Enter").await;
    browser.see("role=dialog[name='Vip']").await;
    browser.press("Escape").await;
    browser.miss("role=dialog").await;
    assert_eq!(browser.evaluate(focused).await, "Manage Vip", "the focus comes back");
    for _ in 0..3 {
        browser.press("Shift+Tab").await;
    }
    browser.press("ArrowRight").await;
    browser.see("text=LaunchDarkly has refused no member.").await;
    assert_eq!(browser.evaluate(focused).await, "Parked");
    browser.press("End").await;
    browser.see("role=tab[name='Actions'][selected]").await;
    browser.is_content().await;
}

/// Takes screenshots of everything for review, into the target folder: tmp/dashboard/pictures.
async fn it_is_right_at_both_widths_and_in_both_schemes() {
    let scene = Scene::with(&[]).await;
    let Scene { browser, launchdarkly, cohortd, .. } = &scene;
    launchdarkly.refuse_members(|user| user.starts_with("bad"));
    for (audience, people) in [
        ("high_value_customers", &["ada", "bob", "cyd", "dan", "bad-key"][..]),
        ("cart_abandoners", &["ada", "eve"]),
        ("people_who_opened_the_newsletter_of_the_last_ninety_days_twice", &["fay"]),
    ] {
        enter(cohortd, audience, people).await;
        until_in(launchdarkly, audience, people[0]).await;
    }
    let left = identify("bob", "high_value_customers", false, NOW_MS + 1);
    cohortd.post(&left).await.expect("an answer");
    let mut unclear = identify("gus", "cart_abandoners", true, NOW_MS);
    unclear["traits"]["cart_abandoners"] = json!("perhaps");
    assert_eq!(cohortd.post(&unclear).await.expect("an answer").0, 400);

    browser.open(&address(cohortd)).await;
    browser
        .see("role=img[name='In the last hour 5 entered and 1 left, at most 5 in a minute']")
        .await;
    look_at_all(browser, cohortd, "attention", &PANELS).await;
    launchdarkly.revoke(ENVIRONMENT);
    enter(cohortd, "cart_abandoners", &["hal"]).await;
    browser.see("h1:text-is('held')").await;
    look_at_all(browser, cohortd, "held", &["audiences"]).await;
    browser.is_content().await;
}

const PANELS: [&str; 6] = ["audiences", "parked", "rejected", "person", "tester", "actions"];

async fn look_at_all(browser: &Browser, cohortd: &Cohortd, what: &str, panels: &[&str]) {
    for scheme in ["light", "dark"] {
        for width in [1440, 360] {
            browser.shape(width, 900, scheme).await;
            for panel in panels {
                browser.open(&format!("{}#production/{panel}", address(cohortd))).await;
                prepare(browser, panel).await;
                browser.picture(&format!("{what}-{panel}-{width}-{scheme}")).await;
                let reach = browser.evaluate("document.documentElement.scrollWidth").await;
                assert_eq!(reach, width, "{panel}: nothing sticks out");
                browser.is_accessible().await;
            }
        }
    }
}

/// Brings a panel into a state worth a screenshot.
async fn prepare(browser: &Browser, panel: &str) {
    match panel {
        "audiences" => browser.see("role=button[name='Manage Cart abandoners']").await,
        "parked" => browser.see("text=bad-key").await,
        "rejected" => {
            browser.click("summary").await;
            browser.see("pre").await;
        }
        "person" => {
            browser.fill("[name=key]", "ada").await;
            browser.press("Enter").await;
            browser.see("role=rowheader[name=/Cart abandoners/]").await;
        }
        "tester" => {
            browser.click("role=button[name='Insert a sample']").await;
            browser.click("role=button[name='Explain']").await;
            browser.see("text=It would be accepted").await;
        }
        _ => browser.see("role=button[name='Drop…']").await,
    }
}

/// The data of the charts. Needs no browser: they are counted, and contain no names.
async fn the_last_hour_is_counted_and_names_nobody() {
    let launchdarkly = launchdarkly().await;
    let mut installation = installation(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["planted-person", "planted-other"]).await;
    let mut unclear = identify("planted-person", "vip", true, NOW_MS);
    unclear["traits"]["vip"] = json!("planted-value");
    assert_eq!(cohortd.post(&unclear).await.expect("an answer").0, 400);
    until_in(&launchdarkly, "vip", "planted-person").await;

    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let url = format!("http://{}/api/v1/history", cohortd.admin);
    let refused = client.get(&url).send().await.expect("an answer");
    assert_eq!(refused.status(), 401);
    let sampled = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let request = client.get(&url).bearer_auth("planted-admin-token");
            let text = request.send().await.expect("an answer").text().await.expect("a text");
            let page: Value = serde_json::from_str(&text).expect("JSON");
            if page["destinations"]["production"].is_object() {
                return (text, page);
            }
        }
    };
    let (text, page) = tokio::time::timeout(DEADLINE, sampled).await.expect("it is sampled");
    let of = &page["destinations"]["production"];
    let sum = |series: &str| {
        let values = of[series].as_array().expect("a list").iter();
        values.map(|value| value.as_u64().expect("a number")).sum::<u64>()
    };
    assert_eq!((sum("accepted"), sum("rejected"), sum("delivered")), (2, 1, 2), "{text}");
    assert!(sum("calls") >= 1 && sum("failed_calls") == 0, "{text}");
    let last =
        |series: &str| of["audiences"]["aud_vip"][series].as_array().and_then(|all| all.last());
    assert_eq!((last("joined"), last("left")), (Some(&2.into()), Some(&0.into())), "{text}");
    assert!(!text.contains("planted"), "{text}");
    let after = of["at"][0].as_i64().expect("a time");
    let later = client.get(format!("{url}?destination=other&after={after}"));
    let later = later.bearer_auth("planted-admin-token").send().await.expect("an answer");
    assert_eq!(later.json::<Value>().await.expect("JSON")["destinations"], json!({}));
}

tests![
    a_hold_and_its_end_are_shown_within_two_seconds.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    a_rejected_event_is_replayed_once_the_mapping_is_mended.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    the_event_tester_explains_and_sends.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    a_persons_memberships_are_shown_and_forgotten.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    delivery_is_steered_and_what_was_refused_is_tried_again.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    without_a_token_the_page_shows_nothing_and_with_it_nothing_personal_is_left_about
        .needs(&CHROMIUM)
        .needs(&PLAYWRIGHT),
    a_token_that_may_only_read_changes_nothing_and_the_page_says_why
        .needs(&CHROMIUM)
        .needs(&PLAYWRIGHT),
    it_is_used_by_keyboard.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    it_is_right_at_both_widths_and_in_both_schemes.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    the_last_hour_is_counted_and_names_nobody,
];

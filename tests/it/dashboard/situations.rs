//! Whatever is the matter, the page says the daemon's verdict and what to do, in the daemon's words.

use cohortd::sandbox::{Fault, StandIn};
use serde_json::{Value, json};

use super::browser::Browser;
use super::{NOW_MS, address, enter};
use crate::harness::{Cohortd, Installation, identify, launchdarkly};
use crate::needs::{CHROMIUM, PLAYWRIGHT};

fn says(status: u16, code: &str, message: &str) -> Fault {
    let body = json!({"code": code, "message": message, "id": "answer-7"}).to_string();
    Fault::Answer { status, headers: Vec::new(), body: Some(body) }
}

/// The browser beside a daemon of a situation.
struct Situation<'a> {
    browser: &'a Browser,
    launchdarkly: StandIn,
    installation: Installation,
    cohortd: Cohortd,
}

impl<'a> Situation<'a> {
    async fn of(browser: &'a Browser, fault: Fault, subscribe: &str) -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(move |_| fault.clone());
        let mut installation = Installation::new(&launchdarkly);
        installation.write_config("[delivery]\nmax_batch = 900\n");
        if !subscribe.is_empty() {
            installation.set("destinations.production.mapping.subscribe", subscribe);
        }
        let cohortd = installation.start();
        Self { browser, launchdarkly, installation, cohortd }
    }

    async fn post_to(&self, name: &str, secret: Option<&str>, expected: u16) {
        let event = identify("ada", "vip", true, NOW_MS).to_string();
        let (poster, body) = (self.cohortd.poster(), event.clone());
        let answer = match secret {
            Some(secret) => poster.post_as(secret, name, body, &event).await,
            None => poster.post_to(name, body, &event).await,
        };
        assert_eq!(answer.expect("an answer").0, expected);
    }

    /// Once the daemon says so, the page says this word, every reason and every remedy, and `words`; a
    /// picture is taken. `kind` is of the first concern; empty: there is none.
    async fn is_shown(&self, case: &str, state: &str, kind: &str, words: &[&str]) {
        let of = |status: &Value| status["destinations"]["production"].clone();
        let is_so = |status: &Value| {
            let first = of(status)["concerns"][0]["kind"].as_str().unwrap_or_default().to_owned();
            of(status)["state"] == state && first == kind
        };
        self.cohortd.until_status(is_so).await;
        self.browser.shape(1440, 900, "light").await;
        // Another address than the one before, whose page is another daemon's.
        self.browser.open(&address(&self.cohortd)).await;
        self.browser.see(&format!("h1:text-is('{state}')")).await;
        for part in of(&self.cohortd.status().await)["concerns"].as_array().expect("a list") {
            // Numbers in a reason may grow meanwhile.
            let why = part["why"].as_str().expect("a sentence").split(", ").next();
            let why: String = why.unwrap_or_default().chars().skip(1).collect();
            let remedy = part["remedy"].as_str().expect("a sentence");
            for words in [why.as_str(), remedy] {
                self.browser.see(&format!(".concerns >> text={words}")).await;
            }
            self.browser.see(".todo >> text=What to do:").await;
        }
        for words in words {
            self.browser.see(&format!("main >> text={words}")).await;
        }
        let needs = ["held", "behind", "paused", "attention"].contains(&state);
        let title = self.browser.evaluate("document.title").await;
        let expected = if needs { format!("needs you: {state} · cohortd") } else { String::new() };
        assert!(!needs || title == expected, "{case}: {title}");
        let icon = self.browser.evaluate("document.querySelector('link[rel=icon]').href").await;
        assert!(icon.as_str().is_some_and(|url| url.starts_with("data:image/svg")), "{icon}");
        self.browser.picture(&format!("situation-{}", case.replace(' ', "-"))).await;
        self.browser.is_accessible().await;
        self.browser.is_content().await;
    }
}

async fn what_never_arrives_is_shown_with_what_to_put_into_segment() {
    let browser = Browser::start();
    let entry = "this host’s public address>/segment/production";
    let credential = "X-Signature with one of segment.shared_secrets";

    let scene = Situation::of(&browser, Fault::None, "").await;
    let state = "waiting for the first event";
    scene.is_shown("never an event", state, "", &[entry, credential]).await;

    scene.post_to("production", Some("another"), 401).await;
    let words = [entry, credential, "Last refused", "a signature"];
    scene.is_shown("wrong secret", "attention", "refused", &words).await;
    scene.post_to("production", None, 200).await;
    browser.see("h1:text-is('ok')").await;
    browser.miss(".setup").await;
    browser.see("text=LaunchDarkly has been told, or is being told in time, everything").await;
    assert_eq!(browser.evaluate("document.title").await, "1 destination, ok · cohortd");

    let scene = Situation::of(&browser, Fault::None, "").await;
    scene.post_to("prodution", None, 404).await;
    let words = ["refused at /segment/prodution", "Last refused", entry];
    scene.is_shown("wrong path", "attention", "refused", &words).await;
}

async fn what_comes_and_is_of_no_use_is_shown() {
    let browser = Browser::start();
    let scene = Situation::of(&browser, Fault::None, "type = \"track\"").await;
    scene.post_to("production", None, 200).await;
    scene.is_shown("only ignored", "attention", "only_ignored", &["Ignored", "identify"]).await;

    let scene = Situation::of(&browser, Fault::None, "").await;
    enter(&scene.cohortd, "vip", &["ada"]).await;
    let mut nobody = identify("ada", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    assert_eq!(scene.cohortd.post(&nobody).await.expect("an answer").0, 400);
    scene.is_shown("rejected", "attention", "rejected", &[]).await;

    let scene = Situation::of(&browser, says(400, "invalid_request", "no"), "").await;
    enter(&scene.cohortd, "vip", &["ada"]).await;
    scene.is_shown("parked", "attention", "parked", &[]).await;
}

async fn what_launchdarkly_does_not_take_is_shown_in_its_words() {
    let browser = Browser::start();
    let limited = Fault::Answer {
        status: 429,
        headers: vec![("retry-after".to_owned(), "1".to_owned())],
        body: None,
    };
    let cases = [
        ("held by 401", says(401, "unauthorized", "invalid token"), "held", "held"),
        ("held by approval", says(403, "forbidden", "approval is required"), "held", "held"),
        ("LaunchDarkly down", says(503, "maintenance", "soon"), "behind", "audience_failing"),
        ("rate limited", limited, "behind", "audience_failing"),
        ("conflict", says(409, "key_exists", "it is there"), "behind", "audience_failing"),
    ];
    // All begin now, and are late together.
    let mut scenes = Vec::new();
    for (case, fault, state, kind) in cases {
        let scene = Situation::of(&browser, fault, "").await;
        enter(&scene.cohortd, "vip", &["ada"]).await;
        scenes.push((case, state, kind, scene));
    }
    for (case, state, kind, scene) in &scenes {
        let kept = "Nothing is lost: events are accepted and kept; 1 member waits for delivery.";
        let beside = if *state == "held" { kept } else { "next attempt" };
        scene.is_shown(case, state, kind, &[kept, beside]).await;
        if *state == "held" {
            assert_eq!(browser.evaluate("document.querySelectorAll('progress').length").await, 0);
        }
        scene.launchdarkly.behave();
        browser.see("h1:text-is('ok')").await;
    }
    let (.., conflict) = scenes.last().expect("there are some");
    assert!(!conflict.cohortd.log().is_empty());
}

async fn a_refused_configuration_is_shown_until_it_is_mended() {
    let browser = Browser::start();
    let scene = Situation::of(&browser, Fault::None, "").await;
    enter(&scene.cohortd, "vip", &["ada"]).await;
    scene.installation.write_config("[delivery]\nmax_bacth = 900\n");
    scene.cohortd.until_status(|status| status["configuration"].is_object()).await;
    let words = ["The configuration on disk has been refused since", "max_bacth", "cohortd.toml"];
    scene.is_shown("refused configuration", "ok", "", &words).await;
    scene.installation.write_config("[delivery]\nmax_batch = 900\n");
    browser.miss("text=The configuration on disk has been refused").await;
}

tests![
    what_never_arrives_is_shown_with_what_to_put_into_segment.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    what_comes_and_is_of_no_use_is_shown.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    what_launchdarkly_does_not_take_is_shown_in_its_words.needs(&CHROMIUM).needs(&PLAYWRIGHT),
    a_refused_configuration_is_shown_until_it_is_mended.needs(&CHROMIUM).needs(&PLAYWRIGHT),
];

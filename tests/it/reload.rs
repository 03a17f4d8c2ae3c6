//! A new configuration while the daemon runs: applied as a whole or not at all, and no request fails.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cohortd::sandbox::{Apply, Fault, StandIn, View};
use cohortd::secret::Secret;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, Poster, SERVICE_TOKEN, SHARED_SECRET, identify,
    launchdarkly_with,
};

const NOW_MS: i64 = 1_750_000_000_000;
const OTHER_ENVIRONMENT: &str = "64f0decaf";
const OTHER_TOKEN: &str = "api-other-service-token";
const RELOADED: &str = "configuration reloaded";
const NOT_TAKEN: &str = "configuration refused: the previous one stays in effect";
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A stand-in with two environments, and a daemon whose destination is in the configuration file, with the
/// shared secret and the token in files of their own.
async fn installation() -> (StandIn, Installation) {
    let launchdarkly = launchdarkly_with(&[(OTHER_ENVIRONMENT, OTHER_TOKEN)]).await;
    let mut installation = Installation::new(&launchdarkly);
    for key in [
        "segment.shared_secrets",
        "launchdarkly.client_side_id",
        "launchdarkly.service_token",
        "launchdarkly.base_url",
    ] {
        installation.unset(&format!("destinations.production.{key}"));
    }
    installation.write("segment-secret", SHARED_SECRET);
    installation.write("token", SERVICE_TOKEN);
    (launchdarkly, installation)
}

/// The configuration of the one destination, followed by `rest`.
fn production(launchdarkly: &StandIn, rest: &str) -> String {
    format!(
        "[destinations.production.segment]\nshared_secrets_file = \"segment-secret\"\n\
         [destinations.production.launchdarkly]\nclient_side_id = \"{ENVIRONMENT}\"\n\
         service_token_file = \"token\"\nbase_url = \"{}\"\n{rest}",
        launchdarkly.url()
    )
}

/// The configuration of another destination, for the other environment.
fn other(launchdarkly: &StandIn, enabled: bool) -> String {
    format!(
        "[destinations.other]\nenabled = {enabled}\n[destinations.other.segment]\n\
         shared_secrets = [\"{SHARED_SECRET}\"]\n[destinations.other.launchdarkly]\n\
         client_side_id = \"{OTHER_ENVIRONMENT}\"\nservice_token = \"{OTHER_TOKEN}\"\n\
         base_url = \"{}\"\n",
        launchdarkly.url()
    )
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while !holds() {
            looks.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, looking).await.is_ok(), "never: {what}");
}

/// Does something after which the daemon logs a message once more, and waits for that.
async fn once_more(cohortd: &Cohortd, message: &str, act: impl FnOnce()) {
    let before = cohortd.count_logged(message);
    act();
    until(message, || cohortd.count_logged(message) > before).await;
}

async fn hang_up(cohortd: &Cohortd) {
    once_more(cohortd, RELOADED, || cohortd.signal(Signal::HUP)).await;
}

/// The last line with this message.
fn last_logged(cohortd: &Cohortd, message: &str) -> Value {
    let lines = cohortd.log();
    let parsed = lines.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.into_iter().find(|line| line["message"] == message).expect("it was logged")
}

async fn enter(cohortd: &Cohortd, destination: &str, who: &str) -> u16 {
    let body = identify(who, "vip", true, NOW_MS).to_string();
    let answer = cohortd.post_to(destination, body.clone(), &body).await;
    answer.expect("an answer").0
}

/// Waits well below the interval of anything periodic.
async fn until_in(launchdarkly: &StandIn, environment: &str, who: &str) {
    let there = |view: &View<'_>| view.has(environment, "aud_vip", who);
    launchdarkly.until(DEADLINE / 3, there).await.expect("they are in");
}

/// Posts without a pause, each event for another user, signed with the current secret.
async fn post_until(
    stop: CancellationToken,
    poster: Poster,
    number: usize,
    secrets: Arc<Mutex<Vec<String>>>,
    used: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut everybody = Vec::new();
    while !stop.is_cancelled() {
        let (latest, secret) = {
            let secrets = secrets.lock().expect("no poster panics with it");
            (secrets.len() - 1, secrets.last().expect("there is one").clone())
        };
        let who = format!("poster{number}-{}", everybody.len());
        let body = identify(&who, "vip", true, NOW_MS).to_string();
        let answer = poster.post_as(&secret, "production", body.clone(), &body).await;
        let (status, answer) = answer.expect("no connection breaks");
        assert_eq!(status, 200, "secret {latest}: {answer}");
        used.store(latest, Ordering::SeqCst);
        everybody.push(who);
    }
    everybody
}

async fn under_load_secrets_rotate_without_a_gap_and_no_request_fails() {
    let (launchdarkly, installation) = installation().await;
    let good = production(&launchdarkly, "");
    installation.write_config(&good);
    let cohortd = installation.start();
    let secrets = Arc::new(Mutex::new(vec![SHARED_SECRET.to_owned()]));
    let stop = CancellationToken::new();
    let mut posters = JoinSet::new();
    let mut used = Vec::new();
    for number in 0..6 {
        let latest = Arc::new(AtomicUsize::new(0));
        used.push(Arc::clone(&latest));
        let secrets = Arc::clone(&secrets);
        posters.spawn(post_until(stop.clone(), cohortd.poster(), number, secrets, latest));
    }
    let reloads = || cohortd.count_logged(RELOADED);
    for (round, by_signal) in [(1, false), (2, true), (3, false)] {
        let old = secrets.lock().expect("no poster panics").last().cloned().expect("there is one");
        let new = format!("planted-secret-{round}");
        let write = |text: &str| {
            installation.write("segment-secret", text);
            if by_signal {
                cohortd.signal(Signal::HUP);
            }
        };
        once_more(&cohortd, RELOADED, || write(&format!("{old}\n{new}\n"))).await;
        secrets.lock().expect("no poster panics with it").push(new.clone());
        let all_use = |least| used.iter().all(|latest| latest.load(Ordering::SeqCst) >= least);
        until("every poster uses the new secret", || all_use(round)).await;
        once_more(&cohortd, RELOADED, || write(&format!("{new}\n"))).await;
        let body = identify("nobody", "vip", true, NOW_MS).to_string();
        let stale = cohortd.poster().post_as(&old, "production", body.clone(), &body).await;
        assert_eq!(stale.expect("an answer").0, 401, "the old secret is of no use any more");

        // Meanwhile other keys change, or become faulty.
        once_more(&cohortd, NOT_TAKEN, || installation.write_config("[destinations.production"))
            .await;
        let more = good.clone() + &other(&launchdarkly, true);
        once_more(&cohortd, RELOADED, || installation.write_config(&more)).await;
        assert_eq!(last_logged(&cohortd, RELOADED)["changed"], "destinations.other (added)");
        let faster = format!("{good}[destinations.production.delivery]\nmax_batch = {round}0\n");
        once_more(&cohortd, RELOADED, || installation.write_config(&faster)).await;
        once_more(&cohortd, RELOADED, || installation.write_config(&good)).await;
    }
    stop.cancel();
    let mut everybody = Vec::new();
    while let Some(posted) = posters.join_next().await {
        everybody.extend(posted.expect("no request failed"));
    }
    note!("{} requests, {} reloads, none failed", everybody.len(), reloads());
    assert!(everybody.len() > 100, "there was a load: {}", everybody.len());
    let all_in = |view: &View<'_>| {
        let members = view.segment(ENVIRONMENT, "aud_vip").map(|of| &of.members);
        members.is_some_and(|members| everybody.iter().all(|who| members.contains(who)))
    };
    launchdarkly.until(DEADLINE, all_in).await.expect("what was accepted is delivered");
    assert_eq!(launchdarkly.overlaps(), 0);
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("planted")), "secrets stay");
}

async fn a_configuration_with_faults_changes_nothing_and_all_of_them_are_said() {
    let (launchdarkly, installation) = installation().await;
    let good = production(&launchdarkly, "");
    installation.write_config(&good);
    let cohortd = installation.start();
    installation.write("segment-secret", "another");
    let faulty = good.clone() + "colour = 1\n[delivery]\nmax_batch = 0\n[admin]\nname = \"x\"\n";
    once_more(&cohortd, NOT_TAKEN, || installation.write_config(&faulty)).await;
    let line = last_logged(&cohortd, NOT_TAKEN);
    let at_start = installation.types(None, &["run"]);
    assert_eq!((at_start.code, line["level"].as_str()), (64, Some("ERROR")));
    assert!(at_start.complaint.starts_with("config: 3 problems\n"), "{}", at_start.complaint);
    assert_eq!(line["problems"], at_start.complaint.trim_end(), "the same text as at the start");
    assert_eq!(enter(&cohortd, "production", "ada").await, 200, "the secret of before");

    // `cohortd reload` reads the daemon's address from the file, so it must be given a valid one.
    let elsewhere = installation.directory.path().join("elsewhere.toml");
    std::fs::write(&elsewhere, &good).expect("it is ours");
    let reload = ["--config", "elsewhere.toml", "reload"];
    let refused = installation.types(Some(cohortd.admin), &reload);
    assert_eq!(refused.code, 64);
    assert!(refused.complaint.contains("config: 3 problems"), "{}", refused.complaint);

    // A file that is named but does not exist yet is waited for.
    let early = good.clone() + "[admin]\ntokens_file = \"admin\"\n";
    once_more(&cohortd, NOT_TAKEN, || installation.write_config(&early)).await;
    once_more(&cohortd, RELOADED, || installation.write("admin", "planted-admin")).await;
    assert_eq!(enter(&cohortd, "production", "ada").await, 401, "the secret has changed with it");
    let unchanged = "the configuration is unchanged";
    once_more(&cohortd, unchanged, || cohortd.signal(Signal::HUP)).await;
    assert_eq!(last_logged(&cohortd, unchanged)["level"], "DEBUG");
    assert_eq!(cohortd.count_logged(RELOADED), 1);
}

async fn destinations_come_and_go_and_what_is_kept_of_them_stays() {
    let (launchdarkly, installation) = installation().await;
    let alone = production(&launchdarkly, "");
    installation.write_config(&alone);
    let cohortd = installation.start();
    assert_eq!(enter(&cohortd, "other", "ada").await, 404);

    installation.write_config(&(alone.clone() + &other(&launchdarkly, true)));
    hang_up(&cohortd).await;
    assert_eq!(enter(&cohortd, "other", "ada").await, 200);
    until_in(&launchdarkly, OTHER_ENVIRONMENT, "ada").await;
    let status = cohortd.status().await;
    assert_eq!(status["destinations"]["other"]["state"], "ok", "{status}");
    let counted = "cohortd_events_accepted_total{destination=\"other\"}";
    let present = [
        "cohortd_last_event_timestamp_seconds{destination=\"other\"}",
        "cohortd_last_delivery_timestamp_seconds{destination=\"other\"}",
        "cohortd_calls_in_flight{destination=\"other\"}",
        "cohortd_destination_state{destination=\"other\"",
    ];
    let metrics = cohortd.metrics("*/*").await.1;
    assert!(present.iter().chain([&counted]).all(|of| metrics.contains(of)), "{metrics}");

    installation.write_config(&(alone.clone() + &other(&launchdarkly, false)));
    hang_up(&cohortd).await;
    assert_eq!(enter(&cohortd, "other", "bob").await, 503, "it is disabled");
    installation.write_config(&(alone.clone() + &other(&launchdarkly, true)));
    hang_up(&cohortd).await;
    launchdarkly.script(|_| Fault::status(503));
    assert_eq!(enter(&cohortd, "other", "bob").await, 200);

    installation.write_config(&alone);
    hang_up(&cohortd).await;
    assert_eq!(last_logged(&cohortd, RELOADED)["changed"], "destinations.other (removed)");
    let metrics = cohortd.metrics("*/*").await.1;
    assert!(metrics.contains(counted), "a counter never goes back: {metrics}");
    assert!(!present.iter().any(|of| metrics.contains(of)), "nobody waits for it: {metrics}");
    launchdarkly.behave();
    assert_eq!(enter(&cohortd, "other", "cyd").await, 404);
    assert_eq!(enter(&cohortd, "production", "ada").await, 200);
    until_in(&launchdarkly, ENVIRONMENT, "ada").await;
    let audiences = installation.types(Some(cohortd.admin), &["audiences", "--json"]).done();
    let audiences: Value = serde_json::from_str(&audiences).expect("JSON");
    let of_other = |of: &&Value| of["destination"] == "other";
    let kept = audiences.as_array().expect("a list").iter().find(of_other).expect("it is shown");
    assert_eq!((&kept["configured"], &kept["pending"]), (&false.into(), &1.into()), "{kept}");
    assert!(!launchdarkly.look(|view| view.has(OTHER_ENVIRONMENT, "aud_vip", "bob")));
    let left = &cohortd.status().await["unconfigured"][0];
    assert_eq!((&left["name"], &left["pending"]), (&"other".into(), &1.into()), "{left}");
    let said = installation.types(Some(cohortd.admin), &["status"]).done();
    assert!(said.contains("other IS NOT CONFIGURED any more: 2 of its members"), "{said}");

    installation.write_config(&(alone + &other(&launchdarkly, true)));
    hang_up(&cohortd).await;
    until_in(&launchdarkly, OTHER_ENVIRONMENT, "bob").await;
    assert_eq!(launchdarkly.overlaps(), 0);
    assert!(cohortd.stop().0.success());
}

async fn a_new_token_ends_a_hold_at_once() {
    let (launchdarkly, mut installation) = installation().await;
    // So long that only the change can end the wait.
    installation.set("delivery.retry_floor_ms", "3600000");
    installation.set("delivery.retry_ceiling_ms", "3600000");
    // As Kubernetes mounts a secret.
    let folder = installation.directory.path().to_owned();
    for (version, token) in [("..1", SERVICE_TOKEN), ("..2", "api-planted-next-token")] {
        std::fs::create_dir(folder.join(version)).expect("it is ours");
        std::fs::write(folder.join(version).join("token"), token).expect("it is ours");
    }
    symlink("..1", folder.join("..data")).expect("it is ours");
    std::fs::remove_file(folder.join("token")).expect("it is ours");
    symlink("..data/token", folder.join("token")).expect("it is ours");
    installation.write_config(&production(&launchdarkly, ""));
    let cohortd = installation.start();
    assert_eq!(enter(&cohortd, "production", "ada").await, 200);
    until_in(&launchdarkly, ENVIRONMENT, "ada").await;

    launchdarkly.set_token(ENVIRONMENT, Secret::new("api-planted-next-token"));
    assert_eq!(enter(&cohortd, "production", "bob").await, 200);
    cohortd.until_status(|status| status["destinations"]["production"]["state"] == "held").await;
    symlink("..2", folder.join("..data_tmp")).expect("it is ours");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("it is ours");
    until_in(&launchdarkly, ENVIRONMENT, "bob").await;
    cohortd.until_status(|status| status["destinations"]["production"]["state"] == "ok").await;
    let changed = "destinations.production.launchdarkly.service_token_file";
    assert_eq!(last_logged(&cohortd, RELOADED)["changed"], changed);
}

async fn another_environment_is_told_everything_that_the_one_before_was() {
    let (launchdarkly, installation) = installation().await;
    installation.write_config(&production(&launchdarkly, ""));
    let cohortd = installation.start();
    for who in ["ada", "bob"] {
        assert_eq!(enter(&cohortd, "production", who).await, 200);
        until_in(&launchdarkly, ENVIRONMENT, who).await;
    }
    // The call in flight during the change is answered by the previous environment.
    launchdarkly.set_latency(Duration::from_millis(300));
    let before = launchdarkly.calls().total;
    assert_eq!(enter(&cohortd, "production", "cyd").await, 200);
    let under_way = |view: &View<'_>| view.calls().total > before;
    launchdarkly.until(DEADLINE, under_way).await.expect("it is called");
    let toml = production(&launchdarkly, "").replace(ENVIRONMENT, OTHER_ENVIRONMENT);
    installation.write("token", OTHER_TOKEN);
    installation.write_config(&toml);
    hang_up(&cohortd).await;
    for who in ["ada", "bob", "cyd"] {
        until_in(&launchdarkly, OTHER_ENVIRONMENT, who).await;
    }
    assert_eq!(enter(&cohortd, "production", "dan").await, 200);
    until_in(&launchdarkly, OTHER_ENVIRONMENT, "dan").await;
    let segments = launchdarkly.segments(ENVIRONMENT);
    let members: Vec<&str> = segments["aud_vip"].members.iter().map(String::as_str).collect();
    assert_eq!(members, ["ada", "bob", "cyd"]);
    assert_eq!(launchdarkly.overlaps(), 0);
    assert!(cohortd.stop().0.success());
}

async fn a_change_loses_no_call_that_is_under_way() {
    let (launchdarkly, mut installation) = installation().await;
    installation.set("delivery.request_timeout_ms", "2000");
    installation.write_config(&production(&launchdarkly, ""));
    let cohortd = installation.start();
    launchdarkly.script(|call| match call.call_number {
        1 => Fault::Hang { apply: Apply::Now },
        _ => Fault::None,
    });
    assert_eq!(enter(&cohortd, "production", "ada").await, 200);
    let called = |view: &View<'_>| view.calls().total == 1;
    launchdarkly.until(DEADLINE, called).await.expect("it is called");
    let changed = production(
        &launchdarkly,
        "[destinations.production.delivery]\nlinger_ms = 5\nconcurrency = 2\n",
    );
    installation.write_config(&changed);
    hang_up(&cohortd).await;
    assert_eq!(launchdarkly.calls().total, 1, "the call of before is still out");
    let exited = identify("ada", "vip", false, NOW_MS + 1);
    assert_eq!(cohortd.post(&exited).await.expect("an answer").0, 200);
    installation.drained().await;
    assert!(!launchdarkly.look(|view| view.has(ENVIRONMENT, "aud_vip", "ada")));
    assert_eq!(launchdarkly.overlaps(), 0, "the next call waits for the one before (P3)");
}

async fn level_and_admin_tokens_are_applied_and_what_is_not_is_named() {
    let (launchdarkly, mut installation) = installation().await;
    installation.unset("log.level");
    installation.write("admin-token", "planted-one");
    let admin = "[admin]\ntokens_file = \"admin-token\"\n";
    installation.write_config(&production(&launchdarkly, admin));
    let cohortd = installation.start();
    let types = |token: &str, words: &[&str]| {
        let mut installation = Installation::new(&launchdarkly);
        installation.set("admin.tokens", token);
        installation.types(Some(cohortd.admin), words)
    };
    assert_eq!(types("planted-one", &["status"]).code, 0);

    let rest = format!("{admin}[log]\nlevel = \"warn\"\n[ledger]\ncache_mib = 33\n");
    installation.write("admin-token", "planted-two");
    installation.write_config(&production(&launchdarkly, &rest));
    let reloaded = types("planted-one", &["reload", "--json"]).done();
    let reloaded: Value = serde_json::from_str(&reloaded).expect("JSON");
    let expected = serde_json::json!({
        "changed": ["admin.tokens_file", "log.level"], "needs_restart": ["ledger.cache_mib"],
    });
    assert_eq!(reloaded, expected);
    assert_eq!(types("planted-one", &["status"]).code, 64, "the old token is of no use any more");
    let printed = types("planted-two", &["reload"]).done();
    assert_eq!(printed, "needs a restart  ledger.cache_mib\n", "until it is started again");
    let line = last_logged(&cohortd, "some changed keys take effect only after a restart");
    assert_eq!((&line["keys"], &line["level"]), (&"ledger.cache_mib".into(), &"WARN".into()));
    assert_eq!(enter(&cohortd, "production", "ada").await, 200);
    until_in(&launchdarkly, ENVIRONMENT, "ada").await;
    installation.drained().await;
    assert_eq!(cohortd.count_logged("delivered"), 0, "it is below the level");

    installation.write_config(&production(&launchdarkly, &rest.replace("cache_mib = 33\n", "")));
    let printed = types("planted-two", &["reload"]).done();
    assert_eq!(printed, "nothing has changed\n", "as it runs");
}

/// The configuration in effect is unchanged, but the faulty one is shown until it is repaired.
async fn a_refused_configuration_is_shown_until_a_good_one_is_read() {
    let (launchdarkly, installation) = installation().await;
    let good = production(&launchdarkly, "");
    installation.write_config(&good);
    let cohortd = installation.start();
    let has = async |line: &str| {
        let metrics = cohortd.metrics("*/*").await.1;
        assert!(metrics.lines().any(|of| of == line), "{line} in {metrics}");
    };
    assert!(cohortd.status().await["configuration"].is_null());
    has("cohortd_config_refused 0.0").await;
    for outcome in ["applied", "refused", "unchanged"] {
        has(&format!("cohortd_config_reloads_total{{outcome=\"{outcome}\"}} 0")).await;
    }

    let broken = good.clone() + "colour = 1\n[delivery]\nmax_batch = 0\n";
    once_more(&cohortd, NOT_TAKEN, || installation.write_config(&broken)).await;
    let shown = cohortd.until_status(|status| !status["configuration"].is_null()).await;
    let shown = &shown["configuration"];
    let file = shown["file"].as_str().expect("it has a file");
    assert!(file.ends_with("cohortd.toml"), "{shown}");
    let faults: Vec<&str> =
        shown["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(faults.len(), 2, "{shown}");
    assert!(faults.iter().any(|fault| fault.starts_with("delivery.max_batch = 0")), "{shown}");
    let since = shown["refused_since"].clone();
    assert!(since.is_string(), "{shown}");
    has("cohortd_config_refused 1.0").await;
    once_more(&cohortd, NOT_TAKEN, || cohortd.signal(Signal::HUP)).await;
    let refused_twice = "cohortd_config_reloads_total{outcome=\"refused\"} 2";
    has(refused_twice).await;
    assert_eq!(cohortd.status().await["configuration"]["refused_since"], since, "since then");

    // repaired to exactly what is in effect
    let unchanged = "the configuration is unchanged";
    once_more(&cohortd, unchanged, || installation.write_config(&good)).await;
    cohortd.until_status(|status| status["configuration"].is_null()).await;
    has("cohortd_config_refused 0.0").await;
    has("cohortd_config_reloads_total{outcome=\"unchanged\"} 1").await;
    let other = good + &other(&launchdarkly, true);
    once_more(&cohortd, NOT_TAKEN, || installation.write_config("[")).await;
    once_more(&cohortd, RELOADED, || installation.write_config(&other)).await;
    cohortd.until_status(|status| status["configuration"].is_null()).await;
    has("cohortd_config_reloads_total{outcome=\"applied\"} 1").await;
    assert!(cohortd.stop().0.success());
}

/// More members than are marked in one slice, so that some are still left.
async fn after_a_change_of_environment_everybody_counts_as_waiting_at_once() {
    const EVERYBODY: u64 = 7000;
    let (launchdarkly, installation) = installation().await;
    installation.write_config(&production(&launchdarkly, ""));
    let cohortd = installation.start();
    let people: Vec<String> = (0..EVERYBODY).map(|number| format!("user{number:05}")).collect();
    for part in people.chunks(1000) {
        let events: Vec<Value> =
            part.iter().map(|who| identify(who, "vip", true, NOW_MS)).collect();
        assert_eq!(cohortd.post_batch(&events).await.expect("an answer").0, 200);
    }
    let all_in = |view: &View<'_>| {
        let of = view.segment(ENVIRONMENT, "aud_vip");
        of.is_some_and(|of| of.members.len() as u64 == EVERYBODY)
    };
    launchdarkly.until(DEADLINE, all_in).await.expect("they are in");
    installation.drained().await;

    launchdarkly.script(|_| Fault::status(503));
    let toml = production(&launchdarkly, "").replace(ENVIRONMENT, OTHER_ENVIRONMENT);
    installation.write("token", OTHER_TOKEN);
    installation.write_config(&toml);
    hang_up(&cohortd).await;
    let counted = |status: &Value| {
        let of = &status["destinations"]["production"];
        let number = |key: &str| of[key].as_u64().unwrap_or_else(|| panic!("{key} of {status}"));
        (number("waiting"), number("pending"))
    };
    for _ in 0..20 {
        let status = cohortd.status().await;
        let (waiting, pending) = counted(&status);
        assert!(pending >= EVERYBODY, "{status}");
        assert!(waiting >= EVERYBODY - 4 * 1000, "all but those in a call: {status}");
        assert!(status["destinations"]["production"]["oldest_pending_ms"].is_number());
    }
    launchdarkly.behave();
    let all_in = |view: &View<'_>| {
        let of = view.segment(OTHER_ENVIRONMENT, "aud_vip");
        of.is_some_and(|of| of.members.len() as u64 == EVERYBODY)
    };
    launchdarkly.until(DEADLINE, all_in).await.expect("they are told");
    installation.drained().await;
    let nobody_waits = |status: &Value| {
        let of = &status["destinations"]["production"];
        of["waiting"] == 0 && of["pending"] == 0
    };
    cohortd.until_status(nobody_waits).await;
    assert!(cohortd.stop().0.success());
}

tests![
    under_load_secrets_rotate_without_a_gap_and_no_request_fails,
    a_configuration_with_faults_changes_nothing_and_all_of_them_are_said,
    destinations_come_and_go_and_what_is_kept_of_them_stays,
    a_new_token_ends_a_hold_at_once,
    another_environment_is_told_everything_that_the_one_before_was,
    a_change_loses_no_call_that_is_under_way,
    level_and_admin_tokens_are_applied_and_what_is_not_is_named,
    a_refused_configuration_is_shown_until_a_good_one_is_read,
    after_a_change_of_environment_everybody_counts_as_waiting_at_once,
];

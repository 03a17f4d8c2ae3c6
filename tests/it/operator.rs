//! The operator's verbs, typed as commands against the running daemon (P7: whatever was not applied
//! can be seen, fixed and tried again), and what the admin API says to those who ask it otherwise.

use cohortd::sandbox::{Fault, StandIn, View};
use serde_json::{Value, json};

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, Typed, identify, launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;
/// Events are of a time that the daemon still remembers leavers of.
const MEMORY: &str = "315360000";

/// A daemon with three people in `vip`, delivered.
async fn running() -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["ada", "bob", "cyd"]).await;
    until_members(&launchdarkly, "vip", &["ada", "bob", "cyd"]).await;
    installation.drained().await;
    (launchdarkly, installation, cohortd)
}

async fn enter(cohortd: &Cohortd, audience: &str, people: &[&str]) {
    let events: Vec<Value> =
        people.iter().map(|who| identify(who, audience, true, NOW_MS)).collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &people.len().into()), "{answer}");
}

async fn until_members(launchdarkly: &StandIn, audience: &str, people: &[&str]) {
    let (audience, wanted) = (format!("aud_{audience}"), people);
    let as_wanted = |view: &View<'_>| {
        view.segment(ENVIRONMENT, &audience)
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(wanted.iter().copied()))
    };
    launchdarkly.until(DEADLINE, as_wanted).await.expect("they are in");
}

fn type_in(installation: &Installation, cohortd: &Cohortd, words: &[&str]) -> Typed {
    installation.types(Some(cohortd.admin), words)
}

/// What a command says with `--json`.
fn said(installation: &Installation, cohortd: &Cohortd, words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
    let out = type_in(installation, cohortd, &words).done();
    serde_json::from_str(&out).expect("one JSON value")
}

async fn audiences_and_members_are_shown_with_what_should_be_and_what_is_known() {
    let (launchdarkly, installation, cohortd) = running().await;
    launchdarkly.script(|_| Fault::status(503));
    cohortd.post(&identify("bob", "vip", false, NOW_MS + 1)).await.expect("an answer");
    let known = said(&installation, &cohortd, &["audiences", "production"]);
    let [vip] = &known.as_array().expect("a list")[..] else { panic!("one audience: {known}") };
    assert_eq!(
        (&vip["audience"], &vip["included"], &vip["pending"]),
        (&"aud_vip".into(), &2.into(), &1.into())
    );
    assert!(vip["pending_since"].is_string());
    let table = type_in(&installation, &cohortd, &["audiences"]).done();
    assert!(table.contains("production"), "{table}");

    let bob = said(&installation, &cohortd, &["member", "production", "bob"]);
    assert_eq!(
        (&bob[0]["included"], &bob[0]["told"], &bob[0]["pending"]),
        (&false.into(), &true.into(), &true.into())
    );
    let shown = type_in(&installation, &cohortd, &["member", "production", "bob"]).done();
    assert!(shown.contains("in (waits)"), "{shown}");
    let nobody = type_in(&installation, &cohortd, &["member", "production", "eve"]).done();
    assert!(nobody.contains("knows nobody"), "{nobody}");
    let unknown = type_in(&installation, &cohortd, &["audiences", "staging"]);
    assert_eq!(unknown.code, 64);
    assert!(unknown.complaint.contains("no destination staging"), "{}", unknown.complaint);
}

async fn lists_come_in_parts_that_say_where_they_go_on() {
    let (_launchdarkly, installation, cohortd) = running().await;
    for audience in ["beta", "gamma"] {
        enter(&cohortd, audience, &["ada"]).await;
    }
    installation.drained().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let base = format!("http://{}/api/v1/destinations/production", cohortd.admin);
    for list in ["audiences", "members/ada"] {
        let (mut url, mut seen) = (format!("{base}/{list}?limit=2"), Vec::new());
        loop {
            let answer = client.get(&url).send().await.expect("an answer");
            let next =
                answer.headers().get("link").map(|link| link.to_str().expect("text").to_owned());
            let part: Vec<Value> = answer.json().await.expect("a list");
            assert!(part.len() <= 2);
            seen.extend(part.iter().map(|item| item["audience"].clone()));
            let Some(next) = next else { break };
            let query = next.strip_prefix('<').and_then(|next| next.split_once('>'));
            url = format!("{base}/{list}{}", query.expect("a link").0);
        }
        assert_eq!(seen, ["aud_beta", "aud_gamma", "aud_vip"], "{list}");
    }
}

async fn parked_members_are_listed_requeued_and_discarded() {
    let (launchdarkly, installation, cohortd) = running().await;
    launchdarkly.refuse_members(|user| user.starts_with("bad"));
    enter(&cohortd, "vip", &["bad1", "bad2", "dan"]).await;
    until_members(&launchdarkly, "vip", &["ada", "bob", "cyd", "dan"]).await;
    installation.drained().await;
    let list = type_in(&installation, &cohortd, &["parked", "list", "--json"]).done();
    let parked: Vec<Value> =
        list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(parked.len(), 2, "{list}");
    assert!(parked.iter().all(|one| one["answer_id"].as_str().is_some_and(|id| !id.is_empty())));
    assert_eq!(said(&installation, &cohortd, &["audiences"])[0]["parked"], 2);

    let vague = type_in(&installation, &cohortd, &["parked", "discard"]);
    assert_eq!(vague.code, 64, "{}", vague.complaint);
    let one = ["parked", "discard", "--audience", "aud_vip", "--key", "bad2"];
    assert_eq!(said(&installation, &cohortd, &one)["count"], 1);
    launchdarkly.refuse_members(|_| false);
    assert_eq!(said(&installation, &cohortd, &["parked", "requeue"])["count"], 1);
    until_members(&launchdarkly, "vip", &["ada", "bad1", "bob", "cyd", "dan"]).await;
    installation.drained().await;
    let list = type_in(&installation, &cohortd, &["parked", "list"]).done();
    assert!(list.contains("has refused no member"), "{list}");
}

async fn rejected_events_are_replayed_through_the_present_mapping() {
    let (launchdarkly, mut installation, cohortd) = running().await;
    let mut eve = identify("eve", "vip", true, NOW_MS);
    eve["userId"] = Value::Null;
    eve["anonymousId"] = json!("eve-device");
    let mut later = eve.clone();
    (later["anonymousId"], later["traits"]["vip"]) = (json!("cyd-device"), json!("perhaps"));
    assert_eq!(cohortd.post(&eve).await.expect("an answer").0, 400);
    assert_eq!(cohortd.post(&later).await.expect("an answer").0, 400);
    let before = said(&installation, &cohortd, &["rejected", "replay"]);
    assert_eq!(
        (&before["replayed"], before["rejected"].as_array().map(Vec::len)),
        (&0.into(), Some(2))
    );
    assert!(cohortd.stop().0.success());

    installation.set("destinations.production.mapping.context_key", "user_id_then_anonymousId");
    let cohortd = installation.start();
    let after = said(&installation, &cohortd, &["rejected", "replay"]);
    assert_eq!(after["replayed"], 1, "{after}");
    let reason = after["rejected"][0]["reason"].as_str().expect("a text");
    assert!(reason.starts_with("membership_unknown"), "{reason}");
    until_members(&launchdarkly, "vip", &["ada", "bob", "cyd", "eve-device"]).await;
    let list = type_in(&installation, &cohortd, &["rejected", "list"]).done();
    assert_eq!(list.lines().count(), 2, "one is still kept: {list}");
    assert_eq!(said(&installation, &cohortd, &["rejected", "discard", "--all"])["count"], 1);
}

/// Each is as large as an event may be: not all of them are in memory at once (P6).
async fn large_rejected_events_are_listed_replayed_and_discarded_in_flat_memory() {
    const EVENTS: usize = 60;
    let (_launchdarkly, installation, cohortd) = running().await;
    let mut large = identify("", "vip", true, NOW_MS);
    (large["userId"], large["padding"]) = (Value::Null, "x".repeat(1_000_000).into());
    for _ in 0..EVENTS {
        assert_eq!(cohortd.post(&large).await.expect("an answer").0, 400);
    }
    let before = cohortd.memory_kib("VmHWM:");
    let list = type_in(&installation, &cohortd, &["rejected", "list", "--json"]).done();
    assert_eq!(list.lines().count(), EVENTS);
    let replayed = said(&installation, &cohortd, &["rejected", "replay"]);
    assert_eq!(replayed["rejected"].as_array().map(Vec::len), Some(EVENTS));
    let grown = cohortd.memory_kib("VmHWM:").saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB more");
    let discarded = said(&installation, &cohortd, &["rejected", "discard", "--all"]);
    assert_eq!(discarded["count"], EVENTS);
}

async fn a_replay_of_what_is_older_than_the_tombstones_needs_force() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let mut eve = identify("eve", "vip", true, NOW_MS);
    eve["userId"] = Value::Null;
    eve["anonymousId"] = json!("eve-device");
    assert_eq!(cohortd.post(&eve).await.expect("an answer").0, 400);
    assert!(cohortd.stop().0.success());
    installation.set("destinations.production.mapping.context_key", "user_id_then_anonymousId");
    let cohortd = installation.start();
    let refused = type_in(&installation, &cohortd, &["rejected", "replay"]).done();
    assert!(refused.contains("--force"), "{refused}");
    let forced = said(&installation, &cohortd, &["rejected", "replay", "--force"]);
    assert_eq!(forced["replayed"], 1);
    until_members(&launchdarkly, "vip", &["eve-device"]).await;
}

async fn a_resync_tells_everybody_again() {
    let (launchdarkly, installation, cohortd) = running().await;
    let calls = launchdarkly.calls().total;
    let told = type_in(&installation, &cohortd, &["resync", "aud_vip"]).done();
    assert!(told.contains("1 audience(s)"), "{told}");
    let again = |view: &View<'_>| view.calls().members == 6;
    launchdarkly.until(DEADLINE, again).await.expect("all three are told again");
    installation.drained().await;
    assert_eq!(launchdarkly.calls().total, calls + 1, "one call for three members");
    let unknown = type_in(&installation, &cohortd, &["resync", "aud_other"]);
    assert_eq!(unknown.code, 64);
    assert!(unknown.complaint.contains("no audience aud_other"), "{}", unknown.complaint);
    assert_eq!(said(&installation, &cohortd, &["resync", "--all", "--stop"])["count"], 1);
}

async fn a_paused_destination_keeps_events_across_a_restart_until_it_is_resumed() {
    let (launchdarkly, installation, cohortd) = running().await;
    type_in(&installation, &cohortd, &["pause", "production"]).done();
    enter(&cohortd, "vip", &["dan"]).await;
    let state = |status: &Value| status["destinations"]["production"]["state"].clone();
    assert_eq!(state(&cohortd.status().await), "paused");
    let calls = launchdarkly.calls().total;
    assert!(cohortd.stop().0.success());
    let cohortd = installation.start();
    assert_eq!(state(&cohortd.status().await), "paused");
    let shown = type_in(&installation, &cohortd, &["status"]).done();
    assert!(shown.contains("an operator has paused delivery"), "{shown}");
    enter(&cohortd, "vip", &["eve"]).await;
    assert_eq!(launchdarkly.calls().total, calls);
    type_in(&installation, &cohortd, &["resume", "production"]).done();
    until_members(&launchdarkly, "vip", &["ada", "bob", "cyd", "dan", "eve"]).await;
    assert_eq!(state(&cohortd.status().await), "ok");
}

async fn a_forgotten_person_leaves_every_audience_and_every_list() {
    let (launchdarkly, installation, cohortd) = running().await;
    enter(&cohortd, "beta", &["ada"]).await;
    until_members(&launchdarkly, "beta", &["ada"]).await;
    let mut unclear = identify("ada", "beta", true, NOW_MS);
    unclear["traits"]["beta"] = json!("perhaps");
    assert_eq!(cohortd.post(&unclear).await.expect("an answer").0, 400);
    type_in(&installation, &cohortd, &["forget", "production", "ada"]).done();
    until_members(&launchdarkly, "vip", &["bob", "cyd"]).await;
    until_members(&launchdarkly, "beta", &[]).await;
    installation.drained().await;
    assert_eq!(said(&installation, &cohortd, &["member", "production", "ada"]), json!([]));
    let rejected = type_in(&installation, &cohortd, &["rejected", "list", "--json"]).done();
    assert_eq!(rejected, "");
    assert!(cohortd.stop().0.success());
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["ada"]).await; // an older event, sent again
    installation.drained().await;
    assert_eq!(said(&installation, &cohortd, &["member", "production", "ada"]), json!([]));
}

/// A deletion as Segment sends it, of somebody whom LaunchDarkly takes no more, parked and rejected too.
async fn a_deletion_whose_removal_is_refused_is_parked_until_it_is_told() {
    let (launchdarkly, installation, cohortd) = running().await;
    launchdarkly.refuse_members(|user| user == "ada");
    enter(&cohortd, "beta", &["ada", "dan"]).await;
    until_members(&launchdarkly, "beta", &["dan"]).await;
    installation.drained().await;
    let parked = || type_in(&installation, &cohortd, &["parked", "list", "--json"]).done();
    assert_eq!(parked().lines().count(), 1, "{}", parked());
    let deletion = json!({"type": "delete", "userId": "ada"});
    let (status, answer) = cohortd.post(&deletion).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &1.into()));
    installation.drained().await;
    // she never was in one of the two segments, and is still in the other one
    let left = said(&installation, &cohortd, &["member", "production", "ada"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!((&left[0]["audience"], &left[0]["parked"]), (&"aud_vip".into(), &true.into()));
    assert_eq!(parked().lines().count(), 1, "{}", parked());
    let status = &cohortd.status().await["destinations"]["production"];
    assert_eq!(status["state"], "attention", "{status}");
    assert!(!cohortd.log().join("\n").contains("destination held"), "it was her alone");

    launchdarkly.refuse_members(|_| false);
    type_in(&installation, &cohortd, &["parked", "requeue"]).done();
    until_members(&launchdarkly, "vip", &["bob", "cyd"]).await;
    installation.drained().await;
    assert_eq!(said(&installation, &cohortd, &["member", "production", "ada"]), json!([]));
    assert_eq!(parked(), "");
}

/// Whoever asks at night may stand anywhere, and may not read the secrets of the daemon; and somebody may
/// be in the middle of editing the file.
async fn operators_ask_from_anywhere_and_beside_a_broken_configuration() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    let url = format!("http://{}", cohortd.admin);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let typed = |words: &[&str], variables: &[(&str, &str)]| {
        let mut line = installation.line(None, words);
        line.env_clear().current_dir(elsewhere.path()).envs(variables.iter().copied());
        let output = line.output().expect("the binary runs");
        let complaint = String::from_utf8(output.stderr).expect("text");
        (output.status.code().expect("it ends"), complaint)
    };
    std::fs::write(elsewhere.path().join("token"), "planted-admin-token\n").expect("it is ours");
    let token = ("COHORTD_ADMIN__TOKENS_FILE", "token");
    for words in [&["status"][..], &["audiences"], &["pause"], &["resume"], &["parked", "list"]] {
        let with = [words, &["--url", &url]].concat();
        assert_eq!(typed(&with, &[token]).0, 0, "{words:?}");
        let variables = [token, ("COHORTD_ADMIN_URL", url.as_str())];
        assert_eq!(typed(words, &variables), (0, String::new()), "{words:?}");
    }
    let (code, complaint) = typed(&["status", "--url", &url], &[]);
    assert_eq!(code, 64, "{complaint}");
    assert!(
        complaint.contains("no token is configured here: the configuration was read from no file"),
        "{complaint}"
    );
    let (code, complaint) = typed(&["status"], &[("COHORTD_ADMIN_URL", "here")]);
    assert!(code == 64 && complaint.contains("COHORTD_ADMIN_URL is not a URL"), "{complaint}");

    // Half a file, of which [admin] can be read; the secrets of a destination are not even looked for.
    let admin = format!("[admin]\naddress = \"{}\"\ntokens_file = \"token\"\n", cohortd.admin);
    let file = elsewhere.path().join("cohortd.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("it is ours");
    write(&format!(
        "{admin}[destinations.x.launchdarkly]\nservice_token_file = \"none\"\nodd = 1\n"
    ));
    assert_eq!(typed(&["audiences"], &[]), (0, String::new()));
    write(&format!("[listen\n{admin}"));
    let (code, complaint) = typed(&["audiences"], &[]);
    assert_eq!(code, 0, "{complaint}");
    let place = format!("its [admin] section can still be read: asking {}", cohortd.admin);
    assert!(
        complaint.contains("TOML parse error at line 1") && complaint.contains(&place),
        "{complaint}"
    );
    // One whose token cannot be read is told, and asks all the same.
    write(&admin.replace("\"token\"", "\"none\""));
    let (code, complaint) = typed(&["status"], &[]);
    assert_eq!(code, 64, "{complaint}");
    assert!(
        complaint.contains("admin.tokens_file = ")
            && complaint.contains("no token is configured here"),
        "{complaint}"
    );
}

async fn one_destination_need_not_be_named_and_words_come_in_one_order() {
    let (_launchdarkly, installation, cohortd) = running().await;
    let typed = |words: &[&str]| type_in(&installation, &cohortd, words);
    assert!(typed(&["member", "ada"]).done().contains("vip"));
    assert_eq!(typed(&["member", "ada"]).done(), typed(&["member", "production", "ada"]).done());
    assert!(typed(&["pause"]).done().starts_with("production: nothing is delivered"));
    assert!(typed(&["resume"]).done().starts_with("production: delivery resumed"));
    for words in [
        &["resync", "aud_vip"][..],
        &["resync", "production", "aud_vip"],
        &["resync", "aud_vip", "--destination", "production"],
        &["resync", "production", "--all"],
    ] {
        assert!(typed(words).done().starts_with("production: 1 audience(s)"), "{words:?}");
    }
    for words in [
        &["parked", "list", "aud_vip"][..],
        &["parked", "list", "production", "aud_vip"],
        &["parked", "requeue", "production", "--audience", "aud_vip"],
    ] {
        typed(words).done();
    }
    let refused: [(&[&str], &str); 7] = [
        (&["resync", "production"], "name an audience by its id, or use --all"),
        (&["resync", "aud_vip", "--all"], "exclude each other"),
        (&["drop"], "say what to drop: an audience by its id, or the destination"),
        (&["drop", "vip"], "there is no audience vip; `cohortd audiences` lists them"),
        (&["parked", "list", "vip"], "nor is it a destination; there are: production"),
        (&["forget", "production"], "production is a destination: name the person after it"),
        (&["parked", "discard", "production"], "say which ones: --audience ID"),
    ];
    for (words, says) in refused {
        let typed = typed(words);
        assert_eq!(typed.code, 64, "{words:?}: {}", typed.out);
        assert!(typed.complaint.contains(says), "{words:?}: {}", typed.complaint);
    }
    installation.drained().await;
}

async fn what_would_be_done_is_said_and_not_done_and_what_was_done_is_counted() {
    let (launchdarkly, installation, cohortd) = running().await;
    enter(&cohortd, "beta", &["ada"]).await;
    installation.drained().await;
    let mut unclear = identify("eve", "beta", true, NOW_MS);
    unclear["traits"]["beta"] = json!("perhaps");
    assert_eq!(cohortd.post(&unclear).await.expect("an answer").0, 400);
    let dry: [(&[&str], u64, &str); 8] = [
        (&["forget", "ada"], 2, "known in 2 audiences: aud_beta, aud_vip"),
        (&["forget", "nobody"], 0, "in any audience; no rejected event of theirs is kept"),
        (&["forget", "eve"], 0, "in any audience; 1 rejected event of theirs is kept"),
        (&["drop", "aud_vip"], 1, "production, aud_vip: 1 audience: 3 members in it are forgotten"),
        (&["drop"], 2, "production: 2 audiences: 4 members in them are forgotten"),
        (&["drop", "production", "--retract"], 2, "leave their segments"),
        (&["rejected", "discard", "--all"], 1, "1 rejected event, to be discarded"),
        (&["parked", "discard", "--all"], 0, "0 parked members, to be forgotten"),
    ];
    for (words, count, says) in dry {
        let words = [words, &["--dry-run"]].concat();
        let told = type_in(&installation, &cohortd, &words).done();
        assert!(told.contains(says) && told.contains("nothing was done"), "{words:?}: {told}");
        let mut expected = json!({"count": count, "dry_run": true});
        if words[0] == "forget" {
            expected["rejected"] = json!(u64::from(words[1] == "eve"));
        }
        assert_eq!(said(&installation, &cohortd, &words), expected, "{words:?}");
    }
    assert_eq!(said(&installation, &cohortd, &["audiences"]).as_array().map(Vec::len), Some(2));

    let nobody = type_in(&installation, &cohortd, &["forget", "nobody"]).done();
    assert!(nobody.contains("nobody with that user id is known in any audience"), "{nobody}");
    let ada = type_in(&installation, &cohortd, &["forget", "ada"]).done();
    assert!(ada.contains("the person was known in 2 audiences"), "{ada}");
    until_members(&launchdarkly, "vip", &["bob", "cyd"]).await;
    let eve = &["forget", "eve"];
    type_in(&installation, &cohortd, eve).done();
    assert_eq!(said(&installation, &cohortd, &["forget", "eve", "--dry-run"])["rejected"], 0);
}

/// A name that is not there means that another one was meant: nobody is parked, and that is no answer.
async fn an_audience_that_is_not_there_is_told_with_those_that_are() {
    let (_launchdarkly, installation, cohortd) = running().await;
    enter(&cohortd, "beta", &["ada"]).await;
    installation.drained().await;
    for words in [
        &["parked", "list", "production", "aud_vp"][..],
        &["parked", "list", "--json", "--audience", "aud_vp"],
        &["parked", "list", "--audience", ""],
        &["parked", "requeue", "--audience", "aud_vp"],
        &["parked", "requeue", "--audience", "aud_vp", "--key", "ada"],
        &["parked", "discard", "--audience", "aud_vp"],
        &["parked", "discard", "--audience", "aud_vp", "--dry-run"],
    ] {
        let refused = type_in(&installation, &cohortd, words);
        assert_eq!((refused.code, &*refused.out), (64, ""), "{words:?}: {}", refused.complaint);
        let there = " in production; there are: aud_beta, aud_vip";
        assert!(refused.complaint.contains(there), "{words:?}: {}", refused.complaint);
    }
    for known in [&["parked", "list", "aud_vip"][..], &["parked", "requeue", "aud_vip"]] {
        type_in(&installation, &cohortd, known).done();
    }
}

/// Whoever takes a connection and says nothing is no daemon; one that is only busy is waited for.
async fn who_says_nothing_is_not_waited_for_as_long_as_who_is_busy() {
    let (_launchdarkly, installation, _cohortd) = running().await;
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mute = format!("http://{}", mute.local_addr().expect("it is bound"));
    let lives = std::sync::Arc::new(tokio::sync::Notify::new());
    let (asked, answered) = (std::sync::Arc::clone(&lives), lives);
    let busy = axum::Router::new()
        .route("/livez", axum::routing::get(async move || asked.notify_one()))
        .fallback(async move || {
            answered.notified().await;
            json!({"count": 1}).to_string()
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, busy).await });
    let typed = |url: &str| {
        let mut command = installation.line(None, &["pause", "production", "--url", url]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        (std::time::Instant::now(), command.spawn().expect("the binary runs"))
    };
    let (began, of_mute) = typed(&mute);
    let (_, of_busy) = typed(&format!("http://{address}"));
    let busy = tokio::task::spawn_blocking(|| of_busy.wait_with_output()).await;
    let busy = busy.expect("it waits").expect("it is our child");
    assert!(busy.status.success(), "{}", String::from_utf8_lossy(&busy.stderr));
    let mute = tokio::task::spawn_blocking(|| of_mute.wait_with_output()).await;
    let mute = mute.expect("it waits").expect("it is our child");
    let took = began.elapsed();
    let complaint = String::from_utf8_lossy(&mute.stderr).into_owned();
    assert_eq!(mute.status.code(), Some(69), "{complaint}");
    assert!(took.as_secs() < 20, "{took:?}"); // ten, and what a busy machine adds
    for words in [
        "POST /api/v1/destinations/production/pause was not answered within 10 s; whether it was \
         carried out is unknown",
        "The address is that of --url or COHORTD_ADMIN_URL",
    ] {
        assert!(complaint.contains(words), "{words}: {complaint}");
    }
}

async fn a_dropped_audience_is_retracted_or_left_as_it_is() {
    let (launchdarkly, installation, cohortd) = running().await;
    enter(&cohortd, "beta", &["ada", "dan"]).await;
    until_members(&launchdarkly, "beta", &["ada", "dan"]).await;
    installation.drained().await;
    type_in(&installation, &cohortd, &["drop", "production", "aud_beta", "--retract"]).done();
    until_members(&launchdarkly, "beta", &[]).await;
    installation.drained().await;
    type_in(&installation, &cohortd, &["drop", "production", "aud_vip"]).done();
    assert_eq!(said(&installation, &cohortd, &["audiences", "production"]), json!([]));
    until_members(&launchdarkly, "vip", &["ada", "bob", "cyd"]).await;
}

async fn rows_of_a_renamed_destination_are_kept_shown_and_moved() {
    let (launchdarkly, mut installation, cohortd) = running().await;
    assert!(cohortd.stop().0.success());
    let of_old: Vec<(&str, &str)> = vec![
        ("segment.shared_secrets", SHARED_SECRET),
        ("launchdarkly.client_side_id", ENVIRONMENT),
        ("launchdarkly.service_token", crate::harness::SERVICE_TOKEN),
    ];
    let base_url = launchdarkly.url().to_string();
    for (key, value) in of_old {
        installation.unset(&format!("destinations.production.{key}"));
        installation.set(&format!("destinations.live.{key}"), value);
    }
    installation.unset("destinations.production.launchdarkly.base_url");
    installation.set("destinations.live.launchdarkly.base_url", &base_url);

    let cohortd = installation.start();
    let shown = type_in(&installation, &cohortd, &["audiences"]).done();
    assert!(shown.contains("production is not configured: its rows are kept"), "{shown}");
    let refused = type_in(&installation, &cohortd, &["drop", "production", "--retract"]);
    assert_eq!(refused.code, 64);
    assert!(refused.complaint.contains("is not configured"), "{}", refused.complaint);
    let in_use = type_in(&installation, &cohortd, &["ledger", "rename", "production", "live"]);
    assert_eq!(in_use.code, 69, "{}", in_use.complaint);
    let calls = launchdarkly.calls().total;
    assert!(cohortd.stop().0.success());
    installation.types(None, &["ledger", "rename", "production", "live"]).done();
    let again = installation.types(None, &["ledger", "rename", "production", "live"]);
    assert_eq!(again.code, 64, "{}", again.complaint);

    let cohortd = installation.start();
    let known = said(&installation, &cohortd, &["audiences", "live"]);
    assert_eq!((&known[0]["included"], &known[0]["pending"]), (&3.into(), &0.into()));
    installation.drained().await;
    assert_eq!(launchdarkly.calls().total, calls, "the environment is the same: nothing is told");
}

async fn stale_members_are_retracted_once_the_audience_has_come_again() {
    let (launchdarkly, installation, cohortd) = running().await;
    assert!(cohortd.stop().0.success());
    // Another field is the user id now: the keys of before are nobody's.
    let mapping = r#"
        [destinations.production.mapping]
        segment_user_id = { "@path" = "$.traits.id" }
    "#;
    installation.write_config(mapping);
    let cohortd = installation.start();
    let early = type_in(&installation, &cohortd, &["resync", "--retract-stale"]).done();
    assert!(early.contains("left alone: aud_vip"), "{early}");
    let mut again = identify("ada", "vip", true, NOW_MS + 1);
    again["traits"]["id"] = json!("number-1");
    assert_eq!(cohortd.post(&again).await.expect("an answer").0, 200);
    let retracted = said(&installation, &cohortd, &["resync", "aud_vip", "--retract-stale"]);
    assert_eq!(retracted["count"], 1, "{retracted}");
    until_members(&launchdarkly, "vip", &["number-1"]).await;
}

async fn the_api_answers_mistakes_with_problems_and_logs_every_change_without_names() {
    let (_launchdarkly, installation, cohortd) = running().await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let at = |path: &str| format!("http://{}/api/v1/destinations{path}", cohortd.admin);
    let post = |path: &str, body: &'static str| {
        client.post(at(path)).header("content-type", "application/json").body(body)
    };
    let no_type = client.post(at("/production/pause")).body("{}");
    let foreign = post("/production/pause", "{}").header("origin", "https://attacker.example");
    let table = [
        (no_type, 415, "Content-Type: application/json"),
        (foreign, 403, "another origin"),
        (post("/production/pause", "{\"a\":1}"), 422, "JSON object"),
        (post("/production/resync", "[null, true]"), 422, "array"),
        (post("/production/pause", "no"), 400, "line 1"),
        (post("/production/pause", Box::leak("x".repeat(3 << 20).into_boxed_str())), 413, "2 MiB"),
        (post("/nobody/pause", "{}"), 404, "destination nobody"),
        (post("/production/forget", "{\"user_id\":\"\"}"), 422, "user_id"),
        (post("/production/parked/requeue", "{\"context_key\":\"ada\"}"), 422, "audience"),
        (post("/production/rejected/replay", "{\"id\":77}"), 404, "77"),
        (client.get(at("/production/parked?limit=x")), 400, "query"),
        (client.get(at("/production/parked?limit=1001")), 400, "limit must be from 1 to 1000"),
        (client.get(at("/nobody/rejected")), 404, "there are: production"),
        (client.get(at("/a.person@example.com/audiences")), 404, "no destination of that name"),
        (client.get(at("/production/rejected/x")), 404, "must be a number"),
        (client.get(at("/production/members/%FF")), 404, "of that name"),
        (client.get(at("/production/pause")), 405, "does not accept this method"),
        (client.get(at("/production/nothing")), 404, "no such route"),
    ];
    for (request, status, words) in table {
        let answer = request.send().await.expect("an answer");
        let kind = answer.headers().get("content-type").cloned();
        let (found, text) = (answer.status(), answer.text().await.expect("a text"));
        assert_eq!(found, status, "{words}: {text}");
        assert_eq!(kind.expect("it says what it is"), "application/problem+json", "{text}");
        let problem: Value = serde_json::from_str(&text).expect("a problem document");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().is_some_and(|said| said.contains(words)), "{text}");
    }
    let probe = client.post(format!("http://{}/livez", cohortd.admin)).send().await;
    assert_eq!(probe.expect("an answer").headers()["content-type"], "application/problem+json");
    type_in(&installation, &cohortd, &["forget", "production", "ada"]).done();
    let line = cohortd.until_logged("operator: deletion of a person recorded").await;
    assert_eq!((&line["audit"], &line["level"]), (&true.into(), &"INFO".into()));
    assert!(!line.to_string().contains("ada"), "{line}");
}

tests![
    audiences_and_members_are_shown_with_what_should_be_and_what_is_known,
    lists_come_in_parts_that_say_where_they_go_on,
    parked_members_are_listed_requeued_and_discarded,
    an_audience_that_is_not_there_is_told_with_those_that_are,
    who_says_nothing_is_not_waited_for_as_long_as_who_is_busy,
    rejected_events_are_replayed_through_the_present_mapping,
    large_rejected_events_are_listed_replayed_and_discarded_in_flat_memory,
    a_replay_of_what_is_older_than_the_tombstones_needs_force,
    a_resync_tells_everybody_again,
    a_paused_destination_keeps_events_across_a_restart_until_it_is_resumed,
    a_forgotten_person_leaves_every_audience_and_every_list,
    a_deletion_whose_removal_is_refused_is_parked_until_it_is_told,
    operators_ask_from_anywhere_and_beside_a_broken_configuration,
    one_destination_need_not_be_named_and_words_come_in_one_order,
    what_would_be_done_is_said_and_not_done_and_what_was_done_is_counted,
    a_dropped_audience_is_retracted_or_left_as_it_is,
    rows_of_a_renamed_destination_are_kept_shown_and_moved,
    stale_members_are_retracted_once_the_audience_has_come_again,
    the_api_answers_mistakes_with_problems_and_logs_every_change_without_names,
];
